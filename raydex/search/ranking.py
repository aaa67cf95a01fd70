"""Fuse what the dense and the lexical leg found into one score for each candidate.

    Candidates, kind of the query → Scored(total, parts)    pure numpy

    score = cosine + lexical weight × BM25 share + api weight, for the entry of a symbol
          + page weight × ln(1 + chunks of the page)
          + page words weight × sum of the five best BM25 shares of the page + symbol bonus

BM25 share: BM25 over the highest that the query could reach, so that it lies in [0, 1], means the same in every index,
and indexes can be merged by score. The weights are plain numbers; docs/retrieval.md says how they were found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from raydex.ann import Mask, Rows
from raydex.query import QueryKind

Scores = npt.NDArray[np.floating[Any]]

DEPTH = 200
"""Candidates of each leg, whatever k is: the first hits of a page stay the same when more are asked for."""

UNSEEN_SHARE = 0.8
"""BM25 of a candidate that only the dense leg found, over that of the last one that the lexical leg found.

It is below that one, and not nothing: with 0 instead nDCG@10 of the development queries fell from 0.610 to 0.601.
"""


BEST_OF_PAGE = 5
"""Passages of a page whose BM25 shares are summed up; more would favour pages for being long."""


@dataclass(frozen=True, slots=True)
class Weights:
    lexical: float
    api: float
    page: float
    page_words: float = 0.0


WEIGHTS: Mapping[QueryKind, Weights] = {
    "question": Weights(lexical=0.25, api=0.03, page=0.015),
    "keywords": Weights(lexical=1.2, api=-0.1, page=0.015, page_words=0.05),
    "symbol": Weights(lexical=1.0, api=0.03, page=0.02),
    "flag": Weights(lexical=1.0, api=0.03, page=0.02),
    "error_code": Weights(lexical=1.0, api=0.0, page=0.0),
}
"""A sentence is full of words that its answer does not have; one or two words are those that the answer is named by.
They name no symbol (that would be another kind): what they mean is explained on a page rather than defined by an entry.
"""

SYMBOL_BONUS = (1.0, 0.9, 0.3)
"""Of the definition of what the whole query names: spelled so, in another case, by its last parts (`join`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What is known of each candidate; arrays of one length, in the order of rows.

    lexical: BM25, NaN where that leg did not find it. last_lexical: of the last candidate of a leg that was full, else
    0. best_lexical: what no passage can exceed. bonus: of a symbol's definition.
    """

    rows: Rows
    cosine: Scores
    lexical: Scores
    last_lexical: float
    best_lexical: float
    bonus: Scores


@dataclass(frozen=True, slots=True)
class Scored:
    """total: the sum of the parts, each of which is named as in an explanation."""

    total: Scores
    parts: dict[str, Scores]


def fuse(
    candidates: Candidates, kind: QueryKind, *, is_api: Mask, page: npt.NDArray[np.integer[Any]], page_size: Scores
) -> Scored:
    """Of each candidate: is_api, whether it is the entry of a symbol; page, the number of its page; page_size, ln(1 +
    chunks of its page).
    """
    weights, best = WEIGHTS[kind], max(candidates.best_lexical, 1e-9)
    unseen = UNSEEN_SHARE * candidates.last_lexical
    bm25 = np.where(np.isnan(candidates.lexical), unseen, candidates.lexical)
    parts = {
        "dense": candidates.cosine,
        "lexical": weights.lexical * bm25 / best,
        "api": weights.api * is_api,
        "page": weights.page * page_size,
        "symbol": candidates.bonus,
    }
    if weights.page_words and len(page):
        parts["page_words"] = weights.page_words * _best_of_page(np.nan_to_num(candidates.lexical) / best, page)
    return Scored(np.sum(list(parts.values()), axis=0), parts)


def _best_of_page(shares: Scores, page: npt.NDArray[np.integer[Any]]) -> Scores:
    """Return, for each candidate, the sum of the best shares of its page; at least one candidate."""
    order = np.lexsort((-shares, page))
    begins = np.flatnonzero(np.diff(page[order], prepend=page[order[0]] - 1))
    counts = np.diff(begins, append=len(order))
    ranks = np.arange(len(order)) - np.repeat(begins, counts)
    sums = np.add.reduceat(np.where(ranks < BEST_OF_PAGE, shares[order], 0.0), begins)
    of_each = np.empty(len(order))
    of_each[order] = np.repeat(sums, counts)
    return of_each


CONFIDENCE_SLOPE, CONFIDENCE_MIDDLE, CONFIDENCE_LEXICAL = 12.4, 0.59, 0.1


def confidence(candidates: Candidates) -> float:
    """Return from 0 to 1 whether the answer is here at all: 1 / (1 + exp(−slope × (evidence − middle))).

    evidence: best cosine + 0.1 × best BM25 share + symbol bonus. Slope and middle: a logistic regression that tells the
    queries of five documentation sites from those of other sites, all sites weighing the same (docs/retrieval.md).
    """
    if not len(candidates.rows):
        return 0.0
    share = np.nan_to_num(candidates.lexical).max() / max(candidates.best_lexical, 1e-9)
    evidence = candidates.cosine.max() + CONFIDENCE_LEXICAL * share + candidates.bonus.max()
    return float(1 / (1 + np.exp(-CONFIDENCE_SLOPE * (evidence - CONFIDENCE_MIDDLE))))
