"""The units of work of a build: read a little, call the stages, write a result, return a receipt. No Ray here.

    crawl unit  URLs of one host   → units/<id>.chunks.parquet, .sections.parquet, .json   → CrawlReceipt
    embed unit  a crawl unit       → units/<id>.vectors.npy (row i ↔ chunk i)              → EmbedReceipt
    shard unit  all units          → three objects of one shard                            → Shard

Every unit may be repeated at any time: its result depends only on the pages, and is renamed into place when whole.
"""

import hashlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydex.checkpoint import PageStore, VectorStore, full_disk_named, stamped, write_parquet
from raydex.chunk import Tokenizer, cut
from raydex.config import BuildConfig
from raydex.crawl import Fetcher, NotModified, Redirect, Visit
from raydex.embed import Embedder
from raydex.errors import FetchError, ParseError
from raydex.parse import parse_page
from raydex.records import Chunk, EmbedderInfo, Page, Section, Shard, Source, Vectors, stable_id
from raydex.shard import (
    CHUNK_SCHEMA,
    SECTION_SCHEMA,
    chunks_from_table,
    chunks_to_table,
    sections_to_table,
    write_shard,
)
from raydex.sources import public_url
from utils.files import write_atomically, write_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHECKPOINT_CHUNKS = 256
"""Chunks embedded between two writes to the embedding store: about 6 s of work at 41 chunks/s."""

MISSING = frozenset({"http_404", "http_410"})
SKIPPED = frozenset({"not_html", "empty", "navigation_only", "redirect_outside"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """What every unit of a build needs to know; sent to the workers once."""

    index_dir: Path
    build_id: str
    config: BuildConfig
    sources: tuple[Source, ...]
    embedder: EmbedderInfo

    @property
    def build_dir(self) -> Path:
        return self.index_dir / "builds" / self.build_id

    @property
    def units_dir(self) -> Path:
        return self.build_dir / "units"

    @property
    def objects_dir(self) -> Path:
        return self.index_dir / "objects"

    def source(self, name: str) -> Source:
        return next(source for source in self.sources if source.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlUnit:
    """Pages of one host that are fetched one after the other. delay_s: seconds between two requests."""

    unit_id: str
    host: str
    visits: tuple[Visit, ...]
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOutcome:
    """What became of one URL. outcome: fetched, redirected, missing, skipped or failed; the reason says why."""

    url: str
    outcome: str
    reason: str = ""
    detail: str = ""
    referrer: str = ""
    redirect_to: str = ""
    links: tuple[str, ...] = ()
    origin: str = ""  # fetched pages: network, unchanged (304) or reused (fetched before this build was killed)
    bytes: int = 0
    sections: int = 0
    chunks: int = 0
    dropped_words: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlReceipt:
    """content: digest of all that the unit's chunks give to embedder and snapshot; empty without chunks."""

    unit_id: str
    outcomes: tuple[PageOutcome, ...]
    content: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def chunk_count(self) -> int:
        return sum(outcome.chunks for outcome in self.outcomes)

    @property
    def has_failures(self) -> bool:
        return any(outcome.outcome == "failed" for outcome in self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReceipt:
    unit_id: str
    embedded: int
    reused: int
    tokens: int  # of the embedded ones
    seconds: float


def outcome_of(error: FetchError | ParseError) -> str:
    """Return missing, skipped or failed: a broken link or a picture is no failure of the site."""
    if error.reason in MISSING:
        return "missing"
    return "skipped" if error.reason in SKIPPED else "failed"


def crawl_unit(context: BuildContext, unit: CrawlUnit, tokenizer: Tokenizer) -> CrawlReceipt:
    """Fetch, parse and chunk the pages of a unit; no page can end the unit, each has an outcome."""
    crawl = PageCrawl(context, tokenizer)
    outcomes: list[PageOutcome] = []
    with full_disk_named(context.index_dir), Fetcher(context.config.crawl, delay_s=unit.delay_s) as fetcher:
        for visit in unit.visits:
            try:
                outcome = crawl.visit(fetcher, visit)
            except (FetchError, ParseError) as error:
                links = error.links if isinstance(error, ParseError) else ()
                outcome = _outcome(visit, outcome_of(error), reason=error.reason, detail=error.detail, links=links)
            except OSError:
                raise  # the disk, not the page
            except Exception as error:  # one bad page must not end the crawl; counted and reported
                logger.exception("page failed url=%s", visit.url)
                outcome = _outcome(visit, "failed", reason=type(error).__name__, detail=str(error)[:200])
            outcomes.append(outcome)
        receipt = CrawlReceipt(
            unit_id=unit.unit_id, outcomes=tuple(outcomes), content=crawl.content(), seconds=dict(crawl.seconds)
        )
        crawl.write(receipt)
    return receipt


def _outcome(visit: Visit, outcome: str, **fields: Any) -> PageOutcome:
    return PageOutcome(url=visit.url, outcome=outcome, referrer=visit.referrer, **fields)


class PageCrawl:
    """Takes the pages of one unit from URL to chunks and keeps the time of each stage."""

    def __init__(self, context: BuildContext, tokenizer: Tokenizer) -> None:
        self._context, self._tokenizer = context, tokenizer
        self._store = PageStore(context.index_dir / "pages")
        self._sections: list[Section] = []
        self._chunks: list[Chunk] = []
        self.seconds: dict[str, float] = defaultdict(float)

    def visit(self, fetcher: Fetcher, visit: Visit) -> PageOutcome:
        fetched, origin = self._timed("fetch", lambda: self._fetch(fetcher, visit))
        if isinstance(fetched, Redirect):
            return _outcome(visit, "redirected", redirect_to=fetched.target)
        document = self._timed("parse", lambda: parse_page(fetched))
        chunks = self._timed("chunk", lambda: self._cut(document.sections))
        self._sections.extend(document.sections)
        self._chunks.extend(chunks)
        return _outcome(
            visit,
            "fetched",
            links=document.links,
            origin=origin,
            bytes=len(fetched.body),
            sections=len(document.sections),
            chunks=len(chunks),
            dropped_words=document.dropped_words,
        )

    def content(self) -> str:
        return stable_id(*((chunk.chunk_id, chunk.embedder_input) for chunk in self._chunks)) if self._chunks else ""

    def write(self, receipt: CrawlReceipt) -> None:
        """Write chunks, sections and, last, the receipt."""
        base = self._context.units_dir / receipt.unit_id
        write_parquet(base.with_suffix(".chunks.parquet"), chunks_to_table(self._chunks))
        write_parquet(base.with_suffix(".sections.parquet"), sections_to_table(self._sections))
        write_bytes(base.with_suffix(".json"), json.dumps(asdict(receipt)).encode())

    def _fetch(self, fetcher: Fetcher, visit: Visit) -> tuple[Page | Redirect, str]:
        source = self._context.source(visit.source)
        stored = self._store.load(stable_id(public_url(source, visit.url)))
        known = stored.page if stored and stored.page.crawl_url == visit.url else None
        if stored and known and stored.build_id == self._context.build_id:
            return known, "reused"
        validators = {"etag": known.etag, "last_modified": known.last_modified} if known else {}
        fetched = fetcher.fetch(source, visit.url, **validators)
        if isinstance(fetched, Redirect):
            return fetched, ""
        if isinstance(fetched, NotModified) and known:
            page, origin = stamped(known), "unchanged"
        elif isinstance(fetched, Page):
            page, origin = fetched, "network"
        else:
            raise FetchError(visit.url, "protocol", "304 without a conditional request")
        self._store.save(page, self._context.build_id)
        return page, origin

    def _cut(self, sections: Sequence[Section]) -> list[Chunk]:
        return [chunk for section in sections for chunk in cut(section, self._tokenizer, self._context.config.chunk)]

    def _timed(self, stage: str, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds[stage] += time.perf_counter() - started


def load_crawl_receipt(context: BuildContext, unit_id: str) -> CrawlReceipt:
    """Read the receipt that a finished unit left on disk."""
    fields = json.loads((context.units_dir / f"{unit_id}.json").read_bytes())
    outcomes = tuple(PageOutcome(**{**o, "links": tuple(o["links"])}) for o in fields.pop("outcomes"))
    return CrawlReceipt(outcomes=outcomes, **fields)


def vector_key(chunk: Chunk) -> bytes:
    """The key of the embedding store: sha256 of the exact embedder input (its folder bears the model)."""
    return hashlib.sha256(chunk.embedder_input.encode()).digest()


def embed_unit(context: BuildContext, unit_id: str, embedder: Embedder, store: VectorStore) -> EmbedReceipt:
    """Give every chunk of a unit its vector: from the store if it is there, else from the model, and then stored."""
    started = time.perf_counter()
    chunks = chunks_from_table(pq.read_table(context.units_dir / f"{unit_id}.chunks.parquet"))
    keys = [vector_key(chunk) for chunk in chunks]
    with full_disk_named(context.index_dir):
        store.refresh()
        vectors = store.find(keys)
        missing = {key: chunk for key, chunk in zip(keys, chunks, strict=True) if key not in vectors}
        by_length = sorted(missing, key=lambda key: (missing[key].token_count, key))
        for first in range(0, len(by_length), CHECKPOINT_CHUNKS):
            batch = by_length[first : first + CHECKPOINT_CHUNKS]
            fresh = embedder.embed_passages([missing[key].embedder_input for key in batch])
            store.add(batch, fresh)
            vectors.update(zip(batch, fresh, strict=True))
        rows = np.stack([vectors[key] for key in keys]) if keys else np.empty((0, context.embedder.dim), np.float32)
        with write_atomically(context.units_dir / f"{unit_id}.vectors.npy") as out:
            np.save(out, rows, allow_pickle=False)
    return EmbedReceipt(
        unit_id=unit_id,
        embedded=len(missing),
        reused=len(chunks) - len(missing),
        tokens=sum(chunk.token_count for chunk in missing.values()),
        seconds=time.perf_counter() - started,
    )


def shard_number(page_id: str, shards: int) -> int:
    """The shard of a page: its id modulo the number of shards, so that an edited page touches one shard."""
    return int(page_id[:8], 16) % shards


def shard_unit(context: BuildContext, number: int, shards: int, unit_ids: Sequence[str]) -> Shard:
    """Gather the rows of one shard from all units and write its objects."""
    chunks, sections, vectors = [], [], []
    for unit_id in unit_ids:
        base = context.units_dir / unit_id
        table = pq.read_table(f"{base}.chunks.parquet")
        mine = _rows_of(table, number, shards)
        if not mine.any():
            continue
        chunks.append(table.filter(pa.array(mine)))
        vectors.append(np.load(f"{base}.vectors.npy", mmap_mode="r", allow_pickle=False)[mine])
        of_unit = pq.read_table(f"{base}.sections.parquet")
        sections.append(of_unit.filter(pa.array(_rows_of(of_unit, number, shards))))
    rows: Vectors = np.concatenate(vectors) if vectors else np.empty((0, context.embedder.dim), np.float32)
    with full_disk_named(context.index_dir):
        return write_shard(
            f"{number:05d}",
            pa.concat_tables([CHUNK_SCHEMA.empty_table(), *chunks]),
            np.ascontiguousarray(rows),
            pa.concat_tables([SECTION_SCHEMA.empty_table(), *sections]),
            context.objects_dir,
        )


def _rows_of(table: pa.Table, number: int, shards: int) -> "np.ndarray[Any, np.dtype[np.bool_]]":
    numbers = {page_id: shard_number(page_id, shards) for page_id in pc.unique(table["page_id"]).to_pylist()}
    return np.fromiter((numbers[i] == number for i in table["page_id"].to_pylist()), np.bool_, table.num_rows)
