"""Fetch the pages of the sources: politely, within limits, and the same pages in every run.

    [Source, …] → Frontier ⇄ Fetcher → Page, Redirect, NotModified or FetchError

1. `discover()` asks a site for its sitemaps and llms.txt; what they list enters the frontier through `add_listed`.
2. `Frontier.take()` gives the visits that nobody has made yet: the seeds first.
3. `Fetcher.fetch()` makes one visit. It follows no redirect and cuts off what is too slow or too large.
4. What pages link to goes back through `add_links`, what they redirect to through `add_redirect`: in the order in which
   the visits were given, however they ended. So the order of all visits depends on the pages alone, never on timing.
5. The frontier drops what is known, out of scope, no page, too far, a trap, or denied by robots.txt, and counts it.

async with Fetcher(CrawlConfig(), sources) as fetcher:
    page = await fetcher.fetch(source, "https://docs.example.org/")
"""

from raydex.crawl.answers import NotModified, Redirect
from raydex.crawl.credentials import Credentials, credentials_of
from raydex.crawl.discover import Discovery, discover
from raydex.crawl.fetch import Fetcher
from raydex.crawl.folder import list_folder, read_folder_page
from raydex.crawl.frontier import Frontier, Visit
from raydex.crawl.guard import SeedAddresses, seed_addresses
from raydex.crawl.robots import RobotsRules

__all__ = [
    "Credentials",
    "Discovery",
    "Fetcher",
    "Frontier",
    "NotModified",
    "Redirect",
    "RobotsRules",
    "SeedAddresses",
    "Visit",
    "credentials_of",
    "discover",
    "list_folder",
    "read_folder_page",
    "seed_addresses",
]
