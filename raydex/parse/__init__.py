"""Read a page as a document: its main content, cut at every heading and symbol that has an address.

    Page → Document(title, sections, links, …)    pure, no I/O

1. `markup` turns what is no HTML (Markdown, reStructuredText, notebooks, plain text) into HTML.
2. `metadata` reads what the page says of itself: title, version, language, canonical address, robots, …
3. `tree` makes flat lists of the body, with the `roles` that its elements play by their names.
4. `content` finds the main content; `reader` walks it (`blocks`, `symbols`, `manual`) into the `outline` of sections.
5. `verdicts` tells pages that are none: soft 404s, shells that need JavaScript. `page` puts it all together.
"""

from raydex.parse.page import Document, parse_page

__all__ = ["Document", "parse_page"]
