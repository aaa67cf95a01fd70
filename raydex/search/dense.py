"""Rank the chunks of a snapshot for query vectors, exactly, over all its shards.

    Vectors → scan every shard → merge → [[Hit, …], …]

The ranking is by (−score, chunk_id). It does not depend on how the chunks are spread over shards: scores are bit-equal
wherever a row lies (see shard.py), and every row that ties with the last wanted one is looked at.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from raydex.ann import Mask, Rows
from raydex.errors import SnapshotIncompatible
from raydex.records import Chunk, Hit, Section, StageTimes, Vectors
from raydex.shard import OpenShard
from raydex.snapshot import Snapshot

GROWTH = 4
"""How many times more rows to fetch when the wanted ones end within a tie."""


class DenseSearcher:
    """Ranks the chunks of one open snapshot by their vectors alone. Safe to use from several threads."""

    def __init__(self, index: str, snapshot: Snapshot) -> None:
        self.index = index
        self.snapshot = snapshot
        self._starts = np.cumsum([0, *map(len, snapshot.shards)])

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
        parts = [
            _best(shard, vector, wanted, None if allowed is None else allowed[start : start + len(shard)])
            for shard, start in zip(self.snapshot.shards, self._starts, strict=False)
        ]
        scanned = time.perf_counter()
        scores = np.concatenate([*(scores for scores, _ in parts), np.empty(0, np.float32)])
        places = [rows + start for (_, rows), start in zip(parts, self._starts, strict=False)]
        rows = np.concatenate([*places, np.empty(0, np.int64)])
        order = self._order(scores, rows, wanted)
        if times is not None:
            times.add("scan", scanned - started)
            times.add("merge", time.perf_counter() - scanned)
        return scores[order], rows[order]

    def cosines(self, vector: Vectors, rows: Rows) -> Vectors:
        """Return the scores of these rows; the last bits may differ from rank()."""
        scores = np.empty(len(rows), np.float32)
        for number, local, places in self._by_shard(rows):
            scores[places] = self.snapshot.shards[number].vectors[local] @ vector
        return np.clip(scores, -1.0, 1.0)

    def chunk(self, row: int) -> Chunk:
        shard, local = self.place(row)
        return shard.chunk(local)

    def heading_and_text(self, row: int) -> tuple[str, str]:
        """Return the last heading of a chunk ("" without one) and its text."""
        shard, local = self.place(row)
        headings = shard.chunks["headings"][local].as_py()
        return headings[-1] if headings else "", shard.chunks["text"][local].as_py()

    def place(self, row: int) -> tuple[OpenShard, int]:
        """Return the shard of a row, and its row in there."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.snapshot.shards[number], row - int(self._starts[number])

    def section(self, section_id: str) -> Section | None:
        found = (shard.section(section_id) for shard in self.snapshot.shards)
        return next((section for section in found if section is not None), None)

    def check(self, vectors: Vectors) -> None:
        """Raise when no ranking follows from these vectors: SnapshotIncompatible, or ValueError for NaN."""
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

    def _order(self, scores: Vectors, rows: Rows, wanted: int) -> Rows:
        """Return the places of the wanted best, best first, ties by chunk_id."""
        if len(scores) > wanted:
            kept = np.flatnonzero(scores >= np.partition(scores, -wanted)[-wanted])
        else:
            kept = np.arange(len(scores))
        return kept[self.order(scores[kept], rows[kept])][:wanted]

    def order(self, scores: npt.NDArray[np.floating[Any]], rows: Rows) -> Rows:
        """Return the places of these rows, best first, ties by chunk_id."""
        order: Rows = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        if (ranked[1:] == ranked[:-1]).any():
            ties = sorted(order.tolist(), key=lambda place: (-float(scores[place]), self.chunk_id(int(rows[place]))))
            order = np.array(ties, np.int64)
        return order

    def chunk_id(self, row: int) -> str:
        shard, local = self.place(row)
        return shard.chunk_ids[local]

    def _by_shard(self, rows: Rows) -> Iterator[tuple[int, Rows, Rows]]:
        """Yield (number of the shard, rows in it, their places in rows)."""
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(numbers):
            places = np.flatnonzero(numbers == number)
            yield int(number), rows[places] - self._starts[number], places


def _best(shard: OpenShard, vector: Vectors, wanted: int, allowed: Mask | None) -> tuple[Vectors, Rows]:
    """Return the scores (clamped to [−1, 1]) and rows of the wanted best rows and of all that tie with the last.

    FAISS gives equal scores in descending row order and cuts a tie anywhere, so it is asked for more until the last
    score is below the last wanted one. Queries are scanned one by one: without BLAS, batches scan no faster.
    """
    fetch = wanted + 1
    while True:
        scores, rows = shard.search(vector[np.newaxis], fetch, allowed)
        clamped = np.clip(scores[0], -1.0, 1.0)  # rounding puts cosines up to 2e-7 outside
        if len(clamped) < fetch or clamped[-1] < clamped[wanted - 1]:
            return clamped, rows[0]
        fetch *= GROWTH


def merge_hits(rankings: Iterable[Iterable[Hit]], *, k: int, offset: int = 0) -> list[Hit]:
    """Merge the hits of several indexes into one ranking and return its ranks offset + 1 to offset + k.

    Each ranking must reach to offset + k itself. Scores of different models cannot be compared: do not merge those.
    """
    ranked = sorted(
        (hit for hits in rankings for hit in hits), key=lambda hit: (-hit.score, hit.chunk.chunk_id, hit.index)
    )
    return [replace(hit, rank=rank) for rank, hit in enumerate(ranked[offset : offset + k], start=offset + 1)]
