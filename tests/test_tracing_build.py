"""Spans and log lines of a build on a real Ray: those of its workers belong to it, a failure is one."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.docsite import DocSite
from tests.otlp import Collector, collecting
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    with collecting(tmp_path) as collector:
        yield collector


def below(spans: list[dict[str, Any]], name: str) -> set[str]:
    """Return the names of the spans right below those of a name."""
    parents = {span["span_id"] for span in spans if span["name"] == name}
    return {span["name"] for span in spans if span["parent_id"] in parents}


def test_a_build_is_one_trace_from_crawl_to_publish_with_the_work_of_its_workers(build, site: DocSite, collector):
    code, line = build(site.url, "--trace-endpoint", collector.endpoint)
    assert code == 0
    spans = collector.spans()
    (root,) = collector.spans("build")
    assert {span["trace_id"] for span in spans} == {root["trace_id"]}
    assert root["service"] == "raydex-build"
    assert (root["facts"]["raydex.outcome"], root["is_error"]) == ("published", False)
    assert root["facts"]["raydex.snapshot"] == line["snapshot_id"]
    assert {"crawl", "duplicates", "embed_rest", "shard", "lexical", "gate"} <= below(spans, "build")
    assert {"fetch", "read"} <= below(spans, "crawl")
    assert {"embed"} <= below(spans, "crawl") | below(spans, "embed_rest")
    assert {"shuffle", "shard", "close"} <= below(spans, "shard")
    assert "publish" in below(spans, "gate")
    (fetch,) = collector.spans("fetch")
    assert fetch["facts"]["raydex.url"] == site.url
    assert root["started_ns"] <= fetch["started_ns"] <= fetch["ended_ns"] <= root["ended_ns"]


def test_a_build_that_publishes_nothing_is_a_trace_with_an_error(build, site: DocSite, collector):
    code, _ = build(f"{site.url}nowhere/", "--trace-endpoint", collector.endpoint)
    (root,) = collector.spans("build")
    assert code != 0
    assert root["is_error"]


def test_what_a_worker_logs_is_a_line_of_json_with_the_build_it_is_of(build, site: DocSite, cluster):
    assert build(site.url)[0] == 0
    for stored in (build.index_dir / "pages").rglob("*.*"):
        stored.write_bytes(stored.read_bytes()[:-4])
    code, line = build(site.url, "--log-format", "json")
    assert code == 0

    def told() -> list[dict[str, Any]]:
        logs = Path(cluster.address_info["session_dir"]) / "logs"
        lines = [line for file in logs.glob("worker-*.err") for line in file.read_text(errors="replace").splitlines()]
        events = [json.loads(line) for line in lines if line.startswith('{"time"')]
        return [event for event in events if event.get("build_id") == line["build_id"]]

    (first, *_) = eventually(told, within_s=20)
    assert (first["level"], first["index"]) == ("WARNING", "docs")
    assert first["event"] == "stored reading unreadable"
