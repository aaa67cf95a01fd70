"""The service behind HAProxy, as the script starts it: two of them on one machine, and what HAProxy itself refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from raydex.embed import HashEmbedder
from tests.processes import command_line, descendants, free_port, is_running
from tests.snapshots import make_snapshot
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ROOT = Path(__file__).parent.parent
NAMES = ("left", "right")


@contextmanager
def served(data_dir: Path, *flags: str) -> Iterator[tuple[str, int]]:
    """Run the script; yield its URL and process id, and see that nothing of it is left."""
    url, arguments = f"http://127.0.0.1:{(port := free_port())}", ["--data-dir", str(data_dir), "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, ROOT / "serve_index.py", *arguments, *flags],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as server:
        assert server.stdout is not None
        try:
            assert any(line.startswith("try ") for line in server.stdout)
            started = descendants(server.pid)
            yield url, server.pid
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=90)
    eventually(lambda: not any(is_running(pid) for pid in started), within_s=30)


def programs(pid: int) -> list[str]:
    return [command_line(below) for below in descendants(pid)]


def answer(request: str | urllib.request.Request) -> tuple[dict[str, object], str | None]:
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response), response.headers["X-Request-Id"]


def raw(url: str, request: bytes) -> str:
    """Return the first line that comes back."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        return connection.makefile("rb").readline().decode().strip()


def test_two_services_on_one_machine_answer_each_for_itself_and_end_alone(tmp_path):
    for name in NAMES:
        make_snapshot(tmp_path / name / "docs", {f"https://{name}.example.org/#a": f"the {name} one"}, HashEmbedder())
    with ExitStack() as stack:
        left, _ = stack.enter_context(served(tmp_path / "left", "--replicas", "1"))
        with served(tmp_path / "right", "--replicas", "1") as (right, pid):
            assert any("haproxy" in program.partition(" ")[0] for program in programs(pid))
            for url, name in ((left, "left"), (right, "right")):
                found, _ = answer(f"{url}/search?query=one&k=1")
                assert [result["content"] for result in found["results"]] == [f"the {name} one"]  # type: ignore[attr-defined]
            request = urllib.request.Request(f"{right}/search?query=one", headers={"X-Request-Id": "ticket-7"})
            assert answer(request)[1] == "ticket-7"
            longest = quote("\u6587" * 4000)  # 36 kB of URL
            assert answer(f"{right}/search?query={longest}&k=1")[0]["status"] == "ok"
            assert raw(right, b"NONSENSE\r\n\r\n") == "HTTP/1.1 400 Bad request"
        assert answer(f"{left}/search?query=two&k=1")[0]["status"] == "ok"


def test_rays_own_proxy_answers_where_it_is_wanted(tmp_path):
    make_snapshot(tmp_path / "docs", {"https://docs.example.org/#a": "the only one"}, HashEmbedder())
    with served(tmp_path, "--replicas", "1", "--ingress", "proxy") as (url, pid):
        assert not any("haproxy" in program.partition(" ")[0] for program in programs(pid))
        found, request_id = answer(f"{url}/search?query=one&k=1")
        assert [result["content"] for result in found["results"]] == ["the only one"]  # type: ignore[attr-defined]
        assert request_id
