"""The fetcher against a real server that fails on purpose. The frontier has test_frontier.py."""

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from raydex.config import CrawlConfig
from raydex.crawl import Fetcher, Frontier, NotModified, Redirect, seed_addresses
from raydex.errors import FetchError, TooLarge
from raydex.records import Page, stable_id
from tests.docsite import DocSite, handbook, page
from tests.fetching import SEED, SyncFetcher, Waits, failure, fetch, fetch_page, fetching, source_at

# ---- fetching a page


def test_a_page_is_fetched_with_its_ids_its_checksum_and_its_validators(fetcher, site):
    before = datetime.now(UTC)
    home = fetch_page(fetcher, site, "")
    assert home.url == home.crawl_url == site.url
    assert home.page_id == stable_id(site.url)
    assert (home.source, home.status, home.content_type) == ("docs", 200, "text/html; charset=utf-8")
    assert home.body == page("Home", "The first page.").encode()
    assert home.body_sha256 == hashlib.sha256(home.body).hexdigest()
    assert home.etag.startswith('"')
    assert before <= home.fetched_at <= datetime.now(UTC)


def test_a_page_of_a_copy_bears_the_public_address_and_the_id_of_that(fetcher, site):
    fetched = fetcher.fetch(source_at(site.url, public_url="https://docs.example.org/3/"), site.url)
    assert isinstance(fetched, Page)
    assert fetched.url == "https://docs.example.org/3/"
    assert fetched.page_id == stable_id("https://docs.example.org/3/")
    assert fetched.crawl_url == site.url


def test_a_request_says_who_asks_and_what_for(fetcher, site):
    fetch_page(fetcher, site, "")
    (headers,) = site.headers_seen
    assert headers["user-agent"] == CrawlConfig().user_agent
    assert headers["accept"].startswith("text/html, application/xhtml+xml")
    assert headers["accept-encoding"] == "gzip, deflate, br, zstd"
    assert "if-none-match" not in headers


def test_a_page_known_by_its_etag_is_not_sent_again(fetcher, site):
    etag = fetch_page(fetcher, site, "").etag
    assert fetch(fetcher, site, "", etag=etag) == NotModified()
    site.put("index.html", page("Home", "Edited."))
    assert isinstance(fetch(fetcher, site, "", etag=etag), Page)


def test_a_known_date_is_sent_along(fetcher, site):
    fetch(fetcher, site, "", last_modified="Tue, 03 Nov 2026 10:00:00 GMT")
    assert site.headers_seen[0]["if-modified-since"] == "Tue, 03 Nov 2026 10:00:00 GMT"


def test_a_validator_that_cannot_be_sent_back_is_forgotten(fetcher, site):
    site.etags = False
    site.put("a.html", page("A", "a"), headers={"ETag": '"é"'})
    assert fetch_page(fetcher, site, "a.html").etag == ""


def test_xhtml_is_a_page(fetcher, site):
    site.put("a.xhtml", page("A", "a"), content_type="Application/XHTML+XML")
    assert fetch_page(fetcher, site, "a.xhtml").status == 200


def test_a_page_in_the_wrong_charset_keeps_its_bytes_and_its_header(fetcher, site):
    fetched = fetch_page(fetcher, site, "fail/wrong-charset")
    assert b"Caf\xe9" in fetched.body
    assert fetched.content_type == "text/html; charset=utf-8"


def test_a_compressed_page_is_unpacked(fetcher, site):
    site.put("a.html", gzip.compress(b"<p>words</p>"), headers={"Content-Encoding": "gzip"})
    assert fetch_page(fetcher, site, "a.html").body == b"<p>words</p>"


def test_cookies_of_one_page_are_not_sent_to_the_next(fetcher, site):
    site.put("a.html", page("A", "a"), headers={"Set-Cookie": "visitor=1; Path=/"})
    fetch_page(fetcher, site, "a.html")
    fetch_page(fetcher, site, "")
    assert "cookie" not in site.headers_seen[-1]


def test_a_proxy_in_the_environment_is_not_used(monkeypatch, site):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with fetching(CrawlConfig(attempts=1)) as fetcher:
        assert fetch_page(fetcher, site, "").status == 200


# ---- failures


@pytest.mark.parametrize(
    ("path", "reason", "requests"),
    [
        ("fail/404", "http_404", 1),
        ("fail/500", "http_500", 3),
        ("fail/drop", "connection", 3),
        ("fail/no-http", "protocol", 1),
        ("fail/binary", "not_html", 1),
        ("fail/redirect-nowhere", "bad_redirect", 1),
        ("absent.html", "http_404", 1),
    ],
)
def test_a_failure_is_named_and_only_what_may_pass_is_tried_again(fetcher, site, path, reason, requests):
    assert failure(fetcher, site, path).reason == reason
    assert site.requests == [f"/{path}"] * requests


def test_an_address_too_long_to_send_is_a_named_failure(fetcher, site):
    assert failure(fetcher, site, "a" * 70_000).reason == "protocol"
    assert site.requests == []


@pytest.mark.parametrize("path", ["fail/slow", "fail/slow-headers", "fail/slow-gzip"])
def test_a_server_that_drips_is_cut_off_when_the_time_of_the_request_is_over(site, path):
    with fetching(CrawlConfig(timeout_s=0.2, attempts=2), wait=Waits().wait) as fetcher:
        assert failure(fetcher, site, path).reason == "timeout"
    assert len(site.requests) == 2


def test_a_server_that_never_answers_is_a_timeout(site):
    site.block_after(0)
    with fetching(CrawlConfig(timeout_s=0.2, attempts=1)) as fetcher:
        assert failure(fetcher, site, "").reason == "timeout"


def test_a_server_that_is_not_there_is_a_failed_connection(fetcher, waits):
    with DocSite() as site:
        url = site.url
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(source_at(url), url)
    assert caught.value.reason == "connection"
    assert len(waits) == 2  # between three attempts


def test_a_server_without_tls_under_https_is_a_tls_failure_and_not_tried_again(fetcher, site):
    url = site.url.replace("http:", "https:")
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(source_at(url), url)
    assert caught.value.reason == "tls"


def test_a_body_without_end_is_cut_off_at_the_limit(site):
    with fetching(CrawlConfig(max_body_bytes=50_000)) as fetcher:
        error = failure(fetcher, site, "fail/huge")
    assert isinstance(error, TooLarge)
    assert error.limit == 50_000


def test_a_body_that_is_small_only_while_it_is_packed_is_cut_off_at_the_limit(site):
    site.put("a.html", gzip.compress(b" " * 60_000), headers={"Content-Encoding": "gzip"})
    with fetching(CrawlConfig(max_body_bytes=50_000)) as fetcher:
        assert failure(fetcher, site, "a.html").reason == "too_large"


def test_a_body_of_just_the_limit_is_taken(site):
    site.put("a.html", b"x" * 50_000)
    site.put("b.html", b"x" * 50_001)
    with fetching(CrawlConfig(max_body_bytes=50_000)) as fetcher:
        assert len(fetch_page(fetcher, site, "a.html").body) == 50_000
        assert failure(fetcher, site, "b.html").reason == "too_large"


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "gzip"])
def test_a_body_that_cannot_be_unpacked_is_a_bad_encoding(fetcher, site, encoding):
    site.put("a.html", b"these are not packed bytes", headers={"Content-Encoding": encoding})
    assert failure(fetcher, site, "a.html").reason == "bad_encoding"


@pytest.mark.parametrize("content_type", ["image/svg+xml", "application/pdf", ""])
def test_what_is_no_page_is_refused_before_its_body_is_read(fetcher, site, content_type):
    site.put("a", b"x" * 20_000_000, content_type=content_type)  # above the limit: reading on would be too_large
    assert failure(fetcher, site, "a").reason == "not_html"


# ---- trying again, and waiting


def test_a_server_that_recovers_gives_its_page(fetcher, site):
    assert b"third request" in fetch_page(fetcher, site, "fail/503-then-ok").body
    assert len(site.requests) == 3


@pytest.mark.parametrize(
    ("retry_after", "least", "most"),
    [
        ("12", 12.0, 12.0),
        ("in 100 s", 60.0, 100.0),
        ("Sun, 01 Nov 2026 10:00:00 -0000", 0.0, 0.5),
        ("soon", 0.0, 0.5),
        ("-5", 0.0, 0.5),
    ],
)
def test_the_wait_that_a_server_asks_for_is_kept(site, retry_after, least, most):
    if retry_after == "in 100 s":  # as a date
        retry_after = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    site.put("a.html", "", status=429, headers={"Retry-After": retry_after})
    waits = Waits()
    with fetching(CrawlConfig(attempts=2), wait=waits.wait, clock=waits.clock) as fetcher:
        assert failure(fetcher, site, "a.html").reason == "http_429"
    assert least <= waits[0] <= most
    assert len(site.requests) == 2


def test_a_wait_beyond_the_deadline_of_the_page_is_not_begun(fetcher, site, waits):
    site.put("a.html", "", status=503, headers={"Retry-After": "3600"})
    error = failure(fetcher, site, "a.html")
    assert (error.reason, error.retry_after_s) == ("http_503", 3600.0)
    assert len(site.requests) == 1
    assert waits == []


def test_a_host_that_asks_for_a_pause_is_left_alone_by_all_pages(site):
    site.put("a.html", "", status=429, headers={"Retry-After": "20"})
    waits = Waits()
    with fetching(CrawlConfig(attempts=1), wait=waits.wait, clock=waits.clock) as fetcher:
        failure(fetcher, site, "a.html")
        assert waits == []
        fetch_page(fetcher, site, "")
        assert waits[0] == pytest.approx(20, abs=1)


@pytest.mark.parametrize(("configured", "robots", "expected"), [(2.0, 1.0, 2.0), (1.0, 5.0, 5.0)])
def test_requests_lie_apart_by_the_longer_of_the_two_delays(site, configured, robots, expected):
    site.put("robots.txt", f"User-agent: *\nCrawl-delay: {robots}\n", content_type="text/plain")
    waits = Waits()
    with fetching(CrawlConfig(delay_s=configured), wait=waits.wait, clock=waits.clock) as fetcher:
        fetcher.robots(site.url)
        waits.clear()
        fetch_page(fetcher, site, "")
        fetch_page(fetcher, site, "")
    assert waits[-1] == pytest.approx(expected, abs=0.5)


def test_pages_of_one_host_come_over_one_connection(fetcher, site):
    home = fetch_page(fetcher, site, "")
    fetch(fetcher, site, "", etag=home.etag)  # 304
    fetch_page(fetcher, site, "")
    assert site.connections_made == 1


# ---- redirects, as the fetcher sees them


def test_a_redirect_is_handed_back_and_not_followed(fetcher, site):
    fetched = fetch(fetcher, site, "fail/redirect-ok")
    assert isinstance(fetched, Redirect)
    assert fetched.target == f"{site.url}fail/redirect-target"
    assert site.requests == ["/fail/redirect-ok"]


def test_a_redirect_to_another_host_is_not_followed(fetcher, site):
    fetched = fetch(fetcher, site, "fail/redirect-out")
    assert isinstance(fetched, Redirect)
    assert fetched.target == site.outside_url
    assert not site.outside_was_contacted()


def test_a_redirect_to_another_spelling_of_the_same_address_is_followed(fetcher, site):
    fetched = fetch_page(fetcher, site, "fail/redirect-index/")
    assert fetched.crawl_url == f"{site.url}fail/redirect-index/"
    assert site.requests == ["/fail/redirect-index/", "/fail/redirect-index/index.html"]


# ---- all together


def crawl(site: DocSite, fetcher: SyncFetcher, links_of: Callable[[Page], list[str]]) -> list[Page]:
    source = source_at(site.url)
    frontier = Frontier([source], fetcher.robots, CrawlConfig())
    pages = []
    while visits := frontier.take():
        for visit in visits:
            fetched = fetcher.fetch(source, visit.url)
            assert isinstance(fetched, Page)
            pages.append(fetched)
            frontier.add_links(visit, links_of(fetched))
    return pages


def hrefs(fetched: Page) -> list[str]:
    return [part.partition('"')[0] for part in fetched.body.decode().split('href="')[1:]]


def test_a_handbook_is_crawled_completely_and_each_page_once(fetcher):
    with DocSite(handbook(pages=40)) as site:
        pages = crawl(site, fetcher, hrefs)
        asked = [path for path in site.requests if path != "/robots.txt"]
    assert len(pages) == len(asked) == len(set(asked)) == 40
    assert len({fetched.page_id for fetched in pages}) == 40


def test_many_pages_of_a_host_are_under_way_at_once_but_never_more_than_allowed(site):
    paths = [f"{number}.html" for number in range(36)]
    for path in paths:
        site.put(path, page(path, "A page."))
    trusting, held = paths[:24], paths[24:]  # the limit grows with answers: after 24 it has reached the most allowed

    async def run() -> int:
        async with Fetcher(CrawlConfig(per_host=4), addresses=seed_addresses([SEED])) as fetcher:
            await asyncio.gather(*(fetcher.fetch(source_at(site.url), site.url + path) for path in trusting))
            site.block_after(0)
            rest = asyncio.gather(*(fetcher.fetch(source_at(site.url), site.url + path) for path in held))
            assert await asyncio.to_thread(site.wait_blocked, 10)
            while len(site.requests) < len(trusting) + 4:
                await asyncio.sleep(0)
            at_once = len(site.requests) - len(trusting)
            site.unblock()
            await rest
            return at_once

    assert asyncio.run(run()) == 4
    assert len(site.requests) == len(paths)
    assert site.connections_made <= 4
