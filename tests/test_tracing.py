"""Spans of requests: which are kept, what they say and never say, what they cost when nobody wants them."""

import logging
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from starlette.testclient import TestClient

import serve_index
from raydex.config import ServeConfig, ServeTelemetryConfig
from raydex.embed import HashEmbedder
from raydex.errors import EmbedError
from raydex.serve.app import create_app
from raydex.serve.engine import Engine
from raydex.serve.queries import DirectBackend
from raydex.serve.recorder import MemoryRecorder
from raydex.tracing import RequestTracing, open_sender, request_trace, stage_times
from tests.otlp import collecting
from tests.processes import free_port
from tests.serving import serving
from tests.snapshots import make_snapshot
from utils.logs import EventFormatter

QUESTION = {"query": "burning question"}
TRACE_ID, CALLER_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = {"validate", "embed", "filter", "lexical", "scan", "merge", "score", "fuse", "present", "serialise"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in ("docs", "other"):
        make_snapshot(folder / name, {f"https://{name}.example.org/a.html#b": "A burning question."}, HashEmbedder())
    return folder


class Service:
    """The app with its spans in memory, where they have all come when the block of its client ends."""

    def __init__(self, data_dir: Path, *, share: float, **settings: Any) -> None:
        config = ServeConfig(data_dir=data_dir, telemetry=ServeTelemetryConfig(trace_share=share, **settings))
        self.exporter = InMemorySpanExporter()
        self.engine = Engine(config)
        self.client = TestClient(create_app(DirectBackend(self.engine, MemoryRecorder()), config, spans=self.exporter))

    def spans(self) -> Any:
        return self.exporter.get_finished_spans()

    def root(self) -> Any:
        (root,) = [span for span in self.spans() if span.kind is SpanKind.SERVER]
        return root

    def written(self) -> str:
        return "\n".join(span.to_json() for span in self.spans())


def asked(data_dir: Path, *, share: float, headers: dict[str, str] | None = None, **settings: Any) -> Service:
    """Return a service that was asked one question."""
    service = Service(data_dir, share=share, **settings)
    with service.client as client:
        assert client.get("/search", params=QUESTION, headers=headers).status_code == 200
    return service


def test_a_request_is_a_span_with_a_span_for_each_stage_of_each_index(data_dir):
    one = asked(data_dir, share=1.0, headers={"X-Request-Id": "r1"})
    root = one.root()
    parts = [span for span in one.spans() if span is not root]
    assert root.name == "GET /search"
    assert root.attributes["raydex.request_id"] == "r1"
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["raydex.snapshots"].startswith("docs:")
    assert {span.name for span in parts} == STAGES
    assert all(span.parent.span_id == root.context.span_id for span in parts)
    assert all(root.start_time <= span.start_time <= span.end_time <= root.end_time for span in parts)
    ended = {span.name: span.end_time for span in parts if span.name in {"validate", "embed"}}
    assert ended["validate"] < ended["embed"]
    scans = Counter(span.attributes.get("raydex.index") for span in parts if span.name == "scan")
    assert scans == {"docs": 1, "other": 1}


def test_no_span_tells_what_was_asked_unless_the_settings_say_so(data_dir):
    one = Service(data_dir, share=1.0)
    with one.client as client:
        client.get("/search", params=QUESTION)
        client.post("/search", json={"queries": ["burning question"]})
        client.get("/search", params=QUESTION | {"k": 1000})
        client.get("/sections/burning-question")
        client.get("/suggest", params={"query": "burning"})
        client.get("/burning/question")
    assert len([span for span in one.spans() if span.kind is SpanKind.SERVER]) == 6
    assert "burning" not in one.written()
    told = asked(data_dir, share=1.0, trace_queries=True)
    assert told.root().attributes["raydex.query"] == "burning question"


def test_every_failure_is_kept_and_none_of_the_rest_with_a_share_of_zero(data_dir, monkeypatch):
    one = Service(data_dir, share=0.0)
    with one.client as client:
        client.get("/search", params=QUESTION)
        assert client.get("/search", params={"query": ""}).status_code == 422

        def broken(*_: object) -> None:
            raise EmbedError("no model")

        monkeypatch.setattr(one.engine, "embed", broken)
        assert client.get("/search", params={"query": "another question"}).status_code == 503
    root = one.root()
    assert root.attributes["http.response.status_code"] == 503
    assert not root.status.is_ok


def test_the_share_decides_by_the_id_of_the_trace_so_that_all_services_decide_alike(data_dir):
    kept = {share: set(sampled_at(share)) for share in (0.2, 0.5)}
    assert kept[0.2] <= kept[0.5]
    assert 10 < len(kept[0.2]) < len(kept[0.5]) < 90


def sampled_at(share: float) -> list[int]:
    """Return which of a hundred traces, the same for each share, are kept."""
    exporter = InMemorySpanExporter()
    sender = open_sender(ServeTelemetryConfig(), "test", exporter)
    assert sender
    tracing = RequestTracing(sender, share=share, follows_callers=False)
    for number in range(100):
        trace_id = number * 0x9E3779B97F4A7C15 % 2**64 | 1 << 64
        tracing.begin({"traceparent": f"00-{trace_id:032x}-{CALLER_ID}-01"}).end("request", failed=False, facts={})
    tracing.close()
    return [span.context.trace_id for span in exporter.get_finished_spans() if span.context]


def test_a_caller_that_traces_gets_its_spans_below_its_own(data_dir):
    headers = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-01"}
    root = asked(data_dir, share=0.0, headers=headers).root()
    assert f"{root.context.trace_id:032x}" == TRACE_ID
    assert f"{root.parent.span_id:016x}" == CALLER_ID


def test_a_caller_decides_nothing_where_it_does_not_trace_or_is_ignored(data_dir):
    untraced = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-00"}
    traced = {"traceparent": f"00-{TRACE_ID}-{CALLER_ID}-01"}
    assert not asked(data_dir, share=0.0, headers=untraced).spans()
    assert not asked(data_dir, share=0.0, headers=traced, trace_callers="ignore").spans()
    assert not asked(data_dir, share=0.0, headers={"traceparent": "00-nonsense"}).spans()


def test_log_lines_of_a_request_bear_its_request_id_and_its_trace_id(data_dir, caplog):
    caplog.set_level(logging.INFO)
    caplog.handler.setFormatter(EventFormatter("text"))
    one = asked(data_dir, share=1.0, headers={"X-Request-Id": "r1"})
    (line,) = [line for line in caplog.text.splitlines() if "request answered" in line]
    assert f"request_id=r1 trace_id={one.root().context.trace_id:032x}" in line


def test_without_an_endpoint_no_request_has_a_trace_and_no_thread_is_started(data_dir):
    config = ServeConfig(data_dir=data_dir)
    assert open_sender(config.telemetry, "raydex-serve") is None
    with TestClient(create_app(DirectBackend(Engine(config), MemoryRecorder()), config)) as client:
        assert client.get("/search", params=QUESTION).status_code == 200
        assert not any("BatchSpan" in thread.name for thread in threading.enumerate())
    assert request_trace() is None
    assert type(stage_times()).__name__ == "StageTimes"


def test_spans_reach_a_real_collector_over_otlp(data_dir, tmp_path):
    with collecting(tmp_path) as collector:
        telemetry = ServeTelemetryConfig(trace_endpoint=collector.endpoint, trace_share=1.0)
        with serving(ServeConfig(data_dir=data_dir, telemetry=telemetry)) as url:
            ask(url)
        (root,) = collector.spans("GET /search")
        parts = [span for span in collector.spans() if span["parent_id"] == root["span_id"]]
    assert root["service"] == "raydex-serve"
    assert root["facts"]["raydex.request_id"] == "r1"
    assert {span["name"] for span in parts} == STAGES
    assert {span["trace_id"] for span in parts} == {root["trace_id"]}


def test_a_service_that_cannot_trace_as_it_is_told_does_not_start(data_dir, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    endpoint = ["--trace-endpoint", "http://127.0.0.1:1/v1/traces"]
    assert serve_index.main(["--data-dir", str(data_dir), *endpoint]) == serve_index.REFUSED
    assert "pip install -r requirements-otlp.txt" in capsys.readouterr().err


def test_a_collector_that_is_away_fails_no_request(data_dir):
    telemetry = ServeTelemetryConfig(trace_endpoint=f"http://127.0.0.1:{free_port()}/v1/traces", trace_share=1.0)
    with serving(ServeConfig(data_dir=data_dir, telemetry=telemetry)) as url:
        ask(url)


def ask(url: str) -> None:
    assert httpx.get(f"{url}/search", params=QUESTION, headers={"X-Request-Id": "r1"}).status_code == 200
