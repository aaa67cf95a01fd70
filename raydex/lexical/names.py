"""Suggestions while a person types, and the nearest spelling of a word that no passage has.

prefix → [Suggestion, …]        word → nearest spellings        forgiving: one letter from four on, two from eight
"""

from collections.abc import Iterator
from dataclasses import dataclass

import tantivy

from raydex.lexical.analysis import plain_words
from raydex.lexical.writing import KIND_OF_RANK, RANK
from raydex.records import NameKind

_CANDIDATES = 10
"""Spellings looked at for a word: the most frequent ones at that distance."""

_NEAREST = 2


@dataclass(frozen=True, slots=True)
class Suggestion:
    """text: a symbol, title or heading of the index, as kind says. is_corrected: found by another spelling than typed.

    row: of the first passage under that name; None in an index from before rows were kept.
    """

    text: str
    kind: NameKind
    row: int | None
    is_corrected: bool = False


def allowed_edits(word: str) -> int:
    """Return how many letters may differ, be missing, too many or exchanged with their neighbour."""
    if len(word) < 4 or not word.isalpha():
        return 0
    return 1 if len(word) < 8 else 2


class Names:
    """The opened index of names and spellings. Safe for concurrent use."""

    def __init__(self, index: tantivy.Index) -> None:
        self._schema, self._searcher = index.schema, index.searcher()

    def suggest(self, prefix: str, limit: int) -> list[Suggestion]:
        """Return names that begin so, then names with words that begin so, then those of a similar spelling."""
        typed = " ".join(prefix.lower().split())
        words = plain_words(prefix)
        if not typed or limit < 1:
            return []
        found: dict[str, Suggestion] = {}
        for is_corrected, query in self._queries(typed, words):
            for document in self._best(query, limit):
                name, weight = document["name"][0], document["weight"][0]
                place = Suggestion(name, KIND_OF_RANK[weight // RANK], document.get_first("row"), is_corrected)
                found.setdefault(name, place)
            if len(found) >= limit:
                break
        return list(found.values())[:limit]

    def _queries(self, typed: str, words: list[str]) -> Iterator[tuple[bool, tantivy.Query]]:
        yield False, self._prefix("start", typed)
        if not words:
            return
        *whole, last = words
        yield False, self._all([*(self._word(word, 0) for word in whole), self._prefix("words", last)])
        if any(map(allowed_edits, words)):
            forgiving = [self._word(word, allowed_edits(word)) for word in whole]
            yield True, self._all([*forgiving, self._fuzzy("words", last, prefix=True)])

    def _word(self, word: str, edits: int) -> tantivy.Query:
        return self._fuzzy("words", word) if edits else tantivy.Query.term_query(self._schema, "words", word)

    def _prefix(self, field: str, text: str) -> tantivy.Query:
        return tantivy.Query.fuzzy_term_query(self._schema, field, text, distance=0, prefix=True)

    def _fuzzy(self, field: str, word: str, *, prefix: bool = False) -> tantivy.Query:
        edits = allowed_edits(word)
        if prefix and not edits:
            return self._prefix(field, word)
        return tantivy.Query.fuzzy_term_query(self._schema, field, word, distance=edits, prefix=prefix)

    def _all(self, queries: list[tantivy.Query]) -> tantivy.Query:
        return tantivy.Query.boolean_query([(tantivy.Occur.Must, query) for query in queries])

    def _best(self, query: tantivy.Query, limit: int) -> list[tantivy.Document]:
        hits = self._searcher.search(query, limit, count=False, order_by_field="weight").hits
        return [self._searcher.doc(address) for _, address in hits]

    def nearest(self, term: str, edits: int) -> list[str]:
        """Return up to two terms of the index that are spelled most like a term, nearest and most frequent first.

        edits: how many letters may differ at most; those of the whole word count, of which the term may be the stem.
        """
        for distance in range(1, edits + 1):
            query = tantivy.Query.fuzzy_term_query(self._schema, "spelling", term, distance=distance)
            if found := [str(document.get_first("spelling")) for document in self._best(query, _CANDIDATES)]:
                same_start = [other for other in found if other[0] == term[0]]  # the first letter is seldom wrong
                return (same_start or found)[:_NEAREST]
        return []
