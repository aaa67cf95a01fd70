"""Search the lexical index of an open snapshot.

    ParsedQuery → terms, corrected and with synonyms → BM25 → (scores, rows)

Rows are those of the snapshot: shards in the manifest's order, and rows in the order of each. The files are mapped, so
that replicas on a machine share them.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal
from weakref import proxy

import numpy as np
import numpy.typing as npt
import tantivy

from raydex.errors import SnapshotCorrupt
from raydex.filters import wanted_keys
from raydex.lexical.analysis import Word, analyzer, words_of
from raydex.lexical.names import Names, Suggestion, allowed_edits
from raydex.lexical.schema import dotted
from raydex.lexical.writing import NAMES, PASSAGES
from raydex.query import ParsedQuery
from raydex.records import Filters, Lexical, Vectors

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

MAX_LANGUAGES = 3
"""Stemmers that a query is read with: those of the most frequent languages of the passages."""

_ASKING = (
    "am be been can could did do does doesn don from had has have how i isn its me my s should so t then us use using "
    "we what when where which who why would you your"
)
ASKING = frozenset(_ASKING.split())
"""Words by which people ask; in a question they are left out when others are there. Documents hold the answers, and few
of these words: they are rare enough to weigh (nDCG@10 0.439 without them, 0.423 with them; docs/decisions/0015)."""

CORRECTED_WEIGHT, SYNONYM_WEIGHT = 0.5, 0.8

BM25_K1 = 1.2
"""tantivy's; a term adds at most (k1 + 1) × its inverse document frequency."""

REMEMBERED_QUERIES, REMEMBERED_TERMS = 1024, 1 << 15
"""Each term of a query is looked up several times; each time, Python's lock is let go and has to be waited for."""

Query, Occur = tantivy.Query, tantivy.Occur


@dataclass(frozen=True, slots=True)
class QueryTerm:
    """A term that is searched, the word of the query that it comes from, and how."""

    word: str
    term: str
    weight: float = 1.0
    origin: Literal["typed", "corrected", "synonym"] = "typed"


def open_lexical(lexical: Lexical, objects_dir: Path, synonyms: Iterable[Sequence[str]] = ()) -> "LexicalIndex":
    """Map the files of an index. synonyms: groups of words that mean the same. Raises SnapshotCorrupt.

    Nothing is written beside the objects, which may be read-only: tantivy sees a folder of links, which is gone again
    when this returns.
    """
    with tempfile.TemporaryDirectory(prefix="raydex-lexical-", ignore_cleanup_errors=True) as work:
        for name, stored in lexical.objects.items():
            link = Path(work, name)
            link.parent.mkdir(exist_ok=True)
            link.symlink_to((objects_dir / stored.sha256).resolve())
        try:
            passages, names = (_opened(Path(work, part)) for part in (PASSAGES, NAMES))
            found = LexicalIndex(passages, Names(names), lexical.languages, synonyms)
        except (ValueError, OSError) as error:
            raise SnapshotCorrupt(f"lexical index in {objects_dir}", "files of tantivy", str(error)) from error
    if len(found) != lexical.documents:
        expected = f"{lexical.documents} documents"
        raise SnapshotCorrupt(f"lexical index in {objects_dir}", expected, str(len(found)))
    return found


def _opened(folder: Path) -> tantivy.Index:
    index = tantivy.Index.open(str(folder))
    index.config_reader("manual")  # the files never change: nothing is to be watched
    return index


class LexicalIndex:
    """An open index. Safe for concurrent use."""

    def __init__(
        self, index: tantivy.Index, names: Names, languages: Sequence[str], synonyms: Iterable[Sequence[str]] = ()
    ) -> None:
        self._schema, self._searcher, self._names = index.schema, index.searcher(), names
        self._analyzers = list(dict.fromkeys(map(analyzer, languages)))[:MAX_LANGUAGES] or [analyzer("")]
        self._synonyms = [[_spaced(words) for words in group] for group in synonyms]
        # by a proxy: an index that held itself would keep its files mapped until the next run of the collector
        self.expand = lru_cache(REMEMBERED_QUERIES)(partial(LexicalIndex._expand, proxy(self)))
        self._frequency = lru_cache(REMEMBERED_TERMS)(partial(self._searcher.doc_freq, "text"))

    def __len__(self) -> int:
        return self._searcher.num_docs

    def search(self, query: ParsedQuery, limit: int, filters: Filters | None = None) -> tuple[Vectors, Rows]:
        """Return the scores (BM25) and rows of the best passages, best first; ties by row.

        A passage must have each phrase, none of what is excluded, and one of the words at least.
        """
        terms = self.expand(query)
        phrases = [self._phrase(phrase) for phrase in query.phrases]
        if limit < 1 or not (terms or phrases):
            return np.empty(0, np.float32), np.empty(0, np.int64)
        words = [(Occur.Should, self._term(term)) for term in terms]
        needed = [(Occur.Must, phrase) for phrase in phrases]
        if words and not phrases:
            needed = [(Occur.Must, Query.boolean_query(words))]
            words = []
        limits = self._limits(query, filters)
        whole = Query.boolean_query([*needed, *words, *limits]) if phrases or limits else needed[0][1]
        return self._ranked(whole, limit)

    def matching(self, query: ParsedQuery) -> Mask | None:
        """Return which rows phrases and exclusions leave; None when they leave all.

        A row that tantivy gives takes 0.6 µs, so the smaller part is asked for: what they leave, or what they do not.
        """
        if not (query.phrases or query.excluded):
            return None
        needed = [(Occur.Must, self._phrase(phrase)) for phrase in query.phrases]
        left = Query.boolean_query([*(needed or [(Occur.Must, Query.all_query())]), *self._limits(query, None)])
        found: Any = self._searcher.search(left, 1, count=True)  # its annotations do not know the count
        count = found.count or 0
        is_most = 2 * count > len(self)
        if is_most:
            left = Query.boolean_query([(Occur.Must, Query.all_query()), (Occur.MustNot, left)])
        mask = np.full(len(self), is_most)
        mask[self._rows(left, len(self) - count if is_most else count)[1]] = not is_most
        return mask

    def is_anywhere(self, query: ParsedQuery, filters: Filters) -> bool:
        """Return whether a passage has all the phrases and nothing that is excluded, and passes the filters."""
        return len(self.search(query, 1, filters)[1]) > 0

    def definitions(self, name: str) -> tuple[Rows, Rows, Rows]:
        """Return the rows that define a symbol: spelled exactly so, in any case, and by its end (`join`)."""
        name = name.removesuffix("()").strip()
        keys = (f"={name}", f"~{name.lower()}", dotted(name))
        exact, folded, ending = (self._named(key) for key in keys)
        return exact, folded, ending

    def _named(self, key: str) -> Rows:
        count = self._searcher.doc_freq("symbol", key)
        return np.sort(self._rows(self._keyword("symbol", key), count)[1]) if count else np.empty(0, np.int64)

    def ideal(self, query: ParsedQuery) -> float:
        """Return what no passage can exceed: the sum of the most that each word can add to BM25."""
        best: dict[str, float] = {}
        for term in self.expand(query):
            most = term.weight * (BM25_K1 + 1) * self._inverse_frequency(term.term)
            if term.origin == "typed":
                best[term.word] = best.get(term.word, 0.0) + most
            elif term.origin == "corrected":
                best[term.word] = max(best.get(term.word, 0.0), most)
        return sum(best.values())

    def _inverse_frequency(self, term: str) -> float:
        frequency = self._frequency(term)
        return math.log1p((len(self) - frequency + 0.5) / (frequency + 0.5))  # tantivy's

    def is_name(self, word: str) -> bool:
        """Return whether a symbol, flag or command is called so, whatever the case."""
        return self._searcher.doc_freq("symbol", f"~{word.lower().removesuffix('()')}") > 0

    def suggest(self, prefix: str, limit: int) -> list[Suggestion]:
        return self._names.suggest(prefix, limit)

    def _expand(self, query: ParsedQuery) -> tuple[QueryTerm, ...]:
        """Return the terms that the words of a query stand for, each once, those that no passage has left out."""
        found: dict[str, QueryTerm] = {}
        for term in (*self._typed(_telling(query)), *self._alternatives(query.words)):
            if term.term not in found or found[term.term].weight < term.weight:
                found[term.term] = term
        return tuple(term for term in found.values() if self._frequency(term.term))

    def _typed(self, words: Iterable[str]) -> Iterator[QueryTerm]:
        for word in words:
            yield from self._of_word(word)

    def _of_word(self, word: str) -> Iterator[QueryTerm]:
        variants = self._read(word)
        known = [term for variant in variants for term in variant.terms if self._frequency(term)]
        yield from (QueryTerm(word, term) for term in known)
        for variant in variants:
            for part in variant.parts:
                if not known or (len(variant.parts) > 1 and not self._frequency(part)):
                    edits = allowed_edits(word if len(variant.parts) == 1 else part)
                    near = self._names.nearest(part, edits)
                    yield from (QueryTerm(word, term, CORRECTED_WEIGHT, "corrected") for term in near)

    def _alternatives(self, words: Iterable[str]) -> Iterator[QueryTerm]:
        text = _spaced(" ".join(words))
        for group in self._synonyms:
            for named in (member for member in group if member in text):
                for other in group:
                    for word in words_of(other) if other != named else ():
                        terms = [term for variant in self._read(word) for term in variant.terms]
                        yield from (QueryTerm(named.strip(), term, SYNONYM_WEIGHT, "synonym") for term in terms)

    def _read(self, word: str) -> list[Word]:
        return list(dict.fromkeys(of.word(word) for of in self._analyzers))

    def _term(self, term: QueryTerm) -> tantivy.Query:
        query = Query.term_query(self._schema, "text", term.term, "freq")
        return query if term.weight == 1 else Query.boost_query(query, term.weight)

    def _phrase(self, phrase: str) -> tantivy.Query:
        """Return what has the words one after the other, read in any of the languages."""
        variants = {}
        for of in self._analyzers:
            parts = [part for word in words_of(phrase) for part in of.word(word).parts]
            variants[tuple(parts)] = self._sequence(parts)
        return Query.disjunction_max_query(list(variants.values()))

    def _sequence(self, parts: list[str]) -> tantivy.Query:
        if len(parts) > 1:
            return Query.phrase_query(self._schema, "text", list(parts))
        return Query.term_query(self._schema, "text", parts[0], "freq") if parts else Query.empty_query()

    def _limits(self, query: ParsedQuery, filters: Filters | None) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        clauses = [(Occur.MustNot, self._phrase(text)) for text in query.excluded]
        for field, keys in wanted_keys(filters or Filters()).items():
            alternatives = [(Occur.Should, self._keyword(field, key)) for key in keys]
            clauses.append((Occur.Must, Query.const_score_query(Query.boolean_query(alternatives), 0.0)))
        return clauses

    def _keyword(self, field: str, value: str) -> tantivy.Query:
        return Query.term_query(self._schema, field, value, "basic")

    def _ranked(self, query: tantivy.Query, limit: int) -> tuple[Vectors, Rows]:
        scores, rows = self._rows(query, limit)
        order = np.lexsort((rows, -scores))
        return scores[order], rows[order]

    def _rows(self, query: tantivy.Query, limit: int) -> tuple[Vectors, Rows]:
        hits = self._searcher.search(query, max(1, min(limit, len(self))), count=False).hits
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        return np.array([score for score, _ in hits], np.float32), np.array(rows, np.int64)


def _telling(query: ParsedQuery) -> list[str]:
    """Return the words of a query without those of asking."""
    words = [word for text in query.words for word in words_of(text)]
    telling = [word for word in words if word.lower() not in ASKING] if query.kind == "question" else []
    return telling or words


def _spaced(words: str) -> str:
    return f" {' '.join(words.lower().split())} "
