"""Rank the chunks of a snapshot for query vectors, exactly, over all its shards.

    Vectors → scan every shard → merge → [[Hit, …], …]

The ranking is by (−score, chunk_id). It does not depend on how the chunks are spread over shards: scores are bit-equal
wherever a row lies (see shard.py), and every row that ties with the last wanted one is looked at.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from raydex.ann import Mask, Rows, joined, scores_of
from raydex.errors import SnapshotIncompatible
from raydex.records import Chunk, Hit, Manifest, Section, StageTimes, Vectors
from raydex.search.scan import best_rows, clamped
from raydex.shard import OpenShard
from raydex.snapshot import Snapshot


class DenseSearcher:
    """Ranks the chunks of one open snapshot by their vectors alone. Safe to use from several threads."""

    def __init__(self, index: str, snapshot: Snapshot) -> None:
        self.index = index
        self.snapshot = snapshot
        self._starts = list(accumulate(map(len, snapshot.shards), initial=0))
        self._indexes = [shard.index for shard in snapshot.shards]
        self._scanned = joined(self._indexes)

    def search(self, vectors: Vectors, *, k: int, offset: int = 0, times: StageTimes | None = None) -> list[list[Hit]]:
        """Return, for each row of vectors, the hits of ranks offset + 1 to offset + k, best first.

        vectors: float32 (q, dim), rows L2-normalised; another dim raises SnapshotIncompatible. Fewer hits come back
        when the snapshot holds fewer chunks. Ties are ordered by chunk_id. times gets the seconds of scan and merge.
        """
        if k < 1 or offset < 0:
            raise ValueError(f"k is {k} and offset {offset}; k must be at least 1, offset at least 0")
        self.check(vectors)
        return [
            [
                Hit(rank=rank, score=float(score), index=self.index, chunk=self.chunk(int(row)))
                for rank, (score, row) in enumerate(zip(scores, rows, strict=True), start=offset + 1)
            ]
            for scores, rows in ([part[offset:] for part in self.rank(row, offset + k, times=times)] for row in vectors)
        ]

    def rank(
        self, vector: Vectors, wanted: int, *, allowed: Mask | None = None, times: StageTimes | None = None
    ) -> tuple[Vectors, Rows]:
        """Return the scores, cosines in [−1, 1], and rows of the wanted best chunks, best first, ties by chunk_id.

        vector: float32 (dim,), of a batch that check() let pass. allowed: choose from these rows of the snapshot.
        """
        started = time.perf_counter()
        scores, rows = best_rows(self._scanned, self._starts, vector, wanted, allowed)
        scanned = time.perf_counter()
        order = self.order(scores, rows)[:wanted]
        if times is not None:
            times.add("scan", scanned - started)
            times.add("merge", time.perf_counter() - scanned)
        return scores[order], rows[order]

    def cosines(self, vector: Vectors, rows: Rows) -> Vectors:
        """Return the scores of these rows, to the last bit those of rank(). rows: ascending."""
        return clamped(scores_of(self._indexes, self._starts, vector, rows))

    def chunk(self, row: int) -> Chunk:
        shard, local = self.place(row)
        return shard.chunk(local)

    def chunk_id(self, row: int) -> str:
        shard, local = self.place(row)
        return shard.chunk_ids[local]

    def url(self, row: int) -> str:
        shard, local = self.place(row)
        return shard.urls[local]

    def text(self, row: int) -> str:
        shard, local = self.place(row)
        return shard.texts[local]

    def last_heading(self, row: int) -> str:
        """Return the last heading of a chunk, "" without one."""
        shard, local = self.place(row)
        return shard.last_headings(local)

    def place(self, row: int) -> tuple[OpenShard, int]:
        """Return the shard of a row, and its row in there."""
        number = bisect_right(self._starts, row) - 1
        return self.snapshot.shards[number], row - self._starts[number]

    def section(self, section_id: str) -> Section | None:
        found = (shard.section(section_id) for shard in self.snapshot.shards)
        return next((section for section in found if section is not None), None)

    def check(self, vectors: Vectors) -> None:
        """Raise when no ranking follows from these vectors; see check_vectors."""
        check_vectors(self.index, self.snapshot.manifest, vectors)

    def order(self, scores: npt.NDArray[np.floating[Any]], rows: Rows) -> Rows:
        """Return the places of these rows, best first, ties by chunk_id."""
        return order_of(scores, lambda place: self.chunk_id(int(rows[place])))


def check_vectors(index: str, manifest: Manifest, vectors: Vectors) -> None:
    """Raise when no ranking follows from these vectors: SnapshotIncompatible, or ValueError for NaN."""
    model = manifest.embedder
    if vectors.ndim != 2 or vectors.shape[1] != model.dim:
        raise SnapshotIncompatible(
            f"index {index}",
            "the shape of the query vectors",
            f"(q, {model.dim})",
            str(vectors.shape),
            f"Embed queries with the model of the snapshot, {model.name!r}.",
        )
    if not np.isfinite(vectors).all():
        raise ValueError("a query vector holds NaN or infinity; no ranking follows from it")


def order_of(scores: npt.NDArray[np.floating[Any]], chunk_id: Callable[[int], str]) -> Rows:
    """Return the places of these scores, best first, ties by chunk_id. chunk_id: of a place."""
    order: Rows = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    is_tied = ranked[1:] == ranked[:-1]
    if is_tied.any():
        for first, end in _runs(is_tied):
            order[first:end] = sorted(order[first:end].tolist(), key=chunk_id)
    return order


def _runs(is_tied: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Return [first, end] of each run of equal scores. is_tied: of each score but the last, is the next one equal?"""
    edges = np.flatnonzero(np.diff(is_tied.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    edges[:, 1] += 1
    runs: list[list[int]] = edges.tolist()
    return runs


def merge_hits(rankings: Iterable[Iterable[Hit]], *, k: int, offset: int = 0) -> list[Hit]:
    """Merge the hits of several indexes into one ranking and return its ranks offset + 1 to offset + k.

    Each ranking must reach to offset + k itself. Scores of different models cannot be compared: do not merge those.
    """
    ranked = sorted(
        (hit for hits in rankings for hit in hits), key=lambda hit: (-hit.score, hit.chunk.chunk_id, hit.index)
    )
    return [replace(hit, rank=rank) for rank, hit in enumerate(ranked[offset : offset + k], start=offset + 1)]
