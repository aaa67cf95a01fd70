from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydex.records import Source
from utils.urls import canonical_url, directory_of, in_scope, origin_of, prefixes, public_url


def site(*seeds: str, **fields: Any) -> Source:
    return Source(name="docs", seeds=seeds, **fields)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("HTTP://Example.ORG:80/Guide", "http://example.org/Guide"),
        ("https://x.org:443/", "https://x.org/"),
        ("https://x.org:8443/", "https://x.org:8443/"),
        ("https://x.org", "https://x.org/"),
        ("https://x.org.", "https://x.org/"),
        ("https://user:secret@x.org/", "https://x.org/"),
        ("https://x.org/a#part", "https://x.org/a"),
        ("https://x.org/a?", "https://x.org/a"),
        ("https://x.org/a?page=2#part", "https://x.org/a?page=2"),
        ("https://x.org/%7euser/%e9/%41", "https://x.org/~user/%E9/A"),
        ("https://x.org/ä b", "https://x.org/%C3%A4%20b"),
        ("https://x.org/100%", "https://x.org/100%25"),
        ("https://x.org/a/../b/./c", "https://x.org/b/c"),
        ("https://x.org/%2e%2e/a", "https://x.org/a"),
        ("https://x.org/../..", "https://x.org/"),
        ("https://x.org/a//b", "https://x.org/a//b"),
        ("https://x.org/docs/index.html", "https://x.org/docs/"),
        ("https://x.org/docs/index.htm?v=1", "https://x.org/docs/?v=1"),
        ("https://x.org/index.html/a", "https://x.org/index.html/a"),
        ("https://münchen.de/", "https://xn--mnchen-3ya.de/"),
        ("http://[::0001]:8000/a", "http://[::1]:8000/a"),
        ("  https://x.org/a\n", "https://x.org/a"),
    ],
)
def test_canonical_url_gives_every_spelling_of_an_address_the_same_form(url, canonical):
    assert canonical_url(url) == canonical


@pytest.mark.parametrize(
    ("link", "canonical"),
    [
        ("b.html#x", "https://x.org/docs/b.html"),
        ("../b/", "https://x.org/b/"),
        ("?page=2", "https://x.org/docs/a.html?page=2"),
        ("#top", "https://x.org/docs/a.html"),
        ("", "https://x.org/docs/a.html"),
        ("//y.org/c", "https://y.org/c"),
        ("index.html", "https://x.org/docs/"),
    ],
)
def test_canonical_url_resolves_a_link_against_its_page(link, canonical):
    assert canonical_url(link, base="https://x.org/docs/a.html") == canonical


@pytest.mark.parametrize(
    "url",
    [
        "",
        "docs/a.html",
        "mailto:a@x.org",
        "javascript:void(0)",
        "ftp://x.org/",
        "http://",
        "http:///a",
        "http://x.org:99999/",
        "http://x.org:port/",
        "http://a b.org/",
        "http://x..org/",
        "http://[::1/",
        "http://x.org/\ud800",
    ],
)
def test_canonical_url_of_what_cannot_be_fetched_is_empty(url):
    assert canonical_url(url) == ""


@given(st.text(alphabet=st.sampled_from("ab/.:%?#&=@ 2eEé[]\\~+;"), max_size=30))
def test_canonical_url_of_a_canonical_url_is_itself(text):
    url = canonical_url(f"http://x.org/{text}")
    assert canonical_url(url) == url
    assert origin_of(url) == "http://x.org"


@given(st.text(max_size=40))
def test_canonical_url_takes_any_text_without_an_error(text):
    url = canonical_url(text, base="https://x.org/docs/")
    assert url == "" or url.startswith(("http://", "https://"))


def test_a_file_as_seed_stands_for_its_folder_and_a_version_for_itself():
    assert directory_of("https://x.org/docs/intro.html?v=1") == "https://x.org/docs/"
    assert directory_of("https://x.org/docs/") == "https://x.org/docs/"
    assert directory_of("https://x.org/docs/3.12") == "https://x.org/docs/3.12"
    assert directory_of("https://x.org/") == "https://x.org/"


def test_prefixes_are_the_allowed_ones_or_else_the_directories_of_the_seeds():
    assert prefixes(site("https://x.org/a/1.html", "https://x.org/a/2.html")) == ("https://x.org/a/",)
    assert prefixes(site("https://x.org/a/1.html", allow=("https://x.org/b/",))) == ("https://x.org/b/",)


def test_scope_is_the_folder_of_the_seed_and_never_its_sibling():
    docs = site("https://x.org/docs")
    inside = ("https://x.org/docs", "https://x.org/docs?page=2", "https://x.org/docs/a/b.html", "http://x.org/docs/a")
    outside = ("https://x.org/docs-old", "https://x.org/docs.html", "https://x.org/", "https://y.org/docs", "")
    assert all(in_scope(docs, url) for url in inside)
    assert not any(in_scope(docs, url) for url in outside)


def test_a_denied_prefix_wins_over_an_allowed_one():
    docs = site("https://x.org/docs/", deny=("https://x.org/docs/old",))
    assert in_scope(docs, "https://x.org/docs/older")
    assert not in_scope(docs, "https://x.org/docs/old/a.html")


def test_http_and_https_are_one_site_only_on_their_default_ports():
    assert in_scope(site("http://x.org/"), "https://x.org/a")
    assert not in_scope(site("http://x.org:8080/"), "https://x.org:8080/a")


def test_public_url_takes_the_place_of_the_first_prefix():
    copy = site("http://127.0.0.1:8000/docs/", public_url="https://x.org/3/")
    assert public_url(copy, "http://127.0.0.1:8000/docs/a.html?v=1") == "https://x.org/3/a.html?v=1"
    assert public_url(copy, "http://127.0.0.1:8000/docs/") == "https://x.org/3/"
    assert public_url(copy, "http://127.0.0.1:8000/other/") == "http://127.0.0.1:8000/other/"


def test_public_url_joins_prefixes_with_and_without_a_slash():
    copy = site("http://mirror.org/docs", public_url="https://x.org/3")
    assert public_url(copy, "https://mirror.org/docs/a") == "https://x.org/3/a"
    assert public_url(copy, "http://mirror.org/docs") == "https://x.org/3"


def test_public_url_is_the_crawl_url_when_the_source_names_none():
    assert public_url(site("https://x.org/"), "https://x.org/a") == "https://x.org/a"
