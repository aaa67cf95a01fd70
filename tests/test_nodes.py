"""A real Ray cluster of two nodes that share a folder: one is killed in the middle of a build, which goes on."""

import os
import signal
from collections.abc import Iterator

import pytest

from tests.docsite import DocSite, handbook
from tests.processes import command_line, descendants
from tests.running import RunningBuild, shards_written_twice, stored_keys
from tests.two_nodes import two_nodes
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PAGES = 48


@pytest.fixture
def nodes() -> Iterator[tuple[str, int]]:
    with two_nodes(1, 3) as started:
        yield started


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
