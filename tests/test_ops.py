"""GET /ops without a Prometheus: what this process remembers of the last half hour, as the same charts."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from raydex.config import AccessConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.keys import create_key
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recent import BIN_S, BINS, Recent, quantile
from raydex.serve.recorder import MemoryRecorder
from tests.snapshots import make_snapshot
from tests.waiting import eventually


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recent(clock: Clock) -> Recent:
    return Recent(MemoryRecorder(), clock)


def values(points: Any) -> list[float]:
    return [value for _, value in points]


def test_what_is_recorded_is_passed_on(clock):
    inner = MemoryRecorder()
    recent = Recent(inner, clock)
    recent.count("raydex_requests", route="/search", outcome="ok")
    recent.observe("raydex_request_seconds", 0.3, route="/search")
    recent.set("raydex_snapshot_chunks", 7, index="docs")
    assert inner.values("raydex_requests", route="/search", outcome="ok") == [1]
    assert inner.values("raydex_request_seconds", route="/search") == [0.3]
    assert inner.values("raydex_snapshot_chunks", index="docs") == [7]


def test_counts_are_those_of_a_minute_and_are_forgotten_after_it(recent, clock):
    for _ in range(3):
        recent.count("raydex_requests", route="/search", outcome="ok")
    recent.count("raydex_requests", route="/readyz", outcome="ok")
    recent.count("raydex_requests", route="/search", outcome="error")
    clock.now += 3 * BIN_S
    counted = recent.window().counted("raydex_requests", "outcome", without=frozenset({"/readyz"}))
    assert values(counted["ok"]) == [3, 3, 3, 3]
    assert values(counted["error"]) == [1, 1, 1, 1]
    clock.now += 3 * BIN_S
    assert values(recent.window().counted("raydex_requests", "outcome")["ok"])[-1] == 0


def test_half_an_hour_is_kept_and_no_more(recent, clock):
    recent.count("raydex_zero_result_queries")
    clock.now += BINS * BIN_S
    window = recent.window()
    assert window.counted("raydex_zero_result_queries") == {}
    assert window.end - window.start <= BINS * BIN_S
    for _ in range(2 * BINS):
        clock.now += BIN_S
        recent.count("raydex_zero_result_queries")
    assert len(recent.window().counted("raydex_zero_result_queries")[""]) == BINS


@pytest.mark.parametrize(
    ("buckets", "share", "value"),
    [([10, 0, 0], 0.5, 0.5), ([0, 10, 0], 0.5, 1.5), ([5, 5, 0], 0.75, 1.5), ([0, 0, 10], 0.5, 2), ([0, 4, 0], 1, 2)],
)
def test_percentiles_are_those_of_prometheus(buckets, share, value):
    assert quantile(buckets, (1.0, 2.0), share) == pytest.approx(value)


def test_percentiles_are_of_the_route_that_is_asked_for(recent):
    recent.observe("raydex_request_seconds", 0.15, route="/search")
    recent.observe("raydex_request_seconds", 9.0, route="/indexes")
    (line,) = recent.window().quantiles("raydex_request_seconds", 1.0, only=("route", "/search")).values()
    assert values(line) == pytest.approx([0.2])


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    for name in ("docs", "secret"):
        make_snapshot(tmp_path / name, {f"https://docs.example.org/{name}.html#a": "open a file"}, HashEmbedder())
    return tmp_path


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def client(data_dir: Path, keys_file: Path) -> Iterator[TestClient]:
    config = ServeConfig(data_dir=data_dir, access=AccessConfig(keys_file=keys_file))
    backend = DirectBackend(Engine(config), Recent(MemoryRecorder()))
    with TestClient(create_app(backend, config), client=("127.0.0.1", 1)) as client:
        yield client


def drawn(text: str) -> set[str]:
    """Return the titles of the panels with a line in them."""
    sections = re.findall(r"<section.*?</section>", text, flags=re.S)
    return {re.findall("<h3>(.*?)</h3>", one)[0] for one in sections if 'class="line"' in one}


def test_ops_draws_what_the_process_has_seen(client):
    client.get("/search", params={"query": "file"})
    client.get("/search", params={"query": "file", "offset": 900})
    text = eventually(lambda: t if len(drawn(t := client.get("/ops").text)) >= 7 else "", within_s=20)
    assert drawn(text) >= {"Requests a second", "Seconds of a search", "Share of queries that find nothing"}
    assert "docs" in text
    assert "drawn from this process. This is not Grafana" in text


def test_with_keys_ops_needs_one_and_shows_only_the_indexes_it_may_see(client, keys_file):
    token, _ = create_key(keys_file, "reader", indexes=["docs"])
    eventually(lambda: client.get("/ops").status_code == 401, within_s=20)
    seen = client.get("/ops", headers={"Authorization": f"Bearer {token}"})
    assert seen.status_code == 200
    assert "docs" in seen.text
    assert "secret" not in seen.text
