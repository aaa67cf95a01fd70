"""serve_index.py in a process of its own, and what runs below it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import command_line, descendants, free_port, is_running
from tests.waiting import eventually

ROOT = Path(__file__).parent.parent


@contextmanager
def served(data_dir: Path, *flags: str, **environment: str) -> Iterator[tuple[str, int]]:
    """Run the script; yield its URL and process id, and see that nothing of it is left."""
    url, arguments = f"http://127.0.0.1:{(port := free_port())}", ["--data-dir", str(data_dir), "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, ROOT / "serve_index.py", *arguments, *flags],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
    ) as server:
        assert server.stdout is not None
        started: set[int] = set()
        try:
            assert any(line.startswith("try ") for line in server.stdout)
            started = descendants(server.pid)
            yield url, server.pid
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=90)
    eventually(lambda: not any(is_running(pid) for pid in started), within_s=30)


def programs(pid: int, name: str) -> list[int]:
    """Return the processes below one whose program bears the name."""
    return [below for below in descendants(pid) if name in command_line(below).partition(" ")[0]]
