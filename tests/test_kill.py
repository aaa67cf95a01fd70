"""A real build in its own process, killed at several points: the same command goes on to the same content digest."""

import os
import signal
from collections import Counter
from pathlib import Path

import faiss
import pyarrow.parquet as pq
import pytest

from raydex.build.runs import last_run
from raydex.checkpoint import Ledger
from raydex.snapshot import current_id, open_snapshot
from tests.builder import LISTS
from tests.docsite import DocSite, handbook, handbook_paths
from tests.kills import ORPHANS_S, Kills, random_kills
from tests.processes import is_running
from tests.running import RunningBuild
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PAGES = 24


@pytest.fixture
def site():
    with DocSite(handbook(pages=PAGES)) as site:
        yield site


def test_build_killed_at_five_points_resumes_each_time_to_the_digest_of_an_uninterrupted_one(site, tmp_path):
    """During the crawl twice, after the first vectors, among the shards, and between manifest and publication."""
    data_dir = tmp_path / "killed"
    index_dir = data_dir / "docs"
    for pages in (5, 12):
        site.block_after(pages)
        build = RunningBuild(site, data_dir)
        build.wait_for(lambda: site.wait_blocked(0))
        build.kill()
        site.unblock()
    for finished in (build.vector_files, build.sharded):
        build = build.resumed(site, data_dir)
        build.wait_for_more_of(finished, than=finished())
        build.kill()
    build = build.resumed(site, data_dir)
    build.wait_for(lambda: any(index_dir.glob("snapshots/*/manifest.json")))
    build.kill()

    came_too_late = bool(current_id(index_dir))  # the gate takes a tenth of a second, the machine may be busy
    result = RunningBuild(site, data_dir).result()
    assert result["resumed"] is not came_too_late
    assert_nothing_was_done_twice(index_dir, site, resumes=4 if came_too_late else 5)

    reference = RunningBuild(site, tmp_path / "reference").result()
    assert not reference["resumed"]
    assert result["content_digest"] == reference["content_digest"]
    assert (result["pages"], result["chunks"]) == (reference["pages"], reference["chunks"])
    assert vectors_of(index_dir) == vectors_of(tmp_path / "reference" / "docs")


def vectors_of(index_dir: Path) -> dict[str, bytes]:
    """Return chunk_id → vector of the live snapshot, bit for bit (the fake embedder does not depend on batches)."""
    vectors: dict[str, bytes] = {}
    for shard in open_snapshot(index_dir).manifest.shards:
        chunks, index = (index_dir / "objects" / shard.objects[role].sha256 for role in ("chunks", "index"))
        rows = faiss.read_index(str(index)).reconstruct_n(0, shard.chunk_count)
        ids = pq.read_table(chunks, columns=["chunk_id"])["chunk_id"].to_pylist()
        vectors.update(zip(ids, (row.tobytes() for row in rows), strict=True))
    return vectors


def assert_nothing_was_done_twice(index_dir: Path, site: DocSite, *, resumes: int) -> None:
    """Each shard is written once, no vector is made twice, and only pages under way at a kill are asked for again."""
    lines = Ledger(min((index_dir / "builds").glob("*"))).lines()
    finished = Counter((line["event"], line["unit_id"]) for line in lines if "unit_id" in line)
    assert set(finished.values()) == {1}
    assert [line["event"] for line in lines].count("resume") == resumes
    if resumes < 5:
        return  # the last run was a build of its own, which asks for every page
    files = (index_dir / "vectors").glob("*/*.parquet")
    keys = [key for path in files for key in pq.read_table(path)["key"].to_pylist()]
    assert len(keys) == len(set(keys))
    repeated = sum(count - 1 for path, count in site.counts.items() if path not in LISTS)
    assert repeated <= 2 * 4 * 2  # two kills during the crawl, at most four units of two pages in flight each


def test_any_process_may_be_killed_at_a_random_point_and_no_finished_unit_is_repeated(tmp_path):
    """Five of the kills that bench/kill.py does by the dozen: driver, worker, embedder, fetcher, raylet."""
    with DocSite() as site:
        kills = Kills(site, tmp_path, pages=PAGES)
        for kill in random_kills(5, seed=3, pages=PAGES, late_s=0):
            done = kills.round(kill)
            assert done.faults(kills.digest) == [], done
            assert kill.victim == "driver" or done.survived == (kill.victim != "raylet") or done.missed, done


def test_gone_raylet_ends_the_build_at_once_with_an_error_that_says_how_to_go_on(site, tmp_path):
    site.block_after(6)
    build = RunningBuild(site, tmp_path)
    build.wait_for(lambda: site.wait_blocked(0))
    (raylet,) = (pid for pid, line in build.processes().items() if "raylet/raylet" in line.split(" --")[0])
    os.kill(raylet, signal.SIGKILL)
    code, _, err = build.end()
    site.unblock()
    assert code == 1
    assert "Ray's raylet at " in err
    assert "the same command resumes" in err
    assert (last_run(build.index_dir)["outcome"], last_run(build.index_dir)["exit_code"]) == ("ClusterLost", 1)


@pytest.mark.parametrize("victim", ["EmbedWorker", "FetchWorker"])
def test_build_survives_the_death_of_a_worker(site, tmp_path, victim):
    site.block_after(6)
    build = RunningBuild(site, tmp_path)
    build.wait_for(lambda: site.wait_blocked(0))
    build.wait_for(lambda: bool(build.workers(victim)))
    for pid in build.workers(victim):
        os.kill(pid, signal.SIGKILL)
    site.unblock()
    result = build.result()
    assert (result["pages"], result["failed_pages"], result["resumed"]) == (PAGES, 0, False)


def test_resumed_build_tries_failed_pages_again_and_forgets_what_followed_from_the_failure(site, tmp_path):
    path = handbook_paths(PAGES)[3]
    page = site.route(path)
    site.put(path, "ill", status=500)
    site.block_after(16)
    build = RunningBuild(site, tmp_path / "killed", "--attempts", "1")
    build.wait_for(lambda: site.wait_blocked(0))
    build.wait_for_more_of(build.vector_files, than=2)
    build.kill()
    site.unblock()
    site.put(path, page.body)
    result = RunningBuild(site, tmp_path / "killed", "--attempts", "1").result()
    assert (result["resumed"], result["pages"], result["failed_pages"]) == (True, PAGES, 0)
    reference = RunningBuild(site, tmp_path / "reference", "--attempts", "1").result()
    assert result["content_digest"] == reference["content_digest"]


def test_interrupted_build_ends_with_130_and_says_that_the_same_command_resumes(site, tmp_path):
    """Pages are held back by the site all the time: work under way is not waited for. Nothing is left running."""
    site.block_after(3)
    build = RunningBuild(site, tmp_path)
    build.wait_for(lambda: site.wait_blocked(0))
    below = build.processes()
    build.terminate()
    code, _, err = build.end()
    site.unblock()
    assert code == 130
    assert "the same command resumes" in err
    assert (last_run(build.index_dir)["outcome"], last_run(build.index_dir)["exit_code"]) == ("interrupted", 130)
    eventually(lambda: not any(map(is_running, below)), within_s=ORPHANS_S)
    result = RunningBuild(site, tmp_path).result()
    assert (result["resumed"], result["pages"]) == (True, PAGES)
