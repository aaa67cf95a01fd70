"""The passages of a snapshot as the ranking asks for them: Holding. OpenHolding has all of them in this process.

    rows of the lexical leg, vector → look → Looked: cosines, pages, sections      row → its text, URL, heading, …

Row: that of the snapshot, as in facts.py. scattered.py has the Holding of which other processes have the shards.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from raydex.ann import Mask, Rows
from raydex.records import Chunk, Filters, Section, StageTimes, Vectors
from raydex.search.dense import DenseSearcher
from raydex.search.facts import Facts
from raydex.snapshot import Snapshot

NO_ROWS = np.empty(0, np.int64)
NO_SCORES = np.empty(0, np.float32)
NOTHING = NO_SCORES, NO_ROWS


class PassagesGone(Exception):
    """Passages that look() returned cannot be had any more; from now on it leaves them out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What is known of the candidates of a query. dense: scores and rows of that leg, best first, ties by chunk_id.

    The others are of one length: rows, ascending, of both legs; cosine, NaN without a vector; page and section, numbers
    that are the same for rows of the same one; page_size, ln(1 + chunks of its page); is_api, the entry of a symbol.
    """

    rows: Rows
    cosine: Vectors
    page: npt.NDArray[np.integer[Any]]
    section: npt.NDArray[np.integer[Any]]
    page_size: npt.NDArray[np.float64]
    is_api: Mask
    dense: tuple[Vectors, Rows]


class Holding(Protocol):
    """Passages, for one query. What is asked of a row other than look() is asked of rows that look() returned."""

    @property
    def shards(self) -> tuple[int, int]:
        """How many are looked at, and how many there are."""
        ...

    def look(
        self,
        wanted: Rows,
        *,
        vector: Vectors | None,
        depth: int,
        filters: Filters,
        said: Mask | None,
        times: StageTimes,
    ) -> Looked:
        """Return the depth best rows by cosine, and with them the wanted ones: ascending, of the lexical leg.

        vector: float32 (dim,); None: only the wanted rows, as they are. said: rows that phrases and exclusions leave;
        of other rows, and of those that the filters do not let pass, none is returned.
        """
        ...

    def order(self, scores: npt.NDArray[np.floating[Any]], rows: Rows) -> Rows:
        """Return the places of these rows, best first, ties by chunk_id."""
        ...

    def expect(self, rows: Rows, count: int) -> None:
        """Be told which rows are looked at next, best first, and how many of them surely are."""
        ...

    def chunk(self, row: int) -> Chunk: ...
    def text(self, row: int) -> str: ...
    def url(self, row: int) -> str: ...

    def last_heading(self, row: int) -> str:
        """Return the last heading of a chunk, "" without one."""
        ...

    def value(self, facet: str, row: int) -> str: ...

    def counts(self, rows: Rows) -> dict[str, dict[str, int]]:
        """Return facet → value → how many of the rows have it, most frequent first."""
        ...


class Holdings(Protocol):
    """All passages of a snapshot, for any number of queries at a time."""

    @property
    def shards_ok(self) -> int:
        """How many shards can be looked at now, as far as is known."""
        ...

    def begin(self, seconds_left: Callable[[], float]) -> Holding:
        """Return what answers one query. seconds_left: of its time."""
        ...

    def urls(self, rows: Sequence[int]) -> list[str]:
        """Return the URL of each of these rows of the snapshot; "" where it cannot be had now."""
        ...

    def section(self, section_id: str) -> Section | None:
        """Return a section, None when there is none. Raises ShardsLost when nobody can tell."""
        ...


class OpenHolding:
    """Shards that are open in this process: of a whole snapshot, or some of them, with rows from 0 on."""

    def __init__(self, index: str, snapshot: Snapshot) -> None:
        self.dense, self.facts = DenseSearcher(index, snapshot), Facts(snapshot)
        self.rows = sum(map(len, snapshot.shards))
        self.shards = len(snapshot.shards), len(snapshot.shards)
        self._is_api = self.facts.passing("kind", frozenset({"api"}))
        self.order, self.chunk, self.text, self.url = (
            self.dense.order,
            self.dense.chunk,
            self.dense.text,
            self.dense.url,
        )
        self.last_heading, self.section, self.counts = self.dense.last_heading, self.dense.section, self.facts.counts

    @property
    def shards_ok(self) -> int:
        return self.shards[0]

    def begin(self, seconds_left: Callable[[], float]) -> Self:
        return self

    def look(
        self,
        wanted: Rows,
        *,
        vector: Vectors | None,
        depth: int,
        filters: Filters,
        said: Mask | None,
        times: StageTimes,
    ) -> Looked:
        if vector is None:
            return self._looked(wanted, np.full(len(wanted), np.nan, np.float32), NOTHING)
        started = time.perf_counter()
        mask = self.facts.mask(filters)
        allowed = said if mask is None else mask if said is None else said & mask
        if allowed is not None:
            wanted = wanted[allowed[wanted]]
        times.add("filter", time.perf_counter() - started)
        dense = self.dense.rank(vector, depth, allowed=allowed, times=times)
        rows = united(wanted, dense[1])
        cosine, is_unknown = np.empty(len(rows), np.float32), np.ones(len(rows), bool)
        is_unknown[known := rows.searchsorted(dense[1])] = False
        started = time.perf_counter()
        cosine[known], cosine[is_unknown] = dense[0], self.dense.cosines(vector, rows[is_unknown])
        times.add("score", time.perf_counter() - started)
        return self._looked(rows, cosine, dense)

    def _looked(self, rows: Rows, cosine: Vectors, dense: tuple[Vectors, Rows]) -> Looked:
        facts = self.facts
        return Looked(
            rows=rows,
            cosine=cosine,
            page=facts.page[rows],
            section=facts.section[rows],
            page_size=facts.page_size[rows],
            is_api=self._is_api[rows],
            dense=dense,
        )

    def expect(self, rows: Rows, count: int) -> None:
        pass

    def value(self, facet: str, row: int) -> str:
        return self.facts.facets[facet].value(row)

    def urls(self, rows: Sequence[int]) -> list[str]:
        return [self.url(row) for row in rows]


def united(*parts: Rows) -> Rows:
    """Return all rows, ascending, each once; np.unique takes three times as long for so few."""
    rows = np.sort(np.concatenate(parts))
    is_first = np.ones(len(rows), bool)
    np.not_equal(rows[1:], rows[:-1], out=is_first[1:])
    of_all: Rows = rows[is_first]
    return of_all
