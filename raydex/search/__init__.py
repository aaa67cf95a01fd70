"""Find the passages that answer a query.

Query (+ its vector) → Searcher.find → Found(hits, confidence, facets)

1. `dense` ranks by cosine, exactly over all shards; `raydex.lexical` ranks by BM25.
2. `facts` knows each chunk's page, section, source, version, language and kind: filters, facets and grouping.
3. `ranking` fuses what both legs found, with weights that depend on the kind of query.
4. `searcher` puts it together; `passages` marks the words in a passage and cuts the excerpt around them.
"""

from raydex.search.dense import DenseSearcher, merge_hits
from raydex.search.searcher import Searcher, merge_found

__all__ = ["DenseSearcher", "Searcher", "merge_found", "merge_hits"]
