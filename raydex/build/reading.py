"""Read the fetched pages of a unit: sections, chunks, links; keep the last good copy of what went wrong. No Ray here.

    (Fetched, …) → units/<id>.{chunks,sections,pages,items}.parquet, .links.json → CrawlReceipt

A page that was read before, by the same code and settings, is not read again: its reading is in the page store.
"""

import functools
import hashlib
import json
import logging
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from raydex.build.embedding import unit_table
from raydex.build.items import items_of, write_items
from raydex.build.units import BuildContext, CrawlReceipt, Fetched, FetchUnit, PageOutcome, outcome_of
from raydex.checkpoint import PageStore, StoredPage, full_disk_named, write_parquet
from raydex.chunk import Tokenizer, cut
from raydex.crawl import Visit
from raydex.errors import FetchError, ParseError
from raydex.parse import parse_page
from raydex.records import Chunk, Page, PageInfo, Section, stable_id
from raydex.sources import canonical_url, in_scope, public_url
from raydex.tables import pages_to_table, sections_to_table
from utils.files import write_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")

COLLAPSE_WORDS, COLLAPSE_SHARE = 100, 0.2
"""A page that had 100 words and keeps less than a fifth of them has collapsed, until it has done so for some builds."""

BAD_READINGS = frozenset({"soft_404", "needs_javascript", "empty", "navigation_only", "layout_collapse", "deadline"})
"""What a page that was good before may turn into for a while: its last good copy is better."""

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()

READING_CODE = (
    *("raydex.parse", "raydex.chunk", "raydex.records"),
    *("utils.html_text", "utils.html_visibility", "utils.urls"),
)
READING_LIBRARIES = ("selectolax", "markdown-it-py", "mdit-py-plugins", "docutils", "tokenizers")
"""What decides what is read from a body; a change of code or version reads every page again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that a build needs of a page. reason: why it has no sections; canonical: public URL it calls its own."""

    info: PageInfo
    sections: tuple[Section, ...] = ()
    chunks: tuple[Chunk, ...] = ()
    links: tuple[str, ...] = ()
    canonical: str = ""
    dropped_words: int = 0
    hidden_words: int = 0
    total_words: int = 0
    dropped_samples: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""

    @property
    def words(self) -> int:
        return self.total_words - self.dropped_words


_READING = TypeAdapter(Reading)


@functools.cache
def code_digest() -> str:
    """Return the digest of the code that reads pages, wherever it was imported from."""
    origins = [Path(spec.origin) for name in READING_CODE if (spec := find_spec(name)) and spec.origin]
    files = [file for path in origins for file in ([path] if path.stem != "__init__" else path.parent.rglob("*.py"))]
    texts = [file.read_text(encoding="utf-8") for file in sorted(files, key=lambda file: file.parts[-3:])]
    return stable_id(*texts, *map(version, READING_LIBRARIES))


def stored_chunks(store: PageStore, page_id: str) -> tuple[Chunk, ...]:
    """Return the chunks of a page as it was last read; none when that is gone, or of another version."""
    try:
        known = store.reading(page_id)
        return _READING.validate_json(known).chunks if known else ()
    except ValidationError:
        return ()


def read_unit(context: BuildContext, unit: FetchUnit, fetched: Sequence[Fetched], tokenizer: Tokenizer) -> CrawlReceipt:
    """Read the pages of a unit; no page can end the unit, each has an outcome."""
    reader = UnitReader(context, unit, tokenizer)
    with full_disk_named(context.index_dir):
        for item in fetched:
            try:
                reader.take(item)
            except OSError:
                raise  # the disk, not the page
            except Exception as error:  # one bad page must not end the crawl; counted and reported
                logger.exception("page failed url=%s", item.visit.url)
                reader.fail(item.visit, type(error).__name__, str(error)[:200])
        return reader.write()


@dataclass(slots=True)
class _Rows:
    """What a unit gives to embedder and snapshot."""

    readings: list[Reading] = field(default_factory=list)
    outcomes: list[PageOutcome] = field(default_factory=list)
    links: dict[str, tuple[str, ...]] = field(default_factory=dict)


class UnitReader:
    """Takes fetched pages one by one and writes the unit; keeps the time of each stage."""

    def __init__(self, context: BuildContext, unit: FetchUnit, tokenizer: Tokenizer) -> None:
        self._context, self._unit, self._tokenizer = context, unit, tokenizer
        self._crawl = context.config.crawl
        self._store = PageStore(context.pages_dir)
        self._rows = _Rows()
        self._scopes = [
            (s.name, s.seeds, s.allow, s.deny, s.public_url, s.link_style, s.version, s.language)
            for s in context.sources
        ]
        self._seconds: dict[str, float] = defaultdict(float)

    def take(self, fetched: Fetched) -> None:
        started = time.perf_counter()
        self._seconds["fetch"] += fetched.seconds
        outcome = self._outcome(fetched)
        seconds = fetched.seconds + time.perf_counter() - started
        self._rows.outcomes.append(replace(outcome, referrer=fetched.visit.referrer, seconds=round(seconds, 4)))

    def fail(self, visit: Visit, reason: str, detail: str) -> None:
        failed = PageOutcome(url=visit.url, outcome="failed", reason=reason, detail=detail, referrer=visit.referrer)
        self._rows.outcomes.append(failed)

    def write(self) -> CrawlReceipt:
        """Write the unit's files and return its receipt."""
        base = self._context.units_dir / self._unit.unit_id
        readings = self._rows.readings
        chunks = [chunk for reading in readings for chunk in reading.chunks]
        sections = [section for reading in readings for section in reading.sections]
        write_parquet(base.with_suffix(".chunks.parquet"), unit_table(chunks), durable=False)
        write_parquet(base.with_suffix(".sections.parquet"), sections_to_table(sections), durable=False)
        write_parquet(base.with_suffix(".pages.parquet"), pages_to_table([r.info for r in readings]), durable=False)
        items = self._timed("sketch", lambda: [i for r in readings for i in items_of(r.info, r.sections, r.canonical)])
        write_items(base.with_suffix(".items.parquet"), items)
        write_bytes(base.with_suffix(".links.json"), json.dumps(self._rows.links).encode(), durable=False)
        return CrawlReceipt(
            unit_id=self._unit.unit_id,
            outcomes=tuple(self._rows.outcomes),
            content=stable_id(*((chunk.chunk_id, chunk.embedder_input) for chunk in chunks)) if chunks else "",
            seconds=dict(self._seconds),
        )

    def _outcome(self, fetched: Fetched) -> PageOutcome:
        visit = fetched.visit
        if fetched.redirect_to:
            return PageOutcome(url=visit.url, outcome="redirected", redirect_to=fetched.redirect_to)
        page_id = stable_id(public_url(self._context.source(visit.source), visit.url))
        stored = self._store.head(page_id)
        if fetched.reason:
            return self._without_page(visit, FetchError(visit.url, fetched.reason, fetched.detail), page_id, stored)
        is_changed = stored and fetched.page and stored.page.body_sha256 != fetched.page.body_sha256
        before = self._read(stored.page) if stored and is_changed else None  # first: the new reading takes its place
        page = fetched.page or (stored.page if stored else None)
        reading = self._read(page) if page else None
        if page is None or reading is None:  # 304, but our copy is damaged
            self._store.remove(page_id)
            return PageOutcome(url=visit.url, outcome="again", reason="store_damaged")
        if reading.reason == "needs_javascript" and self._crawl.render and not self._unit.renders:
            return PageOutcome(url=visit.url, outcome="again", reason="needs_javascript")
        reason = _worse(reading, before) if before else ""
        if stored and reason and (stale := self._stale(visit, reason, reading.detail, stored)):
            return stale
        return self._kept(fetched, page, reading)

    def _without_page(self, visit: Visit, error: FetchError, page_id: str, stored: StoredPage | None) -> PageOutcome:
        outcome = outcome_of(error)
        if stored and outcome == "failed" and (stale := self._stale(visit, error.reason, error.detail, stored)):
            return stale
        if stored and outcome == "missing":
            self._store.remove(page_id)
        return PageOutcome(url=visit.url, outcome=outcome, reason=error.reason, detail=error.detail)

    def _stale(self, visit: Visit, reason: str, detail: str, stored: StoredPage) -> PageOutcome | None:
        """Keep the last good copy, once more; None when that has been done often enough."""
        is_counted = stored.build_id == self._context.build_id and stored.stale_builds > 0
        stale_builds = stored.stale_builds + (not is_counted)
        reading = self._read(stored.page)
        if stale_builds > self._crawl.stale_builds or not reading or not reading.sections:
            return None
        self._store.confirm(stored.page, self._context.build_id, stale_builds=stale_builds)
        reading = replace(reading, info=replace(reading.info, stale_builds=stale_builds))
        return replace(
            self._indexed(visit, stored.page, reading),
            outcome="stale",
            reason=reason,
            detail=detail,
            stale_builds=stale_builds,
        )

    def _kept(self, fetched: Fetched, page: Page, reading: Reading) -> PageOutcome:
        """Store the page as the site has it now, and take what it says."""
        if fetched.page is not None:
            self._store.save(page, self._context.build_id)
        elif fetched.origin == "unchanged":
            self._store.confirm(replace(page, fetched_at=datetime.now(UTC)), self._context.build_id)
        if not reading.sections:
            error = ParseError(page.url, reading.reason or "empty", reading.detail)
            self._rows.links[fetched.visit.url] = reading.links
            return PageOutcome(
                url=fetched.visit.url, outcome=outcome_of(error), reason=error.reason, detail=error.detail
            )
        return replace(self._indexed(fetched.visit, page, reading), outcome="fetched", origin=fetched.origin)

    def _indexed(self, visit: Visit, page: Page, reading: Reading) -> PageOutcome:
        self._rows.readings.append(reading)
        self._rows.links[visit.url] = reading.links
        return PageOutcome(
            url=visit.url,
            outcome="fetched",
            page_id=page.page_id,
            bytes=len(page.body),
            sections=len(reading.sections),
            chunks=len(reading.chunks),
            dropped_words=reading.dropped_words,
            hidden_words=reading.hidden_words,
            dropped_samples=reading.dropped_samples,
        )

    def _read(self, page: Page) -> Reading | None:
        """Return what the page says: as it was read before, by the same recipe, or read now and kept.

        A page without a body is the stored one; None when that cannot be read.
        """
        recipe = self._recipe(page)
        if known := self._store.reading(page.page_id, recipe):
            return _READING.validate_json(known)
        if not page.body and page.body_sha256 != EMPTY_SHA256:
            stored = self._store.load(page.page_id)
            if stored is None:
                return None
            page = stored.page
        reading = self._read_anew(page)
        self._store.save_reading(page.page_id, recipe, _READING.dump_json(reading))
        return reading

    def _read_anew(self, page: Page) -> Reading:
        source = self._context.source(page.source)
        info = PageInfo(
            page_id=page.page_id, url=page.url, source=page.source, title=page.url, body_sha256=page.body_sha256
        )
        try:
            with deadline(self._crawl.parse_deadline_s, page.url):
                document = self._timed("parse", lambda: parse_page(page))
                chunks = self._timed("chunk", lambda: self._cut(document.sections))
        except ParseError as error:
            return Reading(info=info, links=self._crawl_links(error.links), reason=error.reason, detail=error.detail)
        canonical = canonical_url(document.canonical) if document.canonical else ""
        links = self._crawl_links((*document.links, document.canonical))
        return Reading(
            info=replace(
                info,
                title=document.title,
                description=document.description,
                version=document.version or source.version,
                language=document.language or source.language,
                breadcrumbs=document.breadcrumbs,
                updated=document.updated,
            ),
            sections=document.sections,
            chunks=chunks,
            links=links,
            canonical=public_url(source, canonical) if canonical and in_scope(source, canonical) else canonical,
            dropped_words=document.dropped_words,
            hidden_words=document.hidden_words,
            total_words=document.total_words,
            dropped_samples=document.dropped_samples,
        )

    def _crawl_links(self, links: Sequence[str]) -> tuple[str, ...]:
        """Return the links that some source holds, in one spelling, each once: the only ones a crawl may follow."""
        if "links" not in self._crawl.discover:
            return ()
        canonical = dict.fromkeys(canonical_url(link) for link in links if link)
        return tuple(url for url in canonical if url and any(in_scope(s, url) for s in self._context.sources))

    def _recipe(self, page: Page) -> str:
        decisive = (page.body_sha256, page.content_type, page.url, page.crawl_url, page.robots, page.title)
        model = (self._context.embedder.sha256, self._context.embedder.max_tokens)  # whatever runs it
        context = (self._context.config.chunk.model_dump_json(), *model)
        return stable_id(code_digest(), *decisive, *context, *self._crawl.discover, *self._scopes)

    def _cut(self, sections: Sequence[Section]) -> tuple[Chunk, ...]:
        config = self._context.config.chunk
        return tuple(chunk for section in sections for chunk in cut(section, self._tokenizer, config))

    def _timed(self, stage: str, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        try:
            return call()
        finally:
            self._seconds[stage] += time.perf_counter() - started


def _worse(reading: Reading, before: Reading) -> str:
    """Return why the last good copy is better than what the site has now; "" when it is not."""
    if reading.reason:
        return reading.reason if before.words and reading.reason in BAD_READINGS else ""
    has_collapsed = before.words >= COLLAPSE_WORDS and reading.words < COLLAPSE_SHARE * before.words
    return "layout_collapse" if has_collapsed else ""


@contextmanager
def deadline(seconds: float, url: str) -> Iterator[None]:
    """Raise ParseError (deadline) in this thread, the main one, when the block takes longer."""

    def over(_signal: int, _frame: Any) -> None:
        raise ParseError(url, "deadline", f"not read within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def links_of(context: BuildContext, unit_id: str) -> dict[str, list[str]]:
    """Return URL → links of the pages of a unit that has been read."""
    links: dict[str, list[str]] = json.loads((context.units_dir / f"{unit_id}.links.json").read_bytes())
    return links
