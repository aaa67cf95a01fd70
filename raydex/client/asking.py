"""The two clients: one call described once, asked by blocking and by async code.

arguments → _Call → httpx, again where that may help → answers.py, or ServiceError
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from raydex.client.answers import (
    BatchAnswer,
    Indexes,
    IndexInfo,
    Kept,
    ReportAnswer,
    SearchAnswer,
    SectionAnswer,
    SuggestAnswer,
)
from raydex.errors import ConfigError, ServiceError
from utils.retry import backoff_s, retry_after_s

logger = logging.getLogger(__name__)

BACKOFF_S, LONGEST_BACKOFF_S = 0.25, 8.0
POLL_S = 0.5
TRY_AGAIN = frozenset({429, 502, 503})
LOST = (httpx.NetworkError, httpx.RemoteProtocolError)
"""Connections refused or broken. Not timeouts: a service that is slow is not helped by asking it twice."""

UNSENT = (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError)
"""What httpx raises when there is no response: also of a URL too long, and of text that is not Unicode."""

T = TypeVar("T")


class SearchOptions(TypedDict, total=False):
    """What a search takes beside its query; what is left out is the service's to decide (its /docs)."""

    k: int
    offset: int
    index: Sequence[str]
    mode: Literal["hybrid", "dense", "lexical"]
    group_by: Literal["none", "section", "page"]
    source: Sequence[str]
    version: Sequence[str]
    language: Sequence[str]
    kind: Sequence[Literal["prose", "code", "api"]]
    path: Sequence[str]
    facets: bool
    explain: bool
    rerank: bool
    timeout_ms: int


class ClientSettings(TypedDict, total=False):
    """attempts: of one call [4], 1 never asks again. timeout_s: of one attempt [30]; deadline_s: of all, waits
    included [60]. headers: sent with each request, such as X-Session-Id.
    """

    api_key: str
    headers: Mapping[str, str]
    timeout_s: float
    attempts: int
    deadline_s: float


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """A request, and how its answer is read. content: arguments of httpx (params, json)."""

    method: str
    path: str
    read: Callable[[bytes], T]
    content: Mapping[str, Any] = field(default_factory=dict)


_INDEXES = _Call("GET", "/indexes", lambda body: Indexes.model_validate_json(body).indexes)
_READY = _Call("GET", "/readyz", lambda _: None)


def _search_raw(query: str, options: SearchOptions) -> _Call[bytes]:
    return _Call("GET", "/search", bytes, {"params": {"query": query, **options}})


def _search(query: str, options: SearchOptions) -> _Call[SearchAnswer]:
    return _Call("GET", "/search", SearchAnswer.model_validate_json, {"params": {"query": query, **options}})


def _search_many(queries: Sequence[str], options: SearchOptions) -> _Call[BatchAnswer]:
    return _Call("POST", "/search", BatchAnswer.model_validate_json, {"json": {"queries": [*queries], **options}})


def _suggest(prefix: str, k: int, index: Sequence[str], timeout_ms: int) -> _Call[SuggestAnswer]:
    parameters = {"query": prefix, "k": k, "index": [*index], "timeout_ms": timeout_ms}
    return _Call("GET", "/suggest", SuggestAnswer.model_validate_json, {"params": parameters})


def _section(section_id: str) -> _Call[SectionAnswer]:
    return _Call("GET", f"/sections/{quote(section_id, safe='')}", SectionAnswer.model_validate_json)


Verdict = Literal["click", "up", "down"]


def _feedback(query: str, url: str, kind: Verdict, index: str) -> _Call[bool]:
    content = {"json": {"query": query, "url": url, "kind": kind, "index": index}}
    return _Call("POST", "/feedback", lambda body: Kept.model_validate_json(body).kept, content)


def _report(days: int, lines: int) -> _Call[ReportAnswer]:
    content = {"params": {"days": days, "lines": lines}}
    return _Call("GET", "/admin/report", ReportAnswer.model_validate_json, content)


Outcome = httpx.Response | Exception | None
"""What came of a step: a response, why there is none, or nothing after a wait."""
Steps = Generator[_Call[Any] | float, Outcome, T]
"""What is to be done for an answer: a call to make, or seconds to wait. One client blocks for it, the other awaits."""


class _Service:
    """What both clients share: settings, what is tried again and when, how answers and failures are read."""

    def __init__(self, url: str, settings: ClientSettings) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = settings.get("timeout_s", 30.0)
        self._attempts, self._deadline_s = settings.get("attempts", 4), settings.get("deadline_s", 60.0)
        # trust_env: a proxy named in the environment would be asked for 127.0.0.1 too
        self._connection: dict[str, Any] = {
            "base_url": self.url,
            "timeout": self._timeout_s,
            "trust_env": False,
            "headers": {**settings.get("headers", {}), **_credentials(settings.get("api_key", ""))},
        }

    def _steps(self, call: _Call[T]) -> Steps[T]:
        ends = time.monotonic() + self._deadline_s
        for attempt in range(self._attempts):
            timeout_s = max(0.0, min(self._timeout_s, ends - time.monotonic()))
            outcome = yield replace(call, content={**call.content, "timeout": timeout_s})
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return self._read(call, outcome)
            error = self._failure(outcome)
            pause = max(error.retry_after_s, backoff_s(attempt, base_s=BACKOFF_S, cap_s=LONGEST_BACKOFF_S))
            may_pass = error.status in TRY_AGAIN or isinstance(outcome, LOST)
            if not may_pass or attempt + 1 == self._attempts or time.monotonic() + pause > ends:
                raise error
            logger.info(
                "asked again attempt=%d status=%d error=%s request_id=%s pause_s=%.2f",
                attempt + 2,
                error.status,
                error.type,
                error.request_id,
                pause,
            )
            yield pause
        raise ValueError("attempts must be at least 1")

    def _until_ready(self, seconds: float) -> Steps[None]:
        ends = time.monotonic() + seconds
        while True:
            outcome = yield _READY
            if isinstance(outcome, httpx.Response) and outcome.is_success:
                return
            if time.monotonic() >= ends:
                raise self._failure(outcome)
            yield POLL_S

    def _is_ready(self) -> Steps[bool]:
        outcome = yield _READY
        return isinstance(outcome, httpx.Response) and outcome.is_success

    def _read(self, call: _Call[T], response: httpx.Response) -> T:
        try:
            return call.read(response.content)
        except ValidationError as error:
            raise ServiceError(self.url, response.status_code, "unexpected_answer", str(error)) from error

    def _failure(self, outcome: Outcome) -> ServiceError:
        if not isinstance(outcome, httpx.Response):
            return ServiceError(self.url, 0, type(outcome).__name__, str(outcome) or "no answer in time")
        body = _error_body(outcome)
        return ServiceError(
            self.url,
            outcome.status_code,
            str(body.get("type", "unknown")),
            str(body.get("message", outcome.text[:200])),
            str(body.get("request_id", outcome.headers.get("X-Request-Id", ""))),
            retry_after_s(outcome.headers.get("Retry-After", "")),
        )


class RaydexClient(_Service):
    """One service, for code that blocks. Safe to share between threads; connections are kept and used again.

    wait: how to let seconds pass.
    """

    def __init__(
        self, url: str, *, wait: Callable[[float], None] = time.sleep, **settings: Unpack[ClientSettings]
    ) -> None:
        super().__init__(url, settings)
        self._wait = wait
        self._http = httpx.Client(**self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def search(self, query: str, **options: Unpack[SearchOptions]) -> SearchAnswer:
        return self._drive(self._steps(_search(query, options)))

    def search_raw(self, query: str, **options: Unpack[SearchOptions]) -> bytes:
        """Return the body of GET /search as it came."""
        return self._drive(self._steps(_search_raw(query, options)))

    def search_many(self, queries: Sequence[str], **options: Unpack[SearchOptions]) -> BatchAnswer:
        """Ask several queries in one request; answers come in their order."""
        return self._drive(self._steps(_search_many(queries, options)))

    def suggest(self, prefix: str, *, k: int = 10, index: Sequence[str] = (), timeout_ms: int = 0) -> SuggestAnswer:
        return self._drive(self._steps(_suggest(prefix, k, index, timeout_ms)))

    def indexes(self) -> tuple[IndexInfo, ...]:
        return self._drive(self._steps(_INDEXES))

    def section(self, section_id: str) -> SectionAnswer:
        return self._drive(self._steps(_section(section_id)))

    def feedback(self, query: str, url: str, kind: Verdict, *, index: str = "") -> bool:
        """Say that a result was opened (click), right (up) or wrong (down); return whether the service keeps it."""
        return self._drive(self._steps(_feedback(query, url, kind, index)))

    def report(self, *, days: int = 7, lines: int = 20) -> ReportAnswer:
        return self._drive(self._steps(_report(days, lines)))

    def ready(self) -> bool:
        return self._drive(self._is_ready())

    def wait_ready(self, seconds: float) -> None:
        """Return when the service is ready; raise the last ServiceError when it is not within so many seconds."""
        self._drive(self._until_ready(seconds))

    def _drive(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = self._wait(step) if isinstance(step, float) else self._send(step)
        except StopIteration as end:
            value: T = end.value
            return value

    def _send(self, call: _Call[Any]) -> Outcome:
        try:
            return self._http.request(call.method, call.path, **call.content)
        except UNSENT as error:
            return error


class AsyncRaydexClient(_Service):
    """The same service for async code: each method of RaydexClient, awaited. It belongs to one event loop."""

    def __init__(
        self, url: str, *, wait: Callable[[float], Awaitable[None]] = asyncio.sleep, **settings: Unpack[ClientSettings]
    ) -> None:
        super().__init__(url, settings)
        self._wait = wait
        self._http = httpx.AsyncClient(**self._connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def search(self, query: str, **options: Unpack[SearchOptions]) -> SearchAnswer:
        return await self._drive(self._steps(_search(query, options)))

    async def search_raw(self, query: str, **options: Unpack[SearchOptions]) -> bytes:
        return await self._drive(self._steps(_search_raw(query, options)))

    async def search_many(self, queries: Sequence[str], **options: Unpack[SearchOptions]) -> BatchAnswer:
        return await self._drive(self._steps(_search_many(queries, options)))

    async def suggest(
        self, prefix: str, *, k: int = 10, index: Sequence[str] = (), timeout_ms: int = 0
    ) -> SuggestAnswer:
        return await self._drive(self._steps(_suggest(prefix, k, index, timeout_ms)))

    async def indexes(self) -> tuple[IndexInfo, ...]:
        return await self._drive(self._steps(_INDEXES))

    async def section(self, section_id: str) -> SectionAnswer:
        return await self._drive(self._steps(_section(section_id)))

    async def feedback(self, query: str, url: str, kind: Verdict, *, index: str = "") -> bool:
        return await self._drive(self._steps(_feedback(query, url, kind, index)))

    async def report(self, *, days: int = 7, lines: int = 20) -> ReportAnswer:
        return await self._drive(self._steps(_report(days, lines)))

    async def ready(self) -> bool:
        return await self._drive(self._is_ready())

    async def wait_ready(self, seconds: float) -> None:
        await self._drive(self._until_ready(seconds))

    async def _drive(self, steps: Steps[T]) -> T:
        outcome: Outcome = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = await (self._wait(step) if isinstance(step, float) else self._send(step))
        except StopIteration as end:
            value: T = end.value
            return value

    async def _send(self, call: _Call[Any]) -> Outcome:
        try:
            return await self._http.request(call.method, call.path, **call.content)
        except UNSENT as error:
            return error


def _credentials(api_key: str) -> dict[str, str]:
    """Return the header of a key. One that no header can hold is refused here, where it is not shown."""
    key = api_key.strip()  # a key read from a file ends in a new line
    if not key:
        return {}
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError("the API key holds characters that no key has; was it copied whole?")
    return {"Authorization": f"Bearer {key}"}


def _error_body(response: httpx.Response) -> Mapping[str, Any]:
    """Return what stands under "error"; empty when a proxy answered in its own words."""
    try:
        document = response.json()
    except ValueError:
        return {}
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {}
