"""The corpus as written: Markdown pages cut into blocks, and what a reader must find of them.

    source/*.md → [SourcePage, …] → Expected    pure

The dialect is small, so that a few lines translate it for any generator: CommonMark with pipe tables and `$` math,
`::: note` … `:::` admonitions, and definition lists (`term`, then `:   text`). Entries whose term is a call in
backticks, `` `name(a, b)` ``, are the API of the page.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Literal

from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

SOURCE = Path(__file__).parent / "source"
IMAGE = SOURCE / "harbour.svg"

_CALL = re.compile(r"`(\w+)\(([^)]*)\)`")
_LINK = re.compile(r"\]\(([\w-]+)\.md\)")
_TABLE_ROW = re.compile(r"^\|.*$", re.MULTILINE)
_TEX_COMMAND = re.compile(r"\\[A-Za-z]+")
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200d\u2060\ufeff]")
_WORD = re.compile(r"[^\W_]+")
_MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)

Kind = Literal["heading", "code", "admonition", "definitions", "calls", "text"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A term and its definition, or a call: then `term` is its name and `parameters` are its own."""

    term: str
    text: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a page. name: level of a heading, language of code, kind of an admonition. text: Markdown, or code."""

    kind: Kind
    text: str = ""
    name: str = ""
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class SourcePage:
    name: str
    blocks: tuple[Block, ...]

    @property
    def title(self) -> str:
        return self.blocks[0].text

    @property
    def identifier(self) -> str:
        return self.name.replace("-", "_")

    @property
    def prose(self) -> tuple[Block, ...]:
        return tuple(block for block in self.blocks if block.kind != "calls")

    @property
    def calls(self) -> tuple[Entry, ...]:
        return tuple(entry for block in self.blocks if block.kind == "calls" for entry in block.entries)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a rendered page must give. path: below the site; headings and symbols: as plain text, in page order.

    allowed: words that a reader may find as well, such as the numbers of lists and the names of admonitions.
    """

    path: str
    words: Counter[str]
    allowed: frozenset[str]
    headings: tuple[str, ...]
    symbols: tuple[str, ...]
    code: tuple[tuple[str, str], ...]  # language, text
    rows: tuple[str, ...]  # of tables, as words


def read_corpus() -> list[SourcePage]:
    return [SourcePage(path.stem, tuple(_blocks(path.read_text()))) for path in sorted(SOURCE.glob("*.md"))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a generator keeps of the corpus. levels: deepest level of headings that are headings on its pages.

    symbols: whether calls get an address; math: whether formulas reach the page as TeX; tables: whether as text.
    """

    levels: int = 6
    symbols: bool = False
    math: bool = True
    tables: bool = True


EVERYTHING = Output()


def expect(path: str, blocks: Iterable[Block], output: Output, *, also: str = "") -> Expected:
    """Return what a page made of the blocks must give. also: further text that the generator was given."""
    blocks = tuple(blocks)
    words = Counter(words_of(also))
    allowed: set[str] = set()
    for block in blocks:
        words.update(words_of(plain_text(block, output)))
        allowed.update(words_of(f"{block.name} {block.text}"))
    return Expected(
        path=path,
        words=words,
        allowed=frozenset(allowed.union(words)),
        headings=tuple(
            plain_text(block) for block in blocks if block.kind == "heading" and int(block.name) <= output.levels
        ),
        symbols=tuple(e.term for block in blocks if block.kind == "calls" for e in block.entries if output.symbols),
        code=tuple((block.name, block.text) for block in blocks if block.kind == "code"),
        rows=tuple(row for block in blocks if block.kind == "text" and output.tables for row in _rows(block.text)),
    )


def words_of(text: str) -> list[str]:
    """Return the runs of letters and digits, case folded; soft hyphens and zero-width characters do not part them."""
    return _WORD.findall(_INVISIBLE.sub("", unicodedata.normalize("NFC", text)).casefold())


def plain_text(block: Block, output: Output = EVERYTHING) -> str:
    if block.kind == "code":
        return block.text
    parse = _MARKDOWN.parseInline if block.kind == "heading" else _MARKDOWN.parse
    text = block.text if output.tables else _TABLE_ROW.sub("", block.text)
    parts = [" ".join(_visible(parse(text), math=output.math))]
    for entry in block.entries:
        parts += [entry.term, *entry.parameters, *_visible(_MARKDOWN.parse(entry.text), math=output.math)]
    return " ".join(parts)


def _rows(text: str) -> Iterator[str]:
    """Yield the rows of the tables in a text, without the line below the head, as words."""
    tokens = iter(_MARKDOWN.parse(text))
    for token in tokens:
        if token.type == "tr_open":
            cells = takewhile(lambda inner: inner.type != "tr_close", tokens)
            yield " ".join(words_of(" ".join(_visible(list(cells), math=True))))


def linked(text: str, form: str) -> str:
    """Rewrite links between pages; form holds `{}` for the page's name."""
    return _LINK.sub(lambda match: f"]({form.format(match[1])})", text)


def _visible(tokens: Sequence[Token], *, math: bool) -> Iterator[str]:
    for token in tokens:
        if token.type.startswith("math"):
            yield _TEX_COMMAND.sub(" ", token.content) if math else ""
        elif token.type in {"text", "code_inline", "fence"}:
            yield token.content
        elif token.children:
            yield "".join(_visible(token.children, math=math))
        elif token.type == "softbreak":
            yield " "


def _blocks(markdown: str) -> Iterator[Block]:
    lines = markdown.split("\n")
    text: list[str] = []
    position = 0
    while position < len(lines):
        end, block = _special(lines, position)
        if block is None:
            text.append(lines[position])
        else:
            yield from _text_block(text)
            text = []
            yield block
        position = end
    yield from _text_block(text)


def _text_block(lines: list[str]) -> Iterator[Block]:
    if text := "\n".join(lines).strip("\n"):
        yield Block("text", text)


def _special(lines: list[str], start: int) -> tuple[int, Block | None]:
    """Return the block other than text that begins at a line, and the line after it."""
    line = lines[start]
    if heading := re.fullmatch(r"(#+) (.+)", line):
        return start + 1, Block("heading", heading[2], str(len(heading[1])))
    for mark, kind in (("```", "code"), (":::", "admonition")):
        if line.startswith(mark):
            end = lines.index(mark, start + 1)
            inside = "\n".join(lines[start + 1 : end])
            return end + 1, Block("code" if kind == "code" else "admonition", inside, line[len(mark) :].strip())
    if start + 1 < len(lines) and lines[start + 1].startswith(":   "):
        return _definitions(lines, start)
    return start + 1, None


def _definitions(lines: list[str], start: int) -> tuple[int, Block]:
    entries: list[Entry] = []
    while start + 1 < len(lines) and lines[start + 1].startswith(":   "):
        text = lines[start + 1][4:]
        call = _CALL.fullmatch(lines[start])
        entries.append(Entry(call[1], text, tuple(call[2].split(", "))) if call else Entry(lines[start], text))
        start += 3
    return start - 1, Block("calls" if entries[0].parameters else "definitions", entries=tuple(entries))
