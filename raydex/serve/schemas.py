"""What the service takes and returns, as the OpenAPI page shows it. Data only.

GET /search?query=…  →  SearchResponse        POST /search {"queries": […]}  →  BatchResponse
"""

from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

K = Annotated[int, Field(ge=1, description="Hits per query.", examples=[10])]
Offset = Annotated[int, Field(ge=0, description="Hits to skip, for paging.", examples=[0])]
Indexes = Annotated[list[str], Field(description="Indexes to search; without it, all that are served.", examples=[[]])]
Snapshots = Annotated[
    dict[str, str],
    Field(description="Index → the snapshot that answered.", examples=[{"docs": "20260101T120000Z-3f9c1b"}]),
]
Timings = Annotated[
    dict[str, float],
    Field(
        description="Seconds per stage, for all queries of the request together.",
        examples=[{"embed": 0.0081, "scan": 0.0004, "merge": 0.0001, "total": 0.0092}],
    ),
]
Warning_ = Annotated[str, Field(description="Empty, or what to know about this answer.", examples=[""])]


class SearchParameters(BaseModel):
    """The query string of GET /search."""

    model_config = ConfigDict(extra="forbid")

    query: str = Field(description="What to look for, in plain words.", examples=["how do I read a file line by line"])
    k: K = 10
    offset: Offset = 0
    index: Indexes = []


class BatchRequest(BaseModel):
    """Several queries with the same settings."""

    model_config = ConfigDict(extra="forbid")

    queries: list[str] = Field(min_length=1, examples=[["open a file", "parse a date"]])
    k: Annotated[K, Field(strict=True)] = 10
    offset: Annotated[Offset, Field(strict=True)] = 0
    index: Indexes = []


class Result(BaseModel):
    """One passage that answers the query."""

    rank: int = Field(description="1 for the best, counted from the first page of results.", examples=[1])
    score: float = Field(description="Cosine of query and passage, −1 to 1; higher is better.", examples=[0.7213])
    content: str = Field(description="The passage, as plain text.")
    source: str = Field(description="Where it stands.", examples=["https://docs.example.org/io.html#reading-files"])
    title: str = Field(description="Title of the page.", examples=["Input and output"])
    headings: tuple[str, ...] = Field(description="Headings above the passage, outermost first.")
    index: str = Field(examples=["docs"])
    section_id: str = Field(description="Percent-encode it for GET /sections/{section_id}.")
    chunk_id: str


class SearchResponse(BaseModel):
    status: Literal["ok"] = "ok"
    message: Warning_ = ""
    snapshot: Snapshots
    results: list[Result]
    timings_s: Timings


class BatchAnswer(BaseModel):
    query: str
    message: Warning_ = ""
    results: list[Result]


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


class LastBuild(BaseModel):
    """Figures of the newest build, from its report.json."""

    build_id: str
    finished_at: AwareDatetime
    outcome: str
    snapshot_id: str = ""
    pages: dict[str, int] = {}
    chunks: dict[str, int] = {}
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
    reason: str = Field("", description="Why it is not ready.")
    snapshot_id: str = Field("", description="The snapshot that is served.")
    created_at: str = ""
    age_s: float = Field(0, description="Seconds since the served snapshot was made.")
    pages: int = 0
    sections: int = 0
    chunks: int = 0
    shards: int = 0
    bytes: int = 0
    model: str = ""
    current_snapshot_id: str = Field("", description="The live snapshot on disk.")
    stale: Annotated[bool, Field(description="The live snapshot on disk is not the one that is served.")] = False
    last_build: LastBuild | None = None
    last_run: LastRun | None = None


class IndexesResponse(BaseModel):
    indexes: list[IndexStatus]


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
