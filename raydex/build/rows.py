"""From the rows of units to vectors and shards. No Ray here.

units/<id>.chunks.parquet                  → units/<id>.vectors.npy (row i ↔ chunk i)   → EmbedReceipt
all units but what is dropped as duplicate → the four objects of one shard              → Shard
"""

import hashlib
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydex.build.units import BuildContext, EmbedReceipt
from raydex.checkpoint import VectorStore, full_disk_named
from raydex.embed import Embedder
from raydex.records import Chunk, Shard, Vectors
from raydex.shard import CHUNK_SCHEMA, PAGE_SCHEMA, SECTION_SCHEMA, chunks_from_table, write_shard
from utils.files import write_atomically

CHECKPOINT_CHUNKS = 256
"""Chunks embedded between two writes to the embedding store: about 6 s of work at 41 chunks/s."""


def vector_key(chunk: Chunk) -> bytes:
    """The key of the embedding store: sha256 of the exact embedder input (its folder bears the model)."""
    return hashlib.sha256(chunk.embedder_input.encode()).digest()


def chunks_of(context: BuildContext, unit_id: str) -> list[Chunk]:
    return chunks_from_table(pq.read_table(context.units_dir / f"{unit_id}.chunks.parquet"))


def embed_unit(
    context: BuildContext, unit_id: str, embedder: Embedder, store: VectorStore, *, at_once: int = CHECKPOINT_CHUNKS
) -> EmbedReceipt:
    """Give every chunk of a unit its vector: from the store if it is there, else from the model, and then stored.

    at_once: chunks embedded between two writes to the store; in the order of _by_length.
    """
    started = time.perf_counter()
    chunks = chunks_of(context, unit_id)
    keys = [vector_key(chunk) for chunk in chunks]
    with full_disk_named(context.index_dir):
        store.refresh()
        vectors = store.find(keys)
        missing = {key: chunk for key, chunk in zip(keys, chunks, strict=True) if key not in vectors}
        by_length = _by_length(missing)
        for first in range(0, len(by_length), at_once):
            batch = by_length[first : first + at_once]
            fresh = embedder.embed_passages([missing[key].embedder_input for key in batch])
            store.add(batch, fresh)
            vectors.update(zip(batch, fresh, strict=True))
        rows = np.stack([vectors[key] for key in keys]) if keys else np.empty((0, context.embedder.dim), np.float32)
        with write_atomically(context.units_dir / f"{unit_id}.vectors.npy", durable=False) as out:
            np.save(out, rows, allow_pickle=False)
    return EmbedReceipt(
        unit_id=unit_id,
        embedded=len(missing),
        reused=len(chunks) - len(missing),
        tokens=sum(chunk.token_count for chunk in missing.values()),
        seconds=time.perf_counter() - started,
        reused_tokens=sum(chunk.token_count for key, chunk in zip(keys, chunks, strict=True) if key not in missing),
    )


def _by_length(chunks: Mapping[bytes, Chunk]) -> list[bytes]:
    return sorted(chunks, key=lambda key: (chunks[key].token_count, key))


def first_missing(context: BuildContext, unit_id: str, store: VectorStore) -> str:
    """Return URL and size of the first chunk of a unit, in the order of embed_unit, that the store does not hold."""
    chunks = {vector_key(chunk): chunk for chunk in chunks_of(context, unit_id)}
    store.refresh()
    stored = store.find(list(chunks))
    missing = _by_length({key: chunk for key, chunk in chunks.items() if key not in stored})
    if not missing:
        return f"a unit of {len(chunks)} chunks"
    chunk = chunks[missing[0]]
    return f"{chunk.url}: a chunk of {chunk.token_count} tokens"


def missing_vectors(context: BuildContext, unit_ids: Sequence[str], store: VectorStore) -> EmbedReceipt:
    """Return what embed_unit would do for these units, without doing it: chunks to embed, chunks stored, tokens."""
    started = time.perf_counter()
    store.refresh()
    tokens_by_key: dict[bytes, int] = {}
    chunk_count = 0
    for unit_id in unit_ids:
        chunks = {vector_key(chunk): chunk.token_count for chunk in chunks_of(context, unit_id)}
        stored = store.find(list(chunks))
        chunk_count += len(chunks)
        tokens_by_key.update((key, tokens) for key, tokens in chunks.items() if key not in stored)
    return EmbedReceipt(
        unit_id="",
        embedded=len(tokens_by_key),
        reused=chunk_count - len(tokens_by_key),
        tokens=sum(tokens_by_key.values()),
        seconds=time.perf_counter() - started,
    )


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
        table = pq.read_table(f"{base}.chunks.parquet")
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
