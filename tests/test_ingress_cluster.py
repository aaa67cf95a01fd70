"""The service behind HAProxy, as the script starts it: two of them on one machine, and what HAProxy itself refuses."""

import json
import os
import select
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from urllib.parse import quote

import pytest

from raydex.embed import HashEmbedder
from tests.processes import descendants, free_port, is_running
from tests.service_process import programs, served
from tests.snapshots import make_snapshot
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

NAMES = ("left", "right")
OTHER_LOOPBACK = "127.0.0.9"
"""Reaches what listens on all interfaces, and not what listens on 127.0.0.1."""


@pytest.fixture(scope="module")
def pages() -> tuple[int, int]:
    """The ports of HAProxy's statistics, and of its figures for Prometheus."""
    return free_port(), free_port()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, pages: tuple[int, int]) -> Iterator[tuple[str, int]]:
    """One with two replicas behind HAProxy: its URL and process id."""
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", {"https://docs.example.org/#a": "the only one"}, HashEmbedder())
    stats, metrics = map(str, pages)
    ports = {"RAY_SERVE_HAPROXY_STATS_PORT": stats, "RAY_SERVE_HAPROXY_METRICS_PORT": metrics}
    with served(data_dir, "--replicas", "2", "--body-timeout-s", "1", **ports) as running:
        yield running


def answer(request: str | urllib.request.Request) -> tuple[dict[str, object], str | None]:
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response), response.headers["X-Request-Id"]


def raw(url: str, request: bytes) -> str:
    """Return what comes back, while a byte more is sent every tenth of a second."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(request)
        while not select.select([connection], [], [], 0.1)[0]:
            connection.sendall(b"x")
        return connection.recv(65536).decode()


def reaches(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def test_a_caller_alone_keeps_its_replica(service):
    url, _ = service
    assert len({answer(f"{url}/indexes")[0]["replica"] for _ in range(8)}) == 1


def test_two_services_on_one_machine_answer_each_for_itself_and_end_alone(tmp_path):
    for name in NAMES:
        make_snapshot(tmp_path / name / "docs", {f"https://{name}.example.org/#a": f"the {name} one"}, HashEmbedder())
    with ExitStack() as stack:
        left, _ = stack.enter_context(served(tmp_path / "left", "--replicas", "1"))
        with served(tmp_path / "right", "--replicas", "1") as (right, pid):
            assert programs(pid, "haproxy")
            for url, name in ((left, "left"), (right, "right")):
                found, _ = answer(f"{url}/search?query=one&k=1")
                assert [result["content"] for result in found["results"]] == [f"the {name} one"]  # type: ignore[attr-defined]
            request = urllib.request.Request(f"{right}/search?query=one", headers={"X-Request-Id": "ticket-7"})
            assert answer(request)[1] == "ticket-7"
            longest = quote("\u6587" * 4000)  # 36 kB of URL
            assert answer(f"{right}/search?query={longest}&k=1")[0]["status"] == "ok"
            assert raw(right, b"NONSENSE\r\n\r\n").startswith("HTTP/1.1 400 ")
        assert answer(f"{left}/search?query=two&k=1")[0]["status"] == "ok"


def test_a_service_that_is_killed_leaves_nothing_behind_and_its_port_is_free(tmp_path):
    make_snapshot(tmp_path / "docs", {"https://docs.example.org/#a": "the only one"}, HashEmbedder())
    with served(tmp_path, "--replicas", "1") as (url, pid):
        below = descendants(pid)
        assert programs(pid, "haproxy")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not any(is_running(one) for one in below), within_s=150)  # agents of Ray look for a minute
        assert not reaches("127.0.0.1", int(url.rpartition(":")[2]))


def test_rays_own_proxy_answers_where_it_is_wanted(tmp_path):
    make_snapshot(tmp_path / "docs", {"https://docs.example.org/#a": "the only one"}, HashEmbedder())
    with served(tmp_path, "--replicas", "1", "--ingress", "proxy") as (url, pid):
        assert not programs(pid, "haproxy")
        found, request_id = answer(f"{url}/search?query=one&k=1")
        assert [result["content"] for result in found["results"]] == ["the only one"]  # type: ignore[attr-defined]
        assert request_id


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /search?query=one HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{",
    ],
    ids=["headers", "body"],
)
def test_a_client_that_trickles_its_request_is_let_go(service, request_):
    url, _ = service
    assert raw(url, request_).startswith("HTTP/1.1 408 ")


def test_pages_of_haproxy_itself_are_on_loopback_alone(service, pages):
    assert [(reaches("127.0.0.1", port), reaches(OTHER_LOOPBACK, port)) for port in pages] == [(True, False)] * 2


def test_a_killed_haproxy_comes_back_and_knows_its_replicas(service):
    url, pid = service
    statuses: set[int] = set()

    def is_answered() -> bool:
        try:
            return answer(f"{url}/search?query=one&k=1")[0]["status"] == "ok"
        except urllib.error.HTTPError as error:
            with error:
                statuses.add(error.code)
        except OSError:  # refused, broken
            pass
        return False

    for killed in programs(pid, "haproxy"):
        os.kill(killed, signal.SIGKILL)
    assert not is_answered()
    assert eventually(is_answered, within_s=60)
    assert all(is_answered() for _ in range(20))
    assert statuses == set()  # no 404 of one that has still to be told
