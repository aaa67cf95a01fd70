"""The HTTP face in process: real snapshots on disk, the fake model, no Ray."""

import logging
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from raydex.records import Vectors
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.snapshot import current_id
from tests.serving import OTHER_TEXTS, PAGE, READING, TEXTS, assert_failure, config_for

pytest_plugins = ["tests.app_fixtures"]


def test_search_answers_with_ranked_passages_that_name_their_source(client, data_dir):
    answer = client.get("/search", params={"query": READING, "k": 2, "index": "docs"}).json()
    assert set(answer) == {"status", "message", "snapshot", "confidence", "shards_ok", "results", "facets", "timings_s"}
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
    stages = {"validate", "embed", "filter", "lexical", "scan", "merge", "score", "fuse", "present"} | {
        "serialise",
        "total",
    }
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
