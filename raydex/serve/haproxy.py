"""Runs in HAProxy's place: mends the configuration that Ray has written for it, then becomes HAProxy.

    python -I -S raydex/serve/haproxy.py /path/to/haproxy 10 -db -f haproxy.cfg [-sf 123 …]      (10: HEADERS_TIMEOUT_S)

Ray has no switch for what is mended here: pages of HAProxy's own on all interfaces, no end for a client that trickles
headers, a lost replica that loses the requests it had, errors as plain text with status 500. And a HAProxy that Ray
starts after one died knows no replica, and answers 404 until it is told: here it begins with what the last one knew.
Standard library only, and nothing of raydex: it is started each time that a replica comes or goes.
"""

import json
import os
import re
import sys
from http import HTTPStatus
from pathlib import Path

LAST_KNOWN = "last-known.cfg"
"""Beside the configuration: as it was when HAProxy was last told which replicas there are."""

SAID_HERE = {
    400: ("malformed_request", "This is not HTTP, or its headers are too long."),
    408: ("request_too_slow", "The headers did not come in time."),
    500: ("internal_error", "What takes the requests failed. Ask again."),
    502: ("unavailable", "A replica was lost while it answered. Ask again."),
    503: ("unavailable", "No replica can be reached. Ask again soon."),
    504: ("unavailable", "A replica did not answer in time. Ask again."),
}
"""What HAProxy says itself: type and message, in a body like that of the service's own errors. To a request that it
cannot read 2.8 says 400 or 408 in HTML all the same (https://github.com/haproxy/haproxy/issues/3032).
"""

RETRY_AFTER_S = 1


def mended(text: str, headers_timeout_s: int) -> str:
    """Return Ray's configuration with our changes. Raises ValueError when a line that is to be changed is not there."""
    errors = [f"    http-error status {status} {_body(status)}" for status in SAID_HERE]
    changes = {
        r"^    bind :(?=\d+$)": "    bind 127.0.0.1:",  # figures for Prometheus
        r"^  bind \*:(?=\d+$)": "  bind 127.0.0.1:",  # statistics
        r"^    errorfile .*\n": "",  # a 500 for all
        r"^defaults\n": "\n".join(["defaults", f"    timeout http-request {headers_timeout_s}s", *errors, ""]),
        # only what changes nothing is asked of a second replica when the first is lost with it
        r"^frontend http_frontend\n": "frontend http_frontend\n    http-request disable-l7-retry unless METH_GET\n",
        # no replica is known yet
        r"^    http-request return status 404 .*$": f"    http-request return status 503 {_body(503)}",
    }
    for pattern, new in changes.items():
        text, count = re.subn(pattern, new, text, flags=re.MULTILINE)
        if not count:
            raise ValueError(f"Ray configures HAProxy otherwise than this was made for: nothing like {pattern!r}")
    return text


def _body(status: int) -> str:
    kind, message = SAID_HERE[status]
    error = {"type": kind, "message": message, "field": None, "request_id": ""}
    again = f" hdr Retry-After {RETRY_AFTER_S}" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    return f"content-type application/json string '{json.dumps({'error': error})}'{again}"


def prepare(config: Path, *, is_reload: bool, headers_timeout_s: int) -> None:
    """Mend the file, or put what was last known in its place when HAProxy starts anew."""
    last_known = config.with_name(LAST_KNOWN)
    if not is_reload and last_known.exists():
        config.write_text(last_known.read_text())
        return
    text = mended(config.read_text(), headers_timeout_s)
    config.write_text(text)
    if is_reload:
        last_known.write_text(text)


def main() -> None:
    program, headers_timeout_s, *arguments = sys.argv[1:]
    config, is_reload = Path(arguments[arguments.index("-f") + 1]), "-sf" in arguments
    prepare(config, is_reload=is_reload, headers_timeout_s=int(headers_timeout_s))
    os.execv(program, [program, *arguments])  # noqa: S606 - the one that Ray would have run


if __name__ == "__main__":
    main()
