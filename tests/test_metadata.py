"""Metadata: what a page says of itself, and what its URL says for it."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from raydex.parse.facets import facets_of_url, normal_language
from raydex.parse.metadata import read_metadata
from raydex.records import Page

URL = "https://docs.example.org/guide/page.html"


def metadata(html, *, url=URL, crawl_url="http://127.0.0.1:8000/guide/page.html", robots=""):
    page = Page(
        page_id="page",
        url=url,
        crawl_url=crawl_url,
        source="docs",
        fetched_at=datetime(2026, 11, 1, tzinfo=UTC),
        status=200,
        content_type="text/html; charset=utf-8",
        body=html.encode(),
        body_sha256="",
        robots=robots,
    )
    return read_metadata(LexborHTMLParser(html), page)


def test_a_page_that_says_nothing_has_empty_metadata_and_may_be_indexed_and_followed():
    found = metadata("<h1>Guide</h1><p>Text.")
    assert (found.description, found.version, found.language, found.breadcrumbs) == ("", "", "", ())
    assert (found.updated, found.canonical, found.index, found.follow) == ("", "", True, True)


def test_the_description_is_one_tidy_line_and_ends_between_words():
    assert metadata("<meta name=Description content=' How to\n  start. '>").description == "How to start."
    assert metadata("<meta property=og:description content='How to start.'>").description == "How to start."
    long = metadata(f"<meta name=description content='{'seventy ' * 200}'>").description
    assert len(long) <= 500
    assert long.endswith("seventy")


@pytest.mark.parametrize(
    ("html", "version"),
    [
        ("<meta name=docsearch:version content='2.4.1,latest'>", "2.4.1"),
        ("<meta name=version content='v3.0'>", "3.0"),
        ("<meta name=readthedocs-version-slug content=stable>", "stable"),
        ("<html data-version=1.8><body>", "1.8"),
        ("<script>var DOCUMENTATION_OPTIONS = {URL_ROOT: './', VERSION: '3.11.2', LANGUAGE: 'en'};</script>", "3.11.2"),
        ("<title>shutil — High-level files — Python 3.11.2 documentation</title>", "3.11.2"),
        ("<nav class=sidebar><div class=sidebar-crate><span class=version>1.63.0</span></div></nav>", "1.63.0"),
    ],
)
def test_the_version_stands_where_generators_write_it(html, version):
    assert metadata(html, url="https://docs.example.org/9.9/page.html").version == version


@pytest.mark.parametrize(
    "html",
    [
        "<meta name=generator content='DocBook XSL Stylesheets V1.79.2'>",
        "<meta name=docsearch:version content=current>",
        "<meta name=version content='$VERSION'>",
        "<script data-version=5 src=a.js></script>",
        "<title>Upgrade to Acme 4.2 — tips</title>",
    ],
)
def test_what_is_no_version_of_the_documentation_is_not_taken_for_one(html):
    assert metadata(html).version == ""


@pytest.mark.parametrize(
    ("html", "language"),
    [
        ("<html lang=de>", "de"),
        ("<html lang=zh_cn>", "zh-CN"),
        ("<html xml:lang=pt-br>", "pt-BR"),
        ("<meta http-equiv=Content-Language content='fr, en'>", "fr"),
        ("<meta property=og:locale content=es_ES>", "es-ES"),
        ("<html lang=None>", "ja"),
        ("<html lang='{{ lang }}'>", "ja"),
        ("<html>", "ja"),
    ],
)
def test_the_language_is_what_the_page_says_or_else_its_url(html, language):
    assert metadata(html, url="https://docs.example.org/ja/page.html").language == language


@pytest.mark.parametrize(
    ("path", "language", "version"),
    [
        ("/3.11/library/os.html", "", "3.11"),
        ("/3/library/os.html", "", "3"),
        ("/v2.1.0/", "", "2.1.0"),
        ("/docs/15/sql.html", "", "15"),
        ("/project/v2/guide/", "", "2"),
        ("/en/stable/index.html", "en", "stable"),
        ("/en/latest/", "en", "latest"),
        ("/en/main/install.html", "en", "main"),
        ("/de-CH/guide/", "de-CH", ""),
        ("/zh_CN/4.0.x/guide.html", "zh-CN", "4.0.x"),
        ("/zh-hans/guide/", "zh-Hans", ""),
        ("/docs/pt-br/5.1/", "pt-BR", "5.1"),
        ("/en-US/docs/Web/HTML/", "en-US", ""),
        ("/it/3.12/tutorial/", "it", "3.12"),
        ("/no-NO/guide/", "no-NO", ""),
        ("/release-1.2/guide.html", "", "1.2"),
    ],
)
def test_folders_of_the_path_name_language_and_version(path, language, version):
    assert facets_of_url(f"https://docs.example.org{path}") == (language, version)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/c/io.html",
        "/js/",
        "/go/",
        "/api/",
        "/api/v1/users/",
        "/api/3/",
        "/guide/no/",
        "/is/as/it/or/page.html",
        "/as-is/terms/",
        "/it/help/",
        "/a/b/de/page.html",
        "/guide/de",
        "/dev/",
        "/main/install.html",
        "/blog/2024/05/post.html",
        "/release-notes/3.11/",
        "/whatsnew/3.11.html",
        "/steps/2/",
        "/how-to/install/",
    ],
)
def test_folders_that_only_look_like_it_name_neither(path):
    assert facets_of_url(f"https://docs.example.org{path}") == ("", "")


def test_language_tags_are_written_as_bcp_47():
    tags = {"EN-us": "en-US", "zh_hant_tw": "zh-Hant-TW", "de_DE.UTF-8": "de-DE", "gsw": "gsw", "es-419": "es-419"}
    assert {tag: normal_language(tag) for tag in tags} == tags
    assert [normal_language(tag) for tag in ("", "C", "xx", "js", "None", "x-default", "english")] == [""] * 7


@pytest.mark.parametrize(
    "html",
    [
        "<nav aria-label=Breadcrumbs><ol><li><a href=/>Docs</a></li><li>Guide ›</li><li> </li></ol></nav>",
        "<div class=breadcrumbs><a href=/>Docs</a> &raquo; <a href=/g>Guide</a></div>",
        "<div class=breadcrumb><span><a href=/>Docs</a>/<b>Guide</b></span></div>",
        "<ul class=wy-breadcrumbs><li><a class='icon-home'></a></li><li>Docs</li><li>Guide</li>"
        "<li class=wy-breadcrumbs-aside>View source</li></ul>",
        "<div class=related><h3>Navigation</h3><ul><li class=right><a>index</a></li>"
        "<li><a>Docs</a> &#187;</li><li class='nav-item'><a>Guide</a></li></ul></div>",
        '<ol><li><a rel="up" href=/>Docs</a></li><li>Guide</li></ol>',
        '<script type="application/ld+json">{"@graph": [{"@type": "BreadcrumbList", "itemListElement": ['
        '{"position": 2, "item": {"@id": "/g", "name": "Guide"}}, {"position": 1, "name": "Docs"}]}]}</script>',
        "<ul itemscope itemtype='https://schema.org/BreadcrumbList'>"
        "<li itemprop=itemListElement><span itemprop=name>Docs</span><meta itemprop=position content=1></li>"
        "<li itemprop=itemListElement><span itemprop=name>Guide</span></li></ul>",
    ],
)
def test_breadcrumbs_are_the_trail_as_shown_outermost_first(html):
    assert metadata(html).breadcrumbs == ("Docs", "Guide")


def test_broken_linked_data_is_no_trail_and_no_error():
    nested = "[" * 50_000
    for text in ("{", nested, '{"@type": "BreadcrumbList"}', '{"@type": "BreadcrumbList", "itemListElement": [1]}'):
        assert metadata(f'<script type="application/ld+json">{text}</script>').breadcrumbs == ()


@pytest.mark.parametrize(
    ("html", "updated"),
    [
        ("<meta http-equiv=last-modified content='2026-10-03T08:00:00+02:00'>", "2026-10-03T08:00:00+02:00"),
        ("<meta name=dcterms.modified content=2026-10-03>", "2026-10-03"),
        ("<meta property=article:modified_time content='2026-10-03T08:00:00.000Z'>", "2026-10-03T08:00:00Z"),
        ("<meta property=og:updated_time content='2026-10-03 08:00 UTC'>", "2026-10-03T08:00:00Z"),
        ("<p>Last updated: <b><time datetime=2026-10-03>yesterday</time></b></p>", "2026-10-03"),
        ("<time itemprop=dateModified datetime=2026-10-03>x</time>", "2026-10-03"),
        ('<script type="application/ld+json">{"dateModified": "2026-10-03"}</script>', "2026-10-03"),
        ("<footer>&copy; Acme. Last updated on Oct 03, 2026. Created using Sphinx 8.</footer>", "2026-10-03"),
        ("<div class=md-source-file>Last update: <span>October 3rd, 2026</span></div>", "2026-10-03"),
        ("<span class=theme-last-updated>Last updated on <b>Oct 3, 2026</b> by <b>Ada</b></span>", "2026-10-03"),
        ("<div id=footer><p>Last Modified: Sat, Oct 3 16:41:48 UTC 2026</p></div>", "2026-10-03"),
        ("<div id=footer>Version 2.1<br>Last updated 2026-10-03 12:33:21 UTC</div>", "2026-10-03T12:33:21Z"),
        ("<p>Text.</p><p>This page was last modified on 3 October 2026, at 12:00.</p>", "2026-10-03"),
        ("<p>Text.</p><p>Page last edited Saturday, 03-Oct-2026</p>", "2026-10-03"),
    ],
)
def test_the_last_update_is_found_in_the_usual_forms(html, updated):
    assert metadata(html).updated == updated


@pytest.mark.parametrize(
    "html",
    [
        "<!-- Last updated on Oct 03, 2026, generated by javadoc --><p>Text.",
        "<footer>Generated on Sat Oct 3 2026 12:00:00 for Acme by doxygen</footer>",
        "<p>Published on <time datetime=2026-10-03>October</time></p>",
        "<footer>Last updated on 10/3/2026</footer>",
        "<footer>Last updated on February 30, 2026</footer>",
        "<footer>Last updated a while ago</footer>",
        "<meta name=last-modified content='$Date$'>",
        "<p>Last updated on Oct 03, 2026, says the sample.</p>" + "<p>Another paragraph of the page.</p>" * 100,
    ],
)
def test_no_last_update_is_better_than_a_wrong_one(html):
    assert metadata(html).updated == ""


def test_the_canonical_address_is_absolute_and_minds_the_base():
    assert metadata("<link rel=canonical href='HTTPS://Docs.example.org:443/a#b'>").canonical == (
        "https://docs.example.org/a"
    )
    link = "<link rel='alternate canonical' href=other.html>"
    assert metadata(link).canonical == "http://127.0.0.1:8000/guide/other.html"
    assert metadata(f"<base href=/v1/>{link}").canonical == "http://127.0.0.1:8000/v1/other.html"
    assert metadata(f"<base href='http://[x/'>{link}").canonical == "http://127.0.0.1:8000/guide/other.html"
    assert [metadata(f"<link rel=canonical href='{href}'>").canonical for href in ("", "javascript:1", "http://[")] == (
        [""] * 3
    )


@pytest.mark.parametrize(
    ("html", "header", "index", "follow"),
    [
        ("<meta name=robots content=noindex>", "", False, True),
        ("<meta name=ROBOTS content='NoFollow, noarchive'>", "", True, False),
        ("<meta name=robots content=none>", "", False, False),
        ("<meta name=robots content='all'><meta name=robots content='noindex nofollow'>", "", False, False),
        ("<meta name=RaydexBot content=noindex>", "", False, True),
        ("<meta name=googlebot content=none>", "", True, True),
        ("", "noindex, nofollow", False, False),
        ("", "googlebot: noindex, nofollow", True, True),
        ("", "googlebot: noindex\nnofollow", True, False),
        ("", "raydexbot: noindex, otherbot: nofollow", False, True),
        ("", "unavailable_after: 25 Jun 2030 15:00:00 PST, nofollow", True, False),
        ("", "*: none", False, False),
        ("<meta name=robots content=index>", "nofollow", True, False),
    ],
)
def test_robots_directives_of_page_and_header_add_up(html, header, index, follow):
    found = metadata(html, robots=header)
    assert (found.index, found.follow) == (index, follow)


PIECES = [
    "<meta name=robots content='",
    "<meta name=version content=",
    "<html lang=",
    "<base href='http://[",
    "<link rel=canonical href='//",
    "<nav aria-label=breadcrumb><ol><li>",
    "<div class=breadcrumb>",
    '<script type="application/ld+json">{"@type":"BreadcrumbList","itemListElement":[{"position":"1","item":[',
    "</script>",
    "<footer>Last updated on Oct 99, 2026",
    "<time datetime=2026-99-99 itemprop=dateModified>",
    "<script>DOCUMENTATION_OPTIONS = {VERSION: '",
    "'>",
    ">",
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=12).map("".join), st.text(max_size=20))
def test_no_page_header_or_path_makes_it_fail(html, text):
    metadata(html.encode("utf-8", "replace").decode(), url=f"https://docs.example.org/{text}", robots=text)
