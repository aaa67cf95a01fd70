"""The records that cross a stage: frozen, checked when made, no other behaviour.

    Source → Page → Section → Chunk (+ vectors) → Shard → Manifest → Hit

Ids are functions of content: page_id of the canonical public URL, section_id = canonical URL#anchor, chunk_id of
section_id, offsets and text. The same page gives the same ids in every build.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from utils.urls import public_url

Vectors = npt.NDArray[np.float32]
"""float32 (n, dim), C-contiguous, rows L2-normalised; row i belongs to chunk i (or query i)."""

ID_LENGTH = 32
"""Hex digits of an id: 128 bits of sha256, so that a billion ids collide with a chance below 1e-20."""


def stable_id(*parts: object) -> str:
    """Return 32 hex digits of sha256 over the parts; the same parts give the same id on every machine."""
    joined = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(joined.encode()).hexdigest()[:ID_LENGTH]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What to index: a documentation site, a local folder, or what a LangChain loader yields.

    seeds: where the crawl starts. `http(s)://…` is a site, `file:///…/` a folder (one seed), `loader://name/` a loader.
    allow, deny: URL prefixes, or globs where they hold `*` (`*` stays within a segment, `**` does not); without allow,
    the directory of each seed. public_url: what hits cite instead of the first prefix. max_depth: links from a seed
    (0: the seeds alone). sitemaps: sitemap URLs or files, besides those that the site names. headers, basic_auth,
    cookies: templates such as `Bearer ${DOCS_TOKEN}`, filled from the environment; never the secrets themselves.
    synonyms: groups of words that mean the same to whoever searches.
    """

    name: str
    seeds: tuple[str, ...]
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    public_url: str = ""
    version: str = ""  # for pages that do not say
    language: str = ""  # for pages that do not say; BCP 47
    max_pages: int = 5000
    max_depth: int = 20
    sitemaps: tuple[str, ...] = ()
    link_style: str = "keep"  # of a folder's public URLs: keep, html, bare or directory
    loader: str = ""  # package.module:Class
    loader_args: tuple[tuple[str, str], ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    basic_auth: str = ""
    cookies: str = ""
    synonyms: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not self.seeds:
            raise ValueError("a source needs a name and at least one seed URL")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A document as fetched. url: canonical and public, what hits cite; crawl_url: where it was fetched."""

    page_id: str
    url: str
    crawl_url: str
    source: str
    fetched_at: datetime  # UTC; when the site last confirmed this copy
    status: int
    content_type: str  # the header, charset included
    body: bytes
    body_sha256: str
    etag: str = ""
    last_modified: str = ""
    robots: str = ""  # X-Robots-Tag header
    title: str = ""  # from a loader, for a body that has none


def new_page(source: Source, crawl_url: str, body: bytes, content_type: str, *, status: int = 200, **more: str) -> Page:
    """Return a page that was fetched now; ids, checksum and public URL follow from what is given.

    more: etag, last_modified, robots, title.
    """
    url = public_url(source, crawl_url)
    return Page(
        page_id=stable_id(url),
        url=url,
        crawl_url=crawl_url,
        source=source.name,
        fetched_at=datetime.now(UTC),
        status=status,
        content_type=content_type,
        body=body,
        body_sha256=hashlib.sha256(body).hexdigest(),
        **more,
    )


SectionKind = Literal["prose", "code", "api"]
NameKind = Literal["symbol", "title", "heading"]
"""What a suggestion is the name of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page under one heading. url: page URL#anchor (the anchor nearest above, if it has none).

    kind: api for the entry of a symbol, code when most of the text is code. symbol: its name (`shutil.copy`, `--help`).
    aliases: further names of the same: other spellings, other signatures, a flag with its command (`-h`, `tar -h`).
    """

    section_id: str
    page_id: str
    url: str
    title: str  # of the page
    headings: tuple[str, ...]  # outermost first
    text: str
    position: int  # 0-based, in page order
    kind: SectionKind = "prose"
    symbol: str = ""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PageInfo:
    """What is known of a page beside its text: one row of a shard's `pages` table.

    updated: last change as the page says, ISO 8601 date or date-time. copies: URLs of near-duplicates that this page
    stands for. stale_builds: builds in a row that could not get the page and kept this copy (0: current).
    """

    page_id: str
    url: str
    source: str
    title: str
    description: str = ""
    version: str = ""
    language: str = ""
    breadcrumbs: tuple[str, ...] = ()
    updated: str = ""
    body_sha256: str = ""
    copies: tuple[str, ...] = ()
    stale_builds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage of one section: `text == section.text[char_start:char_end]`.

    context: the heading path as the embedder reads it. token_count: as embedded, heading path and special tokens
    included, at most the model's limit. token_ids: those tokens, while the index is built; a snapshot has them not.
    """

    chunk_id: str
    section_id: str
    page_id: str
    url: str
    title: str
    headings: tuple[str, ...]
    context: str
    text: str
    char_start: int
    char_end: int  # half-open
    token_count: int
    token_ids: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.char_start < self.char_end or self.char_end - self.char_start != len(self.text):
            raise ValueError(f"chunk {self.chunk_id}: offsets {self.char_start}:{self.char_end} do not span its text")

    @property
    def embedder_input(self) -> str:
        return embedder_input(self.context, self.text)


def embedder_input(context: str, text: str) -> str:
    """Return the exact text the embedder reads: heading path, newline, passage."""
    return f"{context}\n{text}" if context else text


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderInfo:
    """What made the vectors. sha256: of the weights; two embedders with equal fingerprints make the same vectors.

    name and revision say where the weights came from; a copy elsewhere, under another name, has the same fingerprint.
    """

    name: str
    revision: str
    sha256: str
    dim: int
    max_tokens: int
    backend: str
    precision: str

    @property
    def model_id(self) -> str:
        """What queries and passages must share: the weights, whatever program and precision runs them."""
        return stable_id(self.sha256, self.dim, self.max_tokens)

    @property
    def fingerprint(self) -> str:
        what = {key: value for key, value in asdict(self).items() if key not in {"name", "revision"}}
        return stable_id(json.dumps(what, sort_keys=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject:
    """An immutable file of the snapshot, kept under its checksum."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One part of a snapshot: the pages whose id falls into it. Rows are ordered by chunk_id.

    objects: role → file; roles are `index` (FAISS), `chunks`, `sections` and `pages` (Parquet), and `vectors` (FAISS
    too, whole) where the index holds less than them. refine: candidates of such an index that are scored anew for each
    wanted row. recall: share of the ten best rows that it finds, measured when it was written; an exact one finds all.
    """

    shard_id: str
    chunk_count: int
    section_count: int
    page_count: int
    dim: int
    index_kind: str
    objects: dict[str, StoredObject]
    refine: int = 0
    recall: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexical:
    """The lexical index of a snapshot: one for all shards, since the weight of a word depends on all documents.

    analyzer: what cut the texts into terms. languages: of the documents, most frequent first. objects: name of the
    engine's file → file. documents: one a row, in the order of the shards and of the rows in each.
    """

    documents: int
    analyzer: str
    languages: tuple[str, ...]
    objects: dict[str, StoredObject]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAnyway:
    """A person published a snapshot that the gate had refused. at: ISO 8601, UTC; checks: those that had failed."""

    reason: str
    at: str
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that a snapshot is made of; snapshots/<snapshot_id>/manifest.json. See docs/format.md."""

    format_version: int
    snapshot_id: str
    parent: str  # snapshot_id, empty for the first
    content_digest: str
    created_at: str  # ISO 8601, UTC
    embedder: EmbedderInfo
    chunking: dict[str, int]
    metric: str
    sources: tuple[dict[str, Any], ...]
    shards: tuple[Shard, ...]
    counts: dict[str, int]
    gate: dict[str, str]  # check → "passed", or what is wrong; filled in before publishing
    code_version: str
    gate_metrics: dict[str, float] = field(default_factory=dict)  # what the gate measured; the next one compares
    golden_digest: str = ""  # of the golden queries behind golden_…
    published_anyway: PublishedAnyway | None = None
    lexical: Lexical | None = None  # none before Raydex made them
    ann_recall: float = 1.0  # share of the ten best rows over all shards that a search finds, measured on a sample
    parent_manifest_sha256: str = ""  # of the parent's manifest.json; empty without one, or from an older Raydex


SearchMode = Literal["hybrid", "dense", "lexical"]
Grouping = Literal["none", "section", "page"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a passage must be; several values of one kind are alternatives, an empty tuple takes all.

    languages: `en` takes `en-GB` too. paths: of URLs, whole segments (`/3/library`), or URLs (`https://host/3/library`).
    """

    sources: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.sources, self.versions, self.languages, self.kinds, self.paths))


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A question to an index: which hits are wanted, and how they are ranked.

    text: plain words; "quoted words" must stand so, a word after `-` must not. group_by: one hit for each chunk,
    section or page. facets: count the groups found by source, version, language and kind. explain: say of each hit
    what its score is made of. rerank: have a cross-encoder look again at the best hits; None: where there is one.
    """

    text: str
    k: int = 10
    offset: int = 0
    mode: SearchMode = "hybrid"
    filters: Filters = Filters()
    group_by: Grouping = "section"
    facets: bool = False
    explain: bool = False
    rerank: bool | None = None

    def __post_init__(self) -> None:
        if self.k < 1 or self.offset < 0:
            raise ValueError(f"k is {self.k} and offset {self.offset}; k must be at least 1, offset at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer to a query. rank: 1-based; score: higher is better, and its meaning that of the mode.

    scores: `dense`, the cosine in [−1, 1], `lexical`, BM25, and `rerank`, a cross-encoder's, where it has them; by the
    last, if it is there, hits are ordered. highlights: characters start:end of the chunk's text that the query's words
    stand for; excerpt: the part of it around most of them.
    more: other hits of the same group, best first. copies: URLs of passages left out because they say the same.
    explanation: what the score is the sum of.
    """

    rank: int
    score: float
    index: str
    chunk: Chunk
    scores: dict[str, float] = field(default_factory=dict)
    kind: SectionKind = "prose"
    version: str = ""
    highlights: tuple[tuple[int, int], ...] = ()
    excerpt: tuple[int, int] = (0, 0)
    more: tuple["Hit", ...] = ()
    copies: tuple[str, ...] = ()
    explanation: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a query found. facets: name → value → hits of all pages. message: what to know of it, "" most times.

    confidence: from 0 to 1, whether the answer is there at all; None where only one leg has looked. fell_through: why
    it was not reranked, or not as far as it should (budget, failure, no_model); "" when nothing went wrong. shards: how
    many were looked at, and how many there are.
    """

    hits: tuple[Hit, ...]
    confidence: float | None = None
    facets: dict[str, dict[str, int]] = field(default_factory=dict)
    message: str = ""
    fell_through: str = ""
    shards: tuple[int, int] = (0, 0)

    @property
    def is_partial(self) -> bool:
        return self.shards[0] < self.shards[1]


@dataclass(slots=True, kw_only=True)
class StageTimes:
    """Seconds spent per stage, in the order the stages first ran."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def of_index(self, name: str) -> "StageTimes":
        """Return the times to which a search in one of several indexes adds its own."""
        return self
