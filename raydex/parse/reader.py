"""Read a page as a document: its main content, cut at every heading and symbol that has an address.

    Page → Document(title, sections, links, dropped_words, total_words)    pure, no I/O

Navigation is known by its elements, roles, names and density of links, not by site. Code blocks stay verbatim between
``` lines. The walk keeps its own stack, so nesting has no limit and the cost is linear in the page.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from urllib.parse import quote, unquote, urljoin

from selectolax.lexbor import LexborHTMLParser, LexborNode

from raydex.errors import ParseError
from raydex.records import Page, Section
from utils.html_text import Attributes, TextReducer, decode_html, is_boilerplate, is_hidden, is_html

HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
GROUPS = frozenset({"div", "p", "ul", "ol", "dl", "table", "aside", "footer"})
"""Blocks that are dropped as a whole when they turn out to be lists of links."""
SECTIONING = frozenset({"article", "section", "blockquote"})
WRAPPERS = frozenset({"section", "div", "article", "header", "hgroup"})

NAVIGATION_LINKS = 10
NAVIGATION_SHARE = 0.9  # of the characters that are not white space
ASIDE_LINKS = 2  # an aside or footer needs no more links than "previous, next" to be navigation
MAX_HEADINGS = 16  # of a path; without a bound, symbols nested n deep would cost n² headings
PERMALINK_WINDOW = 6  # children; pdoc puts the permalink after an optional input and the signature

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.\w+)*")
_LANGUAGE = re.compile(r"(?:language|lang|highlight-source|highlight|brush)[-:]([A-Za-z][\w+#.-]*)")
_NO_LANGUAGE = frozenset({"default", "none", "plain", "plaintext", "text", "source"})
_FENCE = re.compile(r"^`{3,}", re.MULTILINE)
_SITE_SUFFIX = re.compile(r"\s*(?:[—–|·•»:-]\s|documentation$)", re.IGNORECASE)
_SEPARATORS = " \t\r\n|·•,;:/()[]-–—«»<>"  # between links they are neither text nor link
_UNREAD = "script, style, template, noscript, svg, iframe"
_FRAGMENT_SAFE = "!$&'()*+,;=:@/?~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a page says. links: absolute, in page order, with fragments; words are counted between white space.

    canonical: the address that the page calls its own, absolute, "" when it names none. dropped_words: boilerplate,
    hidden_words among them; dropped_samples: up to three passages of it.
    """

    title: str
    sections: tuple[Section, ...]
    links: tuple[str, ...]
    description: str = ""
    version: str = ""
    language: str = ""
    breadcrumbs: tuple[str, ...] = ()
    updated: str = ""  # ISO 8601
    canonical: str = ""
    dropped_words: int = 0
    hidden_words: int = 0
    total_words: int = 0
    dropped_samples: tuple[str, ...] = ()


def parse_page(page: Page) -> Document:
    """Return the sections and links of a page.

    A section's id is its URL; one without an anchor of its own takes the URL of the anchor above it, and ids that would
    repeat get "~2", "~3" … in page order. Raises ParseError: not_html, empty, or navigation_only when all the text is
    lists of links; its `links` are those of the page, so that a crawl can go on through an index.
    """
    html = decode_html(page.body, page.content_type)
    if not is_html(html, page.content_type):
        raise ParseError(page.url, "not_html", page.content_type or "no content type")
    tree = LexborHTMLParser(html)
    body = tree.body
    if body is None:
        raise ParseError(page.url, "empty", "a frameset has no text")
    main = _main_content(body)
    heading = main.css_first("h1")
    title = _title(tree, heading or main.css_first("h2"), page.url)
    links = _links(tree, page)
    sections, reader = _read(page, main, body, title=title, heading=heading)
    if not sections:
        raise ParseError(page.url, "navigation_only" if reader.has_dropped_navigation else "empty", links=links)
    kept_words = reader.page.words
    unread_words = sum(len(node.text(separator=" ").split()) for node in body.css(_UNREAD))
    total_words = max(kept_words, len(body.text(separator=" ").split()) - unread_words)
    return Document(
        title=title,
        sections=sections,
        links=links,
        dropped_words=total_words - kept_words,
        total_words=total_words,
    )


def _main_content(body: LexborNode) -> LexborNode:
    marked = body.css_first("main") or body.css_first("[role=main]")
    articles = body.css("article") if marked is None else []
    return marked or (articles[0] if len(articles) == 1 else body)


def _title(tree: LexborHTMLParser, heading: LexborNode | None, url: str) -> str:
    element = tree.css_first("head > title")
    title = " ".join(element.text().split()) if element else ""
    name = _line_of(heading) if heading else ""
    if name and title.lower().startswith(name.lower()) and _SITE_SUFFIX.match(title, len(name)):
        return name
    return title or name or url


def _links(tree: LexborHTMLParser, page: Page) -> tuple[str, ...]:
    base = tree.css_first("base[href]")
    base_url = _absolute(base.attributes.get("href") or "", page.crawl_url) if base else page.crawl_url
    anchors = (node.attributes for node in tree.css("a[href], area[href]"))  # of SVG too, where href is xlink:href
    hrefs = dict.fromkeys(a.get("href") for a in anchors if "nofollow" not in (a.get("rel") or "").lower().split())
    links = dict.fromkeys(_absolute(href, base_url) for href in hrefs if href)
    return tuple(link for link in links if link.startswith(("http://", "https://")))


def _absolute(href: str, base_url: str) -> str:
    try:
        return urljoin(base_url, href.strip())
    except ValueError:  # a host that cannot be, as in http://[x/
        return ""


def _read(
    page: Page, main: LexborNode, body: LexborNode, *, title: str, heading: LexborNode | None
) -> tuple[tuple[Section, ...], "_Reader"]:
    """Read the main content, or the whole page when all of that looked like boilerplate and was no list of links."""
    reader = _Reader(main, title=title, heading=heading, is_lenient=False)
    sections = _sections(page, title, reader.read())
    if sections or reader.has_dropped_navigation:
        return sections, reader
    reader = _Reader(body, title=title, heading=heading, is_lenient=True)
    sections = _sections(page, title, reader.read())
    if reader.page.link_share >= NAVIGATION_SHARE:
        reader.has_dropped_navigation, sections = True, ()
    return sections, reader


def _sections(page: Page, title: str, drafts: list["_Draft"]) -> tuple[Section, ...]:
    sections: list[Section] = []
    repeats: dict[str, int] = {}
    url = page.url
    for draft in drafts:
        if draft.anchor:
            url = f"{page.url}#{draft.anchor}"
        if text := draft.reducer.text():
            sections.append(
                Section(
                    section_id=_unrepeated(url, repeats),
                    page_id=page.page_id,
                    url=url,
                    title=title,
                    headings=draft.headings or (title,),
                    text=text,
                    position=len(sections),
                )
            )
    return tuple(sections)


def _unrepeated(url: str, repeats: dict[str, int]) -> str:
    candidate = url
    while candidate in repeats:
        repeats[url] += 1
        candidate = f"{url}~{repeats[url]}"
    repeats[candidate] = 1
    return candidate


@dataclass(slots=True)
class _Draft:
    """A section while it is read. level: of its heading; 0 for the page and for symbols, which no heading ends."""

    level: int
    anchor: str
    headings: tuple[str, ...]
    reducer: TextReducer = field(default_factory=TextReducer)


@dataclass(slots=True)
class _Group:
    """A block that may turn out to be navigation: what was read since it began, in words and characters."""

    tag: str
    mark: int | None
    drafts: int
    words: int = 0
    chars: int = 0
    link_chars: int = 0
    links: int = 0

    @property
    def link_share(self) -> float:
        return self.link_chars / self.chars if self.chars else 0.0

    def add(self, inner: "_Group") -> None:
        self.words += inner.words
        self.chars += inner.chars
        self.link_chars += inner.link_chars
        self.links += inner.links

    @property
    def is_navigation(self) -> bool:
        needed = ASIDE_LINKS if self.tag in {"aside", "footer"} else NAVIGATION_LINKS
        return self.links >= needed and self.link_share >= NAVIGATION_SHARE


@dataclass(slots=True)
class _Entries:
    """A definition list being read: where its entries begin in the outline, and the state of the current one."""

    depth: int
    is_symbol: bool = False
    is_defined: bool = False


class _Outline:
    """Where the reading stands: the open headings and symbols, outermost first, and all drafts in page order."""

    def __init__(self, title: str) -> None:
        self.drafts = [_Draft(0, "", ())]
        self._title = title
        self._open = [self.drafts[0]]

    @property
    def depth(self) -> int:
        return len(self._open)

    @property
    def reducer(self) -> TextReducer:
        return self._open[-1].reducer

    def open(self, level: int, text: str, anchor: str) -> None:
        while level and self._open[-1].level >= level:
            self._open.pop()
        above = self._open[-1].headings[: MAX_HEADINGS - 1]
        if not above and level != 1 and text != self._title:
            above = (self._title,)
        draft = _Draft(level, quote(anchor, safe=_FRAGMENT_SAFE), (*above, text))
        self.drafts.append(draft)
        self._open.append(draft)

    def close_to(self, depth: int) -> None:
        del self._open[depth:]


class _Reader:
    """Reads a subtree into an outline, leaving navigation out."""

    def __init__(self, root: LexborNode, *, title: str, heading: LexborNode | None, is_lenient: bool) -> None:
        self.page = _Group("page", None, 0)
        self.has_dropped_navigation = False
        self._root = root
        self._is_lenient = is_lenient
        self._module = _line_of(heading) if heading else ""
        self._outline = _Outline(title)
        self._groups = [self.page]
        self._entries: list[_Entries] = []
        self._links = 0
        self._claimed = {root.mem_id}  # wrappers whose id belongs to a heading already
        self._kept = _ancestors(heading) if heading else set()
        self._consumers: dict[str, Callable[[LexborNode, Attributes], bool]] = {
            **dict.fromkeys(HEADINGS, self._add_heading),
            "pre": self._add_code,
            "dt": self._add_entry,
        }

    def read(self) -> list[_Draft]:
        _walk(self._root, self._enter, self._text)
        return self._outline.drafts

    def _text(self, text: str) -> None:
        self._outline.reducer.data(text)
        self._count(text)

    def _count(self, text: str) -> None:
        if words := text.split():
            group = self._groups[-1]
            group.words += len(words)
            chars = sum(map(len, words)) if text.strip(_SEPARATORS) else 0
            group.chars += chars
            if self._links:
                group.link_chars += chars

    def _enter(self, node: LexborNode, tag: str) -> Callable[[], None] | None:
        """Begin an element; return what ends it, or None when its content is not to be walked."""
        attributes = node.attributes
        if self._is_left_out(node, tag, attributes):
            return None
        consume = self._consumers.get(tag)
        if consume and (is_hidden(tag, attributes) or consume(node, attributes)):
            return None
        reducer = self._outline.reducer
        if not reducer.start(tag, attributes):
            reducer.end(tag)
            return None
        if tag == "a" and attributes.get("href"):
            self._links += 1
            self._groups[-1].links += 1
            return self._leave_link
        if tag in {"section", "div"} and _is_symbol(node, attributes):
            return self._open_symbol(tag, attributes["id"] or "")
        if tag in GROUPS:
            return self._open_group(tag)
        if tag == "dd" and self._entries:
            self._entries[-1].is_defined = True
        return partial(self._leave, tag)

    def _leave(self, tag: str) -> None:
        self._outline.reducer.end(tag)

    def _leave_link(self) -> None:
        self._links -= 1
        self._leave("a")

    def _is_left_out(self, node: LexborNode, tag: str, attributes: Attributes) -> bool:
        if self._is_lenient or node.mem_id in self._kept:
            return False
        return is_boilerplate(tag, attributes) or (tag in {"header", "footer"} and self._is_of_page(node))

    def _is_of_page(self, banner: LexborNode) -> bool:
        return self._root.tag == "body" and (banner.parent is None or banner.parent.tag not in SECTIONING)

    def _open_group(self, tag: str) -> Callable[[], None]:
        outline = self._outline
        if tag == "dl":
            self._entries.append(_Entries(outline.depth))
        self._groups.append(_Group(tag, outline.reducer.mark(), len(outline.drafts)))
        return self._leave_group

    def _leave_group(self) -> None:
        group, outline = self._groups.pop(), self._outline
        if group.tag == "dl":
            outline.close_to(self._entries.pop().depth)
        outline.reducer.end(group.tag)
        if group.is_navigation and group.mark is not None and group.drafts == len(outline.drafts):
            outline.reducer.rewind(group.mark)
            self.has_dropped_navigation = True
        else:
            self._groups[-1].add(group)

    def _open_symbol(self, tag: str, anchor: str) -> Callable[[], None]:
        """Begin a symbol that a block stands for, as pdoc writes them: its signature is part of its text."""
        depth = self._outline.depth
        is_qualified = not _IDENTIFIER.fullmatch(self._module) or anchor.startswith(f"{self._module}.")
        self._outline.open(0, anchor if is_qualified else f"{self._module}.{anchor}", anchor)
        return partial(self._leave_symbol, tag, depth)

    def _leave_symbol(self, tag: str, depth: int) -> None:
        self._outline.close_to(depth)
        self._leave(tag)

    def _add_heading(self, node: LexborNode, attributes: Attributes) -> bool:
        anchor = self._claim_wrapper(node)
        if text := _line_of(node) or " ".join(node.text().split()):  # some themes make all of it a permalink
            anchor = attributes.get("id") or anchor or _inner_anchor(node)
            self._outline.open(int((node.tag or "h6")[1]), text, anchor)
            self.page.words += len(text.split())
        return True

    def _claim_wrapper(self, heading: LexborNode) -> str:
        """Return the id of the block whose first heading this is; its later headings do not get it."""
        anchor, wrapper = "", heading.parent
        for _ in range(2):
            if wrapper is None or wrapper.tag not in WRAPPERS or wrapper.mem_id in self._claimed:
                break
            self._claimed.add(wrapper.mem_id)
            anchor = anchor or wrapper.id or ""
            wrapper = wrapper.parent
        return anchor

    def _add_entry(self, node: LexborNode, attributes: Attributes) -> bool:
        """Begin the entry of a symbol or term, or add a further signature to it; False for any other `dt`."""
        if not self._entries:
            return False
        entry, outline = self._entries[-1], self._outline
        if entry.is_defined or not entry.is_symbol:
            outline.close_to(entry.depth)
            entry.is_symbol = entry.is_defined = False
        classes = (attributes.get("class") or "").split()
        anchor = attributes.get("id") or ""
        if not anchor and "sig" in classes and node.parent:  # Sphinx with :noindex: leaves the target before the list
            anchor = _anchor_of(_empty_target_before(node.parent))
        if not entry.is_symbol and (not anchor or "label" in classes):  # label: of a footnote
            return False
        if signature := _line_of(node):
            name = signature if entry.is_symbol else _entry_name(anchor, signature, classes)
            if not entry.is_symbol:
                outline.open(0, name, anchor)
            if entry.is_symbol or name != signature:
                outline.reducer.data(signature)
                outline.reducer.start("br", {})
            entry.is_symbol = True
            self.page.words += len(signature.split())
        return True

    def _add_code(self, node: LexborNode, attributes: Attributes) -> bool:
        code = _text_of(node)
        if code:
            longest = max(map(len, _FENCE.findall(code)), default=2)
            fence = "`" * (longest + 1)
            self._outline.reducer.verbatim(f"{fence}{_language(node, attributes)}\n{code}\n{fence}")
            self._count(code)
        return True


def _walk(
    root: LexborNode,
    enter: Callable[[LexborNode, str], Callable[[], None] | None],
    text: Callable[[str], None],
) -> None:
    """Visit the nodes below and including root in page order, on a stack of its own."""
    stack: list[LexborNode | Callable[[], None]] = [root]
    while stack:
        item = stack.pop()
        if not isinstance(item, LexborNode):
            item()
            continue
        tag = item.tag or "-"
        if tag == "-text":
            text(item.text_content or "")
        elif not tag.startswith("-") and (leave := enter(item, tag)):
            stack.append(leave)
            stack.extend(reversed(list(item.iter(include_text=True))))


def _text_of(root: LexborNode) -> str:
    """Return the text of a subtree without permalinks, line numbers and the like."""
    reducer = TextReducer()

    def enter(node: LexborNode, tag: str) -> Callable[[], None] | None:
        attributes = node.attributes
        if is_boilerplate(tag, attributes):
            return None
        if reducer.start(tag, attributes):
            return partial(reducer.end, tag)
        reducer.end(tag)
        return None

    _walk(root, enter, reducer.data)
    return reducer.text()


def _line_of(root: LexborNode) -> str:
    return " ".join(_text_of(root).split())


def _is_symbol(node: LexborNode, attributes: Attributes) -> bool:
    """Tell whether a block is a symbol: an identifier as id, a permalink to itself, and no heading before it."""
    anchor = attributes.get("id")
    if not anchor or not _IDENTIFIER.fullmatch(anchor):
        return False
    children = node.iter()
    for _, child in zip(range(PERMALINK_WINDOW), children, strict=False):
        if child.tag in HEADINGS:
            return False
        if child.tag == "a" and child.attributes.get("href") == f"#{anchor}":
            return not any(later.tag in HEADINGS for later in children)
    return False


def _entry_name(anchor: str, signature: str, classes: list[str]) -> str:
    """Return what a reader calls the entry: the dotted name in its id (unless mangled), else its whole signature."""
    is_symbol = ("." in anchor or "sig" in classes) and _IDENTIFIER.fullmatch(anchor) is not None
    return anchor if is_symbol and anchor.rpartition(".")[2] in signature else signature


def _inner_anchor(heading: LexborNode) -> str:
    """Return the anchor inside a heading or right before it, else the target of its permalink."""
    target = heading.css_first("[id], a[name]") or _empty_target_before(heading)
    permalink = heading.css_first("a[href^='#']")
    return _anchor_of(target) or (unquote((permalink.attributes.get("href") or "")[1:]) if permalink else "")


def _anchor_of(target: LexborNode | None) -> str:
    return (target.id or target.attributes.get("name") or "") if target else ""


def _empty_target_before(heading: LexborNode) -> LexborNode | None:
    node = heading.prev
    while node is not None and node.is_text_node and not (node.text_content or "").strip():
        node = node.prev
    return node if node is not None and node.tag in {"a", "span"} and not node.text(strip=True) else None


def _language(pre: LexborNode, attributes: Attributes) -> str:
    for node in (pre, pre.css_first("code"), pre.parent, pre.parent.parent if pre.parent else None):
        found = _LANGUAGE.search((node.attributes.get("class") or "") if node else "")
        if found and found[1] not in _NO_LANGUAGE:
            return found[1]
    return attributes.get("data-language") or attributes.get("data-lang") or ""


def _ancestors(heading: LexborNode) -> set[int]:
    """Return what encloses the title of the page and so cannot be boilerplate; nothing when that is navigation."""
    found: set[int] = set()
    node = heading.parent
    while node is not None:
        if node.tag == "nav":
            return set()
        found.add(node.mem_id)
        node = node.parent
    return found
