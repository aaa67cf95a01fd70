"""From the chunks of units to their vectors. No Ray here.

units/<id>.chunks.parquet → units/<id>.vectors.npy (row i ↔ chunk i) → EmbedReceipt
"""

import hashlib
import time
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from raydex.build.units import BuildContext, EmbedReceipt
from raydex.checkpoint import VectorStore, full_disk_named
from raydex.embed import Embedder
from raydex.records import Chunk
from raydex.shard import chunks_from_table
from utils.files import write_atomically

CHECKPOINT_CHUNKS = 256
"""Chunks embedded between two writes to the embedding store: about 6 s of work at 41 chunks/s."""


def vector_key(chunk: Chunk) -> bytes:
    """The key of the embedding store: sha256 of the exact embedder input (its folder bears the model)."""
    return hashlib.sha256(chunk.embedder_input.encode()).digest()


def chunks_of(context: BuildContext, unit_id: str) -> list[Chunk]:
    return chunks_from_table(pq.read_table(context.units_dir / f"{unit_id}.chunks.parquet"))


def embed_unit(context: BuildContext, unit_id: str, embedder: Embedder, store: VectorStore) -> EmbedReceipt:
    """Give every chunk of a unit its vector: from the store if it is there, else from the model, and then stored."""
    started = time.perf_counter()
    chunks = chunks_of(context, unit_id)
    keys = [vector_key(chunk) for chunk in chunks]
    with full_disk_named(context.index_dir):
        store.refresh()
        vectors = store.find(keys)
        missing = {key: chunk for key, chunk in zip(keys, chunks, strict=True) if key not in vectors}
        by_length = sorted(missing, key=lambda key: (missing[key].token_count, key))
        for first in range(0, len(by_length), CHECKPOINT_CHUNKS):
            batch = by_length[first : first + CHECKPOINT_CHUNKS]
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
    )


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


class Dropped:
    """The pages and sections that are left out as duplicates."""

    FILE = "dropped.parquet"

    def __init__(self, ids: Collection[str]) -> None:
        self.ids = frozenset(ids)

    @classmethod
    def read(cls, build_dir: Path) -> "Dropped":
        return cls(pq.read_table(build_dir / cls.FILE, columns=["id"])["id"].to_pylist())
