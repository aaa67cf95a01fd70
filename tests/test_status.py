"""What the service says of its indexes, and what it answers when one is not ready, in process without Ray."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from raydex.embed import HashEmbedder
from raydex.errors import EmbedError
from raydex.serve import engine as engine_module
from raydex.serve.engine import Engine
from raydex.serve.recorder import MemoryRecorder
from raydex.snapshot import current_id
from tests.serving import OTHER_TEXTS, READING, TEXTS, assert_failure, client_for, config_for
from tests.snapshots import make_snapshot

pytest_plugins = ["tests.app_fixtures"]

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
