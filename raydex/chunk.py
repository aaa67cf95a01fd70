"""Cut sections into chunks that the embedder can read whole.

    Section → [Chunk, …]    pure, deterministic, no I/O

A chunk never crosses a section border and never splits a code block that fits. Its text is a slice of the section's
text; its heading path travels beside it, so that the embedder reads "shutil › shutil.copy" before the passage.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from raydex.config import ChunkConfig
from raydex.records import Chunk, Section, embedder_input, stable_id

PATH_SEPARATOR = " › "
CONTEXT_SHARE = 4  # the heading path takes at most one fourth of the limit
TAIL_SHARE = 8  # a last chunk below one eighth of the budget shares with the one before

_OPENING_FENCE = re.compile(r"(`{3,})[^`\n]*\n")
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n+|\Z")
_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[^\sa-z])|(?<=[。！？])|\n+")
_BETWEEN = (
    " \n\t\r"  # of all that Python calls space, what every tokenizer does: BERT's drops some as control characters
)
_LINE_END = re.compile(r"\n")


class Tokenizer(Protocol):
    """What chunking must know of a model. encode: ids, and the characters each token covers, special tokens left out.

    is_wordwise: no token depends on what stands beyond white space, so the tokens of parts add up.
    """

    @property
    def max_tokens(self) -> int: ...
    @property
    def special_tokens(self) -> int: ...
    @property
    def is_wordwise(self) -> bool: ...
    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]: ...
    def with_special(self, ids: Sequence[int]) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class _Piece:
    """Characters start:end of a section, not to be split; no white space at its ends."""

    start: int
    end: int
    is_code: bool


def cut(section: Section, tokenizer: Tokenizer, config: ChunkConfig) -> list[Chunk]:
    """Return the chunks of a section in the order of its text.

    Every character but white space lies in a chunk. token_count is counted on what the embedder reads and is at most
    config.max_tokens and the model's limit. Neighbours share up to config.overlap_tokens of whole sentences or
    paragraphs, never code.
    """
    limit = min(config.max_tokens, tokenizer.max_tokens)
    context, context_ids = _context(section, tokenizer, limit // CONTEXT_SHARE)
    budget = max(1, limit - tokenizer.special_tokens - len(context_ids))
    ruler = _Ruler(section.text, tokenizer)
    pieces = [piece for block in _blocks(section.text) for piece in _split(block, ruler, budget)]
    chunks: list[Chunk] = []
    spans = list(reversed(_pack(pieces, ruler, budget=budget, overlap=config.overlap_tokens)))
    while spans:
        start, end = spans.pop()
        if tokenizer.is_wordwise and ruler.is_between_words(start, end):  # saves half of the time: all is encoded once
            ids = [*context_ids, *ruler.ids(start, end)]
        else:
            ids, _ = tokenizer.encode(embedder_input(context, section.text[start:end]))
        if len(ids) + tokenizer.special_tokens <= limit or end - start == 1:
            chunks.append(_chunk(section, context, start, end, tokenizer.with_special(ids)))
        else:  # this tokenizer counts a slice higher than its share of the whole
            middle = ruler.middle(start, end)
            spans += [ruler.stripped(middle, end), ruler.stripped(start, middle)]
    return chunks


def _chunk(section: Section, context: str, start: int, end: int, token_ids: Sequence[int]) -> Chunk:
    text = section.text[start:end]
    return Chunk(
        chunk_id=stable_id(section.section_id, start, end, text),
        section_id=section.section_id,
        page_id=section.page_id,
        url=section.url,
        title=section.title,
        headings=section.headings,
        context=context,
        text=text,
        char_start=start,
        char_end=end,
        token_count=len(token_ids),
        token_ids=tuple(token_ids),
    )


def _context(section: Section, tokenizer: Tokenizer, quota: int) -> tuple[str, list[int]]:
    """Return the title and heading path, shortened from the outermost side to at most quota tokens, and their ids."""
    path = [section.title, *section.headings]
    names = [name for above, name in zip(["", *path], path, strict=False) if name != above]
    context = PATH_SEPARATOR.join(names)
    ids, offsets = tokenizer.encode(context)
    while len(ids) > quota:
        del names[:1]
        context = PATH_SEPARATOR.join(names) or context[max(offsets[-quota][0], 1) :].lstrip()
        ids, offsets = tokenizer.encode(context)
    return context, ids


class _Ruler:
    """Measures parts of a text in tokens; the text is encoded once."""

    def __init__(self, text: str, tokenizer: Tokenizer) -> None:
        self.text = text
        self._ids, offsets = tokenizer.encode(text)
        self._starts = [start for start, _ in offsets]

    def tokens(self, start: int, end: int) -> int:
        return bisect_left(self._starts, end) - bisect_left(self._starts, start)

    def ids(self, start: int, end: int) -> list[int]:
        return self._ids[bisect_left(self._starts, start) : bisect_left(self._starts, end)]

    def is_between_words(self, start: int, end: int) -> bool:
        text = self.text
        return (start == 0 or text[start - 1] in _BETWEEN) and (end == len(text) or text[end] in _BETWEEN)

    def stripped(self, start: int, end: int) -> tuple[int, int]:
        part = self.text[start:end]
        return start + len(part) - len(part.lstrip()), end - (len(part) - len(part.rstrip()))

    def middle(self, start: int, end: int) -> int:
        """Return a place strictly inside the part, where a token starts if one does."""
        first, last = bisect_left(self._starts, start + 1), bisect_left(self._starts, end)
        return self._starts[(first + last) // 2] if first < last else (start + end) // 2

    def runs(self, start: int, end: int, budget: int) -> Iterator[tuple[int, int]]:
        """Yield consecutive parts of at most budget tokens, ending between words where the last half allows."""
        while self.tokens(start, end) > budget:
            first = bisect_left(self._starts, start)
            places = self._starts[first + max(1, budget // 2) : first + budget + 1]
            stop = next((place for place in reversed(places) if self.text[place - 1].isspace()), places[-1])
            yield start, stop
            start = stop
        yield start, end


def _blocks(text: str) -> Iterator[_Piece]:
    """Yield paragraphs and whole fenced code blocks; a fence that nothing closes begins a paragraph."""
    position = 0
    unclosed: set[str] = set()
    while position < len(text):
        opening = _OPENING_FENCE.match(text, position)
        closing = None
        if opening and opening[1] not in unclosed:
            closing = re.compile(rf"^{opening[1]}$\n*", re.MULTILINE).search(text, opening.end())
            if closing is None:
                unclosed.add(opening[1])
        ending = closing or _PARAGRAPH_END.search(text, position)
        start, position = position, ending.end() if ending else len(text)
        yield _Piece(start, position, is_code=closing is not None)


def _split(block: _Piece, ruler: _Ruler, budget: int) -> Iterator[_Piece]:
    """Yield the block if it fits, else its lines of code or its sentences, cut between words where they do not fit."""
    start, end = ruler.stripped(block.start, block.end)
    if ruler.tokens(start, end) <= budget:
        parts: Iterable[tuple[int, int]] = [(start, end)]
    else:
        ends = [
            match.end() for match in (_LINE_END if block.is_code else _SENTENCE_END).finditer(ruler.text, start, end)
        ]
        parts = zip([start, *ends], [*ends, end], strict=True)
    for part in parts:
        for run in ruler.runs(*part, budget):
            first, last = ruler.stripped(*run)
            if first < last:
                yield _Piece(first, last, block.is_code)


def _pack(pieces: list[_Piece], ruler: _Ruler, *, budget: int, overlap: int) -> list[tuple[int, int]]:
    """Return the characters of each chunk: as many pieces as fit, led by the last few of the chunk before."""

    def size(first: int, stop: int) -> int:
        return ruler.tokens(pieces[first].start, pieces[stop - 1].end)

    def lead(first: int, stop: int, lowest: int) -> int:
        """Return the first piece of the overlap; lowest: first of the chunk before, which is never repeated whole."""
        begin = first
        while (
            begin - 1 > lowest
            and not pieces[begin - 1].is_code
            and size(begin - 1, first) <= overlap
            and size(begin - 1, stop) <= budget
        ):
            begin -= 1
        return begin

    parts: list[tuple[int, int]] = []  # pieces of each chunk, the overlap included
    first = 0
    while first < len(pieces):
        begin = lead(first, first + 1, parts[-1][0]) if parts else 0
        stop = first + 1
        while stop < len(pieces) and size(begin, stop + 1) <= budget:
            stop += 1
        parts.append((begin, stop))
        first = stop
    if len(parts) > 1 and size(parts[-2][1], len(pieces)) < budget // TAIL_SHARE:
        begin, border, stop = *parts[-2], len(pieces)
        fitting = [first for first in range(begin + 1, border + 1) if size(first, stop) <= budget]
        first = min(fitting, key=lambda first: abs(size(begin, first) - size(first, stop)))
        parts[-2:] = [(begin, first), (lead(first, stop, begin), stop)]
    return [(pieces[begin].start, pieces[stop - 1].end) for begin, stop in parts]
