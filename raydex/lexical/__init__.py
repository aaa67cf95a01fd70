"""The words of a snapshot: one BM25 index over all shards. Only home of tantivy.

    passages in the order of rows → write_lexical → Lexical → open_lexical → (scores, rows)

analysis.py     text → terms; code-aware, stemmed
schema.py       the fields of both indexes: of passages, and of names and spellings
writing.py      passages → the engine's files under their checksums
index.py        the opened index: search, symbols, filters
names.py        suggestions and corrections
"""

from raydex.lexical.analysis import ANALYZER, Term, terms
from raydex.lexical.index import LexicalIndex, QueryTerm, open_lexical
from raydex.lexical.names import Suggestion
from raydex.lexical.writing import Passage, write_lexical

__all__ = [
    "ANALYZER",
    "LexicalIndex",
    "Passage",
    "QueryTerm",
    "Suggestion",
    "Term",
    "open_lexical",
    "terms",
    "write_lexical",
]
