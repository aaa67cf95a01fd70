"""What an HTTP response says, apart from its body's meaning.

httpx.Response → Redirect, FetchError, bytes
"""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin

import httpx

from raydex.errors import FetchError, TooLarge
from utils.retry import retry_after_s
from utils.urls import canonical_url

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Redirect:
    """The server names another address. target: canonical; location: as the server spells it, made absolute."""

    target: str
    location: str


@dataclass(frozen=True, slots=True)
class NotModified:
    """The page is still the one whose etag or last_modified was given."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What a page that is being rendered asks for: a script, a style sheet, data."""

    status: int
    content_type: str
    body: bytes
    headers: Mapping[str, str]


def redirect_of(url: str, response: httpx.Response) -> Redirect:
    given = response.headers.get("Location", "")
    target = canonical_url(given, base=url) if given else ""
    if not target.startswith("http"):
        raise FetchError(url, "bad_redirect", f"HTTP {response.status_code} to {given!r}")
    return Redirect(target=target, location=urljoin(url, given))


def refusal_of(url: str, response: httpx.Response) -> FetchError:
    phrase = httpx.codes.get_reason_phrase(response.status_code)
    return FetchError(
        url, f"http_{response.status_code}", phrase, retry_after_s(response.headers.get("Retry-After", ""))
    )


async def body_of(response: httpx.Response, *, at_least: int) -> bytes:
    """Return the unpacked body, all of it or this many bytes and the rest of one block (2 MiB at most)."""
    body = bytearray()
    async for block in response.aiter_bytes():
        body += block
        if len(body) >= at_least:
            break
    return bytes(body)


async def whole_body(url: str, response: httpx.Response, *, limit: int) -> bytes:
    """Return the unpacked body; TooLarge as soon as it is announced, or found, to be longer than the limit (bytes)."""
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise TooLarge(url, limit)
    body = await body_of(response, at_least=limit + 1)
    if len(body) > limit:
        raise TooLarge(url, limit)
    return body
