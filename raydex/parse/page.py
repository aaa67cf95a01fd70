"""Read a page as a document.

Page → Document(title, sections, links, metadata, counts)    pure, no I/O
"""

import re
from dataclasses import dataclass
from html import unescape
from urllib.parse import urljoin

from selectolax.lexbor import LexborHTMLParser

from raydex.errors import ParseError
from raydex.parse.blocks import line_of
from raydex.parse.content import NAVIGATION_SHARE, first_heading, main_content
from raydex.parse.manual import command_of, manual_names
from raydex.parse.markup import is_markup, to_html
from raydex.parse.metadata import read_metadata
from raydex.parse.outline import finished_sections
from raydex.parse.reader import Reader, Subject
from raydex.parse.symbols import page_symbol
from raydex.parse.tree import Tree, is_bomb, read_tree
from raydex.parse.verdicts import is_soft_404, needs_javascript
from raydex.records import Page, Section
from utils.html_text import decode_html, is_html
from utils.html_visibility import hidden_names

_SITE_SUFFIX = re.compile(r"\s*(?:[—–|·•»:-]\s|documentation$)", re.IGNORECASE)
_HREF = re.compile(r' href="([^"]*)"')
_NOFOLLOW = re.compile(r' rel="(?:[^"]*\s)?nofollow[\s"]', re.IGNORECASE)
_BEGINNING_CHARS = 500
_SNIFFED_CHARS = 1024
_PACKAGE = re.compile(r"\s*Package\s+([a-z][\w.]*)\s*")


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
    repeat get "~2", "~3" … in page order. Raises ParseError: not_html, too_deep, noindex, needs_javascript, soft_404,
    empty, or navigation_only when all the text is lists of links; its `links` are those that a crawl may follow.
    """
    parser = LexborHTMLParser(_html_of(page))
    metadata = read_metadata(parser, page)
    body = parser.body
    css = "".join(style.text() for style in parser.css("style"))
    tree = read_tree((body.html or "") if body is not None else "", hidden_names(css))
    links = _links(tree, _base_url(parser, page)) if metadata.follow else ()
    if not metadata.index:
        raise ParseError(page.url, "noindex", links=links)
    if not len(tree):
        raise ParseError(page.url, "empty", "a frameset has no text")
    root = main_content(tree)
    heading = first_heading(tree, root)
    heading_text = line_of(tree, heading) if heading >= 0 else ""
    title = _title(parser, heading_text, page.url)
    manual = manual_names(tree, root)
    subject = command_of(manual) or page_symbol(heading_text, title, _package_before(tree, heading))
    about = Subject(title=title, symbol=subject, manual=tuple(manual), heading=heading)
    sections, reader = _read(page, tree, root, about)
    read_words = tree.words_of(reader.root)
    total_words = max(tree.words_of(0), read_words)  # of a broken page, a part may reach beyond the whole
    kept_words = read_words - reader.dropped_words
    beginning = sections[0].text[:_BEGINNING_CHARS] if sections else ""
    if needs_javascript(parser, words=kept_words):
        raise ParseError(page.url, "needs_javascript", links=links)
    if is_soft_404(title=title, heading=heading_text, words=kept_words, text=beginning):
        raise ParseError(page.url, "soft_404", links=links)
    if not sections:
        raise ParseError(page.url, "navigation_only" if reader.has_dropped_navigation else "empty", links=links)
    return Document(
        title=title,
        sections=sections,
        links=links,
        description=metadata.description,
        version=metadata.version,
        language=metadata.language,
        breadcrumbs=metadata.breadcrumbs,
        updated=metadata.updated,
        canonical=metadata.canonical,
        dropped_words=total_words - kept_words,
        hidden_words=reader.hidden_words,
        total_words=total_words,
        dropped_samples=tuple(reader.samples),
    )


def _html_of(page: Page) -> str:
    text = decode_html(page.body, page.content_type)
    if not is_html(text, page.content_type):
        if not is_markup(page.content_type) or "\0" in text[:_SNIFFED_CHARS]:
            raise ParseError(page.url, "not_html", page.content_type or "no content type")
        try:
            text = to_html(text, page.content_type, title=page.title)
        except ParseError as error:  # markup does not know the address
            raise ParseError(page.url, error.reason, error.detail) from error
    if is_bomb(text):
        raise ParseError(page.url, "too_deep", "unclosed tags would make the parser need quadratic time")
    return text


def _read(page: Page, tree: Tree, root: int, about: Subject) -> tuple[tuple[Section, ...], Reader]:
    """Read the main content, or the whole page when all of that looked like boilerplate and was no list of links."""
    reader = Reader(tree, root, about, is_lenient=False)
    sections = finished_sections(page, about.title, reader.read())
    if sections or reader.has_dropped_navigation:
        return sections, reader
    reader = Reader(tree, 0, about, is_lenient=True)
    sections = finished_sections(page, about.title, reader.read())
    if tree.links_of(0)[1] >= NAVIGATION_SHARE * max(1, tree.letters_of(0)):
        reader.has_dropped_navigation, sections = True, ()
    return sections, reader


def _title(parser: LexborHTMLParser, name: str, url: str) -> str:
    """name: the first heading; the title loses the name of the site only where it begins with that."""
    element = parser.css_first("head > title")
    title = " ".join(element.text().split()) if element else ""
    if name and title.lower().startswith(name.lower()) and _SITE_SUFFIX.match(title, len(name)):
        return name
    return title or name or url


def _package_before(tree: Tree, heading: int) -> str:
    """Return the package that javadoc names right above the title of a class."""
    before = tree.previous(heading) if heading > 0 else -1
    match = _PACKAGE.fullmatch(tree.text(before)) if before > 0 else None
    return match[1] if match else ""


def _base_url(parser: LexborHTMLParser, page: Page) -> str:
    base = parser.css_first("base[href]")
    return _absolute(base.attributes.get("href") or "", page.crawl_url) if base else page.crawl_url


def _links(tree: Tree, base_url: str) -> tuple[str, ...]:
    hrefs: dict[str, None] = {}
    for raw in (tree.raws[at] for at, name in enumerate(tree.names) if name in {"a", "area"}):
        match = _HREF.search(raw)
        if match and not ("nofollow" in raw and _NOFOLLOW.search(raw)):
            hrefs[unescape(match[1]).strip()] = None
    hrefs.pop("", None)
    pages: dict[str, str] = {}  # without fragments; most links of a page lead to few pages
    links: dict[str, None] = {}
    for href in hrefs:
        path, hash_sign, fragment = href.partition("#")
        if path not in pages:
            pages[path] = _absolute(path, base_url)
        if pages[path].startswith(("http://", "https://")):
            links[f"{pages[path].partition('#')[0]}{hash_sign}{fragment}"] = None
    return tuple(links)


def _absolute(href: str, base_url: str) -> str:
    try:
        return urljoin(base_url, href)
    except ValueError:  # a host that cannot be, as in http://[x/
        return ""
