import itertools
import re
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from raydex.config import CrawlConfig
from raydex.crawl import Frontier, RobotsRules, Visit
from raydex.errors import FetchError
from raydex.records import Source
from tests.fetching import source_at

NO_RULES = RobotsRules("", "RaydexBot")


def frontier_of(
    *sources: Source, robots: Callable[[str], RobotsRules] = lambda origin: NO_RULES, **settings: Any
) -> Frontier:
    return Frontier(sources, robots, CrawlConfig(**settings))


def crawl(frontier: Frontier, links_of: Callable[[str], Iterable[str]]) -> list[str]:
    """Return what is visited of a site that is given as URL → links."""
    visited = []
    while visits := frontier.take():
        for visit in visits:
            visited.append(visit.url)
            frontier.add_links(visit, links_of(visit.url))
    return visited


def urls(level: list[Visit]) -> list[str]:
    return [visit.url for visit in level]


def test_visits_hold_each_address_once_in_the_order_of_discovery():
    frontier = frontier_of(source_at("https://x.org/docs/"))
    (home,) = frontier.take()
    frontier.add_links(home, ["b.html#x", "a.html", "b.html", "./", "index.html", "/other/", "mailto:a@x.org"])
    level = frontier.take()
    assert urls(level) == ["https://x.org/docs/b.html", "https://x.org/docs/a.html"]
    assert level[0] == Visit(url="https://x.org/docs/b.html", source="docs", depth=1, referrer="https://x.org/docs/")
    frontier.add_links(level[0], ["c.html", "a.html"])
    frontier.add_links(level[1], ["c.html", "d.html"])
    assert urls(frontier.take()) == ["https://x.org/docs/c.html", "https://x.org/docs/d.html"]
    assert frontier.take() == []


def test_an_address_belongs_to_the_first_source_that_holds_it():
    first = Source(name="first", seeds=("https://x.org/a/",))
    second = Source(name="second", seeds=("https://x.org/",), deny=("https://x.org/private",))
    frontier = frontier_of(first, second)
    level = frontier.take()
    frontier.add_links(level[1], ["/a/1", "/b", "/private/1"])
    assert [(v.source, v.url) for v in frontier.take()] == [("second", "https://x.org/b")]
    frontier.cross()
    assert [(v.source, v.url) for v in frontier.take()] == [("first", "https://x.org/a/1")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_pages_do_not_depend_on_which_of_two_sites_is_faster(order):
    """Both link to the same pages of the first, which has room for one more."""
    first = Source(name="first", seeds=("https://a.org/",), max_pages=2)
    second = Source(name="second", seeds=("https://b.org/",))
    frontier = frontier_of(first, second)
    homes = frontier.take()
    links = [["/own"], ["https://a.org/from-b", "https://a.org/own"]]
    for at in order:
        frontier.add_links(homes[at], links[at])
    frontier.add_redirect(homes[1], "https://a.org/moved")
    found = frontier.take()
    frontier.cross()
    assert urls([*found, *frontier.take()]) == ["https://a.org/own", "https://a.org/moved"]
    assert frontier.truncated == 1
    frontier.cross()
    assert frontier.take() == []


def test_links_beyond_the_depth_and_the_number_of_pages_are_counted_once_each():
    frontier = frontier_of(source_at("https://x.org/", max_depth=1, max_pages=3))
    (home,) = frontier.take()
    frontier.add_links(home, ["/a", "/b", "/c", "/c"])
    level = frontier.take()
    assert urls(level) == ["https://x.org/a", "https://x.org/b"]
    frontier.add_links(level[0], ["/c", "/d"])
    assert frontier.take() == []
    assert frontier.truncated == 2


def test_links_to_pictures_and_archives_are_counted_and_not_visited():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take()
    frontier.add_links(home, ["/a.PNG", "/b.tar.gz", "/b.tar.gz#x", "/c.zip?v=1", "/numpy.array", "/3.12"])
    assert urls(frontier.take()) == ["https://x.org/numpy.array", "https://x.org/3.12"]
    assert frontier.binary == 3


def test_robots_rules_are_asked_for_each_host_and_what_they_deny_is_named_once():
    asked = []

    def robots(origin: str) -> RobotsRules:
        asked.append(origin)
        return RobotsRules("User-agent: *\nDisallow: /private\n", "RaydexBot/0.1")

    frontier = frontier_of(source_at("https://x.org:8443/"), robots=robots)
    (home,) = frontier.take()
    frontier.add_links(home, ["/private/a", "/private/a", "/b"])
    assert urls(frontier.take()) == ["https://x.org:8443/b"]
    assert frontier.denied == ["https://x.org:8443/private/a"]
    assert set(asked) == {"https://x.org:8443"}


def test_a_redirect_is_visited_at_the_depth_of_the_page_that_it_stands_for():
    frontier = frontier_of(source_at("https://x.org/", max_pages=1, max_depth=0))
    (home,) = frontier.take()
    frontier.add_redirect(home, "/en/")
    assert frontier.take() == [Visit(url="https://x.org/en/", source="docs", depth=0, chain=("https://x.org/",))]


def test_a_redirect_to_a_known_page_adds_nothing():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take()
    frontier.add_links(home, ["/a", "/b"])
    a, _ = frontier.take()
    frontier.add_redirect(a, "/b")
    assert frontier.take() == []


def test_a_redirect_that_robots_txt_denies_is_not_visited():
    frontier = frontier_of(
        source_at("https://x.org/"), robots=lambda origin: RobotsRules("User-agent: *\nDisallow: /p", "RaydexBot")
    )
    (home,) = frontier.take()
    frontier.add_redirect(home, "/p")
    assert frontier.take() == []
    assert frontier.denied == ["https://x.org/p"]


def test_a_redirect_to_itself_is_a_loop():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take()
    with pytest.raises(FetchError, match="redirect_loop"):
        frontier.add_redirect(home, "/index.html")


def test_a_circle_of_redirects_is_a_loop_even_when_both_ends_were_linked():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take()
    frontier.add_links(home, ["/a", "/b"])
    a, b = frontier.take()
    frontier.add_redirect(a, "/b")
    with pytest.raises(FetchError, match="redirect_loop"):
        frontier.add_redirect(b, "/a")


def test_an_endless_chain_of_redirects_ends_at_the_limit():
    frontier = frontier_of(source_at("https://x.org/"))
    for hop in range(10):
        (visit,) = frontier.take()
        frontier.add_redirect(visit, f"/{hop}")
    (visit,) = frontier.take()
    with pytest.raises(FetchError, match="redirect_limit"):
        frontier.add_redirect(visit, "/one-more")


def test_a_redirect_out_of_scope_is_named_and_for_a_seed_the_way_out_too():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take()
    frontier.add_links(home, ["/a"])
    (linked,) = frontier.take()
    with pytest.raises(FetchError, match=r"redirect_outside \(https://www\.x\.org/ .*give that URL as the seed"):
        frontier.add_redirect(home, "https://www.x.org/")
    with pytest.raises(FetchError, match=r"redirect_outside \(https://www\.x\.org/ belongs to no source\)"):
        frontier.add_redirect(linked, "https://www.x.org/")


def test_links_are_left_alone_when_they_are_no_way_of_discovery():
    frontier = frontier_of(source_at("https://x.org/"), discover=("sitemap",))
    (home,) = frontier.take()
    frontier.add_links(home, ["/a"])
    assert frontier.take() == []
    frontier.add_redirect(home, "/en/")
    frontier.add_listed("docs", ["https://x.org/b"])
    assert urls(frontier.take()) == ["https://x.org/en/", "https://x.org/b"]


def test_what_a_sitemap_lists_is_treated_as_links_are():
    rules = RobotsRules("User-agent: *\nDisallow: /docs/p", "RaydexBot")
    frontier = frontier_of(
        source_at("https://x.org/docs/", max_pages=3),
        robots=lambda origin: rules,
    )
    listed = ["/docs/", "/docs/a#x", "/docs/a", "/docs/b.pdf", "/docs/p", "/other", "/docs/c", "/docs/d"]
    frontier.add_listed("docs", [f"https://x.org{path}" for path in listed])
    assert urls(frontier.take()) == ["https://x.org/docs/", "https://x.org/docs/a", "https://x.org/docs/c"]
    assert (frontier.binary, frontier.denied, frontier.truncated) == (1, ["https://x.org/docs/p"], 1)


def test_a_listed_page_can_link_on_to_the_depth_that_is_left():
    frontier = frontier_of(source_at("https://x.org/", max_depth=2))
    frontier.add_listed("docs", ["https://x.org/a"])
    _, listed = frontier.take()
    frontier.add_links(listed, ["/b"])
    (linked,) = frontier.take()
    frontier.add_links(linked, ["/c"])
    assert (listed.depth, linked.depth, frontier.truncated) == (1, 2, 1)


def test_the_files_of_a_folder_are_bound_by_its_scope_and_number_alone():
    def robots(origin: str) -> RobotsRules:
        raise AssertionError(f"a folder has no robots.txt, asked for {origin}")

    folder = Source(name="docs", seeds=("file:///d/",), deny=("file:///d/**/drafts",), max_pages=2, max_depth=0)
    frontier = frontier_of(Source(name="site", seeds=("file:///other/",)), folder, robots=robots)
    names = ("a.md", "a.md", "x/drafts", "2024/05/a.txt", "../etc/passwd", "c.md")
    frontier.add_listed("docs", [f"file:///d/{name}" for name in names] + ["file:///e/a.md"])
    visits = frontier.take()
    assert urls(visits) == ["file:///d/a.md", "file:///d/2024/05/a.txt"]
    assert {visit.source for visit in visits} == {"docs"}
    assert frontier.truncated == 2


def test_the_documents_of_a_loader_are_visited_in_their_order():
    frontier = frontier_of(Source(name="wiki", seeds=("loader://wiki/",), loader="a.b:C"))
    assert frontier.take() == []
    frontier.add_listed("wiki", ["loader://wiki/2", "loader://wiki/1"])
    assert urls(frontier.take()) == ["loader://wiki/2", "loader://wiki/1"]


def test_the_results_of_visits_may_come_in_any_order_as_long_as_they_are_given_back_in_theirs():
    site = {
        "https://x.org/": ["/b", "/a"],
        "https://x.org/a": ["/d", "/c"],
        "https://x.org/b": ["/c", "/e"],
    }

    def stream(at_once: int) -> list[str]:
        frontier = frontier_of(source_at("https://x.org/", max_pages=5))
        waiting, visited = frontier.take(), []
        while waiting:
            made, waiting = waiting[:at_once], waiting[at_once:]
            for visit in made:
                visited.append(visit.url)
                frontier.add_links(visit, site.get(visit.url, []))
                waiting += frontier.take()
        return visited

    assert stream(1) == stream(2) == stream(9)
    assert stream(1) == [f"https://x.org/{name}" for name in ("", "b", "a", "c", "e")]


def test_a_calendar_ends_at_the_limit_of_its_pattern_and_is_named():
    def links_of(url: str) -> list[str]:
        year, month = map(int, re.findall(r"[0-9]+", url) or (2024, 0))
        following = f"{year + month // 12}/{month % 12 + 1:02}"
        return [f"/calendar/{following}/", f"/calendar/{following}/?view=print", "/guide"]

    frontier = frontier_of(source_at("https://x.org/", max_depth=9999), max_per_pattern=50)
    visited = crawl(frontier, links_of)
    assert len(visited) == 2 + 50 + 50
    assert frontier.trapped == {"https://x.org/calendar/0/0/": 1, "https://x.org/calendar/0/0/?view": 1}


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("2024/05", "2025/11"),
        ("2024-05-12", "2024-05-13"),
        ("2024/5/12", "2024/6/1"),
        ("blog/20240512.html", "blog/20240513.html"),
        ("2024/05/12/?view=day", "2024/05/13/?view=week"),
    ],
)
def test_two_dates_are_one_pattern(path, other):
    frontier = frontier_of(source_at("https://x.org/"), max_per_pattern=1)
    (home,) = frontier.take()
    frontier.add_links(home, [f"/{path}", f"/{other}"])
    assert len(frontier.take()) == 1
    assert frontier.trapped.total() == 1


@pytest.mark.parametrize(
    ("path", "other"),
    [
        ("3.11/a", "3.12/a"),
        ("page1001", "page1002"),
        ("2024/a", "2025/a"),
        ("2024/99", "2024/98"),
        ("2024/05/one-post", "2024/06/another-post"),
        ("a?page=1", "b?page=1"),
        ("a?page=1", "a?part=1"),
    ],
)
def test_pages_that_differ_in_more_than_date_or_query_are_no_pattern(path, other):
    frontier = frontier_of(source_at("https://x.org/"), max_per_pattern=1)
    (home,) = frontier.take()
    frontier.add_links(home, [f"/{path}", f"/{other}"])
    assert len(frontier.take()) == 2
    assert not frontier.trapped


def test_a_site_that_gives_each_visit_a_session_of_its_own_is_seen_once():
    numbers = itertools.count()

    def links_of(url: str) -> list[str]:
        session = next(numbers)
        return [
            f"/a;jsessionid={session}",
            f"/b?PHPSESSID={session}",
            f"/c?page=1&sid={session}",
            f"/?visit={session}",
        ]

    frontier = frontier_of(source_at("https://x.org/", max_depth=9999), max_per_pattern=20)
    visited = crawl(frontier, links_of)
    assert visited[1:4] == ["https://x.org/a", "https://x.org/b", "https://x.org/c?page=1"]
    assert len(visited) == 4 + 20, "an id that no one knows is bounded as any query is"
    assert set(frontier.trapped) == {"https://x.org/?visit"}


def test_links_that_append_themselves_for_ever_end_at_the_third_repetition():
    frontier = frontier_of(source_at("https://x.org/", max_depth=9999))
    visited = crawl(frontier, lambda url: ["guide/intro/", "https://x.org/api"])
    assert visited == [f"https://x.org/{path}" for path in ("", "guide/intro/", "api", "guide/intro/guide/intro/")]
    assert frontier.trapped == {"https://x.org/guide/intro/…": 1}


def test_a_path_that_grows_without_repeating_ends_too():
    frontier = frontier_of(source_at("https://x.org/", max_depth=9999))
    assert len(crawl(frontier, lambda url: [f"{len(url)}/"])) == 32
    frontier = frontier_of(source_at("https://x.org/", max_depth=9999))
    assert max(map(len, crawl(frontier, lambda url: [f"{url}-and-so-on"]))) <= 2000
    assert frontier.trapped.total() == 1


def test_facets_of_a_search_page_are_bounded_for_each_set_of_facets():
    facets = ("color", "size", "sort")

    def links_of(url: str) -> list[str]:
        given = url.partition("?")[2]
        narrower = [f"{facet}={value}" for facet in facets for value in range(9) if facet not in given]
        return [f"?{given}&{facet}" if given else f"?{facet}" for facet in narrower]

    frontier = frontier_of(source_at("https://x.org/shop"), max_per_pattern=10)
    visited = crawl(frontier, links_of)
    assert len(visited) <= 1 + 7 * 10
    assert set(frontier.trapped) >= {"https://x.org/shop?color&size", "https://x.org/shop?color&size&sort"}


def test_ten_thousand_numbered_pages_are_no_trap():
    frontier = frontier_of(source_at("https://x.org/", max_pages=20_000, max_depth=10_000), max_per_pattern=10)
    pages = {f"https://x.org/page{number:04}.html": f"page{number + 1:04}.html" for number in range(9_999)}
    assert len(crawl(frontier, lambda url: [pages.get(url, "page0000.html")])) == 10_001
    assert not frontier.trapped


def test_a_seed_is_visited_whatever_it_looks_like():
    frontier = frontier_of(source_at("https://x.org/a/a/a/2024/05?x=1"), max_per_pattern=1)
    assert len(frontier.take()) == 1


def test_many_denied_pages_are_counted_and_the_first_thousand_named():
    frontier = frontier_of(
        source_at("https://x.org/"), robots=lambda origin: RobotsRules("User-agent: *\nDisallow: /p", "RaydexBot")
    )
    (home,) = frontier.take()
    frontier.add_links(home, [f"/p/{number}" for number in range(1500)])
    assert (frontier.denied_count, len(frontier.denied)) == (1500, 1000)
