"""Make requests and say what came of each: a page, a redirect, "not modified", or a named failure.

    Source, canonical URL → Page | Redirect | NotModified, or FetchError

One Fetcher owns its hosts: every request to them goes through it, at the pace that they bear (pacing.py).
"""

import asyncio
import hashlib
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import httpcore
import httpx

from raydex.config import CrawlConfig
from raydex.crawl.answers import REDIRECT_STATUSES, Redirect, redirect_of, refusal_of, whole_body
from raydex.crawl.credentials import Credentials
from raydex.crawl.guard import Guard, Resolve, SeedAddresses, resolve
from raydex.crawl.network import Connections, GuardedNetwork, named_failures
from raydex.crawl.pacing import Pace, PaceStats, Wait
from raydex.crawl.robots import RobotsRules, read_robots
from raydex.crawl.unpack import ACCEPTED
from raydex.errors import FetchError
from raydex.records import Page, Source, stable_id
from utils.retry import backoff_s
from utils.urls import canonical_url, origin_of, public_url

T = TypeVar("T")

MAX_RETRY_AFTER_S = 30.0  # a server that asks for an hour must not hold a build for one
MAX_RESOURCE_REDIRECTS = 5
BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0
PAGE_STATUSES = frozenset({200, 203})
PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/markdown", "text/x-markdown", "text/plain"})
ACCEPT = "text/html, application/xhtml+xml, text/markdown;q=0.9, text/plain;q=0.8"
PASSING = ("timeout", "connection", "http_429", "http_5")
"""Reasons of failures that may be over when the page is asked for again."""


@dataclass(frozen=True, slots=True)
class NotModified:
    """The page is still the one whose etag or last_modified was given."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What a page needs to be rendered: a script, a style sheet, data."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str]


class Fetcher(AbstractAsyncContextManager["Fetcher"]):
    """Makes all requests to its hosts, over kept connections; for one event loop.

    seed_addresses: where the seeds' hosts may be found (guard.seed_addresses); any other host must have public
    addresses. credentials: by name of the source.
    """

    def __init__(
        self,
        config: CrawlConfig,
        *,
        seed_addresses: SeedAddresses,
        credentials: Mapping[str, Credentials] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        resolve: Resolve = resolve,
        wait: Wait = asyncio.sleep,
    ) -> None:
        self._config, self._wait, self._credentials = config, wait, credentials or {}
        self.user_agent = f"{config.user_agent} (+{config.contact})" if config.contact else config.user_agent
        self._headers = {"User-Agent": self.user_agent, "Accept": ACCEPT, "Accept-Encoding": ACCEPTED}
        self._network = GuardedNetwork(Guard(seed_addresses, resolve), httpcore.AnyIOBackend())
        self._ssl_context = ssl_context or httpx.create_ssl_context(trust_env=False)
        self._connections: dict[str, Connections] = {}
        self._paces: dict[str, Pace] = {}
        self._robots: dict[str, asyncio.Future[RobotsRules]] = {}

    async def __aexit__(self, *exc_info: object) -> None:
        for connections in self._connections.values():
            await connections.aclose()

    async def fetch(
        self, source: Source, url: str, *, etag: str = "", last_modified: str = ""
    ) -> Page | Redirect | NotModified:
        """Make one visit to a canonical URL. etag, last_modified: of the copy at hand.

        Raises FetchError: timeout, connection, tls, protocol, http_<status>, too_large, not_html, bad_encoding,
        bad_redirect, forbidden_address. Timeouts, lost connections, 429 and 5xx have been tried `config.attempts` times
        by then, or for `config.retry_deadline_s`.
        """
        conditions = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        headers = {name: value for name, value in conditions.items() if value}

        async def read(response: httpx.Response) -> Page | Redirect | NotModified:
            return await self._visited(source, url, response)

        visited = await self.get(url, read, headers=headers, source=source)
        if isinstance(visited, Redirect) and visited.target == url != visited.location:
            return await self.get(visited.location, read, headers=headers, source=source)  # `/` → `/index.html`
        return visited

    async def robots(self, origin: str) -> RobotsRules:
        """Return the rules of an origin, asked for once; its Crawl-delay holds for all requests from then on."""
        if origin not in self._robots:
            self._robots[origin] = asyncio.ensure_future(read_robots(self.get, origin, self.user_agent))
        rules = await self._robots[origin]
        self._pace(origin).slow_down(rules.delay_s)
        return rules

    async def resource(self, url: str) -> Resource:
        """Return what a page that is being rendered asks for; redirects are followed. Raises FetchError."""

        async def read(response: httpx.Response) -> Resource | Redirect:
            if response.status_code in REDIRECT_STATUSES:
                return redirect_of(url, response)
            body = await whole_body(url, response, limit=self._config.max_body_bytes)
            headers = {str(name): str(value) for name, value in response.headers.items()}
            return Resource(response.status_code, headers.get("content-type", ""), body, headers)

        for _ in range(1 + MAX_RESOURCE_REDIRECTS):
            found = await self.get(url, read, headers={"Accept": "*/*"})
            if isinstance(found, Resource):
                return found
            url = found.location
        raise FetchError(url, "redirect_limit", f"more than {MAX_RESOURCE_REDIRECTS}")

    def stats(self) -> dict[str, PaceStats]:
        """Return origin → how its requests went."""
        return {origin: pace.stats() for origin, pace in self._paces.items()}

    async def get(
        self,
        url: str,
        read: Callable[[httpx.Response], Awaitable[T]],
        *,
        headers: Mapping[str, str] | None = None,
        source: Source | None = None,
    ) -> T:
        """Return await read(response), called before the body has arrived; what fails in passing is tried again.

        source: whose credentials to send, where they belong.
        """
        pace = self._pace(origin_of(canonical_url(url)))
        secret = self._credentials.get(source.name) if source else None
        sent = {**self._headers, **(headers or {}), **(secret.headers_for(canonical_url(url)) if secret else {})}
        given_up_at = time.monotonic() + self._config.retry_deadline_s
        for attempt in range(self._config.attempts):
            try:
                return await self._attempt(pace, url, sent, read)
            except FetchError as error:
                if not error.reason.startswith(PASSING):
                    raise
                asked_s = min(error.retry_after_s, MAX_RETRY_AFTER_S)
                if asked_s:
                    pace.pause(asked_s)
                waiting_s = max(asked_s, backoff_s(attempt, base_s=BACKOFF_S, cap_s=MAX_BACKOFF_S))
                is_too_late = time.monotonic() + max(waiting_s, error.retry_after_s) > given_up_at
                if is_too_late or attempt + 1 == self._config.attempts:
                    raise
                await self._wait(waiting_s)
        raise AssertionError("attempts is at least 1")

    async def _attempt(
        self, pace: Pace, url: str, headers: Mapping[str, str], read: Callable[[httpx.Response], Awaitable[T]]
    ) -> T:
        async with pace.turn():
            started = time.monotonic()
            try:
                with named_failures(url):
                    request = httpx.Request("GET", url, headers=headers)
                    async with (
                        asyncio.timeout(self._config.timeout_s),
                        self._connected(url).answer(request) as response,
                    ):
                        result = await read(response)
            except FetchError as error:
                latency_s = time.monotonic() - started
                (pace.troubled if error.reason.startswith(PASSING) else pace.answered)(latency_s)
                raise
            pace.answered(time.monotonic() - started)
            return result

    async def _visited(self, source: Source, url: str, response: httpx.Response) -> Page | Redirect | NotModified:
        if response.status_code == httpx.codes.NOT_MODIFIED:
            return NotModified()
        if response.status_code in REDIRECT_STATUSES:
            return redirect_of(url, response)
        if response.status_code not in PAGE_STATUSES:
            raise refusal_of(url, response)
        content_type = response.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() not in PAGE_TYPES:
            raise FetchError(url, "not_html", content_type or "no Content-Type")
        body = await whole_body(url, response, limit=self._config.max_body_bytes)
        public = public_url(source, url)
        return Page(
            page_id=stable_id(public),
            url=public,
            crawl_url=url,
            source=source.name,
            fetched_at=datetime.now(UTC),
            status=response.status_code,
            content_type=content_type,
            body=body,
            body_sha256=hashlib.sha256(body).hexdigest(),
            etag=_validator(response, "ETag"),
            last_modified=_validator(response, "Last-Modified"),
            robots="\n".join(response.headers.get_list("X-Robots-Tag")),
        )

    def _pace(self, origin: str) -> Pace:
        if origin not in self._paces:
            self._paces[origin] = Pace(self._config.per_host, self._config.delay_s, wait=self._wait)
        return self._paces[origin]

    def _connected(self, url: str) -> Connections:
        origin = origin_of(canonical_url(url))
        if origin not in self._connections:
            self._connections[origin] = Connections(self._ssl_context, self._network, self._config.per_host)
        return self._connections[origin]


def _validator(response: httpx.Response, name: str) -> str:
    """Return an ETag or Last-Modified that can be sent back: header values of a request are ASCII."""
    value: str = response.headers.get(name, "")
    return value if value.isascii() else ""
