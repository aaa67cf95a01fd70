"""What one request may cost: each limit with an error that names it, and nothing done that a limit forbids."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from raydex.config import LimitsConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import DeadlineExceeded, QueryError
from raydex.records import Vectors
from raydex.search import Searcher
from raydex.serve.app import create_app
from raydex.serve.deadlines import Deadline
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder
from tests.asgi import JSON, ask, ask_async, check_refusal, escaped
from tests.serving import serving
from tests.snapshots import make_snapshot

LIMITS = LimitsConfig(
    max_body_bytes=2000,
    max_nesting=4,
    max_headers=10,
    max_header_bytes=1024,
    max_url_bytes=1024,
    max_values=3,
    max_timeout_ms=30_000,
)
CHUNKED = ((b"transfer-encoding", b"chunked"), *JSON)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ServeConfig:
    data_dir = tmp_path_factory.mktemp("data")
    make_snapshot(data_dir / "docs", {"https://docs.example.org/io.html#read": "read a file"}, HashEmbedder())
    return ServeConfig(data_dir=data_dir, limits=LIMITS)


@pytest.fixture(scope="module")
def engine(config: ServeConfig) -> Engine:
    return Engine(config)


@pytest.fixture(scope="module")
def app(engine: Engine, config: ServeConfig) -> Any:
    return create_app(DirectBackend(engine, MemoryRecorder()), config)


class Pieces:
    """A body that comes piece by piece; `taken` counts those that were asked for."""

    def __init__(self, piece: bytes, count: int) -> None:
        self.piece, self.count, self.taken = piece, count, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.taken < self.count:
            self.taken += 1
            yield self.piece


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_read(app):
    body = Pieces(b"x" * 100, 100)
    headers = ((b"content-length", b"10000"), *JSON)
    error = check_refusal(ask(app, "POST", "/search", pieces=aiter(body), headers=headers), 413, says="max_body_bytes")
    assert (error["type"], body.taken) == ("body_too_large", 0)


def test_a_body_that_turns_out_too_long_is_read_no_further_than_the_limit(app):
    body = Pieces(b"x" * 100, 100)
    answer = ask(app, "POST", "/search", pieces=aiter(body), headers=CHUNKED)
    check_refusal(answer, 413, says="more than 2000 bytes")
    assert body.taken == 21
    assert answer.headers["connection"] == "close"


def test_a_body_of_just_the_limit_is_taken(app):
    body = b'{"queries": ["read a file"]}'
    assert ask(app, "POST", "/search", body=body.ljust(2000), headers=JSON).status == 200


@pytest.mark.parametrize("length", [b"9" * 5000, b"-1", b"1e3", b"", "²".encode()])
def test_a_length_that_is_no_number_is_refused(app, length):
    answer = ask(app, "POST", "/search", pieces=aiter(Pieces(b"", 0)), headers=((b"content-length", length), *JSON))
    check_refusal(answer)


def test_a_body_that_does_not_come_is_given_up_after_the_deadline(engine, config):
    limits = LIMITS.model_copy(update={"body_timeout_s": 0.01})
    app = create_app(DirectBackend(engine, MemoryRecorder()), config.model_copy(update={"limits": limits}))

    async def never() -> AsyncIterator[bytes]:
        yield b'{"queries": ['
        await asyncio.Event().wait()

    error = check_refusal(ask(app, "POST", "/search", pieces=never(), headers=CHUNKED), 408, says="body_timeout_s")
    assert error["type"] == "body_too_slow"


@pytest.mark.parametrize(
    "body", [b"[" * 500, b'{"a":' * 300, b'{"queries": [[[["x"]]]]}', b'{"a":"\\"[","queries": [[[["x"]]]]}']
)
def test_a_body_nested_deeper_than_the_limit_is_refused(app, body):
    check_refusal(ask(app, "POST", "/search", body=body, headers=JSON), 422, says="nested deeper than 4 (max_nesting)")


@pytest.mark.parametrize("text", ["[[[[[[", "{{{{{{", '\\"[[[[[[', "\\\\"])
def test_brackets_within_a_text_are_no_nesting(app, text):
    body = b'{"queries": ["a file %s"]}' % text.encode()
    assert ask(app, "POST", "/search", body=body, headers=JSON).status == 200


@pytest.mark.parametrize("body", [b'"' * 1900, b'"\\' * 900, b'[[[[["' + b"\\" * 1500, b"[]" * 900])
def test_a_body_that_only_looks_like_json_is_read_in_one_pass(app, body):
    check_refusal(ask(app, "POST", "/search", body=body, headers=JSON), 422)


def test_too_many_headers_and_too_long_headers_are_refused(app):
    many = [(b"x-%d" % number, b"1") for number in range(20)]
    error = check_refusal(ask(app, "GET", "/healthz", headers=many), 431, says="more than 10 headers (max_headers)")
    assert error["type"] == "headers_too_large"
    long = [(b"x-long", b"1" * 1100)]
    check_refusal(ask(app, "GET", "/healthz", headers=long), 431, says="more than 1024 bytes (max_header_bytes)")


def test_a_url_longer_than_the_limit_is_refused(app):
    error = check_refusal(ask(app, "GET", "/search", query=b"query=" + b"x" * 1100), 414, says="max_url_bytes")
    assert error["type"] == "uri_too_long"
    check_refusal(ask(app, "GET", "/sections/" + "x" * 1100), 414, says="max_url_bytes")


def test_an_error_echoes_only_the_beginning_of_what_is_wrong(engine, config):
    app = create_app(DirectBackend(engine, MemoryRecorder()), config.model_copy(update={"limits": LimitsConfig()}))
    answer = ask(app, "GET", "/sections/" + "x" * 40_000)
    assert len(check_refusal(answer, 404)["message"]) < 2100


@pytest.mark.parametrize("query", [b"query=%", b"query=100%&k=1", b"query=%zz", b"%f=1&query=x", "query=é".encode()])
def test_a_query_string_that_is_not_percent_encoded_is_refused(app, query):
    assert check_refusal(ask(app, "GET", "/search", query=query), 400)["type"] == "malformed_request"


@pytest.mark.parametrize("name", ["index", "source", "version", "language", "kind", "path"])
def test_more_values_than_the_limit_are_refused(app, name):
    value = "api" if name == "kind" else "docs"
    query = f"query=x&{'&'.join([f'{name}={value}'] * 4)}".encode()
    answer = ask(app, "GET", "/search", query=query)
    error = check_refusal(answer, 422, says="has 4 values, at most 3 are taken (max_values)")
    assert error["field"] == name


def test_values_are_text_that_can_be_meant_and_echoed(app):
    body = '{"queries": ["x"], "%s": ["ok", "%s"]}'
    for name in ("index", "source", "version", "language", "path"):
        for value in ("\\ud800", "\\u0000", "\\u001b[31m"):
            answer = ask(app, "POST", "/search", body=(body % (name, value)).encode(), headers=JSON)
            assert check_refusal(answer, 422)["field"] == f"{name}[1]"


@pytest.mark.parametrize(
    ("parameters", "field", "limit"),
    [
        ("query=x&k=101", "k", "max_k"),
        ("query=x&offset=1001", "offset", "max_offset"),
        (f"query={'x' * 101}", "query", "max_query_chars"),
        ("query=x&timeout_ms=30001", "timeout_ms", "max_timeout_ms"),
        (f"query=x&path={'x' * 101}", "path[0]", "max_query_chars"),
    ],
)
def test_a_parameter_beyond_a_limit_names_the_setting(engine, config, parameters, field, limit):
    app = create_app(DirectBackend(engine, MemoryRecorder()), config.model_copy(update={"max_query_chars": 100}))
    answer = ask(app, "GET", "/search", query=parameters.encode())
    assert check_refusal(answer, 422, says=f"({limit})")["field"] == field


def test_more_queries_than_the_limit_name_the_setting(app):
    body = b'{"queries": [%s]}' % b",".join([b'"x"'] * 65)
    check_refusal(ask(app, "POST", "/search", body=body, headers=JSON), 422, says="at most 64 are taken (max_batch)")


@pytest.mark.parametrize("twice", ["query=a&query=b", "query=a&k=1&k=1", "query=a&mode=dense&mode=lexical"])
def test_a_parameter_given_twice_is_refused_unless_it_is_a_list(app, twice):
    check_refusal(ask(app, "GET", "/search", query=twice.encode()), 422, says="is given 2 times")
    assert ask(app, "GET", "/search", query=b"query=a&index=docs&index=docs").status == 200


def test_half_a_million_wrong_values_are_one_complaint(engine, config):
    app = create_app(DirectBackend(engine, MemoryRecorder()), config.model_copy(update={"limits": LimitsConfig()}))
    body = b'{"queries": [%s1]}' % (b"1," * 400_000)
    error = check_refusal(ask(app, "POST", "/search", body=body, headers=JSON), 422)
    assert error["field"] == "queries[0]"
    unknown = b",".join(b'"a%d": 1' % number for number in range(1000))
    body = b'{"queries": ["x"], %s}' % unknown
    check_refusal(ask(app, "POST", "/search", body=body, headers=JSON), 422, says="and 990 more")


class SlowBackend(DirectBackend):
    """Its model never answers."""

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        await asyncio.Event().wait()
        raise AssertionError("nobody waits for this")


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [("GET", b"query=x&timeout_ms=20", b""), ("POST", b"", b'{"queries": ["x"], "timeout_ms": 20}')],
)
def test_a_search_that_takes_longer_than_the_request_allows_is_a_504(engine, config, method, query, body):
    recorder = MemoryRecorder()
    app = create_app(SlowBackend(engine, recorder), config)
    error = check_refusal(ask(app, method, "/search", query=query, body=body, headers=JSON), 504, says="20 ms")
    assert error["type"] == "deadline_exceeded"
    assert recorder.values("raydex_requests", route="/search", outcome="too_late") == [1]
    assert recorder.values("raydex_results") == []


class BusyBackend(DirectBackend):
    """Its threads never come to the work."""

    async def run(self, item: Any, work: Any) -> Any:
        await asyncio.Event().wait()


def test_suggestions_end_in_time_too_and_wait_with_the_searches(engine, config):
    app = create_app(BusyBackend(engine, MemoryRecorder()), config)
    check_refusal(ask(app, "GET", "/suggest", query=b"query=x&timeout_ms=20"), 504, says="20 ms")
    check_refusal(ask(app, "GET", "/suggest", query=b"query=x&timeout_ms=30001"), 422, says="max_timeout_ms")


class SlowOnce(DirectBackend):
    """Its model answers from the second call on."""

    calls = 0

    async def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        if self.calls == 1:
            await asyncio.Event().wait()
        return await super().embed(model_id, texts)


def test_whoever_waits_for_the_same_answer_keeps_a_deadline_of_its_own(engine, config):
    app = create_app(SlowOnce(engine, MemoryRecorder()), config)

    async def ask_twice() -> list[int]:
        queries = (b"query=x&timeout_ms=100", b"query=x&timeout_ms=30000")
        answers = await asyncio.gather(*(ask_async(app, "GET", "/search", query=query) for query in queries))
        return [answer.status for answer in answers]

    assert asyncio.run(ask_twice()) == [504, 200]


def test_no_second_index_is_searched_once_time_is_up(config, tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_snapshot(tmp_path / name, {f"https://docs.example.org/{name}.html#x": "read a file"}, HashEmbedder())
    engine = Engine(config.model_copy(update={"data_dir": tmp_path}))
    app = create_app(DirectBackend(engine, MemoryRecorder()), config.model_copy(update={"data_dir": tmp_path}))
    begun, answered, real = [], threading.Event(), Searcher.find

    def find(self: Searcher, *positional: Any, **named: Any) -> Any:
        begun.append(self)
        answered.wait()
        return real(self, *positional, **named)

    async def ask_and_go_on() -> Any:
        answer = await ask_async(app, "GET", "/search", query=b"query=x&mode=lexical&timeout_ms=200")
        answered.set()
        return answer

    monkeypatch.setattr(Searcher, "find", find)
    check_refusal(asyncio.run(ask_and_go_on()), 504)
    assert len(begun) == 1


def test_the_service_has_a_deadline_of_its_own(engine, config):
    limits = LIMITS.model_copy(update={"default_timeout_ms": 30})
    app = create_app(SlowBackend(engine, MemoryRecorder()), config.model_copy(update={"limits": limits}))
    check_refusal(ask(app, "GET", "/search", query=b"query=x"), 504, says="within 30 ms")


def test_a_batch_out_of_time_begins_no_further_query_and_gives_nothing(app, monkeypatch):
    begun, answered = [], threading.Event()

    def find(self: Searcher, query: Any, *_: Any, **__: Any) -> Any:
        begun.append(query.text)
        answered.wait()
        return real(self, query, *_, **__)

    async def ask_and_go_on() -> Any:
        body = b'{"queries": ["a", "b", "c"], "mode": "lexical", "timeout_ms": 200}'
        answer = await ask_async(app, "POST", "/search", body=body, headers=JSON)
        answered.set()
        return answer

    real = Searcher.find
    monkeypatch.setattr(Searcher, "find", find)
    check_refusal(asyncio.run(ask_and_go_on()), 504)  # run returns when the thread of the search has ended
    assert begun == ["a"]


def test_a_deadline_that_is_over_begins_nothing():
    deadline = Deadline(5, ends=0.0)

    async def begin() -> None:
        async with deadline.kept():
            raise AssertionError("begun")

    with pytest.raises(DeadlineExceeded, match="5 ms"):
        asyncio.run(begin())


def test_a_timeout_of_the_work_itself_stays_what_it_is():
    async def work() -> None:
        async with Deadline.of(0, LIMITS).kept():
            raise TimeoutError("of a socket")

    with pytest.raises(TimeoutError, match="of a socket"):
        asyncio.run(work())
    with pytest.raises(QueryError, match="max_timeout_ms"):
        Deadline.of(30_001, LIMITS)


def test_a_long_query_in_any_script_fits_the_default_limits(engine, config):
    app = create_app(DirectBackend(engine, MemoryRecorder()), config.model_copy(update={"limits": LimitsConfig()}))
    query = "𝄞" * config.max_query_chars
    assert ask(app, "GET", "/search", query=b"query=" + escaped(query)).status == 200


@pytest.fixture
def url(config: ServeConfig, tmp_path: Path) -> Any:
    limits = LIMITS.model_copy(update={"body_timeout_s": 0.2, "max_body_bytes": 100_000})
    with serving(config.model_copy(update={"limits": limits})) as url:
        yield url


def test_a_client_that_sends_too_much_learns_why_over_a_real_connection(url):
    with httpx.Client(base_url=url, trust_env=False) as client:
        for content in (b"x" * 5_000_000, iter([b"x" * 50_000] * 100)):
            response = client.post("/search", content=content, headers={"Content-Type": "application/json"})
            assert (response.status_code, response.json()["error"]["type"]) == (413, "body_too_large")


def test_a_client_that_trickles_is_let_go_over_a_real_connection(url):
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = "POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))  # ends when the service closes
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"body_too_slow"' in answer
