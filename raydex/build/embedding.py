"""From the chunks of units to their vectors: out of the store what it has, the rest from the model. No Ray here.

units/<id>.chunks.parquet → units/<id>.vectors.npy (row i ↔ chunk i), new vectors into the store → EmbedReceipt
"""

import hashlib
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from raydex.build.units import BuildContext, EmbedReceipt
from raydex.checkpoint import VectorStore, full_disk_named
from raydex.embed import Embedder
from raydex.records import Chunk, embedder_input
from raydex.tables import chunks_to_table, stream_rows
from utils.files import write_atomically

CHECKPOINT_BATCHES = 32
"""Calls of the model between two writes to the embedding store: what a kill may cost, 2 s of work on two processors."""

TokenIds: TypeAlias = npt.NDArray[np.int32]


def unit_table(chunks: Sequence[Chunk]) -> pa.Table:
    """Return the chunks of a unit as its file holds them: the columns of a shard, and the token ids."""
    ids = pa.array([chunk.token_ids for chunk in chunks], pa.list_(pa.int32()))
    return chunks_to_table(chunks).append_column("token_ids", ids)


def vector_key(text: str) -> bytes:
    """The key of the embedding store: sha256 of the exact embedder input (its folder bears the model)."""
    return hashlib.sha256(text.encode()).digest()


def keys_of(chunks_file: Path) -> Iterator[bytes]:
    """Yield the vector key of each row of a table of chunks. Raises SnapshotCorrupt."""
    return (vector_key(embedder_input(*row)) for row in stream_rows(chunks_file, ("context", "text")))


class Passage(NamedTuple):
    """A chunk as the embedder reads it. key: of its vector in the embedding store."""

    key: bytes
    text: str
    token_ids: TokenIds


def passages_of(context: BuildContext, unit_id: str) -> list[Passage]:
    """Return the passages of a unit, row i ↔ chunk i."""
    table = pq.read_table(context.units_dir / f"{unit_id}.chunks.parquet", columns=["context", "text", "token_ids"])
    if not table.num_rows:
        return []
    contexts, texts = table["context"].to_pylist(), table["text"].to_pylist()
    inputs = [embedder_input(*parts) for parts in zip(contexts, texts, strict=True)]
    ids = table["token_ids"].combine_chunks()
    values, borders = ids.flatten().to_numpy(), [0, *np.cumsum(ids.value_lengths().to_numpy())]
    return [Passage(vector_key(text), text, values[borders[i] : borders[i + 1]]) for i, text in enumerate(inputs)]


def embed_units(
    context: BuildContext,
    unit_ids: Sequence[str],
    embedder: Embedder,
    store: VectorStore,
    *,
    checkpoint_tokens: int = 0,
) -> EmbedReceipt:
    """Give every chunk of these units its vector: from the store, else from the model, and then it is stored.

    checkpoint_tokens: embedded between two writes to the store, by length; 0: of CHECKPOINT_BATCHES calls.
    """
    started = time.perf_counter()
    units = {unit_id: passages_of(context, unit_id) for unit_id in unit_ids}
    with full_disk_named(context.index_dir):
        store.refresh()
        vectors = store.find([passage.key for passages in units.values() for passage in passages])
        missing = {p.key: p for passages in units.values() for p in passages if p.key not in vectors}
        most = checkpoint_tokens or CHECKPOINT_BATCHES * embedder.batch_tokens
        for group in checkpoint_groups(_by_length(missing.values()), most):
            fresh = embedder.embed_passages([p.text for p in group], [p.token_ids for p in group])
            store.add([p.key for p in group], fresh)
            vectors.update(zip((p.key for p in group), fresh, strict=True))
        for unit_id, passages in units.items():
            rows = [np.empty((0, context.embedder.dim), np.float32), *(vectors[p.key][np.newaxis] for p in passages)]
            with write_atomically(context.units_dir / f"{unit_id}.vectors.npy", durable=False) as out:
                np.save(out, np.concatenate(rows), allow_pickle=False)
    return EmbedReceipt(
        embedded=len(missing),
        reused=sum(map(len, units.values())) - len(missing),
        tokens=sum(len(passage.token_ids) for passage in missing.values()),
        seconds=time.perf_counter() - started,
        reused_tokens=sum(len(p.token_ids) for of_unit in units.values() for p in of_unit if p.key not in missing),
    )


def _by_length(passages: Iterable[Passage]) -> list[Passage]:
    return sorted(passages, key=lambda passage: (len(passage.token_ids), passage.key))


def first_missing(context: BuildContext, unit_id: str, store: VectorStore) -> str:
    """Return URL and size of the first chunk of a unit, in the order of embed_units, that the store does not hold."""
    passages = passages_of(context, unit_id)
    store.refresh()
    stored = store.find([passage.key for passage in passages])
    missing = _by_length(passage for passage in passages if passage.key not in stored)
    if not missing:
        return f"a unit of {len(passages)} chunks"
    urls = pq.read_table(context.units_dir / f"{unit_id}.chunks.parquet", columns=["url"])["url"]
    row = next(row for row, passage in enumerate(passages) if passage.key == missing[0].key)
    return f"{urls[row].as_py()}: a chunk of {len(missing[0].token_ids)} tokens"


def checkpoint_groups(passages: Sequence[Passage], tokens: int) -> Iterator[list[Passage]]:
    """Yield the passages in order, in groups of about this many tokens."""
    group: list[Passage] = []
    size = 0
    for passage in passages:
        if group and size + len(passage.token_ids) > tokens:
            yield group
            group, size = [], 0
        group.append(passage)
        size += len(passage.token_ids)
    if group:
        yield group


def missing_vectors(context: BuildContext, unit_ids: Sequence[str], store: VectorStore) -> EmbedReceipt:
    """Return what embed_units would do for these units, without doing it: chunks to embed, chunks stored, tokens."""
    started = time.perf_counter()
    store.refresh()
    tokens_by_key: dict[bytes, int] = {}
    chunk_count = 0
    for unit_id in unit_ids:
        passages = passages_of(context, unit_id)
        stored = store.find([passage.key for passage in passages])
        chunk_count += len(passages)
        tokens_by_key.update((p.key, len(p.token_ids)) for p in passages if p.key not in stored)
    return EmbedReceipt(
        embedded=len(tokens_by_key),
        reused=chunk_count - len(tokens_by_key),
        tokens=sum(tokens_by_key.values()),
        seconds=time.perf_counter() - started,
    )
