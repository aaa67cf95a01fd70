"""Make one request and say what came of it: a page, a redirect, "not modified", or a named failure.

Source, canonical URL → Page | Redirect | NotModified, or FetchError
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from urllib.parse import urljoin

import httpx

from raydex.config import CrawlConfig
from raydex.crawl.network import TimedNetwork, Transport, named_failures
from raydex.errors import FetchError, TooLarge
from raydex.records import Page, Source, stable_id
from utils.retry import call_with_retries
from utils.urls import canonical_url, public_url

T = TypeVar("T")

MAX_RETRY_AFTER_S = 30.0  # a server that asks for an hour must not hold a build for one
PAGE_STATUSES = frozenset({200, 203})
REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""One at most: a body packed twice grows a millionfold (packed once, a 64 KiB read makes 66 MB at worst)."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The server names another address. target: canonical; location: as the server spells it, made absolute."""

    target: str
    location: str


@dataclass(frozen=True, slots=True)
class NotModified:
    """The page is still the one whose etag or last_modified was given."""


class Fetcher(AbstractContextManager["Fetcher"]):
    """Makes requests one after the other over kept connections; for one thread.

    delay_s: seconds to wait before each request, when more than the config says (robots.txt's Crawl-delay).
    """

    def __init__(
        self, config: CrawlConfig, *, delay_s: float = 0.0, wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._config, self._wait = config, wait
        self._delay_s = max(config.delay_s, delay_s)
        self._network = TimedNetwork()
        self._client = httpx.Client(
            transport=Transport(self._network),
            trust_env=False,  # a proxy or a netrc of the machine must not change what is fetched
            timeout=None,  # TimedNetwork bounds the request as a whole
            headers={
                b"User-Agent": config.user_agent.encode(),
                b"Accept": b"text/html, application/xhtml+xml",
                b"Accept-Encoding": b"gzip, deflate",
            },
        )

    def __exit__(self, *exc_info: object) -> None:
        self._client.close()

    @property
    def user_agent(self) -> str:
        return self._config.user_agent

    def fetch(
        self, source: Source, url: str, *, etag: str = "", last_modified: str = ""
    ) -> Page | Redirect | NotModified:
        """Make one visit to a canonical URL. etag, last_modified: of the copy at hand.

        Raises FetchError: timeout, connection, tls, protocol, http_<status>, too_large, not_html, bad_encoding,
        bad_redirect. Timeouts, lost connections, 429 and 5xx have been tried `config.attempts` times by then.
        """
        conditions = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        headers = {name: value for name, value in conditions.items() if value}

        def read(response: httpx.Response) -> Page | Redirect | NotModified:
            return self._visited(source, url, response)

        visited = self.get(url, read, headers=headers)
        if isinstance(visited, Redirect) and visited.target == url != visited.location:
            return self.get(visited.location, read, headers=headers)  # `/` → `/index.html`: two spellings of one URL
        return visited

    def get(self, url: str, read: Callable[[httpx.Response], T], *, headers: Mapping[str, str] | None = None) -> T:
        """Return read(response), called before the body has arrived; what fails in passing is tried again."""

        def attempt() -> T:
            self._wait(self._delay_s)
            self._client.cookies.clear()  # every page as a stranger sees it, whatever was fetched before
            self._network.start(self._config.timeout_s)
            with named_failures(url, self._network), self._client.stream("GET", url, headers=headers) as response:
                _check_encoding(url, response)
                return read(response)

        return call_with_retries(
            attempt,
            attempts=self._config.attempts,
            should_retry=_may_pass,
            least_wait_s=lambda error: error.retry_after_s if isinstance(error, FetchError) else 0.0,
            wait=self._wait,
        )

    def _visited(self, source: Source, url: str, response: httpx.Response) -> Page | Redirect | NotModified:
        if response.status_code == httpx.codes.NOT_MODIFIED:
            response.read()  # nothing, but it frees the connection for the next request
            return NotModified()
        if response.status_code in REDIRECT_STATUSES:
            return redirect_of(url, response)
        if response.status_code not in PAGE_STATUSES:
            raise refusal_of(url, response)
        content_type = response.headers.get("Content-Type", "")
        if content_type.partition(";")[0].strip().lower() not in PAGE_TYPES:
            raise FetchError(url, "not_html", content_type or "no Content-Type")
        body = self._whole_body(url, response)
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
        )

    def _whole_body(self, url: str, response: httpx.Response) -> bytes:
        limit = self._config.max_body_bytes
        announced = response.headers.get("Content-Length", "")
        if announced and int(announced) > limit:
            raise TooLarge(url, limit)
        body = body_of(response, at_least=limit + 1)
        if len(body) > limit:
            raise TooLarge(url, limit)
        return body


def _may_pass(error: Exception) -> bool:
    passing = ("timeout", "connection", "http_429", "http_5")
    return isinstance(error, FetchError) and error.reason.startswith(passing)


def _check_encoding(url: str, response: httpx.Response) -> None:
    encoding = response.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ENCODINGS:
        raise FetchError(url, "bad_encoding", f"Content-Encoding: {encoding}")


def refusal_of(url: str, response: httpx.Response) -> FetchError:
    return FetchError(
        url,
        f"http_{response.status_code}",
        httpx.codes.get_reason_phrase(response.status_code),
        _retry_after_s(response.headers.get("Retry-After", ""), now=datetime.now(UTC)),
    )


def _retry_after_s(value: str, *, now: datetime) -> float:
    """Return the seconds of a Retry-After header, a number or an HTTP date; at most MAX_RETRY_AFTER_S, at least 0."""
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    if when.tzinfo is None:  # `-0000`: UTC, source unknown
        when = when.replace(tzinfo=UTC)
    return min(max((when - now).total_seconds(), 0.0), MAX_RETRY_AFTER_S)


def redirect_of(url: str, response: httpx.Response) -> Redirect:
    given = response.headers.get("Location", "")
    target = canonical_url(given, base=url) if given else ""
    if not target:
        raise FetchError(url, "bad_redirect", f"HTTP {response.status_code} to {given!r}")
    return Redirect(target=target, location=urljoin(url, given))


def _validator(response: httpx.Response, name: str) -> str:
    """Return an ETag or Last-Modified that can be sent back: header values of a request are ASCII."""
    value: str = response.headers.get(name, "")
    return value if value.isascii() else ""


def body_of(response: httpx.Response, *, at_least: int) -> bytes:
    """Return the decoded body, all of it or this many bytes and the rest of one read."""
    body = bytearray()
    for block in response.iter_bytes():
        body += block
        if len(body) >= at_least:
            break
    return bytes(body)
