"""Read what is special about manual pages: which commands a page is about, and options that are no definition list.

    Tree → ["tar", …]; (Tree, paragraph) → is it the signature of the indented block below it?    pure

A manual page has a heading NAME among its first, and below it `tar - an archiving utility`. Converters write options as
definition lists where the page has such, else as a paragraph and an indented block.
"""

import re
from collections.abc import Sequence

from raydex.parse.blocks import line_of
from raydex.parse.symbols import Symbol, flags_of
from raydex.parse.tree import Tree

FIRST_HEADINGS = 3
MAX_NAMES = 32
MAX_SIGNATURE_CHARS = 200

_NAMES = re.compile(r"\s*([\w.:@+\[-]+(?:\(\d\w*\))?(?:\s*,\s*[\w.:@+\[-]+(?:\(\d\w*\))?)*)\s+[-–—]+\s+\S")
_SECTION = re.compile(r"\((\d\w*)\)")
_INDENT = re.compile(r"margin-left:\s*(\d+)")
_INDENTED_CLASS = re.compile(r"\bindent|(?:^|\s)Bd-indent")
_SETTINGS = re.compile(r"[A-Z][\w.-]*=(?:\S*)(?:,\s*[A-Z][\w.-]*=\S*)*")
_COMMAND = re.compile(r"([a-z][\w-]*)(?:\s+(?:\[|[A-Z<{|.]).*)?")


def manual_names(tree: Tree, root: int) -> list[str]:
    """Return what a manual page says that it is about, nothing for any other page.

    Of `git-log` the name as it is typed, `git log`, comes along where the page uses it.
    """
    end = tree.partners[root]
    headings = [at for at in tree.headings if root <= at < end]
    for number, at in enumerate(headings[:FIRST_HEADINGS]):
        if "".join(tree.text(at).split()).strip("¶#").upper() == "NAME":
            below = headings[number + 1] if number + 1 < len(headings) else end
            match = _NAMES.match(_words(tree, tree.partners[at], below))
            names = re.split(r"\s*,\s*", match[1])[:MAX_NAMES] if match else []
            return _as_typed([_SECTION.sub("", name) for name in names], _words(tree, root, end))
    return []


def _words(tree: Tree, first: int, last: int) -> str:
    return " ".join(" ".join(tree.texts[first:last]).split())


def _as_typed(names: list[str], text: str) -> list[str]:
    if (plain := names[0].lower()) != names[0] and re.search(rf"(?<![\w-]){re.escape(plain)}(?![\w-])", text):
        names = [plain, *names[1:]]  # "Wget - The non-interactive network downloader."
    typed = [name.replace("-", " ", 1) for name in names[:1] if "-" in name]
    return names + [name for name in typed if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]


def name_section(names: Sequence[str], text: str) -> Symbol:
    """Name the section NAME, which is where a page of the manual is found by its name."""
    return Symbol(names[0], text, aliases=tuple(names[1:]))


def command_of(names: Sequence[str]) -> str:
    """Return what stands before the options of a command as people type it."""
    return names[-1] if len(names) > 1 and names[-1] == names[0].replace("-", " ", 1) else names[0] if names else ""


def paragraph_symbol(tree: Tree, at: int, command: str) -> Symbol | None:
    """Name a paragraph that is the signature of the indented block right below it; None for any other one.

    command: of the manual page, "" elsewhere; there only options are looked for.
    """
    if not _stands_before_a_description(tree, at) or len(text := line_of(tree, at)) > MAX_SIGNATURE_CHARS:
        return None
    if flags := flags_of(text):
        program = [f"{command} {flag}" for flag in flags] if command else []
        return Symbol(flags[0], text, aliases=(*flags[1:], *program))
    if not command:
        return None
    if _SETTINGS.fullmatch(text):
        settings = re.findall(r"([A-Z][\w.-]*)=", text)
        return Symbol(settings[0], text, aliases=tuple(settings[1:]))
    if match := _COMMAND.fullmatch(text):
        return Symbol(match[1], text, aliases=(f"{command} {match[1]}",))
    return None


def _stands_before_a_description(tree: Tree, at: int) -> bool:
    below = tree.next(at)
    if below < 0:
        return False
    if tree.names[below] == "dl":  # man2html
        return below + 2 < len(tree) and tree.names[below + 1] == "dt" and not tree.text(below + 1).strip()
    if tree.names[below] == "div":  # mandoc
        return _INDENTED_CLASS.search(tree.get(below, "class")) is not None
    own, other = (_INDENT.search(tree.get(found, "style")) for found in (at, below))  # groff
    return tree.names[below] == "p" and own is not None and other is not None and int(own[1]) < int(other[1])
