"""Read what a person typed: words, "quoted phrases", -exclusions, and what kind of query it is.

    text → ParsedQuery    pure

A dash is ambiguous in documentation: `tar -xzf`, `-Wall` and `--help` are flags. `-word` is an exclusion only when it
has one dash and three letters or more, other words are there, and the index does not know it as a name.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

QueryKind = Literal["symbol", "flag", "error_code", "keywords", "question"]

QUESTION_WORDS = 6
"""From this many words on, a text without a question mark is read as a sentence."""

_PIECE = re.compile(r'(?<!\S)(-?)["“”]([^"“”]+)["“”]|(\S+)')
_FLAG = re.compile(r"--?[A-Za-z0-9?@#][\w?.+-]*(?:=\S*)?")
_ERROR_CODE = re.compile(r"[A-Z]{1,8}[-_]?\d{2,6}|E[A-Z]{3,}|ERR_[A-Z0-9_]+|0x[0-9A-Fa-f]{4,}|SQLSTATE\S*")
_SYMBOL = re.compile(
    r"[\w$~]+(?:(?:\.|::|->|#)[\w$~]+)+(?:\(\))?|[\w$.]+\(\)|[A-Za-z$]\w*_\w*|_\w+|[a-z]+[A-Z]\w*|[A-Z][a-z0-9]+[A-Z]\w*|@\w+"
)
_OPENING = re.compile(
    r"(?:how|what|why|when|where|which|who|can|could|does|do|did|is|are|was|were|should|would|will|has|have|may)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedQuery:
    """words: as typed, flags included, without quoted and excluded ones. phrases: all must be there, word after word.

    excluded: words and phrases that must not be there.
    """

    text: str
    words: tuple[str, ...]
    phrases: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    kind: QueryKind = "keywords"


def parse_query(text: str, is_name: Callable[[str], bool] = lambda _: False) -> ParsedQuery:
    """is_name: whether the index knows a symbol or flag of this name (LexicalIndex.is_name)."""
    pieces = list(_PIECE.finditer(text))
    words: list[str] = []
    phrases: list[str] = []
    excluded: list[str] = []
    for piece in pieces:
        dash, phrase, word = piece.groups()
        if phrase is not None:
            (excluded if dash else phrases).append(phrase.strip())
        elif len(pieces) > 1 and _is_exclusion(word) and not is_name(word):
            excluded.append(word[1:])
        else:
            words.append(word)
    phrases = [phrase for phrase in phrases if phrase]
    if not words and not phrases:  # nothing but exclusions: `-Wall -Werror`
        words, excluded = [piece[0] for piece in pieces], []
    return ParsedQuery(
        text=text,
        words=tuple(words),
        phrases=tuple(phrases),
        excluded=tuple(word for word in excluded if word),
        kind=_kind(words, has_phrases=bool(phrases), is_name=is_name),
    )


def _is_exclusion(word: str) -> bool:
    return word[0] == "-" and len(word) > 3 and word[1].isalpha() and "=" not in word


def _kind(words: list[str], *, has_phrases: bool, is_name: Callable[[str], bool]) -> QueryKind:
    if len(words) == 1 and not has_phrases:
        return _kind_of_word(words[0], is_name)
    if words and (_OPENING.match(words[0]) or words[-1][-1] in "?？"):
        return "question"
    return "question" if len(words) >= QUESTION_WORDS else "keywords"


def _kind_of_word(word: str, is_name: Callable[[str], bool]) -> QueryKind:
    if _FLAG.fullmatch(word) and word.startswith("-"):
        return "flag"
    if _ERROR_CODE.fullmatch(word):
        return "error_code"
    return "symbol" if _SYMBOL.fullmatch(word) or is_name(word) else "keywords"
