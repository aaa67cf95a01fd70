"""The HTTP face in process: real snapshots on disk, the fake model, no Ray."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import EmbedError
from raydex.records import Vectors
from raydex.serve import engine as engine_module
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder
from raydex.snapshot import current_id
from tests.snapshots import make_snapshot

PAGE = "https://docs.example.org/guide/io.html"
TEXTS = {
    f"{PAGE}#reading": "Open a file and read it line by line with a loop.",
    f"{PAGE}#writing": "Write text into a file and flush the buffer.",
    "https://docs.example.org/guide/dates.html#parse": "Parse a date from a string with a format.",
    "https://docs.example.org/guide/dates.html#zones": "Time zones shift a date by an offset.",
    "https://docs.example.org/guide/net.html?v=2#sockets": "A socket connects two programs.",
}
OTHER_TEXTS = {
    "https://other.example.org/a.html#files": "Open a file and read it line by line with another library.",
    "https://other.example.org/a.html#dates": "Calendars hold a date for every day.",
}
READING = "open a file and read it line by line"
BUILD_REPORT: dict[str, Any] = {
    "index": "docs",
    "build_id": "b1",
    "finished_at": "2026-01-01T12:00:00+00:00",
    "outcome": "published",
    "snapshot_id": "s1",
    "pages": {"fetched": 3, "failed": 1, "missing": 0, "skipped": 0},
    "chunks": {"embedded": 5, "reused": 0},
    "tokens_embedded": 70,
    "downloaded_bytes": 900,
    "gate": {"snapshot_id": "s1", "checks": {"checksums": "passed", "counts": "pages: 3, expected 9"}},
    "timings_s": {"crawl": 1.5},
}


def config_for(data_dir: Path, **settings: Any) -> ServeConfig:
    return ServeConfig(data_dir=data_dir, max_k=20, max_offset=50, max_query_chars=3000, max_batch=4, **settings)


def client_for(config: ServeConfig, recorder: MemoryRecorder | None = None) -> TestClient:
    backend = DirectBackend(Engine(config), recorder or MemoryRecorder())
    return TestClient(create_app(backend, config))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder())
    make_snapshot(tmp_path / "other", OTHER_TEXTS, HashEmbedder(), shards=1)
    return tmp_path


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def client(data_dir: Path, recorder: MemoryRecorder) -> Iterator[TestClient]:
    with client_for(config_for(data_dir), recorder) as client:
        yield client


def assert_failure(response: Any, status: int, kind: str, *, field: str | None = None, says: str = "") -> None:
    assert response.status_code == status, response.text
    assert list(response.json()) == ["error"]
    error = response.json()["error"]
    assert set(error) == {"type", "message", "field", "request_id"}
    assert (error["type"], error["field"]) == (kind, field)
    assert says in error["message"]
    assert error["request_id"] == response.headers["X-Request-Id"] != ""


def test_search_answers_with_ranked_passages_that_name_their_source(client, data_dir):
    answer = client.get("/search", params={"query": READING, "k": 2, "index": "docs"}).json()
    assert set(answer) == {"status", "message", "snapshot", "confidence", "results", "facets", "timings_s"}
    assert (answer["status"], answer["message"]) == ("ok", "")
    assert answer["snapshot"] == {"docs": current_id(data_dir / "docs")}
    first, second = answer["results"]
    assert first["source"] == first["section_id"] == f"{PAGE}#reading"
    assert first["content"] == TEXTS[f"{PAGE}#reading"]
    assert (first["title"], first["headings"], first["index"]) == ("io.html", ["io.html", "reading"], "docs")
    assert (first["rank"], second["rank"]) == (1, 2)
    assert first["score"] >= second["score"]
    assert 1 >= first["scores"]["dense"] > 0 < first["scores"]["lexical"]
    assert 0 <= answer["confidence"] <= 1
    assert first["chunk_id"]


def test_search_reports_the_seconds_of_every_stage(client):
    seconds = client.get("/search", params={"query": READING}).json()["timings_s"]
    stages = {"validate", "embed", "filter", "lexical", "scan", "merge", "fuse", "present", "serialise", "total"}
    assert set(seconds) == stages
    assert all(value >= 0 for value in seconds.values())
    assert seconds["total"] >= seconds["scan"]


def test_score_and_confidence_of_the_best_result_are_recorded_but_not_of_later_pages(client, recorder):
    first = client.get("/search", params={"query": READING}).json()
    assert recorder.values("raydex_top_score") == [pytest.approx(first["results"][0]["scores"]["dense"])]
    assert recorder.values("raydex_confidence") == [pytest.approx(first["confidence"])]
    client.get("/search", params={"query": READING, "offset": 2})
    client.get("/search", params={"query": READING, "mode": "lexical"})
    assert len(recorder.values("raydex_top_score")) == 1


def test_search_without_an_index_ranks_all_indexes_together(client):
    answer = client.get("/search", params={"query": READING, "k": 3}).json()
    assert set(answer["snapshot"]) == {"docs", "other"}
    assert {result["index"] for result in answer["results"][:2]} == {"docs", "other"}
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)


def test_index_may_be_repeated_and_named_twice(client):
    parameters = [("query", READING), ("index", "docs"), ("index", "other"), ("index", "docs"), ("k", "20")]
    answer = client.get("/search", params=parameters).json()
    assert len(answer["results"]) == len(TEXTS) + len(OTHER_TEXTS)


@pytest.mark.parametrize("index", [[], ["docs"]])
def test_pages_of_results_follow_each_other_without_gap_or_repetition(client, index):
    def ask(**page: int) -> Any:
        return client.get("/search", params={"query": "a date", "index": index, **page}).json()["results"]

    assert ask(k=2, offset=0) + ask(k=2, offset=2) == ask(k=4)


def test_an_offset_beyond_the_end_gives_no_results_and_is_counted(client, recorder):
    assert client.get("/search", params={"query": READING, "offset": 50}).json()["results"] == []
    assert recorder.values("raydex_zero_result_queries") == [1]
    assert recorder.values("raydex_results") == [0]


def test_a_batch_answers_each_query_as_if_it_were_asked_alone(client):
    queries = [READING, "time zones", READING]
    batch = client.post("/search", json={"queries": queries, "k": 3, "index": ["docs"]}).json()
    assert set(batch) == {"status", "message", "snapshot", "answers", "timings_s"}
    assert [answer["query"] for answer in batch["answers"]] == queries
    for answer in batch["answers"]:
        alone = client.get("/search", params={"query": answer["query"], "k": 3, "index": "docs"}).json()
        assert answer["results"] == alone["results"]


def test_a_query_longer_than_the_model_reads_is_answered_with_a_warning(client):
    long = "file " * 300
    warning = "the query has 302 tokens; the model read the first 256"
    answer = client.get("/search", params={"query": long}).json()
    assert (answer["message"], bool(answer["results"])) == (warning, True)
    batch = client.post("/search", json={"queries": ["short", long]}).json()
    assert batch["message"] == "1 of 2 answers have a message of their own"
    assert [answer["message"] for answer in batch["answers"]] == ["", warning]


BAD_PARAMETERS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "query", "required"),
    ({"query": ""}, "query", "empty"),
    ({"query": " \t\n"}, "query", "empty"),
    ({"query": "x" * 3001}, "query", "at most 3000"),
    ({"query": "nul\x00byte"}, "query", "U+0000"),
    ({"query": "bell\x07"}, "query", "U+0007"),
    ({"query": "x", "k": 0}, "k", "greater than or equal to 1"),
    ({"query": "x", "k": -1}, "k", "greater than or equal to 1"),
    ({"query": "x", "k": 21}, "k", "allowed are 1 to 20"),
    ({"query": "x", "k": "ten"}, "k", "integer"),
    ({"query": "x", "k": "1.5"}, "k", "integer"),
    ({"query": "x", "k": "9" * 5000}, "k", ""),
    ({"query": "x", "offset": -1}, "offset", "greater than or equal to 0"),
    ({"query": "x", "offset": 51}, "offset", "allowed are 0 to 50"),
    ({"query": "x", "limit": 5}, "limit", "unknown parameter"),
]


@pytest.mark.parametrize(("parameters", "field", "says"), BAD_PARAMETERS)
def test_a_wrong_parameter_is_refused_with_422_naming_field_and_limit(client, parameters, field, says):
    assert_failure(client.get("/search", params=parameters), 422, "query_error", field=field, says=says)


def test_a_query_that_is_not_utf8_is_refused(client):
    assert_failure(client.get("/search?query=caf%E9"), 422, "query_error", field="query", says="not valid UTF-8")


BAD_BODIES: list[tuple[bytes, str | None, str]] = [
    (b"{", None, "not JSON"),
    (b"", None, "required"),
    (b"[]", None, "dictionary"),
    (b"{}", "queries", "required"),
    (b'{"queries": []}', "queries", "at least 1"),
    (b'{"queries": "x"}', "queries", "list"),
    (b'{"queries": ["a", "b", "c", "d", "e"]}', "queries", "at most 4"),
    (b'{"queries": ["ok", " "]}', "queries[1]", "empty"),
    (b'{"queries": ["ok", 5]}', "queries[1]", "string"),
    (b'{"queries": ["\\ud800"]}', "queries[0]", ""),
    (b'{"queries": ["\\u0000"]}', "queries[0]", "U+0000"),
    (b'{"queries": ["x"], "k": 0}', "k", "greater than or equal to 1"),
    (b'{"queries": ["x"], "k": 21}', "k", "allowed are 1 to 20"),
    (b'{"queries": ["x"], "k": true}', "k", "integer"),
    (b'{"queries": ["x"], "k": "5"}', "k", "integer"),
    (b'{"queries": ["x"], "k": NaN}', "k", "integer"),
    (b'{"queries": ["x"], "explain": 0}', "explain", "boolean"),
    (b'{"queries": ["x"], "rerank": "yes"}', "rerank", "boolean"),
    (b'{"queries": ["x"], "offset": 51}', "offset", "allowed are 0 to 50"),
    (b'{"queries": ["x"], "limit": 5}', "limit", "unknown parameter"),
]


@pytest.mark.parametrize(("body", "field", "says"), BAD_BODIES)
def test_a_wrong_body_is_refused_with_422_naming_field_and_limit(client, body, field, says):
    response = client.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert_failure(response, 422, "query_error", field=field, says=says)


def test_a_body_that_cannot_be_decoded_is_refused_with_400(client):
    response = client.post("/search", content=b'{"queries": ["\xff"]}', headers={"Content-Type": "application/json"})
    assert_failure(response, 400, "bad_request")


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/search?query=x&index=none", 404, "index_not_found"),
        ("GET", "/sections/https%3A%2F%2Fdocs.example.org%2Fnone", 404, "section_not_found"),
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/search/", 404, "not_found"),
        ("DELETE", "/search", 405, "method_not_allowed"),
        ("POST", "/healthz", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_refused_in_the_same_shape(client, method, path, status, kind):
    assert_failure(client.request(method, path), status, kind)


def test_an_unknown_index_is_told_what_is_served(client):
    assert_failure(
        client.post("/search", json={"queries": ["x"], "index": ["none"]}),
        404,
        "index_not_found",
        says="served: docs, other",
    )


def test_suggestions_say_what_they_name_and_where_they_lead(client, data_dir):
    answer = client.get("/suggest", params={"query": "read", "index": "docs"}).json()
    assert (answer["status"], answer["snapshot"]) == ("ok", {"docs": current_id(data_dir / "docs")})
    expected = {"text": "reading", "kind": "heading", "url": f"{PAGE}#reading", "index": "docs", "is_corrected": False}
    assert answer["suggestions"] == [expected]
    (page,) = client.get("/suggest", params={"query": "io.h", "k": 1}).json()["suggestions"]
    assert (page["text"], page["kind"], page["url"]) == ("io.html", "title", PAGE)
    corrected = client.get("/suggest", params={"query": "raeding"}).json()["suggestions"]
    assert [(one["text"], one["is_corrected"]) for one in corrected] == [("reading", True)]
    assert client.get("/suggest", params={"query": "zzz"}).json()["suggestions"] == []


def test_suggestions_of_several_indexes_take_turns_and_name_their_index(client):
    found = client.get("/suggest", params={"query": "da"}).json()["suggestions"]
    assert {one["index"] for one in found} == {"docs", "other"}
    assert len({one["text"] for one in found}) == len(found)


@pytest.mark.parametrize(
    ("parameters", "field"), [({}, "query"), ({"query": " "}, "query"), ({"query": "x", "k": 21}, "k")]
)
def test_a_wrong_parameter_of_suggest_is_refused_by_name(client, parameters, field):
    assert_failure(client.get("/suggest", params=parameters), 422, "query_error", field=field)


@pytest.mark.parametrize("url", [f"{PAGE}#reading", "https://docs.example.org/guide/net.html?v=2#sockets"])
def test_a_section_is_returned_whole_for_its_percent_encoded_id(client, data_dir, url):
    section = client.get(f"/sections/{quote(url, safe='')}").json()
    assert (section["section_id"], section["source"], section["index"]) == (url, url, "docs")
    assert (section["content"], section["snapshot"]) == (TEXTS[url], {"docs": current_id(data_dir / "docs")})
    assert section["headings"] == [section["title"], url.partition("#")[2]]


def test_indexes_tell_what_is_served(client, data_dir):
    docs, other = client.get("/indexes").json()["indexes"]
    assert (docs["name"], docs["ready"], docs["model"], docs["stale"]) == ("docs", True, "hash", False)
    assert docs["snapshot_id"] == docs["current_snapshot_id"] == current_id(data_dir / "docs")
    assert (docs["pages"], docs["sections"], docs["chunks"], docs["shards"]) == (3, 5, 5, 2)
    assert docs["age_s"] >= 0
    assert docs["bytes"] > 0
    assert docs["last_build"] is None
    assert (other["name"], other["chunks"]) == ("other", 2)


def test_an_index_is_stale_once_current_has_moved(client, data_dir):
    make_snapshot(data_dir / "docs", OTHER_TEXTS, HashEmbedder(), now=datetime(2030, 1, 1, tzinfo=UTC))
    docs = client.get("/indexes").json()["indexes"][0]
    assert docs["stale"]
    assert docs["snapshot_id"] != docs["current_snapshot_id"] == current_id(data_dir / "docs")


def write_report(data_dir: Path, build_id: str, content: str) -> None:
    path = data_dir / "docs" / "builds" / build_id / "report.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)


def test_indexes_show_the_report_of_the_build_that_finished_last(client, data_dir, caplog):
    write_report(data_dir, "b1", json.dumps(BUILD_REPORT))
    newest = {**BUILD_REPORT, "build_id": "b0", "finished_at": "2026-02-01T12:00:00+00:00"}
    write_report(data_dir, "b0", json.dumps(newest))
    write_report(data_dir, "b9", "{torn")
    build = client.get("/indexes").json()["indexes"][0]["last_build"]
    assert (build["build_id"], build["pages"]["failed"]) == ("b0", 1)
    assert "build report not readable" in caplog.text


def test_last_run_is_told_also_when_it_built_nothing(data_dir, recorder):
    run = {"ended_at": "2026-01-02T12:00:00+00:00", "seconds": 7.5, "exit_code": 1, "outcome": "StorageFull"}
    more = {"failures_in_a_row": 2, "last_success_at": "1970-01-01T00:01:00+00:00"}
    (data_dir / "docs" / "last_build.json").write_text(json.dumps(run | more))
    with client_for(config_for(data_dir), recorder) as client:
        wait_for(lambda: recorder.values("raydex_last_success_timestamp_seconds", index="docs") == [60], client)
        told = client.get("/indexes").json()["indexes"][0]["last_run"]
    assert (told["outcome"], told["exit_code"]) == ("StorageFull", 1)
    assert recorder.values("raydex_last_run_failures", index="docs") == [2]
    assert recorder.values("raydex_last_run_seconds", index="docs") == [7.5]
    assert recorder.values("raydex_last_run_exit_code", index="docs") == [1]


def test_gauges_tell_age_size_and_last_build_from_the_start(data_dir, recorder):
    write_report(data_dir, "b1", json.dumps(BUILD_REPORT))
    with client_for(config_for(data_dir), recorder) as client:
        client.get("/healthz")
        wait_for(lambda: recorder.values("raydex_last_build_seconds", index="docs", stage="crawl") == [1.5], client)
    assert recorder.values("raydex_snapshot_chunks", index="docs") == [5]
    assert recorder.values("raydex_snapshot_bytes", index="docs")[0] > 0
    assert recorder.values("raydex_snapshot_age_seconds", index="other")[0] >= 0
    assert recorder.values("raydex_last_build_pages", index="docs", outcome="failed") == [1]
    assert recorder.values("raydex_last_build_chunks", index="docs", origin="embedded") == [5]
    assert recorder.values("raydex_last_build_tokens", index="docs", origin="embedded") == [70]
    assert recorder.values("raydex_last_build_bytes", index="docs") == [900]
    assert recorder.values("raydex_last_build_gate", index="docs", check="checksums") == [1]
    assert recorder.values("raydex_last_build_gate", index="docs", check="counts") == [0]


def wait_for(condition, client: TestClient) -> None:
    """Let the app's event loop run until the condition holds; the test's own timeout ends a vain wait."""
    while not condition():
        client.get("/healthz")


def test_requests_and_stages_are_counted(client, recorder):
    client.get("/search", params={"query": READING, "k": 3})
    client.get("/search", params={"query": ""})
    client.get("/sections/unknown")
    client.get("/nowhere")
    assert recorder.values("raydex_requests", route="/search", outcome="ok") == [1]
    assert recorder.values("raydex_requests", route="/search", outcome="client_error") == [1]
    assert recorder.values("raydex_requests", route="/sections/{section_id:path}", outcome="client_error") == [1]
    assert recorder.values("raydex_requests", route="other", outcome="client_error") == [1]
    assert len(recorder.values("raydex_request_seconds", route="/search")) == 2
    for stage in ("embed", "scan", "merge", "total"):
        assert len(recorder.values("raydex_search_stage_seconds", stage=stage)) == 1
    assert recorder.values("raydex_results") == [3]


def test_a_service_with_every_index_open_is_alive_and_ready(client, data_dir):
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz").json()
    assert ready["status"] == "ready"
    assert ready["snapshot"] == {name: current_id(data_dir / name) for name in ("docs", "other")}


@pytest.fixture
def half_ready(data_dir: Path, recorder: MemoryRecorder) -> Iterator[TestClient]:
    with client_for(config_for(data_dir, index=("docs", "unbuilt")), recorder) as client:
        yield client


def test_an_index_without_a_snapshot_answers_503_and_names_the_build_command(half_ready, data_dir, recorder):
    for path in ("/search?query=x&index=unbuilt", "/search?query=x&index=docs&index=unbuilt", "/readyz"):
        response = half_ready.get(path)
        assert_failure(
            response, 503, response.json()["error"]["type"], says="python build_index.py URL --index unbuilt"
        )
        assert int(response.headers["Retry-After"]) > 0
        assert str(data_dir) not in response.text
    assert recorder.values("raydex_requests", route="/readyz", outcome="not_ready") == [1]


def test_the_other_indexes_go_on_and_the_answer_says_what_was_left_out(half_ready):
    answer = half_ready.get("/search", params={"query": READING}).json()
    assert (list(answer["snapshot"]), answer["message"]) == (["docs"], "not searched, because not ready: unbuilt")
    unbuilt = half_ready.get("/indexes").json()["indexes"][1]
    assert (unbuilt["ready"], unbuilt["snapshot_id"], unbuilt["current_snapshot_id"]) == (False, "", "")
    assert "nothing is published" in unbuilt["reason"]
    assert half_ready.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/search?query=x", "/sections/x", "/readyz"])
def test_a_service_without_any_index_is_not_ready(tmp_path, path):
    with client_for(config_for(tmp_path)) as client:
        response = client.get(path)
        assert_failure(response, 503, "snapshot_error", says="nothing has been built")


def test_a_damaged_snapshot_is_not_served(data_dir):
    for path in (data_dir / "docs" / "objects").iterdir():
        path.write_bytes(b"damaged")
    with client_for(config_for(data_dir)) as client:
        assert_failure(client.get("/search?query=x&index=docs"), 503, "snapshot_corrupt")
        assert client.get("/search?query=x&index=other").status_code == 200


def test_a_snapshot_of_another_model_is_not_served(data_dir):
    make_snapshot(data_dir / "narrow", TEXTS, HashEmbedder(dim=32))
    with client_for(config_for(data_dir)) as client:
        assert_failure(client.get("/search?query=x&index=narrow"), 503, "snapshot_incompatible", says="model")


def test_a_model_that_cannot_be_loaded_is_a_503(data_dir, monkeypatch):
    def broken(model: str, **_: Any) -> HashEmbedder:
        raise EmbedError(f"model {model!r} is not there")

    monkeypatch.setattr(engine_module, "load_embedder", broken)
    with client_for(config_for(data_dir, index=("docs",))) as client:
        assert_failure(client.get("/search?query=x"), 503, "embed_error", says="is not there")


class NarrowHashEmbedder(HashEmbedder):
    """A second model, so that indexes of two models can be served beside each other."""

    def __init__(self) -> None:
        super().__init__(dim=32)
        self.info = replace(self.info, name="narrow-hash")


def test_indexes_of_different_models_are_searched_one_at_a_time(data_dir, monkeypatch):
    models = {"hash": HashEmbedder(), "narrow-hash": NarrowHashEmbedder()}
    monkeypatch.setattr(engine_module, "describe", lambda model: models[model].info)
    monkeypatch.setattr(engine_module, "load_embedder", lambda model, **_: models[model])
    make_snapshot(data_dir / "narrow", TEXTS, models["narrow-hash"])
    with client_for(config_for(data_dir)) as client:
        refused = client.get("/search", params={"query": READING})
        assert_failure(refused, 422, "query_error", field="index", says="narrow (narrow-hash)")
        for names in (["docs", "other"], ["narrow"]):
            answer = client.get("/search", params={"query": READING, "index": names}).json()
            assert answer["results"][0]["content"].startswith("Open a file")
        assert client.get("/readyz").status_code == 200


def test_one_model_is_loaded_once_for_all_indexes(data_dir, monkeypatch):
    loaded = []

    def load(model: str, **_: Any) -> HashEmbedder:
        loaded.append(model)
        return HashEmbedder()

    monkeypatch.setattr(engine_module, "load_embedder", load)
    Engine(config_for(data_dir))
    assert loaded == ["hash"]


class BrokenBackend(DirectBackend):
    async def embed(self, model_id: str, texts: Any) -> Vectors:
        raise RuntimeError("the secret is in /etc/raydex/secret.toml")


def test_an_unforeseen_error_is_a_500_that_tells_nothing_but_the_request_id(data_dir, recorder, caplog):
    config = config_for(data_dir)
    with TestClient(create_app(BrokenBackend(Engine(config), recorder), config)) as client:
        response = client.get("/search?query=hello", headers={"X-Request-Id": "ticket-7"})
    assert_failure(response, 500, "internal_error")
    assert response.headers["X-Request-Id"] == "ticket-7"
    assert all(word not in response.text for word in ("secret", "RuntimeError", "Traceback", "hello"))
    logged = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert ["ticket-7" in record.getMessage() for record in logged] == [True]
    assert logged[0].exc_info
    assert recorder.values("raydex_requests", route="/search", outcome="error") == [1]


def test_every_response_has_a_request_id_of_its_own_or_the_callers(client):
    first, second = (client.get("/healthz").headers["X-Request-Id"] for _ in range(2))
    assert first != second
    assert client.get("/healthz", headers={"X-Request-Id": "mine"}).headers["X-Request-Id"] == "mine"
    assert client.get("/healthz", headers={"X-Request-Id": "x" * 500}).headers["X-Request-Id"] != "x" * 500


def test_the_openapi_page_describes_parameters_examples_and_errors(client):
    assert client.get("/docs").status_code == 200
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/search",
        "/suggest",
        "/indexes",
        "/sections/{section_id}",
        "/admin/reload",
        "/admin/rollback",
        "/admin/report",
        "/feedback",
        "/healthz",
        "/readyz",
    }
    search = document["paths"]["/search"]["get"]
    filters = {"source", "version", "language", "kind", "path"}
    options = {"k", "offset", "index", "mode", "group_by", "facets", "explain", "rerank", "timeout_ms"}
    assert {parameter["name"] for parameter in search["parameters"]} == {"query"} | options | filters
    assert all(parameter["description"] for parameter in search["parameters"])
    refusals = {"400", "401", "403", "404", "405", "408", "413", "414", "422", "429", "431", "503", "504"}
    assert set(search["responses"]) == {"200"} | refusals
    failure = search["responses"]["422"]["content"]["application/json"]["schema"]["$ref"]
    assert failure.endswith("/FailureResponse")
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert document["components"]["schemas"]["Result"]["properties"]["score"]["examples"]
    assert "k up to 20" in document["info"]["description"]
