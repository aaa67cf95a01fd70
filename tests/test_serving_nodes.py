"""The service on a real Ray cluster of two nodes: both answer, and one answers on when the other is lost."""

import os
import signal

import httpx
import pytest

from bench.swap import REPLICA
from raydex.embed import HashEmbedder
from tests.machines import TEXTS
from tests.processes import command_line, descendants
from tests.service_process import served
from tests.snapshots import make_snapshot
from tests.two_nodes import two_nodes
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ASKED = 20


def answering(url: str) -> set[str]:
    """Return which replicas answer so many requests, each on its own connection; none when a request fails."""
    try:
        answers = [httpx.get(f"{url}/indexes", timeout=10) for _ in range(ASKED)]
    except httpx.TransportError:
        return set()
    if any(answer.status_code != httpx.codes.OK for answer in answers):
        return set()
    return {answer.json()["replica"] for answer in answers}


def test_both_nodes_answer_and_the_one_that_is_left_takes_over_what_a_killed_one_did(tmp_path):
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder())
    with (
        two_nodes(2, 2) as (address, raylet),
        served(tmp_path, "--ray-address", address, "--replicas", "2") as (url, _),
    ):
        beyond = [pid for pid in descendants(raylet) if REPLICA in command_line(pid)]
        assert len(beyond) == 1
        before = eventually(lambda: found if len(found := answering(url)) == 2 else set(), within_s=60)
        for pid in (raylet, *descendants(raylet)):
            os.kill(pid, signal.SIGKILL)
        after = eventually(
            lambda: found if len(found := answering(url)) == 2 and found != before else set(), within_s=120
        )
        assert len(before & after) == 1
        found = httpx.get(f"{url}/search", params={"query": "all about file", "index": "docs"}, timeout=30)
        assert found.json()["snapshot"].keys() == {"docs"}
