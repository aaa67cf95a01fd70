"""The gate, end to end: what a build of a broken site publishes (nothing) and says, and what passes."""

import json

import pytest

from raydex.build import program
from raydex.snapshot import current_id, list_snapshots, read_manifest, write_manifest
from tests.docsite import DocSite, handbook, handbook_paths, own_words, question

PAGES = 200
BROKEN = range(4, PAGES, 12)
"""Numbers of 17 API pages, 8 % of all; nothing is found through them alone, so all pages are there all the same."""

LENIENT = ("--max-failed-share", "1", "--stale-builds", "0")
"""Nothing that looks at single pages stands in the way: layout collapse is taken as it comes."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.usefixtures("cluster")]


@pytest.fixture
def site():
    with DocSite(handbook(PAGES)) as site:
        yield site


def gates(build):
    """Return what the list says of the gate of each snapshot, newest first."""
    assert build("--list", "--json")[0] == 0
    return [json.loads(line)["gate"] for line in build.stdout.splitlines()]


def without_content(site, path):
    """Replace what is in <main> by what a broken template says; the heading of the page stays."""
    html = site.route(path).body.decode()
    head, _, rest = html.partition("</h1>")
    notice = (
        "Welcome to the new portal of Acme. Please sign in with your company account to read on. If you have no "
        "account yet, ask the administrator of your team for an invitation, which reaches you within one working day. "
        "By signing in you accept the terms of use and the privacy notice of the portal in their current version."
    )
    site.put(path, f"{head}</h1><p>{notice}</p></main>{rest.partition('</main>')[2]}")


def break_pages(site):
    """Break 8 % of the pages; return their URLs."""
    paths = [handbook_paths(PAGES)[number] for number in BROKEN]
    for path in paths:
        without_content(site, path)
    return {site.url + path for path in paths}


def test_pages_that_turned_into_boilerplate_are_refused_and_named_until_a_person_says_why(build, site):
    arguments = (site.url, *LENIENT, "--duplicate-share", "0")
    _, first = build(*arguments)
    broken = break_pages(site)
    code, _ = build(*arguments)
    assert code == 5
    assert current_id(build.index_dir) == first["snapshot_id"]
    told = build.report()["gate"]
    assert told["checks"]["counts"] == told["checks"]["directories"] == "passed"
    found = {failure["check"]: set(failure["pages"]) for failure in told["failures"]}
    assert found["texts"] == found["near_duplicates"] == broken
    assert found["headings"] <= broken
    assert f"texts: {len(broken)} of {PAGES} pages (8.5%) lost their text" in build.stderr
    assert min(broken) in build.stderr
    assert "near_duplicates: " in build.stderr
    assert "--publish-anyway" in build.stderr
    refused = list_snapshots(build.index_dir)[0]
    assert refused.snapshot_id == told["snapshot_id"] != first["snapshot_id"]
    assert gates(build) == ["refused: texts, headings, near_duplicates", "passed"]

    code, line = build(*arguments, "--publish-anyway", "the portal is meant to be like this")
    assert code == 0
    assert line["failed_checks"] == ["texts", "headings", "near_duplicates"]
    live = read_manifest(build.index_dir, current_id(build.index_dir))
    assert live.snapshot_id == line["snapshot_id"]
    assert live.published_anyway is not None
    assert live.published_anyway.reason == "the portal is meant to be like this"
    assert live.published_anyway.checks == ("texts", "headings", "near_duplicates")
    assert live.gate["texts"].startswith("texts: 17 of 200 pages")
    assert gates(build)[0].endswith("(texts, headings, near_duplicates): the portal is meant to be like this")

    code, line = build(*arguments)  # what was accepted is what the next one is compared with
    assert (code, line["failed_checks"]) == (0, [])


def test_pages_left_out_as_copies_of_one_boilerplate_page_are_refused_and_named(build, site):
    _, first = build(site.url, *LENIENT)
    paths = [handbook_paths(PAGES)[number] for number in BROKEN]
    for path in paths:
        site.put(path, site.route(paths[0]).body)
        without_content(site, path)
    code, _ = build(site.url, *LENIENT)
    assert code == 5
    assert current_id(build.index_dir) == first["snapshot_id"]
    (failure,) = [found for found in build.report()["gate"]["failures"] if found["check"] == "texts"]
    assert set(failure["pages"]) == {site.url + path for path in paths}


def test_first_build_growth_and_honest_edits_of_many_pages_pass(build, site):
    site.put("index.html", handbook(PAGES // 2)["index.html"])
    site.put("guide/index.html", handbook(PAGES // 2)["guide/index.html"])
    code, first = build(site.url, *LENIENT)
    assert (code, first["failed_checks"]) == (0, [])
    assert first["pages"] < PAGES
    site.put("guide/index.html", handbook(PAGES)["guide/index.html"])
    code, grown = build(site.url, *LENIENT)
    assert (code, grown["pages"]) == (0, PAGES)
    paths, others = handbook_paths(PAGES), handbook(PAGES * 3)
    for number in BROKEN:
        site.put(paths[number], others[handbook_paths(PAGES * 3)[number + PAGES * 2]])
    code, edited = build(site.url, *LENIENT)
    assert (code, edited["failed_checks"]) == (0, [])
    assert edited["changed_pages"] == len(BROKEN)
    assert build.report()["gate"]["metrics"]["collapsed_share"] == 0


def test_directory_that_is_gone_is_refused_and_named_while_the_whole_passes(build, site):
    for number in range(40):
        text = f"The {' '.join(own_words(number + 300))} is told here, with all that came of it, day by day."
        site.put(f"news/{number}.html", f"<main><h1 id=a>News {number}</h1><p>{text}</p></main>")
    links = "".join(
        f'<a href="/news/{number}.html">the news of day {number}, in full length</a> ' for number in range(40)
    )
    site.put(
        "news.html",
        f"<main><h1>All the news</h1><p>What happened, day by day, in the order of time. {links}</p></main>",
    )
    _, first = build(site.url, site.url + "news.html")
    assert first["pages"] == PAGES + 40
    for number in range(10, 40):
        site.remove(f"news/{number}.html")
    assert build(site.url, site.url + "news.html")[0] == 5
    told = build.report()["gate"]
    assert told["checks"]["counts"] == "passed"
    (failure,) = told["failures"]
    assert (failure["check"], failure["page_count"]) == ("directories", 30)
    assert failure["message"].startswith(f"{site.url}news/ lost 30 of 40 pages")
    assert f"{site.url}news/10.html" in build.stderr


@pytest.fixture
def golden_sources(site, tmp_path):
    """A sources file that names golden queries beside it: one for each tenth page, answered by its reference."""
    numbers = range(4, PAGES, 10)
    pages = {number: site.url + handbook_paths(PAGES)[number] for number in numbers}
    (tmp_path / "golden.tsv").write_text("".join(f"q{number}\t{question(number)}\n" for number in numbers))
    (tmp_path / "golden.qrels").write_text("".join(f"q{number} 0 {pages[number]} 1\n" for number in numbers))
    sources = tmp_path / "sources.toml"
    sources.write_text(
        f'[build.gate]\ngolden_queries = "golden.tsv"\ngolden_qrels = "golden.qrels"\n'
        f'[[source]]\nname = "handbook"\nseeds = ["{site.url}"]\n'
    )
    return str(sources)


def test_golden_queries_that_fare_worse_are_refused_and_named_with_their_ranks(build, site, golden_sources):
    code, first = build("--sources", golden_sources)
    assert code == 0
    manifest = read_manifest(build.index_dir, first["snapshot_id"])
    assert manifest.gate_metrics["golden_recall@10"] == 1.0
    assert manifest.gate_metrics["golden_ndcg@10"] > 0.9
    lost = [handbook_paths(PAGES)[number] for number in (14, 54)]
    for path, number in zip(lost, (14, 54), strict=True):
        others = site.route(handbook_paths(PAGES)[number + 1]).body.decode()
        site.put(path, others.replace("umet", "opel").replace("idel", "agol"))
    code, _ = build("--sources", golden_sources)
    assert code == 5
    assert current_id(build.index_dir) == first["snapshot_id"]
    (failure,) = build.report()["gate"]["failures"]
    assert failure["check"] == "golden"
    worse = {query["query_id"]: query for query in failure["queries"]}
    assert set(worse) == {"q14", "q54"}
    assert worse["q14"]["text"] == question(14)
    assert 1 <= worse["q14"]["rank_before"] < (worse["q14"]["rank"] or 11)
    assert "q14 'How does" in build.stderr
    assert build("--sources", golden_sources, "--max-golden-loss", "0.2")[0] == 0


def test_golden_files_with_a_mistake_end_with_2_before_anything_is_fetched(build, site, golden_sources, tmp_path):
    (tmp_path / "golden.qrels").write_text("q4 0 nowhere\n")
    assert build("--sources", golden_sources)[0] == 2
    assert f"{tmp_path}/golden.qrels, line 1" in build.stderr
    assert site.requests == []


def test_publishing_anyway_needs_a_reason(build, site):
    assert build(site.url, "--publish-anyway", "  ")[0] == 2
    assert "say why" in build.stderr


def test_damaged_files_are_never_published_whatever_the_reason(build, site, monkeypatch):
    def write_and_damage(index_dir, manifest):
        write_manifest(index_dir, manifest)
        path = index_dir / "objects" / manifest.shards[0].objects["chunks"].sha256
        path.write_bytes(path.read_bytes()[:-1] + b"x")

    monkeypatch.setattr(program, "write_manifest", write_and_damage)
    code, _ = build(site.url, "--max-pages", "5", "--publish-anyway", "because")
    assert code == 5
    assert "checksums: " in build.stderr
    assert "--publish-anyway" not in build.stderr
    assert current_id(build.index_dir) == ""
