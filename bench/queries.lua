-- Load for wrk: one distinct path after another, and what came of them as one line of JSON.
--
--   wrk -t1 -c8 -d5 -s bench/queries.lua http://127.0.0.1:8000 -- paths.txt 0 ["Bearer key"]
--
-- paths.txt: a path a line; the number: of the first line to ask, so that no two runs ask the same.

local threads = {}

function setup(thread)
   table.insert(threads, thread)
end

function init(args)
   paths, statuses, unhurried = {}, {}, 0
   for line in io.lines(args[1]) do
      paths[#paths + 1] = line
   end
   place = tonumber(args[2])
   if args[3] then
      wrk.headers["Authorization"] = args[3]
   end
end

function request()
   place = place + 1
   return wrk.format("GET", paths[(place - 1) % #paths + 1])
end

function response(status, headers)
   local name = tostring(status)
   statuses[name] = (statuses[name] or 0) + 1
   if (status == 429 or status == 503) and not headers["Retry-After"] and not headers["retry-after"] then
      unhurried = unhurried + 1
   end
end

function done(summary, latency)
   local counted, asked, unhurried = {}, 0, 0
   for _, thread in ipairs(threads) do
      for name, count in pairs(thread:get("statuses")) do
         counted[#counted + 1] = string.format('"%s": %d', name, count)
      end
      asked = thread:get("place")
      unhurried = thread:get("unhurried")
   end
   local errors = summary.errors
   io.write(string.format(
      '{"seconds": %.3f, "statuses": {%s}, "asked": %d, "refused_without_retry_after": %d, ' ..
      '"socket_errors": %d, "timeouts": %d, "p50_ms": %.2f, "p99_ms": %.2f}\n',
      summary.duration / 1e6, table.concat(counted, ", "), asked, unhurried,
      errors.connect + errors.read + errors.write, errors.timeout,
      latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
