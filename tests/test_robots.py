"""robots.txt, read from a real server as RFC 9309 says."""

import pickle

import pytest

from raydex.crawl import RobotsRules
from tests.docsite import DocSite

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
