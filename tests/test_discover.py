import asyncio
import gzip
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import httpx
import pytest

from raydex.config import CrawlConfig
from raydex.crawl import Discovery, Fetcher, RobotsRules, discover
from raydex.records import Source
from tests.docsite import DocSite
from utils.urls import file_url

T = TypeVar("T")
XML = "application/xml"


class PlainFetcher:
    """What discover needs of a Fetcher, over plain httpx: no pace, no retries, no guard."""

    def __init__(self, client: httpx.AsyncClient, robots: str) -> None:
        self._client, self._robots = client, robots

    async def robots(self, origin: str) -> RobotsRules:
        return RobotsRules(self._robots, "RaydexBot")

    async def get(self, url: str, read: Callable[[httpx.Response], Awaitable[T]], *, source: Source) -> T:
        async with self._client.stream("GET", url) as response:
            return await read(response)


@pytest.fixture
def site() -> Iterator[DocSite]:
    with DocSite() as site:
        yield site


def found(site: DocSite, seed: str = "", *, robots: str = "", discover_by: str = "sitemap", **fields: Any) -> Discovery:
    async def run() -> Discovery:
        async with httpx.AsyncClient(trust_env=False) as client:
            fetcher = cast(Fetcher, PlainFetcher(client, robots.replace("SITE/", site.url)))
            return await discover(fetcher, source, CrawlConfig(discover=(discover_by,)))

    source = Source(name="docs", seeds=(f"{site.url}{seed}",), **fields)
    return asyncio.run(run())


def urlset(site: DocSite, *paths: str) -> str:
    return f"<urlset>{''.join(f'<url><loc>{site.url}{path}</loc></url>' for path in paths)}</urlset>"


def index(*urls: str) -> str:
    return f"<sitemapindex>{''.join(f'<sitemap><loc>{url}</loc></sitemap>' for url in urls)}</sitemapindex>"


def paths(discovery: Discovery) -> list[str]:
    return [urlsplit(entry.url).path for entry in discovery.entries]


def test_a_site_without_sitemap_and_llms_txt_is_no_problem(site):
    assert found(site) == Discovery()
    assert found(site, discover_by="llms.txt") == Discovery()
    assert site.requests == ["/sitemap.xml", "/llms.txt"]


def test_only_the_ways_that_are_asked_for_are_gone(site):
    assert found(site, discover_by="links") == Discovery()
    assert site.requests == []


def test_sitemaps_are_found_through_robots_txt_the_source_the_origin_and_the_folder_of_the_seed(site, tmp_path):
    (tmp_path / "sitemap.xml").write_text(urlset(site, "docs/from-file"))
    site.put("by-source.xml", urlset(site, "docs/by-source"), content_type=XML)
    site.put("maps/by-robots.xml.gz", gzip.compress(urlset(site, "docs/by-robots").encode()))
    site.put("sitemap.xml", urlset(site, "docs/at-origin", "docs/by-source", "blog/1"), content_type=XML)
    site.put("docs/sitemap.xml", urlset(site, "docs/in-folder"), content_type=XML)
    discovery = found(
        site,
        "docs/intro.html",
        robots="Sitemap: SITE/maps/by-robots.xml.gz\nSitemap: /sitemap.xml",
        sitemaps=(file_url(tmp_path / "sitemap.xml"), f"{site.url}by-source.xml"),
    )
    expected = ["from-file", "by-source", "by-robots", "at-origin", "in-folder"]
    assert paths(discovery) == [f"/docs/{name}" for name in expected]
    assert discovery.problems == ()
    assert site.counts["/sitemap.xml"] == 1


def test_the_newest_last_change_of_a_page_counts(site):
    dated = "<url><loc>/a</loc><lastmod>{}</lastmod></url>"
    site.put("sitemap.xml", "<urlset>" + dated.format("2024-05-12T00:00:00Z") + "</urlset>")
    site.put("b.xml", "<urlset>" + dated.format("2025-05-12T00:00:00Z") + "<url><loc>/a</loc></url></urlset>")
    (entry,) = found(site, sitemaps=(f"{site.url}b.xml",)).entries
    assert entry.lastmod == datetime(2025, 5, 12, tzinfo=UTC)


def test_an_index_is_followed_in_its_order_and_a_circle_ends(site):
    site.put("sitemap.xml", index("/b.xml", "/a.xml", "/sitemap.xml"))
    site.put("a.xml", urlset(site, "a"))
    site.put("b.xml", index("/c.xml", "/a.xml"))
    site.put("c.xml", urlset(site, "c"))
    assert paths(found(site)) == ["/a", "/c"]
    assert site.requests.count("/a.xml") == 1


def test_indexes_that_are_nested_too_deep_are_left_out_and_named(site):
    site.put("sitemap.xml", index("/1.xml"))
    for level in range(1, 6):
        site.put(f"{level}.xml", index(f"/{level + 1}.xml"))
    assert found(site).problems == (f"{site.url}4.xml: sitemap indexes are nested too deep; it was left out",)
    assert "/4.xml" not in site.requests


def test_an_endless_index_ends_at_the_number_of_files(site, monkeypatch):
    monkeypatch.setattr(sys.modules[discover.__module__], "MAX_SITEMAPS", 5)
    site.put("sitemap.xml", index(*(f"/{number}.xml" for number in range(20))))
    for number in range(20):
        site.put(f"{number}.xml", urlset(site, f"{number}"))
    discovery = found(site)
    assert paths(discovery) == ["/0", "/1", "/2", "/3"]
    assert discovery.problems == ("more than 5 sitemaps; 16 were left out",)


def test_what_is_named_and_not_there_is_a_problem_and_the_rest_is_taken(site, tmp_path):
    site.put("sitemap.xml", index("/absent.xml", "/ill.xml", "/page.xml", "/a.xml"))
    site.put("ill.xml", "<h1>down</h1>", status=500)
    site.put("page.xml", "<html><body>Welcome</body></html>")
    site.put("a.xml", urlset(site, "a"))
    discovery = found(site, sitemaps=(file_url(tmp_path / "gone.xml"),))
    assert paths(discovery) == ["/a"]
    assert discovery.problems == (
        f"{file_url(tmp_path / 'gone.xml')}: No such file or directory",
        f"{site.url}absent.xml: http_404 (Not Found)",
        f"{site.url}ill.xml: http_500 (Internal Server Error)",
        f"{site.url}page.xml: bad_sitemap (<html> is no sitemap)",
    )


def test_a_sitemap_that_robots_txt_names_must_be_there(site):
    discovery = found(site, robots="Sitemap: SITE/sitemap.xml")
    assert discovery.problems == (f"{site.url}sitemap.xml: http_404 (Not Found)",)


def test_an_index_full_of_problems_does_not_fill_the_report(site):
    site.put("sitemap.xml", index(*(f"https://y.org/{number}.xml" for number in range(500))))
    problems = found(site).problems
    assert len(problems) == 101
    assert problems[-1] == "… and more"


def test_no_sitemap_leads_to_another_host(site):
    site.put("sitemap.xml", index(f"{site.outside_url}a.xml", "/moved.xml", "file:///etc/passwd"))
    site.redirect("moved.xml", f"{site.outside_url}b.xml")
    discovery = found(site, robots=f"Sitemap: {site.outside_url}c.xml")
    assert discovery.problems == (
        f"{site.outside_url}c.xml: is on another host; name it under `sitemaps` to take it",
        f"{site.outside_url}a.xml: is on another host; name it under `sitemaps` to take it",
        f"{site.url}moved.xml: redirect_outside ({site.outside_url}b.xml is on another host)",
    )
    assert not site.outside_was_contacted()


def test_a_sitemap_that_has_moved_on_its_host_is_followed_and_a_circle_is_not(site):
    site.redirect("sitemap.xml", "/sitemap_index.xml")
    site.put("sitemap_index.xml", index("/a.xml", "/round.xml"))
    site.put("a.xml", urlset(site, "a"))
    site.redirect("round.xml", "/round.xml")
    discovery = found(site)
    assert paths(discovery) == ["/a"]
    assert discovery.problems == (f"{site.url}round.xml: redirect_limit (more than 5)",)


def test_robots_txt_may_forbid_what_nobody_named(site):
    site.put("sitemap.xml", urlset(site, "a"))
    assert found(site, robots="User-agent: *\nDisallow: /s").problems == (
        f"{site.url}sitemap.xml: robots.txt forbids it",
    )
    named = found(site, robots="User-agent: *\nDisallow: /s\nSitemap: SITE/sitemap.xml")
    assert (paths(named), named.problems) == (["/a"], ())


def test_a_sitemap_whose_pages_all_lie_elsewhere_is_a_problem(site):
    site.put("sitemap.xml", f"<urlset><url><loc>{site.outside_url}</loc></url></urlset>")
    assert found(site).problems == ("none of the 1 pages in the sitemaps belongs to source 'docs'",)


def test_more_pages_than_a_source_may_have_are_cut_off_and_that_is_said(site, monkeypatch):
    monkeypatch.setattr(sys.modules[discover.__module__], "MAX_ENTRIES", 1)
    site.put("sitemap.xml", urlset(site, *"abcd"))
    discovery = found(site, max_pages=2)
    assert paths(discovery) == ["/a", "/b", "/c"]
    assert discovery.problems == (f"{site.url}sitemap.xml: more than 3 pages are listed by now; the rest was left out",)


def test_the_links_of_llms_txt_are_found_once_each_inside_the_source(site):
    text = f"""# Acme
> See [the guide](guide.html "Guide").

- [API](/docs/api): all of it
- [API again](<{site.url}docs/api#top>), [elsewhere](https://y.org/), [blog](/blog/)
- <{site.url}docs/auto> and [by name][name]

[name]: ./named.html

    [code](/docs/code)
"""
    site.put("docs/llms.txt", text, content_type="text/plain")
    discovery = found(site, "docs/", discover_by="llms.txt")
    assert discovery.llms_links == tuple(
        f"{site.url}docs/{name}" for name in ("guide.html", "api", "auto", "named.html")
    )
    assert (discovery.entries, discovery.problems) == ((), ())
    assert site.requests == ["/llms.txt", "/docs/llms.txt"]


def test_an_llms_txt_that_is_a_web_page_or_broken_is_named(site):
    site.put("llms.txt", "<!DOCTYPE html><a href='/docs/a'>a</a>")
    site.put("docs/llms.txt", "down", status=503)
    assert found(site, "docs/", discover_by="llms.txt").problems == (
        f"{site.url}llms.txt: is HTML or XML, not Markdown",
        f"{site.url}docs/llms.txt: http_503 (Service Unavailable)",
    )


@pytest.mark.parametrize("seed", ["file:///docs/", "loader://wiki/"])
def test_folders_and_loaders_have_nothing_to_discover(seed):
    async def run() -> Discovery:
        return await discover(cast(Fetcher, None), Source(name="docs", seeds=(seed,)), CrawlConfig())

    assert asyncio.run(run()) == Discovery()
