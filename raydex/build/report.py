"""What a build has to say when it ends: report.json, the closing table and the JSON line.

Status + PageReport + Manifest → BuildResult → report.json, table, one line
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from rich.table import Table

from raydex.build.progress import Status
from raydex.build.units import BuildContext, PageOutcome
from raydex.records import Manifest
from raydex.snapshot import snapshot_bytes
from utils.files import write_bytes

NOTABLE = ("failed", "missing", "skipped")


@dataclass(slots=True)
class PageReport:
    """Every page that did not make it, with its reason and where it was linked from."""

    notable: dict[str, list[dict[str, str]]] = field(default_factory=lambda: {name: [] for name in NOTABLE})
    denied: list[str] = field(default_factory=list)
    truncated: int = 0  # links beyond --max-pages or --max-depth
    binary: int = 0  # links to pictures, archives and the like, known by their suffix

    def add(self, outcome: PageOutcome) -> None:
        if outcome.outcome in self.notable:
            kept = ("url", "reason", "detail", "referrer")
            self.notable[outcome.outcome].append({name: getattr(outcome, name) for name in kept})

    def reasons(self) -> str:
        """Say in one line why pages are not in the index."""
        counted = Counter(f"{page['reason']}" for pages in self.notable.values() for page in pages)
        parts = [f"{reason}: {count}" for reason, count in counted.most_common()]
        parts += [f"denied by robots.txt: {len(self.denied)}"] if self.denied else []
        parts += [page["detail"] for page in self.notable["skipped"] if page["reason"] == "redirect_outside"][:1]
        return ", ".join(parts) or "no page had any text"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildResult:
    """How a build ended. timings_s: wall seconds, and `busy_…` summed over all workers, killed runs included."""

    outcome: str
    message: str
    index: str
    build_id: str
    resumed: bool
    finished_at: str
    snapshot_id: str
    content_digest: str
    pages: dict[str, int]
    page_origins: dict[str, int]
    sections: int
    chunks: dict[str, int]
    tokens_embedded: int
    shards: int
    links_beyond_limits: int
    downloaded_bytes: int
    bytes: int
    dropped_words: int
    timings_s: dict[str, float]

    @classmethod
    def of(
        cls,
        context: BuildContext,
        status: Status,
        pages: PageReport,
        seconds: dict[str, float],
        outcome: str,
        message: str,
        manifest: Manifest | None,
        *,
        resumed: bool,
    ) -> Self:
        counts = {name: status.pages[name] for name in ("fetched", "redirected", *NOTABLE)}
        busy = {f"busy_{stage}": round(value, 3) for stage, value in status.busy_s.items()}
        return cls(
            outcome=outcome,
            message=message,
            index=context.config.index,
            build_id=context.build_id,
            resumed=resumed,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            snapshot_id=manifest.snapshot_id if manifest else "",
            content_digest=manifest.content_digest if manifest else "",
            pages={**counts, "indexed": manifest.counts["pages"] if manifest else 0, "denied": len(pages.denied)},
            page_origins=dict(status.origins),
            sections=manifest.counts["sections"] if manifest else status.sections,
            chunks={"total": status.chunks, "embedded": status.embedded, "reused": status.reused},
            tokens_embedded=status.tokens,
            shards=len(manifest.shards) if manifest else 0,
            links_beyond_limits=pages.truncated,
            downloaded_bytes=status.downloaded_bytes,
            bytes=snapshot_bytes(manifest) if manifest else 0,
            dropped_words=status.dropped_words,
            timings_s={stage: round(value, 3) for stage, value in seconds.items()} | busy,
        )

    def json_line(self) -> str:
        """Return the one line that a program reads from stdout."""
        line = {
            "snapshot_id": self.snapshot_id,
            "index": self.index,
            "build_id": self.build_id,
            "resumed": self.resumed,
            "pages": self.pages["indexed"],
            "failed_pages": self.pages["failed"],
            "missing_pages": self.pages["missing"],
            "skipped_pages": self.pages["skipped"],
            "links_beyond_limits": self.links_beyond_limits,
            "reused_pages": self.page_origins.get("reused", 0) + self.page_origins.get("unchanged", 0),
            "sections": self.sections,
            "chunks": self.chunks["total"],
            "embedded_chunks": self.chunks["embedded"],
            "reused_chunks": self.chunks["reused"],
            "shards": self.shards,
            "content_digest": self.content_digest,
            "timings_s": self.timings_s,
            "bytes": self.bytes,
        }
        return json.dumps(line)

    def table(self) -> Table:
        """Return the closing table for a person."""
        table = Table(title=f"{self.index}: {self.outcome}", show_header=False, title_justify="left")
        for name, value in self._rows():
            table.add_row(name, value)
        return table

    def _rows(self) -> Iterator[tuple[str, str]]:
        pages, chunks, seconds = self.pages, self.chunks, self.timings_s
        yield "snapshot", self.snapshot_id or "none"
        yield (
            "pages",
            f"{pages['indexed']} indexed · {pages['failed']} failed · {pages['missing']} missing · "
            f"{pages['skipped']} skipped · {pages['denied']} denied by robots.txt",
        )
        if self.links_beyond_limits:
            yield "left out", f"{self.links_beyond_limits:,} links beyond --max-pages or --max-depth"
        yield "sections", f"{self.sections:,}"
        yield "chunks", f"{chunks['total']:,} ({chunks['embedded']:,} embedded, {chunks['reused']:,} reused)"
        yield "shards", f"{self.shards} ({self.bytes / 2**20:,.1f} MiB)"
        walls = [f"{name} {value:.1f}" for name, value in seconds.items() if not name.startswith("busy_")]
        yield "seconds", " · ".join(walls)


def write_report(build_dir: Path, result: BuildResult, pages: PageReport) -> Path:
    """Write report.json: the result, and each page that is not in the index with its reason."""
    report: dict[str, Any] = {
        **asdict(result),
        "failed_pages": pages.notable["failed"],
        "missing_pages": pages.notable["missing"],
        "skipped_pages": pages.notable["skipped"],
        "robots_denied": pages.denied,
        "links_to_no_page": pages.binary,
    }
    path = build_dir / "report.json"
    write_bytes(path, json.dumps(report, indent=1, ensure_ascii=False).encode())
    return path
