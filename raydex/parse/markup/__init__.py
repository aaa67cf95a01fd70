"""Turn a document that is no HTML into HTML, which the one reader then reads.

    Markdown, MDX, reStructuredText, a notebook, plain text → HTML    pure, no I/O, nothing in it is run or included

Headings get the anchors that the usual generators give them; front matter becomes title, language and meta elements.
The HTML is for the reader alone: what the author wrote as HTML is passed on as it is.

to_html("# Set up\\n\\nRun it.", "text/markdown")  →  <h1 id="set-up">Set up</h1><p>Run it.</p>, in a whole document
"""

import re
from collections.abc import Callable

from raydex.errors import ParseError
from raydex.parse.markup import markdown, notebook, plain, rst
from raydex.parse.markup.document import Draft, whole_document

__all__ = ["is_markup", "to_html"]

MAX_CHARS = 2_000_000
"""Longest text that is read as markup; beyond it as plain text, which costs a tenth."""
LIBRARY_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What parsers of foreign text raise on input that nobody thought of, bottomless nesting included."""

_VARIANT = re.compile(r";\s*variant\s*=\s*\"?([\w-]+)", re.IGNORECASE)
_READERS: dict[str, Callable[[str, str], Draft]] = {
    "text/markdown": markdown.read,
    "text/x-markdown": markdown.read,
    "text/mdx": markdown.read,
    "text/x-rst": rst.read,
    "text/prs.fallenstein.rst": rst.read,
    "application/x-ipynb+json": notebook.read,
    "text/plain": plain.read,
}


def is_markup(content_type: str) -> bool:
    return _media_type(content_type)[0] in _READERS


def to_html(text: str, content_type: str, *, title: str = "") -> str:
    """Return the text as a whole HTML document. title: for a text that has none of its own.

    content_type: may carry `variant` (RFC 7763), the generator whose anchors a Markdown text has: mkdocs, vitepress,
    myst, mdx; without it those of GitHub and Docusaurus. Raises ParseError: not_markup for any other type,
    bad_notebook for a notebook that is none.
    """
    media_type, variant = _media_type(content_type)
    if media_type not in _READERS:
        raise ParseError(title, "not_markup", content_type)
    read = plain.read if len(text) > MAX_CHARS else _READERS[media_type]
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    try:
        draft = read(text, variant)
    except LIBRARY_FAILURES:
        draft = plain.read(text, variant)
    return whole_document(draft, title)


def _media_type(content_type: str) -> tuple[str, str]:
    variant = _VARIANT.search(content_type)
    return content_type.partition(";")[0].strip().lower(), variant[1].lower() if variant else ""
