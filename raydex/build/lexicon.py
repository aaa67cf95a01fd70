"""From the shards of a snapshot to its lexical index. No Ray here.

    shards in order → passages, a block of rows at a time → write_lexical → Lexical

The index of the parent is taken over when it was made from the same texts by the same analyzer.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydex.lexical import ANALYZER, Passage, write_lexical
from raydex.records import Lexical, Manifest, Shard
from raydex.shard import pages_of

ROWS = 4096
"""Chunks in memory at a time."""

READ = ("chunks", "sections", "pages")
"""The files of a shard that the lexical index is made of."""

OF_CHUNKS = ["section_id", "page_id", "url", "title", "headings", "text", "char_start"]
OF_SECTIONS = ["kind", "symbol", "aliases"]
OF_PAGES = ["source", "version", "language"]


def index_words(shards: Sequence[Shard], objects_dir: Path, scratch: Path, parent: Manifest | None = None) -> Lexical:
    """Write the lexical index of these shards, or return that of the parent. scratch: a folder to work in."""
    if parent and parent.lexical and _is_of(parent.lexical, parent.shards, shards, objects_dir):
        return parent.lexical
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lexical-", dir=scratch) as work:
        return write_lexical(passages_of(shards, objects_dir), objects_dir, Path(work))


def _is_of(lexical: Lexical, its_shards: Sequence[Shard], shards: Sequence[Shard], objects_dir: Path) -> bool:
    """Its files have other bytes each time they are made, so the texts are compared that it was made of."""
    same_texts = [_texts(shard) for shard in its_shards] == [_texts(shard) for shard in shards]
    files = ((objects_dir / stored.sha256, stored.bytes) for stored in lexical.objects.values())
    return (
        same_texts
        and lexical.analyzer == ANALYZER
        and all(path.is_file() and path.stat().st_size == size for path, size in files)
    )


def _texts(shard: Shard) -> list[Any]:
    return [shard.objects.get(role) for role in READ]


def passages_of(shards: Sequence[Shard], objects_dir: Path) -> Iterator[Passage]:
    """Yield the chunks of all shards in the order of rows; of a shard, its sections and pages are in memory."""
    for shard in shards:
        sections = _sections(shard, objects_dir)
        pages = pages_of(shard, objects_dir, ["page_id", *OF_PAGES])
        chunks = pq.ParquetFile(objects_dir / shard.objects["chunks"].sha256)
        for batch in chunks.iter_batches(ROWS, columns=OF_CHUNKS):
            block = pa.Table.from_batches([batch])
            block = _beside(block, "section_id", sections, [*OF_SECTIONS, "first"])
            block = _beside(block, "page_id", pages, OF_PAGES)
            yield from map(_passage, block.to_pylist())


def _sections(shard: Shard, objects_dir: Path) -> pa.Table:
    """Return section_id, what is known of each, and where its first chunk begins."""
    path = objects_dir / shard.objects["sections"].sha256
    known = pq.ParquetFile(path).schema_arrow.names
    sections = pq.read_table(path, columns=["section_id", *(name for name in OF_SECTIONS if name in known)])
    places = pq.read_table(objects_dir / shard.objects["chunks"].sha256, columns=["section_id", "char_start"])
    firsts = places.group_by("section_id").aggregate([("char_start", "min")]).rename_columns(["section_id", "first"])
    return _beside(sections, "section_id", firsts, ["first"])


def _beside(table: pa.Table, key: str, other: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the table with these columns of the other one, whose key each row has; those that it lacks left out."""
    rows = pc.index_in(table[key], value_set=other[key].combine_chunks())
    for name in columns:
        if name in other.column_names:
            table = table.append_column(name, other[name].take(rows))
    return table


def _passage(row: dict[str, Any]) -> Passage:
    return Passage(
        text=row["text"],
        title=row["title"],
        headings=tuple(row["headings"]),
        url=row["url"].partition("#")[0],
        source=row["source"] or "",
        version=row["version"] or "",
        language=row["language"] or "",
        kind=row.get("kind") or "prose",
        symbol=row.get("symbol") or "",
        aliases=tuple(row.get("aliases") or ()),
        is_first=row["char_start"] == row["first"],
    )
