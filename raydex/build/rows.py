"""From the rows of all units, but what is dropped as duplicate, to the objects of one shard. No Ray here.

units/<id>.{chunks,sections,pages}.parquet, .vectors.npy, dropped.parquet → objects/ → Shard
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydex.build.units import BuildContext
from raydex.checkpoint import full_disk_named
from raydex.records import Shard, Vectors
from raydex.shard import CHUNK_SCHEMA, PAGE_SCHEMA, SECTION_SCHEMA, write_shard


def shard_number(page_id: str, shards: int) -> int:
    """The shard of a page: its id modulo the number of shards, so that an edited page touches one shard."""
    return int(page_id[:8], 16) % shards


def shard_unit(context: BuildContext, number: int, shards: int, unit_ids: Sequence[str]) -> Shard:
    """Gather the rows of one shard from all units, without duplicates, and write its objects."""
    dropped = Dropped.read(context.build_dir)
    chunks, vectors = [], []
    sections: list[pa.Table] = []
    pages: list[pa.Table] = []
    for unit_id in unit_ids:
        base = context.units_dir / unit_id
        table = pq.read_table(f"{base}.chunks.parquet", columns=CHUNK_SCHEMA.names)
        mine = _rows_of(table, number, shards, dropped)
        if not mine.any():
            continue
        chunks.append(table.filter(pa.array(mine)))
        vectors.append(np.load(f"{base}.vectors.npy", mmap_mode="r", allow_pickle=False)[mine])
        for kept, role in ((sections, "sections"), (pages, "pages")):
            of_unit = pq.read_table(f"{base}.{role}.parquet")
            kept.append(of_unit.filter(pa.array(_rows_of(of_unit, number, shards, dropped))))
    rows: Vectors = np.concatenate(vectors) if vectors else np.empty((0, context.embedder.dim), np.float32)
    with full_disk_named(context.index_dir):
        return write_shard(
            f"{number:05d}",
            pa.concat_tables([CHUNK_SCHEMA.empty_table(), *chunks]),
            np.ascontiguousarray(rows),
            pa.concat_tables([SECTION_SCHEMA.empty_table(), *sections]),
            dropped.with_copies(pa.concat_tables([PAGE_SCHEMA.empty_table(), *pages])),
            context.objects_dir,
        )


class Dropped:
    """The pages and sections that are left out as duplicates. copies: page_id of a kept page → URLs it stands for."""

    FILE = "dropped.parquet"

    def __init__(self, ids: Collection[str], copies: dict[str, list[str]]) -> None:
        self.ids, self._copies = frozenset(ids), copies

    @classmethod
    def read(cls, build_dir: Path) -> "Dropped":
        rows = pq.read_table(build_dir / cls.FILE).to_pylist()
        copies: dict[str, list[str]] = {}
        for row in rows:
            if row["kept_page_id"]:
                copies.setdefault(row["kept_page_id"], []).append(row["url"])
        return cls({row["id"] for row in rows}, copies)

    def with_copies(self, pages: pa.Table) -> pa.Table:
        copies = [sorted(self._copies.get(page_id, [])) for page_id in pages["page_id"].to_pylist()]
        column = pages.column_names.index("copies")
        return pages.set_column(column, PAGE_SCHEMA.field("copies"), pa.array(copies, pa.list_(pa.string())))


def _rows_of(table: pa.Table, number: int, shards: int, dropped: Dropped) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    """Tell for each row whether it belongs to the shard."""
    pages = {
        page_id
        for page_id in pc.unique(table["page_id"]).to_pylist()
        if page_id not in dropped.ids and shard_number(page_id, shards) == number
    }
    mine = np.fromiter((page_id in pages for page_id in table["page_id"].to_pylist()), np.bool_, table.num_rows)
    if dropped.ids and "section_id" in table.column_names:
        sections = table["section_id"].to_pylist()
        mine &= np.fromiter((section_id not in dropped.ids for section_id in sections), np.bool_, table.num_rows)
    return mine
