"""What the build is doing, as numbers, and three ways to tell: live table, plain lines, Ray metrics.

receipts → Status → Display (rich on a terminal, else one line every few seconds), ray.util.metrics
"""

import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ray.util import metrics as ray_metrics
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from raydex.build.units import CrawlReceipt, EmbedReceipt
from raydex.metrics import METRICS

PLAIN_LINE_EVERY_S = 2.0
CHUNKS_THAT_TELL = 32  # the first call of a model is far slower than the next ones


@dataclass(slots=True)
class Status:
    """The counts of a running build. Pages by outcome; chunks found, embedded and reused; busy seconds per stage.

    sections and chunks are those found, duplicates among them.
    """

    index: str
    pages: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)  # of fetched pages: as in units.Fetched
    queued_pages: int = 0
    sections: int = 0
    chunks: int = 0
    embedded: int = 0
    reused: int = 0
    tokens: int = 0
    reused_tokens: int = 0
    downloaded_bytes: int = 0
    dropped_words: int = 0
    hidden_words: int = 0
    shards_done: int = 0
    shards: int = 0
    stage: str = "starting"
    busy_s: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    started: float = field(default_factory=time.perf_counter)
    embedders: int = 1
    embedder_s: float = 0.0  # seconds all embedders together spent on what this run embedded

    def add_crawled(self, receipt: CrawlReceipt) -> None:
        for outcome in receipt.outcomes:
            if outcome.outcome == "fetched":
                self.origins[outcome.origin] += 1
                self.downloaded_bytes += outcome.bytes if outcome.origin == "network" else 0
            self.sections += outcome.sections
            self.chunks += outcome.chunks
            self.dropped_words += outcome.dropped_words
            self.hidden_words += outcome.hidden_words
        for stage, seconds in receipt.seconds.items():
            self.busy_s[stage] += seconds

    def add_embedded(self, receipt: EmbedReceipt) -> None:
        self.embedded += receipt.embedded
        self.reused += receipt.reused
        self.tokens += receipt.tokens
        self.reused_tokens += receipt.reused_tokens
        self.embedder_s += receipt.seconds
        self.busy_s["embed"] += receipt.seconds

    @property
    def embedded_per_s(self) -> float:
        """Chunks per second while embedding, all embedders together; 0.0 until there is enough to tell."""
        enough = self.embedded >= CHUNKS_THAT_TELL and self.embedder_s > 0
        return self.embedded * self.embedders / self.embedder_s if enough else 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until all known work is embedded: found chunks, and queued pages at the chunks per page so far."""
        fetched = sum(self.origins.values())
        if not self.embedded_per_s or not fetched:
            return None
        expected = self.chunks * (1 + self.queued_pages / fetched) - self.embedded - self.reused
        return max(0.0, expected / self.embedded_per_s)

    def line(self) -> str:
        """Return the state in one line: what the plain display prints and the live one draws."""
        pages = self.pages
        parts = [
            f"pages {pages['fetched'] + pages['stale']} read, {pages['failed']} failed, {self.queued_pages} queued",
            f"chunks {self.embedded + self.reused}/{self.chunks} ({self.reused} reused), {self.embedded_per_s:.0f}/s",
        ]
        if self.shards:
            parts.append(f"shards {self.shards_done}/{self.shards}")
        if self.eta_s is not None:
            parts.append(f"ETA {self.eta_s:.0f} s")
        return f"[{time.perf_counter() - self.started:6.1f} s] {self.stage}: " + " · ".join(parts)


class BuildMetrics:
    """The build's counters and gauges on Ray's metrics endpoint, as declared in raydex/metrics.py."""

    def __init__(self, index: str) -> None:
        self._tags = {"index": index}
        self._pages = ray_metrics.Counter(*_declared("raydex_build_pages"))
        self._chunks = ray_metrics.Counter(*_declared("raydex_build_chunks"))
        self._bytes = ray_metrics.Counter(*_declared("raydex_build_bytes"))
        self._tokens = ray_metrics.Counter(*_declared("raydex_build_tokens"))
        self._seconds = ray_metrics.Counter(*_declared("raydex_build_stage_seconds"))
        self._queue = ray_metrics.Gauge(*_declared("raydex_build_queue"))

    def crawled(self, receipt: CrawlReceipt) -> None:
        for (outcome, reason), count in Counter((o.outcome, o.reason or o.origin) for o in receipt.outcomes).items():
            self._add(self._pages, count, outcome=outcome, reason=reason or "none")
        self._add(self._bytes, sum(o.bytes for o in receipt.outcomes if o.origin == "network"))
        for stage, seconds in receipt.seconds.items():
            self._add(self._seconds, seconds, stage=stage)

    def embedded(self, receipt: EmbedReceipt) -> None:
        self._add(self._chunks, receipt.embedded, origin="embedded")
        self._add(self._chunks, receipt.reused, origin="reused")
        self._add(self._tokens, receipt.tokens, origin="embedded")
        self._add(self._tokens, receipt.reused_tokens, origin="reused")
        self._add(self._seconds, receipt.seconds, stage="embed")

    def _add(self, counter: ray_metrics.Counter, amount: float, **labels: str) -> None:
        if amount > 0:  # Ray refuses to count nothing
            counter.inc(amount, {**self._tags, **labels})

    def queued(self, *, pages: int, embed_units: int) -> None:
        self._queue.set(pages, {**self._tags, "stage": "pages"})
        self._queue.set(embed_units, {**self._tags, "stage": "embed_units"})


def _declared(name: str) -> tuple[str, str, tuple[str, ...]]:
    metric = METRICS[name]
    return metric.name, metric.help, metric.labels


class Display:
    """Shows a Status on stderr: drawn live on a terminal, else printed now and then, and at each change of stage."""

    def __init__(self, status: Status) -> None:
        self._status = status
        console = Console(stderr=True, highlight=False)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._printed_at, self._printed_stage = 0.0, ""

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refresh()  # the last state is the one that stays on the screen
        if self._live:
            self._live.stop()

    def refresh(self) -> None:
        if self._live:
            self._live.update(self._drawn(), refresh=True)
            return
        now = time.perf_counter()
        if self._status.stage != self._printed_stage or now - self._printed_at >= PLAIN_LINE_EVERY_S:
            self._printed_at, self._printed_stage = now, self._status.stage
            print(self._status.line(), file=sys.stderr, flush=True)  # noqa: T201 - the display is the talk

    def _drawn(self) -> Group:
        status = self._status
        bars = Progress(
            TextColumn("{task.description:8}"), BarColumn(), TextColumn("{task.completed:.0f}/{task.total:.0f}")
        )
        done = sum(status.pages.values())
        bars.add_task("pages", completed=done, total=max(1, done + status.queued_pages))
        bars.add_task("chunks", completed=status.embedded + status.reused, total=max(1, status.chunks))
        bars.add_task("shards", completed=status.shards_done, total=max(1, status.shards))
        return Group(bars, Text(status.line()))
