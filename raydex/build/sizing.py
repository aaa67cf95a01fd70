"""How large an index may grow before it is kept in another way: shards and index kind by the number of chunks.

    chunks, what is configured, what the live snapshot has → shard_count, index_kind

What the live snapshot has is kept while it is not off by more than a factor of two, so that unchanged shards stay
shared although a site grows. Figures: bench/scale.py, all-MiniLM-L6-v2, 384 numbers, one core.
"""

from collections import Counter
from math import inf

from raydex.records import Manifest

CHUNKS_PER_SHARD = 4096
SHARDS_OF_A_SITE = 64
"""More shards make an edit cheaper (one shard is rewritten) and a search dearer (0.54 ms in one, 0.74 ms in four)."""

MOST_CHUNKS_PER_SHARD = 2**20
"""What one task writes: a million chunks are 1.5 GB of vectors, about 1 GB of text, and 0.1 GB of memory in keys."""

KIND_BY_CHUNKS = ((8_000, "flat"), (200_000, "int8"), (inf, "rabitq"))
"""Most chunks for each kind. The 200 best, as hybrid search wants them, take 0.75 ms flat and 0.5 ms in int8 of 16,000
chunks, 5.7 and 1.9 ms of 100,000, and both find every row; RaBitQ (2.4 ms, .9999 of the rows) scores 2,000 candidates
anew, and is faster from about 200,000 on. ADR 18: why int8 is exact; ADR 10: the other kinds."""


def shard_count(chunks: int, configured: int, parent: int) -> int:
    """Return the number of shards: as configured, as the parent has while that is not far off, else by size."""
    if configured:
        return configured
    fitting = 1
    while fitting * (CHUNKS_PER_SHARD if fitting < SHARDS_OF_A_SITE else MOST_CHUNKS_PER_SHARD) < chunks:
        fitting *= 2
    return parent if fitting / 2 <= parent <= fitting * 2 else fitting


def index_kind(chunks: int, configured: str, parent: str) -> str:
    """Return the kind of all indexes: as configured, as the parent has while that is not far off, else by size.

    A search goes through all shards, so the number of all chunks counts.
    """
    if configured != "auto":
        return configured
    return parent if parent in {_fitting(chunks / 2), _fitting(chunks * 2)} else _fitting(chunks)


def _fitting(chunks: float) -> str:
    return next(kind for most, kind in KIND_BY_CHUNKS if chunks <= most)


def kind_of(manifest: Manifest | None) -> str:
    """Return the kind that most shards of a snapshot have; "" without one."""
    kinds = Counter(shard.index_kind for shard in manifest.shards) if manifest else Counter[str]()
    return kinds.most_common(1)[0][0] if kinds else ""
