"""Kill any process of a real build at any point, run the same command again, and see what it cost.

Kills(site, tmp_path).round(Kill("raylet", "pages", 12)) → Round

The index has a live snapshot before: it must stay whole until CURRENT moves. The site lists a page request only once
unless it was asked for twice, the embedding store holds a key only once unless it was embedded twice, and the ledger
names a shard only once unless it was written twice.
"""

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raydex.snapshot import open_snapshot, read_manifest, verify
from tests.builder import LISTS
from tests.docsite import DocSite, handbook
from tests.processes import is_running
from tests.running import BATCH_PAGES, RunningBuild, manifests_beside_the_live_one, shards_written_twice, stored_keys
from tests.waiting import eventually

PAGES_BEFORE, PAGES = 8, 48
SHARDS = 32

VICTIMS = ("driver", "worker", "embedder", "fetcher", "raylet")

UNITS_UNDER_WAY = 4
"""Of one host (raydex/build/crawling.py): what a kill may lose of the crawl, and so ask for once more."""

TITLES = {"embedder": "ray::EmbedWorker", "fetcher": "ray::FetchWorker", "raylet": "raylet/raylet"}

WRITERS = ("ray::read_task", "ray::shard_task", "ray::duplicates_task", "ray::EmbedWorker", "ray::FetchWorker")

ORPHANS_S = 90
"""Ray's agents notice within a minute that their raylet is gone."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Whom to kill, and when: at the first sign of the stage (start, manifest), or after so many of pages, vectors,
    shards; late_s seconds later."""

    victim: str
    stage: str
    count: int = 0
    late_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a kill did and cost. missed: the build had ended before. survived: it published without a second run."""

    kill: Kill
    missed: bool
    survived: bool
    first_exit: int
    digest: str
    pages_twice: int
    chunks_twice: int
    shards_twice: int
    live_whole: bool
    message: str
    seconds: float

    def faults(self, digest: str) -> list[str]:
        """Return what is wrong with it; digest: of an uninterrupted build."""
        found = {
            "another content_digest": self.digest != digest,
            "a page asked for again that was not under way": self.pages_twice > UNITS_UNDER_WAY * BATCH_PAGES,
            "a stored chunk embedded again": self.chunks_twice > 0,
            "a finished shard written again": self.shards_twice > 0,
            "the live snapshot was damaged": not self.live_whole,
            "ended without saying that the same command resumes": not self.survived
            and self.kill.victim != "driver"
            and "same command resumes" not in self.message,
        }
        return [fault for fault, is_so in found.items() if is_so]


def random_kills(count: int, seed: int, *, pages: int = PAGES, late_s: float = 0.3) -> Iterator[Kill]:
    """Yield kills at random points, each victim by turns; the same for the same seed."""
    rng = random.Random(seed)
    for number in range(count):
        stage = rng.choices(("pages", "vectors", "shards", "start", "manifest"), (8, 6, 4, 1, 1))[0]
        most = {"pages": pages - 2, "vectors": pages // 6, "shards": SHARDS - 4}.get(stage, 0)
        yield Kill(VICTIMS[number % len(VICTIMS)], stage, rng.randint(1, most) if most else 0, rng.uniform(0, late_s))


class Kills:
    """Rounds of kills on copies of one index with a live snapshot, against an uninterrupted build."""

    def __init__(self, site: DocSite, folder: Path, *, pages: int = PAGES) -> None:
        self._site, self._folder = site, folder
        self._ran: dict[int, str] = {}
        self._vector_files = 0  # before the round
        grow(site, PAGES_BEFORE)
        self._base = folder / "base"
        self.before = RunningBuild(site, self._base).result()["content_digest"]
        grow(site, pages)
        self.digest = RunningBuild(site, self._copy("uninterrupted")).result()["content_digest"]

    def round(self, kill: Kill) -> Round:
        """Kill once, and run the command until it has published."""
        started = time.monotonic()
        site, data_dir = self._site, self._copy("round")
        index_dir = data_dir / "docs"
        site.counts.clear()
        known = stored_keys(index_dir)
        self._vector_files = sum(1 for _ in index_dir.glob("vectors/*/*.parquet"))
        build = RunningBuild(site, data_dir)
        struck = self._strike(build, kill)  # all that ran, and has to end
        code, _, err = build.end()
        self._ran |= struck
        writers = [pid for pid, line in struck.items() if line.startswith(WRITERS)]
        eventually(lambda: not any(map(is_running, writers)), within_s=ORPHANS_S, poll_s=0.05)
        live_whole = self._live_whole(index_dir)
        is_published = open_snapshot(index_dir).manifest.content_digest == self.digest
        if not is_published:
            RunningBuild(site, data_dir).result()
        keys = stored_keys(index_dir)
        return Round(
            kill=kill,
            missed=not struck,
            survived=is_published,
            first_exit=code,
            digest=open_snapshot(index_dir).manifest.content_digest,
            pages_twice=sum(count - 1 for path, count in site.counts.items() if path not in LISTS and count > 1),
            chunks_twice=sum(count - max(1, known[key]) for key, count in keys.items()),
            shards_twice=len(shards_written_twice(index_dir)),
            live_whole=live_whole and self._live_whole(index_dir),
            message=err,
            seconds=round(time.monotonic() - started, 1),
        )

    def left_running(self) -> list[str]:
        """Wait until nothing runs any more that ran below a killed build; return what stays."""
        deadline = time.monotonic() + ORPHANS_S
        while (left := [line for pid, line in self._ran.items() if is_running(pid)]) and time.monotonic() < deadline:
            time.sleep(0.5)
        return left

    def _copy(self, name: str) -> Path:
        shutil.rmtree(self._folder / name, ignore_errors=True)
        return Path(shutil.copytree(self._base, self._folder / name))

    def _strike(self, build: RunningBuild, kill: Kill) -> dict[int, str]:
        """Kill the victim at its point, or as soon after it as there is one. Return what ran below the build then."""
        build.wait_for(lambda: self._reached(build, kill))
        if kill.late_s:
            time.sleep(kill.late_s)  # a point between two signs of progress
        while build.process.poll() is None:
            below = build.processes()
            for pid in victims(build, below, kill.victim)[:1]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue  # it was about to end
                return below
        return {}

    def _reached(self, build: RunningBuild, kill: Kill) -> bool:
        match kill.stage:
            case "start":
                return build.events("start") > 0 and build.events("end") == 0
            case "pages":
                return sum(self._site.counts.values()) >= kill.count
            case "vectors":
                return build.vector_files() - self._vector_files >= kill.count
            case "shards":
                return build.events("end") == 0 and build.sharded() >= kill.count
            case _:
                return manifests_beside_the_live_one(build.index_dir) > 0 or build.events("publishing") > 0

    def _live_whole(self, index_dir: Path) -> bool:
        snapshot_id = open_snapshot(index_dir).manifest.snapshot_id
        verify(index_dir, snapshot_id)
        return read_manifest(index_dir, snapshot_id).content_digest in {self.before, self.digest}


def victims(build: RunningBuild, below: dict[int, str], victim: str) -> list[int]:
    """Return the pids that may be killed; a worker is one that reads pages, writes shards, or waits for work."""
    if victim == "driver":
        return [build.process.pid]
    if victim == "worker":
        idle_or_task = ("ray::IDLE", *(f"ray::{task}" for task in ("read_task", "shard_task", "duplicates_task")))
        return [pid for pid, line in below.items() if line.startswith(idle_or_task)]
    return [pid for pid, line in below.items() if TITLES[victim] in line.split(" --")[0]]


def grow(site: DocSite, pages: int) -> None:
    for path, html in handbook(pages).items():
        site.put(path, html)
