"""The fetcher and robots.txt against a real server that fails on purpose. The frontier has test_frontier.py."""

import asyncio
import gzip
import hashlib
import pickle
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import brotli
import pytest
import zstandard

from raydex.config import CrawlConfig
from raydex.crawl import (
    Fetcher,
    Frontier,
    NotModified,
    Redirect,
    RobotsRules,
    credentials_of,
    seed_addresses,
)
from raydex.errors import FetchError, TooLarge
from raydex.records import Page, Source, stable_id
from tests.docsite import DocSite, handbook, page

SEED = Source(name="seed", seeds=("http://127.0.0.1/",))


class SyncFetcher:
    """A Fetcher in an event loop that runs while it is called."""

    def __init__(self, config: CrawlConfig, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._config, self._options = config, options

    async def _made(self) -> Fetcher:
        if not hasattr(self, "_fetcher"):
            options = {"addresses": seed_addresses([SEED])} | self._options
            self._fetcher = Fetcher(self._config, **options)
        return self._fetcher

    def fetch(self, source: Source, url: str, **validators: str) -> Page | Redirect | NotModified:
        async def run() -> Page | Redirect | NotModified:
            return await (await self._made()).fetch(source, url, **validators)

        return self._runner.run(run())

    def robots(self, url: str) -> RobotsRules:
        async def run() -> RobotsRules:
            return await (await self._made()).robots(url.rstrip("/"))

        return self._runner.run(run())

    def close(self) -> None:
        async def run() -> None:
            await (await self._made()).__aexit__(None, None, None)

        self._runner.run(run())
        self._runner.close()


@contextmanager
def fetching(config: CrawlConfig, **options: Any) -> Iterator[SyncFetcher]:
    fetcher = SyncFetcher(config, **options)
    yield fetcher
    fetcher.close()


class Waits(list[float]):
    """What was waited for, in no time; its clock goes on by as much."""

    def __init__(self) -> None:
        self._passed_s = 0.0

    async def wait(self, seconds: float) -> None:
        self.append(seconds)
        self._passed_s += seconds

    def clock(self) -> float:
        return time.monotonic() + self._passed_s


@pytest.fixture
def site() -> Iterator[DocSite]:
    with DocSite({"index.html": page("Home", "The first page.")}) as site:
        yield site


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def fetcher(waits: Waits) -> Iterator[SyncFetcher]:
    with fetching(CrawlConfig(), wait=waits.wait, clock=waits.clock) as fetcher:
        yield fetcher


def source_at(url: str, **fields: Any) -> Source:
    return Source(name="docs", seeds=(url,), **fields)


def fetch(fetcher: SyncFetcher, site: DocSite, path: str, **validators: str) -> Page | Redirect | NotModified:
    return fetcher.fetch(source_at(site.url), site.url + path, **validators)


def fetch_page(fetcher: SyncFetcher, site: DocSite, path: str) -> Page:
    fetched = fetch(fetcher, site, path)
    assert isinstance(fetched, Page)
    return fetched


def failure(fetcher: SyncFetcher, site: DocSite, path: str) -> FetchError:
    with pytest.raises(FetchError) as caught:
        fetch(fetcher, site, path)
    return caught.value


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


# ---- robots.txt


def test_robots_txt_is_read_for_our_name(fetcher, site):
    site.put(
        "robots.txt",
        "User-agent: *\nDisallow: /\n\nUser-agent: raydexbot\nDisallow: /private\nCrawl-delay: 2.5\n",
        content_type="text/plain",
    )
    rules = fetcher.robots(site.url)
    assert rules.allows(f"{site.url}a.html")
    assert not rules.allows(f"{site.url}private/a.html")
    assert rules.delay_s == 2.5
    assert site.requests == ["/robots.txt"]


def test_rules_for_a_name_that_stands_in_our_comment_are_not_ours():
    rules = RobotsRules("User-agent: documentation\nDisallow: /\n", "RaydexBot/0.1 (documentation search)")
    assert rules.allows("https://x.org/")


def test_rules_travel_between_processes_as_they_are():
    rules = RobotsRules("User-agent: *\nDisallow: /a\n", "RaydexBot/0.1")
    assert not rules.allows("https://x.org/a")
    assert pickle.loads(pickle.dumps(rules)) == rules  # noqa: S301 - Ray sends it like this
    assert not pickle.loads(pickle.dumps(rules)).allows("https://x.org/a")  # noqa: S301


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_host_without_robots_txt_allows_everything(fetcher, site, status):
    site.put("robots.txt", "User-agent: *\nDisallow: /\n", content_type="text/plain", status=status)
    rules = fetcher.robots(site.url)
    assert rules.allows(f"{site.url}a.html")
    assert rules.unreachable == ""


def test_a_host_whose_robots_txt_fails_denies_everything_and_says_why(fetcher, site):
    site.put("robots.txt", "", status=503)
    rules = fetcher.robots(site.url)
    assert not rules.allows(f"{site.url}a.html")
    assert "http_503" in rules.unreachable
    assert len(site.requests) == 3


def test_a_host_that_is_not_there_denies_everything(fetcher):
    with DocSite() as site:
        url = site.url
    assert "connection" in fetcher.robots(url).unreachable


def test_robots_txt_is_found_behind_redirects_on_its_host(fetcher, site):
    site.redirect("/robots.txt", "/moved.txt")
    site.put("moved.txt", "\ufeffUser-agent: *\nDisallow: /private\n", content_type="text/plain")
    assert not fetcher.robots(site.url).allows(f"{site.url}private")


@pytest.mark.parametrize("target", ["/robots.txt", "http://127.0.0.2:1/robots.txt"])
def test_a_robots_txt_that_leads_on_and_on_or_away_counts_as_none(fetcher, site, target):
    site.redirect("/robots.txt", target)
    rules = fetcher.robots(site.url)
    assert rules.allows(site.url)
    assert len(site.requests) <= 6


def test_of_a_long_robots_txt_the_first_half_megabyte_counts(fetcher, site):
    filler = "# filler\n" * 60_000
    site.put("robots.txt", f"User-agent: *\nDisallow: /early\n{filler}Disallow: /late\n", content_type="text/plain")
    rules = fetcher.robots(site.url)
    assert not rules.allows(f"{site.url}early")
    assert rules.allows(f"{site.url}late")


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
    paths = [f"{number}.html" for number in range(20)]
    for path in paths:
        site.put(path, page(path, "A page."))

    async def run() -> int:
        async with Fetcher(CrawlConfig(per_host=4), addresses=seed_addresses([SEED])) as fetcher:
            await asyncio.gather(*(fetcher.fetch(source_at(site.url), site.url + path) for path in paths[:8]))
            site.block_after(0)
            rest = asyncio.gather(*(fetcher.fetch(source_at(site.url), site.url + path) for path in paths[8:]))
            assert await asyncio.to_thread(site.wait_blocked, 10)
            while len(site.requests) < 8 + 4:
                await asyncio.sleep(0)
            at_once = len(site.requests) - 8
            site.unblock()
            await rest
            return at_once

    assert asyncio.run(run()) == 4
    assert len(site.requests) == 20
    assert site.connections_made <= 4


# ---- what a crawl may reach, and with what


def test_a_host_that_is_no_seed_is_refused_before_a_connection_is_opened(fetcher, site):
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(source_at(site.outside_url), site.outside_url)
    assert caught.value.reason == "forbidden_address"
    assert not site.outside_was_contacted()


def test_a_name_of_this_machine_is_refused_when_only_its_number_is_a_seed(fetcher, site):
    url = site.url.replace("127.0.0.1", "localhost")
    with pytest.raises(FetchError) as caught:
        fetcher.fetch(source_at(url), url)
    assert caught.value.reason == "forbidden_address"
    assert site.connections_made == 0


def test_a_name_whose_address_changes_after_the_check_leads_to_the_one_that_was_checked(site):
    """DNS rebinding: the second answer would be the internal machine."""
    answers = [["127.0.0.1"], ["127.0.0.2"]]
    url = site.url.replace("127.0.0.1", "docs.example.org")
    pinned = seed_addresses([source_at(url)], lambda host: answers[0])
    with fetching(CrawlConfig(), addresses=pinned, resolve=lambda host: answers[1]) as fetcher:
        assert fetcher.fetch(source_at(url), url)
    assert site.connections_made == 1
    assert not site.outside_was_contacted()


def test_credentials_go_to_the_seeds_origin_and_nowhere_else(site):
    source = source_at(site.url, headers=(("X-Key", "${KEY}"),), cookies="session=${KEY}")
    credentials = credentials_of([source], {"KEY": "s3cret"})
    with DocSite({"index.html": page("Other", "Another port of the same host.")}) as other:
        with fetching(CrawlConfig(), credentials=credentials) as fetcher:
            fetcher.fetch(source, site.url)
            fetcher.fetch(source, other.url)
        assert (site.headers_seen[0]["x-key"], site.headers_seen[0]["cookie"]) == ("s3cret", "session=s3cret")
        assert not {"x-key", "cookie"} & other.headers_seen[0].keys()
    assert "s3cret" not in repr(credentials)


def test_the_contact_stands_in_the_user_agent(site):
    with fetching(CrawlConfig(contact="mailto:docs@example.org")) as fetcher:
        fetch_page(fetcher, site, "")
    assert site.headers_seen[0]["user-agent"].endswith("(+mailto:docs@example.org)")


# ---- packed bodies

PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("encoding", PACKED)
def test_every_accepted_encoding_is_unpacked(fetcher, site, encoding):
    body = b"<p>words and more words</p>" * 1000
    site.put("a.html", PACKED[encoding](body), headers={"Content-Encoding": encoding})
    assert fetch_page(fetcher, site, "a.html").body == body


@pytest.mark.parametrize("encoding", PACKED)
def test_a_body_of_many_steps_is_unpacked_to_its_end(fetcher, site, encoding):
    body = b"<p>words and more words</p>" * 20_000
    site.put("a.html", PACKED[encoding](body), headers={"Content-Encoding": encoding})
    assert fetch_page(fetcher, site, "a.html").body == body


@pytest.mark.parametrize("encoding", PACKED)
def test_a_packed_body_that_ends_too_early_is_a_bad_encoding(fetcher, site, encoding):
    body = PACKED[encoding](b"<p>words and more words</p>" * 20_000)
    site.put("a.html", body[:-3], headers={"Content-Encoding": encoding})
    assert failure(fetcher, site, "a.html").reason == "bad_encoding"


@pytest.mark.parametrize("encoding", PACKED)
def test_a_bomb_is_cut_off_at_the_limit_without_being_unpacked(site, encoding):
    bomb = PACKED[encoding](bytes(64 * 2**20))
    site.put("a.html", bomb, headers={"Content-Encoding": encoding})
    with fetching(CrawlConfig(max_body_bytes=1_000_000)) as fetcher:
        tracemalloc.start()
        assert failure(fetcher, site, "a.html").reason == "too_large"
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 16 * 2**20
