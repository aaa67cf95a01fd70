"""Measures the service under load, against the well-known recipe, and writes bench/results/serve.json.

    python bench/serve.py [--data-dir FOLDER --index python3-doc]     needs: apt-get install wrk python3-doc; 5 minutes

In turn, on the same chunks and vectors and with the same distinct queries (no cache helps): the recipe on Ray Serve as
it comes, again with max_ongoing_requests=64, its search in one bare FastAPI process (bench/recipe_serve.py), and ours
in modes hybrid and dense, with validation, metrics and access control. wrk asks with 1, 8, 32 and 256 clients, each as
fast as it is answered. Without --data-dir the index is built first (2 minutes). The last line is one JSON object; its
ratios are requests/s of our hybrid search over those of the bare process.
"""

import argparse
import http.client
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT, free_port, served, stop, unslowed
from raydex.embed import load_embedder
from raydex.records import Query, StageTimes
from raydex.search import Searcher
from raydex.snapshot import open_snapshot
from tests.processes import command_line, descendants

RESULTS = ROOT / "bench" / "results" / "serve.json"
INDEX, MODEL = "python3-doc", "all-MiniLM-L6-v2"
CLIENTS = (1, 8, 32, 256)
QUERIES = 40_000
WARM_UP_S, PATIENCE_S = 1, 120
ALONE = 300
"""Queries asked one at a time for the share of each stage, and in process for the floor."""

REPLICA = re.compile(r"ray::ServeReplica:\S+:(Search|SearchService)\b")
"""A process that searches, the recipe's or ours, as Ray names it."""

GROUP = re.compile(r"ray::ServeReplica:\S+:ShardGroup\d+\b")
"""A process that has shards for those that search."""

Queries = Sequence[str]


def queries_of(index_dir: Path) -> list[str]:
    """Return distinct queries of 3 to 10 words: beginnings of sentences, and headings, in random order."""
    chance, found = random.Random(0), dict[str, None]()
    for shard in open_snapshot(index_dir, verify=False).shards:
        for text, headings in zip(shard.chunks["text"].to_pylist(), shard.chunks["headings"].to_pylist(), strict=True):
            found[" ".join(headings[-2:])] = None
            for sentence in re.split(r"[.:;\n]+\s", text):
                words = re.findall(r"[A-Za-z_][\w.]*", sentence)[: chance.randint(3, 10)]
                if len(words) >= 3:
                    found[" ".join(words)] = None
    queries = [query for query in found if 10 <= len(query) <= 100]
    chance.shuffle(queries)
    return queries[:QUERIES]


@contextmanager
def running(command: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """Run a program that serves, until the block ends."""
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        stop(process)


def first_answer(url: str, process: "subprocess.Popen[str]", key: str) -> None:
    """Return when a query has been answered."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S):
                return
        except (OSError, http.client.HTTPException) as error:
            if process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"{url} is not served: {error}") from error
            time.sleep(0.05)


def pss_mib(pid: int, kind: str = "Pss") -> float:
    """Return what a process holds in memory; of pages shared by several, its part. Pss_Anon: without mapped files."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return round(int(re.findall(rf"^{kind}:\s+(\d+)", text, re.MULTILINE)[0]) / 1024, 1)


def memory(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Return the PSS of each replica and what is its own of that, the latter of shard groups, and the PSS of all."""
    pids = {process.pid, *descendants(process.pid)}
    replicas = [pid for pid in pids if REPLICA.match(command_line(pid))] or [process.pid]
    groups = [pid for pid in pids if GROUP.match(command_line(pid))]
    of_groups = {"group_anon_mib": [pss_mib(pid, "Pss_Anon") for pid in groups]} if groups else {}
    return {
        **of_groups,
        "replica_pss_mib": [pss_mib(pid) for pid in replicas],
        "replica_anon_mib": [pss_mib(pid, "Pss_Anon") for pid in replicas],
        "all_pss_mib": round(sum(map(pss_mib, pids)), 1),
    }


class Load:
    """Asks with wrk; never the same query twice."""

    def __init__(self, queries: Queries, folder: Path, seconds: int, clients: Sequence[int]) -> None:
        self.queries, self._folder, self._seconds, self._asked = queries, folder, seconds, 0
        self.clients, self.key = clients, ""

    def __call__(self, url: str, clients: int, *, more: str = "") -> dict[str, Any]:
        """Return requests/s that were answered with 200, p50 and p99 in ms, what else came."""
        paths = self._folder / "paths.txt"
        paths.write_text("".join(f"/search?query={quote(query)}{more}\n" for query in self.queries))
        self._wrk(url, clients, WARM_UP_S, paths)
        found = self._wrk(url, clients, self._seconds, paths)
        answered = found["statuses"].pop("200", 0)
        return {
            "rps": round(answered / found.pop("seconds"), 1),
            "p50_ms": found.pop("p50_ms"),
            "p99_ms": found.pop("p99_ms"),
            "other_statuses": found.pop("statuses"),
            **{name: found[name] for name in ("refused_without_retry_after", "socket_errors", "timeouts")},
        }

    def _wrk(self, url: str, clients: int, seconds: int, paths: Path) -> dict[str, Any]:
        command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "20s", "-s", "bench/queries.lua", url]
        command += ["--", str(paths), str(self._asked), f"Bearer {self.key}"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self._asked = found.pop("asked")
        if self._asked > len(self.queries):
            raise RuntimeError(f"more than {len(self.queries)} queries were asked of one service: some came twice")
        return found

    def next_queries(self, count: int) -> Queries:
        self._asked += count
        return self.queries[self._asked - count : self._asked]

    def again(self) -> None:
        """Begin anew with the first query, for the next service."""
        self._asked = 0


def measure(name: str, command: Sequence[str], port: int, load: Load, modes: Sequence[str] = ("",)) -> dict[str, Any]:
    """Start a program, load it in each mode (an addition to each URL), and stop it."""
    load.again()
    url, started = f"http://127.0.0.1:{port}", time.perf_counter()
    with running(command) as process:
        first_answer(f"{url}/search?query={quote(load.queries[-1])}", process, load.key)
        result: dict[str, Any] = {"cold_start_s": round(time.perf_counter() - started, 1)}
        for mode in modes:
            result[mode or "load"] = by_clients = {}
            for clients in load.clients:
                by_clients[str(clients)] = found = load(url, clients, more=mode and f"&mode={mode}")
                told = f"p50 {found['p50_ms']:8.1f}  p99 {found['p99_ms']:8.1f} ms"
                print(f"{name:14} {mode:8} {clients:4} clients {found['rps']:8.1f}/s  {told}", flush=True)
        if modes != ("",):
            result["stages_ms"] = stages(url, load)
        result.update(memory(process))
    return result


def stages(url: str, load: Load) -> dict[str, float]:
    """Return the mean ms of each stage of a hybrid search at one client, and of all that is not search."""
    total, seconds = 0.0, dict[str, float]()
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    for query in load.next_queries(ALONE):
        started = time.perf_counter()
        connection.request("GET", f"/search?query={quote(query)}", headers={"Authorization": f"Bearer {load.key}"})
        body = connection.getresponse().read()
        total += time.perf_counter() - started
        for stage, taken in json.loads(body)["timings_s"].items():
            seconds[stage] = seconds.get(stage, 0.0) + taken
    connection.close()
    seconds["around"] = total - seconds.pop("total")
    return {stage: round(1e3 * taken / ALONE, 3) for stage, taken in {**seconds, "whole": total}.items()}


def floor(index_dir: Path, queries: Queries) -> dict[str, float]:
    """Return queries/s of our search alone: this process, one thread, one query after another."""
    embedder, searcher = load_embedder(MODEL, threads=1), Searcher("bench", open_snapshot(index_dir, verify=False))

    def rate(find: Callable[[str], object]) -> float:
        for query in queries[:20]:
            find(query)
        started = time.perf_counter()
        for query in queries[20 : 20 + ALONE]:
            find(query)
        return round(ALONE / (time.perf_counter() - started), 1)

    def found(mode: Any) -> Callable[[str], object]:
        return lambda text: searcher.find(
            Query(text=text, mode=mode), embedder.embed_queries([text])[0], times=StageTimes()
        )

    return {"hybrid": rate(found("hybrid")), "dense": rate(found("dense"))}


def build(work: Path) -> Path:
    """Build the index of python3-doc; return the data folder."""
    with served(PYTHON_DOC) as url:
        (work / "sources.toml").write_text(f'[[source]]\nname = "python"\nseeds = ["{url}index.html"]\n')
        command = ["build_index.py", "--sources", str(work / "sources.toml"), "--index", INDEX]
        command += ["--data-dir", str(work / "data"), "--model", MODEL]
        subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return work / "data"


def new_key(keys: Path) -> str:
    """Return a key that may search, so often that its rate is counted and never reached."""
    command = ["serve_index.py", "--create-key", "bench", "--scopes", "search", "--rate", "100000/second"]
    command += ["--keys-file", str(keys)]
    done = subprocess.run([sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return str(json.loads(done.stdout.splitlines()[-1])["key"])


def compare(data_dir: Path, index: str, load: Load, work: Path, which: Sequence[str]) -> dict[str, Any]:
    store, recipe = str(work / "store"), "bench/recipe_serve.py"
    python, port = sys.executable, str(free_port())
    subprocess.run([python, recipe, "save", str(data_dir / index), store], cwd=ROOT, check=True)
    ours = ["serve_index.py", "--data-dir", str(data_dir), "--index", index, "--port", port]
    ours += ["--keys-file", str(work / "keys.json")]
    load.key = new_key(work / "keys.json")
    programs: dict[str, tuple[list[str], tuple[str, ...]]] = {
        "recipe": ([recipe, "ray", store, port], ("",)),
        "recipe_64": ([recipe, "ray", store, port, "64"], ("",)),
        "bare": ([recipe, "bare", store, port], ("",)),
        "ours": (ours, ("hybrid", "dense")),
    }
    return {
        "queries": len(load.queries),
        **{name: measure(name, [python, *programs[name][0]], int(port), load, programs[name][1]) for name in which},
        "floor_qps": floor(data_dir / index, load.queries),
    }


def ratios(result: dict[str, Any], mode: str) -> dict[str, float | None]:
    """Return clients → ratio; None where the bare process answered nobody."""
    bare, ours = result["bare"]["load"], result["ours"][mode]
    return {
        clients: round(ours[clients]["rps"] / one["rps"], 2) if one["rps"] else None for clients, one in bare.items()
    }


def readme_row(result: Mapping[str, Any]) -> str:
    """Return the row of README.md."""
    ours, recipe = result["ours"]["hybrid"], result["recipe"]["load"]
    rates = " / ".join(f"{ours[clients]['rps']:.0f}" for clients in ("1", "8", "32"))
    ratio = " / ".join(f"{result['ratio'][clients]:.1f}" for clients in ("1", "8", "32"))
    over_recipe = ours["32"]["rps"] / max(recipe["32"]["rps"], 0.1)
    return (
        f"| served, [`bench/serve.py`](bench/serve.py) | {rates} requests/s from 1 / 8 / 32 clients (hybrid): "
        f"{ratio} × LangChain's search in one FastAPI process, {over_recipe:.0f} × the recipe on Ray Serve at 32; "
        f"{ours['256']['rps']:.0f}/s from 256; p50 {ours['1']['p50_ms']:.1f} ms alone, p99 {ours['32']['p99_ms']:.0f} "
        f"ms at 32; alone {ours['1']['rps'] / result['floor_qps']['hybrid']:.0%} of our search in process |"
    )


def doc_rows(result: Mapping[str, Any]) -> list[str]:
    """Return the rows of the tables in docs/serving.md."""
    rows = []
    for name, key, mode in (
        ("the recipe on Ray Serve", "recipe", "load"),
        ("the same, max_ongoing_requests=64", "recipe_64", "load"),
        ("its search in one FastAPI process", "bare", "load"),
        ("Raydex, hybrid", "ours", "hybrid"),
        ("Raydex, dense", "ours", "dense"),
    ):
        figures = result[key][mode]
        cells = [
            f"{one['rps']:.0f} / {one['p50_ms']:.1f} / {one['p99_ms']:.0f}"
            for one in map(figures.get, map(str, CLIENTS))
        ]
        memory = " + ".join(f"{size:.0f}" for size in result[key]["replica_pss_mib"])
        rows.append(f"| {name} | {' | '.join(cells)} | {result[key]['cold_start_s']:.0f} s | {memory} |")
    stages = " · ".join(f"{stage} {taken:.2f}" for stage, taken in result["ours"]["stages_ms"].items())
    floor = result["floor_qps"]
    return [*rows, f"{stages} ms", f"{floor['hybrid']:.0f} queries/s hybrid, {floor['dense']:.0f} dense"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="Folder of an index that is built already.")
    parser.add_argument("--index", default=INDEX, help=f"Its name. [default: {INDEX}]")
    parser.add_argument("--seconds", type=int, default=6, help="Of each load. [default: 6]")
    parser.add_argument("--clients", type=int, nargs="*", default=CLIENTS, help="How many ask. [default: 1 8 32 256]")
    parser.add_argument("--only", nargs="*", help="Measure these alone, and write nothing: recipe recipe_64 bare ours")
    options = parser.parse_args()
    unslowed()
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as folder:
        work = Path(folder)
        data_dir = options.data_dir.absolute() if options.data_dir else build(work)
        which = options.only or ("recipe", "recipe_64", "bare", "ours")
        load = Load(queries_of(data_dir / options.index), work, options.seconds, options.clients)
        result = compare(data_dir, options.index, load, work, which)
    if {"bare", "ours"} <= set(which):
        result = {"ratio": ratios(result, "hybrid"), "ratio_dense": ratios(result, "dense"), **result}
    result |= {"processors": len(os.sched_getaffinity(0)), "machine": platform.machine()}
    if not options.only:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print("for README.md and docs/serving.md:", readme_row(result), *doc_rows(result), sep="\n")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
