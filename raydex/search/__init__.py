"""Find the passages that answer a query.

Query (+ its vector) → Searcher.find → Found(hits, confidence, facets)

1. `dense` ranks by cosine, exactly over all shards; `raydex.lexical` ranks by BM25.
2. `facts` knows each chunk's page, section, source, version, language and kind: filters, facets and grouping.
3. `ranking` fuses what both legs found, with weights that depend on the kind of query.
4. `holding` is what the ranking asks of the passages: of shards open here, or, by `scattered`, in other processes.
5. `searcher` puts it together; `passages` marks the words in a passage and cuts the excerpt around them.
6. `reranking` has a cross-encoder look again at the best hits, where there is one and as long as there is time.
"""

from raydex.search.dense import DenseSearcher, merge_hits
from raydex.search.reranking import RerankStage, open_rerank_stage
from raydex.search.scattered import Group, Groups, Scattered, SnapshotKey, split
from raydex.search.searcher import Searcher, merge_found

__all__ = [
    "DenseSearcher",
    "Group",
    "Groups",
    "RerankStage",
    "Scattered",
    "Searcher",
    "SnapshotKey",
    "merge_found",
    "merge_hits",
    "open_rerank_stage",
    "split",
]
