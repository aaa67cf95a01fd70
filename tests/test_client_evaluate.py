"""test_client.py --evaluate, against the real app on loopback."""

import json
import socket

import pytest

import test_client
from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from tests.serving import serving
from tests.snapshots import make_snapshot

BASE = "https://docs.example.org/"
TEXTS = {
    f"{BASE}io.html#read": "how do I read a file line by line: open a file and loop.",
    f"{BASE}io.html#write": "write text into a file and flush the buffer.",
    f"{BASE}dates.html#parse": "parse a date from a string with a format.",
}
TOO_LONG = "word " * 1000
QUERIES = {
    "read": {"query": "read a file line by line", "gold": ["io.html#read"], "kind": "question"},
    "parse": {"query": "parse a date from a string", "gold": ["dates.html#parse"], "kind": "question"},
    "wrong": {"query": "write text into a file", "gold": ["dates.html#parse"], "kind": "keywords"},
}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", TEXTS, HashEmbedder())
    with serving(ServeConfig(data_dir=data_dir)) as url:
        yield url


@pytest.fixture
def evaluate(url, tmp_path, capsys):
    def run(*flags, queries=QUERIES, address=url):
        path = tmp_path / "queries.jsonl"
        path.write_text("".join(json.dumps({"id": query, **of}) + "\n" for query, of in queries.items()))
        arguments = ["--evaluate", str(path), "--base", BASE, "--url", address, "--wait", "30", *flags]
        code = test_client.main(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def document_of(shown):
    return json.loads(shown.splitlines()[-1])


def test_evaluation_prints_the_table_and_ends_with_one_json_object(evaluate):
    code, shown, _ = evaluate()
    document = document_of(shown)
    assert code == 0
    assert shown.splitlines()[0].split() == ["all", "(3)", "keywords", "(1)", "question", "(2)"]
    assert (document["queries"], document["answered"], document["failed"]) == (3, 3, {})
    assert list(document["snapshot"]) == ["docs"]
    assert document["figures"]["question"]["section-hit@1"]["mean"] == 1
    assert document["figures"]["keywords"]["section-hit@1"]["mean"] == 0
    assert document["figures"]["keywords"]["section-hit@5"]["mean"] == 1  # more hits were asked for than the first
    assert document["figures"]["all"]["section-hit@1"]["mean"] == pytest.approx(2 / 3, abs=1e-5)


def test_query_that_fails_is_named_and_in_no_figure(evaluate):
    code, shown, talk = evaluate(queries={**QUERIES, "long": {"query": TOO_LONG, "gold": ["io.html#read"]}})
    document = document_of(shown)
    assert code == 1
    assert (document["queries"], document["answered"], list(document["failed"])) == (4, 3, ["long"])
    assert "query long failed, it is in no figure" in talk
    assert document["figures"]["all"]["page-hit@1"]["count"] == 3


def test_when_every_query_fails_there_are_no_figures(evaluate):
    code, shown, talk = evaluate(queries={"long": {"query": TOO_LONG, "gold": ["io.html#read"]}})
    assert (code, shown) == (1, "")
    assert "query long failed" in talk


def test_stored_run_has_the_figures_of_the_answers_it_was_written_from(evaluate, tmp_path, deaf_url):
    path = str(tmp_path / "a.run")
    _, asked, _ = evaluate("--run", path)
    code, stored, _ = evaluate("--from", path, address=deaf_url)
    assert code == 0
    assert document_of(stored)["figures"] == document_of(asked)["figures"]


def test_comparison_with_another_run_names_the_queries_won_and_lost(evaluate, tmp_path):
    other = tmp_path / "other.run"
    other.write_text(f"read Q0 {BASE}dates.html#parse 1 0.9 t\nwrong Q0 {BASE}dates.html#parse 1 0.9 t\n")
    code, shown, talk = evaluate("--compare", str(other))
    comparison = document_of(shown)["comparison"]
    assert code == 0
    assert [query["id"] for query in comparison["won"]] == ["read", "parse"]
    assert [query["id"] for query in comparison["lost"]] == ["wrong"]
    assert set(comparison["differences"]["all"]["page-nDCG@10"]) == {"mean", "low", "high", "p", "count"}
    assert "2 queries won, 1 lost, 0 alike" in shown
    assert "read a file line by line" in shown
    assert "1 queries that the other run lacks" in talk


def test_queries_and_qrels_of_the_gate_are_taken_as_well(url, tmp_path, capsys):
    queries, qrels = tmp_path / "q.tsv", tmp_path / "q.qrels"
    queries.write_text("q1\tread a file line by line\n")
    qrels.write_text(f"q1 0 {BASE}io.html#read 2\n")
    assert test_client.main(["--evaluate", str(queries), "--qrels", str(qrels), "--url", url, "--wait", "30"]) == 0
    assert document_of(capsys.readouterr().out)["figures"]["all"]["section-nDCG@10"]["mean"] == 1


@pytest.fixture
def deaf_url():
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_service_that_cannot_be_reached_is_exit_1_before_any_query(evaluate, deaf_url):
    code, shown, talk = evaluate("--wait", "0", address=deaf_url)
    assert (code, shown) == (1, "")
    assert talk.count("no answer") == 1


def test_file_that_cannot_be_used_is_exit_2(evaluate, url, capsys):
    assert evaluate("--compare", "none.run")[0] == 2
    assert test_client.main(["--evaluate", "none.jsonl", "--url", url]) == 2
    assert "none.jsonl: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--run", "a.run"], "belong to --evaluate"),
        (["--evaluate", "q.jsonl", "how do I?"], "leave out the question"),
        (["--evaluate", "q.jsonl", "-k", "5"], "at least 10 hits"),
        (["--evaluate", "q.jsonl", "--from", "a.run", "--run", "b.run"], "choose"),
    ],
)
def test_flags_that_do_not_go_together_are_exit_2(arguments, problem, capsys):
    with pytest.raises(SystemExit) as caught:
        test_client.main(arguments)
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err
