"""Feedback, report and /ops over HTTP: who may give and see them, and that what was typed stays text."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import serve_index
import test_client
from raydex.analytics.store import Store
from raydex.client import AsyncRaydexClient, RaydexClient
from raydex.config import AnalyticsConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import ServiceError
from raydex.keys import create_key
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recent import Recent
from raydex.serve.recorder import MemoryRecorder
from tests.serving import serving
from tests.snapshots import make_snapshot
from tests.waiting import eventually

PAGE = "https://docs.example.org/docs.html"
EVER = (date.min, date.max)
MARKUP = "<script>alert(1)</script> file"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name in ("docs", "secret"):
        make_snapshot(tmp_path / name, {f"https://docs.example.org/{name}.html#a": "open a file"}, HashEmbedder())
    return tmp_path


def config_of(data_dir: Path, **settings: Any) -> ServeConfig:
    return ServeConfig(data_dir=data_dir, analytics=AnalyticsConfig(**{"query_log": "text", **settings}))


@pytest.fixture
def recorder() -> MemoryRecorder:
    return MemoryRecorder()


@pytest.fixture
def started(data_dir: Path, recorder: MemoryRecorder) -> Iterator[Callable[..., TestClient]]:
    clients: list[TestClient] = []

    def start(**settings: Any) -> TestClient:
        config = config_of(data_dir, **settings)
        backend = DirectBackend(Engine(config), Recent(recorder))
        clients.append(TestClient(create_app(backend, config), client=("127.0.0.1", 1)))
        return clients[-1].__enter__()

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def search(client: TestClient, query: str, session: str, **parameters: Any) -> None:
    headers = {"X-Session-Id": session}
    assert client.get("/search", params={"query": query, "index": "docs", **parameters}, headers=headers).is_success


def verdict(query: str = "open a file", kind: str = "click", **fields: Any) -> dict[str, Any]:
    return {"query": query, "url": f"{PAGE}#a", "kind": kind, "index": "docs", **fields}


def test_searches_and_verdicts_are_in_the_report_by_page(started, recorder):
    client = started()
    for session in "abc":
        search(client, "open a file", session)
        search(client, "open a file", session, offset=5)  # a further page, no further search
        told = client.post("/feedback", json=verdict(kind="up"), headers={"X-Session-Id": session})
        assert told.json() == {"status": "ok", "kept": True}
    found = client.get("/admin/report").json()
    assert [(one["query"], one["searches"], one["sessions"]) for one in found["top"]] == [("open a file", 3, 3)]
    assert found["pages"] == [{"page": PAGE, "best": 3, "asked_again": 0, "clicks": 0, "up": 3, "down": 0}]
    assert recorder.values("raydex_feedback", kind="up") == [1, 1, 1]
    assert recorder.values("raydex_analytics_rows") == [1] * 6


def test_kept_answers_and_batches_are_logged_as_any_search(started):
    client = started(least_sessions=1)
    search(client, "open a file", "a")
    search(client, "open a file", "a")
    assert client.post("/search", json={"queries": ["open a file", "warp"], "index": ["docs"]}).is_success
    found = client.get("/admin/report").json()
    assert {one["query"]: one["searches"] for one in found["top"]} == {"open a file": 3, "warp": 1}


def test_without_a_log_feedback_is_counted_and_nothing_is_written(started, data_dir, recorder):
    client = started(query_log="off")
    search(client, "open a file", "a")
    assert client.post("/feedback", json=verdict()).json()["kept"] is False
    assert client.get("/admin/report").json()["searches"] == 0
    assert recorder.values("raydex_feedback", kind="click") == [1]
    assert sorted(path.name for path in data_dir.iterdir()) == ["docs", "secret"]


@pytest.mark.parametrize(
    ("wrong", "status", "field"),
    [
        ({"kind": "love"}, 422, "kind"),
        ({"url": "javascript:alert(1)"}, 422, "url"),
        ({"url": "https://x.example/" + "a" * 5000}, 422, "url"),
        ({"query": " "}, 422, "query"),
        ({"query": "a\0b"}, 422, "query"),
        ({"index": "nowhere"}, 404, None),
        ({"more": 1}, 422, "more"),
    ],
)
def test_a_verdict_that_cannot_be_meant_is_refused(started, recorder, wrong, status, field):
    refused = started().post("/feedback", json=verdict(**wrong))
    assert (refused.status_code, refused.json()["error"]["field"]) == (status, field)
    assert recorder.values("raydex_feedback", kind="click") == []


def test_a_report_of_two_numbers_of_days_is_refused(started):
    refused = started().get("/admin/report?days=1&days=2")
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "days")


def test_the_report_is_for_admins_and_of_the_indexes_they_may_see(started, data_dir):
    tokens = {
        name: create_key(data_dir / "keys.json", name, scopes=scopes, indexes=indexes)[0]
        for name, scopes, indexes in (
            ("reader", ["search"], None),
            ("all", ["search", "admin"], None),
            ("other", ["search", "admin"], ["secret"]),
        )
    }
    client = started(least_sessions=1)

    def asked(path: str, name: str) -> Any:
        return client.get(path, headers={"Authorization": f"Bearer {tokens[name]}"})

    assert client.post("/feedback", json=verdict()).status_code == 401
    assert client.get("/admin/report").status_code == 401
    assert asked("/admin/report", "reader").status_code == 403
    assert asked("/search?query=open+file&index=docs", "reader").is_success
    assert asked("/admin/report", "all").json()["searches"] == 1
    assert asked("/admin/report", "other").json()["searches"] == 0
    assert "open file" in asked("/ops", "all").text
    for name in ("reader", "other"):
        assert "open file" not in asked("/ops", name).text


def test_ops_shows_what_was_typed_as_text_and_only_when_enough_sessions_asked(started):
    client = started()
    for session in "abc":
        search(client, MARKUP, session)
    search(client, "my own idea", "a")
    text = client.get("/ops").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; file" in text
    assert "<script" not in text
    assert "my own idea" not in text
    assert "script" not in client.get("/ops", headers={"Origin": "https://docs.example.org"}).text


def test_the_clients_and_the_command_line_give_verdicts_and_show_the_report(data_dir, capsys):
    with serving(config_of(data_dir, least_sessions=1)) as url:
        with RaydexClient(url) as client:
            client.search("open a file", index=["docs"])
            assert client.feedback("open a file", f"{PAGE}#a", "down", index="docs")
            assert client.report().top[0].query == "open a file"
            with pytest.raises(ServiceError, match="url"):
                client.feedback("open a file", "nowhere", "up")

        async def awaited() -> None:
            async with AsyncRaydexClient(url) as client:
                assert await client.feedback("open a file", f"{PAGE}#a", "click")
                assert (await client.report(days=1)).pages[0].clicks == 1

        asyncio.run(awaited())
        assert test_client.main(["--url", url, "--report", "--days", "1"]) == test_client.PASSED
        shown = capsys.readouterr().out
        assert "what people look for" in shown
        assert "open a file" in shown
        assert test_client.main(["--url", url, "--report", "--json"]) == test_client.PASSED
        assert json.loads(capsys.readouterr().out)["searches"] == 1


def test_the_command_line_forgets_what_it_is_told_to(started, data_dir, capsys):
    client = started(flush_s=0.05)
    search(client, "open a file", "a")
    search(client, "parse", "a")
    eventually(lambda: len(Store(data_dir / "_analytics").read(*EVER)) == 2, within_s=20)
    arguments = ["--data-dir", str(data_dir), "--forget-queries", "--of-query", "Open  a FILE"]
    assert serve_index.main(arguments) == serve_index.DONE
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"rows": 1}
    assert [row["text"] for row in Store(data_dir / "_analytics").read(*EVER).to_pylist()] == ["parse"]


@pytest.mark.parametrize("arguments", [["--forget-queries"], ["--of-key", "k"], ["--forget-queries", "--of-key", ""]])
def test_a_deletion_that_does_not_say_of_what_is_refused(data_dir, capsys, arguments):
    assert serve_index.main(["--data-dir", str(data_dir), *arguments]) == serve_index.REFUSED
    assert "--forget-queries" in capsys.readouterr().err or arguments[-1] == ""


def test_the_log_is_no_index(started, data_dir):
    client = started(flush_s=0.05)
    search(client, "open a file", "a")
    eventually((data_dir / "_analytics" / "key").exists, within_s=20)
    assert [one["name"] for one in client.get("/indexes").json()["indexes"]] == ["docs", "secret"]


@pytest.mark.parametrize("wish", ["DNT", "Sec-GPC"])
def test_who_asks_not_to_be_followed_is_not_in_the_query_log(started, data_dir, wish):
    client = started(flush_s=0.05)
    for name, value in ((wish, "1"), (wish, "0")):
        headers = {name: value, "X-Session-Id": "s"}
        assert client.get("/search", params={"query": f"file {value}", "index": "docs"}, headers=headers).is_success
        told = client.post("/feedback", json=verdict(f"file {value}"), headers=headers)
        assert told.json()["kept"] is (value == "0")
    store = Store(config_of(data_dir).analytics_dir)
    eventually(lambda: len(store.read(*EVER)) == 2, within_s=20)
    assert {row["text"] for row in store.read(*EVER).to_pylist()} == {"file 0"}
