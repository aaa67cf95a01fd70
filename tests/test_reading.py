"""Fetched pages become rows of a unit; what went wrong keeps its last good copy. No Ray, no network."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raydex.build import reading
from raydex.build.items import drop_duplicates
from raydex.build.reading import links_of, read_unit
from raydex.build.units import BuildContext, CrawlReceipt, Fetched, FetchUnit, PageOutcome
from raydex.checkpoint import PageStore
from raydex.config import BuildConfig, CrawlConfig
from raydex.crawl import Visit
from raydex.embed import HashEmbedder, load_tokenizer
from raydex.parse import parse_page
from raydex.records import Page, Source, stable_id

SITE = "https://docs.example.org/"
PROSE = " ".join(f"word{number} explains the storage of the platform" for number in range(40))
GOOD = f"<main><h1 id=top>Storage</h1><p>{PROSE}</p><a href=more.html>more</a><a href=/x.html#a>x</a></main>"
NOT_FOUND = "<title>Page not found</title><main><h1>404</h1><p>Sorry, this page does not exist.</p></main>"


class Reader:
    """Reads single pages as a build does: one call, one build."""

    def __init__(self, index_dir: Path, **crawl: object) -> None:
        self.index_dir, self.crawl = index_dir, CrawlConfig.model_validate(crawl)
        self.store = PageStore(index_dir / "pages")
        self._tokenizer = load_tokenizer("hash")

    def context(self, build_id: str) -> BuildContext:
        return BuildContext(
            index_dir=self.index_dir,
            build_id=build_id,
            config=BuildConfig(crawl=self.crawl),
            sources=(Source(name="docs", seeds=(SITE,)),),
            embedder=HashEmbedder().info,
        )

    def read(self, build_id: str, *fetched: Fetched) -> CrawlReceipt:
        unit = FetchUnit(unit_id="unit", host=SITE, visits=tuple(f.visit for f in fetched))
        return read_unit(self.context(build_id), unit, fetched, self._tokenizer)

    def one(self, build_id: str, fetched: Fetched) -> PageOutcome:
        (outcome,) = self.read(build_id, fetched).outcomes
        return outcome

    def rows(self, build_id: str, role: str) -> list[dict[str, object]]:
        return pq.read_table(self.context(build_id).units_dir / f"unit.{role}.parquet").to_pylist()  # type: ignore[no-any-return]


@pytest.fixture
def reader(tmp_path) -> Reader:
    return Reader(tmp_path / "docs")


def visit(path: str = "a.html") -> Visit:
    return Visit(url=SITE + path, source="docs", depth=1, referrer=SITE)


def got(html: str, path: str = "a.html") -> Fetched:
    body = html.encode()
    url = SITE + path
    page = Page(
        page_id=stable_id(url),
        url=url,
        crawl_url=url,
        source="docs",
        fetched_at=datetime(2026, 1, 2, tzinfo=UTC),
        status=200,
        content_type="text/html",
        body=body,
        body_sha256=hashlib.sha256(body).hexdigest(),
    )
    return Fetched(visit=visit(path), page=page, origin="network")


def failed(reason: str, path: str = "a.html") -> Fetched:
    return Fetched(visit=visit(path), reason=reason)


def unchanged(path: str = "a.html") -> Fetched:
    return Fetched(visit=visit(path), origin="unchanged")


def test_page_becomes_rows_and_its_links_stay_on_disk(reader):
    outcome = reader.one("b1", got(GOOD))
    assert (outcome.outcome, outcome.origin, outcome.sections) == ("fetched", "network", 1)
    assert outcome.chunks == len(reader.rows("b1", "chunks")) > 0
    (page,) = reader.rows("b1", "pages")
    assert (page["url"], page["title"], page["stale_builds"]) == (SITE + "a.html", "Storage", 0)
    assert links_of(reader.context("b1"), "unit") == {SITE + "a.html": [SITE + "more.html", SITE + "x.html"]}


def test_unchanged_page_is_neither_parsed_nor_chunked_again(reader, monkeypatch):
    reader.one("b1", got(GOOD))
    chunks = reader.rows("b1", "chunks")
    monkeypatch.setattr(reading, "parse_page", _never)
    monkeypatch.setattr(reading, "cut", _never)
    outcome = reader.one("b2", unchanged())
    assert (outcome.outcome, outcome.origin) == ("fetched", "unchanged")
    assert reader.rows("b2", "chunks") == chunks
    assert links_of(reader.context("b2"), "unit")[SITE + "a.html"]


def test_changed_page_is_parsed_once_and_not_again_when_it_stays(reader, monkeypatch):
    parsed: list[bytes] = []

    def noted(page: Page) -> object:
        parsed.append(page.body)
        return parse_page(page)

    changed = GOOD.replace("word1 ", "another ")
    reader.one("b1", got(GOOD))
    monkeypatch.setattr(reading, "parse_page", noted)
    reader.one("b2", got(changed))
    reader.one("b3", unchanged())
    assert parsed == [changed.encode()]


def test_page_of_the_same_bytes_is_not_parsed_again(reader, monkeypatch):
    reader.one("b1", got(GOOD))
    monkeypatch.setattr(reading, "parse_page", _never)
    assert reader.one("b2", got(GOOD)).outcome == "fetched"


def test_other_code_or_settings_read_the_stored_body_again(reader, monkeypatch):
    reader.one("b1", got(GOOD))
    parsed: list[Page] = []

    def noted(page: Page) -> object:
        parsed.append(page)
        return parse_page(page)

    monkeypatch.setattr(reading, "parse_page", noted)
    monkeypatch.setattr(reading, "code_digest", lambda: "another")
    assert reader.one("b2", unchanged()).outcome == "fetched"
    assert [page.body for page in parsed] == [GOOD.encode()]


def test_damaged_stored_copy_is_removed_and_asked_for_again(reader, monkeypatch):
    reader.one("b1", got(GOOD))
    for file in (reader.index_dir / "pages").rglob("*.*"):
        file.write_bytes(file.read_bytes()[:-9])
    outcome = reader.one("b2", unchanged())
    assert (outcome.outcome, outcome.reason) == ("again", "store_damaged")
    assert reader.store.head(stable_id(SITE + "a.html")) is None


@pytest.mark.parametrize(
    "bad",
    [
        failed("http_503"),
        failed("timeout"),
        failed("worker_died"),
        got(NOT_FOUND),
        got("<main><h1>Storage</h1></main>"),
    ],
    ids=["http_503", "timeout", "worker_died", "soft_404", "collapse"],
)
def test_page_that_fails_keeps_its_last_good_copy_for_the_stated_number_of_builds(tmp_path, bad):
    reader = Reader(tmp_path / "docs", stale_builds=2)
    reader.one("b1", got(GOOD))
    chunks = reader.rows("b1", "chunks")
    for number, build_id in enumerate(("b2", "b3"), start=1):
        outcome = reader.one(build_id, bad)
        assert (outcome.outcome, outcome.stale_builds) == ("stale", number)
        assert outcome.reason
        assert reader.rows(build_id, "chunks") == chunks
        assert reader.rows(build_id, "pages")[0]["stale_builds"] == number
        assert links_of(reader.context(build_id), "unit")[SITE + "a.html"]
    assert reader.one("b4", bad).outcome != "stale"


def test_stale_page_that_is_read_twice_in_one_build_counts_once(reader):
    reader.one("b1", got(GOOD))
    assert reader.one("b2", failed("http_500")).stale_builds == 1
    assert reader.one("b2", failed("http_500")).stale_builds == 1


def test_page_that_comes_back_is_current_again(reader):
    reader.one("b1", got(GOOD))
    reader.one("b2", failed("http_500"))
    assert reader.one("b3", got(GOOD)).outcome == "fetched"
    assert reader.rows("b3", "pages")[0]["stale_builds"] == 0
    assert reader.one("b4", failed("http_500")).stale_builds == 1


@pytest.mark.parametrize("reason", ["http_404", "http_410"])
def test_page_that_is_gone_leaves_at_once_and_so_does_its_stored_copy(reader, reason):
    reader.one("b1", got(GOOD))
    outcome = reader.one("b2", failed(reason))
    assert (outcome.outcome, outcome.reason) == ("missing", reason)
    assert reader.rows("b2", "chunks") == []
    assert list(reader.store.heads()) == []


def test_page_that_was_never_good_has_no_copy_to_keep(reader):
    assert reader.one("b1", failed("http_500")).outcome == "failed"
    assert reader.one("b1", got(NOT_FOUND)).outcome == "missing"


def test_shorter_page_is_no_collapse_while_a_fifth_is_left(reader):
    reader.one("b1", got(GOOD))
    half = GOOD.replace(PROSE, PROSE[: len(PROSE) // 2])
    assert reader.one("b2", got(half)).outcome == "fetched"


def test_page_that_asks_not_to_be_indexed_leaves_at_once(reader):
    reader.one("b1", got(GOOD))
    outcome = reader.one("b2", got(f'<meta name="robots" content="noindex">{GOOD}'))
    assert (outcome.outcome, outcome.reason) == ("skipped", "noindex")


def test_one_bad_page_is_named_and_the_others_of_its_unit_go_on(reader, monkeypatch):
    def sometimes(page: Page) -> object:
        if page.url.endswith("bad.html"):
            raise RuntimeError("a bug in the parser")
        return parse_page(page)

    monkeypatch.setattr(reading, "parse_page", sometimes)
    outcomes = reader.read("b1", got(GOOD, "bad.html"), got(GOOD, "good.html")).outcomes
    assert [(o.outcome, o.reason) for o in outcomes] == [("failed", "RuntimeError"), ("fetched", "")]


def test_page_that_takes_too_long_to_read_is_given_up(tmp_path, monkeypatch):
    def endless(page: Page) -> object:
        while True:
            str(page)

    monkeypatch.setattr(reading, "parse_page", endless)
    outcome = Reader(tmp_path / "docs", parse_deadline_s=0.05).one("b1", got(GOOD))
    assert (outcome.outcome, outcome.reason) == ("failed", "deadline")


def test_page_that_needs_javascript_is_named_and_with_render_asked_for_again(tmp_path):
    shell = '<body><div id="root"></div><noscript>Enable JavaScript.</noscript><script src="app.js"></script></body>'
    outcome = Reader(tmp_path / "a").one("b1", got(shell))
    assert (outcome.outcome, outcome.reason) == ("skipped", "needs_javascript")
    outcome = Reader(tmp_path / "b", render=True).one("b1", got(shell))
    assert (outcome.outcome, outcome.reason) == ("again", "needs_javascript")


def test_print_view_is_dropped_for_the_page_it_prints(reader):
    printed = f'<link rel=canonical href="{SITE}a.html">{GOOD}'
    receipt = reader.read("b1", got(GOOD), got(printed, "print/a.html"))
    assert [outcome.outcome for outcome in receipt.outcomes] == ["fetched", "fetched"]
    found = drop_duplicates(reader.context("b1"), ["unit"])
    assert (found.pages, found.sections) == (1, 0)
    (row,) = pq.read_table(reader.context("b1").build_dir / "dropped.parquet").to_pylist()
    assert row == {
        "id": stable_id(f"{SITE}print/a.html"),
        "url": f"{SITE}print/a.html",
        "kept_page_id": stable_id(f"{SITE}a.html"),
    }


def test_licence_on_two_pages_is_kept_once(reader):
    licence = f"<h2 id=licence>Licence</h2><p>{PROSE.replace('storage', 'licence')}</p>"
    pages = [
        got(f"<main><h1 id=top>Page {n}</h1><p>{PROSE.replace('word', f'own{n}x')}</p>{licence}</main>", f"{n}.html")
        for n in range(3)
    ]
    reader.read("b1", *pages)
    found = drop_duplicates(reader.context("b1"), ["unit"])
    assert (found.pages, found.sections) == (0, 2)


def _never(*arguments: object) -> Callable[..., object]:
    raise AssertionError("a page that did not change was read again")


def test_loader_title_and_robots_header_decide_what_is_read(reader, monkeypatch):
    fetched = got(GOOD)
    assert fetched.page
    reader.one("b1", fetched)
    barred = replace(fetched, page=replace(fetched.page, robots="noindex"))
    assert reader.one("b2", barred).reason == "noindex"
