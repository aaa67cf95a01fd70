"""A real file system runs full in the middle of a build, at each stage: a clear error, nothing damaged."""

import os
import re
import subprocess

import pytest

from raydex.build import program
from raydex.build.crawling import Crawl
from raydex.build.pipeline import Pipeline
from raydex.snapshot import current_id, verify
from tests.builder import Builder
from tests.docsite import DocSite, handbook, question

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]

PAGES_BEFORE, PAGES = 8, 16

STAGES = {
    "page store": (Crawl, "run"),
    "vectors": (Pipeline, "embed_all"),
    "duplicates": (Pipeline, "drop_duplicates"),
    "shards": (Pipeline, "shard"),
    "words": (Pipeline, "index_words"),
    "manifest": (program, "write_manifest"),
    "publication": (program, "publish"),
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A file system of 64 MiB, in memory."""
    disk = tmp_path_factory.mktemp("disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)  # Ray's agents end up to a minute after their driver


def fill(disk) -> None:
    """Leave not one byte."""
    room = os.statvfs(disk)
    with (disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize)


@pytest.mark.parametrize("stage", STAGES)
def test_disk_that_runs_full_ends_the_build_clearly_and_the_same_command_resumes(stage, disk, capsys, monkeypatch):
    monkeypatch.setattr(program, "SMALLEST_BUILD_BYTES", 0)  # else the build is refused before it begins
    build = Builder(disk / stage.replace(" ", "-"), capsys)
    with DocSite(handbook(PAGES_BEFORE)) as site:
        assert build(site.url)[0] == 0
        live = current_id(build.index_dir)
        for path, html in handbook(PAGES).items():
            site.put(path, html)
        owner, name = STAGES[stage]
        real = getattr(owner, name)
        real_start = Pipeline._start_embeds
        if stage == "vectors":  # else most are embedded while the crawl goes on
            monkeypatch.setattr(Pipeline, "_start_embeds", lambda self: None)

        def full(*arguments, **more):
            monkeypatch.setattr(Pipeline, "_start_embeds", real_start)
            fill(disk)
            return real(*arguments, **more)

        monkeypatch.setattr(owner, name, full)
        assert build(site.url)[0] == 1
        # a little may be free again by then: what other tasks had begun to write is removed
        assert re.search(rf"error: {re.escape(str(build.index_dir))}\S*: \d+ MiB free", build.stderr)
        assert "the live snapshot is untouched and the same command resumes" in build.stderr
        assert "Traceback" not in build.stderr
        assert current_id(build.index_dir) == live
        assert verify(build.index_dir, live) == []
        assert build.hits(question(5))
        monkeypatch.setattr(owner, name, real)
        (disk / "filler").unlink()
        code, line = build(site.url)
        assert (code, line["resumed"], line["pages"]) == (0, True, PAGES)
