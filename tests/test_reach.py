"""What a crawl may reach, with what it introduces itself, and how much a packed body may cost."""

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard

from raydex.config import CrawlConfig
from raydex.crawl import credentials_of, seed_addresses
from raydex.errors import FetchError
from tests.docsite import DocSite, page
from tests.fetching import failure, fetch_page, fetching, source_at

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
