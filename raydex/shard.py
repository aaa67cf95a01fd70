"""Keep chunks and their vectors as one shard on disk.

    chunks with vectors, sections, pages → write_shard → objects/<sha256> × 4 → open_shard → (scores, rows)

A shard is four immutable files, each named by its checksum: the FAISS index, the chunks, the sections and what is known
of their pages (Parquet); and a fifth, the whole vectors, where the index holds less than them (ann.py).
Row i of the index is row i of the chunks; rows are ordered by chunk_id. The same input gives the same bytes, however
it comes: a shard is written block by block, and a block or two are in memory.
"""

import bisect
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raydex.ann import (
    REFINE,
    Rows,
    SearchIndex,
    best_rows,
    open_index,
    queries_of,
    recall_by_refine,
    write_coarse,
    write_flat,
)
from raydex.columns import TextLists, Texts, column_of
from raydex.errors import SnapshotCorrupt
from raydex.records import Chunk, PageInfo, Section, Shard, StoredObject, Vectors
from raydex.tables import (
    BLOCK_ROWS,
    CHUNK_SCHEMA,
    PAGE_SCHEMA,
    SECTION_SCHEMA,
    in_blocks,
    pages_to_table,
    read_columns,
    read_table,
    sorted_once,
    stream_rows,
    vectors_of_column,
    vectors_to_column,
)
from utils.files import HashedFile, sha256_of, write_by_checksum

EXACT_KIND = "flat"
KNOWN_KINDS = tuple(REFINE)

LEAST_RECALL = 0.99

ROLES = ("index", "chunks", "sections")
"""What every shard has; one of format 2 has `pages` too."""

MEMORY_PER_BYTE = 4.5
"""What chunks, sections and pages take in memory, over their files: of a million chunks, 1.95 over 0.43 kB each."""

LENGTH_TOLERANCE = 1e-4
"""How far from 1 the length of a normalised float32 vector may be (rounding at 768 numbers: below 1e-6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRows:
    """What a shard is made of: tables in blocks of BLOCK_ROWS, ordered by their ids, each id once.

    chunks have the column `vector` besides: float32 lists of dim numbers, L2-normalised. chunk_count: of all blocks.
    """

    dim: int
    chunk_count: int
    chunks: Iterable[pa.Table]
    sections: Iterable[pa.Table]
    pages: Iterable[pa.Table]


def write_shard(
    shard_id: str,
    chunks: pa.Table,
    vectors: Vectors,
    sections: pa.Table,
    pages: pa.Table,
    objects_dir: Path,
    *,
    kind: str = EXACT_KIND,
    least_recall: float = LEAST_RECALL,
) -> Shard:
    """Write one shard's objects from tables in memory and return what refers to them.

    vectors: float32 (chunks, dim), rows L2-normalised, row i belongs to row i of chunks, in any order. A chunk, section
    or page that comes twice is kept once. Raises ValueError naming what does not fit.
    """
    _check_vectors(chunks.num_rows, vectors)
    dim = vectors.shape[1]
    chunks = chunks.select(CHUNK_SCHEMA.names).append_column("vector", vectors_to_column(vectors))
    chunks = sorted_once(chunks, "chunk_id")
    rows = ShardRows(
        dim=dim,
        chunk_count=chunks.num_rows,
        chunks=in_blocks(chunks),
        sections=in_blocks(sorted_once(sections, "section_id")),
        pages=in_blocks(sorted_once(pages, "page_id")),
    )
    return write_rows(shard_id, rows, objects_dir, kind=kind, least_recall=least_recall)


def write_rows(shard_id: str, rows: ShardRows, objects_dir: Path, *, kind: str, least_recall: float) -> Shard:
    """Write one shard's objects from blocks, of which one is in memory at a time, and return what refers to them.

    An index that does not find least_recall of the best rows is given more candidates; if none are enough, it is
    exact instead. Raises ValueError naming what does not fit.
    """
    chunks, vectors = _write_chunks(rows, objects_dir)
    seen_pages: set[str] = set()
    sections, section_count = _write_table(
        rows.sections, SECTION_SCHEMA, objects_dir, lambda block: seen_pages.update(block["page_id"].to_pylist())
    )
    pages, _ = _write_table(rows.pages, PAGE_SCHEMA, objects_dir)
    exact = Shard(
        shard_id=shard_id,
        chunk_count=rows.chunk_count,
        section_count=section_count,
        page_count=len(seen_pages),
        dim=rows.dim,
        index_kind=EXACT_KIND,
        objects={"index": vectors, "chunks": chunks, "sections": sections, "pages": pages},
    )
    return _with_index(exact, kind, least_recall, objects_dir)


def _write_chunks(rows: ShardRows, objects_dir: Path) -> tuple[StoredObject, StoredObject]:
    """Write the chunks and, in the same pass, their vectors as an exact index."""
    with write_by_checksum(objects_dir) as text_out, write_by_checksum(objects_dir) as vectors_out:
        with pq.ParquetWriter(text_out, CHUNK_SCHEMA, compression="zstd") as writer:
            written = 0

            def blocks() -> Iterator[Vectors]:
                nonlocal written
                for block in rows.chunks:
                    vectors = vectors_of_column(block["vector"], rows.dim)
                    _check_lengths(vectors, written)
                    writer.write_table(_block(block, CHUNK_SCHEMA), row_group_size=BLOCK_ROWS)
                    written += block.num_rows
                    yield vectors

            write_flat(vectors_out, rows.dim, rows.chunk_count, blocks())
            if not rows.chunk_count:
                writer.write_table(CHUNK_SCHEMA.empty_table())
        if written != rows.chunk_count:
            raise ValueError(f"{written} chunks came, {rows.chunk_count} were announced")
    return _stored(text_out), _stored(vectors_out)


def _write_table(
    blocks: Iterable[pa.Table], schema: pa.Schema, objects_dir: Path, look: Callable[[pa.Table], object] | None = None
) -> tuple[StoredObject, int]:
    """Write a table; return its object and the number of its rows. look: is shown every block."""
    count = 0
    with write_by_checksum(objects_dir) as out, pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for block in blocks:
            count += block.num_rows
            if look is not None:
                look(block)
            writer.write_table(_block(block, schema), row_group_size=BLOCK_ROWS)
        if not count:
            writer.write_table(schema.empty_table())
    return _stored(out), count


def _block(table: pa.Table, schema: pa.Schema) -> pa.Table:
    return table.select(schema.names).cast(schema).combine_chunks()


def _stored(written: HashedFile) -> StoredObject:
    return StoredObject(sha256=written.sha256, bytes=written.size)


def _with_index(exact: Shard, kind: str, least_recall: float, objects_dir: Path) -> Shard:
    """Return the shard with an index of this kind; as it is when that finds too little."""
    if kind == EXACT_KIND or not exact.chunk_count:
        return exact
    whole = open_index(objects_dir / exact.objects["index"].sha256)
    with write_by_checksum(objects_dir) as out:
        write_coarse(out, kind, whole.vectors)
    coarse = _stored(out)
    objects = {**exact.objects, "index": coarse, "vectors": exact.objects["index"]}
    opened = open_index(objects_dir / objects["vectors"].sha256, objects_dir / coarse.sha256)
    queries = queries_of(opened.vectors)
    shares = recall_by_refine(opened, kind, queries, best_rows(opened.vectors, queries)[0])
    for factor, recall in shares.items():
        if recall >= least_recall:
            return replace(exact, index_kind=kind, objects=objects, refine=factor, recall=recall)
    return exact


def _check_vectors(rows: int, vectors: Vectors) -> None:
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"vectors are {vectors.dtype} {vectors.shape}, expected float32 (n, dim)")
    if len(vectors) != rows:
        raise ValueError(f"{len(vectors)} vectors for {rows} chunks")
    _check_lengths(vectors, 0)


def _check_lengths(vectors: Vectors, first: int) -> None:
    lengths = np.linalg.norm(vectors, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))  # so written, NaN is wrong too
    if wrong.size:
        row, length = first + wrong[0], lengths[wrong[0]]
        raise ValueError(f"vector of row {row} has length {length:.6g}, expected 1 (L2-normalised)")


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


def memory_bytes(shard: Shard) -> int:
    """Return about how much memory an open shard takes in each process that has it, mapped vectors not counted."""
    tables = sum(shard.objects[role].bytes for role in ("chunks", "sections", "pages") if role in shard.objects)
    joined = shard.chunk_count * shard.dim if shard.index_kind == "int8" else 0
    return int(MEMORY_PER_BYTE * tables) + joined


class OpenShard:
    """A shard in memory (the vectors are mapped, and so shared between processes). Safe for concurrent searches."""

    def __init__(self, shard: Shard, index: SearchIndex, chunks: pa.Table, sections: pa.Table, pages: pa.Table) -> None:
        self.shard = shard
        self.chunk_ids: list[str] = chunks["chunk_id"].to_pylist()
        self._section_ids: list[str] = sections["section_id"].to_pylist()
        self.index = index
        self.chunks = _columns(chunks)
        self.sections = _columns(sections)
        self.pages = _columns(pages)
        self._of_chunk = {name: column_of(array) for name, array in self.chunks.items()}
        self._of_section = {name: column_of(array) for name, array in self.sections.items()}
        self.urls, self.texts = Texts(self.chunks["url"]), Texts(self.chunks["text"])
        self.last_headings = TextLists(self.chunks["headings"]).last

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

        A score is the bit-equal inner product of the two vectors whatever else is in the shard or the call, and
        whatever the kind of the index: one that is not exact may miss a row, but gives none another score.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"query vectors are {vectors.shape}, expected (q, {self.dim})")
        k = min(k, len(self))
        if not k or not len(vectors):
            return np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
        return self.index.search(vectors, k)

    @property
    def vectors(self) -> Vectors:
        """The whole vectors, mapped; row i belongs to row i of the chunks."""
        return self.index.vectors

    def chunk(self, row: int) -> Chunk:
        return Chunk(**{name: column[row] for name, column in self._of_chunk.items()})

    def section(self, section_id: str) -> Section | None:
        row = bisect.bisect_left(self._section_ids, section_id)
        if row == len(self._section_ids) or self._section_ids[row] != section_id:
            return None
        return Section(**{name: column[row] for name, column in self._of_section.items()})


def text_digests(shard: Shard, objects_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield (chunk_id, sha256 of the text) of each row, in order: what a content digest is made of."""
    for chunk_id, text in stream_rows(objects_dir / shard.objects["chunks"].sha256, ("chunk_id", "text")):
        yield chunk_id, hashlib.sha256(text.encode()).hexdigest()


def section_texts(shard: Shard, objects_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield (page_id, text) of each section, in the order of section_id: those of a page follow each other."""
    yield from stream_rows(objects_dir / shard.objects["sections"].sha256, ("page_id", "text"))


def page_counts(shard: Shard, objects_dir: Path) -> dict[str, int]:
    """Return page_id → number of its chunks."""
    counted = read_columns(objects_dir / shard.objects["chunks"].sha256, ["page_id"])["page_id"].value_counts()
    return {row["values"]: row["counts"] for row in counted.to_pylist()}


def read_rows(shard: Shard, objects_dir: Path) -> tuple[pa.Table, Vectors, pa.Table, pa.Table]:
    """Return what write_shard was given: chunks, their vectors, sections and pages. Raises SnapshotCorrupt."""
    opened = open_shard(shard, objects_dir)
    return pa.table(opened.chunks), opened.vectors, pa.table(opened.sections), pages_of(shard, objects_dir)


def pages_of(shard: Shard, objects_dir: Path, columns: Sequence[str] = tuple(PAGE_SCHEMA.names)) -> pa.Table:
    """Return these columns of what is known of the pages; a shard of format 1 knows their ids, URLs and titles.

    Raises SnapshotCorrupt.
    """
    if "pages" in shard.objects:
        return read_columns(objects_dir / shard.objects["pages"].sha256, columns)
    sections = read_columns(objects_dir / shard.objects["sections"].sha256, ("page_id", "url", "title"))
    rows = {row["page_id"]: row for row in sections.to_pylist()}
    infos = [PageInfo(**{**row, "url": row["url"].partition("#")[0], "source": ""}) for row in rows.values()]
    return pages_to_table(infos).select(list(columns))


def _columns(table: pa.Table) -> dict[str, Any]:
    """Return each column as one array."""
    return {name: table[name].combine_chunks() for name in table.column_names}


def open_shard(shard: Shard, objects_dir: Path, *, verify: bool = True) -> OpenShard:
    """Open a shard's files. Raises SnapshotCorrupt when one is missing, differs from its checksum or does not fit.

    verify: read every byte and compare checksums (1 s per GB); without it only sizes and row counts are compared.
    """
    for role in {*ROLES, *shard.objects, *(() if shard.index_kind == EXACT_KIND else ("vectors",))}:
        if role not in shard.objects:
            raise SnapshotCorrupt(f"shard {shard.shard_id}", f"an object {role!r}", "none")
        check_object(objects_dir / shard.objects[role].sha256, shard.objects[role], verify=verify)
    return OpenShard(
        shard,
        open_vectors(shard, objects_dir),
        read_table(objects_dir / shard.objects["chunks"].sha256, CHUNK_SCHEMA, shard.chunk_count),
        read_table(objects_dir / shard.objects["sections"].sha256, SECTION_SCHEMA, shard.section_count),
        pages_of(shard, objects_dir),
    )


def open_vectors(shard: Shard, objects_dir: Path) -> SearchIndex:
    """Map the vectors of a shard and their index, without its texts. Raises SnapshotCorrupt."""
    path = objects_dir / shard.objects["index"].sha256
    try:
        if shard.index_kind == EXACT_KIND:
            index = open_index(path)
        else:
            index = open_index(objects_dir / shard.objects["vectors"].sha256, path, max(1, shard.refine))
    except RuntimeError as error:
        raise SnapshotCorrupt(str(path), "a FAISS index", "something else") from error
    if (index.rows, index.dim) != (shard.chunk_count, shard.dim):
        expected = f"{shard.chunk_count} vectors of {shard.dim} numbers"
        raise SnapshotCorrupt(str(path), expected, f"{index.rows} of {index.dim}")
    return index
