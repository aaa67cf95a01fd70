import gzip
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydex.crawl.sitemap import MAX_BYTES, MAX_ENTRIES, Sitemap, SitemapEntry, read_lastmod, read_sitemap
from raydex.errors import ParseError

BASE = "https://x.org/sitemap.xml"
NAMESPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def urlset(*entries: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset {NAMESPACE}>{"".join(entries)}</urlset>'.encode()


def urls(sitemap: Sitemap) -> list[str]:
    return [entry.url for entry in sitemap.pages]


def test_a_urlset_gives_its_pages_in_order_with_their_last_change():
    body = urlset(
        "<url><loc>\n https://x.org/b#top </loc><lastmod>2024-05-12T10:00:00+02:00</lastmod></url>",
        "<url><priority>0.5</priority><loc>https://X.org/a?x=1&amp;y=2</loc></url>",
    )
    assert read_sitemap(body, BASE) == Sitemap(
        pages=(
            SitemapEntry("https://x.org/b", datetime(2024, 5, 12, 8, tzinfo=UTC)),
            SitemapEntry("https://x.org/a?x=1&y=2"),
        )
    )


def test_an_index_gives_its_sitemaps():
    body = f"<sitemapindex {NAMESPACE}><sitemap><loc>/a.xml.gz</loc></sitemap><sitemap><loc>b.xml</loc></sitemap>"
    sitemap = read_sitemap(f"{body}</sitemapindex>".encode(), "https://x.org/maps/index.xml")
    assert sitemap == Sitemap(sitemaps=("https://x.org/a.xml.gz", "https://x.org/maps/b.xml"))


def test_pictures_and_translations_of_a_page_are_not_pages():
    body = urlset(
        '<url><image:image xmlns:image="i"><image:loc>https://x.org/a.png</image:loc></image:image>'
        '<xhtml:link xmlns:xhtml="h" rel="alternate" hreflang="de" href="https://x.org/de/"/>'
        "<loc>https://x.org/a</loc></url>"
    )
    assert urls(read_sitemap(body, BASE)) == ["https://x.org/a"]


def test_a_gzipped_sitemap_is_unpacked_however_many_members_it_has():
    body = urlset("<url><loc>https://x.org/a</loc></url>")
    packed = gzip.compress(body[:50]) + gzip.compress(body[50:])
    assert read_sitemap(packed, BASE) == read_sitemap(body, BASE)


def test_a_plain_list_of_addresses_is_a_sitemap():
    body = "\ufeffhttps://x.org/ä\r\n\r\nhttps://x.org/b\nmailto:a@x.org\n".encode()
    assert urls(read_sitemap(body, BASE)) == ["https://x.org/%C3%A4", "https://x.org/b"]


def test_a_sitemap_may_be_utf_16():
    body = urlset("<url><loc>https://x.org/a</loc></url>").decode().replace("UTF-8", "UTF-16").encode("utf-16")
    assert urls(read_sitemap(body, BASE)) == ["https://x.org/a"]


def test_what_is_no_web_address_is_left_out():
    body = urlset(*(f"<url><loc>{url}</loc></url>" for url in ("file:///etc/passwd", "http://a b/", " ", "/c")))
    assert urls(read_sitemap(body, BASE)) == ["https://x.org/c"]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"Not Found", "neither XML nor a list of URLs"),
        (b"<!DOCTYPE html><html><body>Not found<br></body></html>", "<html> is no sitemap"),
        (b"<rss version='2.0'></rss>", "<rss> is no sitemap"),
        (urlset("<url><loc>https://x.org/a</loc></url>")[:-9], "no element found"),
        (urlset("<a>" * 20 + "</a>" * 20), "nested more than 16 deep"),
        (b"<?xml version='1.0' encoding='x-unknown'?><urlset/>", "unknown encoding"),
        (b"<!DOCTYPE u [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><urlset>&b;</urlset>", "EntitiesForbidden"),
        (gzip.compress(b"<urlset/>")[:-4], "Compressed file ended"),
        (b"\x1f\x8b\x08\x00 is no gzip", "invalid"),
    ],
)
def test_what_is_no_sitemap_is_a_bad_sitemap_with_the_reason(body, detail):
    with pytest.raises(ParseError, match=detail) as error:
        read_sitemap(body, BASE)
    assert (error.value.url, error.value.reason) == (BASE, "bad_sitemap")


def test_a_small_file_that_unpacks_to_too_much_is_read_up_to_the_limit_and_says_so():
    start = urlset("<url><loc>https://x.org/a</loc></url>")[:-9]
    bomb = gzip.compress(start + b" " * (MAX_BYTES + 1000), compresslevel=1)
    sitemap = read_sitemap(bomb, BASE)
    assert urls(sitemap) == ["https://x.org/a"]
    assert sitemap.problem == "longer than 52428800 bytes; the rest was left out"


def test_entries_beyond_the_limit_of_the_protocol_are_left_out_and_that_is_said():
    sitemap = read_sitemap(b"".join(b"https://x.org/%d\n" % number for number in range(MAX_ENTRIES + 5)), BASE)
    assert len(sitemap.pages) == MAX_ENTRIES
    assert sitemap.problem == "more than 50000 entries; the rest was left out"
    assert not read_sitemap(b"https://x.org/\n" * MAX_ENTRIES, BASE).problem


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-05-12T10:20:30Z", "2024-05-12T10:20:30"),
        ("2024-05-12T10:20:30.25+05:30", "2024-05-12T04:50:30.250000"),
        ("2024-05-12T10:20-03:00", "2024-05-12T13:20:00"),
        (" 2024-05-12\n", "2024-05-13T11:59:59"),
        ("2024-12-31", "2025-01-01T11:59:59"),
        ("2024-02", "2024-03-01T11:59:59"),
        ("2024-12", "2025-01-01T11:59:59"),
        ("2024", "2025-01-01T11:59:59"),
        ("2024-05-12T10:20:30", "2024-05-12T22:20:30"),
    ],
)
def test_a_last_change_is_the_latest_moment_that_the_text_can_mean(text, moment):
    assert read_lastmod(text) == datetime.fromisoformat(moment).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13", "2024-02-30", "0000", "9999-12-31", "9999", "12/05/2024"])
def test_a_last_change_that_is_no_date_is_none(text):
    assert read_lastmod(text) is None


@given(st.text(alphabet="0123456789-:TZ+. W", max_size=25))
def test_any_text_is_a_date_in_utc_or_none(text):
    moment = read_lastmod(text)
    assert moment is None or moment.tzinfo is UTC


@given(st.binary(max_size=200), st.sampled_from([b"", b"<urlset>", b"\x1f\x8b\x08", b"https://x.org/\n", b"<?xml"]))
def test_any_bytes_are_a_sitemap_or_a_parse_error(body, start):
    try:
        read_sitemap(start + body, BASE)
    except ParseError as error:
        assert error.reason == "bad_sitemap"  # noqa: PT017 - either outcome is right
