"""Read the main content of a page into an outline of sections.

    Tree → Reader.read() → [Draft, …]    pure, no I/O

One pass over the tokens, no recursion: nesting has no limit and the cost is linear in the page.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from raydex.parse.blocks import (
    anchor_of,
    formula_of,
    inner_anchor,
    is_layout_table,
    is_line_numbers,
    is_ornament,
    language_of,
    line_of,
    permalink_of,
    signature_of,
    stands_before_heading,
    target_before,
    targets_before,
    text_of,
)
from raydex.parse.content import GROUPS, NAVIGATION_LINKS, SECTIONING, Surroundings
from raydex.parse.manual import name_section, paragraph_symbol
from raydex.parse.outline import BLOCK_LEVEL, Draft, Outline
from raydex.parse.symbols import (
    IDENTIFIER,
    Symbol,
    flags_of,
    is_error_code,
    is_mangled,
    is_target_of,
    last_part,
    module_of,
    of_block,
    of_entry,
    of_heading,
)
from raydex.parse.tree import HEADINGS, Tree
from utils.html_text import BLOCKS, TextReducer

WRAPPERS = frozenset({"section", "div", "article", "header", "hgroup"})
WRAPPER_LEVELS = 4  # DocBook puts three blocks between a section and its title
PERMALINK_WINDOW = 6  # children; pdoc puts the permalink after an optional input and the signature
MAX_SAMPLES, MAX_SAMPLE_CHARS, MIN_SAMPLE_WORDS = 3, 200, 3
BOX_TITLE_LETTERS = 120

_FENCE = re.compile(r"^`{3,}", re.MULTILINE)
_TITLE_CLASS = re.compile(r"(?:admonition|custom-block|alert|callout)\w*[-_]?(?:title|heading)", re.IGNORECASE)
# fmt: off
_ADMONITIONS = frozenset({
    "admonition", "admonitionblock", "alert", "attention", "callout", "caution", "danger", "error", "hint", "important",
    "info", "markdown-alert", "note", "seealso", "tip", "todo", "warn", "warning",
})
# fmt: on
_BLANK_LINE = re.compile(r"^[ \t]+$", re.MULTILINE)
_MAIN_ID = re.compile(r"(?:(?:main|doc|page|body|article|content|container|wrapper)[-_]?)+", re.IGNORECASE)
_FILE_NAME = re.compile(r"\.(?:png|gif|jpe?g|svg|webp)$|^(?:logo|icon|image)$", re.IGNORECASE)
_SIGNATURE_CLASS = re.compile(r"signature|memitem|memproto|\bsig\b")


@dataclass(slots=True)
class _Entries:
    """A definition list being read: where its entries begin in the outline, and the state of the current one."""

    depth: int
    is_symbol: bool = False
    is_defined: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a page is about. symbol: that it documents. manual: names of a manual page. heading: the first, else -1."""

    title: str
    symbol: str
    manual: tuple[str, ...]
    heading: int


class Reader:
    """Reads an element into an outline, leaving out what surrounds the text.

    is_lenient: only hidden text is left out.
    """

    def __init__(self, tree: Tree, root: int, about: Subject, *, is_lenient: bool) -> None:
        self.hidden_words = 0
        self.dropped_words = 0
        self.samples: list[str] = []
        self.has_dropped_navigation = False
        self._tree = tree
        self.root = root
        self._is_lenient = is_lenient
        self._page = about.symbol
        self._manual = about.manual
        self._outline = Outline(about.title)
        self._first_heading = about.heading
        self._surroundings = Surroundings(tree, root, about.heading)
        self._entries: list[_Entries] = []
        self._around: list[int] = []  # open blocks
        self._tables: list[bool] = []  # open tables; True: layout
        self._claimed = {root}  # wrappers whose id belongs to a heading already
        self._kept = _enclosing(tree, about.heading)
        self._closers: dict[int, Callable[[], None]] = {}
        self._handlers: dict[str, Callable[[int], bool]] = {
            **dict.fromkeys(BLOCKS, self._block),
            **dict.fromkeys(HEADINGS, self._heading),
            "pre": self._pre,
            "dt": self._term,
            "td": self._cell,
            "th": self._cell,
            "table": self._table,
            "a": self._link,
            "br": self._break,
            "img": self._image,
            "math": self._math,
            "label": self._label,
            "span": self._span,
        }

    def read(self) -> list[Draft]:
        """Read the element once."""
        names, texts, partners = self._tree.names, self._tree.texts, self._tree.partners
        at, end = self.root, partners[self.root]
        while at < end:
            if name := names[at]:
                if self._enter(at, name):
                    at = partners[at]
            else:
                self._leave(at)
            if (text := texts[at]) and at < end:
                self._outline.reducer.data(text)
            at += 1
        if not self._is_lenient:
            self._drop_lists_of_links()
        return self._outline.drafts

    def _drop_lists_of_links(self) -> None:
        for draft in self._outline.drafts:
            if draft.level and draft.links >= NAVIGATION_LINKS and draft.is_navigation(text := draft.reducer.text()):
                self.dropped_words += len(text.split())
                self.has_dropped_navigation = True
                draft.reducer = TextReducer()

    def _enter(self, at: int, name: str) -> bool:
        """Begin an element. True: it is done with, with all it holds."""
        role = self._tree.roles[at]
        if role == "hidden":
            return self._drop(at, is_hidden=True)
        if role == "boilerplate" and not self._is_lenient and at not in self._kept:
            return self._drop(at)
        handler = self._handlers.get(name)
        return handler(at) if handler else False

    def _leave(self, at: int) -> None:
        begun = self._tree.partners[at]
        if closer := self._closers.pop(at, None):
            closer()
        elif self._around and self._around[-1] == begun:
            self._around.pop()
            self._outline.reducer.end_block(self._tree.names[begun])

    def _drop(self, at: int, *, is_hidden: bool = False) -> bool:
        words = self._tree.words_of(at)
        self.dropped_words += words
        if is_hidden:
            self.hidden_words += words
        if words >= MIN_SAMPLE_WORDS and len(self.samples) < MAX_SAMPLES:
            self.samples.append(" ".join(" ".join(self._pieces(at)).split())[:MAX_SAMPLE_CHARS])
        return True

    def _pieces(self, at: int) -> list[str]:
        return self._tree.texts[at : self._tree.partners[at]]

    def _block(self, at: int) -> bool:
        tree, name = self._tree, self._tree.names[at]
        if not self._is_lenient and at not in self._kept and self._is_left_out(at, name):
            self.has_dropped_navigation = self.has_dropped_navigation or bool(tree.links_of(at)[0])
            return self._drop(at)
        if name == "div" and tree.raws[at + 1 : at + 2] == [' class="line"']:
            return self._code(at)
        if name == "p" and (found := paragraph_symbol(tree, at, self._page if self._manual else "")):
            self._outline.open(BLOCK_LEVEL, anchor_of(tree, at), found)
            return True
        raw = tree.raws[at]
        if raw and name in {"section", "div"} and ' id="' in raw and self._is_symbol(at):
            return self._begin_symbol(at)
        self._begin(at, name)
        if name == "dl":
            self._entries.append(_Entries(self._outline.depth))
            self._closers[tree.partners[at]] = self._end_list
        elif name == "dd" and self._entries:
            self._begin_definition(self._entries[-1])
        elif name == "summary" and self._surroundings.covers_summary(at):
            return self._drop(at)
        elif ("title" in raw or name == "summary") and self._is_admonition_title(at):
            self._closers[tree.partners[at]] = self._end_admonition_title
        return False

    def _begin_definition(self, entry: _Entries) -> None:
        if entry.is_symbol and not entry.is_defined:
            draft = self._outline.current
            draft.signature_chars = len(draft.reducer.text())
        entry.is_defined = True

    def _begin(self, at: int, name: str) -> None:
        self._outline.reducer.start_block(name)
        if self._tree.partners[at] != at:
            self._around.append(at)

    def _is_left_out(self, at: int, name: str) -> bool:
        parent = self._tree.names[self._around[-1]] if self._around else "body"
        if name in {"header", "footer"} and self.root == 0 and parent not in SECTIONING:
            return True
        return name in GROUPS and self._surroundings.covers(at)

    def _end_list(self) -> None:
        self._outline.close_to(self._entries.pop().depth)
        self._around.pop()
        self._outline.reducer.end_block("dl")

    def _is_admonition_title(self, at: int) -> bool:
        if _TITLE_CLASS.search(self._tree.raws[at]):
            return True
        return self._is_in_admonition([above for above in self._around[-6:] if above != at])

    def _is_in_admonition(self, around: list[int]) -> bool:
        return any(not _ADMONITIONS.isdisjoint(self._tree.get(at, "class").lower().split()) for at in around)

    def _end_admonition_title(self) -> None:
        self._outline.reducer.lead()
        self._outline.reducer.end_block(self._tree.names[self._around.pop()])

    def _is_symbol(self, at: int) -> bool:
        """Tell whether a block is a symbol: an identifier as id, a permalink to itself, and no heading before it."""
        tree, anchor = self._tree, self._tree.get(at, "id")
        if not IDENTIFIER.fullmatch(anchor):
            return False
        children = tree.children(at)
        for _, child in zip(range(PERMALINK_WINDOW), children, strict=False):
            if tree.names[child] in HEADINGS:
                return False
            if tree.names[child] == "a" and tree.get(child, "href") == f"#{anchor}":
                return not any(tree.names[later] in HEADINGS for later in children)
        return False

    def _begin_symbol(self, at: int) -> bool:
        """Begin a symbol that a block stands for: its signature is part of its text.

        A block that is nothing but a signature (rustdoc) is followed by its text, another (pdoc) holds it.
        """
        tree, outline = self._tree, self._outline
        anchor, depth = tree.get(at, "id"), outline.depth
        if any(tree.names[inner] in BLOCKS for inner in tree.descendants(at)):
            outline.open(0, anchor, of_block(anchor, self._page))
            self._begin(at, tree.names[at])
            self._closers[tree.partners[at]] = partial(self._end_symbol, depth)
            return False
        outline.open(BLOCK_LEVEL, anchor, of_block(anchor, self._page))
        return self._add_paragraph(line_of(tree, at))

    def _end_symbol(self, depth: int) -> None:
        self._outline.close_to(depth)
        self._outline.reducer.end_block(self._tree.names[self._around.pop()])

    def _add_paragraph(self, text: str) -> bool:
        reducer = self._outline.reducer
        reducer.start_block("p")
        reducer.data(text)
        reducer.end_block("p")
        return True

    def _span(self, at: int) -> bool:
        if ' id="' not in self._tree.raws[at]:
            return False
        if not stands_before_heading(self._tree, at):
            self._add_module(self._tree.get(at, "id"))
        return self._is_symbol(at) and self._begin_symbol(at)

    def _add_module(self, anchor: str) -> None:
        """Give a module that is documented under the heading of another one a section of its own."""
        module, current = module_of(anchor), self._outline.current
        if module and current.level and module != current.symbol.name:
            self._outline.add_beside(anchor, Symbol(module, module))

    def _heading(self, at: int) -> bool:
        tree = self._tree
        wrapper = self._claim_wrapper()
        text = line_of(tree, at) or " ".join(tree.text(at).split())  # some themes make all of it a permalink
        if not text:
            return True
        before, permalink = targets_before(tree, at), permalink_of(tree, at)
        anchor = tree.get(at, "id") or wrapper or inner_anchor(tree, at) or next(iter(before), permalink)
        if permalink in before:
            anchor = permalink  # of several targets the one that the page itself links to
        level = int(tree.names[at][1])
        if not tree.get(at, "id") and level > 2 and self._is_admonition_title(at):
            self._add_paragraph_lead(text)
            return True
        symbol = self._symbol_of_heading(at, anchor, text)
        self._outline.open(level, anchor, symbol)
        if symbol.text != text:
            self._add_paragraph(text)
        return True

    def _add_paragraph_lead(self, text: str) -> None:
        reducer = self._outline.reducer
        reducer.start_block("p")
        reducer.data(text)
        reducer.lead()
        reducer.end_block("p")

    def _symbol_of_heading(self, at: int, anchor: str, text: str) -> Symbol:
        tree = self._tree
        if self._manual and text.upper() == "NAME":
            return name_section(self._manual, text)
        is_code = "code" in tree.raws[at] or any(
            tree.names[child] == "code" and tree.letters_of(child) >= 0.9 * len(text) for child in tree.children(at)
        )
        below = tree.next(at)
        has_signature = below >= 0 and _SIGNATURE_CLASS.search(tree.get(below, "class")) is not None
        is_code = is_code or any(is_target_of(target, text) for target in targets_before(tree, at))
        found = of_heading(anchor=anchor, text=text, page=self._page, is_code=is_code, has_signature=has_signature)
        if not found.name and at == self._first_heading and ("." in self._page or "::" in self._page):
            return Symbol(self._page, text)
        return found

    def _claim_wrapper(self) -> str:
        """Return the id of the block whose first heading this is; its later headings do not get it."""
        anchor = ""
        for wrapper in reversed(self._around[-WRAPPER_LEVELS:]):
            if self._tree.names[wrapper] not in WRAPPERS or wrapper in self._claimed:
                break
            self._claimed.add(wrapper)
            is_section = self._tree.names[wrapper] != "div" or "sect" in self._tree.get(wrapper, "class")
            if not anchor and (is_section or wrapper == self._around[-1]):
                name = self._tree.get(wrapper, "id")
                anchor = "" if _MAIN_ID.fullmatch(name) else name
        return anchor

    def _term(self, at: int) -> bool:
        """Begin the entry of a symbol or term, or add a further signature to it; read any other `dt` as text."""
        if not self._entries:
            return self._block(at)
        tree, entry, outline = self._tree, self._entries[-1], self._outline
        if entry.is_defined or not entry.is_symbol:
            outline.close_to(entry.depth)
            entry.is_symbol = entry.is_defined = False
        classes = tree.get(at, "class").split()
        signature = signature_of(tree, at)
        anchor = tree.get(at, "id") or inner_anchor(tree, at)
        if not anchor and not any(map(str.isalnum, signature)):
            return True  # a bullet
        if not anchor and "sig" in classes and self._around:  # Sphinx with :noindex: leaves the target before the list
            anchor = target_before(tree, self._around[-1])
        is_known = anchor or flags_of(signature) or is_error_code(signature)
        if not entry.is_symbol and (not is_known or "label" in classes):
            return self._block(at)  # label: of a footnote
        if signature:
            outer = self._outline.symbol or self._page
            name = self._marked_name(at, is_last=is_mangled(anchor))
            symbol = of_entry(anchor=anchor, signature=signature, name=name, outer=outer)
            self._add_entry(entry, anchor, symbol, signature)
        return True

    def _marked_name(self, at: int, *, is_last: bool) -> str:
        """Return the name in a signature as Sphinx marks it. is_last: parameters of a template are marked before it."""
        tree = self._tree
        parts = [
            tree.text(inner)
            for inner in tree.descendants(at)
            if tree.get(inner, "class").split()[:1] in (["sig-prename"], ["sig-name"])
        ]
        if is_last:
            parts = [part for part in parts[:-1][-1:] if part.endswith("::")] + parts[-1:]
        return "".join(parts).replace(" ", "")

    def _add_entry(self, entry: _Entries, anchor: str, symbol: Symbol, signature: str) -> None:
        outline = self._outline
        current = outline.current
        if not entry.is_symbol:
            current = outline.open(0, anchor, symbol)
        elif anchor and symbol.name not in {current.symbol.name, last_part(current.symbol.name)}:
            current = outline.add_beside(anchor, symbol)
        else:
            current.further_names.extend((symbol.name, *symbol.aliases))
        if entry.is_symbol or symbol.text != signature:
            current.reducer.data(signature)
            current.reducer.line_break()
        entry.is_symbol = True

    def _pre(self, at: int) -> bool:
        return self._code(at)

    def _code(self, at: int) -> bool:
        code = text_of(self._tree, at, has_lines=True).replace("\r\n", "\n").replace("\xa0", " ")
        code = _BLANK_LINE.sub("", code).strip("\n").rstrip()
        if code and not is_line_numbers(code):
            longest = max(map(len, _FENCE.findall(code)), default=2)
            fence = "`" * (longest + 1)
            language = language_of(self._tree, at, self._around)
            self._outline.reducer.verbatim(f"{fence}{language}\n{code}\n{fence}")
            self._outline.current.code_letters += len(code)
        return True

    def _table(self, at: int) -> bool:
        if not self._is_lenient and self._is_left_out(at, "table"):
            self.has_dropped_navigation = True
            return self._drop(at)
        is_layout = is_layout_table(self._tree, at) or self._is_in_admonition(self._around[-1:])
        self._tables.append(is_layout)
        name = "div" if is_layout else "table"
        self._outline.reducer.start_block(name)
        self._closers[self._tree.partners[at]] = partial(self._end_table, name)
        return False

    def _end_table(self, name: str) -> None:
        self._tables.pop()
        self._outline.reducer.end_block(name)

    def _cell(self, at: int) -> bool:
        if not self._tables or not self._tables[-1] or self._is_left_out(at, "td"):
            return self._block(at)
        if self._is_box_title(at):
            text, anchor = line_of(self._tree, at), inner_anchor(self._tree, at)
            name = anchor if IDENTIFIER.fullmatch(anchor) else ""
            symbol = Symbol(of_block(anchor, self._page).name, text) if name else Symbol("", text)
            self._outline.open(min(6, 1 + len(self._tables)), anchor, symbol)
            return True
        self._outline.reducer.start_block("div")
        self._closers[self._tree.partners[at]] = partial(self._outline.reducer.end_block, "div")
        return False

    def _is_box_title(self, at: int) -> bool:
        """Tell whether a cell is the bold title of a table that is a box, as pydoc draws them."""
        tree = self._tree
        if not tree.get(at, "colspan") or not 0 < tree.letters_of(at) <= BOX_TITLE_LETTERS:
            return False
        return "title" in tree.get(at, "class") and not tree.headings_of(at)

    def _link(self, at: int) -> bool:
        tree = self._tree
        if is_ornament(tree, at):
            return True
        if tree.links_of(at)[0] and not self._is_lenient and self._surroundings.covers_link(at):
            return self._drop(at)
        draft = self._outline.current
        draft.links += 1
        draft.link_letters += tree.letters_of(at)
        return False

    def _break(self, _: int) -> bool:
        self._outline.reducer.line_break()
        return False

    def _image(self, at: int) -> bool:
        alternative = self._tree.get(at, "alt")
        if alternative and not _FILE_NAME.search(alternative):
            self._outline.reducer.data(f" {alternative} ")
        return False

    def _math(self, at: int) -> bool:
        self._outline.reducer.data(formula_of(self._tree, at))
        return True

    def _label(self, at: int) -> bool:
        self._outline.reducer.line_break()
        return False


def _enclosing(tree: Tree, heading: int) -> set[int]:
    """Return what encloses the title of the page and so cannot be boilerplate; nothing when that is navigation."""
    around = tree.ancestors(heading) if heading >= 0 else []
    return set() if any(tree.names[at] == "nav" for at in around) else set(around)
