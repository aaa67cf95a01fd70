"""A second look at the best hits: a cross-encoder reads each together with the query, within a time budget.

    Query → widened → search → apply → Found: the first hits by their new scores, the rest as before

Pages do not overlap and leave nothing out: every page is cut from the same ranking, whatever its offset and k. Beyond
the candidates that ranking is the one without the second look.
"""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from threading import Lock

from raydex.embed import Reranker, load_reranker
from raydex.errors import EmbedError
from raydex.records import Found, Hit, Query, StageTimes
from raydex.search.ranking import SYMBOL_BONUS

logger = logging.getLogger(__name__)

MINI_BATCH = 1
"""Passages scored between two looks at the clock: on a processor one at a time is as fast as 30, and none is padded."""

NO_MODEL, NOT_LOADED = "this service has no reranking model", "the reranking model could not be loaded"


class RerankStage:
    """Reranks one query at a time; others wait their turn as long as their own budget lasts. Never raises."""

    def __init__(
        self,
        reranker: Reranker | None,
        *,
        candidates: int,
        budget_s: float,
        without: str = NO_MODEL,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """reranker: None when there is none, and `without` says why."""
        self._reranker, self._without = reranker, without
        self._candidates, self._budget_s, self._clock = candidates, budget_s, clock
        self._turn = Lock()

    def widened(self, query: Query) -> Query:
        """Return what to search for so that apply() can answer the query: all candidates, and what leads to each."""
        if self._reranker is None or not self._is_wanted(query):
            return query
        return replace(query, k=max(self._candidates, query.offset + query.k), offset=0, explain=True)

    def apply(self, query: Query, found: Found, *, times: StageTimes, within_s: float = math.inf) -> Found:
        """Return the page that the query asks for. found: of widened(query); times gets the seconds of `rerank`.

        within_s: what the caller has left for this query, of which no more than half is taken.

        Best first by the model's score, ties as before; what was not scored in time follows as before. Definitions of
        what the whole query names lead and keep their places: a cross-encoder knows no names.
        """
        if not self._is_wanted(query):
            return found
        if self._reranker is None:
            return _told(found, f"not reranked: {self._without}", "no_model")
        started = self._clock()
        defined = len(list(takewhile(_is_definition, found.hits[: self._candidates])))
        looked_at = found.hits[defined : self._candidates]
        budget_s = max(0.0, min(self._budget_s, within_s / 2))
        scores, reason = self._scores(self._reranker, query.text, looked_at, budget_s)
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        marked = [_marked(looked_at[place], scores[place]) for place in order]
        ranked = [*found.hits[:defined], *marked, *found.hits[defined + len(marked) :]]
        page = list(enumerate(ranked, start=1))[query.offset :][: query.k]
        answer = replace(found, hits=tuple(_shown(hit, rank, query) for rank, hit in page))
        times.add("rerank", self._clock() - started)
        if reason == "budget":
            return _told(answer, f"reranked within its time: {len(scores)} of {len(looked_at)} passages", reason)
        return _told(answer, "not reranked: the model failed", reason) if reason else answer

    def _is_wanted(self, query: Query) -> bool:
        """By default where a model was named, also one that could not be loaded; never beyond the candidates."""
        by_default = self._reranker is not None or self._without != NO_MODEL
        return (by_default if query.rerank is None else query.rerank) and query.offset < self._candidates

    def _scores(self, reranker: Reranker, text: str, hits: Sequence[Hit], budget_s: float) -> tuple[list[float], str]:
        """Return the scores of the first hits, as many as the budget allows, and why not of all ("": of all).

        No passage is begun that would end too late if it took as long as the slowest one so far.
        """
        deadline, longest = self._clock() + budget_s, 0.0
        if not self._turn.acquire(timeout=budget_s):
            return [], "budget"
        try:
            scores: list[float] = []
            for first in range(0, len(hits), MINI_BATCH):
                started = self._clock()
                if started + longest > deadline:
                    return scores, "budget"
                batch = hits[first : first + MINI_BATCH]
                scores += reranker.score(text, [hit.chunk.embedder_input for hit in batch]).tolist()
                longest = max(longest, self._clock() - started)
        except EmbedError as error:
            logger.warning("not reranked reason=%s", error)
            return [], "failure"
        finally:
            self._turn.release()
        return scores, ""


def open_rerank_stage(model: str, *, candidates: int, budget_ms: int, threads: int) -> RerankStage:
    """model: empty for none. One that cannot be loaded is named in the log, and searches go on without it."""
    reranker, without = None, NO_MODEL
    if model:
        try:
            reranker = load_reranker(model, threads=threads)
        except EmbedError as error:
            without = NOT_LOADED
            logger.warning("searches are not reranked reason=%s", error)
    return RerankStage(reranker, candidates=candidates, budget_s=budget_ms / 1000, without=without)


def _is_definition(hit: Hit) -> bool:
    return hit.explanation.get("symbol", 0.0) >= SYMBOL_BONUS[1]


def _marked(hit: Hit, score: float) -> Hit:
    explanation = {**hit.explanation, "rerank": round(score, 6), "rank_before": float(hit.rank)}
    return replace(hit, scores={**hit.scores, "rerank": score}, explanation=explanation)


def _shown(hit: Hit, rank: int, query: Query) -> Hit:
    more = tuple(_shown(other, rank, query) for other in hit.more)
    return replace(hit, rank=rank, more=more, explanation=hit.explanation if query.explain else {})


def _told(found: Found, message: str, reason: str) -> Found:
    return replace(found, message="; ".join(filter(None, (found.message, message))), fell_through=reason)
