"""Are judged queries answered as well as they were? Crawl, build, service and client with the real model."""

import json
from collections import Counter

import pytest

import build_index
import test_client
from bench.retrieval import EXPECTED, Judged, deviations, pin
from raydex.config import ServeConfig
from raydex.evaluate import load_golden
from tests.docsite import DocSite
from tests.serving import serving
from tests.tidewater import QUERIES, manual


@pytest.fixture
def figures(cluster, tmp_path, capsys):
    with DocSite(manual()) as site:
        flags = ["--index", "tidewater", "--data-dir", str(tmp_path), "--model", "all-MiniLM-L6-v2"]
        assert build_index.main([site.url, *flags]) == 0
        with serving(ServeConfig(data_dir=tmp_path)) as url:
            flags = ["--evaluate", str(QUERIES), "--base", site.url, "--url", url, "--wait", "60"]
            assert test_client.main(flags) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_queries_on_the_manual_are_answered_as_well_as_what_is_pinned(figures):
    assert deviations("tidewater", figures) == []


def test_every_answer_of_the_queries_is_an_anchor_of_the_manual():
    site = manual()
    golden = load_golden(str(QUERIES), "", base="https://tidewater.example.org/")
    assert golden
    assert len(golden.queries) == 64
    assert Counter(golden.kinds.values()).keys() == {"question", "keywords", "symbol", "flag", "error_code"}
    for answers in golden.qrels.values():
        for answer in answers:
            page, _, anchor = answer.removeprefix("https://tidewater.example.org/").partition("#")
            assert f'id="{anchor}"' in site[page or "index.html"], answer


def figures_of(mean):
    return {"all": {metric: {"mean": mean} for metric in ("page-hit@1", "section-hit@1")}}


@pytest.fixture
def pinned(tmp_path, monkeypatch):
    path = tmp_path / "expected.toml"
    path.write_text('[a]\ncommit = "c0ffee"\ntolerance = 0.02\n[a.means]\n"page-hit@1" = 0.5\n"section-hit@1" = 0.5\n')
    monkeypatch.setattr("bench.retrieval.EXPECTED", path)
    return path


def test_figure_further_from_what_is_pinned_than_the_tolerance_is_named_on_either_side(pinned):
    assert deviations("a", figures_of(0.515)) == []
    for mean in (0.47, 0.53):
        assert deviations("a", figures_of(mean)) == [
            f"a: {metric} is {mean:.3f}, pinned is 0.500 ± 0.02 (at c0ffee)"
            for metric in ("page-hit@1", "section-hit@1")
        ]
    assert "nothing is pinned" in deviations("b", figures_of(0.5))[0]


def test_pinning_keeps_what_was_not_measured(pinned):
    measured = json.loads((EXPECTED.parent / "results" / "retrieval.json").read_text())["sets"]["tidewater"]
    pin({"b": measured})
    assert deviations("a", figures_of(0.5)) == []
    assert deviations("b", measured["figures"]) == []


def test_pages_that_the_questions_came_from_are_left_out(tmp_path, monkeypatch):
    docs = tmp_path / "docs"
    for name in ("index.html", "faq/general.html", "library/io.html"):
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text("<h1>x</h1>")
    monkeypatch.setattr("bench.retrieval.PYTHON_DOC", docs)
    (tmp_path / "meta.json").write_text('{"remove": ["^faq/"]}')
    Judged(name="x", queries=tmp_path / "queries.jsonl", base="https://x.example.org/").write_site(tmp_path / "site")
    written = {path.name for path in (tmp_path / "site").rglob("*.html")}
    assert written == {"index.html", "io.html"}
