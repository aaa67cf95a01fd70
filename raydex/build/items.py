"""Find the pages and sections that say the same, over all units of a build. No Ray here.

units/<id>.items.parquet (a sketch per page and section) → dropped.parquet, duplicates.json → DuplicatesReceipt
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydex.build.rows import Dropped
from raydex.build.units import BuildContext
from raydex.checkpoint import write_parquet
from raydex.duplicates import LEAST_WORDS_OF_SECTION, Group, Item, group, sketch
from raydex.records import PageInfo, Section
from utils.files import write_bytes

ITEM_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("url", pa.string()),
        ("words", pa.int32()),
        ("text_sha", pa.string()),
        ("sketch", pa.binary()),
        ("version", pa.string()),
        ("canonical", pa.string()),
        ("page", pa.string()),
        ("name", pa.string()),
    ]
)
DROPPED_SCHEMA = pa.schema([("id", pa.string()), ("url", pa.string()), ("kept_page_id", pa.string())])


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesReceipt:
    """How much was left out as duplicate, and the digest of what."""

    pages: int
    sections: int
    digest: str


def items_of(info: PageInfo, sections: Sequence[Section], canonical: str) -> Iterator[Item]:
    """Yield the page and those of its sections that are long enough to be duplicates."""
    whole = "\n".join(section.text for section in sections)
    named = {"version": info.version, "canonical": canonical, "name": sections[0].headings[0] if sections else ""}
    yield _item(info.page_id, info.url, whole, len(whole.split()), **named)
    for section in sections:
        if (words := len(section.text.split())) >= LEAST_WORDS_OF_SECTION:
            name = section.symbol or section.headings[-1]
            place = {"version": info.version, "page": info.page_id, "name": name}
            yield _item(section.section_id, section.url, section.text, words, **place)


def _item(key: str, url: str, text: str, words: int, **more: str) -> Item:
    return Item(
        key=key,
        url=url,
        words=words,
        text_sha=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        sketch=sketch(text),
        **more,
    )


def write_items(path: Path, items: Iterable[Item]) -> None:
    rows = [{**asdict(item), "sketch": item.sketch.tobytes()} for item in items]
    write_parquet(path, pa.Table.from_pylist(rows, schema=ITEM_SCHEMA), durable=False)


def _items(context: BuildContext, unit_ids: Sequence[str]) -> Iterator[Item]:
    for unit_id in unit_ids:
        for row in pq.read_table(context.units_dir / f"{unit_id}.items.parquet").to_pylist():
            yield Item(**{**row, "sketch": np.frombuffer(row["sketch"], np.uint64)})


def drop_duplicates(context: BuildContext, unit_ids: Sequence[str]) -> DuplicatesReceipt:
    """Write what is left out of the shards (dropped.parquet) and the groups, for the report (duplicates.json)."""
    least = context.config.crawl.duplicate_share
    items = list(_items(context, unit_ids)) if least else []
    urls = {item.key: item.url for item in items}
    pages = group((item for item in items if not item.page), least=least)
    gone = {key for found in pages for key in found.dropped}
    sections = group((item for item in items if item.page and item.page not in gone), least=least)
    rows = [
        *({"id": key, "url": urls[key], "kept_page_id": found.kept} for found in pages for key in found.dropped),
        *({"id": key, "url": urls[key], "kept_page_id": ""} for found in sections for key in found.dropped),
    ]
    table = pa.Table.from_pylist(rows, schema=DROPPED_SCHEMA)
    write_parquet(context.build_dir / Dropped.FILE, table, durable=False)
    report = {"pages": [_told(found, urls) for found in pages], "sections": [_told(found, urls) for found in sections]}
    write_bytes(context.build_dir / "duplicates.json", json.dumps(report).encode())
    return DuplicatesReceipt(
        pages=len(gone),
        sections=len(rows) - len(gone),
        digest=hashlib.sha256("\n".join(sorted(row["id"] for row in rows)).encode()).hexdigest(),
    )


def _told(found: Group, urls: dict[str, str]) -> dict[str, object]:
    return {
        "kept": urls[found.kept],
        "dropped": [urls[key] for key in found.dropped],
        "similarity": round(found.similarity, 3),
        "kind": found.kind,
    }
