"""Make one request and say what came of it: a page, a redirect, "not modified", or a named failure.

Source, canonical URL → Page | Redirect | NotModified, or FetchError
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from ssl import SSLContext
from types import MappingProxyType
from typing import TypeVar

import httpcore
import httpx

from raydex.config import CrawlConfig
from raydex.crawl.answers import (
    REDIRECT_STATUSES,
    NotModified,
    Redirect,
    Resource,
    redirect_of,
    refusal_of,
    whole_body,
)
from raydex.crawl.credentials import Credentials
from raydex.crawl.guard import Guard, Resolve, SeedAddresses, resolve, seed_addresses
from raydex.crawl.network import Connections, GuardedNetwork, named_failures
from raydex.crawl.pacing import Pace, PaceStats
from raydex.crawl.robots import RobotsRules, read_robots
from raydex.crawl.unpack import ACCEPTED
from raydex.errors import FetchError
from raydex.records import Page, Source, new_page
from utils.retry import backoff_s, retry_after_s

T = TypeVar("T")

MAX_RESOURCE_REDIRECTS = 5
BACKOFF_S, LONGEST_BACKOFF_S = 0.5, 8.0
PAGE_STATUSES = frozenset({200, 203})
PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "text/markdown", "text/x-markdown", "text/plain"})
ACCEPT = "text/html, application/xhtml+xml, text/markdown;q=0.9, text/x-markdown;q=0.9, text/plain;q=0.8"
NO_CREDENTIALS: Mapping[str, Credentials] = MappingProxyType({})


class _Host:
    """All that a fetcher keeps of one origin."""

    def __init__(self, pace: Pace, connections: Connections) -> None:
        self.pace, self.connections = pace, connections
        self.robots: RobotsRules | None = None
        self.lock = asyncio.Lock()


class Fetcher(AbstractAsyncContextManager["Fetcher"]):
    """Makes all requests to the origins that it owns, each at its own pace; for one event loop.

    addresses: of the sources' seeds (guard.seed_addresses); looked up now when not given. wait, clock, resolve,
    ssl_context: for tests.
    """

    def __init__(
        self,
        config: CrawlConfig,
        sources: Sequence[Source] = (),
        *,
        credentials: Mapping[str, Credentials] = NO_CREDENTIALS,
        addresses: SeedAddresses | None = None,
        wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        resolve: Resolve = resolve,
        ssl_context: SSLContext | None = None,
    ) -> None:
        self._config, self._credentials = config, credentials
        self._wait, self._clock = wait, clock
        self._ssl_context = ssl_context or httpx.create_ssl_context()
        seeds = seed_addresses(sources, resolve) if addresses is None else addresses
        self._network = GuardedNetwork(Guard(seeds, resolve), httpcore.AnyIOBackend())
        self._hosts: dict[str, _Host] = {}
        self.user_agent = f"{config.user_agent} (+{config.contact})" if config.contact else config.user_agent

    async def __aexit__(self, *exc_info: object) -> None:
        for host in self._hosts.values():
            await host.connections.aclose()

    def stats(self) -> dict[str, PaceStats]:
        """Return origin → what became of the requests to it."""
        return {origin: host.pace.stats for origin, host in self._hosts.items()}

    async def robots(self, origin: str) -> RobotsRules:
        """Return the rules of an origin (`scheme://host[:port]`), asked for once; never raises FetchError.

        The origin's pace keeps their Crawl-delay from then on.
        """
        host = self._host(origin)
        async with host.lock:
            if host.robots is None:
                host.robots = await read_robots(self.get, origin, self.user_agent)
                host.pace.delay_s = max(host.pace.delay_s, host.robots.delay_s)
            return host.robots

    async def fetch(
        self, source: Source, url: str, *, etag: str = "", last_modified: str = ""
    ) -> Page | Redirect | NotModified:
        """Make one visit to a canonical URL. etag, last_modified: of the copy at hand.

        Raises FetchError: timeout, connection, tls, protocol, http_<status>, forbidden_address, too_large, not_html,
        bad_encoding, bad_redirect. Timeouts, lost connections, 429 and 5xx have been tried `config.attempts` times by
        then, or as often as `config.retry_deadline_s` and Retry-After let.
        """
        conditions = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        headers = {name: value for name, value in conditions.items() if value}

        async def read(response: httpx.Response) -> Page | Redirect | NotModified:
            return await self._visited(source, url, response)

        visited = await self.get(url, read, headers=headers, source=source)
        if isinstance(visited, Redirect) and visited.target == url != visited.location:
            # `/` → `/index.html`: two spellings of one URL
            return await self.get(visited.location, read, headers=headers, source=source)
        return visited

    async def resource(self, url: str) -> Resource:
        """Return what a page that is being rendered asks for; redirects are followed. Raises FetchError."""

        async def read(response: httpx.Response) -> Resource | Redirect:
            if response.status_code in REDIRECT_STATUSES:
                return redirect_of(url, response)
            body = await whole_body(url, response, limit=self._config.max_body_bytes)
            content_type = response.headers.get("Content-Type", "")
            return Resource(response.status_code, content_type, body, dict(response.headers.items()))

        for _ in range(1 + MAX_RESOURCE_REDIRECTS):
            found = await self.get(url, read)
            if isinstance(found, Resource):
                return found
            url = found.location
        raise FetchError(url, "redirect_limit", f"more than {MAX_RESOURCE_REDIRECTS}")

    async def get(
        self,
        url: str,
        read: Callable[[httpx.Response], Awaitable[T]],
        *,
        headers: Mapping[str, str] | None = None,
        source: Source | None = None,
    ) -> T:
        """Return read(response), called before the body has arrived; what fails in passing is tried again.

        read: is given the body unpacked, and may be called once per attempt. source: whose credentials go along, if
        the origin is one of its seeds'. Raises FetchError as `fetch` does, and what read raises.
        """
        with named_failures(url):
            request = httpx.Request("GET", url, headers=dict(headers or {}) | self._headers)
            origin = _origin_of(request.url)
        if source and source.name in self._credentials:
            request.headers.update(self._credentials[source.name].headers_for(origin))
        host, ends_at, attempt = self._host(origin), math.inf, 0
        while True:
            patience_s = min(ends_at - self._clock(), self._config.retry_deadline_s)
            await host.pace.enter(url, patience_s, is_retry=attempt > 0)
            try:
                ends_at = min(ends_at, self._clock() + self._config.retry_deadline_s)
                return await self._attempt(host, request, read, min(self._config.timeout_s, ends_at - self._clock()))
            except FetchError as error:
                wait_s = max(error.retry_after_s, backoff_s(attempt, base_s=BACKOFF_S, cap_s=LONGEST_BACKOFF_S))
                attempt += 1
                may_pass = error.reason.startswith(("timeout", "connection", "http_429", "http_5"))
                if not may_pass or attempt == self._config.attempts or self._clock() + wait_s > ends_at:
                    raise
            finally:
                host.pace.leave()
            await self._wait(wait_s)

    @property
    def _headers(self) -> dict[str, str]:
        return {"User-Agent": self.user_agent, "Accept": ACCEPT, "Accept-Encoding": ACCEPTED}

    async def _attempt(
        self, host: _Host, request: httpx.Request, read: Callable[[httpx.Response], Awaitable[T]], timeout_s: float
    ) -> T:
        sent_at = self._clock()
        try:
            with named_failures(str(request.url)):
                async with asyncio.timeout(timeout_s), host.connections.answer(request) as response:
                    away_s = retry_after_s(response.headers.get("Retry-After", ""))
                    host.pace.answered(response.status_code, away_s, sent_at=sent_at)
                    return await read(response)
        except FetchError as error:
            if error.reason in {"timeout", "connection"}:
                host.pace.failed(sent_at=sent_at)
            raise

    def _host(self, origin: str) -> _Host:
        if origin not in self._hosts:
            pace = Pace(self._config.per_host, self._config.delay_s, clock=self._clock, wait=self._wait)
            connections = Connections(self._ssl_context, self._network, self._config.per_host)
            self._hosts[origin] = _Host(pace, connections)
        return self._hosts[origin]

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
        return new_page(
            source,
            url,
            body,
            content_type,
            status=response.status_code,
            etag=_validator(response, "ETag"),
            last_modified=_validator(response, "Last-Modified"),
            robots="\n".join(response.headers.get_list("X-Robots-Tag")),
        )


def _origin_of(url: httpx.URL) -> str:
    """Return `scheme://host[:port]` as the request will go; decided from nothing but the URL that is connected to."""
    if url.scheme not in {"http", "https"} or not url.host:
        raise httpx.InvalidURL("not an http or https address")
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _validator(response: httpx.Response, name: str) -> str:
    """Return an ETag or Last-Modified that can be sent back: header values of a request are ASCII."""
    value: str = response.headers.get(name, "")
    return value if value.isascii() else ""
