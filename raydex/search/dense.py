"""Rank the chunks of a snapshot for query vectors, exactly, over all its shards.

    Vectors → scan every shard → merge → [[Hit, …], …]

The ranking is by (−score, chunk_id). It does not depend on how the chunks are spread over shards: scores are bit-equal
wherever a row lies (see shard.py), and every row that ties with the last wanted one is looked at.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from raydex.ann import Rows
from raydex.errors import SnapshotIncompatible
from raydex.records import Hit, Section, StageTimes, Vectors
from raydex.shard import OpenShard
from raydex.snapshot import Snapshot

GROWTH = 4
"""How many times more rows to fetch when the wanted ones end within a tie."""


class Searcher:
    """Answers queries from one open snapshot of one index. Safe to use from several threads."""

    def __init__(self, index: str, snapshot: Snapshot) -> None:
        self.index = index
        self.snapshot = snapshot

    def search(self, vectors: Vectors, *, k: int, offset: int = 0, times: StageTimes | None = None) -> list[list[Hit]]:
        """Return, for each row of vectors, the hits of ranks offset + 1 to offset + k, best first.

        vectors: float32 (q, dim), rows L2-normalised; another dim raises SnapshotIncompatible. Fewer hits come back
        when the snapshot holds fewer chunks. Ties are ordered by chunk_id. times gets the seconds of scan and merge.
        """
        if k < 1 or offset < 0:
            raise ValueError(f"k is {k} and offset {offset}; k must be at least 1, offset at least 0")
        self._check(vectors)
        started = time.perf_counter()
        scans = [[_best(shard, row, offset + k) for shard in self.snapshot.shards] for row in vectors]
        scanned = time.perf_counter()
        hits = [self._merge(scan, k=k, offset=offset) for scan in scans]
        if times is not None:
            times.add("scan", scanned - started)
            times.add("merge", time.perf_counter() - scanned)
        return hits

    def section(self, section_id: str) -> Section | None:
        found = (shard.section(section_id) for shard in self.snapshot.shards)
        return next((section for section in found if section is not None), None)

    def _check(self, vectors: Vectors) -> None:
        model = self.snapshot.manifest.embedder
        if vectors.ndim != 2 or vectors.shape[1] != model.dim:
            raise SnapshotIncompatible(
                f"index {self.index}",
                "the shape of the query vectors",
                f"(q, {model.dim})",
                str(vectors.shape),
                f"Embed queries with the model of the snapshot, {model.name!r}.",
            )
        if not np.isfinite(vectors).all():
            raise ValueError("a query vector holds NaN or infinity; no ranking follows from it")

    def _merge(self, scan: Sequence[tuple[Vectors, Rows]], *, k: int, offset: int) -> list[Hit]:
        wanted = offset + k
        floor = _nth_best([scores for scores, _ in scan], wanted)
        ranked = sorted(
            (-float(score), shard.chunk_ids[row], number, int(row))
            for number, (shard, (scores, rows)) in enumerate(zip(self.snapshot.shards, scan, strict=True))
            for score, row in zip(scores[scores >= floor], rows[scores >= floor], strict=True)
        )
        return [
            Hit(rank=rank, score=-negative, index=self.index, chunk=self.snapshot.shards[number].chunk(row))
            for rank, (negative, _, number, row) in enumerate(ranked[offset:wanted], start=offset + 1)
        ]


def _best(shard: OpenShard, vector: Vectors, wanted: int) -> tuple[Vectors, Rows]:
    """Return the scores (clamped to [−1, 1]) and rows of the wanted best rows and of all that tie with the last.

    FAISS gives equal scores in descending row order and cuts a tie anywhere, so it is asked for more until the last
    score is below the last wanted one. Queries are scanned one by one: without BLAS, batches scan no faster.
    """
    fetch = wanted + 1
    while True:
        scores, rows = shard.search(vector[np.newaxis], fetch)
        clamped = np.clip(scores[0], -1.0, 1.0)  # rounding puts cosines up to 2e-7 outside
        if fetch >= len(shard) or clamped[-1] < clamped[wanted - 1]:
            return clamped, rows[0]
        fetch *= GROWTH


def _nth_best(parts: Sequence[Vectors], n: int) -> float:
    """Return the n-th highest of all scores, or −1 (the lowest there is) when there are fewer."""
    scores = np.concatenate([*parts, np.empty(0, np.float32)])
    return float(np.partition(scores, -n)[-n]) if len(scores) >= n else -1.0


def merge_hits(rankings: Iterable[Iterable[Hit]], *, k: int, offset: int = 0) -> list[Hit]:
    """Merge the hits of several indexes into one ranking and return its ranks offset + 1 to offset + k.

    Each ranking must reach to offset + k itself. Scores of different models cannot be compared: do not merge those.
    """
    ranked = sorted(
        (hit for hits in rankings for hit in hits), key=lambda hit: (-hit.score, hit.chunk.chunk_id, hit.index)
    )
    return [replace(hit, rank=rank) for rank, hit in enumerate(ranked[offset : offset + k], start=offset + 1)]
