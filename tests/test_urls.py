from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydex.records import Source
from utils.urls import (
    canonical_url,
    directory_of,
    file_path,
    file_url,
    in_scope,
    origin_of,
    prefixes,
    public_url,
)


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
        ("https://x.org/a;JSESSIONID=1F.node2/b;v=1", "https://x.org/a/b;v=1"),
        ("https://x.org/a/index.html;jsessionid=1", "https://x.org/a/"),
        ("https://x.org/a?b=2&PHPSESSID=x&a=1&sid&b=1", "https://x.org/a?b=2&a=1&b=1"),
        ("https://x.org/a?utm_source=x&%73id=1&gclid=y", "https://x.org/a"),
        ("https://x.org/a?side=1&utm=2&q=a&&b", "https://x.org/a?side=1&utm=2&q=a&&b"),
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
        "file:///etc/passwd",
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


PARTS = [*"ab/.:%?#&=@ 2eEé[]\\~+;", ";jsessionid=", "sid", "%73id", "index.html"]


@given(st.lists(st.sampled_from(PARTS), max_size=30).map("".join))
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


@pytest.mark.parametrize(
    ("glob", "inside", "outside"),
    [
        ("https://x.org/*/api", ["v1/api", "v2/api?page=2"], ["v1/api/a", "api", "v1/b/api", "?/api"]),
        ("https://x.org/**/api/", ["api/", "v1/api/", "a/b/api/c.html"], ["api", "v1/apis/", "my-api/"]),
        ("https://x.org/docs/*.html", ["docs/a.html"], ["docs/a/b.html", "docs/a.htm", "docs/a.html.txt"]),
        ("https://x.org/docs/**", ["docs/", "docs/a/b.html?x=1"], ["docs", "docs-old/a"]),
        ("https://x.org/v*/", ["v1/", "v1/a"], ["v1", "w/v1/"]),
        ("https://x.org/**?print=*", ["a/b?print=1"], ["a/b", "a?printer=1"]),
    ],
)
def test_a_star_stays_within_a_segment_and_two_stars_do_not(glob, inside, outside):
    docs = site("https://x.org/", allow=(glob,))
    assert [path for path in inside if not in_scope(docs, f"http://x.org/{path}")] == []
    assert [path for path in outside if in_scope(docs, f"https://x.org/{path}")] == []
    rest = site("https://x.org/", deny=(glob,))
    assert [path for path in inside + outside if in_scope(rest, f"https://x.org/{path}")] == outside


def test_a_glob_counts_as_its_folder_where_a_prefix_is_replaced():
    docs = site("http://y.org/", allow=("http://y.org/docs/v*/api/**",), public_url="https://x.org/")
    assert prefixes(docs) == ("http://y.org/docs/",)
    assert public_url(docs, "http://y.org/docs/v1/api/a.html") == "https://x.org/v1/api/a.html"


def test_a_file_url_and_its_path_say_the_same_whatever_the_name(tmp_path):
    folder = tmp_path / "a b#c?d%20;é"
    folder.mkdir()
    assert file_url(folder) == f"{file_url(tmp_path)}a%20b%23c%3Fd%2520%3B%C3%A9/"
    for path in (folder, folder / "intro.md", tmp_path / "\udcff.md", Path("/")):
        assert file_path(file_url(path)) == path


def test_without_a_public_url_the_files_of_a_folder_are_cited_as_files():
    assert public_url(site("file:///docs/", link_style="bare"), "file:///docs/a.md") == "file:///docs/a.md"


@pytest.mark.parametrize(
    ("style", "cited"),
    [
        ("keep", ["intro.md", "api/README.md", "api/a.b.rst", "", "logo.svg", "a%20b.ipynb", ".md"]),
        ("html", ["intro.html", "api/", "api/a.b.html", "", "logo.svg", "a%20b.html", ".md"]),
        ("bare", ["intro", "api/", "api/a.b", "", "logo.svg", "a%20b", ".md"]),
        ("directory", ["intro/", "api/", "api/a.b/", "", "logo.svg", "a%20b/", ".md"]),
    ],
)
def test_public_url_of_a_file_takes_the_link_style_of_its_folder(style, cited):
    docs = site("file:///d/", public_url="https://x.org/docs", link_style=style, allow=("file:///d/**",))
    names = ("intro.md", "api/README.md", "api/a.b.rst", "index.html", "logo.svg", "a%20b.ipynb", ".md")
    assert [public_url(docs, f"file:///d/{name}") for name in names] == [f"https://x.org/docs/{end}" for end in cited]


def test_the_link_style_is_for_folders_alone():
    copy = site("http://y.org/", public_url="https://x.org/", link_style="bare")
    assert public_url(copy, "http://y.org/a.html") == "https://x.org/a.html"
