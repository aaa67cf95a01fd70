"""From the rows of units to shards, by way of the disk. No Ray here.

units of a group, without duplicates → shuffle_units → shuffle/<group>-<part>.rows: sorted rows, shard by shard
those of one shard in all parts      → shard_unit    → its objects, its lines of the content digest, its recall
lines and recall of all shards       → close_shards  → Closing

Every step reads and writes files in order and holds a bounded number of rows, so that a build needs disk for its corpus
and memory for a part of it. A row is read twice and written twice, however many units and shards there are.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydex.ann import RECALL_AT, RECALL_QUERIES, SAME_SCORE, as_queries, best_rows, sample_rows
from raydex.build.rows import Dropped, shard_number
from raydex.build.units import BuildContext
from raydex.checkpoint import full_disk_named
from raydex.digest import digest_of_records, digest_records, has_records, records_of
from raydex.records import Shard, Vectors
from raydex.shard import EXACT_KIND, ShardRows, open_vectors, write_rows
from raydex.tables import (
    CHUNK_SCHEMA,
    PAGE_SCHEMA,
    SECTION_SCHEMA,
    merged_once,
    sorted_once,
    vectors_of_column,
    vectors_to_column,
)
from utils.files import write_atomically, write_bytes

UNITS_PER_SHUFFLE = 256
"""Units whose rows one task spreads over the shards: about 2,000 pages."""

PART_BYTES = 64 * 2**20
"""Rows that a task gathers before it writes them: with their sorted copies, 0.25 GB of memory."""

KEYS = {"chunks": "chunk_id", "sections": "section_id", "pages": "page_id"}
SCHEMAS = {"chunks": CHUNK_SCHEMA, "sections": SECTION_SCHEMA, "pages": PAGE_SCHEMA}
ROLES = tuple(KEYS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shuffle:
    """One way to spread the rows of a build. content: digest of the rows; parts are found again by it."""

    shards: int
    kind: str
    least_recall: float
    content: str

    def folder(self, context: BuildContext) -> Path:
        return context.units_dir / f"shuffle-{self.shards}-{self.content}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What can be said of all shards together."""

    digest: str
    recall: float


# --- units → parts ---


def shuffle_units(context: BuildContext, shuffle: Shuffle, group: str, unit_ids: Sequence[str]) -> None:
    """Write the parts of a group of units. What a killed build has finished is left as it is."""
    folder = shuffle.folder(context)
    done = folder / f"{group}.done"
    if done.exists() and all(_is_whole(folder / name, size) for name, size in json.loads(done.read_text()).items()):
        return
    written: dict[str, int] = {}
    with full_disk_named(context.index_dir):
        for tables in _gathered(context, unit_ids):
            path = folder / f"{group}-{len(written):05d}.rows"
            with write_atomically(path, durable=False) as out:
                _write_part(out, _without_dropped(tables, context.build_dir / Dropped.FILE), shuffle.shards)
            written[path.name] = path.stat().st_size
        write_bytes(done, json.dumps(written).encode(), durable=False)


def _is_whole(path: Path, size: int) -> bool:
    return path.exists() and path.stat().st_size == size  # a power cut leaves empty files: they are not fsynced


def _gathered(context: BuildContext, unit_ids: Sequence[str]) -> Iterator[dict[str, pa.Table]]:
    """Yield the tables of units, as many units at a time as PART_BYTES holds."""
    gathered: list[dict[str, pa.Table]] = []
    size = 0
    for unit_id in unit_ids:
        tables = _tables_of(context, unit_id)
        gathered.append(tables)
        size += sum(table.nbytes for table in tables.values())
        if size >= PART_BYTES:
            yield _taken_together(gathered)
            size = 0
    if gathered:
        yield _taken_together(gathered)


def _tables_of(context: BuildContext, unit_id: str) -> dict[str, pa.Table]:
    base = context.units_dir / unit_id
    tables = {role: pq.read_table(f"{base}.{role}.parquet", columns=SCHEMAS[role].names) for role in ROLES}
    vectors = np.load(f"{base}.vectors.npy", allow_pickle=False)
    tables["chunks"] = tables["chunks"].append_column("vector", vectors_to_column(vectors))
    return tables


def _taken_together(parts: list[dict[str, pa.Table]]) -> dict[str, pa.Table]:
    """Join tables, and forget those that were joined."""
    joined = {role: pa.concat_tables([tables.pop(role) for tables in parts]).combine_chunks() for role in ROLES}
    parts.clear()
    return joined


def _without_dropped(tables: dict[str, pa.Table], path: Path) -> dict[str, pa.Table]:
    """Leave out the rows of dropped pages and sections, and name the copies that a kept page stands for."""
    pages, sections = tables["pages"]["page_id"], tables["sections"]["section_id"]
    ids = pa.chunked_array([*pages.chunks, *sections.chunks], pa.string()).combine_chunks()
    dropped, copies = _dropped_among(path, ids)
    kept = {}
    for role, table in tables.items():
        gone = pc.is_in(table["page_id"], value_set=dropped)
        if role != "pages":
            gone = pc.or_(gone, pc.is_in(table["section_id"], value_set=dropped))
        kept[role] = table.filter(pc.invert(gone))
    of_page = [sorted(copies.get(page_id, [])) for page_id in kept["pages"]["page_id"].to_pylist()]
    column = pa.array(of_page, pa.list_(pa.string()))
    kept["pages"] = kept["pages"].set_column(PAGE_SCHEMA.get_field_index("copies"), PAGE_SCHEMA.field("copies"), column)
    return kept


def _dropped_among(path: Path, ids: pa.Array) -> tuple[pa.Array, dict[str, list[str]]]:
    """Return those of these ids that were dropped, and page_id → URLs it stands for; the file is read in batches."""
    dropped, copies = [pa.array([], pa.string())], dict[str, list[str]]()
    for batch in pq.ParquetFile(path).iter_batches():
        dropped.append(batch["id"].filter(pc.is_in(batch["id"], value_set=ids)))
        for row in batch.filter(pc.is_in(batch["kept_page_id"], value_set=ids)).to_pylist():
            copies.setdefault(row["kept_page_id"], []).append(row["url"])
    return pa.concat_arrays(dropped), copies


# --- the file of a part: a table of places, sample vectors, then the rows of shard 0, 1, … as Arrow streams ---


def _write_part(out: BinaryIO, tables: dict[str, pa.Table], shards: int) -> None:
    places = np.zeros((shards, len(ROLES), 2), np.int64)
    out.write(places.tobytes())  # its room; filled in at the end
    vectors = tables["chunks"]["vector"]
    every = max(1, len(vectors) // RECALL_QUERIES)
    _write_stream(out, pa.table({"vector": vectors.take(pa.array(np.arange(0, len(vectors), every)))}))
    for number, role in enumerate(ROLES):
        for shard, rows in _by_shard(tables[role], KEYS[role], shards):
            first = out.tell()
            _write_stream(out, rows)
            places[shard, number] = first, out.tell() - first
    out.seek(0)
    out.write(places.tobytes())


def _by_shard(table: pa.Table, key: str, shards: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield each shard that has rows here, and them, ordered by key, each key once."""
    pages = pc.dictionary_encode(table["page_id"].combine_chunks())
    of_page = np.array([shard_number(page_id, shards) for page_id in pages.dictionary.to_pylist()], np.int64)
    numbers = of_page[pages.indices.to_numpy()]
    order = np.argsort(numbers, kind="stable")
    table, numbers = table.take(pa.array(order)), numbers[order]
    for shard in np.unique(numbers):
        first, last = np.searchsorted(numbers, [shard, shard + 1])
        yield int(shard), sorted_once(table.slice(first, last - first), key)


def _write_stream(out: BinaryIO, table: pa.Table) -> None:
    with pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)


class Part:
    """A file of shuffle_units, mapped: only what is asked for is read."""

    def __init__(self, path: Path, shards: int) -> None:
        self._file = pa.memory_map(str(path))
        size = shards * len(ROLES) * 2 * 8
        self._places = np.frombuffer(self._file.read_buffer(size), np.int64).reshape(shards, len(ROLES), 2)
        self._samples = size

    def rows(self, shard: int, role: str) -> pa.Table | None:
        """Return the rows of a shard, ordered by their key; None when it has none here."""
        first, size = (int(number) for number in self._places[shard, ROLES.index(role)])
        if not size:
            return None
        self._file.seek(first)
        return pa.ipc.open_stream(pa.BufferReader(self._file.read_buffer(size))).read_all()

    def samples(self) -> pa.Table:
        self._file.seek(self._samples)
        return pa.ipc.open_stream(self._file).read_all()


def _parts(context: BuildContext, shuffle: Shuffle) -> list[Part]:
    return [Part(path, shuffle.shards) for path in sorted(shuffle.folder(context).glob("*.rows"))]


# --- parts → shards ---


def shard_unit(context: BuildContext, shuffle: Shuffle, number: int) -> Shard:
    """Write the objects of one shard from its rows in all parts."""
    parts = _parts(context, shuffle)
    runs = {role: [rows for part in parts if (rows := part.rows(number, role)) is not None] for role in ROLES}
    merged = {role: merged_once(runs[role], KEYS[role]) for role in ROLES}
    count, chunks = merged["chunks"]
    with full_disk_named(context.index_dir):
        with write_atomically(_records_path(context, shuffle, number), durable=False) as records:
            rows = ShardRows(
                dim=context.embedder.dim,
                chunk_count=count,
                chunks=_recorded(chunks, records),
                sections=merged["sections"][1],
                pages=merged["pages"][1],
            )
            shard = write_rows(
                f"{number:05d}", rows, context.objects_dir, kind=shuffle.kind, least_recall=shuffle.least_recall
            )
        _measure(context, shuffle, shard)
    return shard


def _recorded(blocks: Iterator[pa.Table], out: BinaryIO) -> Iterator[pa.Table]:
    """Pass the blocks on, writing what a content digest needs to know of them."""
    for block in blocks:
        out.write(digest_records(block["chunk_id"].to_pylist(), block["text"].to_pylist()))
        yield block


def _records_path(context: BuildContext, shuffle: Shuffle, number: int) -> Path:
    return shuffle.folder(context) / f"shard-{number:05d}.records"


def _recall_path(context: BuildContext, shuffle: Shuffle, shard: Shard) -> Path:
    return shuffle.folder(context) / f"shard-{shard.shard_id}.recall.npy"


def _measure(context: BuildContext, shuffle: Shuffle, shard: Shard) -> None:
    """Keep the scores of the best rows, exact and as found, for the queries that all shards are asked."""
    if shuffle.kind == EXACT_KIND:
        return
    queries = _queries(context, shuffle)
    index = open_vectors(shard, context.objects_dir)
    scores = np.full((2, len(queries), RECALL_AT), -np.inf, np.float32)
    k = min(RECALL_AT, shard.chunk_count)
    if k:
        scores[0, :, :k] = best_rows(index.vectors, queries, k)[0]
        scores[1, :, :k] = index.search(queries, k)[0]
    with write_atomically(_recall_path(context, shuffle, shard), durable=False) as out:
        np.save(out, scores, allow_pickle=False)


def _queries(context: BuildContext, shuffle: Shuffle) -> Vectors:
    """Return the same few queries in every shard's task, made of rows of all parts."""
    parts = _parts(context, shuffle)
    parts = parts[:: max(1, len(parts) // RECALL_QUERIES)]
    few = max(1, RECALL_QUERIES // len(parts))
    samples = [vectors_of_column(part.samples()["vector"], context.embedder.dim) for part in parts]
    return as_queries(np.concatenate([sample_rows(vectors, few) for vectors in samples]))


# --- all shards together ---


def close_shards(context: BuildContext, shuffle: Shuffle, shards: Sequence[Shard]) -> Closing:
    """Return the content digest of all shards, and how many of the best rows over all of them a search finds."""
    paths = []
    for number, shard in enumerate(shards):
        paths.append(_records_path(context, shuffle, number))
        if not has_records(paths[-1], shard):  # a shard of a killed build, whose files were not fsynced
            with write_atomically(paths[-1], durable=False) as out:
                out.writelines(records_of(shard, context.objects_dir))
    chunking = context.config.chunk.model_dump()
    return Closing(
        digest=digest_of_records(paths, context.embedder.fingerprint, chunking),
        recall=_whole_recall(context, shuffle, shards),
    )


def _whole_recall(context: BuildContext, shuffle: Shuffle, shards: Sequence[Shard]) -> float:
    if shuffle.kind == EXACT_KIND:
        return 1.0
    best: list[Vectors] = []
    for shard in shards:
        path = _recall_path(context, shuffle, shard)
        if not path.exists():
            _measure(context, shuffle, shard)
        best = [np.sort(np.concatenate([*best, np.load(path, allow_pickle=False)], axis=2), axis=2)[:, :, -RECALL_AT:]]
    exact, found = best[0]
    last = np.where(np.isfinite(exact), exact, np.inf).min(axis=1, keepdims=True)
    hits = np.isfinite(found) & (found >= last - SAME_SCORE)
    return int(np.count_nonzero(hits)) / max(1, int(np.count_nonzero(np.isfinite(exact))))
