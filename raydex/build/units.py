"""What travels between the driver of a build and its workers: context, units of work, receipts. Data only.

    FetchUnit → fetching.py → (Fetched, …) → reading.py → CrawlReceipt → rows.py → EmbedReceipt, Shard

A unit may be repeated at any time: its result depends only on the pages, and is renamed into place when whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from raydex.config import BuildConfig
from raydex.crawl import Visit
from raydex.errors import FetchError, ParseError
from raydex.records import EmbedderInfo, Page, Source

MISSING = frozenset({"http_404", "http_410", "file_missing", "soft_404"})
"""The site says that there is no such page: it leaves the index at once."""

SKIPPED = frozenset({
    "not_html", "empty", "navigation_only", "noindex", "redirect_outside", "forbidden_address", "forbidden_path",
    "needs_javascript",
})  # fmt: skip
"""Nothing to index there, by the page's nature or our rules: no failure of the site."""

INDEXED = frozenset({"fetched", "stale"})


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

    @property
    def pages_dir(self) -> Path:
        return self.index_dir / "pages"

    @property
    def vectors_dir(self) -> Path:
        return self.index_dir / "vectors" / self.embedder.fingerprint[:16]

    def source(self, name: str) -> Source:
        return next(source for source in self.sources if source.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchUnit:
    """Pages of one host. lastmods: URL → last change as its sitemap says. renders: run the pages in a browser."""

    unit_id: str
    host: str
    visits: tuple[Visit, ...]
    lastmods: Mapping[str, datetime] = field(default_factory=dict)
    renders: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What came of one request. page: as the site has it now, None when the stored copy is to be read.

    origin: network, unchanged (304), lastmod (its sitemap says so, not asked for) or reused (looked at before this
    build was killed, or put into the store by a loader). reason: why there is nothing; then the others are empty.
    """

    visit: Visit
    page: Page | None = None
    redirect_to: str = ""
    origin: str = ""
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0
    started_ns: int = 0  # Unix time


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOutcome:
    """What became of one URL. outcome: fetched, stale, redirected, missing, skipped or failed; the reason says why.

    stale: it could not be had, and its last good copy is kept. again: it must be fetched once more, in a browser
    (needs_javascript) or because our copy was damaged (store_damaged).
    """

    url: str
    outcome: str
    reason: str = ""
    detail: str = ""
    referrer: str = ""
    redirect_to: str = ""
    origin: str = ""  # of Fetched
    page_id: str = ""
    bytes: int = 0
    sections: int = 0
    chunks: int = 0
    dropped_words: int = 0
    hidden_words: int = 0
    dropped_samples: tuple[str, ...] = ()
    stale_builds: int = 0
    seconds: float = 0.0  # to fetch and read it


@dataclass(frozen=True, slots=True, kw_only=True)
class CrawlReceipt:
    """content: digest of all that the unit's chunks give to embedder and snapshot; empty without chunks.

    The links of the pages stay on disk (`reading.links_of`) until the driver wants them.
    """

    unit_id: str
    outcomes: tuple[PageOutcome, ...]
    content: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def chunk_count(self) -> int:
        return sum(outcome.chunks for outcome in self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReceipt:
    embedded: int
    reused: int
    tokens: int  # of the embedded ones
    seconds: float
    reused_tokens: int = 0


def outcome_of(error: FetchError | ParseError) -> str:
    """Return missing, skipped or failed: a broken link or a picture is no failure of the site."""
    if error.reason in MISSING:
        return "missing"
    return "skipped" if error.reason in SKIPPED else "failed"
