"""Talk to a running service: typed answers, typed errors.

    with RaydexClient("http://127.0.0.1:8000") as client:
        for result in client.search("how do I open a file", k=3).results:
            print(result.score, result.source)

Every failure is a ServiceError. 429 and 503 are asked again, no sooner than Retry-After says.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from raydex.errors import ServiceError
from utils.retry import call_with_retries

ATTEMPTS = 4
LONGEST_RETRY_AFTER_S = 30.0
POLL_S = 0.5
TRY_AGAIN = frozenset({429, 503})


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # a newer service may say more


class Result(_Record):
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


class SearchAnswer(_Record):
    """message: empty, or what to know about this answer; snapshot: index → snapshot_id; timings_s: stage → seconds.

    confidence: from 0 to 1, that the answer is there. facets: name → value → results found, where asked for.
    """

    message: str
    snapshot: dict[str, str]
    confidence: float | None = None
    results: tuple[Result, ...]
    facets: dict[str, dict[str, int]] = {}
    timings_s: dict[str, float]


class QueryAnswer(_Record):
    query: str
    message: str
    confidence: float | None = None
    results: tuple[Result, ...]
    facets: dict[str, dict[str, int]] = {}


class Suggestion(_Record):
    """kind: symbol, title or heading; url: where it leads. is_corrected: spelled otherwise than what was typed."""

    text: str
    kind: str = ""
    url: str = ""
    index: str
    is_corrected: bool


class _Suggestions(_Record):
    suggestions: tuple[Suggestion, ...]


class BatchAnswer(_Record):
    message: str
    snapshot: dict[str, str]
    answers: tuple[QueryAnswer, ...]
    timings_s: dict[str, float]


class SectionAnswer(_Record):
    section_id: str
    source: str
    title: str
    headings: tuple[str, ...]
    content: str
    index: str


class IndexInfo(_Record):
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
    bytes: int
    model: str
    current_snapshot_id: str
    stale: bool


class _Indexes(_Record):
    indexes: tuple[IndexInfo, ...]


Answer = TypeVar("Answer", bound=_Record)


class RaydexClient:
    """One service. Safe to share between threads; connections are kept and used again.

    attempts: of one call while the service answers 429 or 503; 1 never asks again. wait: how to let seconds pass.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        attempts: int = ATTEMPTS,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url.rstrip("/")
        self._attempts = attempts
        self._wait = wait
        # trust_env: a proxy named in the environment would be asked for 127.0.0.1 too
        self._http = httpx.Client(base_url=self._url, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def search(
        self, query: str, *, k: int = 10, index: Sequence[str] = (), offset: int = 0, **options: Any
    ) -> SearchAnswer:
        """options: mode, group_by, source, version, language, kind, path, facets, explain, rerank; see its /docs."""
        return self._typed(SearchAnswer, self.search_raw(query, k=k, index=index, offset=offset, **options))

    def search_raw(
        self, query: str, *, k: int = 10, index: Sequence[str] = (), offset: int = 0, **options: Any
    ) -> bytes:
        """Return the body of GET /search as it came."""
        parameters = {"query": query, "k": k, "offset": offset, "index": list(index), **options}
        return self._call("GET", "/search", params=parameters)

    def search_many(
        self, queries: Sequence[str], *, k: int = 10, index: Sequence[str] = (), offset: int = 0, **options: Any
    ) -> BatchAnswer:
        """Ask several queries in one request; answers come in their order."""
        body = {"queries": list(queries), "k": k, "offset": offset, "index": list(index), **options}
        return self._typed(BatchAnswer, self._call("POST", "/search", json=body))

    def suggest(self, prefix: str, *, k: int = 10, index: Sequence[str] = ()) -> tuple[Suggestion, ...]:
        parameters = {"query": prefix, "k": k, "index": list(index)}
        return self._typed(_Suggestions, self._call("GET", "/suggest", params=parameters)).suggestions

    def indexes(self) -> tuple[IndexInfo, ...]:
        return self._typed(_Indexes, self._call("GET", "/indexes")).indexes

    def section(self, section_id: str) -> SectionAnswer:
        return self._typed(SectionAnswer, self._call("GET", f"/sections/{quote(section_id, safe='')}"))

    def ready(self) -> bool:
        try:
            self._call_once("GET", "/readyz")
        except ServiceError:
            return False
        return True

    def wait_ready(self, seconds: float) -> None:
        """Return when the service is ready; raise the last ServiceError when it is not within so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self._call_once("GET", "/readyz")
                return
            except ServiceError:
                if time.monotonic() >= deadline:
                    raise
            self._wait(POLL_S)

    def _call(self, method: str, path: str, **content: Any) -> bytes:
        return call_with_retries(
            lambda: self._call_once(method, path, **content),
            attempts=self._attempts,
            should_retry=lambda error: isinstance(error, ServiceError) and error.status in TRY_AGAIN,
            least_wait_s=lambda error: error.retry_after_s if isinstance(error, ServiceError) else 0.0,
            wait=self._wait,
        )

    def _call_once(self, method: str, path: str, **content: Any) -> bytes:
        try:
            response = self._http.request(method, path, **content)
        except httpx.HTTPError as error:
            detail = str(error) or "no answer in time"
            raise ServiceError(self._url, 0, type(error).__name__, detail) from error
        if not response.is_success:
            raise self._failure(response)
        return response.content

    def _failure(self, response: httpx.Response) -> ServiceError:
        body = _error_body(response)
        return ServiceError(
            self._url,
            response.status_code,
            str(body.get("type", "unknown")),
            str(body.get("message", response.text[:200])),
            str(body.get("request_id", response.headers.get("X-Request-Id", ""))),
            _retry_after_s(response),
        )

    def _typed(self, kind: type[Answer], body: bytes) -> Answer:
        try:
            return kind.model_validate_json(body)
        except ValidationError as error:
            raise ServiceError(self._url, 200, "unexpected_answer", str(error)) from error


def _error_body(response: httpx.Response) -> Mapping[str, Any]:
    """Return what stands under "error"; empty when a proxy answered in its own words."""
    try:
        document = response.json()
    except ValueError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return min(LONGEST_RETRY_AFTER_S, max(0.0, float(response.headers.get("Retry-After", 0))))
    except ValueError:  # an HTTP date; our service sends seconds
        return 0.0
