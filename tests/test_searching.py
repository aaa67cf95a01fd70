"""GET /search without FastAPI's machinery: it answers what FastAPI's route answers, and refuses what that refuses."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import Overloaded
from raydex.records import Vectors
from raydex.serve.answers import Passage
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend, Result
from raydex.serve.recorder import MemoryRecorder
from raydex.serve.schemas import Result as ResultSchema
from raydex.serve.schemas import SearchParameters, SearchResponse
from raydex.serve.searching import read
from tests.snapshots import make_snapshot

PAGE = "https://docs.example.org/io.html"
TEXTS = {f"{PAGE}#a": "Open a file and read it.", f"{PAGE}#b": "Write a file.", f"{PAGE}#c": "Über Dateien — öffnen."}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_snapshot(tmp_path / "docs", TEXTS, HashEmbedder())
    return tmp_path


@pytest.fixture
def backend(data_dir: Path) -> DirectBackend:
    return DirectBackend(Engine(ServeConfig(data_dir=data_dir)), MemoryRecorder())


@pytest.fixture
def client(backend: DirectBackend) -> Iterator[TestClient]:
    with TestClient(create_app(backend, backend.engine.config)) as client:
        yield client


WELL_FORMED = [
    "query=file",
    "query=file&k=2&offset=1",
    "query=file&mode=dense&explain=true",
    "query=file&mode=lexical&group_by=page&facets=true",
    "query=file&group_by=none&index=docs&index=docs&kind=prose&kind=code",
    "query=%C3%96ffnen+%E2%80%94&path=/io.html&timeout_ms=5000",
]


@pytest.mark.parametrize("query_string", WELL_FORMED)
def test_what_is_well_formed_is_read_as_fastapi_reads_it(query_string):
    values: dict[str, Any] = {}
    for name, _, value in (part.partition("=") for part in query_string.split("&")):
        is_list = name in {"index", "kind", "path"}
        values[name] = [*values.get(name, []), value] if is_list else value
    expected = SearchParameters.model_validate(values | {"query": "x"})
    found = read(query_string.encode())
    assert {**{name: getattr(found, name) for name in SearchParameters.model_fields}, "query": "x"} == dict(expected)


@pytest.mark.parametrize("query_string", WELL_FORMED)
def test_the_answer_is_what_the_schema_says_and_byte_for_byte_what_the_schema_writes(client, query_string):
    response = client.get(f"/search?{query_string}")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    model = SearchResponse.model_validate_json(response.content)
    assert json.loads(response.content) == json.loads(model.model_dump_json())
    assert list(json.loads(response.content)) == list(SearchResponse.model_fields)


def test_the_fields_of_a_result_are_those_of_its_schema_in_their_order():
    assert list(Passage.__struct_fields__) == list(ResultSchema.model_fields)


@pytest.mark.parametrize(
    "query_string",
    ["", "query=x&k=0", "query=x&k=ten", "query=x&k=1.5", "query=x&k=1&k=2", "query=x&limit=5", "query=x&mode=magic"],
)
def test_what_is_malformed_is_left_to_fastapi_which_says_what_is_wrong(client, query_string):
    assert read(query_string.encode()) is None
    response = client.get(f"/search?{query_string}")
    assert (response.status_code, response.json()["error"]["type"]) == (422, "query_error")


def test_the_same_question_is_searched_once_and_found_again_until_a_snapshot_is_swapped(client, backend, data_dir):
    first, second = (client.get("/search?query=file").json() for _ in range(2))
    assert first["results"] == second["results"]
    assert list(second["timings_s"]) == ["total"]
    counted: MemoryRecorder = backend.recorder
    assert [len(counted.values("raydex_answers", origin=origin)) for origin in ("computed", "kept")] == [1, 1]
    swapped = make_snapshot(data_dir / "docs", {f"{PAGE}#new": "A new file."}, HashEmbedder())
    backend.engine.commit({"docs": backend.engine.prepare("docs", swapped.snapshot_id)})
    third = client.get("/search?query=file").json()
    assert third["snapshot"] == {"docs": swapped.snapshot_id}
    assert [result["content"] for result in third["results"]] == ["A new file."]


def test_answers_of_a_snapshot_that_is_served_no_longer_make_room_with_the_next_search(client, backend, data_dir):
    answers = client.app.router.routes[0].searching.answers
    for number in range(5):
        client.get(f"/search?query=file+{number}")
    before = answers.bytes_kept
    swapped = make_snapshot(data_dir / "docs", {f"{PAGE}#new": "A new file."}, HashEmbedder())
    backend.engine.commit({"docs": backend.engine.prepare("docs", swapped.snapshot_id)})
    client.get("/search?query=file+0")
    assert answers.bytes_kept < before / 4


def test_what_is_well_formed_never_meets_fastapi(client, monkeypatch):
    monkeypatch.setattr("fastapi.routing.solve_dependencies", None)
    assert client.get("/search?query=file").status_code == 200


def test_a_kept_answer_is_for_its_own_options_alone(client):
    assert len(client.get("/search?query=file&k=2").json()["results"]) == 2
    assert len(client.get("/search?query=file&k=1").json()["results"]) == 1


class FullBackend(DirectBackend):
    async def run(self, item: tuple[str, str] | None, work: Callable[[Vectors | None], Result]) -> Result:
        raise Overloaded(256)


def test_a_search_too_many_is_refused_with_the_body_of_every_error_and_when_to_ask_again(backend):
    full = FullBackend(backend.engine, backend.recorder)
    with TestClient(create_app(full, backend.engine.config)) as client:
        response = client.get("/search?query=file")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    error = response.json()["error"]
    assert (error["type"], error["field"]) == ("overloaded", None)
    assert "256 searches are waiting" in error["message"]
    assert error["request_id"] == response.headers["X-Request-Id"]
    assert backend.recorder.values("raydex_requests", route="/search", outcome="overloaded") == [1]
