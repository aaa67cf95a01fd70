"""Figures of a run against values worked out by hand; intervals and tests on differences; run files; tables."""

import math
from dataclasses import replace

import numpy as np
import pytest

from raydex.errors import ConfigError
from raydex.evaluate import METRICS, Golden, compare, load_golden, metrics_of, read_run, report, write_run
from raydex.evaluate.resampling import interval, paired

BASE = "https://docs.example.org/"
A, B, C, D = f"{BASE}a.html#x", f"{BASE}a.html#y", f"{BASE}b.html#x", f"{BASE}c.html#x"


def golden(**qrels):
    return Golden(queries=dict.fromkeys(qrels, "how?"), qrels=qrels)


def values(golden, **run):
    return metrics_of(golden, run)


def test_every_figure_is_that_worked_out_by_hand():
    returned = [f"{BASE}other.html#{n}" for n in range(5)] + [C, A]
    assert values(golden(q={C: 1}), q=returned)["q"] == pytest.approx({
        "page-hit@1": 0,
        "page-hit@5": 0,  # five places, all taken by one page
        "page-hit@10": 1,
        "pages-hit@5": 1,
        "page-MRR@10": 1 / 2,
        "page-nDCG@10": 1 / math.log2(3),
        "section-hit@1": 0,
        "section-hit@5": 0,
        "section-hit@10": 1,
        "section-recall@10": 1,
        "section-MRR@10": 1 / 6,
        "section-nDCG@10": 1 / math.log2(7),
    })  # fmt: skip


def test_right_page_with_a_wrong_section_counts_for_pages_alone():
    of = values(golden(q={A: 1}), q=[B])["q"]
    assert all(of[metric] == 1 for metric in METRICS if metric.startswith("page"))
    assert all(of[metric] == 0 for metric in METRICS if metric.startswith("section"))


def test_page_is_as_relevant_as_its_best_answer():
    of = values(golden(q={B: 3, A: 1, C: 2}), q=[C, A])["q"]
    assert of["page-nDCG@10"] == pytest.approx((2 + 3 / math.log2(3)) / (3 + 2 / math.log2(3)))


def test_rank_11_is_out_of_reach_of_figures_at_10():
    returned = [f"{BASE}{n}.html#x" for n in range(10)] + [A]
    assert not any(values(golden(q={A: 1}), q=returned)["q"].values())


def test_query_whose_answers_are_whole_pages_has_no_section_figures():
    of = values(golden(q={f"{BASE}a.html": 1}), q=[A])["q"]
    assert of["page-hit@1"] == 1
    assert not [metric for metric in of if metric.startswith("section")]


def test_page_judged_beside_an_anchor_counts_for_any_of_its_sections():
    assert values(golden(q={A: 1, f"{BASE}b.html": 1}), q=[C])["q"]["section-hit@1"] == 1


def test_judgement_of_0_is_no_answer():
    of = values(golden(q={A: 1, C: 0}), q=[C])["q"]
    assert (of["page-hit@1"], of["section-hit@1"]) == (0, 0)
    assert "section-hit@1" not in values(golden(q={f"{BASE}a.html": 1, C: 0}), q=[C])["q"]


def test_judgement_below_0_takes_a_place_and_costs_nothing_else():
    of = values(golden(q={A: 1, C: -1}), q=[C, A])["q"]
    assert of["page-nDCG@10"] == of["section-nDCG@10"] == pytest.approx(1 / math.log2(3))


def test_another_address_of_an_answer_counts_as_it_and_once():
    judged = replace(golden(q={A: 1, D: 1}), aliases={"q": {B: (A,)}})
    of = values(judged, q=[B, A, D])["q"]
    assert (of["section-hit@1"], of["section-recall@10"], of["section-nDCG@10"]) == (1, 1, 1)


def test_address_of_several_answers_counts_for_one_however_often_it_is_returned():
    judged = replace(golden(q={A: 1, B: 1}), aliases={"q": {f"{BASE}a.html#both": (A, B)}})
    assert values(judged, q=[f"{BASE}a.html#both"] * 2)["q"]["section-recall@10"] == 0.5
    assert values(judged, q=[f"{BASE}a.html#both", A])["q"]["section-recall@10"] == 0.5
    assert values(judged, q=[A, f"{BASE}a.html#both"])["q"]["section-recall@10"] == 1


def test_interval_holds_the_mean_and_narrows_with_more_queries():
    few, many = interval([0, 1] * 10), interval([0, 1] * 1000)
    assert few.low < few.mean == 0.5 < few.high
    assert many.high - many.low < (few.high - few.low) / 5


def test_seed_is_fixed():
    sample = list(np.linspace(0, 1, 50) ** 2)
    assert interval(sample) == interval(sample)
    assert paired(sample, sample[::-1]) == paired(sample, sample[::-1])


def test_interval_is_about_that_of_the_normal_distribution_where_queries_are_many():
    found = interval([0, 1] * 1000)
    half = 1.96 * 0.5 / math.sqrt(2000)
    assert [found.low, found.high] == pytest.approx([0.5 - half, 0.5 + half], abs=0.002)


def test_interval_of_one_query_is_its_value():
    found = interval([0.25])
    assert (found.mean, found.low, found.high, found.count) == (0.25, 0.25, 0.25, 1)


def test_interval_of_more_queries_than_are_drawn_at_once_is_the_same_kind_of_thing():
    found = interval([0.0, 1.0] * 200_000)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.01


def test_paired_test_finds_what_every_query_shows_and_not_what_a_few_show():
    theirs = list(np.linspace(0, 0.9, 20))
    better = paired([value + 0.1 for value in theirs], theirs)
    assert [better.mean, better.low, better.high] == pytest.approx([0.1] * 3)
    assert better.p < 0.001
    assert paired([1, 0, 0, 0], [0, 0, 0, 0]).p == 1.0  # one query of four may go either way
    assert paired([1, 0], [1, 0]).p == 1.0


def test_paired_p_is_that_of_all_sign_flips():
    """Of the 32 ways to give five differences of 1 their signs, two are as far from 0."""
    assert paired([1] * 5, [0] * 5).p == pytest.approx(2 / 32, abs=0.01)


def test_run_files_give_back_what_was_returned(tmp_path):
    path = str(tmp_path / "a.run")
    write_run(path, {"q1": [(A, 0.5), (C, 0.25)], "q2": [(D, 1.0)]}, "tag")
    assert (tmp_path / "a.run").read_text().splitlines()[0] == f"q1 Q0 {A} 1 0.5 tag"
    assert read_run(path) == {"q1": [A, C], "q2": [D]}


def test_repeated_section_stands_once_in_a_run_file_and_keeps_its_places(tmp_path):
    path = str(tmp_path / "a.run")
    returned = [A, A, C, A, D, A]
    write_run(path, {"q": [(url, 1 / rank) for rank, url in enumerate(returned, start=1)]}, "tag")
    ranks = [line.split()[2:4] for line in (tmp_path / "a.run").read_text().splitlines()]
    assert ranks == [[A, "1"], [C, "3"], [D, "5"]]
    assert read_run(path) == {"q": [A, A, C, C, D]}
    judged = golden(q={C: 2, D: 1})
    assert metrics_of(judged, read_run(path)) == values(judged, q=returned)


def test_anchor_with_a_space_is_one_field_of_a_run_file(tmp_path):
    path, spaced = str(tmp_path / "a.run"), f"{BASE}a.html#two words"
    write_run(path, {"q": [(spaced, 1.0)]}, "tag")
    assert values(golden(q={spaced: 1}), q=read_run(path)["q"])["q"]["section-hit@1"] == 1


def test_runs_of_other_tools_are_read_by_rank_from_0_or_1_in_any_order(tmp_path):
    path = tmp_path / "other.run"
    path.write_text(f"q Q0 {C} 2 3 bm25\nq Q0 {A} 0 7 bm25\n\n")
    assert read_run(str(path)) == {"q": [A, A, C]}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"q Q0 {A} 1 0.5\n", "line 1: found"),
        (f"q Q0 {A} 1 0.5 t\nq Q0 {A} first 0.5 t\n", "line 2: found"),
        (f"q Q0 {A} 1 0.5 t\nq Q0 {C} 1 0.4 t\n", "line 2: query 'q' has rank 1 twice"),
        (f"q Q0 {A} 99999999 0.5 t\n", "a rank up to 10000"),
    ],
)
def test_mistake_in_a_run_file_is_named_with_file_and_line(tmp_path, text, problem):
    path = tmp_path / "bad.run"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"bad\.run") as refused:
        read_run(str(path))
    assert problem in str(refused.value)


def test_run_file_that_cannot_be_read_or_written_is_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_run(str(tmp_path / "none.run"))
    with pytest.raises(ConfigError, match="No such file"):
        write_run(str(tmp_path / "none" / "a.run"), {}, "tag")


def test_jsonl_queries_are_read_with_kinds_aliases_and_relative_addresses(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"id": "q1", "query": "how?", "gold": ["a.html#x", "b.html#x"], "kind": "faq", "source": "us",'
        ' "accept": ["a.html#other"], "accept_section": ["a.html#around", "a.html#x"]}\n'
        '{"id": "q2", "query": "what?", "gold": ["https://else.example.org/index.html"]}\n'
    )
    read = load_golden(str(path), "", base=BASE)
    assert read == Golden(
        queries={"q1": "how?", "q2": "what?"},
        qrels={"q1": {A: 1, C: 1}, "q2": {"https://else.example.org/": 1}},
        aliases={"q1": {f"{BASE}a.html#other": (A,), f"{BASE}a.html#around": (A,)}},
        kinds={"q1": "faq"},
    )
    assert read.digest != replace(read, aliases={}).digest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("not json\n", "line 1: Invalid JSON"),
        ('{"id": "q", "query": "how?"}\n', "line 1: gold: Field required"),
        ('{"id": "q", "query": "how?", "gold": []}\n', "line 1: gold"),
        ('{"id": "q 1", "query": "how?", "gold": ["a.html"]}\n', "line 1: id"),
        ('{"id": "q", "query": " ", "gold": ["a.html"]}\n', "line 1: query"),
        (
            '{"id": "q", "query": "how?", "gold": ["a.html"]}\n',
            "found the relative address 'a.html', expected a whole one, or --base URL (a service: --canary-base)",
        ),
        (f'{{"id": "q", "query": "how?", "gold": ["{A}"]}}\n' * 2, "line 2: query 'q' is there twice"),
        ("\n", "no query"),
    ],
)
def test_mistake_in_jsonl_queries_is_named_with_file_and_line(tmp_path, text, problem):
    path = tmp_path / "q.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"q\.jsonl") as refused:
        load_golden(str(path), "")
    assert problem in str(refused.value)


def test_jsonl_queries_with_qrels_beside_them_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds its own answers"):
        load_golden(str(tmp_path / "q.jsonl"), "q.qrels")


def kinds_golden():
    return replace(golden(p={A: 1}, q={C: 1}, r={D: 1}), kinds={"p": "faq", "q": "faq", "r": "flag"})


def test_report_has_a_column_for_each_kind_and_one_for_all():
    found = report(kinds_golden(), values(kinds_golden(), p=[A], q=[A], r=[A, D]))
    assert found.queries == {"all": 3, "faq": 2, "flag": 1}
    assert [of["page-hit@1"].mean for of in found.figures.values()] == pytest.approx([1 / 3, 0.5, 0])
    head, first, *_ = found.lines()
    assert head.split() == ["all", "(3)", "faq", "(2)", "flag", "(1)"]
    assert first.startswith("page-hit@1")
    assert "0.500 [0.000 1.000]" in first
    assert found.document()["flag"]["page-MRR@10"] == {"mean": 0.5, "low": 0.5, "high": 0.5, "count": 1}


def test_queries_without_kinds_have_one_column():
    assert list(report(golden(q={A: 1}), values(golden(q={A: 1}), q=[A])).figures) == ["all"]


def test_report_leaves_section_figures_out_where_no_answer_has_an_anchor():
    pages = golden(q={f"{BASE}a.html": 1})
    found = report(pages, values(pages, q=[A]))
    assert not [metric for metric in found.figures["all"] if metric.startswith("section")]
    assert found.lines()[-1].split() == ["section-nDCG@10", "–"]


def test_comparison_lists_the_queries_won_and_lost_the_largest_change_first():
    judged = kinds_golden()
    ours, theirs = values(judged, p=[A], q=[C], r=[]), values(judged, p=[C, A], q=[A], r=[D])
    found = compare(judged, ours, theirs)
    assert list(found.won) == ["q", "p"]
    assert found.won["p"] == pytest.approx(1 - 1 / math.log2(3))
    assert found.lost == {"r": -1.0}
    assert found.differences["faq"]["page-hit@1"].mean == 1
    assert found.lines()[-1] == "2 queries won, 1 lost, 0 alike by page-nDCG@10"
    assert found.document()["lost"] == [{"id": "r", "difference": -1.0}]
