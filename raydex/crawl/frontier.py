"""Which URLs to visit next: breadth first, each canonical URL once, in an order that depends on the pages alone.

seeds, links, redirects → levels of Visits
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from raydex.crawl.robots import RobotsRules
from raydex.errors import FetchError
from raydex.records import Source
from utils.urls import canonical_url, in_scope, origin_of

MAX_REDIRECTS = 10
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

    robots: origin (`scheme://host[:port]`) → its rules; asked when the first URL of an origin would be admitted.
    A URL belongs to the first source whose scope holds it. max_pages counts admitted visits, redirect targets aside.
    denied: URLs that robots.txt forbids. truncated: URLs beyond max_depth or max_pages. binary: links to no page.
    """

    def __init__(self, sources: Sequence[Source], robots: Callable[[str], RobotsRules]) -> None:
        self.denied: list[str] = []
        self.truncated = 0
        self.binary = 0
        self._sources, self._robots = tuple(sources), robots
        self._admitted: set[str] = set()
        self._dropped: set[str] = set()
        self._pages: Counter[str] = Counter()  # admitted per source, redirect targets aside
        self._redirects: dict[str, str] = {}
        self._level: list[Visit] = []
        for seed in (seed for source in self._sources for seed in source.seeds):
            self._consider(canonical_url(seed), depth=0, referrer="")

    def take_level(self) -> list[Visit]:
        """Return what was admitted since the last call, in the order of discovery; [] when the crawl is done."""
        level, self._level = self._level, []
        return level

    def add_links(self, visit: Visit, links: Iterable[str]) -> None:
        for link in links:
            self._consider(canonical_url(link, base=visit.url), depth=visit.depth + 1, referrer=visit.url)

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
        if target not in self._admitted and self._allowed(target):
            self._admit(Visit(url=target, source=source.name, depth=visit.depth, referrer=visit.referrer, chain=chain))

    def _consider(self, url: str, *, depth: int, referrer: str) -> None:
        source = self._owner(url)
        if source is None or url in self._admitted or url in self._dropped:
            return
        if PurePosixPath(urlsplit(url).path).suffix.lower() in BINARY_SUFFIXES:
            self._dropped.add(url)
            self.binary += 1
        elif depth > source.max_depth or self._pages[source.name] >= source.max_pages:
            self._dropped.add(url)
            self.truncated += 1
        elif self._allowed(url):
            self._pages[source.name] += 1
            self._admit(Visit(url=url, source=source.name, depth=depth, referrer=referrer))

    def _allowed(self, url: str) -> bool:
        if self._robots(origin_of(url)).allows(url):
            return True
        if url not in self.denied:
            self.denied.append(url)
        self._dropped.add(url)
        return False

    def _admit(self, visit: Visit) -> None:
        self._admitted.add(visit.url)
        self._level.append(visit)

    def _owner(self, url: str) -> Source | None:
        return next((source for source in self._sources if url and in_scope(source, url)), None)

    def _leads_back(self, target: str, url: str) -> bool:
        """Known redirects hold no circle (one is refused here), so the walk ends."""
        while target != url and target in self._redirects:
            target = self._redirects[target]
        return target == url


def _outside(visit: Visit, target: str) -> str:
    advice = "" if visit.referrer else "; give that URL as the seed, or allow it"
    return f"{target or 'no http address'} belongs to no source{advice}"
