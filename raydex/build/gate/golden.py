"""Do the golden queries fare as well as before? recall@k and nDCG@k of the new snapshot and of the parent.

    Golden, both snapshots → [Failure, …], {metric: value}

The parent's figures come from its manifest when they are those of the same golden set, and were so kept even when
another model made it; else its snapshot is asked.
"""

from raydex.build.gate.parent import Parent
from raydex.build.gate.verdict import Failure, WorseQuery
from raydex.embed import Embedder
from raydex.evaluate import Figures, Golden, Judged, evaluate, figures
from raydex.records import Query
from raydex.search import Searcher
from raydex.snapshot import Snapshot

SECTIONS_PER_PAGE = 8
"""Hits asked for per one that counts: several sections of a page count once where the page is judged."""


def golden_queries(
    golden: Golden, snapshot: Snapshot, parent: Parent, embedder: Embedder, *, k: int, limit: float
) -> tuple[list[Failure], dict[str, float]]:
    """Return the failure, if any, and the figures of the new snapshot."""
    judged = judge(golden, snapshot, embedder, k)
    now = _metrics(figures(judged), k)
    before, judged_before = _stored(golden, parent, k), None
    if before is None or _lost(now, before, limit):
        judged_before = judge(golden, parent.snapshot, embedder, k) if parent.snapshot else None
        before = _metrics(figures(judged_before), k) if judged_before else before
    lost = _lost(now, before, limit) if before else []
    if not before or not lost:
        return [], now
    told = ", ".join(f"{name} {now[name]:.3f} (live: {before[name]:.3f})" for name in lost)
    message = f"{told}; a loss above {limit:g} is refused (--max-golden-loss). Worse queries"
    worse = _worse(golden, judged, judged_before)
    return [Failure(check="golden", message=message, queries=worse)], now


def judge(golden: Golden, snapshot: Snapshot, embedder: Embedder, k: int) -> dict[str, Judged]:
    vectors = embedder.embed_queries(list(golden.queries.values()))
    searcher = Searcher("gate", snapshot)
    run = {}
    for (query, text), vector in zip(golden.queries.items(), vectors, strict=True):
        found = searcher.find(Query(text=text, k=SECTIONS_PER_PAGE * k), vector)
        run[query] = [hit.chunk.url for hit in found.hits]
    return evaluate(golden, run, k=k)


def _metrics(found: Figures, k: int) -> dict[str, float]:
    return {f"golden_recall@{k}": found.recall, f"golden_ndcg@{k}": found.ndcg, f"golden_mrr@{k}": found.mrr}


def _stored(golden: Golden, parent: Parent, k: int) -> dict[str, float] | None:
    """Return the figures in the parent's manifest; None when there are none of this golden set at this k."""
    if parent.manifest is None or parent.manifest.golden_digest != golden.digest:
        return None
    names = (f"golden_{name}@{k}" for name in ("recall", "ndcg", "mrr"))
    known = {name: value for name in names if (value := parent.metric(name)) is not None}
    return known if len(known) == 3 else None


def _lost(now: dict[str, float], before: dict[str, float], limit: float) -> list[str]:
    """Return the names of the figures that fell by more than limit; MRR is told of, not judged."""
    return [name for name in now if "mrr" not in name and now[name] < before[name] - limit]


def _worse(golden: Golden, judged: dict[str, Judged], before: dict[str, Judged] | None) -> tuple[WorseQuery, ...]:
    """Return the queries that fell, the deepest first; with nothing to compare, those without a right section."""
    fallen = {
        query: (before[query].ndcg if before else 1.0) - one.ndcg
        for query, one in judged.items()
        if (one.ndcg < before[query].ndcg or one.recall < before[query].recall if before else not one.rank)
    }
    return tuple(
        WorseQuery(
            query_id=query,
            text=golden.queries[query],
            rank=judged[query].rank,
            rank_before=before[query].rank if before else None,
        )
        for query in sorted(fallen, key=lambda query: (-fallen[query], query))
    )
