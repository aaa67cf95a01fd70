"""The build: sources → one published snapshot, on Ray. Any process may die at any time; the same command goes on.

room on disk → model → lock → Ray → crawl + embed, level by level → shards → manifest → gate → CURRENT → report

run_build(config, sources) → BuildResult, or the RaydexError that ended it; a plan stops after the crawl
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raydex.build.changes import embedding_rate, page_changes
from raydex.build.crawling import Crawl
from raydex.build.garbage import collect_after_build
from raydex.build.gate.verdict import GateReport, Verdict
from raydex.build.pipeline import Pipeline, result_of
from raydex.build.progress import Display, Status
from raydex.build.report import BuildResult, PageReport, Plan, write_report
from raydex.build.sizing import index_kind, kind_of, shard_count
from raydex.build.units import BuildContext
from raydex.build.workers import Access
from raydex.checkpoint import SMALLEST_BUILD_BYTES, Ledger, build_lock, check_free_space, full_disk_named, open_build
from raydex.cluster import ray_running
from raydex.config import CODE_VERSION, BuildConfig
from raydex.crawl import credentials_of, seed_addresses
from raydex.embed import describe
from raydex.errors import GateRefused, NothingToIndex, SnapshotError, TooManyFailedPages
from raydex.evaluate import Golden, load_golden
from raydex.journal import published_ids
from raydex.records import EmbedderInfo, Manifest, PublishedAnyway, Source
from raydex.snapshot import (
    FORMAT_VERSION,
    current_id,
    new_manifest,
    publish,
    read_manifest,
    snapshot_bytes,
    write_manifest,
)
from raydex.tracing import add_facts, build_traced, open_sender, span
from utils.logs import log_fields

logger = logging.getLogger(__name__)

ENDINGS = {TooManyFailedPages: "failed_pages", NothingToIndex: "nothing_to_index", GateRefused: "gate_refused"}
"""Errors that end a build for good; after any other one the same command resumes it."""


def run_build(
    config: BuildConfig,
    sources: Sequence[Source],
    *,
    fresh: bool = False,
    plan: bool = False,
    publish_anyway: str = "",
) -> BuildResult:
    """Build and publish one snapshot; raises the RaydexError that says why none was published.

    The config's index must be set. fresh: begin anew, whatever an interrupted build has left. plan: crawl, and say what
    a build would do; nothing is embedded or published. publish_anyway: why a snapshot that the gate refuses is to be
    published all the same; it is kept in the manifest. A build that ends writes its report in any case.
    """
    index_dir = config.folder.resolve() / config.index
    live = live_manifest(index_dir)
    golden = load_golden(config.gate.golden_queries, config.gate.golden_qrels)
    check_free_space(index_dir, max(SMALLEST_BUILD_BYTES, 3 * snapshot_bytes(live) if live else 0))
    config = _with_absolute_model(config)
    embedder = describe(config.embed.model, config.embed.backend)
    access = Access(credentials_of(sources, os.environ), seed_addresses(sources))
    with build_lock(index_dir), full_disk_named(index_dir):
        digest = config_digest(config, sources, embedder)
        published = published_ids(index_dir, current_id(index_dir))
        ledger, resumed = open_build(index_dir, digest, published=published, fresh=fresh)
        context = BuildContext(
            index_dir=index_dir,
            build_id=ledger.build_dir.name,
            config=config,
            sources=tuple(sources),
            embedder=embedder,
        )
        build = Build(context, ledger, access, resumed=resumed, golden=golden, publish_anyway=publish_anyway)
        facts = {"build_id": context.build_id, "index": config.index}
        with log_fields(**facts), build_traced(open_sender(config.telemetry, "raydex-build"), **facts):
            return build.run(plan=plan)


def config_digest(config: BuildConfig, sources: Sequence[Source], embedder: EmbedderInfo) -> str:
    """Return the digest of all that decides what the snapshot holds; only a build with the same one is resumed."""
    decisive = {
        "sources": [asdict(source) for source in sources],  # with templates of secrets, never the secrets
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
        logger.warning(
            "live snapshot unreadable, built as if it were the first index=%s reason=%s", index_dir.name, error
        )
        return None


def _with_absolute_model(config: BuildConfig) -> BuildConfig:
    """Workers may run in another folder than the one a local model was named from."""
    if not Path(config.embed.model).is_dir():
        return config
    embed = config.embed.model_copy(update={"model": str(Path(config.embed.model).resolve())})
    return config.model_copy(update={"embed": embed})


class Build:
    """One run of a build, from start or resumed."""

    def __init__(
        self,
        context: BuildContext,
        ledger: Ledger,
        access: Access,
        *,
        resumed: bool,
        golden: Golden | None,
        publish_anyway: str,
    ) -> None:
        self._context, self._ledger, self._access, self._resumed = context, ledger, access, resumed
        self._golden, self._publish_anyway = golden, publish_anyway
        self._status = Status(index=context.config.index)
        self._pages = PageReport()
        self._found: dict[str, Any] = {}  # what the report will say of changes, duplicates and plan
        self._paces: dict[str, Any] = {}
        self._seconds: dict[str, float] = {}

    def run(self, *, plan: bool) -> BuildResult:
        with ray_running(self._context.config.ray_address, watched=True), Display(self._status) as display:
            self._seconds["start"] = time.perf_counter() - self._status.started
            pipeline = Pipeline(self._context, self._ledger, self._status, display, self._access, embeds=not plan)
            try:
                units = self._crawl(pipeline)
                if plan:
                    return self._plan(pipeline, units)
                self._status.stage = "embedding"
                with self._timed("embed_rest"):
                    pipeline.embed_all()
                manifest = self._write_snapshot(pipeline, units)
                self._publish(pipeline, manifest)
                return self._end("published", "", manifest)
            except (TooManyFailedPages, NothingToIndex, GateRefused) as error:
                self._end(ENDINGS[type(error)], str(error))
                raise

    def _crawl(self, pipeline: Pipeline) -> dict[str, str]:
        """Crawl; what is found is embedded meanwhile. Return the units with chunks and the digest of their content."""
        self._status.stage = "crawling"
        with self._timed("crawl"):
            crawl = Crawl(self._context, pipeline, self._status, self._pages)
            crawl.run()
        self._paces = pipeline.paces()
        self._refuse_a_broken_crawl(crawl.reached)
        with self._timed("duplicates"):
            self._found["duplicates"] = pipeline.drop_duplicates(tuple(crawl.units))
            self._found["changes"] = page_changes(
                self._context, tuple(crawl.units), live_manifest(self._context.index_dir)
            )
        return crawl.units

    def _refuse_a_broken_crawl(self, reached: set[str]) -> None:
        pages, report = self._status.pages, str(self._context.build_dir / "report.json")
        failed = pages["failed"] + pages["stale"]
        attempted = pages["fetched"] + failed
        limit = self._context.config.gate.max_failed_share
        if attempted and failed > limit * attempted:
            raise TooManyFailedPages(failed, attempted, limit, self._pages.reasons(), report)
        empty = [s.name for s in self._context.sources if s.name not in reached and not reached & {*s.seeds}]
        if empty or not self._status.chunks:
            which = f"{self._context.config.index}, source {', '.join(empty)}" if empty else self._context.config.index
            raise NothingToIndex(which, self._pages.reasons(), report)

    def _plan(self, pipeline: Pipeline, units: dict[str, str]) -> BuildResult:
        self._status.stage = "planned"
        missing = pipeline.missing_vectors(tuple(units))
        rate = embedding_rate(self._context.index_dir, self._context.embedder)
        self._found["plan"] = Plan(
            chunks_to_embed=missing.embedded,
            tokens_to_embed=missing.tokens,
            expected_minutes=round(missing.tokens / rate.tokens_per_s / 60, 2),
            basis=rate.basis,
        )
        return self._end("planned", "")

    def _write_snapshot(self, pipeline: Pipeline, units: dict[str, str]) -> Manifest:
        self._status.stage = "writing shards"
        index_dir = self._context.index_dir
        with self._timed("shard"):
            parent = live_manifest(index_dir)
            count = shard_count(self._status.chunks, self._context.config.shards, len(parent.shards) if parent else 0)
            vectors = self._context.config.vectors
            kind = index_kind(self._status.chunks, vectors.index_kind, kind_of(parent))
            shards, closing = pipeline.shard(count, kind, units, self._found["duplicates"].digest)
        self._status.stage = "indexing words"
        with self._timed("lexical"):
            lexical = pipeline.index_words(shards, parent)
            manifest = new_manifest(
                index_dir,
                shards,
                parent=parent.snapshot_id if parent else "",
                embedder=self._context.embedder,
                chunking=self._context.config.chunk.model_dump(),
                sources=tuple(asdict(source) for source in self._context.sources),
                digest=closing.digest,
                ann_recall=closing.recall,
                lexical=lexical,
            )
            write_manifest(index_dir, manifest)
        return manifest

    def _publish(self, pipeline: Pipeline, manifest: Manifest) -> None:
        self._status.stage = "checking"
        with self._timed("gate"):
            verdict: Verdict = result_of(pipeline.actors[0].gate.remote(manifest.snapshot_id, self._golden))
            overridden = self._overridden(verdict)
            self._found["gate"] = GateReport(manifest.snapshot_id, verdict, overridden)
            judged = replace(
                manifest,
                gate=verdict.results,
                gate_metrics=verdict.metrics,
                golden_digest=verdict.golden_digest,
                published_anyway=overridden,
            )
            write_manifest(self._context.index_dir, judged)
            if verdict.failures and not overridden:
                self._collect()  # or a schedule that is refused every time fills the disk
                raise verdict.refusal(manifest.snapshot_id, str(self._context.build_dir / "report.json"))
            self._ledger.append("publishing", snapshot_id=manifest.snapshot_id)
            with span("publish", snapshot=manifest.snapshot_id):
                publish(self._context.index_dir, manifest.snapshot_id)
        self._status.stage = "published"
        self._collect()

    def _collect(self) -> None:
        storage = self._context.config.storage
        with self._timed("collect"):
            freed = collect_after_build(self._context.index_dir, storage.keep_snapshots, storage.grace_s)
        self._found["freed"] = freed

    def _overridden(self, verdict: Verdict) -> PublishedAnyway | None:
        """Return what a person decided on the failed checks; None when there are none, or when files are damaged."""
        if not self._publish_anyway or not verdict.failures or verdict.is_damaged:
            return None
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return PublishedAnyway(reason=self._publish_anyway, at=now, checks=verdict.failed_checks)

    def _end(self, outcome: str, message: str, manifest: Manifest | None = None) -> BuildResult:
        self._seconds["total"] = time.perf_counter() - self._status.started
        result = BuildResult.of(
            self._context,
            self._status,
            self._pages,
            outcome,
            message,
            seconds=self._seconds,
            rate=embedding_rate(self._context.index_dir, self._context.embedder),
            resumed=self._resumed,
            manifest=manifest,
            **self._found,
        )
        add_facts(outcome=outcome, snapshot=manifest.snapshot_id if manifest else "", resumed=self._resumed)
        write_report(self._context, result, self._pages, self._found.get("changes"), self._paces)
        self._ledger.append("end", outcome=outcome, message=message)
        shutil.rmtree(self._context.units_dir, ignore_errors=True)  # an ended build is never resumed
        return result

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            with span(stage):
                yield
        finally:
            self._seconds[stage] = time.perf_counter() - started
