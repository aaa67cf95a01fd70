"""Keep chunks and their vectors as one dense FAISS shard on disk. Only home of faiss.

    chunks, vectors, sections, pages → write_shard → objects/<sha256> × 4 → open_shard → (scores, rows)

A shard is four immutable files, each named by its checksum: the FAISS index, the chunks, the sections and what is known
of their pages (Parquet).
Row i of the index is row i of the chunks; rows are ordered by chunk_id. The same input gives the same bytes.
"""

import bisect
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydex.errors import SnapshotCorrupt
from raydex.records import Chunk, PageInfo, Section, Shard, StoredObject, Vectors
from utils.files import sha256_of, write_bytes

Rows = npt.NDArray[np.int64]

INDEX_KIND = "flat"
"""Exact search over the whole vectors; the only kind so far."""

DIGEST_ROWS = 256

ROLES = ("index", "chunks", "sections")
"""What every shard has; one of format 2 has `pages` too."""

LENGTH_TOLERANCE = 1e-4
"""How far from 1 the length of a normalised float32 vector may be (rounding at 768 numbers: below 1e-6)."""

CHUNK_SCHEMA = pa.schema(
    [
        ("chunk_id", pa.string()),
        ("section_id", pa.string()),
        ("page_id", pa.string()),
        ("url", pa.string()),
        ("title", pa.string()),
        ("headings", pa.list_(pa.string())),
        ("context", pa.string()),
        ("text", pa.string()),
        ("char_start", pa.int32()),
        ("char_end", pa.int32()),
        ("token_count", pa.int32()),
    ]
)
SECTION_SCHEMA = pa.schema(
    [
        ("section_id", pa.string()),
        ("page_id", pa.string()),
        ("url", pa.string()),
        ("title", pa.string()),
        ("headings", pa.list_(pa.string())),
        ("text", pa.string()),
        ("position", pa.int32()),
        ("kind", pa.string()),
        ("symbol", pa.string()),
    ]
)
PAGE_SCHEMA = pa.schema(
    [
        ("page_id", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("version", pa.string()),
        ("language", pa.string()),
        ("breadcrumbs", pa.list_(pa.string())),
        ("updated", pa.string()),
        ("body_sha256", pa.string()),
        ("copies", pa.list_(pa.string())),
        ("stale_builds", pa.int32()),
    ]
)
_ADDED_IN_FORMAT_2 = {"kind": "prose", "symbol": ""}
"""Columns that a snapshot of format 1 lacks, and what they are then."""

# A score must not depend on which rows and queries share a call, or the ranking would depend on the number of shards.
# BLAS sums in another order for other shapes (differences to 2e-7), FAISS's own kernel does not: 1, 2, 7 or 64 queries
# over 1 to 40 parts were bit-equal. FAISS 1.15 turns to BLAS from queries × dim = 128,000 on, earlier ones from 20
# queries; so never let it. The price, one thread, 384 numbers: 64 queries over 4,096 rows take 5.5 instead of 2.4 ms;
# a single query is faster without BLAS (0.09 instead of 0.41 ms).
faiss.cvar.distance_compute_blas_threshold = 2**31 - 1


def chunks_to_table(chunks: Sequence[Chunk]) -> pa.Table:
    return _to_table(chunks, CHUNK_SCHEMA)


def chunks_from_table(table: pa.Table) -> list[Chunk]:
    return [Chunk(**_with_tuples(row)) for row in table.to_pylist()]


def sections_to_table(sections: Sequence[Section]) -> pa.Table:
    return _to_table(sections, SECTION_SCHEMA)


def sections_from_table(table: pa.Table) -> list[Section]:
    return [Section(**_with_tuples(row)) for row in table.to_pylist()]


def pages_to_table(pages: Sequence[PageInfo]) -> pa.Table:
    return _to_table(pages, PAGE_SCHEMA)


def _to_table(records: Sequence[Chunk] | Sequence[Section] | Sequence[PageInfo], schema: pa.Schema) -> pa.Table:
    columns = {name: [getattr(record, name) for record in records] for name in schema.names}
    return pa.Table.from_pydict(columns, schema=schema)


def _with_tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "headings": tuple(row["headings"])}


def write_shard(
    shard_id: str, chunks: pa.Table, vectors: Vectors, sections: pa.Table, pages: pa.Table, objects_dir: Path
) -> Shard:
    """Write one shard's objects and return what refers to them.

    vectors: float32 (chunks, dim), rows L2-normalised, row i belongs to row i of chunks, in any order. A chunk, section
    or page that comes twice is kept once. Raises ValueError naming what does not fit.
    """
    _check_vectors(chunks.num_rows, vectors)
    chunks, chunk_rows = _sorted_once(chunks, "chunk_id", CHUNK_SCHEMA)
    sections, _ = _sorted_once(sections, "section_id", SECTION_SCHEMA)
    pages, _ = _sorted_once(pages, "page_id", PAGE_SCHEMA)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors[chunk_rows]))
    return Shard(
        shard_id=shard_id,
        chunk_count=chunks.num_rows,
        section_count=sections.num_rows,
        page_count=pc.count_distinct(sections["page_id"]).as_py(),
        dim=vectors.shape[1],
        index_kind=INDEX_KIND,
        objects={
            "index": _store(faiss.serialize_index(index).tobytes(), objects_dir),
            "chunks": _store(_parquet(chunks), objects_dir),
            "sections": _store(_parquet(sections), objects_dir),
            "pages": _store(_parquet(pages), objects_dir),
        },
    )


def _check_vectors(rows: int, vectors: Vectors) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"vectors are {vectors.dtype} {vectors.shape}, expected float32 (n, dim)")
    if len(vectors) != rows:
        raise ValueError(f"{len(vectors)} vectors for {rows} chunks")
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))  # so written, NaN is wrong too
    if wrong.size:
        raise ValueError(f"vector of row {wrong[0]} has length {lengths[wrong[0]]:.6g}, expected 1 (L2-normalised)")


def _sorted_once(table: pa.Table, key: str, schema: pa.Schema) -> tuple[pa.Table, Rows]:
    """Return the table ordered by key, each key once (its first row), and the row each one came from."""
    _, rows = np.unique(np.asarray(table[key].to_pylist(), dtype=np.str_), return_index=True)
    return table.select(schema.names).cast(schema).take(pa.array(rows, pa.int64())).combine_chunks(), rows


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _store(data: bytes, objects_dir: Path) -> StoredObject:
    """Write an object unless it is there and whole: so a rebuild heals a damaged one."""
    digest = hashlib.sha256(data).hexdigest()
    path = objects_dir / digest
    if not (path.is_file() and sha256_of(path) == digest):
        write_bytes(path, data)
    return StoredObject(sha256=digest, bytes=len(data))


def check_object(path: Path, stored: StoredObject, *, verify: bool = True) -> None:
    """Raise SnapshotCorrupt when a file is missing, unreadable or cut, or (with verify) has another checksum."""
    try:
        size = path.stat().st_size
        found = sha256_of(path) if verify and size == stored.bytes else stored.sha256
    except OSError as error:
        raise SnapshotCorrupt(str(path), stored.sha256, error.strerror or "no file") from error
    if size != stored.bytes:
        raise SnapshotCorrupt(str(path), f"{stored.bytes} bytes", f"{size} bytes")
    if found != stored.sha256:
        raise SnapshotCorrupt(str(path), stored.sha256, found)


class OpenShard:
    """A shard in memory (the vectors are mapped, and so shared between processes). Safe for concurrent searches."""

    def __init__(self, shard: Shard, index: Any, chunks: pa.Table, sections: pa.Table) -> None:
        self.shard = shard
        self.chunk_ids: list[str] = chunks["chunk_id"].to_pylist()
        self._section_ids: list[str] = sections["section_id"].to_pylist()
        self._index = index
        self.chunks = _columns(chunks)
        self.sections = _columns(sections)

    def __len__(self) -> int:
        return self.shard.chunk_count

    @property
    def dim(self) -> int:
        return self.shard.dim

    @property
    def page_count(self) -> int:
        return self.shard.page_count

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return the scores and rows, (q, min(k, rows of the shard)) each, best first; ties in no particular order.

        A score is the bit-equal inner product of the two vectors whatever else is in the shard or the call.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"query vectors are {vectors.shape}, expected (q, {self.dim})")
        k = min(k, len(self))
        if not k or not len(vectors):
            return np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
        faiss.omp_set_num_threads(1)  # per calling thread, 0.1 µs; more threads do not help one query
        scores, rows = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), k)
        return scores, rows

    def vectors(self, first: int, count: int) -> Vectors:
        """Return the stored vectors of rows first to first + count - 1."""
        vectors: Vectors = self._index.reconstruct_n(first, count)
        return vectors

    def chunk(self, row: int) -> Chunk:
        return Chunk(**_row(self.chunks, row))

    def section(self, section_id: str) -> Section | None:
        row = bisect.bisect_left(self._section_ids, section_id)
        if row == len(self._section_ids) or self._section_ids[row] != section_id:
            return None
        return Section(**_row(self.sections, row))


def text_digests(shard: Shard, objects_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield (chunk_id, sha256 of the text) of each row, in order: what a content digest is made of.

    A few rows are in memory at a time, whatever the size of the shard.
    """
    chunks = pq.ParquetFile(objects_dir / shard.objects["chunks"].sha256)
    for batch in chunks.iter_batches(DIGEST_ROWS, columns=["chunk_id", "text"]):
        for chunk_id, text in zip(*batch.to_pydict().values(), strict=True):
            yield chunk_id, hashlib.sha256(text.encode()).hexdigest()


def section_texts(shard: Shard, objects_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield (page_id, text) of each section, in the order of section_id: those of a page follow each other.

    A few rows are in memory at a time, whatever the size of the shard.
    """
    sections = pq.ParquetFile(objects_dir / shard.objects["sections"].sha256)
    for batch in sections.iter_batches(DIGEST_ROWS, columns=["page_id", "text"]):
        yield from zip(*batch.to_pydict().values(), strict=True)


def page_counts(shard: Shard, objects_dir: Path) -> dict[str, int]:
    """Return page_id → number of its chunks."""
    counted = pq.read_table(objects_dir / shard.objects["chunks"].sha256, columns=["page_id"])["page_id"].value_counts()
    return {row["values"]: row["counts"] for row in counted.to_pylist()}


def read_rows(shard: Shard, objects_dir: Path) -> tuple[pa.Table, Vectors, pa.Table, pa.Table]:
    """Return what write_shard was given: chunks, their vectors, sections and pages. Raises SnapshotCorrupt."""
    opened = open_shard(shard, objects_dir)
    index = _read_index(objects_dir / shard.objects["index"].sha256, shard)
    vectors = index.reconstruct_n(0, len(opened)) if len(opened) else np.empty((0, shard.dim), np.float32)
    return pa.table(opened.chunks), vectors, pa.table(opened.sections), pages_of(shard, objects_dir)


def pages_of(shard: Shard, objects_dir: Path, columns: Sequence[str] = tuple(PAGE_SCHEMA.names)) -> pa.Table:
    """Return these columns of what is known of the pages; a shard of format 1 knows their ids, URLs and titles."""
    if "pages" in shard.objects:
        return pq.read_table(objects_dir / shard.objects["pages"].sha256, columns=list(columns))
    sections = pq.read_table(objects_dir / shard.objects["sections"].sha256, columns=["page_id", "url", "title"])
    rows = {row["page_id"]: row for row in sections.to_pylist()}
    infos = [PageInfo(**{**row, "url": row["url"].partition("#")[0], "source": ""}) for row in rows.values()]
    return pages_to_table(infos).select(list(columns))


def _columns(table: pa.Table) -> dict[str, Any]:
    """Return each column as one array: reading a row from these takes 12 µs, slicing it from the table 40."""
    return {name: table[name].combine_chunks() for name in table.column_names}


def _row(columns: dict[str, Any], row: int) -> dict[str, Any]:
    return _with_tuples({name: column[row].as_py() for name, column in columns.items()})


def open_shard(shard: Shard, objects_dir: Path, *, verify: bool = True) -> OpenShard:
    """Open a shard's files. Raises SnapshotCorrupt when one is missing, differs from its checksum or does not fit.

    verify: read every byte and compare checksums (1 s per GB); without it only sizes and row counts are compared.
    """
    for role in {*ROLES, *shard.objects}:
        if role not in shard.objects:
            raise SnapshotCorrupt(f"shard {shard.shard_id}", f"an object {role!r}", "none")
        check_object(objects_dir / shard.objects[role].sha256, shard.objects[role], verify=verify)
    return OpenShard(
        shard,
        _read_index(objects_dir / shard.objects["index"].sha256, shard),
        _read_table(objects_dir / shard.objects["chunks"].sha256, CHUNK_SCHEMA, shard.chunk_count),
        _read_table(objects_dir / shard.objects["sections"].sha256, SECTION_SCHEMA, shard.section_count),
    )


def _read_index(path: Path, shard: Shard) -> Any:
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise SnapshotCorrupt(str(path), "a FAISS index", "something else") from error
    if (index.ntotal, index.d) != (shard.chunk_count, shard.dim):
        expected = f"{shard.chunk_count} vectors of {shard.dim} numbers"
        raise SnapshotCorrupt(str(path), expected, f"{index.ntotal} of {index.d}")
    return index


def _read_table(path: Path, schema: pa.Schema, rows: int) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:  # not Parquet; damaged pages
        raise SnapshotCorrupt(str(path), "a Parquet file", "something else") from error
    for name, value in _ADDED_IN_FORMAT_2.items():
        if name in schema.names and name not in table.column_names:
            table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    if not table.schema.equals(schema):
        raise SnapshotCorrupt(str(path), "columns " + ", ".join(schema.names), ", ".join(table.schema.names))
    if table.num_rows != rows:
        raise SnapshotCorrupt(str(path), f"{rows} rows", f"{table.num_rows} rows")
    return table
