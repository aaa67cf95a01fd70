"""Cut text into the terms that are indexed and asked for; code as well as prose.

    text → [Term, …]    pure; the same function reads documents and queries

A plain word gives its stem. A compound (`os.path.join`, `--max-old-space-size`, `camelCase`, `HTTPServer2`,
`built-in`) gives its parts, stemmed, at positions of their own, and itself at that of the first: lower case and without
the marks that people leave out or exchange, so that `is_alive`, `isAlive` and `is-alive` are one term. A flag or a
private name gives itself with dashes or underscores too. Writing without spaces (Chinese, Japanese, Thai) gives
pairs of characters.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache

import msgspec
import tantivy

ANALYZER = "2"
"""Changes with what this module makes of a text, and writing.py of a passage: an index of another one is made anew."""

MAX_TERM_CHARS = 64
"""Longer ones are data (base64, hashes of hashes); nobody asks for them."""

_KNOWN_WORDS = 1 << 18
"""Words whose terms are remembered: more than the vocabulary of a million passages, about 60 MB."""

_KNOWN_PIECES, _PLACED_PIECES = 1 << 17, 1 << 15
"""Of what stands between spaces in the passages that are shown: about 30 MB, and 20 with the places. All passages of
python3-doc have 112,000 of them."""

_STEMMERS = {
    "ar": "arabic",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "fi": "finnish",
    "fr": "french",
    "hu": "hungarian",
    "it": "italian",
    "nb": "norwegian",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "": "english",
    "ja": "english",
    "ko": "english",
    "zh": "english",  # whose Latin words are English ones
}

_MARKS = "".join(chr(code) for code in range(0x300, 0x3100) if unicodedata.category(chr(code)).startswith("M"))
_LETTER = rf"[\w{_MARKS}]"  # \w alone breaks words of Hindi, Thai and Arabic at their vowel signs
_WORD = re.compile(
    rf"(?:(?<![\w-])--?(?=[^\W_]))?{_LETTER}(?:{_LETTER}|(?:\.|::|->|[-/])(?={_LETTER}))*(?:\+\+|\#(?!\w))?"
    r"|(?<!\S)(?:[!%&*+/<=>@|~^:$?-]{1,3})(?!\S)"  # an operator that stands alone
)
_FOREIGN = rf"(?:[^\W_A-Za-z0-9]|[{_MARKS}])"
_PART = re.compile(
    rf"[A-Za-z0-9]*{_FOREIGN}(?:[^\W_]|[{_MARKS}])*|[A-Z]{{2,}}s(?![A-Za-z])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+"
)
_NO_SPACES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_UNSPACED = re.compile(rf"[{_NO_SPACES}]+")
_RUN = re.compile(rf"([{_NO_SPACES}]+)|[^{_NO_SPACES}]+")
_PAIR = re.compile(r".{1,2}")
_LEFT_OUT = re.compile(r"[-_/]+")
_PLAIN = re.compile(r"[A-Za-z][a-z]*")


class Term(msgspec.Struct, frozen=True, gc=False):
    """start, end: characters of the text it stands for, half-open."""

    text: str
    position: int
    start: int
    end: int


class Word(msgspec.Struct, frozen=True, gc=False):
    """What one word gives: its parts in order, and the wholes that stand beside the first.

    No business of the garbage collector, as a Term is not: it would walk the 100,000 that a service remembers.
    """

    parts: tuple[str, ...]
    wholes: tuple[str, ...]

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.wholes, *self.parts)))


def terms(text: str, language: str = "") -> list[Term]:
    """Return the terms of a text in its order. language: BCP 47; "" is read as English."""
    return analyzer(language).terms(text)


class Marks(dict[str, tuple[tuple[int, int], ...]]):
    """What stands between two spaces → where in it some terms stand, in order. Fills itself; lives as long as a query.

    A word of the analysis has no space in it, so that each of these can be analysed by itself.
    """

    def __init__(self, wanted: Collection[str], language: str = "") -> None:
        super().__init__()
        self._wanted, self._of = frozenset(wanted), analyzer(language)

    def __missing__(self, piece: str) -> tuple[tuple[int, int], ...]:
        places = {(term.start, term.end) for term in self._of.placed_terms(piece) if term.text in self._wanted}
        self[piece] = found = tuple(sorted(places))
        return found

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return where the terms stand in a text, in its order: as terms() says, but faster."""
        pieces = text.split()
        if not (marked := self._of.pieces.with_terms(pieces, self._wanted)):
            return []
        spans, place = [], 0
        for piece in filter(marked.__contains__, pieces):
            place = _place(text, piece, place)
            spans += [(place + start, place + end) for start, end in self[piece]]
            place += len(piece)
        return spans


def _place(text: str, piece: str, after: int) -> int:
    """Return where a piece of a text stands first after a place: between two spaces, not within another piece."""
    while True:
        place = text.index(piece, after)
        after, end = place + 1, place + len(piece)
        if (not place or text[place - 1].isspace()) and (end == len(text) or text[end].isspace()):
            return place


class Pieces:
    """What stood between two spaces in texts so far: term → pieces that have it. For any thread; bounded.

    A query has other terms than the last one, but the texts are the same: so a piece is analysed once, not once a
    query, and to find the few of a text that have the terms takes operations on sets, no loop.
    """

    def __init__(self, terms_of: Callable[[str], Iterable[str]]) -> None:
        self._terms_of = terms_of
        self._known: tuple[set[str], dict[str, set[str]]] = set(), {}

    def with_terms(self, pieces: Iterable[str], wanted: Iterable[str]) -> set[str]:
        """Return which of the pieces have one of the terms."""
        seen, by_term = self._known
        distinct = set(pieces)
        for piece in distinct - seen:
            for term in self._terms_of(piece):
                by_term.setdefault(term, set()).add(piece)
            seen.add(piece)
        if len(seen) > _KNOWN_PIECES:
            self._known = set(), {}
        return set().union(*[by_term[term] & distinct for term in wanted if term in by_term])


def words_of(text: str) -> list[str]:
    """Return the words of a text, as they stand there."""
    return _WORD.findall(text)


def plain_words(text: str) -> list[str]:
    """Return the parts of all words in lower case, not stemmed: what suggestions are found by."""
    return [part[0].lower() for word in words_of(text) for part in _pieces(word)]


@lru_cache
def analyzer(language: str) -> "Analyzer":
    primary = language.partition("-")[0].lower()
    return _of_stemmer(_STEMMERS.get(primary, ""))


@lru_cache
def _of_stemmer(stemmer: str) -> "Analyzer":
    return Analyzer(stemmer)


class Analyzer:
    """The analysis for one stemmer; remembers words."""

    def __init__(self, stemmer: str) -> None:
        builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.raw())
        builder = builder.filter(tantivy.Filter.stemmer(stemmer)) if stemmer else builder
        self._stem = builder.build().analyze
        self.word = lru_cache(_KNOWN_WORDS)(self._word)
        self.placed_terms = lru_cache(_PLACED_PIECES)(lambda piece: tuple(self.terms(piece)))
        self.pieces = Pieces(self._terms_of)

    def terms(self, text: str) -> list[Term]:
        found, position = [], 0
        for match in _WORD.finditer(text):
            word = self.word(match[0])
            found += [Term(whole, position, match.start(), match.end()) for whole in word.wholes]
            spans = [part.span() for part in _pieces(match[0])]
            if len(spans) != len(word.parts):  # parts that have no place of their own
                spans = [(0, len(match[0]))] * len(word.parts)
            found += [
                Term(part, position + number, match.start() + start, match.start() + end)
                for number, (part, (start, end)) in enumerate(zip(word.parts, spans, strict=True))
            ]
            position += len(word.parts)
        return found

    def lines(self, text: str) -> tuple[str, str]:
        """Return the parts of all words, in order, and their wholes, each joined by spaces: what tantivy indexes."""
        words = list(map(self.word, _WORD.findall(text)))
        parts = [part for word in words for part in word.parts]
        return " ".join(parts), " ".join([whole for word in words for whole in word.wholes])

    def _terms_of(self, text: str) -> set[str]:
        return {term for word in _WORD.findall(text) for term in self.word(word).terms}

    def stem(self, word: str) -> str:
        return (self._stem(word) or [word])[0]

    def _word(self, raw: str) -> Word:
        if _PLAIN.fullmatch(raw):
            return Word((self.stem(raw.lower()),) if len(raw) <= MAX_TERM_CHARS else (), ())
        lower = unicodedata.normalize("NFKC", raw).lower()
        pieces = [unicodedata.normalize("NFKC", piece[0]).lower() for piece in _pieces(raw)]
        parts = tuple(self.stem(piece) for piece in pieces if len(piece) <= MAX_TERM_CHARS)
        if not parts:  # an operator
            return Word((lower,), ())
        wholes = [lower] if raw[0] in "-_" or raw[-1] in "+#" else []
        if len(parts) > 1 and not _UNSPACED.search(raw):
            wholes.append(self.stem(_LEFT_OUT.sub("", lower)))
        return Word(parts, tuple(whole for whole in wholes if len(whole) <= MAX_TERM_CHARS and whole not in parts))


def _pieces(word: str) -> Iterator[re.Match[str]]:
    """Yield the parts of a word, where they stand in it."""
    if word.isascii():
        yield from _PART.finditer(word)
        return
    for part in _PART.finditer(word):
        if not _UNSPACED.search(part[0]):
            yield part
            continue
        for run in _RUN.finditer(word, *part.span()):
            yield from _pairs(word, *run.span()) if run[1] else [run]


def _pairs(word: str, start: int, end: int) -> Iterator[re.Match[str]]:
    for first in range(start, max(start + 1, end - 1)):
        yield from filter(None, [_PAIR.match(word, first, end)])
