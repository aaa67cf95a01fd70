"""A real Prometheus over a real service and a real build: what Ray exports, and that every expression finds values."""

import asyncio
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from starlette.testclient import TestClient

import build_index
from raydex.client import RaydexClient
from raydex.config import AnalyticsConfig, ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import PrometheusError, ServiceError
from raydex.keys import create_key
from raydex.metrics import METRICS
from raydex.monitoring.dashboards import fill, read_dashboard
from raydex.monitoring.pages import create_charts
from raydex.monitoring.panels import OURS, Target
from raydex.monitoring.prometheus import prometheus_running
from raydex.monitoring.promql import PromQL, Series
from raydex.monitoring.rules import ALERTS, RECORDED
from tests.docsite import DocSite, page
from tests.processes import free_port
from tests.snapshots import make_snapshot
from tests.waiting import eventually

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not shutil.which("prometheus"), reason="prometheus is not there: apt-get install prometheus"),
]

T = TypeVar("T")


SELDOM_THERE = {"raydex_limiter_failures", "raydex_analytics_dropped", "raydex_partial_answers"}
"""Metrics that a service which lacks nothing does not export: a Redis must be away, a disk full, a shard group lost.
Ray goes on to export counters of services that have ended, so that those of other tests may be there."""


@pytest.fixture(scope="module")
def session_dir(cluster: Any) -> Path:
    return Path(cluster.address_info["session_dir"])


@pytest.fixture(scope="module")
def scraping(session_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Prometheus, at work before there is anything to see: Ray forgets the gauges of a build that has ended."""
    discovery = session_dir / "prom_metrics_service_discovery.json"
    eventually(discovery.exists, within_s=60)
    with prometheus_running(tmp_path_factory.mktemp("prometheus"), free_port(), discovery, interval_s=1) as url:
        yield url


@pytest.fixture(scope="module")
def data_dir(scraping: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index that a build has made on the cluster, so that the build's own figures are exported too."""
    data_dir = tmp_path_factory.mktemp("data")
    with DocSite({"index.html": page("Home", "The first page opens a file.")}) as site:
        given = ["--index", "docs", "--data-dir", str(data_dir), "--model", "hash"]
        assert build_index.main([site.url, *given]) == 0
    return data_dir


@pytest.fixture(scope="module")
def prometheus(scraping: str, data_dir: Path) -> Iterator[str]:
    """Prometheus, once it has seen the service answer for a while: searches, mistakes, nothing found."""
    from ray import serve

    from raydex.serve.deployments import build_application

    token, _ = create_key(data_dir / "keys.json", "test")
    port = free_port()
    (queries := data_dir / "queries.jsonl").write_text(
        json.dumps({"id": "q", "query": "open a file", "gold": ["https://docs.example.org/a.html#b"]})
    )
    config = ServeConfig(
        data_dir=data_dir,
        replicas=1,
        port=port,
        canary_queries=str(queries),
        canary_key=token,
        canary_interval_s=1,
        analytics=AnalyticsConfig(query_log="hashes", flush_s=1),
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_application(config), name="raydex", route_prefix="/")
    with RaydexClient(url := f"http://127.0.0.1:{port}", attempts=1, api_key=token) as client:

        def loaded() -> bool:
            client.search("open a file", k=3)
            client.search("open a file", k=3, offset=500)
            client.feedback("open a file", "https://docs.example.org/", "click")
            client.search("open a file", k=3, rerank=True)  # there is no model for it, which is counted
            with pytest.raises(ServiceError):
                client.search(" ")
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(f"{url}/search?query=file", timeout=10)
            return any(value > 0 for row in over(scraping, BUSY) for _, value in row.points)

        eventually(loaded, within_s=120)
        make_snapshot(data_dir / "docs", {"https://docs.example.org/a.html#b": "what it swaps to"}, HashEmbedder())
        yield scraping
    serve.shutdown()


BUSY = 'sum by (outcome) (rate(ray_raydex_requests_total{outcome="client_error"}[1m]))'


def asked(url: str, question: Callable[[PromQL], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with PromQL(url) as prometheus:
            return await question(prometheus)

    return asyncio.run(ask())


def over(url: str, expr: str) -> list[Series]:
    now = time.time()
    return asked(url, lambda prometheus: prometheus.over(expr, now - 300, now, 5))


def found(url: str, expr: str) -> list[Series]:
    """Return the series of an expression, as soon as there is one."""
    return eventually(lambda: over(url, expr), within_s=60)


@pytest.mark.parametrize("metric", METRICS.values(), ids=lambda metric: metric.name)
def test_ray_exports_a_metric_under_the_name_and_labels_that_the_table_says(prometheus, metric):
    name = metric.exported + ("_bucket" if metric.kind == "histogram" else "")
    if metric.name in SELDOM_THERE and not over(prometheus, name):
        return
    own = {"application", "deployment", "replica"} if metric.program == "serve" else set()
    of_ray = {"__name__", "Component", "NodeAddress", "SessionName", "Version", "WorkerId", "le", "instance", "job"}
    for series in found(prometheus, name):
        labels = {label for label in series.labels if not label.startswith("otel_scope_")}
        assert labels - of_ray == set(metric.labels) | own


@pytest.mark.parametrize("panel", OURS.panels, ids=lambda panel: panel.title)
def test_every_expression_of_our_panels_finds_something(prometheus, panel):
    for target in panel.targets:
        if panel.title in SELDOM_THERE and not over(prometheus, target.expr):
            continue
        series = found(prometheus, target.expr)
        labels = re.findall(r"\{\{(\w+)\}\}", target.legend)
        assert all(row.labels.get(label) for row in series for label in labels), target


@pytest.mark.parametrize("rule", RECORDED, ids=lambda rule: rule.name)
def test_every_recorded_series_is_there(prometheus, rule):
    found(prometheus, rule.expr)
    found(prometheus, rule.name)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_series_that_an_alert_compares_is_there_and_no_expression_is_refused(prometheus, alert):
    for stage in alert.stages:
        over(prometheus, stage.expr)
        for term in stage.terms:
            over(prometheus, str(term))
            if term.series:
                found(prometheus, term.series)


def test_prometheus_evaluates_every_rule_without_an_error(prometheus):
    def rules() -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{prometheus}/api/v1/rules", timeout=10) as response:
            groups = json.load(response)["data"]["groups"]
        return [rule for group in groups for rule in group["rules"] if rule["health"] != "unknown"]

    count = len(RECORDED) + sum(len(alert.stages) for alert in ALERTS)
    evaluated = eventually(lambda: r if len(r := rules()) == count else None, within_s=60)
    assert evaluated is not None
    assert [(rule["name"], rule.get("lastError")) for rule in evaluated if rule["health"] != "ok"] == []


def test_a_small_healthy_service_raises_no_alert_that_wakes_anybody(prometheus):
    alerts = asked(prometheus, lambda p: p.alerts())
    assert [alert["labels"] for alert in alerts if alert["labels"]["severity"] == "page"] == []


def test_prometheus_says_what_is_wrong_with_an_expression(prometheus):
    with pytest.raises(PrometheusError, match="parse error"):
        over(prometheus, "sum(")
    with pytest.raises(PrometheusError, match="gives no answer"):
        over(f"http://127.0.0.1:{free_port()}", "up")


@pytest.fixture(scope="module")
def rays_dashboards(session_dir: Path, prometheus: str) -> Path:
    return session_dir / "metrics" / "grafana" / "dashboards"


def test_no_expression_of_rays_own_dashboards_is_refused(rays_dashboards, prometheus):
    boards = [read_dashboard(path.read_text()) for path in sorted(rays_dashboards.glob("*.json"))]
    assert {"rayDefaultDashboard", "rayServeDashboard", "rayServeDeploymentDashboard"} <= {b.uid for b in boards}
    assert sum(len(board.panels) for board in boards) > 100

    async def refused(prometheus: PromQL) -> list[tuple[str, str]]:
        complaints, now = [], time.time()
        for board in boards:
            for target in _targets_of(board):
                try:
                    await prometheus.over(fill(target.expr, board.variables, range_s=300), now - 300, now, 15)
                except PrometheusError as error:
                    complaints.append((target.expr, error.reason))
        return complaints

    assert asked(prometheus, refused) == []


def _targets_of(board: Any) -> Iterator[Target]:
    for panel in board.panels:
        yield from panel.targets


@pytest.fixture(scope="module")
def pages(prometheus: str, rays_dashboards: Path) -> Iterator[TestClient]:
    with TestClient(create_charts(prometheus, [rays_dashboards])) as client:
        yield client


def lines_drawn(text: str) -> int:
    return len(re.findall(r'<path d="M', text))


def test_ops_draws_the_key_series(pages):
    text = pages.get("/ops?from=now-5m").text
    assert "This is not Grafana" in text
    assert text.count("<section") == len(OURS.rows[0][1])
    assert "No values in this time" not in text
    assert lines_drawn(text) >= len(OURS.rows[0][1])


def test_rays_core_dashboard_is_drawn_below_our_panels(pages):
    text = pages.get("/d/rayDefaultDashboard/?orgId=1&theme=dark&kiosk=1&refresh=5s&from=now-5m&to=now").text
    assert text.index("Requests a second") < text.index("Node Count")
    assert '<meta http-equiv="refresh" content="5">' in text
    assert 'class="failed"' not in text


@pytest.mark.parametrize(
    ("uid", "panel_id", "title"),
    [
        ("rayDefaultDashboard/default-dashboard", 41, "Cluster Utilization"),
        ("rayServeDashboard", 7, "QPS per application"),
        ("raydex", 3, "Seconds of a search"),
    ],
)
def test_one_panel_is_drawn_alone_as_rays_dashboard_asks_for_it(pages, uid, panel_id, title):
    asked = f"orgId=1&theme=light&panelId={panel_id}&var-datasource=Prometheus&from=now-5m&to=now&timezone=UTC"
    text = eventually(lambda: t if lines_drawn(t := pages.get(f"/d-solo/{uid}?{asked}").text) else "", within_s=60)
    assert f"<h3>{title}</h3>" in text
    assert "<h1>" not in text


def test_a_variable_picks_the_series_that_are_drawn(pages):
    path = "/d-solo/rayServeDashboard?panelId=7&from=now-5m&to=now"
    assert lines_drawn(pages.get(f"{path}&var-Application=raydex").text)
    assert lines_drawn(pages.get(f"{path}&var-Application=other&var-Application=raydex").text)
    for nobody in ("other", 'raydex"} or vector(1) #', "ray.ex", "raydex\\"):
        text = pages.get(path, params={"panelId": 7, "from": "now-5m", "to": "now", "var-Application": nobody}).text
        assert "No values in this time" in text, text
