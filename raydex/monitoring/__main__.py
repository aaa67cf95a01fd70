"""Prometheus and chart pages for a Ray that runs already, or the pages alone for a Prometheus that does.

    python -m raydex.monitoring --session /tmp/ray/session_latest
    python -m raydex.monitoring --prometheus http://prometheus:9090 --port 3000

The first line on stdout is the URL of the pages. Ends with SIGTERM or Ctrl-C.
"""

import argparse
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

from raydex.errors import ConfigError, RaydexError
from raydex.monitoring.pages import create_charts
from raydex.monitoring.prometheus import HOST, prometheus_running
from raydex.monitoring.running import (
    DISCOVERY_FILE,
    ServerThread,
    dashboards_folder,
    free_port,
    listening,
)
from utils.logs import configure_logging

STOPPED, FAILED, REFUSED = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    flags = _parser().parse_args(arguments)
    configure_logging()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with ExitStack() as stack:
            listener = stack.enter_context(listening(flags.port))
            prometheus_url = flags.prometheus or stack.enter_context(
                prometheus_running(
                    flags.folder or flags.session / "raydex_monitoring",
                    free_port(),
                    flags.session / DISCOVERY_FILE,
                    interval_s=flags.interval,
                )
            )
            folders = [*flags.dashboards, *([dashboards_folder(flags.session)] if flags.session else [])]
            stack.enter_context(ServerThread(listener, create_charts(prometheus_url, folders)))
            print(f"http://{HOST}:{listener.getsockname()[1]}", flush=True)  # noqa: T201 - a script
            stop.wait()
    except RaydexError as error:
        print(f"raydex.monitoring: {error}", file=sys.stderr)  # noqa: T201 - a script
        return REFUSED if isinstance(error, ConfigError) else FAILED
    return STOPPED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m raydex.monitoring", description=__doc__.splitlines()[0])
    watched = parser.add_mutually_exclusive_group(required=True)
    watched.add_argument("--session", type=Path, help="Folder of a Ray session on this machine.")
    watched.add_argument("--prometheus", help="URL of a Prometheus that runs already.")
    parser.add_argument("--port", type=int, default=0, help="Port of the pages; 0: a free one.")
    parser.add_argument("--folder", type=Path, help="Where Prometheus keeps its data; without it, in the session.")
    parser.add_argument("--interval", type=float, default=10.0, help="Seconds between two scrapes.")
    parser.add_argument(
        "--dashboards", type=Path, action="append", default=[], help="Folder of more dashboards (repeat the flag)."
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
