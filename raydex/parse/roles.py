"""Tell what part an element plays on a page by its own tag and attributes: hidden, boilerplate, formatting, or content.

    (tag, attributes as written) → Role    remembered, since pages repeat the same few hundred elements

Names of boilerplate are words that sites of all kinds use; whether a block is a list of links is asked elsewhere.
"""

import re
from functools import lru_cache
from html import unescape
from typing import Literal

from utils.html_text import BLOCKS
from utils.html_visibility import Attributes, is_hidden

Role = Literal["content", "formatting", "boilerplate", "hidden"]

CONTROLS = frozenset({"nav", "form", "button", "select", "textarea", "dialog", "search", "datalist"})
ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "menubar", "menu", "toolbar", "doc-toc", "dialog"})
# fmt: off
BOILERPLATE = frozenset({
    "sidebar", "sphinxsidebar", "md-sidebar", "col-sidebar", "page-menu", "toc", "localtoc", "table-of-contents",
    "tableofcontents",
    "on-this-page", "breadcrumb", "breadcrumbs", "rustdoc-breadcrumbs", "navbar", "nav", "navigation", "nav-links",
    "mobile-nav", "menu", "footer", "md-footer", "md-header", "related", "page-nav", "pagination", "pagination-nav",
    "pager", "prev-next", "prev-next-area", "rst-footer-buttons", "headerlink", "header-anchor", "anchor-link",
    "heading-anchor", "hash-link", "permalink", "skip-link", "skiplink", "skip-to-content", "skip-nav", "copybutton",
    "copybtn", "copy-button", "edit-page", "edit-link", "edit-this-page", "theme-edit-this-page", "view-source-button",
    "viewcode-link", "viewcode-back", "linenos", "linenodiv", "lineno", "linenumber", "line-numbers-rows", "gutter",
    "rouge-gutter", "searchbox", "search-box", "cookie-banner", "cookie-consent", "katex-html", "boring", "test-arrow",
    "vp-doc-footer", "site-footer", "page-footer", "site-header", "page-header-nav", "md-nav", "md-tabs", "md-search",
    "line-number", "linenums", "blanket-implementations-list",
    "synthetic-implementations-list", "navheader", "navfooter", "rightside", "srclink",
    "mathjax_preview", "skip-nav-link", "doc-source-link", "view-source",
    "doc-version-picker", "version-picker", "version-switcher", "rst-versions", "language-switcher", "theme-toggle",
    "back-to-top", "backtotop", "announcement", "announcement-bar", "share-buttons",
})
# fmt: on
"""Class and id words that name what surrounds the text, on any site; compared word by word, never as a part."""
NAMED_BY_ID = frozenset({"div", "aside", "ul", "ol", "table", "footer", "header"})
"""Elements whose id may name boilerplate. Sections, headings and symbols are not: `#menu` may document menus."""
NEVER_NAMED = frozenset({"b", "kbd", "code", "em", "i", "strong", "var", "samp", "dfn", "pre", "body", "html", "main"})
"""Elements whose class says what their text is about (`<b class="menu">File</b>`)."""
TELLING = frozenset(
    {"a", "annotation", "img", "br", "math", "input", "label", "summary", "area", "frame", "wbr", "svg"}
)
"""Inline elements that are more than formatting."""

_ATTRIBUTE = re.compile(r' ([^\s/>][^\s/>=]*)="([^"]*)"')
_MAY_HIDE = re.compile(r' (?:style|hidden|aria-hidden|role)="')
_SAYS_SOMETHING = re.compile(r' (?:id|name|href|role|data-lang|data-language)="')
_CLASSES = re.compile(r' class="([^"]*)"')
_ID = re.compile(r' id="([^"]*)"')
_TELLING_CLASS = re.compile(r"(?:^|\s)(?:lang(?:uage)?-|highlight-|sig-|desc(?:class)?name$|term$|line$)|title|heading")


@lru_cache(maxsize=16384)
def parse_attributes(raw: str) -> Attributes:
    """raw: as a parser serialises attributes."""
    return {name.lower(): unescape(value) for name, value in _ATTRIBUTE.findall(raw)}


@lru_cache(maxsize=32768)
def role_of(tag: str, raw: str, hidden_names: frozenset[str]) -> Role:
    """raw: as a parser serialises attributes. hidden_names: `.class` and `#id` that the page hides."""
    match = _CLASSES.search(raw)
    classes = match[1] if match else ""
    if hidden_names and not hidden_names.isdisjoint(_selectors(classes, raw)):
        return "hidden"
    if _MAY_HIDE.search(raw):
        attributes = parse_attributes(raw)
        if is_hidden(tag, attributes):
            return "hidden"
        if is_boilerplate(tag, attributes):
            return "boilerplate"
    role = _role_by_class(tag, classes)
    if role == "content" and tag in NAMED_BY_ID and is_boilerplate(tag, parse_attributes(raw)):
        return "boilerplate"
    return "content" if role == "formatting" and _SAYS_SOMETHING.search(raw) else role


def _selectors(classes: str, raw: str) -> list[str]:
    match = _ID.search(raw)
    return [f".{word}" for word in classes.split()] + ([f"#{match[1]}"] if match else [])


@lru_cache(maxsize=4096)
def _role_by_class(tag: str, classes: str) -> Role:
    attributes = {"class": classes} if classes else {}
    if is_hidden(tag, attributes):
        return "hidden"
    if is_boilerplate(tag, attributes):
        return "boilerplate"
    return "content" if tag in BLOCKS or tag in TELLING or _TELLING_CLASS.search(classes) else "formatting"


def is_boilerplate(tag: str, attributes: Attributes) -> bool:
    """Tell whether the element, with all it holds, surrounds the text of a page: navigation, controls, permalinks."""
    role = attributes.get("role") or ""
    if tag in CONTROLS:
        return role not in {"tab", "tabpanel"}
    if not attributes or tag in NEVER_NAMED:
        return False
    classes = attributes.get("class") or ""
    if (classes and _names_boilerplate(classes)) or role in ROLES:
        return True
    return tag in NAMED_BY_ID and _names_boilerplate(attributes.get("id") or "") and "section" not in classes.split()


def _names_boilerplate(names: str) -> bool:
    return not BOILERPLATE.isdisjoint(names.lower().split())
