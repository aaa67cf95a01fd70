"""Show why a passage was found: where the query's words stand in it, and the part around most of them.

text, terms → highlights → excerpt    pure
"""

from bisect import bisect_left
from collections.abc import Sequence

from raydex.lexical.analysis import Marks

EXCERPT_CHARS = 240

Span = tuple[int, int]
"""Characters start:end of a text, half-open."""


def highlights(text: str, marks: Marks) -> tuple[Span, ...]:
    """Return where terms of the query stand, in order, touching ones as one."""
    merged: list[Span] = []
    for span in marks.spans(text):
        if merged and span[0] <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(span[1], merged[-1][1]))
        else:
            merged.append(span)
    return tuple(merged)


def excerpt(text: str, marked: Sequence[Span], chars: int = EXCERPT_CHARS) -> Span:
    """Return the part of at most so many characters that has most of the marked spans, whole words, nearest the top."""
    if len(text) <= chars:
        return 0, len(text)
    ends = [end for _, end in marked]
    count, best, last = 0, 0, 0
    for number, (start, _) in enumerate(marked):
        beyond = bisect_left(ends, start + chars + 1, number)
        if beyond - number > count:
            count, best, last = beyond - number, number, beyond
    first, end = (marked[best][0], ends[last - 1]) if count else (0, 0)
    begin = max(0, min(first - (chars - (end - first)) // 3, len(text) - chars))
    return _whole_words(text, begin, min(len(text), begin + chars))


def _whole_words(text: str, begin: int, end: int) -> Span:
    """Move both ends inwards to where a word begins and ends; a text without spaces is cut where it is."""
    if begin and not text[begin - 1].isspace():
        space = next((place for place in range(begin, min(end, begin + 40)) if text[place].isspace()), begin - 1)
        begin = space + 1
    if end < len(text) and not text[end].isspace():
        end = next((place for place in range(end, max(begin, end - 40), -1) if text[place].isspace()), end)
    return begin, end
