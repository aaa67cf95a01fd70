"""Index kinds: how the vectors of a shard are kept and searched. Only home of faiss.

    vectors in blocks → write_flat, write_coarse → files → open_index → SearchIndex.search → (scores, rows)

`flat` looks at every whole vector. The others look at a small form of every vector (coarse) and score the best
candidates anew with the whole vectors, which lie beside it on disk: no row has another score. How far `fp16` and `int8`
can be off is known (slack), so that a search over shards can tell when it has missed nothing; `rabitq` may miss a row.
Bytes of several shards are joined in memory (JoinedBytes): one long block is read faster than many short ones.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from raydex.records import Vectors
from utils.files import HashedFile

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
"""One entry for each row: may it be found?"""

RECALL_AT = 10
"""Verified is the share of the ten best rows that are found."""

TRAINING_ROWS = 65_536
"""Rows the coarse form is trained on, evenly spaced: RaBitQ learns their mean and nothing else."""

BLOCK_ROWS = 16_384
"""Rows in memory at a time: 25 MB at 384 numbers."""

RECALL_QUERIES = 64
"""Queries that a shard is asked for its recall: 640 rows to be found, so that one lost is 0.16 %."""

LEAST_QUERIES, ROWS_PER_QUERY = 16, 256
"""A small shard is asked fewer, or they would cost more than its index: 64 from 16,384 rows on."""

QUERY_DISTANCE = 0.5
"""Length of the noise added to a vector to make a query of it."""

SAME_SCORE = 1e-6
"""Rounding of a score: matrix products sum in another order than FAISS's kernel."""


REFINE: dict[str, tuple[int, ...]] = {
    "flat": (),
    "fp16": (2, 4, 8),
    "int8": (2, 4, 8),
    "rabitq": (10, 20, 40, 80),
}
"""kind → candidates per wanted row, least first; the first factor that reaches the wanted recall is kept."""

HALF_STEP = 2.0**-11
"""Half precision rounds a number by at most this share of it."""

LONGEST = 1.001
"""Lengths of vectors are 1 but for rounding."""

MOST_JOINED_ROWS = 400_000
"""Joined bytes are memory of each process (154 MB at 384 numbers), where the files of shards are shared. `int8` is the
kind up to 200,000 rows, and stays it while they double."""

_ROUNDING = 2.0**-23
"""A sum of products in single precision is off by at most this for each of them, when the lengths are 1."""

_OTHER_KERNEL = (2, 4, 8, 12)
"""Dimensions for which FAISS sums the products of many rows in another order than those of one."""

# A score must not depend on which rows and queries share a call, or the ranking would depend on the number of shards.
# BLAS sums in another order for other shapes (differences to 2e-7), FAISS's own kernel does not: 1, 2, 7 or 64 queries
# over 1 to 40 parts were bit-equal. FAISS 1.15 turns to BLAS from queries × dim = 128,000 on, earlier ones from 20
# queries; so never let it. The price, one thread, 384 numbers: 64 queries over 4,096 rows take 5.5 instead of 2.4 ms;
# a single query is faster without BLAS (0.09 instead of 0.41 ms).
faiss.cvar.distance_compute_blas_threshold = 2**31 - 1


def write_flat(out: HashedFile, dim: int, rows: int, blocks: Iterable[Vectors]) -> None:
    """Write what FAISS would write of an IndexFlatIP of all blocks, a block in memory at a time."""
    _write_streamed(out, faiss.IndexFlatIP(dim), rows, rows * dim, (block.tobytes() for block in blocks))


def write_coarse(out: HashedFile, kind: str, vectors: Vectors) -> None:
    """Write the coarse form of a shard's vectors (a mapped array will do). The same vectors give the same bytes."""
    rows, dim = vectors.shape
    faiss.omp_set_num_threads(1)  # sums in one order
    blocks = (np.ascontiguousarray(vectors[first : first + BLOCK_ROWS]) for first in range(0, rows, BLOCK_ROWS))
    if kind != "rabitq":
        empty = _scalar(kind, vectors)
        _write_streamed(
            out, empty, rows, rows * empty.code_size, (empty.sa_encode(block).tobytes() for block in blocks)
        )
        return
    index = faiss.IndexRaBitQFastScan(dim, faiss.METRIC_INNER_PRODUCT)
    if rows:
        index.train(np.ascontiguousarray(vectors[:: -(-rows // TRAINING_ROWS)]))
    for block in blocks:
        index.add(block)
    faiss.write_index(index, faiss.PyCallbackIOWriter(out.write))  # type: ignore[attr-defined]


def _scalar(kind: str, vectors: Vectors) -> Any:
    """Return an empty index of halves or of bytes; 255 steps of one length span all numbers of the vectors."""
    of = faiss.ScalarQuantizer.QT_fp16 if kind == "fp16" else faiss.ScalarQuantizer.QT_8bit_uniform
    empty: Any = faiss.IndexScalarQuantizer(vectors.shape[1], of, faiss.METRIC_INNER_PRODUCT)
    if kind == "int8" and len(vectors):
        ends = np.repeat(np.array([[vectors.min()], [vectors.max()]], np.float32), vectors.shape[1], axis=1)
        empty.train(ends)
    return empty


def _slack(coarse: Any, vectors: Vectors) -> float:
    """Return by how much a score of the coarse form can differ from the exact one; inf: nobody knows.

    The error of a row's numbers is a vector, and its product with a query of length 1 at most as long as that vector.
    Bytes are compared with the whole vectors: at most 0.013 for python3-doc, where half a step each would be 0.021.
    """
    if not isinstance(coarse, faiss.IndexScalarQuantizer):
        return np.inf
    error = HALF_STEP
    if coarse.sq.qtype == faiss.ScalarQuantizer.QT_8bit_uniform:
        error = 0.0
        for first in range(0, len(vectors), BLOCK_ROWS):
            block = vectors[first : first + BLOCK_ROWS]
            error = max(error, _greatest_length(coarse.reconstruct_n(first, len(block)) - block))
    return _slack_of(error, coarse.d)


def _greatest_length(differences: Vectors) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", differences, differences).max()))


def _slack_of(error: float, dim: int) -> float:
    return float(LONGEST * error + 2 * _ROUNDING * dim)


def _write_streamed(out: HashedFile, empty: Any, rows: int, length: int, codes: Iterable[bytes]) -> None:
    """Write an index whose file is a head and then its codes; length: of the codes, in FAISS's own unit.

    The head has the number of rows in its bytes 8 to 16 and the length in its last eight (tested against FAISS).
    """
    head = bytearray(faiss.serialize_index(empty).tobytes())
    struct.pack_into("<q", head, 8, rows)
    struct.pack_into("<Q", head, len(head) - 8, length)
    out.write(head)
    for part in codes:
        out.write(part)


class SearchIndex:
    """An open index: exact, or coarse with the whole vectors beside it. Safe for concurrent searches."""

    def __init__(self, exact: Any, coarse: Any, refine: int, vectors: Vectors) -> None:
        """vectors: the whole ones, mapped, (rows, dim)."""
        self.exact, self._coarse, self.refine, self.vectors = exact, coarse, refine, vectors
        self.rows, self.dim, self.is_exact = exact.ntotal, exact.d, coarse is None
        self._slack = 0.0 if coarse is None else _slack(coarse, vectors)

    def slack(self, vector: Vectors) -> float:
        """Return by how much a score of near() can differ from the exact one; inf: nobody knows."""
        return self._slack

    @property
    def has_bytes(self) -> bool:
        return isinstance(self._coarse, faiss.IndexScalarQuantizer) and self._coarse.code_size == self.dim

    def search(self, vectors: Vectors, k: int) -> tuple[Vectors, Rows]:
        """Return scores and rows of the k best rows found, (q, k) each, best first; k is at most the rows there are."""
        faiss.omp_set_num_threads(1)  # per calling thread, 0.1 µs; more threads do not help one query
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if self._coarse is None or k * self.refine >= self.rows:
            scores, rows = self.exact.search(vectors, k)
            return scores, rows
        scores, rows = np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
        for number, candidates in enumerate(self.candidates(vectors, k * self.refine)):
            near = self.scores(vectors[number], candidates)
            best = np.argsort(-near, kind="stable")[:k]
            scores[number], rows[number] = near[best], candidates[best]
        return scores, rows

    def scores(self, vector: Vectors, rows: Rows | None = None) -> Vectors:
        """Return the scores of these rows (None: of all) for one vector, to the last bit those of an exact search."""
        scores = np.empty(self.rows if rows is None else len(rows), np.float32)
        if not len(scores):
            return scores
        faiss.omp_set_num_threads(1)
        library: Any = faiss  # raw pointers: the arrays must be as C++ expects them, and live until it returns
        vector = np.ascontiguousarray(vector, np.float32)
        query, out = library.swig_ptr(vector), library.swig_ptr(scores)
        if rows is None and self.dim not in _OTHER_KERNEL:
            library.fvec_inner_products_ny(out, query, self.exact.get_xb(), self.dim, self.rows)
            return scores
        rows = np.arange(self.rows) if rows is None else np.ascontiguousarray(rows, np.int64)
        self.exact.compute_distance_subset(1, query, len(rows), out, library.swig_ptr(rows))
        return scores

    def near(self, vector: Vectors, count: int) -> tuple[Vectors, Rows]:
        """Return what the coarse form holds for the best rows: its own scores, best first, and the rows."""
        return _near(self._coarse, vector, count)

    def candidates(self, vectors: Vectors, count: int) -> Rows:
        """Return the rows that the coarse form holds for the best, (q, count), best first."""
        rows: Rows = self._coarse.search(np.ascontiguousarray(vectors), count)[1]
        return rows


class JoinedBytes:
    """Several indexes, searched as one: one block of bytes, made of their whole vectors when they are opened.

    All numbers are multiples of one step, and those of a query of another, so that FAISS multiplies integers. rows,
    slack(), scores() and near() are those of a SearchIndex that holds the rows of all, one index after the other.
    """

    is_exact, refine = False, 1

    def __init__(self, indexes: Sequence[SearchIndex]) -> None:
        """indexes: of one dim, with at least one row that is not all zeros."""
        self._indexes, self.dim = indexes, indexes[0].dim
        self._starts = [*accumulate((index.rows for index in indexes), initial=0)]
        self.rows = self._starts[-1]
        whole = [index.vectors for index in indexes if index.rows]
        self._step = np.float32(max(max(of.max(), -of.min()) for of in whole) / 127)
        self._block: Any = faiss.IndexScalarQuantizer(
            self.dim, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        )
        self._block.codes.resize(self.rows * self.dim)  # once: add() would grow it, with the old block beside the new
        self._block.ntotal = self.rows
        codes = faiss.rev_swig_ptr(self._block.codes.data(), self.rows * self.dim).reshape(self.rows, self.dim)
        first, error = 0, 0.0
        for block in (of[start : start + BLOCK_ROWS] for of in whole for start in range(0, len(of), BLOCK_ROWS)):
            steps = np.rint(block / self._step)
            codes[first : first + len(block)] = steps + 128
            first += len(block)
            error = max(error, _greatest_length(steps * self._step - block))
        self._slack = _slack_of(error, self.dim)

    def slack(self, vector: Vectors) -> float:
        steps, step = _steps(vector)
        return self._slack + LONGEST * float(np.linalg.norm(steps * step - vector))

    def scores(self, vector: Vectors, rows: Rows | None = None) -> Vectors:
        """Return the scores of these rows, ascending (None: of all), to the last bit those of an exact search."""
        return scores_of(self._indexes, self._starts, vector, np.arange(self.rows) if rows is None else rows)

    def near(self, vector: Vectors, count: int) -> tuple[Vectors, Rows]:
        steps, step = _steps(vector)
        scores, rows = _near(self._block, steps, count)
        return scores * (self._step * step), rows


def _steps(vector: Vectors) -> tuple[Vectors, np.float32]:
    """Return a vector in whole steps, at most 127 either way, and the length of a step."""
    step = np.float32(max(np.abs(vector).max() / 127, np.finfo(np.float32).tiny))
    return np.rint(vector / step), step


def joined(indexes: Sequence[SearchIndex]) -> Sequence[SearchIndex | JoinedBytes]:
    """Return these indexes, or one that stands for all of them where all are bytes, and not too many."""
    filled = [index for index in indexes if index.rows]
    if filled and all(index.has_bytes for index in filled) and sum(index.rows for index in filled) <= MOST_JOINED_ROWS:
        return [JoinedBytes(indexes)]
    return indexes


def scores_of(indexes: Sequence[SearchIndex], starts: Sequence[int], vector: Vectors, rows: Rows) -> Vectors:
    """Return the scores of these rows of several indexes, to the last bit those of an exact search.

    starts: the first row of each index in the whole, and their end. rows: ascending.
    """
    faiss.omp_set_num_threads(1)
    library: Any = faiss
    scores, vector = np.empty(len(rows), np.float32), np.ascontiguousarray(vector, np.float32)
    query, ends = library.swig_ptr(vector), np.searchsorted(rows, starts).tolist()
    for index, start, first, end in zip(indexes, starts, ends, ends[1:], strict=False):
        if first < end:
            local = np.ascontiguousarray(rows[first:end] - start, np.int64)
            out = library.swig_ptr(scores[first:end])
            index.exact.compute_distance_subset(1, query, end - first, out, library.swig_ptr(local))
    return scores


def _near(coarse: Any, vector: Vectors, count: int) -> tuple[Vectors, Rows]:
    faiss.omp_set_num_threads(1)
    library: Any = faiss  # search() of FAISS's Python checks and copies for 10 µs, a sixth of what 4,000 rows take
    vector = np.ascontiguousarray(vector, np.float32)
    scores, rows = np.empty(count, np.float32), np.empty(count, np.int64)
    coarse.search_c(1, library.swig_ptr(vector), count, library.swig_ptr(scores), library.swig_ptr(rows))
    return scores, rows


def open_index(exact: Path, coarse: Path | None = None, refine: int = 1) -> SearchIndex:
    """Map the files of an index. Raises RuntimeError when one is none of FAISS's."""
    opened = [faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC) for path in (exact, coarse) if path is not None]
    if not isinstance(opened[0], faiss.IndexFlat):
        raise RuntimeError(f"{exact}: not whole vectors")
    if len({(index.ntotal, index.d) for index in opened}) > 1:
        raise RuntimeError(f"{coarse}: {opened[1].ntotal} rows, {exact.name} has {opened[0].ntotal}")
    shape = opened[0].ntotal, opened[0].d
    vectors: Vectors = np.empty((0, shape[1]), np.float32)
    if shape[0]:  # they end the file; numpy maps them too, so that an array may outlive the index
        head = exact.stat().st_size - 4 * shape[0] * shape[1]
        vectors = np.memmap(exact, np.float32, "r", offset=head, shape=shape)
    return SearchIndex(opened[0], opened[1] if coarse is not None else None, refine, vectors)


def best_rows(vectors: Vectors, queries: Vectors, k: int = RECALL_AT) -> tuple[Vectors, Rows]:
    """Return scores and rows of the k best rows for each query, exactly but for the last bits, block by block."""
    k = min(k, len(vectors))
    scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    for first in range(0, len(vectors), BLOCK_ROWS):
        block = vectors[first : first + BLOCK_ROWS]
        here = queries @ block.T
        scores = np.hstack([scores, here])
        rows = np.hstack([rows, np.broadcast_to(np.arange(first, first + len(block)), here.shape)])
        kept = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        scores, rows = np.take_along_axis(scores, kept, 1), np.take_along_axis(rows, kept, 1)
    return scores, rows


def as_queries(vectors: Vectors) -> Vectors:
    """Return vectors as far from these as a question is from its passage (cosine about 0.9); always the same ones."""
    noise = np.random.default_rng(0).standard_normal(vectors.shape, dtype=np.float32)
    moved = vectors + noise * np.float32(QUERY_DISTANCE / np.sqrt(max(1, vectors.shape[1])))
    asked: Vectors = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return asked


def queries_of(vectors: Vectors) -> Vectors:
    """Return the queries that a shard with these vectors is asked for its recall."""
    count = min(RECALL_QUERIES, max(LEAST_QUERIES, len(vectors) // ROWS_PER_QUERY))
    return as_queries(sample_rows(vectors, count))


def sample_rows(vectors: Vectors, count: int) -> Vectors:
    """Return so many of the vectors, evenly spaced; all when there are fewer."""
    step = max(1, len(vectors) // count)
    return np.ascontiguousarray(vectors[::step][:count])


def recall_by_refine(index: SearchIndex, kind: str, queries: Vectors, exact: Vectors) -> dict[int, float]:
    """Return for each factor of a kind the share of the best rows that are among its candidates.

    exact: the scores of the best rows, of best_rows(). A row that scores as high as the last of them is one of them.
    """
    k = exact.shape[1]
    factors = REFINE[kind]
    if not k or not len(queries):
        return dict.fromkeys(factors, 1.0)
    count = min(index.rows, k * max(factors))
    whole, wanted = index.vectors, exact.min(axis=1) - SAME_SCORE
    found = np.zeros(len(factors))
    for query, least, rows in zip(queries, wanted, index.candidates(queries, count), strict=True):
        hits = whole[rows] @ query >= least
        found += [min(k, np.count_nonzero(hits[: k * factor])) for factor in factors]
    return {factor: float(share) for factor, share in zip(factors, found / (k * len(queries)), strict=True)}
