"""Figures of golden queries, against values worked out by hand and by trec_eval's formulas."""

import math

import pytest

from raydex.errors import ConfigError
from raydex.evaluate import Golden, Judged, evaluate, figures, load_golden, section_key

A, B, C = (f"https://docs.example.org/a.html#{anchor}" for anchor in "xyz")
PAGE = "https://docs.example.org/b.html"


def golden(**qrels):
    return Golden(queries=dict.fromkeys(qrels, "how?"), qrels=qrels)


def test_recall_ndcg_and_rank_are_those_worked_out_by_hand():
    judged = evaluate(golden(q={A: 2, B: 1}), {"q": [C, B, "https://docs.example.org/c.html", A]}, k=10)["q"]
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert judged.recall == 1.0
    assert judged.ndcg == pytest.approx((1 / math.log2(3) + 2 / math.log2(5)) / ideal)
    assert judged.ndcg == pytest.approx(0.5672074169568709)  # trec_eval's ndcg_cut_10
    assert judged.rank == 2


def test_only_the_first_k_sections_count():
    judged = evaluate(golden(q={A: 1, B: 1}), {"q": [A, C, B]}, k=2)["q"]
    assert (judged.recall, judged.rank) == (0.5, 1)
    assert judged.ndcg == pytest.approx(1 / (1 + 1 / math.log2(3))) == pytest.approx(0.6131471927654584)  # trec_eval's


def test_several_chunks_of_a_section_count_once_and_take_one_place():
    assert evaluate(golden(q={A: 1}), {"q": [C, C, C, A]}, k=2)["q"] == Judged(
        recall=1.0, ndcg=1 / math.log2(3), rank=2
    )


def test_judgement_on_a_page_counts_any_of_its_sections_once():
    judged = evaluate(golden(q={PAGE: 1, A: 1}), {"q": [f"{PAGE}#one", f"{PAGE}#two", A]}, k=2)["q"]
    assert judged == Judged(recall=1.0, ndcg=1.0, rank=1)


def test_section_with_a_judgement_of_its_own_does_not_count_as_its_page():
    judged = evaluate(golden(q={PAGE: 1, f"{PAGE}#wrong": 0}), {"q": [f"{PAGE}#wrong"]}, k=10)["q"]
    assert judged == Judged(recall=0.0, ndcg=0.0, rank=0)


def test_query_that_found_nothing_counts_as_nothing_and_figures_are_means():
    judged = evaluate(golden(p={A: 1}, q={B: 1}, r={C: 1}), {"p": [A], "q": [A, C, B]}, k=3)
    means = figures(judged)
    assert means.recall == pytest.approx(2 / 3)
    assert means.ndcg == pytest.approx((1 + 0 + 1 / math.log2(4)) / 3)
    assert means.mrr == pytest.approx((1 + 1 / 3) / 3)


def test_addresses_are_compared_in_their_canonical_spelling():
    assert section_key("HTTPS://Docs.example.org:443/a/index.html#caf%C3%A9") == "https://docs.example.org/a/#café"
    assert section_key("file:///srv/docs/a.html#x") == "file:///srv/docs/a.html#x"


@pytest.fixture
def files(tmp_path):
    def write(queries, qrels):
        (tmp_path / "q.tsv").write_text(queries)
        (tmp_path / "q.qrels").write_text(qrels)
        return str(tmp_path / "q.tsv"), str(tmp_path / "q.qrels")

    return write


def test_golden_files_are_read_with_comments_and_empty_lines(files):
    read = load_golden(*files("# ours\nq1\thow do I copy?\n\n", f"q1 0 {A} 2\nq1 0 {B} 0\n"))
    assert read == Golden(queries={"q1": "how do I copy?"}, qrels={"q1": {A: 2, B: 0}})
    assert load_golden("", "") is None


def test_digest_of_a_golden_set_changes_with_every_query_and_judgement():
    sets = (("a", A, 1), ("b", A, 1), ("a", B, 1), ("a", A, 2), ("a", A, 1))
    assert len({Golden(queries={"q": text}, qrels={"q": {url: grade}}).digest for text, url, grade in sets}) == 4


@pytest.mark.parametrize(
    ("queries", "qrels", "problem"),
    [
        ("q1 no tab\n", f"q1 0 {A} 1\n", "q.tsv, line 1: found 'q1 no tab'"),
        ("q1\ta\nq1\tb\n", f"q1 0 {A} 1\n", "query 'q1' is there twice"),
        ("q1\ta\n", f"q1 {A} 1\n", "q.qrels, line 1: found"),
        ("q1\ta\n", f"\nq1 0 {A} much\n", "q.qrels, line 2: found"),
        ("q1\ta\n", f"q2 0 {A} 1\n", "query 'q2' is not in"),
        ("q1\ta\n", f"q1 0 {A} 0\n", "query 'q1' has no answer"),
        ("# none\n", "", "no query"),
    ],
)
def test_mistake_in_a_golden_file_is_named_with_file_and_line(files, queries, qrels, problem):
    with pytest.raises(ConfigError, match=r"q\.tsv|q\.qrels") as refused:
        load_golden(*files(queries, qrels))
    assert problem in str(refused.value)


def test_golden_queries_without_qrels_or_without_a_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="both files"):
        load_golden("q.tsv", "")
    with pytest.raises(ConfigError, match="No such file"):
        load_golden(str(tmp_path / "q.tsv"), str(tmp_path / "q.qrels"))
