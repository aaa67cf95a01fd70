"""Local stand-ins for the demo and the benches: a folder served on loopback, our service in a process of its own.

with served(Path("/usr/share/doc/python3.11/html")) as url, service("docs", Path("checkpoints")) as address: …
"""

import functools
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LAST_LINE_OF_SERVICE = "try "
"""How the last line begins that serve_index.py prints when it is ready."""

PYTHON_DOC = Path("/usr/share/doc/python3.11/html")
"""Debian's python3-doc: 530 HTML files, of which a crawl finds 498 pages (21,551 chunks). Fewer are in results of
bench/retrieval.py, which leaves out the pages that its questions come from, and of bench/incremental.py --pages.
"""


def unslowed() -> None:
    """Take out of the environment, for this process and all that it starts, what makes numpy slower than it is."""
    for variable in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(variable, None)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # with it, head and body in two packets cost 40 ms a page

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in http.server
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free loopback port; yield its URL."""
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@contextmanager
def service(index: str, data_dir: Path) -> Iterator[str]:
    """Run serve_index.py until the block ends, showing what it says; yield its URL when it serves."""
    port = free_port()
    command = [sys.executable, "serve_index.py", "--index", index, "--data-dir", str(data_dir), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, stdout=subprocess.PIPE, text=True)
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if line.startswith(LAST_LINE_OF_SERVICE):
                break
        else:
            raise subprocess.CalledProcessError(process.wait(), "serve_index.py")
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def stop(process: "subprocess.Popen[Any]") -> None:
    """Ask a program of ours to stop, and insist after 30 s."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
