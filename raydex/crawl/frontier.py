"""Which URLs to visit next: breadth first, each canonical URL once, in an order that depends on the pages alone.

seeds, listed URLs, links, redirects → a stream of Visits
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from raydex.config import CrawlConfig
from raydex.crawl.robots import RobotsRules
from raydex.errors import FetchError
from raydex.records import Source
from utils.urls import DEFAULT_PORTS, canonical_url, in_scope, origin_of

MAX_REDIRECTS = 10
MAX_URL_LENGTH = 2000  # characters; browsers and servers agree on little beyond
MAX_SEGMENTS = 32
MAX_NAMED = 1000  # denied URLs and shapes of traps that are kept by name, for the report
MAX_REMEMBERED = 250_000  # dropped URLs that are counted once each, 16 MB of hashes; beyond, every link to one counts
# fmt: off
BINARY_SUFFIXES = frozenset({
    ".7z", ".apk", ".avi", ".bmp", ".bz2", ".css", ".csv", ".deb", ".dmg", ".doc", ".docx", ".eot", ".epub", ".exe",
    ".gif", ".gz", ".ico", ".inv", ".iso", ".jar", ".jpeg", ".jpg", ".js", ".mov", ".mp3", ".mp4", ".msi",
    ".odt", ".ogg", ".otf", ".pdf", ".png", ".ppt", ".pptx", ".rar", ".rpm", ".svg", ".tar", ".tgz", ".tif", ".tiff",
    ".ttf", ".wasm", ".wav", ".webm", ".webp", ".whl", ".woff", ".woff2", ".xls", ".xlsx", ".xml", ".xz", ".zip",
    ".zst",
})
# fmt: on
"""What is never worth a request. Suffixes that could end the name of a function or a version are not here."""


_DIGITS = re.compile(r"[0-9]+")
_DATE = re.compile(r"/[12][0-9]{3}(?:[/-](?:0?[1-9]|1[0-2])(?:[/-][0-9]{1,2})?|[01][0-9][0-3][0-9])(?![0-9a-z])", re.I)
"""/2024/05, /2024-05-12, /2024/5/12, /20240512: a date that begins a segment. /page2024, /3.12 and /1000 are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A URL to fetch. depth: links from a seed; referrer: who linked to it; chain: the redirects that led here."""

    url: str
    source: str
    depth: int
    referrer: str = ""
    chain: tuple[str, ...] = ()


class Frontier:
    """Which URLs to visit next: breadth first, each canonical URL once. Pure, but for what `robots` does.

    The visits that `take` gives may be made in any order, at once; what they find goes back in the order in which they
    were given, for each source by itself: a slow site holds up no other. Links from one source to another wait until
    `cross`. So pages alone decide which URLs are visited, and in which order.

    robots: origin (`scheme://host[:port]`) → its rules; asked when the first URL of an origin would be admitted.
    A URL belongs to the first source whose scope holds it. max_pages counts admitted visits, redirect targets aside.
    denied: the first URLs that robots.txt forbids; denied_count: all. truncated: URLs beyond max_depth or max_pages.
    binary: links to no page. trapped: shape → URLs left out because endlessly many look like them.
    """

    def __init__(self, sources: Sequence[Source], robots: Callable[[str], RobotsRules], config: CrawlConfig) -> None:
        self.denied: list[str] = []
        self.denied_count = self.truncated = self.binary = 0
        self.trapped: Counter[str] = Counter()
        self._sources, self._robots = tuple(sources), robots
        self._follows_links = "links" in config.discover
        self._max_per_pattern = config.max_per_pattern
        self._admitted: set[str] = set()
        self._dropped: set[int] = set()  # hashes
        self._pages: Counter[str] = Counter()  # admitted per source, redirect targets aside
        self._shapes: Counter[int] = Counter()  # admitted per hash of a shape
        self._redirects: dict[str, str] = {}
        self._waiting: list[Visit] = []
        self._crossing: dict[str, dict[str, Visit]] = {source.name: {} for source in sources}
        for seed in (seed for source in sources for seed in source.seeds):
            self._consider(canonical_url(seed), depth=0)

    def take(self) -> list[Visit]:
        """Return what was admitted since the last call, in the order of discovery.

        When this is [] and the results of all visits have been given back, `cross` tells whether the crawl goes on.
        """
        waiting, self._waiting = self._waiting, []
        return waiting

    def cross(self) -> None:
        """Admit what links and redirects led to from one source to another, now that all results are back."""
        for crossing in self._crossing.values():
            for visit in crossing.values():
                if not visit.chain:
                    self._consider(visit.url, depth=visit.depth, referrer=visit.referrer)
                elif visit.url not in self._admitted and self._allowed(visit.url):
                    self._admit(visit)
            crossing.clear()

    def add_links(self, visit: Visit, links: Iterable[str]) -> None:
        if not self._follows_links:
            return
        for link in links:
            address = link.partition("#")[0]
            if address not in self._admitted and hash(address) not in self._dropped:  # most are known: save the parsing
                url = canonical_url(link, base=visit.url)
                self._consider(url, depth=visit.depth + 1, referrer=visit.url, linked_from=visit.source)

    def add_listed(self, source_name: str, urls: Iterable[str], *, depth: int = 1) -> None:
        """Admit what a sitemap, an llms.txt, a folder or a loader names.

        A web address is treated as a link would be, unless a loader lists it, which has the page already. Others belong
        to the source that lists them, and only its scope and max_pages bind them.
        """
        lister = next(source for source in self._sources if source.name == source_name)
        for url in urls:
            if urlsplit(url).scheme in DEFAULT_PORTS and not lister.loader:
                self._consider(canonical_url(url), depth=depth)
            else:
                self._list(lister, url, depth)

    def add_redirect(self, visit: Visit, target: str) -> None:
        """Admit the target at the depth of the visit, unless it is known.

        Raises FetchError about the visit: redirect_outside, redirect_loop, redirect_limit.
        """
        target = canonical_url(target, base=visit.url)
        source = self._owner(target)
        if source is None:
            raise FetchError(visit.url, "redirect_outside", _outside(visit, target))
        chain = (*visit.chain, visit.url)
        if self._leads_back(target, visit.url):
            raise FetchError(visit.url, "redirect_loop", " → ".join((*chain, target)))
        if len(chain) > MAX_REDIRECTS:
            raise FetchError(visit.url, "redirect_limit", f"more than {MAX_REDIRECTS} from {chain[0]}")
        self._redirects[visit.url] = target
        if target in self._admitted or self._is_trap(target, visit.depth):
            return
        found = Visit(url=target, source=source.name, depth=visit.depth, referrer=visit.referrer, chain=chain)
        if source.name != visit.source:
            self._crossing[visit.source][target] = found
        elif self._allowed(target):
            self._admit(found)

    def _consider(self, url: str, *, depth: int, referrer: str = "", linked_from: str = "") -> None:
        source = self._owner(url)
        if source is None or url in self._admitted or hash(url) in self._dropped:
            return
        if linked_from and source.name != linked_from:
            found = Visit(url=url, source=source.name, depth=depth, referrer=referrer)
            self._crossing[linked_from].setdefault(url, found)
        elif PurePosixPath(urlsplit(url).path).suffix.lower() in BINARY_SUFFIXES:
            self.binary += self._drop(url)
        elif self._is_trap(url, depth):
            return
        elif depth > source.max_depth or self._is_full(source):
            self.truncated += self._drop(url)
        elif self._allowed(url):
            self._pages[source.name] += 1
            self._admit(Visit(url=url, source=source.name, depth=depth, referrer=referrer))

    def _list(self, source: Source, url: str, depth: int) -> None:
        if url in self._admitted or not (source.loader or in_scope(source, url)):
            return
        if self._is_full(source):
            self.truncated += self._drop(url)
            return
        self._pages[source.name] += 1
        self._admit(Visit(url=url, source=source.name, depth=depth))

    def _admit(self, visit: Visit) -> None:
        self._admitted.add(visit.url)
        self._waiting.append(visit)
        if shape := _shape(visit.url):
            self._shapes[hash(shape)] += 1

    def _drop(self, url: str) -> bool:
        """Remember a URL as dropped; return whether it is a new one."""
        new = hash(url) not in self._dropped
        if new and len(self._dropped) < MAX_REMEMBERED:
            self._dropped.add(hash(url))
        return new

    def _is_full(self, source: Source) -> bool:
        return self._pages[source.name] >= source.max_pages

    def _is_trap(self, url: str, depth: int) -> bool:
        """Tell whether endlessly many URLs look like this one, and count it if so. A seed is none: it was chosen."""
        if depth == 0:
            return False
        pattern = _endless(url)
        if not pattern and (shape := _shape(url)) and self._shapes[hash(shape)] >= self._max_per_pattern:
            pattern = shape
        if pattern and self._drop(url):
            named = pattern in self.trapped or len(self.trapped) < MAX_NAMED
            self.trapped[pattern if named else "others"] += 1
        return bool(pattern)

    def _allowed(self, url: str) -> bool:
        if self._robots(origin_of(url)).allows(url):
            return True
        if self._drop(url):
            self.denied_count += 1
            if len(self.denied) < MAX_NAMED:
                self.denied.append(url)
        return False

    def _owner(self, url: str) -> Source | None:
        return next((source for source in self._sources if url and in_scope(source, url)), None)

    def _leads_back(self, target: str, url: str) -> bool:
        """Known redirects hold no circle (one is refused here), so the walk ends."""
        while target != url and target in self._redirects:
            target = self._redirects[target]
        return target == url


def _shape(url: str) -> str:
    """Return what the URLs of a possible trap have in common; "" when a URL is part of none.

    That is the path and the names in the query, sorted; in a path that holds a date, 0 stands for every number. Pages
    that are merely numbered have no shape.
    """
    address, _, query = url.partition("?")
    if _DATE.search(address):
        origin = origin_of(address)
        address = origin + _DIGITS.sub("0", address[len(origin) :])
    elif not query:
        return ""
    names = {_DIGITS.sub("0", part.partition("=")[0]) for part in query.split("&")} - {""}
    return address + ("?" + "&".join(sorted(names)) if query else "")


def _endless(url: str) -> str:
    """Return the head of a path that goes on without end; "" for the path of a page."""
    origin = origin_of(url)
    segments = url[len(origin) + 1 :].partition("?")[0].split("/")
    if len(url) <= MAX_URL_LENGTH and len(segments) <= MAX_SEGMENTS and not _repeats(segments):
        return ""
    return f"{origin}/{'/'.join(segments[:2])[:100]}/…"


def _repeats(segments: list[str]) -> bool:
    """Tell whether a run of segments stands three times in a row: a/b/a/b/a/b."""
    if len(segments) - len(set(segments)) < 2:
        return False
    return any(
        segments[at : at + run] == segments[at + run : at + 2 * run] == segments[at + 2 * run : at + 3 * run]
        for run in range(1, len(segments) // 3 + 1)
        for at in range(len(segments) - 3 * run + 1)
    )


def _outside(visit: Visit, target: str) -> str:
    advice = "" if visit.depth else "; give that URL as the seed, or allow it"
    return f"{target or 'no http address'} belongs to no source{advice}"
