"""What the service takes and returns, as the OpenAPI page shows it. Data only.

GET /search?query=…  →  SearchResponse        POST /search {"queries": […]}  →  BatchResponse
GET /suggest?query=…  →  SuggestResponse
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from raydex.records import Grouping, NameKind, SearchMode, SectionKind

K = Annotated[int, Field(ge=1, description="Hits per query.", examples=[10])]
Offset = Annotated[int, Field(ge=0, description="Hits to skip, for paging.", examples=[0])]
Values = Annotated[list[str], FailFast()]
"""FailFast: a body of half a million wrong values is one complaint."""
Indexes = Annotated[Values, Field(description="Indexes to search; without it, all that are served.", examples=[[]])]
TimeoutMs = Annotated[
    int,
    Field(ge=0, description="Milliseconds within which to answer, else 504; 0: as many as the service allows unasked."),
]
Snapshots = Annotated[
    dict[str, str],
    Field(description="Index → the snapshot that answered.", examples=[{"docs": "20260101T120000Z-3f9c1b"}]),
]
Timings = Annotated[
    dict[str, float],
    Field(
        description="Seconds per stage, for all queries of the request together.",
        examples=[{"embed": 0.0021, "lexical": 0.0003, "scan": 0.0011, "merge": 0.0001, "total": 0.0052}],
    ),
]
Span = tuple[int, int]
Confidence = Annotated[
    float | None,
    Field(description="From 0 to 1: is the answer here at all? Null in modes dense and lexical.", examples=[0.93]),
]
ShardsOk = Annotated[
    str,
    Field(
        pattern=r"^\d+/\d+$",
        description="Shards that were looked at, of all there are. Fewer: what the others hold is missing.",
        examples=["8/8"],
    ),
]
Facets = Annotated[
    dict[str, dict[str, int]],
    Field(description="With facets: name → value → results found, over all pages.", examples=[{"kind": {"api": 7}}]),
]
Warning_ = Annotated[str, Field(description="Empty, or what to know about this answer.", examples=[""])]


class SearchOptions(BaseModel):
    """What both search routes take beside the query itself."""

    model_config = ConfigDict(extra="forbid")

    k: K = 10
    offset: Offset = 0
    index: Indexes = []
    mode: SearchMode = Field(
        "hybrid", description="By meaning (dense), by words (lexical), or both (hybrid); `score` is then another one."
    )
    group_by: Grouping = Field("section", description="One result for each passage (none), section or page.")
    source: Values = Field([], description="Only from these sources of sources.toml.")
    version: Values = Field([], description="Only of these versions.")
    language: Values = Field([], description="Only in these languages; `en` takes `en-GB` too.")
    kind: Annotated[
        list[SectionKind], FailFast(), Field(description="Only prose, code or the entries of symbols (api).")
    ] = []
    path: Values = Field(
        [], description="Only under these paths, whole segments: `/3/library` or `https://host/3/library`."
    )
    facets: Annotated[bool, Field(description="Count what was found by source, version, language and kind.")] = False
    explain: Annotated[bool, Field(description="Say of each result what its score is the sum of.")] = False
    rerank: bool | None = Field(
        None, description="Have a cross-encoder order the best results anew; without it, if the service has one."
    )
    timeout_ms: TimeoutMs = 0


class SearchParameters(SearchOptions):
    """The query string of GET /search."""

    query: str = Field(
        description='What to look for; "quoted words" must stand so, a word after `-` must not.',
        examples=["how do I read a file line by line"],
    )


class BatchRequest(SearchOptions):
    """Several queries with the same settings. JSON has types, so that nothing is turned into another one."""

    model_config = ConfigDict(strict=True)

    queries: Values = Field(min_length=1, examples=[["open a file", "parse a date"]])


class SuggestParameters(BaseModel):
    """The query string of GET /suggest."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="What has been typed so far.", examples=["os.pa"])
    k: K = 10
    index: Indexes = []
    timeout_ms: TimeoutMs = 0


class Result(BaseModel):
    """One passage that answers the query."""

    rank: int = Field(description="1 for the best, counted from the first page of results.", examples=[1])
    score: float = Field(
        description="Higher is better. Mode dense: cosine, −1 to 1; lexical: BM25; hybrid: the sum that explain shows.",
        examples=[0.7213],
    )
    scores: dict[str, float] = Field(
        description="`dense`, the cosine, and `lexical`, BM25, where it was found so; `rerank` where it was reranked, "
        "which then decides the order.",
        examples=[{"dense": 0.71}],
    )
    content: str = Field(description="The passage, as plain text.")
    highlights: list[Span] = Field(description="Where the query's words stand: characters start:end of content.")
    excerpt: Span = Field(description="The part of content around most of them.", examples=[[0, 240]])
    source: str = Field(description="Where it stands.", examples=["https://docs.example.org/io.html#reading-files"])
    title: str = Field(description="Title of the page.", examples=["Input and output"])
    headings: tuple[str, ...] = Field(description="Headings above the passage, outermost first.")
    kind: SectionKind = Field(description="api: the entry of a symbol.", examples=["prose"])
    version: str = Field(examples=["3.11"])
    index: str = Field(examples=["docs"])
    section_id: str = Field(description="Percent-encode it for GET /sections/{section_id}.")
    chunk_id: str
    more: list["Result"] = Field([], description="The next best sections of this page, with group_by=page.")
    copies: list[str] = Field([], description="Where passages stand that say the same, and were left out.")
    explanation: dict[str, float] = Field({}, description="With explain: the parts of the score.")


class SearchResponse(BaseModel):
    status: Literal["ok"] = "ok"
    message: Warning_ = ""
    snapshot: Snapshots
    confidence: Confidence
    shards_ok: ShardsOk
    results: list[Result]
    facets: Facets = {}
    timings_s: Timings


class SuggestResponse(BaseModel):
    status: Literal["ok"] = "ok"
    snapshot: Snapshots
    suggestions: list["Suggested"]


class Suggested(BaseModel):
    """A symbol, title or heading of an index."""

    text: str = Field(examples=["os.path.join"])
    kind: NameKind = Field(examples=["symbol"])
    url: str = Field(
        description="Where it leads: the definition, the page or the section; empty in an index made before this.",
        examples=["https://docs.example.org/os.path.html#os.path.join"],
    )
    index: str = Field(examples=["docs"])
    is_corrected: bool = Field(description="It is spelled otherwise than what was typed.")


class BatchAnswer(BaseModel):
    query: str
    message: Warning_ = ""
    confidence: Confidence
    shards_ok: ShardsOk
    results: list[Result]
    facets: Facets = {}


class BatchResponse(BaseModel):
    status: Literal["ok"] = "ok"
    message: Warning_ = ""
    snapshot: Snapshots
    answers: list[BatchAnswer] = Field(description="One for each query, in the order they were asked.")
    timings_s: Timings


class SectionResponse(BaseModel):
    """A whole section: the context of a hit."""

    section_id: str
    source: str
    title: str
    headings: tuple[str, ...]
    content: str
    index: str
    snapshot: Snapshots


def _passed(gate: dict[str, Any]) -> dict[str, Any]:
    """Take the gate as report.json tells it, of which only what was passed is told here."""
    checks = gate.get("checks")
    return {check: told == "passed" for check, told in checks.items()} if isinstance(checks, dict) else gate


class LastBuild(BaseModel):
    """Figures of the newest build, from its report.json."""

    build_id: str
    finished_at: AwareDatetime
    outcome: str
    snapshot_id: str = ""
    pages: dict[str, int] = {}
    chunks: dict[str, int] = {}
    tokens_embedded: int = 0
    tokens_reused: int = 0
    downloaded_bytes: int = 0
    gate: Annotated[dict[str, bool], BeforeValidator(_passed), Field(description="Check of the gate → passed.")] = {}
    timings_s: dict[str, float] = {}


class LastRun(BaseModel):
    """What became of the newest run of build_index.py, from last_build.json."""

    ended_at: AwareDatetime
    seconds: float
    exit_code: int
    outcome: str
    failures_in_a_row: int = 0
    last_success_at: AwareDatetime | None = None


class IndexStatus(BaseModel):
    name: str
    ready: bool
    reason: str = Field("", description="Why it is not ready, or why a newer snapshot is refused.")
    snapshot_id: str = Field("", description="The snapshot that is served.")
    created_at: str = ""
    age_s: float = Field(0, description="Seconds since the served snapshot was made.")
    pages: int = 0
    sections: int = 0
    chunks: int = 0
    shards: int = 0
    shards_ok: int = Field(0, description="Shards that can be searched now, as this replica sees it.")
    bytes: int = 0
    model: str = ""
    current_snapshot_id: str = Field("", description="The live snapshot on disk.")
    refused_snapshot_id: str = Field("", description="A newer snapshot that is not served, for the reason given.")
    stale: Annotated[bool, Field(description="A swap to the live snapshot is due.")] = False
    last_build: LastBuild | None = None
    last_run: LastRun | None = None


class IndexesResponse(BaseModel):
    replica: str = Field(description="Which replica says so, as Ray names it in metrics and logs; empty without Ray.")
    indexes: list[IndexStatus]


class ReloadResponse(BaseModel):
    """What became of a reload."""

    snapshot: Snapshots
    refused: dict[str, str] = Field(description="Index → why its live snapshot is not served; empty when all is well.")
    pending: list[str] = Field(description="Indexes of which some replica has not swapped yet; it will follow.")


class RollbackRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    index: str = Field(examples=["docs"])
    snapshot_id: str = Field("", description="Where to; without it, the parent of the live one.")


class RollbackResponse(ReloadResponse):
    before: str = Field(description="The snapshot that was live.")
    snapshot_id: str = Field(description="The snapshot that is live now.")


class FeedbackRequest(BaseModel):
    """A verdict on one result of one query."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="The query it was a result of.", examples=["open a file"])
    url: str = Field(
        pattern=r"^https?://\S+$",
        description="`source` of the result.",
        examples=["https://docs.example.org/io.html#reading-files"],
    )
    kind: Literal["click", "up", "down"] = Field(description="It was opened, it was right, it was wrong.")
    index: str = Field("", description="`index` of the result.", examples=["docs"])


class FeedbackResponse(BaseModel):
    status: Literal["ok"] = "ok"
    kept: bool = Field(description="False when there is no query log, or the caller asks not to be followed.")


class ReportParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    days: int = Field(7, ge=1, le=3650, description="Days the report is of, today (UTC) included.")
    lines: int = Field(20, ge=1, le=1000, description="Most lines of each table.")


class QueryCount(BaseModel):
    query: str = Field(description="Redacted; without texts in the log, `#` and the beginning of its keyed hash.")
    searches: int
    sessions: int
    results: int = Field(description="Most results it had.")


class Reformulation(BaseModel):
    query: str
    then: str = Field(description="What the session asked next, within minutes and without a click between.")
    sessions: int


class PageCount(BaseModel):
    page: str
    best: int = Field(description="Searches of which it was the best result.")
    asked_again: int = Field(description="Of those, how many the session followed by another query within minutes.")
    clicks: int
    up: int
    down: int


class ReportResponse(BaseModel):
    """What people look for, and what they do not find, from the query log of the machine that answers."""

    query_log: Literal["off", "hashes", "text"]
    days: int
    least_sessions: int = Field(description="Sessions that a query or a page must have had to be named.")
    searches: int
    sessions: int = Field(description="Callers of a day; one of two days counts twice.")
    queries: int
    without_results: int = Field(description="Searches that found nothing.")
    kept_back: int = Field(description="Queries that too few sessions asked to be named.")
    top: list[QueryCount]
    nothing_found: list[QueryCount]
    reformulations: list[Reformulation]
    pages: list[PageCount] = Field(description="Those that satisfied least come first.")


class AliveResponse(BaseModel):
    status: Literal["alive"] = "alive"


class ReadyResponse(BaseModel):
    status: Literal["ready"] = "ready"
    snapshot: Snapshots


class Failure(BaseModel):
    type: str = Field(examples=["query_error"])
    message: str = Field(examples=["k: is 500, allowed are 1 to 100"])
    field: str | None = Field(None, description="The parameter that is wrong.", examples=["k"])
    request_id: str = Field(description="Also in the X-Request-Id header and in the server's log.")


class FailureResponse(BaseModel):
    """The one shape of every error."""

    error: Failure
