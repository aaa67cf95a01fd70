"""What the addresses of an HTML page open: headings and entries of definition lists, without the product's parser.

    HTML → [Opening(ids, text, …)]    in page order; the ids that lead to one heading or definition stand together

An id belongs to the heading or `dt` that holds it or that follows it before any text, else to the one before it.
"""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

HEADINGS = {f"h{level}": level for level in range(1, 7)}
TERM_LEVEL = 7
UNREAD = frozenset({"script", "style", "title"})
VOID = frozenset({"br", "img", "hr", "input", "link", "meta", "col", "area", "wbr"})


@dataclass(slots=True)
class Opening:
    """level: 1 to 6 of a heading, 7 of a definition. inner: ids of its text. code: how many of its letters are code."""

    level: int
    ids: list[str]
    text: str = ""
    permalink: str = ""
    code: int = 0
    inner: list[str] = field(default_factory=list)
    around: "Opening | None" = None

    @property
    def anchor(self) -> str:
        return self.permalink if self.permalink in self.ids else self.ids[0] if self.ids else ""

    @property
    def is_code(self) -> bool:
        return self.code >= 0.9 * len(re.sub(r"\s", "", self.text))


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.openings = [Opening(0, [])]
        self._pending: list[str] = []
        self._current: Opening | None = None  # whose heading or term is being read
        self._tag = ""
        self._code = 0
        self._unread = 0
        self._links: list[bool] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        ids = [value for value in (attributes.get("id"), attributes.get("name") if tag == "a" else "") if value]
        if (tag in HEADINGS or tag == "dt") and self._current is None:
            self._begin(tag, ids)
        elif self._current is not None:
            self._current.ids += ids
        else:
            self._pending += ids
        if tag == "br" and self._current is not None:
            self._current.text += " "
        self._unread += tag in UNREAD
        self._code += tag in {"code", "tt", "pre"}
        if tag == "a":
            is_permalink = attributes.get("class") in {"headerlink", "permalink", "anchor"}
            self._links.append(attributes.get("class") == "headerlink")
            if self._current is not None and is_permalink and attributes.get("href", "").startswith("#"):
                self._current.permalink = unquote(attributes["href"][1:])

    def _begin(self, tag: str, ids: list[str]) -> None:
        opening = Opening(HEADINGS.get(tag, TERM_LEVEL), list(dict.fromkeys([*self._pending, *ids])))
        above = (known for known in reversed(self.openings) if known.level < min(opening.level, TERM_LEVEL))
        opening.around = next(above, None)
        self.openings.append(opening)
        self._pending, self._current, self._tag = [], opening, tag

    def handle_endtag(self, tag: str) -> None:
        self._unread -= tag in UNREAD
        self._code -= tag in {"code", "tt", "pre"}
        if tag == "a" and self._links:
            self._links.pop()
        if self._current is not None and tag in {self._tag, "dl"}:
            self._current.text = " ".join(self._current.text.split())
            self._current = None

    def handle_data(self, data: str) -> None:
        if self._unread > 0 or not data.strip():
            if self._current is not None and self._unread <= 0:
                self._current.text += data
            return
        if self._current is None:
            self.openings[-1].inner += self._pending
            self._pending.clear()
        elif not (self._links and self._links[-1]):
            self._current.text += data
            self._current.code += len(re.sub(r"\s", "", data)) if self._code > 0 else 0


def openings_of(path: Path) -> list[Opening]:
    """Return what a page opens; the first one is the page itself, before any heading."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8", errors="replace"))
    reader.close()
    reader.openings[-1].inner += reader._pending
    return reader.openings


def opening_of(openings: list[Opening], anchor: str) -> Opening | None:
    """Return what an id opens or, when it stands within text, the opening above it."""
    whole = (known for known in openings if anchor in known.ids)
    within = (known for known in openings if anchor in known.inner)
    return next(whole, next(within, None))


def headings_around(opening: Opening | None) -> list[str]:
    """Return the ids of the nearest heading around an opening that has any."""
    above = opening.around if opening else None
    while above and not above.ids:
        above = above.around
    return above.ids if above else []
