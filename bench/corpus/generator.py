"""What a generator of documentation is to the corpus: how to render with it, and what its pages must give."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.corpus.pages import EVERYTHING, Block, Entry, Expected, Output, SourcePage, expect
from bench.corpus.workshop import Workshop, require

Pages = Sequence[SourcePage]

SYMBOLS = Output(symbols=True)
PANDOC_MARKDOWN = "markdown-implicit_figures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """How to render the corpus with one generator, and what its pages must give.

    headings, symbols: CSS of the elements that show them. anchors, symbol_anchors: where their own ids stand: `self`,
    `section` (the block around it), `inside` and `before`. keeps_language, keeps_blank_lines: of
    code blocks.
    """

    name: str
    render: Callable[[Pages, Workshop], None]
    expected: Callable[[SourcePage], list[Expected]]
    headings: str
    anchors: tuple[str, ...] = ("self",)
    symbols: str = ""
    symbol_anchors: tuple[str, ...] = ("self",)
    keeps_language: bool = True
    keeps_blank_lines: bool = True


def css_headings(content: str) -> str:
    return ", ".join(f"{content} h{level}" for level in range(1, 7))


def one(path: str, page: SourcePage, output: Output = EVERYTHING) -> list[Expected]:
    """Expect all of a page at one address; path holds `{}` for its name."""
    return [expect(path.format(page.name), page.blocks, output)]


def documented(calls: Iterable[Entry]) -> tuple[Block, ...]:
    """Return the calls without parameters, which each language writes its own way."""
    return (Block("calls", entries=tuple(replace(call, parameters=()) for call in calls)),)


def pandoc(shop: Workshop, page: SourcePage, markdown: str, *options: str) -> str:
    """Return what Pandoc makes of a page's Markdown."""
    source = shop.write(f"{page.name}.md", markdown)
    command: tuple[str | Path, ...] = (
        require("pandoc", "Debian's pandoc"),
        "--from",
        PANDOC_MARKDOWN,
        *options,
        source,
    )
    return shop.run(*command).decode()
