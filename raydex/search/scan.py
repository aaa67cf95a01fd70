"""Look through the vectors of all shards for the best rows.

    shards, vector → what each shard was asked → (scores, rows): the wanted best, and all that tie with the last

An exact shard scores every row. Another one is asked for the best by its coarse form, a share of the wanted ones and
some more, and for more as long as a row that it has not given could be among the wanted: by a known bound of the error,
so that none is missed (fp16, int8), or else by the number of candidates that was found to be enough (RaBitQ).
"""

from collections.abc import Callable, Sequence
from math import inf, isinf

import numpy as np

from raydex.ann import JoinedBytes, Mask, Rows, SearchIndex
from raydex.records import Vectors

WITH_THOSE_WITHIN_SLACK, MORE_THAN_ITS_SHARE, AT_LEAST = 1.5, 2, 32
"""What a coarse shard is asked at first: to ask one again takes longer than the first time. The 200 best of python3-doc
are 250 to 300 with those that bytes cannot tell from them, and of 4 shards each has 50 ± 27 of the 200: so one shard in
50 is asked again."""

WITH_THOSE_WITHIN_SLACK_OF_ALL = 4
"""The same for bytes of all shards joined, which have one step: of 100,000 chunks they cannot tell 330 from the 200
best for half of the queries, and 720 for one in twenty. A heap of 800 takes a fifth longer than one of 300."""

GROWTH = 4


class _Part:
    """What is known of one shard. rows, scores: of those that were scored; rows None: all.

    coarse: of the rows that it gave, best first. unseen: what no other row exceeds by its coarse score.
    """

    def __init__(self, index: SearchIndex | JoinedBytes, vector: Vectors, allowed: Mask | None) -> None:
        self.index, self._vector = index, vector
        self.is_coarse = allowed is None and not index.is_exact
        self.slack = index.slack(vector) if self.is_coarse else 0.0
        self.coarse, self.unseen, self._asked = np.empty(0, np.float32), -inf, 0
        self.rows: Rows | None = np.empty(0, np.int64)
        self.scores = np.empty(0, np.float32)
        if not self.is_coarse:
            self.rows = None if allowed is None else np.flatnonzero(allowed)
            self.scores = index.scores(vector, self.rows)

    def ask(self, count: int = 0) -> None:
        """count: 0 for more than before."""
        self._asked = min(self.index.rows, count or GROWTH * self._asked)
        self.coarse, self._given = self.index.near(self._vector, self._asked)
        self.unseen = -inf if self._asked == self.index.rows else float(self.coarse[-1])

    def score(self, least: float) -> None:
        """Score the rows whose coarse score is at least so high; those that are scored are the first of them."""
        known = len(self.scores)
        added = np.sort(self._given[known : max(known, np.count_nonzero(self.coarse >= least))])
        self.rows = np.concatenate([_rows(self), added])
        self.scores = np.concatenate([self.scores, self.index.scores(self._vector, added)])


def best_rows(
    indexes: Sequence[SearchIndex | JoinedBytes],
    starts: Sequence[int],
    vector: Vectors,
    wanted: int,
    allowed: Mask | None,
) -> tuple[Vectors, Rows]:
    """Return scores, clamped to [−1, 1], and rows of the wanted best and all that tie with the last, in no order.

    starts: the first row of each index in the whole. allowed: of the whole; others are not looked at.
    """
    parts = [
        _Part(index, vector, None if allowed is None else allowed[start : start + index.rows])
        for index, start in zip(indexes, starts, strict=False)
        if index.rows
    ]
    if coarse := [part for part in parts if part.is_coarse]:
        _ask_enough(parts, coarse, wanted)
    firsts = [start for index, start in zip(indexes, starts, strict=False) if index.rows]
    scores = np.concatenate([np.empty(0, np.float32), *(part.scores for part in parts)])
    least = _least(scores, wanted)
    if not coarse and allowed is None:  # every row in its place
        rows: Rows = np.flatnonzero(scores >= least)
        return clamped(scores[rows]), rows
    rows = np.concatenate(
        [np.empty(0, np.int64), *(_rows(part) + first for part, first in zip(parts, firsts, strict=True))]
    )
    kept = scores >= least
    return clamped(scores[kept]), rows[kept]


def _ask_enough(parts: Sequence[_Part], coarse: Sequence[_Part], wanted: int) -> None:
    """Ask the coarse parts until none of them can hold anything else that is wanted, and score what is among it.

    Where the error is bounded, the wanted best by the coarse score are scored first: no wanted row is below the last of
    their scores, and so its coarse score is below it by the slack at most.
    """
    total = sum(part.index.rows for part in parts)
    for part in coarse:
        part.ask(_first_count(part, wanted, total))
    bounded = [part for part in coarse if not isinf(part.slack)]
    others = [part for part in coarse if isinf(part.slack)]
    exact = [part.scores for part in parts if not part.is_coarse]
    slack = max((part.slack for part in bounded), default=0.0)
    _settle(bounded, lambda: _least(np.concatenate([*exact, *(part.coarse for part in bounded)]), wanted))
    _settle(bounded, lambda: _least(np.concatenate([*exact, *(part.scores for part in bounded)]), wanted) - slack)
    candidates = wanted * max((part.index.refine for part in others), default=1)
    _settle(others, lambda: _least(np.concatenate([part.coarse for part in others]), candidates))


def _settle(parts: Sequence[_Part], least: Callable[[], float]) -> None:
    """least: the coarse score from which on rows are to be scored, by what is known so far."""
    while parts:
        limit = least()
        again = [part for part in parts if part.unseen >= limit and not isinf(part.unseen)]
        for part in again:
            part.ask()
        if not again:
            for part in parts:
                part.score(limit)
            return


def _first_count(part: _Part, wanted: int, total: int) -> int:
    if isinstance(part.index, JoinedBytes):
        return wanted * WITH_THOSE_WITHIN_SLACK_OF_ALL
    candidates = wanted * (part.index.refine if isinf(part.slack) else WITH_THOSE_WITHIN_SLACK)
    return int(min(1, MORE_THAN_ITS_SHARE * part.index.rows / total) * candidates) + AT_LEAST


def _rows(part: _Part) -> Rows:
    return np.arange(part.index.rows) if part.rows is None else part.rows


def _least(scores: Vectors, wanted: int) -> float:
    """Return the score of the last wanted row, as it is once all are clamped; −inf when there are fewer."""
    if len(scores) < wanted:
        return -inf
    least = float(np.partition(scores, -wanted)[-wanted])
    return -inf if least <= -1 else min(least, 1.0)


def clamped(scores: Vectors) -> Vectors:
    """Rounding puts cosines up to 2e-7 outside of [−1, 1]."""
    within: Vectors = np.minimum(np.maximum(scores, np.float32(-1)), np.float32(1))
    return within
