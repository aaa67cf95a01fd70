"""Read the parts of a page that are more than running text: lines, code, formulas, tables that are layout, targets.

(tree, element) → text, language, anchor, …    pure
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote

from raydex.parse.tree import HEADINGS, Tree
from utils.html_text import BLOCKS

_CONTROLS = frozenset({"button", "input", "select"})
MAX_TARGETS = 8  # right before one element
MAX_DIGITS = 6  # of the number of a line
_LANGUAGE = re.compile(r"(?:^|\s)(?:language|lang|highlight-source|highlight|brush)[-:]\s?([A-Za-z][\w+#.-]*)")
_NO_LANGUAGE = frozenset({"default", "none", "plain", "plaintext", "text", "source", "txt", "notranslate"})
# fmt: off
_LANGUAGES = frozenset({
    "bash", "c", "cmake", "console", "cpp", "csharp", "css", "diff", "dockerfile", "go", "haskell", "html", "http",
    "ini", "java", "javascript", "js", "json", "jsx", "julia", "kotlin", "lua", "makefile", "nginx", "ocaml", "perl",
    "php", "powershell", "python", "r", "ruby", "rust", "scala", "sh", "shell", "sql", "swift", "toml", "ts", "tsx",
    "typescript", "xml", "yaml", "zig",
})
# fmt: on
"""Names that are languages where they stand alone in the class of a block of code."""
_LAYOUT_ONLY = HEADINGS | {"table", "pre", "dl", "form", "blockquote", "section", "article"}
"""What a row of data does not hold; a table that does is a box to its author."""


def text_of(tree: Tree, index: int, *, has_lines: bool = False) -> str:
    """Return the text of an element without permalinks, line numbers and the like.

    has_lines: blocks inside are lines, as some highlighters write code.
    """
    names, texts, roles, partners = tree.names, tree.texts, tree.roles, tree.partners
    parts = [texts[index] or "\n"]
    at, end = index + 1, partners[index]
    while at < end:
        name = names[at] or names[partners[at]]
        if names[at] and (roles[at] in {"hidden", "boilerplate"} or (name == "a" and is_ornament(tree, at))):
            at = partners[at]
        elif name == "br":
            parts.append("\n")
        elif name == "img":
            parts.append(tree.get(at, "alt"))
        elif name in BLOCKS and not (has_lines and parts[-1].endswith("\n")):
            parts.append("\n" if has_lines else " ")
        is_gap = has_lines and not names[at] and name in BLOCKS and texts[at].isspace()  # between two lines
        if texts[at] and not is_gap:
            parts.append(texts[at])
        at += 1
    return "".join(parts)


def line_of(tree: Tree, index: int) -> str:
    return " ".join(text_of(tree, index).split())


def signature_of(tree: Tree, term: int) -> str:
    """Return the line of a `dt`; a permalink that is the beginning of its words (mandoc) belongs to it."""
    link = next(tree.children(term), -1)
    is_first = link > 0 and tree.names[link] == "a" and ' href="#' in tree.raws[link] and not tree.texts[term].strip()
    line = "" if is_first and any(map(str.isalnum, tree.text(link))) else line_of(tree, term)
    return line or " ".join(tree.text(term).split())


def is_ornament(tree: Tree, link: int) -> bool:
    """Tell whether a link is a permalink without a word: ¶, #, §, an icon."""
    return ' href="#' in tree.raws[link] and not any(map(str.isalnum, tree.text(link)))


def is_line_numbers(code: str) -> bool:
    numbers = code.split()
    if len(numbers) < 2 or not numbers[0].isdecimal() or len(numbers[0]) > MAX_DIGITS:
        return False
    first = int(numbers[0])
    return numbers == [str(number) for number in range(first, first + len(numbers))]


def language_of(tree: Tree, pre: int, around: Sequence[int]) -> str:
    """around: the blocks that hold the code, innermost last."""
    code = next((at for at in tree.descendants(pre) if tree.names[at] == "code"), pre)
    places = [pre, code, *reversed(around[-8:])]
    for place in places:
        classes = tree.get(place, "class")
        found = _LANGUAGE.search(classes)
        if found and found[1] not in _NO_LANGUAGE:
            return found[1]
    for place in places[:4]:
        if language := tree.get(place, "data-language") or tree.get(place, "data-lang"):
            return language
    words = f"{tree.get(pre, 'class')} {tree.get(code, 'class')}".lower().split()
    return next((word for word in words if word in _LANGUAGES), "")


def is_layout_table(tree: Tree, table: int) -> bool:
    if tree.get(table, "role") in {"presentation", "none"}:
        return True
    return any(tree.names[at] in _LAYOUT_ONLY for at in tree.descendants(table))


def formula_of(tree: Tree, math: int) -> str:
    """Return a formula as TeX where the page has its source, else as its author's alternative, else as its letters."""
    for at in tree.descendants(math):
        if tree.names[at] == "annotation" and "tex" in tree.get(at, "encoding").lower():
            return f"${' '.join(tree.text(at).split())}$"
    return tree.get(math, "alttext") or "".join(tree.text(math).split())


def anchor_of(tree: Tree, index: int) -> str:
    return tree.get(index, "id") or (tree.get(index, "name") if tree.names[index] == "a" else "")


def inner_anchor(tree: Tree, index: int) -> str:
    """Return the first target inside an element."""
    anchors = (anchor_of(tree, at) for at in tree.descendants(index) if tree.names[at] not in _CONTROLS)
    return next(filter(None, anchors), "")


def permalink_of(tree: Tree, index: int) -> str:
    """Return where the first link inside an element leads on the page."""
    for link in tree.links_in(index):
        if (href := tree.get(link, "href")).startswith("#"):
            return unquote(href[1:])
    return ""


def stands_before_heading(tree: Tree, target: int) -> bool:
    """Tell whether an element is one of the targets right before a heading."""
    after = tree.next(target)
    while after > 0 and tree.names[after] == "span" and not tree.text(after).strip():
        after = tree.next(after)
    return after > 0 and tree.names[after] in HEADINGS


def target_before(tree: Tree, index: int) -> str:
    """Return the target in the empty element right before an element, rules aside."""
    return next(iter(targets_before(tree, index)), "")


def targets_before(tree: Tree, index: int) -> list[str]:
    """Return the targets in the empty elements right before an element, rules aside, the nearest first.

    Where the nearest has none, no further one is looked at.
    """
    targets: list[str] = []
    before = tree.previous(index)
    while before > 0 and len(targets) < MAX_TARGETS:
        if tree.names[before] != "hr":
            if tree.names[before] not in {"a", "span", "p"} or tree.text(before).strip():
                break
            if not (target := anchor_of(tree, before) or inner_anchor(tree, before)):
                break
            targets.append(target)
        before = tree.previous(before)
    return targets
