"""How one query fared: its ranking against its judgements.

    Golden, run (query id → URLs, best first, as returned) → {query id: {metric: value}}

Sections are what is judged (URL#anchor); figures of pages say whether at least the page was right.

page-hit@k, section-hit@k   1 when one of the first k results as returned is right: repeats take places
pages-hit@5                 the same over the first 5 distinct pages
page-…@10, section-…@10     over the ranking with each page (or section) at its first place only
MRR@10                      1 / rank of the first right one, 0 when it is not among the first 10
nDCG@10                     sum of relevance / log2(rank + 1), over that of the best possible ranking (Järvelin and
                            Kekäläinen 2002, with the relevance itself as gain: trec_eval's ndcg_cut)
recall@10                   share of the answers among the first 10

A page is as relevant as its best answer. A query none of whose answers has an anchor has no section figures.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from raydex.evaluate.golden import Golden, section_key

DEPTH = 10
HITS_AT = (1, 5, 10)
PAGES_AT = 5
PAGE_METRICS = (
    *(f"page-hit@{k}" for k in HITS_AT),
    f"pages-hit@{PAGES_AT}",
    *(f"page-{name}@{DEPTH}" for name in ("MRR", "nDCG")),
)
SECTION_METRICS = (
    *(f"section-hit@{k}" for k in HITS_AT),
    *(f"section-{name}@{DEPTH}" for name in ("recall", "MRR", "nDCG")),
)
METRICS = PAGE_METRICS + SECTION_METRICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How one query fared among its first k sections. rank: of the first right one, from 1; 0 when none is there."""

    recall: float
    ndcg: float
    rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Means over all queries, each at k."""

    recall: float
    ndcg: float
    mrr: float


def evaluate(golden: Golden, run: Mapping[str, Sequence[str]], *, k: int) -> dict[str, Judged]:
    """Judge each query's first k sections. run: query id → URLs, best first; a query that it lacks found nothing.

    Several hits on one section count once, where the first stands; so do several sections of a page that is judged
    as a whole.
    """
    return {query: _judged(golden, query, run.get(query, ()), k) for query in golden.queries}


def figures(judged: Mapping[str, Judged]) -> Figures:
    """Return the means over the queries. MRR: mean of 1 / rank of the first right section, 0 when there is none."""
    count = len(judged)
    return Figures(
        recall=sum(one.recall for one in judged.values()) / count,
        ndcg=sum(one.ndcg for one in judged.values()) / count,
        mrr=sum(1 / one.rank for one in judged.values() if one.rank) / count,
    )


def metrics_of(golden: Golden, run: Mapping[str, Sequence[str]]) -> dict[str, dict[str, float]]:
    """Return query id → metric → value, for every query of the golden set; one that the run lacks found nothing."""
    found = {}
    for query in golden.queries:
        keys = [section_key(url) for url in run.get(query, ())]
        found[query] = _page_metrics(golden.qrels[query], keys)
        if any("#" in answer for answer, relevance in golden.qrels[query].items() if relevance > 0):
            found[query] |= _section_metrics(golden, query, keys)
    return found


def _page_metrics(judged: Mapping[str, int], keys: Sequence[str]) -> dict[str, float]:
    relevances: dict[str, int] = {}
    for answer, relevance in judged.items():
        page = _page(answer)
        relevances[page] = max(relevance, relevances.get(page, 0))
    returned = [relevances.get(_page(key), 0) for key in keys]
    distinct = [relevances.get(page, 0) for page in dict.fromkeys(map(_page, keys))]
    values = (*_hits(returned), _hit(distinct, PAGES_AT), _reciprocal(distinct), _ndcg(distinct, relevances.values()))
    return dict(zip(PAGE_METRICS, values, strict=True))


def _section_metrics(golden: Golden, query: str, keys: Sequence[str]) -> dict[str, float]:
    judged = golden.qrels[query]
    returned = [max((judged[target] for target in golden.targets(query, key)), default=0) for key in keys]
    of = _judged(golden, query, keys, DEPTH)
    values = (*_hits(returned), of.recall, 1 / of.rank if of.rank else 0.0, of.ndcg)
    return dict(zip(SECTION_METRICS, values, strict=True))


def _judged(golden: Golden, query: str, urls: Iterable[str], k: int) -> Judged:
    relevances = golden.qrels[query]
    gains = [relevances.get(target, 0) for target in _distinct(golden, query, urls)][:k]
    answers = [relevance for relevance in relevances.values() if relevance > 0]
    return Judged(
        recall=sum(gain > 0 for gain in gains) / len(answers),
        ndcg=_ndcg(gains, answers, k),
        rank=next((rank for rank, gain in enumerate(gains, start=1) if gain > 0), 0),
    )


def _distinct(golden: Golden, query: str, urls: Iterable[str]) -> list[str]:
    """Return what the hits are judged as, each once: the answer they stand for, else their own section.

    Where a hit may stand for several answers, it is the first that none before it stood for.
    """
    ranking: dict[str, None] = {}
    for key in dict.fromkeys(map(section_key, urls)):
        targets = golden.targets(query, key) or (key,)
        ranking[next((target for target in targets if target not in ranking), targets[0])] = None
    return list(ranking)


def _page(key: str) -> str:
    return key.partition("#")[0]


def _hit(gains: Sequence[int], k: int) -> float:
    return float(any(gain > 0 for gain in gains[:k]))


def _hits(gains: Sequence[int]) -> list[float]:
    return [_hit(gains, k) for k in HITS_AT]


def _reciprocal(gains: Sequence[int]) -> float:
    return next((1 / rank for rank, gain in enumerate(gains[:DEPTH], start=1) if gain > 0), 0.0)


def _ndcg(gains: Sequence[int], answers: Iterable[int], k: int = DEPTH) -> float:
    return _dcg(gains[:k]) / _dcg(sorted(answers, reverse=True)[:k])


def _dcg(gains: Iterable[int]) -> float:
    return sum(max(0, gain) / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
