"""Both clients and the command line, against the real app on loopback, and against a server that misbehaves."""

import asyncio
import inspect
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

import test_client
from raydex.client import AsyncRaydexClient, RaydexClient
from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import ConfigError, ServiceError
from tests.serving import serving
from tests.snapshots import make_snapshot

PAGE = "https://docs.example.org/io.html"
HOSTILE = "Markup [bold]stays[/bold] and \x1b[31mcolours\x1b[0m do not: how do I read a file line by line"
TEXTS = {
    f"{PAGE}?v=2#read": "how do I read a file line by line: open a file and loop.",
    f"{PAGE}#exceptions": "what happens when a function raises an exception: it unwinds.",
    f"{PAGE}#start": "how do I get started: install it.",
    f"{PAGE}#hostile": HOSTILE,
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real app with the fake model, served by uvicorn in a thread."""
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", TEXTS, HashEmbedder())
    with serving(ServeConfig(data_dir=data_dir)) as url:
        yield url


class Awaited:
    """An AsyncRaydexClient with an event loop of its own, to be called as the other client is."""

    def __init__(self, url: str, *, wait: Callable[[float], None] | None = None, **settings: Any) -> None:
        async def waited(seconds: float) -> None:
            assert wait
            wait(seconds)

        self._runner = asyncio.Runner()
        self._client = AsyncRaydexClient(url, wait=waited if wait else asyncio.sleep, **settings)

    def __enter__(self) -> "Awaited":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def __getattr__(self, name: str) -> Any:
        return lambda *positional, **named: self._runner.run(getattr(self._client, name)(*positional, **named))


@pytest.fixture(params=[RaydexClient, Awaited], ids=["blocking", "async"])
def kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def client(url: str, kind: Any) -> Iterator[Any]:
    with kind(url) as client:
        client.wait_ready(30)
        yield client


def test_search_returns_typed_results(client):
    answer = client.search("read a file line by line", k=2)
    assert answer.results[0].source == f"{PAGE}?v=2#read"
    assert [result.rank for result in answer.results] == [1, 2]
    assert answer.timings_s["total"] > 0
    assert list(answer.snapshot) == ["docs"]
    assert client.search("read a file line by line", k=1, offset=1, index=["docs"]).results == answer.results[1:]


def test_search_many_keeps_the_order_of_the_queries(client):
    answers = client.search_many(["get started", "raises an exception"], k=1).answers
    assert [answer.query for answer in answers] == ["get started", "raises an exception"]
    assert [answer.results[0].source for answer in answers] == [f"{PAGE}#start", f"{PAGE}#exceptions"]


def test_a_section_is_found_by_the_id_of_a_hit(client):
    section_id = client.search("read a file line by line", k=1).results[0].section_id
    assert client.section(section_id).content == TEXTS[section_id]


def test_a_suggestion_leads_to_a_section_that_is_there(client):
    answer = client.suggest("exce", k=3)
    (found,) = answer.suggestions
    assert (found.text, found.kind, found.index, found.is_corrected) == ("exceptions", "heading", "docs", False)
    section = client.section(found.url)
    assert (section.content, section.snapshot) == (TEXTS[found.url], answer.snapshot)


def test_indexes_and_readiness(client):
    (docs,) = client.indexes()
    assert (docs.name, docs.chunks, docs.ready, docs.stale) == ("docs", len(TEXTS), True, False)
    assert client.ready()


def test_a_refused_request_is_a_service_error_with_the_fields_of_the_body(client):
    with pytest.raises(ServiceError, match="k: is 500, allowed are 1 to 100") as caught:
        client.search("x", k=500)
    error = caught.value
    assert (error.status, error.type) == (422, "query_error")
    assert error.request_id
    assert error.request_id in str(error)


class Script(BaseHTTPRequestHandler):
    """Answers each request with the next (status, headers, body) of the server's script; status 0 hangs up."""

    def do_GET(self) -> None:
        status, headers, body = self.server.script.pop(0)  # type: ignore[attr-defined]
        self.server.seen.append(self.headers)  # type: ignore[attr-defined]
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class's name
        """Keep test output clean."""


class ScriptedServer(HTTPServer):
    """seen: the headers of each request."""

    script: list[tuple[int, dict[str, str], bytes]]
    seen: list[Any]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with ScriptedServer(("127.0.0.1", 0), Script) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


KEY = "rdx_0123456789abcdef"
BROKEN: tuple[int, dict[str, str], bytes] = (0, {}, b"")
EMPTY_ANSWER = json.dumps({"message": "", "snapshot": {}, "results": [], "timings_s": {}}).encode()
NOT_READY = (503, {"Retry-After": "7"}, b'{"error": {"type": "snapshot_not_found", "message": "m", "request_id": "r"}}')


def test_a_503_is_asked_again_no_sooner_than_retry_after(scripted, kind):
    waits: list[float] = []
    scripted.script = [NOT_READY, (429, {"Retry-After": "3"}, b""), (200, {}, EMPTY_ANSWER)]
    with kind(scripted.url, wait=waits.append) as client:
        assert client.search("x").results == ()
    assert [wait >= least for wait, least in zip(waits, (7, 3), strict=True)] == [True, True]


def test_asking_again_ends_after_the_last_attempt(scripted, kind):
    scripted.script = [NOT_READY, NOT_READY]
    with kind(scripted.url, attempts=2, wait=lambda _: None) as client, pytest.raises(ServiceError) as caught:
        client.search("x")
    assert (caught.value.status, caught.value.type, caught.value.request_id) == (503, "snapshot_not_found", "r")
    assert scripted.script == []


@pytest.mark.parametrize(
    ("answer", "status", "error"),
    [
        ((500, {}, b"Internal Server Error"), 500, "unknown"),
        ((502, {}, b'["not ours"]'), 502, "unknown"),
        ((503, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b'{"error": "text"}'), 503, "unknown"),
        ((200, {}, b"<html>"), 200, "unexpected_answer"),
        ((200, {}, b'{"results": []}'), 200, "unexpected_answer"),
    ],
)
def test_an_answer_that_is_not_ours_is_a_service_error(scripted, kind, answer, status, error):
    scripted.script = [answer]
    with kind(scripted.url, attempts=1) as client, pytest.raises(ServiceError) as caught:
        client.search("x")
    assert (caught.value.status, caught.value.type) == (status, error)


@pytest.fixture
def deaf_url() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_no_answer_is_asked_for_again_and_then_a_service_error_with_status_0(deaf_url, kind):
    waits: list[float] = []
    with kind(deaf_url, wait=waits.append) as client:
        with pytest.raises(ServiceError, match="no answer") as caught:
            client.search("x")
        assert not client.ready()
    assert caught.value.status == 0
    assert len(waits) == 3


def test_a_connection_that_breaks_is_made_anew(scripted, kind):
    scripted.script = [BROKEN, (200, {}, EMPTY_ANSWER), BROKEN, (200, {}, b'{"suggestions": []}')]
    with kind(scripted.url, wait=lambda _: None) as client:
        assert client.search("x").results == ()
        assert client.suggest("x").suggestions == ()
    assert scripted.script == []


def test_a_service_that_is_slow_is_not_asked_twice(kind):
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections, and says nothing
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with kind(url, timeout_s=0.05, wait=never) as client, pytest.raises(ServiceError, match="ReadTimeout"):
            client.search("x")


def test_retry_after_may_be_a_date(scripted, kind):
    waits: list[float] = []
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    scripted.script = [(503, {"Retry-After": soon}, b""), (200, {}, EMPTY_ANSWER)]
    with kind(scripted.url, wait=waits.append) as client:
        client.search("x")
    assert 30 < waits[0] <= 40


def test_a_call_that_would_pass_its_deadline_fails_at_once_and_says_when_to_come_back(scripted, kind):
    scripted.script = [(429, {"Retry-After": "3600"}, b"")]
    with kind(scripted.url, deadline_s=60, wait=never) as client, pytest.raises(ServiceError) as caught:
        client.search("x")
    assert (caught.value.status, caught.value.retry_after_s) == (429, 3600)


def never(seconds: float) -> None:
    raise AssertionError(f"waits {seconds} s")


def test_the_key_is_sent_with_every_call(scripted, kind):
    scripted.script = [(200, {}, EMPTY_ANSWER), (200, {}, b"{}"), (200, {}, b'{"suggestions": []}')]
    with kind(scripted.url, api_key=f"{KEY}\n") as client:
        client.search("x")
        client.ready()
        client.suggest("x")
    assert [headers["Authorization"] for headers in scripted.seen] == [f"Bearer {KEY}"] * 3


@pytest.mark.parametrize("key", ["two words", "schlüssel-geheim", "line\nbreak-secret"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(kind, key):
    with pytest.raises(ConfigError) as caught:
        kind("http://127.0.0.1:1", api_key=key)
    assert key.split()[-1] not in f"{caught.value!r}"


@pytest.mark.parametrize("query", ["x" * 70_000, "\ud800"])
def test_what_cannot_be_sent_is_a_service_error_too(scripted, kind, query):
    with kind(scripted.url) as client, pytest.raises(ServiceError) as caught:
        client.search(query)
    assert caught.value.status == 0


def test_options_reach_the_service(client):
    answer = client.search(
        "read a file", k=1, mode="dense", facets=True, explain=True, path=["/io.html"], timeout_ms=5000
    )
    assert (len(answer.results), bool(answer.facets), bool(answer.results[0].explanation)) == (1, True, True)
    with pytest.raises(ServiceError, match="timeout_ms"):
        client.search("read a file", timeout_ms=10**9)


def test_both_clients_have_the_same_methods():
    methods = [
        {
            name: inspect.signature(function).parameters
            for name, function in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }
        for kind in (RaydexClient, AsyncRaydexClient)
    ]
    assert methods[0] == methods[1]


def test_wait_ready_polls_until_the_service_is_ready(scripted, kind):
    waits: list[float] = []
    scripted.script = [NOT_READY, NOT_READY, (200, {}, b"{}")]
    with kind(scripted.url, wait=waits.append) as client:
        client.wait_ready(60)
    assert len(waits) == 2


def test_wait_ready_raises_the_last_reason_when_time_is_up(scripted, kind):
    scripted.script = [NOT_READY]
    with kind(scripted.url) as client, pytest.raises(ServiceError) as caught:
        client.wait_ready(0)
    assert caught.value.status == 503


def run(*arguments: str, url: str) -> int:
    return test_client.main([*arguments, "--url", url, "--wait", "30"])


def test_command_line_shows_hits_as_plain_text(url, capsys):
    assert run("read a file line by line", "-k", "4", url=url) == 0
    shown = capsys.readouterr().out
    assert f"{PAGE}?v=2#read" in shown
    assert "io.html › exceptions" in shown
    assert "[bold]stays[/bold]" in shown
    assert "\x1b" not in shown


def test_command_line_gives_the_raw_response_with_json(url, capsys):
    assert run("read a file", "--json", "-k", "1", url=url) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "ok"
    assert len(answer["results"]) == 1


def test_command_line_without_a_question_is_a_smoke_test(url, capsys):
    assert run(url=url) == 0
    assert "3 of 3 sample questions passed" in capsys.readouterr().out


def scripted_answer(*results: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    blank = {"content": "", "title": "", "headings": [], "index": "docs", "section_id": "", "chunk_id": ""}
    document = {**json.loads(EMPTY_ANSWER), "results": [{**blank, **result} for result in results]}
    return 200, {}, json.dumps(document).encode()


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (scripted_answer(), "no results"),
        (
            scripted_answer(
                {"rank": 1, "score": 0.1, "source": "https://a/"}, {"rank": 2, "score": 0.2, "source": "https://a/"}
            ),
            "not descending",
        ),
        (scripted_answer({"rank": 1, "score": 0.1, "source": "page.html"}), "not a URL: page.html"),
    ],
)
def test_smoke_test_fails_on_wrong_answers(scripted, capsys, answer, problem):
    scripted.script = [answer] * 3
    assert test_client.main(["--url", scripted.url]) == 1
    shown = capsys.readouterr().out
    assert problem in shown
    assert "0 of 3 sample questions passed" in shown


def test_load_check_counts_every_request(url, capsys):
    assert run("--load", "20", "--concurrency", "4", url=url) == 0
    shown = capsys.readouterr().out
    assert "20 answered, 0 errors with 4 at a time" in shown
    assert "0 errors" in shown


def test_load_check_fails_when_requests_fail(deaf_url, capsys):
    assert test_client.main(["--load", "3", "--concurrency", "2", "--url", deaf_url]) == 1
    assert "3 errors" in capsys.readouterr().out


def test_percentiles_are_latencies_that_were_measured():
    report = test_client.LoadReport(elapsed_s=1, seconds=[n / 1000 for n in range(1, 101)], errors=[])
    assert [round(report.percentile_ms(share)) for share in (0.0, 0.5, 0.95, 0.99, 1.0)] == [1, 50, 95, 99, 100]
    assert test_client.LoadReport(elapsed_s=1, seconds=[], errors=[]).percentile_ms(0.5) == 0


def test_load_questions_never_repeat():
    questions = test_client.distinct_questions()
    asked = [next(questions) for _ in range(1000)]
    assert len(set(asked)) == len(asked)


def test_a_service_that_cannot_be_reached_is_exit_1(deaf_url, capsys):
    assert test_client.main(["hello", "--url", deaf_url]) == 1
    assert "no answer" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["flag", "environment"])
@pytest.mark.parametrize("mode", ["question", "json", "smoke", "load", "evaluate"])
def test_the_key_is_used_in_every_mode_and_never_printed(scripted, capsys, monkeypatch, tmp_path, mode, given):
    queries = tmp_path / "queries.jsonl"
    queries.write_text('{"id": "q1", "query": "read a file", "gold": ["https://docs.example.org/io.html"]}\n')
    arguments = {
        "question": ["hello"],
        "json": ["hello", "--json"],
        "smoke": [],
        "load": ["--load", "3"],
        "evaluate": ["--evaluate", str(queries)],
    }
    scripted.script = [(401, {}, b'{"error": {"type": "auth_error", "message": "who are you?"}}')] * 10
    if given == "environment":
        monkeypatch.setenv("RAYDEX_API_KEY", KEY)
    flag = ["--api-key", KEY] if given == "flag" else []
    assert test_client.main([*arguments[mode], *flag, "--url", scripted.url]) == 1
    assert {headers["Authorization"] for headers in scripted.seen} == {f"Bearer {KEY}"}
    shown = capsys.readouterr()
    assert "who are you?" in shown.out + shown.err
    assert KEY not in shown.out + shown.err


@pytest.mark.parametrize("arguments", [["-k", "0"], ["--load", "-5"], ["--concurrency", "x"]])
def test_wrong_flags_are_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        test_client.main(arguments)
    assert caught.value.code == 2
    assert "whole number of at least 1" in capsys.readouterr().err


def test_help_documents_examples_and_exit_codes(capsys):
    with pytest.raises(SystemExit):
        test_client.main(["--help"])
    shown = capsys.readouterr().out
    assert "exit codes:" in shown
    assert "--load 400" in shown
