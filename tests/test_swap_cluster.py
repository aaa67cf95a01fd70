"""Two replicas on a real Ray follow CURRENT together, while clients query and when one of them dies."""

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.swap import MARK, REPLICA, Load, replica_pss, swap_often
from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.snapshot import current_id, publish, read_manifest
from tests.machines import TEXTS
from tests.processes import command_line, descendants, free_port
from tests.service_process import programs, served
from tests.snapshots import make_snapshot
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

QUERIES = ("all about file", "all about date")
ASKED = 12
"""Times that /indexes is asked, so that both replicas answer."""


def make(index_dir: Path, ending: str, hour: int, *, published: bool = True) -> str:
    texts = {url: f"{text}{ending}" for url, text in TEXTS.items()}
    now = datetime.now(UTC) - timedelta(hours=10 - hour)
    manifest = make_snapshot(index_dir, texts, HashEmbedder(), now=now, published=published)
    return manifest.snapshot_id


@pytest.fixture
def index_dir(tmp_path: Path) -> Path:
    make(tmp_path / "docs", "", 0)
    return tmp_path / "docs"


@pytest.fixture
def url(cluster: Any, index_dir: Path) -> Iterator[str]:
    from ray import serve

    from raydex.serve.deployments import build_application

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    config = ServeConfig(data_dir=index_dir.parent, replicas=2, swap_check_s=0.2)
    serve.run(build_application(config), name="raydex", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def rows(url: str) -> list[dict[str, Any]]:
    """Return what each of several answers says of the index; nothing for one that a dying replica still owes."""
    with httpx.Client(base_url=url, timeout=60) as client:
        answers = [client.get("/indexes") for _ in range(ASKED)]
    return [answer.json()["indexes"][0] for answer in answers if answer.status_code == httpx.codes.OK]


def running() -> int:
    from ray import serve

    states = serve.status().applications["raydex"].deployments["SearchService"].replica_states
    return states.get("RUNNING", 0)  # type: ignore[call-overload,no-any-return]


def replicas() -> set[int]:
    return {pid for pid in descendants(os.getpid()) if REPLICA in command_line(pid)}


def test_ten_swaps_under_load_fail_no_request_and_mix_no_answer(url, index_dir):
    first, second = current_id(index_dir), make(index_dir, MARK, 1, published=False)
    load = Load({first: False, second: True}, "docs")
    with load.running(url, 4, QUERIES):
        swap_often(url, index_dir, 10, lambda _: None)
    assert dict(load.failed) == {}
    assert load.mixed == 0
    assert set(load.answers) == {first, second}
    assert eventually(lambda: {row["snapshot_id"] for row in rows(url)} == {first}, within_s=30)
    assert replica_pss() > 0


def test_swaps_behind_haproxy_fail_no_request_and_mix_no_answer(index_dir):
    first, second = current_id(index_dir), make(index_dir, MARK, 1, published=False)
    load = Load({first: False, second: True}, "docs")

    with served(index_dir.parent, "--replicas", "2") as (url, pid):
        assert programs(pid, "haproxy")
        with load.running(url, 4, QUERIES):
            swap_often(url, index_dir, 10, lambda _: None)
    assert dict(load.failed) == {}
    assert load.mixed == 0
    assert set(load.answers) == {first, second}


def test_a_replica_that_starts_serves_what_the_others_serve_and_not_a_refused_snapshot(url, index_dir):
    first, second = current_id(index_dir), make(index_dir, MARK, 1, published=False)
    chunks = read_manifest(index_dir, second).shards[0].objects["chunks"]
    path = index_dir / "objects" / chunks.sha256
    whole = path.read_bytes()
    path.write_bytes(b"")
    publish(index_dir, second)
    eventually(lambda: {row["refused_snapshot_id"] for row in rows(url)} == {second}, within_s=30)
    before = replicas()
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    eventually(lambda: len(replicas() - before) == 1, within_s=60)
    eventually(lambda: running() == 2, within_s=60)
    assert {(row["ready"], row["snapshot_id"]) for row in rows(url)} == {(True, first)}
    path.write_bytes(whole)
    eventually(lambda: {row["snapshot_id"] for row in rows(url)} == {second}, within_s=60)


def test_a_dead_replica_holds_up_no_swap(url, index_dir):
    os.kill(min(replicas()), signal.SIGKILL)
    second = make(index_dir, MARK, 1)
    eventually(lambda: {row["snapshot_id"] for row in rows(url)} == {second}, within_s=60)
