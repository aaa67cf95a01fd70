"""The crawl as the driver sees it: visits go out as fast as hosts take them, what they lead to comes back in order.

    Frontier → units per host → Pipeline → receipts → Frontier, PageReport

Pages are fetched in any order, but their links enter the frontier in the order in which the pages of their source were
found. So the pages of a crawl depend on the sites alone, never on timing, and a resumed build finds the same ones.
"""

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from ray.exceptions import RayTaskError

from raydex.build.loading import Loaded
from raydex.build.pipeline import Pipeline, Ref, result_of, unit_name
from raydex.build.progress import Status
from raydex.build.reading import links_of
from raydex.build.report import PageReport
from raydex.build.units import INDEXED, BuildContext, FetchUnit, PageOutcome, outcome_of
from raydex.build.workers import load_task
from raydex.crawl import Discovery, Frontier, RobotsRules, Visit, list_folder
from raydex.errors import FetchError
from raydex.records import Source
from utils.urls import origin_of

MOST_UNITS, UNITS_PER_HOST = 64, 4
"""Units in flight: what the object store holds at most, and enough for every request a host takes at a time."""

HAS_LINKS = INDEXED | {"skipped"}


class Crawl:
    """Crawls all sources of a build once."""

    def __init__(self, context: BuildContext, pipeline: Pipeline, status: Status, pages: PageReport) -> None:
        self._context, self._pipeline, self._status, self._pages = context, pipeline, status, pages
        self._robots: dict[str, RobotsRules] = {}
        self._lastmods: dict[str, datetime] = {}
        self._frontier = Frontier(context.sources, self._robots_of, context.config.crawl)
        self._order: dict[str, deque[Visit]] = defaultdict(deque)  # by source: found and not yet followed, in order
        self._waiting: dict[str, deque[Visit]] = defaultdict(deque)  # by host
        self._again: deque[tuple[Visit, str]] = deque()  # visits to be made once more, and why
        self._outcomes: dict[str, tuple[PageOutcome, str]] = {}  # URL → outcome and unit, until it is followed
        self._links: dict[str, dict[str, list[str]]] = {}  # by unit, while its visits are followed
        self._visits: dict[str, Visit] = {}  # of the units in flight
        self.reached: set[str] = set()
        """Names of the sources with a page, and URLs that led somewhere: a seed may belong to an earlier source."""
        self.units: dict[str, str] = {}
        """unit_id → digest of its content, of the units with chunks."""

    def run(self) -> None:
        discoveries = self._discoveries()
        for source in self._context.sources:
            self._list(source, discoveries.get(source.name))
        while self._admit():
            while any(self._order.values()):
                self._give_out()
                for receipt in self._pipeline.step().crawls:
                    if receipt.chunk_count:
                        self.units[receipt.unit_id] = receipt.content
                    for outcome in receipt.outcomes:
                        self._take(outcome, receipt.unit_id)
                self._follow()
                self._admit()
            self._frontier.cross()
        self._pages.add_frontier(self._frontier)

    def _discoveries(self) -> dict[str, Ref]:
        """Ask all sites at once for what they list of themselves."""
        if not set(self._context.config.crawl.discover) - {"links"}:
            return {}
        sites = [source for source in self._context.sources if source.seeds[0].startswith("http")]
        return {s.name: self._pipeline.owner(origin_of(s.seeds[0])).discover.remote(s.name) for s in sites}

    def _list(self, source: Source, discovery: Ref | None) -> None:
        """Give the frontier what a source lists: the files of a folder, a loader's documents, a site's sitemap."""
        seed = source.seeds[0]
        if seed.startswith("file:"):
            self._frontier.add_listed(source.name, list_folder(source))
        elif seed.startswith("loader:"):
            self._frontier.add_listed(source.name, self._loaded(source))
        elif discovery is not None:
            found: Discovery = result_of(discovery)
            self._pages.problems += found.problems
            self._lastmods.update((entry.url, entry.lastmod) for entry in found.entries if entry.lastmod)
            self._frontier.add_listed(source.name, (entry.url for entry in found.entries))
            self._frontier.add_listed(source.name, found.llms_links)

    def _loaded(self, source: Source) -> Sequence[str]:
        try:
            loaded: Loaded = result_of(load_task.remote(self._context, source.name))
        except RayTaskError as error:  # foreign code raised: going on without the rest would lose pages silently
            detail = f"{type(error.cause).__name__}: {error.cause}; nothing was published"
            raise FetchError(source.seeds[0], "loader_failed", detail) from error
        self._pages.problems += loaded.problems
        return loaded.urls

    def _admit(self) -> bool:
        """Line up what was found; return whether there was anything."""
        found = self._frontier.take()
        for visit in found:
            self._order[visit.source].append(visit)
            self._waiting[origin_of(visit.url)].append(visit)
        self._status.queued_pages += len(found)
        return bool(found)

    def _give_out(self) -> None:
        """Begin as many units as hosts and memory allow, full ones first of all, short ones when a host idles."""
        size = self._context.config.crawl.batch_pages
        while self._again:
            visit, why = self._again.popleft()
            self._begin(origin_of(visit.url), [visit], renders=why == "needs_javascript")
        busy = self._pipeline.crawls_per_host()
        hosts = sum(bool(waiting) for waiting in self._waiting.values())
        most = max(1, min(UNITS_PER_HOST, MOST_UNITS // max(1, hosts)))  # of many hosts, each gets its share
        for host, waiting in self._waiting.items():
            while waiting and busy[host] < most and busy.total() < MOST_UNITS:
                if len(waiting) < size and busy[host] > 1:
                    break
                self._begin(host, [waiting.popleft() for _ in range(min(size, len(waiting)))])
                busy[host] += 1

    def _begin(self, host: str, visits: Sequence[Visit], *, renders: bool = False) -> None:
        self._visits.update((visit.url, visit) for visit in visits)
        self._pipeline.crawl(
            FetchUnit(
                unit_id=unit_name([visit.url for visit in visits] + ["rendered"] * renders),
                host=host,
                visits=tuple(visits),
                lastmods={v.url: self._lastmods[v.url] for v in visits if v.url in self._lastmods},
                renders=renders,
            )
        )

    def _take(self, outcome: PageOutcome, unit_id: str) -> None:
        if outcome.outcome == "again":
            self._again.append((self._visits[outcome.url], outcome.reason))
            return
        self._visits.pop(outcome.url, None)
        self._outcomes[outcome.url] = (outcome, unit_id)

    def _follow(self) -> None:
        for order in self._order.values():
            while order and order[0].url in self._outcomes:
                self._follow_one(order.popleft())

    def _follow_one(self, visit: Visit) -> None:
        outcome, unit_id = self._outcomes.pop(visit.url)
        self._status.queued_pages -= 1
        links = self._links_of(visit.url, unit_id) if outcome.outcome in HAS_LINKS else ()
        self._frontier.add_links(visit, links)
        if outcome.outcome in INDEXED:
            self.reached.add(visit.source)
        if outcome.outcome in INDEXED or links:
            self.reached.add(visit.url)
        if outcome.redirect_to:
            outcome = self._redirected(visit, outcome)
        self._pages.add(outcome)
        self._status.pages[outcome.outcome] += 1

    def _links_of(self, url: str, unit_id: str) -> Sequence[str]:
        if unit_id not in self._links:
            self._links[unit_id] = links_of(self._context, unit_id)
        links = self._links[unit_id].pop(url, [])
        if not self._links[unit_id]:
            del self._links[unit_id]
        return links

    def _redirected(self, visit: Visit, outcome: PageOutcome) -> PageOutcome:
        try:
            self._frontier.add_redirect(visit, outcome.redirect_to)
        except FetchError as error:
            return replace(outcome, outcome=outcome_of(error), reason=error.reason, detail=error.detail)
        self.reached.add(visit.url)
        return outcome

    def _robots_of(self, origin: str) -> RobotsRules:
        if origin not in self._robots:
            self._robots[origin] = result_of(self._pipeline.owner(origin).robots.remote(origin))
            why = self._robots[origin].unreachable
            if "forbidden_address" in why:  # nobody gave that host: its pages are denied, and the crawl goes on
                self._pages.problems += (why,)
            elif why:  # it may forbid all, so nothing may be fetched
                raise FetchError(f"{origin}/robots.txt", "unreachable", f"{why}; nothing was published")
        return self._robots[origin]
