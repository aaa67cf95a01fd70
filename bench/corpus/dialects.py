"""One corpus, many Markdowns: blocks → the dialect of a generator.

Dialect(…).write(blocks) → text    pure
"""

import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.corpus.pages import Block, Entry, linked

CLASS = "Desk"
"""What holds the calls that are methods, where a generator has such."""

_MATH = re.compile(r"(\$\$?)((?:[^$`]|\n)+?)\1(?!\d)")


def signature(entry: Entry) -> str:
    return f"{entry.term}({', '.join(entry.parameters)})"


def colon_list(entries: Iterable[Entry]) -> str:
    """Definition lists as Markdown Extra, Pandoc and MyST know them; calls keep their backticks."""
    return "\n\n".join(f"{_term(entry)}\n:   {entry.text}" for entry in entries)


def bullets(entries: Iterable[Entry]) -> str:
    """For dialects without definition lists."""
    return "\n".join(f"- **{_term(entry)}**: {entry.text}" for entry in entries)


def directive(kind: str, body: str) -> str:
    return f"```{{{kind}}}\n{body}\n```"


def exclaimed(kind: str, body: str) -> str:
    return f"!!! {kind}\n\n{textwrap.indent(body, '    ')}"


def colons(kind: str, body: str) -> str:
    return f":::{kind}\n\n{body}\n\n:::"


def container(kind: str, body: str) -> str:
    return f"::: {'info' if kind == 'note' else kind}\n{body}\n:::"


def alert(kind: str, body: str) -> str:
    return f"> [!{kind.upper()}]\n{textwrap.indent(body, '> ')}"


def quoted(kind: str, body: str) -> str:
    return textwrap.indent(body, "> ")


def fenced_div(kind: str, body: str) -> str:
    return f"::: {kind}\n{body}\n:::"


def python_directives(entries: Iterable[Entry]) -> str:
    """The first call as a function, the others as methods of a class."""
    function, *methods = entries
    inside = "\n\n".join(f"```{{py:method}} {signature(entry)}\n{entry.text}\n```" for entry in methods)
    outside = f"```{{py:function}} {signature(function)}\n{function.text}\n```"
    return f"{outside}\n\n````{{py:class}} {CLASS}\n{inside}\n````"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a generator wants what CommonMark has no word for. link: the form of a link to another page.

    math: opening and closing of inline formulas, then of displayed ones; None leaves the dollars.
    """

    admonition: Callable[[str, str], str]
    definitions: Callable[[Iterable[Entry]], str] = colon_list
    calls: Callable[[Iterable[Entry]], str] = colon_list
    link: str = "{}.md"
    math: tuple[str, str, str, str] | None = None

    def write(self, blocks: Iterable[Block]) -> str:
        return linked("\n\n".join(map(self._block, blocks)), self.link) + "\n"

    def _block(self, block: Block) -> str:
        match block.kind:
            case "heading":
                return f"{'#' * int(block.name)} {block.text}"
            case "code":
                return f"```{block.name}\n{block.text}\n```"
            case "admonition":
                return self.admonition(block.name, self._formulas(block.text))
            case "definitions":
                return self.definitions(block.entries)
            case "calls":
                return self.calls(block.entries)
            case "text":
                return self._formulas(block.text)

    def _formulas(self, text: str) -> str:
        if self.math is None:
            return text
        marks = self.math
        return _MATH.sub(
            lambda found: "".join(
                (marks[2], found[2], marks[3]) if found[1] == "$$" else (marks[0], found[2], marks[1])
            ),
            text,
        )


def _term(entry: Entry) -> str:
    return f"`{signature(entry)}`" if entry.parameters else entry.term
