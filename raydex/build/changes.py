"""What is new since the live snapshot, page by page, and what a build would cost. No Ray here.

the live snapshot's pages, the units' pages → PageChanges        an earlier build's report → Rate
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raydex.build.rows import Dropped
from raydex.build.units import BuildContext
from raydex.errors import SnapshotCorrupt
from raydex.records import EmbedderInfo, Manifest
from raydex.shard import pages_of

logger = logging.getLogger(__name__)

COLUMNS = ("page_id", "url", "body_sha256")

ASSUMED_TOKENS_PER_S = {"openvino": 15_000.0, "sentence-transformers": 2_400.0}
"""Per processor, all-MiniLM-L6-v2 (bench/embed.py), the compiled model in bf16."""

ASSUMED_OF_OTHERS = 1_000_000.0
"""A GPU, or the fake model: whatever it is exactly, embedding is not what such a build waits for."""

TELLING_TOKENS = 10_000  # a build that embedded less says little about the speed of the next one


@dataclass(frozen=True, slots=True, kw_only=True)
class PageChanges:
    """URLs of pages in the index, against the live snapshot; a page is changed when its body is another one."""

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    unchanged: int = 0

    def counts(self) -> dict[str, int]:
        lists = {name: len(getattr(self, name)) for name in ("new", "changed", "deleted")}
        return {**lists, "unchanged": self.unchanged}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Tokens that all embedders together take in a second, and where the number comes from."""

    tokens_per_s: float
    basis: str


def page_changes(context: BuildContext, unit_ids: Sequence[str], live: Manifest | None) -> PageChanges:
    """Compare the pages of the units, duplicates aside, with those of the live snapshot."""
    dropped = Dropped.read(context.build_dir).ids
    parts = (pq.read_table(context.units_dir / f"{unit_id}.pages.parquet", columns=[*COLUMNS]) for unit_id in unit_ids)
    now = {row[0]: row[1:] for part in parts for row in _rows(part) if row[0] not in dropped}
    before = _pages_before(live, context.objects_dir)
    both = now.keys() & before.keys()
    return PageChanges(
        new=tuple(sorted(now[key][0] for key in now.keys() - before.keys())),
        changed=tuple(sorted(now[key][0] for key in both if now[key][1] != before[key][1])),
        deleted=tuple(sorted(before[key][0] for key in before.keys() - now.keys())),
        unchanged=sum(now[key][1] == before[key][1] for key in both),
    )


def _pages_before(live: Manifest | None, objects_dir: Path) -> dict[str, tuple[str, str]]:
    """Return page_id → URL and checksum; none when they cannot be read: that must not stand in the way of a build."""
    shards = live.shards if live else ()
    try:
        return {row[0]: row[1:] for shard in shards for row in _rows(pages_of(shard, objects_dir, COLUMNS))}
    except SnapshotCorrupt as error:
        logger.warning("pages of the live snapshot unreadable, all are called new reason=%s", error)
        return {}


def _rows(table: pa.Table) -> Iterator[tuple[str, str, str]]:
    yield from zip(*(table[name].to_pylist() for name in COLUMNS), strict=True)


def saved_by(reused_tokens: int, before: Rate, *, tokens: int, tokens_per_s: float) -> tuple[float, str]:
    """Return the seconds that reused vectors saved, at the speed of this build if it tells, else of an earlier one.

    tokens, tokens_per_s: what this build embedded, and how fast.
    """
    rate = Rate(tokens_per_s=tokens_per_s, basis="measured in this build") if tokens >= TELLING_TOKENS else before
    return round(reused_tokens / rate.tokens_per_s, 2), f"{rate.tokens_per_s:,.0f} tokens/s, {rate.basis}"


def embedding_rate(index_dir: Path, embedder: EmbedderInfo) -> Rate:
    """Return the speed of the newest build that embedded enough to tell, with this embedder, into any index here."""
    reports = sorted(index_dir.parent.glob("*/builds/*/report.json"), key=lambda path: path.parent.name, reverse=True)
    for path in sorted(reports, key=lambda path: path.parts[-4] != index_dir.name):
        report = report_of(path.parent)
        if tells_speed(report) and report.get("embedder") == embedder.fingerprint:
            basis = f"measured in build {path.parent.name} of {path.parts[-4]}"
            return Rate(tokens_per_s=report["tokens_per_s"], basis=basis)
    processors = os.cpu_count() or 1
    assumed = ASSUMED_TOKENS_PER_S.get(embedder.backend, ASSUMED_OF_OTHERS) * processors
    return Rate(tokens_per_s=assumed, basis=f"assumed for {embedder.backend} on {processors} processors, no build yet")


def report_of(build_dir: Path) -> dict[str, Any]:
    """Return the report of a build, empty when it has none that can be read."""
    try:
        report: dict[str, Any] = json.loads((build_dir / "report.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return report


def tells_speed(report: Mapping[str, Any]) -> bool:
    return bool(report.get("tokens_embedded", 0) >= TELLING_TOKENS and report.get("tokens_per_s"))
