"""Find pages by what a site says of itself: its sitemaps and llms.txt.

Source → robots.txt, /sitemap.xml, …, /llms.txt → Discovery(entries, llms_links, problems)
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

import httpx
from markdown_it import MarkdownIt
from protego import Protego

from raydex.config import CrawlConfig
from raydex.crawl.answers import REDIRECT_STATUSES, Redirect, redirect_of, refusal_of
from raydex.crawl.fetch import Fetcher
from raydex.crawl.robots import RobotsRules
from raydex.crawl.sitemap import MAX_BYTES, MAX_ENTRIES, Sitemap, SitemapEntry, read_sitemap
from raydex.errors import FetchError, ParseError
from raydex.records import Source
from utils.urls import DEFAULT_PORTS, canonical_url, directory_of, file_path, in_scope, is_file_url, origin_of, prefixes

MAX_LEVELS = 4  # a sitemap, and indexes three deep
MAX_SITEMAPS = 1000
MAX_PROBLEMS = 100  # named
MAX_LLMS_BYTES = 2**20
MAX_REDIRECTS = 5
AT_ONCE = 4  # sitemaps in memory, each of up to 50 MiB
ABSENT = frozenset({"http_404", "http_410"})


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a site names of itself, as far as it belongs to the source, each page once.

    problems: one sentence for each sitemap or llms.txt that could not be had, or not as a whole.
    """

    entries: tuple[SitemapEntry, ...] = ()
    llms_links: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


async def discover(fetcher: Fetcher, source: Source, config: CrawlConfig) -> Discovery:
    """Ask a site for its pages, in the ways that config.discover names. Raises nothing: see `problems`."""
    if any(urlsplit(seed).scheme not in DEFAULT_PORTS for seed in source.seeds):
        return Discovery()
    origins = dict.fromkeys(origin_of(seed) for seed in source.seeds)
    survey = _Survey(fetcher, source, {origin: await fetcher.robots(origin) for origin in origins})
    if "sitemap" in config.discover:
        await survey.read_sitemaps()
    if "llms.txt" in config.discover:
        await survey.read_llms()
    entries = tuple(SitemapEntry(url, lastmod) for url, lastmod in survey.entries.items())
    return Discovery(entries, tuple(survey.llms_links), tuple(survey.problems))


class _Survey:
    """One round of discovery. What is named (by robots.txt, an index, the user) should be there; a guess need not."""

    def __init__(self, fetcher: Fetcher, source: Source, rules: Mapping[str, RobotsRules]) -> None:
        self.entries: dict[str, datetime | None] = {}
        self.llms_links: dict[str, None] = {}
        self.problems: list[str] = []
        self._fetcher, self._source, self._rules = fetcher, source, rules
        known = (*source.seeds, *prefixes(source), *source.sitemaps)
        self._hosts = {urlsplit(url).hostname for url in known} - {None}
        self._guesses: set[str] = set()

    async def read_sitemaps(self) -> None:
        named = [*self._source.sitemaps, *self._named_by_robots()]
        level = dict.fromkeys([*named, *self._guess("sitemap.xml", named)])
        known, listed, left_out = set(level), 0, 0
        for _ in range(MAX_LEVELS):
            following: dict[str, None] = {}
            async for url, sitemap in self._each(level):
                listed += len(sitemap.pages)
                self._add(url, sitemap)
                new = [each for each in dict.fromkeys(sitemap.sitemaps) if each not in known and self._is_near(each)]
                room = MAX_SITEMAPS - len(known)
                following |= dict.fromkeys(new[:room])
                known.update(new[:room])
                left_out += len(new[room:])
            level = following
        if left_out:
            self._report(f"more than {MAX_SITEMAPS} sitemaps; {left_out} were left out")
        if level:
            self._report(f"{next(iter(level))}: sitemap indexes are nested too deep; it was left out")
        if listed and not self.entries:
            self._report(f"none of the {listed} pages in the sitemaps belongs to source {self._source.name!r}")

    async def read_llms(self) -> None:
        for url in self._guess("llms.txt"):
            try:
                text = (await self._download(url, MAX_LLMS_BYTES)).decode("utf-8-sig", errors="replace")
            except FetchError as error:
                if error.reason not in ABSENT:
                    self._report(str(error))
                continue
            if text.lstrip().startswith("<"):
                self._report(f"{url}: is HTML or XML, not Markdown")
                continue
            links = (canonical_url(link, base=url) for link in await asyncio.to_thread(_markdown_links, text))
            self.llms_links |= dict.fromkeys(link for link in links if in_scope(self._source, link))

    def _named_by_robots(self) -> list[str]:
        """Return the Sitemap lines of each robots.txt."""
        lines = [
            canonical_url(line, base=f"{origin}/")
            for origin, rules in self._rules.items()
            for line in Protego.parse(rules.text).sitemaps
        ]
        return [url for url in lines if url and self._is_near(url)]

    def _guess(self, name: str, named: Iterable[str] = ()) -> list[str]:
        """Return where else a file of this name may be, at each origin and beside each seed, if robots.txt allows."""
        places = [f"{origin}/" for origin in self._rules]
        places += [directory_of(seed).rstrip("/") + "/" for seed in self._source.seeds]
        guesses = [url for url in dict.fromkeys(place + name for place in places) if url not in named]
        allowed = [url for url in guesses if self._rules[origin_of(url)].allows(url)]
        for url in guesses:
            if url not in allowed:
                self._report(f"{url}: robots.txt forbids it")
        self._guesses.update(allowed)
        return allowed

    def _is_near(self, url: str) -> bool:
        """Tell whether a sitemap lies on a host of the source; a site has no say about the hosts that we ask."""
        near = urlsplit(url).hostname in self._hosts
        if not near:
            self._report(f"{url}: is on another host; name it under `sitemaps` to take it")
        return near

    async def _each(self, urls: Iterable[str]) -> AsyncIterator[tuple[str, Sitemap]]:
        """Yield the sitemaps in the order of their URLs, whichever comes first."""
        waiting = list(urls)
        for start in range(0, len(waiting), AT_ONCE):
            some = waiting[start : start + AT_ONCE]
            for url, sitemap in zip(some, await asyncio.gather(*map(self._sitemap, some)), strict=True):
                yield url, sitemap

    async def _sitemap(self, url: str) -> Sitemap:
        try:
            if is_file_url(url):
                body = await asyncio.to_thread(_file_body, url)
            else:
                body = await self._download(url, MAX_BYTES + 1)
            return await asyncio.to_thread(read_sitemap, body, url)  # up to seconds of work
        except FetchError as error:
            return Sitemap(problem="" if url in self._guesses and error.reason in ABSENT else _reason(error))
        except ParseError as error:
            return Sitemap(problem=_reason(error))
        except OSError as error:
            return Sitemap(problem=error.strerror or type(error).__name__)

    async def _download(self, url: str, limit: int) -> bytes:
        """Return the body, or its first `limit` bytes. Raises FetchError."""

        async def read(response: httpx.Response) -> bytes | Redirect:
            if response.status_code in REDIRECT_STATUSES:
                return redirect_of(str(response.url), response)
            if response.status_code != httpx.codes.OK:
                raise refusal_of(str(response.url), response)
            return await _body_of(response, limit)

        where = url
        for _ in range(1 + MAX_REDIRECTS):
            answer = await self._fetcher.get(where, read, source=self._source)
            if isinstance(answer, bytes):
                return answer
            where = answer.location
            if urlsplit(where).hostname not in self._hosts:
                raise FetchError(url, "redirect_outside", f"{where} is on another host")
        raise FetchError(url, "redirect_limit", f"more than {MAX_REDIRECTS}")

    def _add(self, url: str, sitemap: Sitemap) -> None:
        if sitemap.problem:
            self._report(f"{url}: {sitemap.problem}")
        most = self._source.max_pages + MAX_ENTRIES  # some will turn out to be denied, or no pages
        for entry in sitemap.pages:
            if not in_scope(self._source, entry.url):
                continue
            if len(self.entries) >= most and entry.url not in self.entries:
                self._report(f"{url}: more than {most} pages are listed by now; the rest was left out")
                return
            before = self.entries.get(entry.url)
            self.entries[entry.url] = max(filter(None, (before, entry.lastmod)), default=None)

    def _report(self, problem: str) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        elif len(self.problems) == MAX_PROBLEMS:
            self.problems.append("… and more")


def _reason(error: FetchError | ParseError) -> str:
    return error.reason + (f" ({error.detail})" if error.detail else "")


def _file_body(url: str) -> bytes:
    with file_path(url).open("rb") as file:
        return file.read(MAX_BYTES + 1)


async def _body_of(response: httpx.Response, limit: int) -> bytes:
    body = bytearray()
    async for block in response.aiter_bytes():
        body += block
        if len(body) >= limit:
            break
    return bytes(body[:limit])


def _markdown_links(text: str) -> list[str]:
    tokens = (child for token in MarkdownIt().parse(text) for child in token.children or ())
    return [str(token.attrGet("href")) for token in tokens if token.type == "link_open"]
