"""How much of a rendered page the parser keeps, and how right its anchors are.

    Generator, site folder → Score    reads files; parses with raydex.parse

The rendered pages are read a second time with BeautifulSoup, which shares no code with the parser, to find the element
that shows a heading and the one that a browser scrolls to for a fragment.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString, PageElement, PreformattedString

from bench.corpus.generator import Generator
from bench.corpus.pages import Expected, SourcePage, words_of
from raydex.errors import ParseError
from raydex.parse import Document, parse_page
from raydex.records import Page, Section

UNSEEN = frozenset({"script", "style", "template", "noscript"})
LANGUAGES = {"js": "javascript", "sh": "bash", "shell": "bash", "yml": "yaml", "rs": "rust", "py": "python"}

_FENCED = re.compile(r"^(`{3,})(.*)\n([\s\S]*?)\n\1$", re.MULTILINE)


@dataclass(slots=True)
class Score:
    """Counts over the pages of one site; the shares are what the targets are about."""

    pages: int = 0
    source_words: int = 0
    found_words: int = 0
    kept_words: int = 0
    boilerplate_words: int = 0
    page_words: int = 0
    page_boilerplate_words: int = 0
    headings: int = 0
    anchored: int = 0
    right_anchors: int = 0
    code_blocks: int = 0
    whole_blocks: int = 0
    right_languages: int = 0
    table_rows: int = 0
    whole_rows: int = 0
    symbols: int = 0
    named_symbols: int = 0
    faults: dict[str, list[str]] = field(default_factory=dict)

    @property
    def recall(self) -> float:
        return self.found_words / self.source_words if self.source_words else 0.0

    @property
    def boilerplate(self) -> float:
        return self.boilerplate_words / self.kept_words if self.kept_words else 1.0

    @property
    def boilerplate_of_pages(self) -> float:
        """The same share of all the text of the pages, as a tool without regard to main content would index it."""
        return self.page_boilerplate_words / self.page_words if self.page_words else 1.0

    @property
    def anchors(self) -> float:
        return self.right_anchors / self.anchored if self.anchored else 0.0

    def fault(self, kind: str, what: str) -> None:
        self.faults.setdefault(kind, []).append(what)


@dataclass(frozen=True, slots=True)
class _Reading:
    expected: Expected
    soup: BeautifulSoup
    sections: tuple[Section, ...]
    kept: Counter[str]


def score_site(generator: Generator, pages: Iterable[SourcePage], site: Path) -> Score:
    score = Score()
    readings = [_read(expected, site, score) for page in pages for expected in generator.expected(page)]
    for reading in readings:
        _score_words(reading, score)
        _score_anchors(generator, reading, score)
        _score_code(generator, reading, score)
        _score_tables_and_symbols(reading, score)
    foreign = _boilerplate([(reading.expected, reading.kept) for reading in readings])
    score.kept_words = sum(reading.kept.total() for reading in readings)
    score.boilerplate_words = foreign.total()
    for word, count in foreign.most_common():
        score.fault("boilerplate", f"{word} ({count})")
    texts = [(reading.expected, Counter(words_of(reading.soup.get_text(" ")))) for reading in readings]
    score.page_words = sum(words.total() for _, words in texts)
    score.page_boilerplate_words = _boilerplate(texts).total()
    return score


def _boilerplate(texts: Sequence[tuple[Expected, Counter[str]]]) -> Counter[str]:
    """Count the words that stand on more than half of the pages and are not from the source of theirs."""
    in_pages = Counter(word for _, words in texts for word in words)
    common = {word for word, count in in_pages.items() if count > len(texts) / 2}
    foreign: Counter[str] = Counter()
    for expected, words in texts:
        foreign.update({word: words[word] for word in common & words.keys() - expected.allowed})
    return foreign


def _read(expected: Expected, site: Path, score: Score) -> _Reading:
    path = site / expected.path
    body = path.read_bytes() if path.exists() else b""
    if not body:
        score.fault("not rendered", expected.path)
    soup = BeautifulSoup(body, "html.parser")
    try:
        document = parse_page(_page(expected.path, body))
    except ParseError as error:
        score.fault("refused", f"{expected.path}: {error}")
        return _Reading(expected, soup, (), Counter())
    return _Reading(expected, soup, document.sections, _kept_words(document))


def _page(path: str, body: bytes) -> Page:
    url = f"https://corpus.example/{path.removesuffix('index.html')}"
    return Page(
        page_id=path,
        url=url,
        crawl_url=url,
        source="corpus",
        fetched_at=datetime.now(UTC),
        status=200,
        content_type="text/html; charset=utf-8",
        body=body,
        body_sha256=hashlib.sha256(body).hexdigest(),
    )


def _kept_words(document: Document) -> Counter[str]:
    """Count what the index would hold of a page: the text of its sections, and each heading once."""
    paths = {section.headings[:end] for section in document.sections for end in range(1, len(section.headings) + 1)}
    kept = Counter(words_of(document.title))
    for path in paths:
        kept.update(words_of(path[-1]))
    for section in document.sections:
        kept.update(words_of(section.text))
    return kept


def _score_words(reading: _Reading, score: Score) -> None:
    wanted = reading.expected.words
    missing = wanted - reading.kept
    score.pages += 1
    score.source_words += wanted.total()
    score.found_words += wanted.total() - missing.total()
    if missing:
        words = ", ".join(f"{word}×{count}" if count > 1 else word for word, count in missing.items())
        score.fault("missing words", f"{reading.expected.path}: {words}")


def _score_anchors(generator: Generator, reading: _Reading, score: Score) -> None:
    headings = _shown(reading.soup, generator.headings, reading.expected.headings, _ends_with)
    symbols = _shown(reading.soup, generator.symbols, reading.expected.symbols, _contains)
    names = Counter((*reading.expected.headings, *reading.expected.symbols))
    seen: Counter[str] = Counter()
    for rules, shown in ((generator.anchors, headings), (generator.symbol_anchors, symbols)):
        for name, element in shown:
            seen[name] += 1
            score.headings += 1
            if element is None:
                score.anchored += 1
                score.fault("headings not in the page", f"{reading.expected.path}: {name}")
            else:
                ordinal = seen[name] if names[name] > 1 else 0
                _score_anchor(reading, score, _Heading(name, ordinal, element, _own_anchor(element, rules)))


@dataclass(frozen=True, slots=True)
class _Heading:
    """A heading or symbol as rendered. ordinal: among those of its name, from 1; 0 when the name is unique.

    anchor: its own, "" where it has none.
    """

    name: str
    ordinal: int
    element: Tag
    anchor: str


def _score_anchor(reading: _Reading, score: Score, heading: _Heading) -> None:
    what = f"{reading.expected.path}: {heading.name}"
    title = (*reading.expected.headings, *reading.expected.symbols)[:1]
    if not heading.anchor and heading.name not in title:
        score.fault("no anchor in page", what)
        return
    found = _fragments(reading.sections, heading)
    if not found and _is_above_others(reading.sections, heading):
        return
    score.anchored += 1
    if any(_is_right(reading.soup, fragment, heading) for fragment in found):
        score.right_anchors += 1
    else:
        got = " ".join(f"#{fragment}" for fragment in found) or "no section"
        score.fault("wrong anchors", f"{what}: {got}, expected #{heading.anchor}")


def _is_right(soup: BeautifulSoup, fragment: str, heading: _Heading) -> bool:
    return _jumps_to(soup, fragment, heading.element) if fragment else not heading.anchor


def _shown(
    soup: BeautifulSoup, css: str, names: Iterable[str], fits: Callable[[list[str], list[str]], bool]
) -> Iterator[tuple[str, Tag | None]]:
    """Find the element that shows each name, each element once, in page order.

    Where none has just the name as text, one that ends with it will do, since some generators number chapters.
    """
    elements = [(element, words_of(element.get_text())) for element in soup.select(css)] if css else []
    for name in names:
        wanted = words_of(name)
        exact = (index for index, (_, words) in enumerate(elements) if words == wanted)
        similar = (index for index, (_, words) in enumerate(elements) if fits(words, wanted))
        index = next(chain(exact, similar), None)
        yield name, None if index is None else elements.pop(index)[0]


def _ends_with(words: list[str], wanted: list[str]) -> bool:
    return words[-len(wanted) :] == wanted


def _contains(words: list[str], wanted: list[str]) -> bool:
    return "_".join(wanted) in "_".join(words)


def _fragments(sections: Iterable[Section], heading: _Heading) -> list[str]:
    """Return the fragments of the sections under a heading or symbol, "" for the page's own URL."""
    wanted = words_of(heading.name)
    fitting = [section for section in sections if wanted in (words_of(section.headings[-1]), _symbol_words(section))]
    if not fitting:
        fitting = [section for section in sections if _contains(words_of(section.headings[-1]), wanted)]
    chosen = fitting[heading.ordinal - 1 : heading.ordinal] if heading.ordinal else fitting
    return [unquote(section.url.partition("#")[2]) for section in chosen]


def _is_above_others(sections: Iterable[Section], heading: _Heading) -> bool:
    """Tell whether all that stands under a heading is in sections of its own, so that it needs none."""
    wanted = words_of(heading.name)
    return any(wanted == words_of(above) for section in sections for above in section.headings[:-1])


def _symbol_words(section: Section) -> list[str]:
    return words_of(re.split(r"[.:#]", section.symbol)[-1])


def _own_anchor(element: Tag, rules: Iterable[str]) -> str:
    """Return the id that the generator gives a heading, by the places where it writes them."""
    for rule in rules:
        place = _place(element, rule)
        if isinstance(place, Tag) and (anchor := place.get("id") or place.get("name")):
            return str(anchor)
    return ""


def _place(element: Tag, rule: str) -> PageElement | None:
    match rule:
        case "section":
            return element.parent
        case "inside":
            return element.select_one("[id], [name]")
        case "before":
            return element.find_previous_sibling()
        case _:
            return element


def _jumps_to(soup: BeautifulSoup, fragment: str, heading: Tag) -> bool:
    """Tell whether the heading is the first thing a reader sees after following the fragment."""
    target = soup.find(id=fragment) or soup.find("a", attrs={"name": fragment})
    if not isinstance(target, Tag):
        return False
    if target is heading or heading in target.parents:
        return True
    for element in target.next_elements:
        if isinstance(element, NavigableString) and _is_seen(element):
            return heading in element.parents
    return False


def _is_seen(text: NavigableString) -> bool:
    if isinstance(text, PreformattedString) or not words_of(text):
        return False
    return not any(parent.name in UNSEEN for parent in text.parents)


def _score_code(generator: Generator, reading: _Reading, score: Score) -> None:
    blocks = (block for section in reading.sections for block in _FENCED.finditer(section.text))
    found = {_comparable(block[3], generator): block[2] for block in blocks}
    for language, code in reading.expected.code:
        score.code_blocks += 1
        given = found.get(_comparable(code, generator))
        if given is None:
            score.fault("broken code", f"{reading.expected.path}: {language}: {code.splitlines()[0]}")
            continue
        score.whole_blocks += 1
        name = LANGUAGES.get(given, given)
        if not generator.keeps_language or name == language or (language == "text" and not name):
            score.right_languages += 1
        else:
            score.fault("wrong languages", f"{reading.expected.path}: {name or 'none'}, expected {language}")


def _comparable(code: str, generator: Generator) -> str:
    lines = [line.rstrip() for line in code.strip("\n").splitlines()]
    return "\n".join(line for line in lines if line or generator.keeps_blank_lines)


def _score_tables_and_symbols(reading: _Reading, score: Score) -> None:
    """Count the table rows that are one line each, cells in order, and the API entries that know their symbol."""
    lines = {" ".join(words_of(line)) for section in reading.sections for line in section.text.splitlines()}
    for row in reading.expected.rows:
        score.table_rows += 1
        if row in lines:
            score.whole_rows += 1
        else:
            score.fault("broken rows", f"{reading.expected.path}: {row}")
    symbols = {re.split(r"[.:#(]+", section.symbol.rstrip("()"))[-1] for section in reading.sections}
    for symbol in reading.expected.symbols:
        score.symbols += 1
        if symbol in symbols:
            score.named_symbols += 1
        else:
            score.fault("symbols without a section", f"{reading.expected.path}: {symbol}")
