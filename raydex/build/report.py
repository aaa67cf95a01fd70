"""What a build has to say when it ends: report.json, the closing table and the JSON line.

Status + PageReport + Manifest → BuildResult → report.json, table, one line
"""

import heapq
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rich.table import Table

from raydex.build.changes import PageChanges, Rate, saved_by
from raydex.build.garbage import Freed
from raydex.build.gate.verdict import GateReport
from raydex.build.items import DuplicatesReceipt
from raydex.build.progress import Status
from raydex.build.units import BuildContext, PageOutcome
from raydex.crawl import Frontier
from raydex.records import Manifest
from raydex.snapshot import snapshot_bytes
from utils.files import write_bytes

NOTABLE = ("failed", "stale", "missing", "skipped")
SLOWEST = 10
SAMPLES = 3


@dataclass(slots=True)
class PageReport:
    """Every page that did not make it, or only as an old copy, with its reason and where it was linked from."""

    notable: dict[str, list[dict[str, str]]] = field(default_factory=lambda: {name: [] for name in NOTABLE})
    denied: list[str] = field(default_factory=list)  # the first ones
    denied_count: int = 0
    truncated: int = 0  # links beyond --max-pages or --max-depth
    binary: int = 0  # links to pictures, archives and the like, known by their suffix
    trapped: dict[str, int] = field(default_factory=dict)  # pattern → URLs beyond --max-per-pattern
    problems: tuple[str, ...] = ()  # of sitemaps and llms.txt
    samples: list[dict[str, str]] = field(default_factory=list)  # of dropped boilerplate
    slowest: list[tuple[float, str]] = field(default_factory=list)  # a heap: seconds, URL

    def add(self, outcome: PageOutcome) -> None:
        if outcome.outcome in self.notable:
            kept = {name: getattr(outcome, name) for name in ("url", "reason", "detail", "referrer")}
            self.notable[outcome.outcome].append(
                kept | ({"stale_builds": str(outcome.stale_builds)} if outcome.stale_builds else {})
            )
        if outcome.dropped_samples and len(self.samples) < SAMPLES:
            self.samples.append({"url": outcome.url, "text": outcome.dropped_samples[0]})
        push = heapq.heappush if len(self.slowest) < SLOWEST else heapq.heappushpop
        push(self.slowest, (outcome.seconds, outcome.url))

    def add_frontier(self, frontier: Frontier) -> None:
        self.denied, self.denied_count = list(frontier.denied), frontier.denied_count
        self.truncated, self.binary = frontier.truncated, frontier.binary
        self.trapped = dict(frontier.trapped)

    def reasons(self) -> str:
        """Say in one line why pages are not in the index, or not anew."""
        counted = Counter(f"{page['reason']}" for pages in self.notable.values() for page in pages)
        parts = [f"{reason}: {count}" for reason, count in counted.most_common()]
        parts += [f"denied by robots.txt: {self.denied_count}"] if self.denied_count else []
        parts += [page["detail"] for page in self.notable["skipped"] if page["reason"] == "redirect_outside"][:1]
        return ", ".join(parts) or "no page had any text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the build would do: chunks without a vector, their tokens, and how long the model will take for them."""

    chunks_to_embed: int
    tokens_to_embed: int
    expected_minutes: float
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """How a build ended. timings_s: wall seconds, and `busy_…` summed over all workers.

    seconds_saved: what embedding the reused chunks would have taken, at the speed that saved_basis names.
    embedder: its fingerprint. pages: by outcome. page_origins: of those read, see units.Fetched. page_changes: against
    the snapshot that was live.
    """

    outcome: str
    message: str
    index: str
    embedder: str
    build_id: str
    resumed: bool
    finished_at: str
    snapshot_id: str
    content_digest: str
    pages: dict[str, int]
    page_origins: dict[str, int]
    page_changes: dict[str, int]
    duplicates: dict[str, int]
    sections: int
    chunks: dict[str, int]
    tokens_embedded: int
    tokens_per_s: float
    tokens_reused: int
    seconds_saved: float
    saved_basis: str
    shards: int
    links_beyond_limits: int
    trapped_urls: int
    requests_saved: int
    downloaded_bytes: int
    bytes: int
    dropped_words: int
    hidden_words: int
    plan: Plan | None
    gate: dict[str, Any]  # of GateReport; empty when the build did not come that far
    freed: Freed | None
    timings_s: dict[str, float]

    @classmethod
    def of(
        cls,
        context: BuildContext,
        status: Status,
        pages: PageReport,
        outcome: str,
        message: str,
        *,
        seconds: dict[str, float],
        rate: Rate,
        resumed: bool,
        manifest: Manifest | None = None,
        changes: PageChanges | None = None,
        duplicates: DuplicatesReceipt | None = None,
        plan: Plan | None = None,
        gate: GateReport | None = None,
        freed: Freed | None = None,
    ) -> Self:
        counts = {name: status.pages[name] for name in ("fetched", "redirected", *NOTABLE)}
        busy = {f"busy_{stage}": round(value, 3) for stage, value in status.busy_s.items()}
        busy_embedders_s = status.embedder_s / status.embedders
        tokens_per_s = round(status.tokens / busy_embedders_s, 1) if busy_embedders_s else 0.0
        seconds_saved, basis = saved_by(status.reused_tokens, rate, tokens=status.tokens, tokens_per_s=tokens_per_s)
        return cls(
            outcome=outcome,
            message=message,
            index=context.config.index,
            embedder=context.embedder.fingerprint,
            build_id=context.build_id,
            resumed=resumed,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            snapshot_id=manifest.snapshot_id if manifest else "",
            content_digest=manifest.content_digest if manifest else "",
            pages={**counts, "indexed": manifest.counts["pages"] if manifest else 0, "denied": pages.denied_count},
            page_origins=dict(status.origins),
            page_changes=changes.counts() if changes else {},
            duplicates={"pages": duplicates.pages, "sections": duplicates.sections} if duplicates else {},
            sections=manifest.counts["sections"] if manifest else status.sections,
            chunks={"total": status.chunks, "embedded": status.embedded, "reused": status.reused},
            tokens_embedded=status.tokens,
            tokens_per_s=tokens_per_s,
            tokens_reused=status.reused_tokens,
            seconds_saved=seconds_saved,
            saved_basis=basis,
            shards=len(manifest.shards) if manifest else 0,
            links_beyond_limits=pages.truncated,
            trapped_urls=sum(pages.trapped.values()),
            requests_saved=status.origins["lastmod"],
            downloaded_bytes=status.downloaded_bytes,
            bytes=snapshot_bytes(manifest) if manifest else 0,
            dropped_words=status.dropped_words,
            hidden_words=status.hidden_words,
            plan=plan,
            gate=gate.told() if gate else {},
            freed=freed,
            timings_s={stage: round(value, 3) for stage, value in seconds.items()} | busy,
        )

    def json_line(self) -> str:
        """Return the one line that a program reads from stdout."""
        line = {
            "snapshot_id": self.snapshot_id,
            "index": self.index,
            "build_id": self.build_id,
            "outcome": self.outcome,
            "resumed": self.resumed,
            "pages": self.pages["indexed"] or self.pages["fetched"] + self.pages["stale"],
            **{f"{name}_pages": self.pages[name] for name in NOTABLE},
            **{f"{name}_pages": count for name, count in self.page_changes.items()},
            "duplicate_pages": self.duplicates.get("pages", 0),
            "links_beyond_limits": self.links_beyond_limits,
            "not_modified_pages": self.page_origins.get("unchanged", 0),
            "reused_pages": sum(count for origin, count in self.page_origins.items() if origin != "network"),
            "sections": self.sections,
            "chunks": self.chunks["total"],
            "embedded_chunks": self.chunks["embedded"],
            "reused_chunks": self.chunks["reused"],
            "embedded_tokens": self.tokens_embedded,
            "reused_tokens": self.tokens_reused,
            "seconds_saved": self.seconds_saved,
            "shards": self.shards,
            "content_digest": self.content_digest,
            "failed_checks": list(dict.fromkeys(failure["check"] for failure in self.gate.get("failures", ()))),
            "timings_s": self.timings_s,
            "bytes": self.bytes,
            "freed_bytes": self.freed.bytes if self.freed else 0,
        }
        return json.dumps(line | ({"plan": asdict(self.plan)} if self.plan else {}))

    def table(self) -> Table:
        """Return the closing table for a person."""
        table = Table(title=f"{self.index}: {self.outcome}", show_header=False, title_justify="left")
        for name, value in self._rows():
            table.add_row(name, value)
        return table

    def _rows(self) -> Iterator[tuple[str, str]]:
        pages, chunks, seconds = self.pages, self.chunks, self.timings_s
        if not self.plan:
            yield "snapshot", self.snapshot_id or "none"
        yield (
            "pages",
            f"{pages['indexed'] or pages['fetched'] + pages['stale']} {'to index' if self.plan else 'indexed'} · "
            f"{pages['failed']} failed · {pages['stale']} stale · "
            f"{pages['missing']} missing · {pages['skipped']} skipped · {pages['denied']} denied by robots.txt",
        )
        if self.page_changes:
            yield "changes", " · ".join(f"{count} {name}" for name, count in self.page_changes.items())
        if origins := self.page_origins:
            told = {"network": "downloaded", "unchanged": "not modified (304)", "lastmod": "unchanged by sitemap"}
            yield "requests", " · ".join(f"{count} {told.get(name, name)}" for name, count in origins.items())
        if any(self.duplicates.values()):
            yield "duplicates", f"{self.duplicates['pages']} pages · {self.duplicates['sections']} sections left out"
        if self.links_beyond_limits:
            yield "left out", f"{self.links_beyond_limits:,} links beyond --max-pages or --max-depth"
        if self.trapped_urls:
            yield "traps", f"{self.trapped_urls:,} URLs beyond --max-per-pattern"
        if self.dropped_words:
            yield "boilerplate", f"{self.dropped_words:,} words left out, {self.hidden_words:,} of them hidden"
        yield "sections", f"{self.sections:,}"
        if self.plan:
            yield "chunks", f"{chunks['total']:,} ({self.plan.chunks_to_embed:,} to embed)"
            yield "expected", f"{self.plan.expected_minutes:.1f} minutes of embedding ({self.plan.basis})"
        else:
            yield "chunks", f"{chunks['total']:,} ({chunks['embedded']:,} embedded, {chunks['reused']:,} reused)"
            if self.tokens_reused:
                yield "saved", f"{self.seconds_saved:,.0f} s for {self.tokens_reused:,} tokens ({self.saved_basis})"
            yield "shards", f"{self.shards} ({self.bytes / 2**20:,.1f} MiB)"
        yield from self._rows_of_the_end()
        walls = [f"{name} {value:.1f}" for name, value in seconds.items() if not name.startswith("busy_")]
        yield "seconds", " · ".join(walls)

    def _rows_of_the_end(self) -> Iterator[tuple[str, str]]:
        if overridden := self.gate.get("published_anyway"):
            yield "gate", f"published in spite of {', '.join(overridden['checks'])}: {overridden['reason']}"
        if freed := self.freed:
            yield "removed", f"{len(freed.snapshots)} old snapshots, {freed.bytes / 2**20:,.1f} MiB"


def write_report(
    context: BuildContext, result: BuildResult, pages: PageReport, changes: PageChanges | None, paces: dict[str, Any]
) -> Path:
    """Write report.json: the result, and each page that is not in the index, or only as an old copy, and why."""
    duplicates = context.build_dir / "duplicates.json"
    report: dict[str, Any] = {
        **asdict(result),
        **{f"{name}_pages": pages.notable[name] for name in NOTABLE},
        "robots_denied": pages.denied,
        "links_to_no_page": pages.binary,
        "trapped": pages.trapped,
        "discovery_problems": pages.problems,
        "slowest_pages": [{"url": url, "seconds": seconds} for seconds, url in sorted(pages.slowest, reverse=True)],
        "dropped_samples": pages.samples,
        "changed_urls": asdict(changes) if changes else {},
        "duplicate_groups": json.loads(duplicates.read_bytes()) if duplicates.exists() else {},
        "hosts": paces,
    }
    path = context.build_dir / "report.json"
    write_bytes(path, json.dumps(report, indent=1, ensure_ascii=False).encode())
    return path
