"""Read a page as a document: its main content, cut at every heading and symbol that has an address.

    Page → Document(title, sections, links, …)    pure, no I/O

1. `markup` turns what is no HTML (Markdown, reStructuredText, notebooks, plain text) into HTML.
2. `metadata` reads what the page says of itself: title, version, language, canonical address, robots, …
3. `verdicts` tells pages that are none: soft 404s, shells that need JavaScript.
4. `reader` walks the main content and cuts it into sections.
"""

from raydex.parse.page import Document, parse_page

__all__ = ["Document", "parse_page"]
