"""Where a reading stands: the open headings and symbols, outermost first, and all sections begun so far.

open(level, text, anchor, …), close_to(depth)  →  drafts  →  [Section, …]
"""

import re
from dataclasses import dataclass, field
from itertools import zip_longest
from urllib.parse import quote

from raydex.parse.symbols import Symbol, last_part, module_of
from raydex.records import Page, Section, SectionKind
from utils.html_text import TextReducer

MAX_HEADINGS = 16  # of a path; without a bound, symbols nested n deep would cost n² headings
MAX_HEADING_CHARS = 400
CODE_SHARE = 0.5  # of a section's letters
LINK_SHARE = 0.9  # of the letters of a section that is a list of links
MAX_SHARED_CHARS = 500  # of a description that several signatures share and each of them repeats
MAX_ALIASES = 64
BLOCK_LEVEL = 7  # of a symbol without heading whose text follows it; any heading ends it
_BETWEEN_LINKS = re.compile(r"[\s|·•,;:/-]+")
_FRAGMENT_SAFE = "!$&'()*+,;=:@/?~"


@dataclass(slots=True)
class Draft:
    """A section while it is read. level: of its heading; 0 for the page and for symbols, which no heading ends."""

    level: int
    anchor: str
    headings: tuple[str, ...]
    symbol: Symbol = field(default_factory=lambda: Symbol("", ""))
    reducer: TextReducer = field(default_factory=TextReducer)
    code_letters: int = 0
    links: int = 0
    link_letters: int = 0
    further_names: list[str] = field(default_factory=list)  # of the same symbol, besides those that it knows itself
    signature_chars: int = 0  # of the text, before the description
    described_by: "Draft | None" = None  # whose description this one shares

    def only_announces(self, below: "Draft") -> bool:
        """Tell whether this is no more than a heading over the entry of the same symbol."""
        name = last_part(self.symbol.name)
        is_twice = bool(self.level and name) and name == last_part(below.symbol.name)
        return is_twice and not module_of(self.anchor) and not self.reducer.text()

    def is_navigation(self, text: str) -> bool:
        """Tell whether a text is nothing but links and what stands between them."""
        return self.link_letters >= LINK_SHARE * len(_BETWEEN_LINKS.sub("", text))

    def text(self) -> str:
        """Return the text; a symbol without a description has its signature, since it can be asked for."""
        text = self.reducer.text()
        text = text or (self.symbol.text if self.symbol.name and self.symbol.is_api and self.anchor else "")
        return f"{text}\n\n{self.described_by.first_words()}".rstrip() if self.described_by else text

    def first_words(self) -> str:
        """Return the first paragraph of the description, cut to what further signatures repeat of it."""
        paragraph = self.reducer.text()[self.signature_chars :].strip().partition("\n\n")[0]
        if paragraph.startswith("```") or len(paragraph) <= MAX_SHARED_CHARS:
            return "" if paragraph.startswith("```") else paragraph
        return f"{paragraph[:MAX_SHARED_CHARS].rpartition(' ')[0]} …"

    def aliases(self) -> tuple[str, ...]:
        names = dict.fromkeys((*self.symbol.aliases, *self.further_names))
        return tuple(name for name in names if name != self.symbol.name)[:MAX_ALIASES]

    def kind(self, text: str) -> SectionKind:
        if self.symbol.name and self.symbol.is_api:
            return "api"
        return "code" if self.code_letters > CODE_SHARE * len(text) else "prose"


class Outline:
    def __init__(self, title: str) -> None:
        self.drafts = [Draft(0, "", ())]
        self._title = title
        self._open = [self.drafts[0]]

    @property
    def depth(self) -> int:
        return len(self._open)

    @property
    def current(self) -> Draft:
        return self._open[-1]

    @property
    def reducer(self) -> TextReducer:
        return self._open[-1].reducer

    @property
    def symbol(self) -> str:
        """The innermost symbol of code that is open and may have members (a flag has none), if any."""
        for draft in reversed(self._open[-MAX_HEADINGS:]):
            if draft.symbol.name and draft.symbol.is_api and not draft.symbol.name.startswith("-"):
                return draft.symbol.name
        return ""

    def open(self, level: int, anchor: str, symbol: Symbol) -> Draft:
        """Begin a section; a heading (level 1 to 7) ends those of its level and below that began since a symbol did."""
        while level and self._open[-1].level >= level:
            self._open.pop()
        draft = self._draft(level, anchor, symbol)
        self._open.append(draft)
        return draft

    def add_beside(self, anchor: str, symbol: Symbol) -> Draft:
        """Begin a further section beside the current one, which stays open and has the description of both."""
        current = self._open.pop()
        draft = self._draft(0, anchor, symbol)
        draft.described_by = current
        self._open.append(current)
        return draft

    def close_to(self, depth: int) -> None:
        del self._open[depth:]

    def _draft(self, level: int, anchor: str, symbol: Symbol) -> Draft:
        above = self._open[-1].headings[: MAX_HEADINGS - 1]
        text = symbol.text[:MAX_HEADING_CHARS]
        if not above and level != 1 and text != self._title:
            above = (self._title,)
        draft = Draft(level, quote(anchor, safe=_FRAGMENT_SAFE), (*above, text), symbol)
        self.drafts.append(draft)
        return draft


def finished_sections(page: Page, title: str, drafts: list[Draft]) -> tuple[Section, ...]:
    """Return the drafts that have text; those without an anchor take the URL of the last one that had one."""
    sections: list[Section] = []
    repeats: dict[str, int] = {}
    url = page.url
    for draft, below in zip_longest(drafts, drafts[1:]):
        if draft.anchor:
            url = f"{page.url}#{draft.anchor}"
        if (text := draft.text()) and not (below and draft.only_announces(below)):
            sections.append(
                Section(
                    section_id=_unrepeated(url, repeats),
                    page_id=page.page_id,
                    url=url,
                    title=title,
                    headings=draft.headings or (title,),
                    text=text,
                    position=len(sections),
                    kind=draft.kind(text),
                    symbol=draft.symbol.name,
                    aliases=draft.aliases(),
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
