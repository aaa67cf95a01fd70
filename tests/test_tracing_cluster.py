"""Spans and log lines on a real Ray: a build's workers belong to it, a replica's to the trace of the caller."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from raydex.config import ServeConfig, ServeTelemetryConfig
from raydex.embed import HashEmbedder
from tests.docsite import DocSite
from tests.otlp import Collector, collecting
from tests.processes import free_port
from tests.snapshots import make_snapshot
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


def logged(cluster: Any, files: str, **fields: str) -> list[dict[str, Any]]:
    """Return the JSON lines in files of Ray's log folder that have these fields."""
    logs = Path(cluster.address_info["session_dir"]) / "logs"
    lines = [line for file in logs.glob(files) for line in file.read_text(errors="replace").splitlines()]
    events = [json.loads(line) for line in lines if line.startswith('{"time"')]
    return [event for event in events if fields.items() <= event.items()]


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

    (first, *_) = eventually(lambda: logged(cluster, "worker-*.err", build_id=line["build_id"]), within_s=20)
    assert (first["level"], first["index"]) == ("WARNING", "docs")
    assert first["event"] == "stored reading unreadable"


@pytest.fixture
def url(cluster: Any, tmp_path: Path, collector: Collector) -> Iterator[str]:
    """Two replicas on the session's cluster that trace only failures and what callers trace, and log JSON."""
    from ray import serve

    from raydex.serve.deployments import build_application

    make_snapshot(tmp_path / "data" / "docs", {"https://docs.example.org/a.html#b": "A question."}, HashEmbedder())
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    telemetry = ServeTelemetryConfig(trace_endpoint=collector.endpoint, trace_share=0.0, log_format="json")
    config = ServeConfig(data_dir=tmp_path / "data", replicas=2, telemetry=telemetry)
    serve.run(build_application(config), name="raydex", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_a_caller_finds_its_request_in_spans_and_log_lines_of_the_replica_that_answered(url, collector, cluster):
    trace_id, caller_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    traced = {"traceparent": f"00-{trace_id}-{caller_id}-01", "X-Request-Id": "r1"}
    for headers in ({}, traced, {}):
        answer = httpx.get(f"{url}/search", params={"query": "burning question"}, headers=headers)
        assert answer.status_code == 200
    (root,) = eventually(lambda: collector.spans("GET /search"), within_s=30)
    (line,) = eventually(lambda: logged(cluster, "serve/replica_*.log", request_id="r1"), within_s=30)
    assert (root["trace_id"], root["parent_id"]) == (trace_id, caller_id)
    assert root["facts"]["raydex.request_id"] == "r1"
    assert (line["event"], line["trace_id"], line["status"]) == ("request answered", trace_id, 200)
    assert line["snapshots"] == root["facts"]["raydex.snapshots"]
    assert "burning" not in collector.file.read_text()
