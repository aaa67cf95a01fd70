"""What a host lets us fetch: robots.txt, read as RFC 9309 says.

origin → RobotsRules (plain data: they travel between processes)
"""

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

import httpx
from protego import Protego

from raydex.crawl.answers import REDIRECT_STATUSES, Redirect, body_of, redirect_of, refusal_of
from raydex.errors import FetchError

logger = logging.getLogger(__name__)

MAX_REDIRECTS = 5  # RFC 9309, 2.3.1.2
MAX_BYTES = 500 * 1024  # RFC 9309, 2.5

Answer = str | Redirect
Get = Callable[[str, Callable[[httpx.Response], Awaitable[Answer]]], Awaitable[Answer]]
"""Fetcher.get, as far as it is needed here."""


@dataclass(frozen=True)
class RobotsRules:
    """What a robots.txt lets this User-Agent do. unreachable: why there is no answer; nothing is allowed then."""

    text: str
    user_agent: str
    unreachable: str = ""

    def allows(self, url: str) -> bool:
        return not self.unreachable and self._parsed.can_fetch(url, self._product)

    @property
    def delay_s(self) -> float:
        return self._parsed.crawl_delay(self._product) or 0.0

    @property
    def sitemaps(self) -> tuple[str, ...]:
        return tuple(self._parsed.sitemaps)

    @cached_property
    def _parsed(self) -> Protego:
        return Protego.parse(self.text)

    @cached_property
    def _product(self) -> str:
        """The name robots.txt knows us by: `RaydexBot` of `RaydexBot/0.1 (…)`; a name in the comment is not ours."""
        return re.split(r"[/\s]", self.user_agent.strip(), maxsplit=1)[0]


async def read_robots(get: Get, origin: str, user_agent: str) -> RobotsRules:
    """Return the rules of an origin (`scheme://host[:port]`); never raises FetchError.

    No robots.txt (4xx) allows everything; one that cannot be had (5xx, no connection) denies everything. Redirects are
    followed on the same host; one that leads further, or that leads on five times, counts as no robots.txt.
    """
    try:
        return RobotsRules(await _text(get, f"{origin}/robots.txt"), user_agent)
    except FetchError as error:
        unreachable = "" if error.reason.startswith("http_4") else str(error)
        return RobotsRules("", user_agent, unreachable)


async def _text(get: Get, url: str) -> str:
    host = urlsplit(url).hostname
    for _ in range(1 + MAX_REDIRECTS):
        answer = await get(url, _answer)
        if isinstance(answer, str):
            return answer
        url = answer.target
        if urlsplit(url).hostname != host:
            break
    logger.warning("robots.txt redirects too far, taken as none host=%s target=%s", host, url)
    return ""


async def _answer(response: httpx.Response) -> Answer:
    url = str(response.url)
    if response.status_code in REDIRECT_STATUSES:
        return redirect_of(url, response)
    if not response.is_success:
        raise refusal_of(url, response)
    return (await body_of(response, at_least=MAX_BYTES))[:MAX_BYTES].decode("utf-8-sig", errors="replace")
