"""A service whose shards are in groups of processes, on a real Ray: what it answers, when it swaps, when one dies."""

import os
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from bench.swap import MARK, Load, swap_often
from raydex.config import LimitsConfig, ScalingConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.records import Shard
from raydex.search import megabytes, split
from raydex.serve.groups import group_count
from raydex.snapshot import current_id, read_manifest
from tests.processes import command_line, descendants, free_port
from tests.serving import client_for
from tests.snapshots import make_snapshot
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

TEXTS = {
    f"https://docs.example.org/{topic}{page}.html#{verb}": f"How to {verb} a {topic}, all about {topic} {page}."
    for topic in ("file", "date", "socket", "thread")
    for page in range(4)
    for verb in ("open", "read", "close")
}
QUERIES = ("all about file", "how do I close a date?", "read a socket")
FIRST_OF_ALL = {"mode": "lexical", "k": 20}
GROUP = re.compile(r"ray::ServeReplica:raydex:(ShardGroup\d+)\b")


def make(index_dir: Path, ending: str, hours_ago: int, *, published: bool = True) -> str:
    texts = {url: f"{text}{ending}" for url, text in TEXTS.items()}
    now = datetime.now(UTC) - timedelta(hours=hours_ago)
    return make_snapshot(index_dir, texts, HashEmbedder(), shards=6, now=now, published=published).snapshot_id


@dataclass
class Service:
    url: str
    config: ServeConfig

    def ask(self, query: str, **parameters: Any) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/search", params={"query": query, **parameters}, timeout=60)
        assert answer.status_code == httpx.codes.OK, answer.text
        return dict(answer.json())

    def shards_ok(self) -> set[int]:
        """Return what several answers of /indexes say, so that both replicas do."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            return {client.get("/indexes").json()["indexes"][0]["shards_ok"] for _ in range(12)}


@pytest.fixture
def service(cluster: Any, tmp_path: Path) -> Iterator[Service]:
    from ray import serve

    from raydex.serve.deployments import build_application

    make(tmp_path / "docs", "", 10)
    most = max(map(megabytes, parts(tmp_path / "docs")))
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    config = ServeConfig(
        data_dir=tmp_path,
        replicas=2,
        swap_check_s=0.2,
        scaling=ScalingConfig(group_memory_mb=most, group_timeout_ms=3000),
        limits=LimitsConfig(default_timeout_ms=10_000, max_timeout_ms=10_000),
    )
    assert group_count(config) == 2
    serve.run(build_application(config), name="raydex", route_prefix="/")
    yield Service(f"http://127.0.0.1:{port}", config)
    serve.shutdown()


def parts(index_dir: Path) -> list[tuple[Shard, ...]]:
    """Return the shards of each of two groups."""
    return split(read_manifest(index_dir, current_id(index_dir)), 2)


def groups() -> dict[str, int]:
    """Return the running processes of groups: name → pid."""
    found = ((GROUP.match(command_line(pid)), pid) for pid in descendants(os.getpid()))
    return {match[1]: pid for match, pid in found if match}


def test_a_service_of_groups_answers_as_one_process_does(service):
    with client_for(service.config) as one_process:
        for query in QUERIES:
            for mode in ("hybrid", "dense", "lexical"):
                parameters = {"query": query, "mode": mode, "k": 20, "facets": True, "explain": True}
                expected = one_process.get("/search", params=parameters).json()
                found = service.ask(**parameters)
                for body in (expected, found):
                    del body["timings_s"]
                assert found == expected
        assert found["shards_ok"] == "6/6"
        batch = {"queries": list(QUERIES)}
        answers = httpx.post(f"{service.url}/search", json=batch, timeout=60).json()["answers"]
        assert answers == one_process.post("/search", json=batch).json()["answers"]
        section = quote(found["results"][0]["section_id"], safe="")
        expected = one_process.get(f"/sections/{section}").json()
        assert httpx.get(f"{service.url}/sections/{section}", timeout=60).json() == expected
        suggested = httpx.get(f"{service.url}/suggest", params={"query": "file"}, timeout=60).json()
        assert suggested == one_process.get("/suggest", params={"query": "file"}).json()
    assert eventually(lambda: service.shards_ok() == {6}, within_s=30)


def test_a_group_that_stands_still_leaves_answers_of_the_others_that_say_so_and_comes_back(service):
    assert service.ask("all about file", **FIRST_OF_ALL)["shards_ok"] == "6/6"
    size = len(parts(service.config.folder / "docs")[0])
    stopped, numbers = groups()["ShardGroup1"], count()
    os.kill(stopped, signal.SIGSTOP)
    try:
        answer = service.ask("all about thread", **FIRST_OF_ALL)
        assert answer["shards_ok"] == f"{size}/6"
        assert answer["message"].startswith(f"{size} of 6 shards were searched")
        assert eventually(lambda: size in service.shards_ok(), within_s=30)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert eventually(lambda: is_whole(service, next(numbers)), within_s=60)


def test_a_killed_group_is_replaced_and_fails_no_search_meanwhile(service):
    before, numbers = groups(), count()
    assert set(before) == {"ShardGroup0", "ShardGroup1"}
    os.kill(before["ShardGroup1"], signal.SIGKILL)
    assert eventually(
        lambda: is_whole(service, next(numbers)) and groups().get("ShardGroup1") not in {None, before["ShardGroup1"]},
        within_s=60,
    )


def is_whole(service: Service, number: int) -> bool:
    """Ask what nobody has asked before; is the answer of all shards?"""
    return bool(service.ask(f"all about file {number}", **FIRST_OF_ALL)["shards_ok"] == "6/6")


def test_swaps_of_a_service_of_groups_fail_no_request_mix_no_answer_and_miss_no_shard(service):
    index_dir = service.config.folder / "docs"
    first, second = current_id(index_dir), make(index_dir, MARK, 1, published=False)
    load = Load({first: False, second: True}, "docs")
    with load.running(service.url, 4, QUERIES):
        swap_often(service.url, index_dir, 6, lambda _: None)
    assert dict(load.failed) == {}
    assert load.mixed == 0
    assert set(load.answers) == {first, second}
    assert load.partial == 0


def test_callers_who_hang_up_cost_the_others_no_shard(service):
    """Ray Serve cancels what a request has asked other deployments for when its caller is gone."""
    host, port = service.url.removeprefix("http://").split(":")
    for number in range(60):
        with socket.create_connection((host, int(port))) as caller:
            caller.sendall(b"GET /search?query=file+%d&k=20 HTTP/1.1\r\nHost: x\r\n\r\n" % number)
        answer = service.ask(f"all about date {number}", k=20)
        assert answer["shards_ok"] == "6/6"
