from collections.abc import Callable
from typing import Any

import pytest

from raydex.crawl import Frontier, RobotsRules, Visit
from raydex.errors import FetchError
from raydex.records import Source

NO_RULES = RobotsRules("", "RaydexBot")


def source_at(url: str, **fields: Any) -> Source:
    return Source(name="docs", seeds=(url,), **fields)


def frontier_of(*sources: Source, robots: Callable[[str], RobotsRules] = lambda origin: NO_RULES) -> Frontier:
    return Frontier(sources, robots)


def urls(level: list[Visit]) -> list[str]:
    return [visit.url for visit in level]


def test_levels_hold_each_address_once_in_the_order_of_discovery():
    frontier = frontier_of(source_at("https://x.org/docs/"))
    (home,) = frontier.take_level()
    frontier.add_links(home, ["b.html#x", "a.html", "b.html", "./", "index.html", "/other/", "mailto:a@x.org"])
    level = frontier.take_level()
    assert urls(level) == ["https://x.org/docs/b.html", "https://x.org/docs/a.html"]
    assert level[0] == Visit(url="https://x.org/docs/b.html", source="docs", depth=1, referrer="https://x.org/docs/")
    frontier.add_links(level[0], ["c.html", "a.html"])
    frontier.add_links(level[1], ["c.html", "d.html"])
    assert urls(frontier.take_level()) == ["https://x.org/docs/c.html", "https://x.org/docs/d.html"]
    assert frontier.take_level() == []


def test_an_address_belongs_to_the_first_source_that_holds_it():
    first = Source(name="first", seeds=("https://x.org/a/",))
    second = Source(name="second", seeds=("https://x.org/",), deny=("https://x.org/private",))
    frontier = frontier_of(first, second)
    level = frontier.take_level()
    frontier.add_links(level[1], ["/a/1", "/b", "/private/1"])
    assert [(v.source, v.url) for v in frontier.take_level()] == [
        ("first", "https://x.org/a/1"),
        ("second", "https://x.org/b"),
    ]


def test_links_beyond_the_depth_and_the_number_of_pages_are_counted_once_each():
    frontier = frontier_of(source_at("https://x.org/", max_depth=1, max_pages=3))
    (home,) = frontier.take_level()
    frontier.add_links(home, ["/a", "/b", "/c", "/c"])
    level = frontier.take_level()
    assert urls(level) == ["https://x.org/a", "https://x.org/b"]
    frontier.add_links(level[0], ["/c", "/d"])
    assert frontier.take_level() == []
    assert frontier.truncated == 2


def test_links_to_pictures_and_archives_are_counted_and_not_visited():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take_level()
    frontier.add_links(home, ["/a.PNG", "/b.tar.gz", "/b.tar.gz#x", "/c.zip?v=1", "/numpy.array", "/3.12"])
    assert urls(frontier.take_level()) == ["https://x.org/numpy.array", "https://x.org/3.12"]
    assert frontier.binary == 3


def test_robots_rules_are_asked_for_each_host_and_what_they_deny_is_named_once():
    asked = []

    def robots(origin: str) -> RobotsRules:
        asked.append(origin)
        return RobotsRules("User-agent: *\nDisallow: /private\n", "RaydexBot/0.1")

    frontier = frontier_of(source_at("https://x.org:8443/"), robots=robots)
    (home,) = frontier.take_level()
    frontier.add_links(home, ["/private/a", "/private/a", "/b"])
    assert urls(frontier.take_level()) == ["https://x.org:8443/b"]
    assert frontier.denied == ["https://x.org:8443/private/a"]
    assert set(asked) == {"https://x.org:8443"}


def test_a_redirect_is_visited_at_the_depth_of_the_page_that_it_stands_for():
    frontier = frontier_of(source_at("https://x.org/", max_pages=1, max_depth=0))
    (home,) = frontier.take_level()
    frontier.add_redirect(home, "/en/")
    assert frontier.take_level() == [Visit(url="https://x.org/en/", source="docs", depth=0, chain=("https://x.org/",))]


def test_a_redirect_to_a_known_page_adds_nothing():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take_level()
    frontier.add_links(home, ["/a", "/b"])
    a, _ = frontier.take_level()
    frontier.add_redirect(a, "/b")
    assert frontier.take_level() == []


def test_a_redirect_that_robots_txt_denies_is_not_visited():
    frontier = frontier_of(
        source_at("https://x.org/"), robots=lambda origin: RobotsRules("User-agent: *\nDisallow: /p", "RaydexBot")
    )
    (home,) = frontier.take_level()
    frontier.add_redirect(home, "/p")
    assert frontier.take_level() == []
    assert frontier.denied == ["https://x.org/p"]


def test_a_redirect_to_itself_is_a_loop():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take_level()
    with pytest.raises(FetchError, match="redirect_loop"):
        frontier.add_redirect(home, "/index.html")


def test_a_circle_of_redirects_is_a_loop_even_when_both_ends_were_linked():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take_level()
    frontier.add_links(home, ["/a", "/b"])
    a, b = frontier.take_level()
    frontier.add_redirect(a, "/b")
    with pytest.raises(FetchError, match="redirect_loop"):
        frontier.add_redirect(b, "/a")


def test_an_endless_chain_of_redirects_ends_at_the_limit():
    frontier = frontier_of(source_at("https://x.org/"))
    for hop in range(10):
        (visit,) = frontier.take_level()
        frontier.add_redirect(visit, f"/{hop}")
    (visit,) = frontier.take_level()
    with pytest.raises(FetchError, match="redirect_limit"):
        frontier.add_redirect(visit, "/one-more")


def test_a_redirect_out_of_scope_is_named_and_for_a_seed_the_way_out_too():
    frontier = frontier_of(source_at("https://x.org/"))
    (home,) = frontier.take_level()
    frontier.add_links(home, ["/a"])
    (linked,) = frontier.take_level()
    with pytest.raises(FetchError, match=r"redirect_outside \(https://www\.x\.org/ .*give that URL as the seed"):
        frontier.add_redirect(home, "https://www.x.org/")
    with pytest.raises(FetchError, match=r"redirect_outside \(https://www\.x\.org/ belongs to no source\)"):
        frontier.add_redirect(linked, "https://www.x.org/")
