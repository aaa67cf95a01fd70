"""What a running service answers, read strictly in what is asked for and leniently in what is not.

bytes of a body → Record.model_validate_json → SearchAnswer, SuggestAnswer, …    pure
"""

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer service may say more


class Result(Record):
    """One passage. score: higher is better; source: page URL#anchor; content: plain text of foreign pages.

    scores: `dense`, the cosine, `lexical`, BM25, and `rerank`, by which it is ranked if it is there. highlights,
    excerpt: characters start:end of content. more: next best sections of the page, with group_by="page". copies: URLs
    of passages that say the same.
    """

    rank: int
    score: float
    scores: dict[str, float] = {}
    content: str
    highlights: tuple[tuple[int, int], ...] = ()
    excerpt: tuple[int, int] = (0, 0)
    source: str
    title: str
    headings: tuple[str, ...]
    index: str
    section_id: str
    chunk_id: str
    kind: str = ""
    version: str = ""
    more: tuple["Result", ...] = ()
    copies: tuple[str, ...] = ()
    explanation: dict[str, float] = {}


class SearchAnswer(Record):
    """message: empty, or what to know about this answer; snapshot: index → snapshot_id; timings_s: stage → seconds.

    confidence: from 0 to 1, that the answer is there. shards_ok: of the shards of the indexes, how many were looked at,
    such as "7/8". facets: name → value → results found, where asked for.
    """

    message: str
    snapshot: dict[str, str]
    confidence: float | None = None
    shards_ok: str = ""
    results: tuple[Result, ...]
    facets: dict[str, dict[str, int]] = {}
    timings_s: dict[str, float]


class QueryAnswer(Record):
    query: str
    message: str
    confidence: float | None = None
    shards_ok: str = ""
    results: tuple[Result, ...]
    facets: dict[str, dict[str, int]] = {}


class Suggestion(Record):
    """kind: symbol, title or heading; url: where it leads. is_corrected: spelled otherwise than what was typed."""

    text: str
    kind: str = ""
    url: str = ""
    index: str
    is_corrected: bool


class QueryCount(Record):
    query: str
    searches: int
    sessions: int
    results: int


class Reformulation(Record):
    query: str
    then: str
    sessions: int


class PageCount(Record):
    page: str
    best: int
    asked_again: int
    clicks: int
    up: int
    down: int


class ReportAnswer(Record):
    query_log: str
    days: int
    least_sessions: int
    searches: int
    sessions: int
    queries: int
    without_results: int
    kept_back: int
    top: tuple[QueryCount, ...]
    nothing_found: tuple[QueryCount, ...]
    reformulations: tuple[Reformulation, ...]
    pages: tuple[PageCount, ...]


class Kept(Record):
    kept: bool


class SuggestAnswer(Record):
    snapshot: dict[str, str] = {}
    suggestions: tuple[Suggestion, ...]


class BatchAnswer(Record):
    message: str
    snapshot: dict[str, str]
    answers: tuple[QueryAnswer, ...]
    timings_s: dict[str, float]


class SectionAnswer(Record):
    section_id: str
    source: str
    title: str
    headings: tuple[str, ...]
    content: str
    index: str
    snapshot: dict[str, str] = {}


class IndexInfo(Record):
    """One served index; see GET /indexes in the service's OpenAPI page."""

    name: str
    ready: bool
    reason: str
    snapshot_id: str
    created_at: str
    age_s: float
    pages: int
    sections: int
    chunks: int
    shards: int
    shards_ok: int = 0
    bytes: int
    model: str
    current_snapshot_id: str
    refused_snapshot_id: str = ""
    stale: bool


class Indexes(Record):
    indexes: tuple[IndexInfo, ...]
