"""Fetch the pages of the sources: politely, within limits, and the same pages in every run.

    [Source, …] → Frontier ⇄ Fetcher → Page, Redirect, NotModified or FetchError

1. `Frontier.take_level()` gives the visits that nobody has made yet: the seeds first.
2. `Fetcher.fetch()` makes one visit. It follows no redirect and cuts off what is too slow or too large.
3. What the pages of a level link to goes back through `add_links`, what they redirect to through `add_redirect`.
4. The frontier drops what is known, out of scope, no page, too far, or denied by robots.txt, and counts what it drops.
5. The rest is the next level, in an order that depends on the pages alone, never on timing; [] is the end.

with Fetcher(CrawlConfig()) as fetcher:
    page = fetcher.fetch(source, "https://docs.example.org/")
"""

from raydex.crawl.fetch import Fetcher, NotModified, Redirect
from raydex.crawl.frontier import Frontier, Visit
from raydex.crawl.robots import RobotsRules, fetch_robots

__all__ = ["Fetcher", "Frontier", "NotModified", "Redirect", "RobotsRules", "Visit", "fetch_robots"]
