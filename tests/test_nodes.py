"""A real Ray cluster of two nodes that share a folder: one is killed in the middle of a build, which goes on."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docsite import DocSite, handbook
from tests.processes import command_line, descendants
from tests.running import RunningBuild, shards_written_twice, stored_keys
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PAGES = 48
ROOT = Path(__file__).parents[1]


@pytest.fixture
def nodes() -> Iterator[tuple[str, int]]:
    """Yield the address and the raylet of the second node; each node has an address of its own on loopback."""
    command = [sys.executable, "-m", "tests.two_nodes"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
        try:
            assert cluster.stdout is not None
            line = next(line for line in cluster.stdout if line.startswith("{"))
            started = json.loads(line)
            yield started["address"], started["raylet"]
        finally:
            cluster.communicate(timeout=60)  # closes stdin


def actors_below(raylet: int) -> set[str]:
    lines = [command_line(pid) for pid in descendants(raylet)]
    return {name for name in ("EmbedWorker", "FetchWorker") if any(name in line for line in lines)}


def test_build_goes_on_without_a_killed_node_to_the_digest_of_an_undisturbed_one(tmp_path, nodes):
    address, raylet = nodes
    with DocSite(handbook(pages=PAGES)) as site:
        site.block_after(14)
        build = RunningBuild(site, tmp_path / "killed", "--ray-address", address)
        build.wait_for(lambda: site.wait_blocked(0))
        eventually(lambda: actors_below(raylet) == {"EmbedWorker", "FetchWorker"}, within_s=60)
        for pid in (raylet, *descendants(raylet)):
            os.kill(pid, signal.SIGKILL)
        site.unblock()
        result = build.result()
        assert (result["pages"], result["failed_pages"], result["resumed"]) == (PAGES, 0, False)
        assert set(stored_keys(build.index_dir).values()) == {1}
        assert shards_written_twice(build.index_dir) == []
        reference = RunningBuild(site, tmp_path / "reference", "--ray-address", address).result()
    assert result["content_digest"] == reference["content_digest"]
