"""The build: sources → one published snapshot, on Ray. Any process may die at any time; the same command goes on.

room on disk → model → lock → Ray → crawl + embed, level by level → shards → manifest → gate → CURRENT → report

run_build(config, sources) → BuildResult, or the RaydexError that ended it
"""

import hashlib
import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from raydex.build.pipeline import Pipeline, crawl_units, result_of
from raydex.build.progress import Display, Status
from raydex.build.report import BuildResult, PageReport, write_report
from raydex.build.units import BuildContext, CrawlReceipt, PageOutcome, outcome_of
from raydex.build.workers import robots_task
from raydex.checkpoint import SMALLEST_BUILD_BYTES, Ledger, build_lock, check_free_space, full_disk_named, open_build
from raydex.cluster import ray_running
from raydex.config import CODE_VERSION, BuildConfig
from raydex.crawl import Frontier, RobotsRules, Visit
from raydex.embed import describe
from raydex.errors import FetchError, GateRefused, NothingToIndex, SnapshotError, TooManyFailedPages
from raydex.records import EmbedderInfo, Manifest, Source
from raydex.snapshot import (
    FORMAT_VERSION,
    current_id,
    digest_of_shards,
    new_snapshot_id,
    publish,
    read_manifest,
    snapshot_bytes,
    write_manifest,
)
from utils.urls import origin_of

logger = logging.getLogger(__name__)

CHUNKS_PER_SHARD = 4096
MOST_AUTOMATIC_SHARDS = 64
"""More shards make an edit cheaper (one shard is rewritten) and a search dearer (0.54 ms in one, 0.74 ms in four)."""

ENDINGS = {TooManyFailedPages: "failed_pages", NothingToIndex: "nothing_to_index", GateRefused: "gate_refused"}
"""Errors that end a build for good; after any other one the same command resumes it."""


def run_build(config: BuildConfig, sources: Sequence[Source], *, fresh: bool = False) -> BuildResult:
    """Build and publish one snapshot; raises the RaydexError that says why none was published.

    The config's index must be set. fresh: begin anew, whatever an interrupted build has left. A build that ends writes
    its report, also when it publishes nothing.
    """
    index_dir = config.data_dir.resolve() / config.index
    live = live_manifest(index_dir)
    check_free_space(index_dir, max(SMALLEST_BUILD_BYTES, 3 * snapshot_bytes(live) if live else 0))
    config = _with_absolute_model(config)
    embedder = describe(config.embed.model)
    with build_lock(index_dir), full_disk_named(index_dir):
        digest = config_digest(config, sources, embedder)
        ledger, resumed = open_build(index_dir, digest, live=current_id(index_dir), fresh=fresh)
        context = BuildContext(
            index_dir=index_dir,
            build_id=ledger.build_dir.name,
            config=config,
            sources=tuple(sources),
            embedder=embedder,
        )
        return Build(context, ledger, resumed=resumed).run()


def config_digest(config: BuildConfig, sources: Sequence[Source], embedder: EmbedderInfo) -> str:
    """Return the digest of all that decides what the snapshot holds; only a build with the same one is resumed."""
    decisive = {
        "sources": [asdict(source) for source in sources],
        "crawl": config.crawl.model_dump(),
        "chunk": config.chunk.model_dump(),
        "embedder": embedder.fingerprint,
        "format": FORMAT_VERSION,
        "code": CODE_VERSION,
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def live_manifest(index_dir: Path) -> Manifest | None:
    """Return the manifest of the live snapshot; None when nothing is published, or when it cannot be read.

    A snapshot of another format, or a damaged one, must not stand in the way of the build that replaces it.
    """
    live = current_id(index_dir)
    try:
        return read_manifest(index_dir, live) if live else None
    except SnapshotError as error:
        logger.warning("live snapshot unreadable, built as if it were the first index=%s %s", index_dir.name, error)
        return None


def _with_absolute_model(config: BuildConfig) -> BuildConfig:
    """Workers may run in another folder than the one a local model was named from."""
    if not Path(config.embed.model).is_dir():
        return config
    embed = config.embed.model_copy(update={"model": str(Path(config.embed.model).resolve())})
    return config.model_copy(update={"embed": embed})


class Build:
    """One run of a build, from start or resumed."""

    def __init__(self, context: BuildContext, ledger: Ledger, *, resumed: bool) -> None:
        self._context, self._ledger, self._resumed = context, ledger, resumed
        self._status = Status(index=context.config.index)
        self._pages = PageReport()
        self._robots: dict[str, RobotsRules] = {}
        self._fetched: Counter[str] = Counter()  # pages per source
        self._reached: set[str] = set()  # seeds that led somewhere; one may belong to an earlier source
        self._seeds = {seed for source in context.sources for seed in source.seeds}
        self._units: dict[str, str] = {}  # unit_id → digest of its content
        self._seconds: dict[str, float] = {}

    def run(self) -> BuildResult:
        with ray_running(self._context.config.ray_address), Display(self._status) as display:
            self._seconds["start"] = time.perf_counter() - self._status.started
            try:
                pipeline = Pipeline(self._context, self._ledger, self._status, display)
                self._crawl(pipeline)
                self._refuse_a_broken_crawl()
                self._status.stage = "embedding"
                with self._timed("embed_rest"):
                    pipeline.embed_all()
                manifest = self._write_snapshot(pipeline)
                self._publish(pipeline, manifest)
                return self._end("published", "", manifest)
            except (TooManyFailedPages, NothingToIndex, GateRefused) as error:
                self._end(ENDINGS[type(error)], str(error))
                raise

    def _crawl(self, pipeline: Pipeline) -> None:
        """Crawl level by level; what is found is embedded meanwhile."""
        self._status.stage = "crawling"
        with self._timed("crawl"):
            frontier = Frontier(self._context.sources, self._robots_of)
            while level := frontier.take_level():
                units = crawl_units(level, self._context, {origin: self._delay_s(origin) for origin in _origins(level)})
                receipts = pipeline.crawl(units)
                found = (receipts[unit.unit_id] for unit in units)
                self._units.update((receipt.unit_id, receipt.content) for receipt in found if receipt.chunk_count)
                self._follow(frontier, level, receipts.values())
        self._pages.denied, self._pages.truncated = frontier.denied, frontier.truncated
        self._pages.binary = frontier.binary

    def _follow(self, frontier: Frontier, level: Sequence[Visit], receipts: Iterable[CrawlReceipt]) -> None:
        """Give the frontier what a whole level led to, in the level's order: so the pages never depend on timing."""
        outcomes = {o.url: o for receipt in receipts for o in receipt.outcomes}
        for visit in level:
            outcome: PageOutcome = outcomes[visit.url]
            self._pages.add(outcome)
            self._fetched[visit.source] += outcome.outcome == "fetched"
            if visit.url in self._seeds and outcome.outcome in {"fetched", "redirected"}:
                self._reached.add(visit.url)
            frontier.add_links(visit, outcome.links)
            if outcome.redirect_to:
                try:
                    frontier.add_redirect(visit, outcome.redirect_to)
                except FetchError as error:
                    self._redirect_failed(outcome, error)

    def _redirect_failed(self, outcome: PageOutcome, error: FetchError) -> None:
        failed = replace(outcome, outcome=outcome_of(error), reason=error.reason, detail=error.detail)
        self._pages.add(failed)
        self._status.pages["redirected"] -= 1
        self._status.pages[failed.outcome] += 1

    def _robots_of(self, origin: str) -> RobotsRules:
        if origin not in self._robots:
            self._robots[origin] = result_of(robots_task.remote(self._context.config.crawl, origin))
            if why := self._robots[origin].unreachable:  # it may forbid all, so nothing may be fetched
                raise FetchError(f"{origin}/robots.txt", "unreachable", f"{why}; nothing was published")
        return self._robots[origin]

    def _delay_s(self, origin: str) -> float:
        return max(self._context.config.crawl.delay_s, self._robots_of(origin).delay_s)

    def _refuse_a_broken_crawl(self) -> None:
        pages, report = self._status.pages, str(self._context.build_dir / "report.json")
        attempted = pages["fetched"] + pages["failed"]
        limit = self._context.config.gate.max_failed_share
        if attempted and pages["failed"] > limit * attempted:
            raise TooManyFailedPages(pages["failed"], attempted, limit, self._pages.reasons(), report)
        empty = [s.name for s in self._context.sources if not self._fetched[s.name] and not self._reached & {*s.seeds}]
        if empty or not self._status.chunks:
            which = f"{self._context.config.index}, source {', '.join(empty)}" if empty else self._context.config.index
            raise NothingToIndex(which, self._pages.reasons(), report)

    def _write_snapshot(self, pipeline: Pipeline) -> Manifest:
        self._status.stage = "writing shards"
        index_dir = self._context.index_dir
        with self._timed("shard"):
            parent = live_manifest(index_dir)
            count = shard_count(self._status.chunks, self._context.config.shards, len(parent.shards) if parent else 0)
            shards = pipeline.shard(count, self._units)
            chunking = self._context.config.chunk.model_dump()
            digest = digest_of_shards(shards, self._context.objects_dir, self._context.embedder.fingerprint, chunking)
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                snapshot_id=new_snapshot_id(index_dir, datetime.now(UTC), digest),
                parent=parent.snapshot_id if parent else "",
                content_digest=digest,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                embedder=self._context.embedder,
                chunking=chunking,
                metric="cosine",
                sources=tuple(asdict(source) for source in self._context.sources),
                shards=shards,
                counts={
                    "pages": sum(shard.page_count for shard in shards),
                    "sections": sum(shard.section_count for shard in shards),
                    "chunks": sum(shard.chunk_count for shard in shards),
                },
                gate={},
                code_version=CODE_VERSION,
            )
            write_manifest(index_dir, manifest)
        return manifest

    def _publish(self, pipeline: Pipeline, manifest: Manifest) -> None:
        self._status.stage = "checking"
        with self._timed("gate"):
            results, failures = result_of(pipeline.actors[0].gate.remote(manifest.snapshot_id))
            write_manifest(self._context.index_dir, replace(manifest, gate=results))
            if failures:
                raise GateRefused(manifest.snapshot_id, tuple(failures))
            self._ledger.append("publishing", snapshot_id=manifest.snapshot_id)
            publish(self._context.index_dir, manifest.snapshot_id)
        self._status.stage = "published"

    def _end(self, outcome: str, message: str, manifest: Manifest | None = None) -> BuildResult:
        self._seconds["total"] = time.perf_counter() - self._status.started
        result = BuildResult.of(
            self._context, self._status, self._pages, self._seconds, outcome, message, manifest, resumed=self._resumed
        )
        write_report(self._context.build_dir, result, self._pages)
        self._ledger.append("end", outcome=outcome, message=message)
        shutil.rmtree(self._context.units_dir, ignore_errors=True)  # an ended build is never resumed
        return result

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[stage] = time.perf_counter() - started


def _origins(level: Sequence[Visit]) -> set[str]:
    return {origin_of(visit.url) for visit in level}


def shard_count(chunks: int, configured: int, parent: int) -> int:
    """Return the number of shards: as configured, as the parent has while that is not far off, else by size.

    Keeping the parent's number keeps unchanged shards shared; it may be off by a factor of two each way.
    """
    if configured:
        return configured
    fitting = 1
    while fitting < MOST_AUTOMATIC_SHARDS and fitting * CHUNKS_PER_SHARD < chunks:
        fitting *= 2
    return parent if fitting / 2 <= parent <= fitting * 2 else fitting
