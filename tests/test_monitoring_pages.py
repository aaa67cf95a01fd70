"""Charts and pages over a Prometheus that answers what a test says: text stays text, failures are told."""

import json
import math
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl
from xml.etree.ElementTree import tostring

import pytest
from selectolax.lexbor import LexborHTMLParser, LexborNode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

import serve_index
from raydex.config import ServeConfig
from raydex.embed import HashEmbedder
from raydex.errors import ConfigError
from raydex.monitoring import __main__ as command
from raydex.monitoring.charts import Line, chart, time_ticks, value_ticks, written
from raydex.monitoring.dashboards import chosen, fill, grafana_json, read_dashboard
from raydex.monitoring.pages import create_charts
from raydex.monitoring.panels import OURS, Dashboard
from raydex.monitoring.running import Monitoring, ServerThread, dashboards_folder, listening, place_dashboard
from tests.processes import free_port
from tests.snapshots import make_snapshot

EVIL = '<script>alert(1)</script>"&'


def drawn(*lines: Line, unit: str = "short", end: float = 60) -> str:
    figure = chart("A chart", lines, unit=unit, start=0, end=end, step_s=10)
    return tostring(figure, encoding="unicode", method="html")


def scripts(text: str) -> list[LexborNode]:
    """Return what a browser would run, or take for an attribute that runs something."""
    return LexborHTMLParser(text).css("script, [onload], [onerror], [href^=javascript]")


def test_a_line_is_broken_where_values_are_missing_and_a_lone_value_is_a_dot():
    points = ((0.0, 1.0), (10.0, 2.0), (20.0, math.nan), (40.0, 1.0))
    path = re.findall(r' d="([^"]*)"', drawn(Line("a", points)))[0]
    assert re.sub(r"[\d. ]+", "", path.replace("h0", "h")) == "MhLMh"


def test_text_of_labels_and_titles_never_becomes_markup():
    text = drawn(Line(EVIL, ((0.0, 1.0),)))
    assert scripts(text) == []
    assert "&lt;script&gt;" in text


def test_the_picture_is_told_to_those_who_do_not_see_it():
    assert 'aria-label="A chart: a 50 ms"' in drawn(Line("a", ((0.0, 0.05),)), unit="s")


@pytest.mark.parametrize(
    ("values", "unit", "ticks"),
    [
        ([], "short", [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ([0.0, 0.0], "percentunit", [0, 0.002, 0.004, 0.006, 0.008, 0.01]),
        ([3.0, 97.0], "short", [0, 20, 40, 60, 80, 100]),
        ([-4.0, 4.0], "short", [-4, -2, 0, 2, 4]),
        ([400_000.0], "s", [0, 86400, 2 * 86400, 3 * 86400, 4 * 86400, 5 * 86400]),
        ([3 * 2**30], "bytes", [0, 2**30, 2 * 2**30, 3 * 2**30]),
    ],
)
def test_the_scale_has_round_numbers_in_the_unit_people_read(values, unit, ticks):
    shown = value_ticks(values, unit)
    assert shown[0] == pytest.approx(ticks[0])
    assert shown[-1] == pytest.approx(ticks[-1]) or unit == "bytes"
    assert len(shown) <= 7
    if unit != "bytes":
        assert shown == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00032, "s", "320 µs"),
        (0.0032, "s", "3.2 ms"),
        (45.0, "s", "45 s"),
        (200_000.0, "s", "2.315 d"),
        (3.2, "ms", "3.2 ms"),
        (1536.0, "bytes", "1.5 KiB"),
        (1536.0, "Bps", "1.5 KiB/s"),
        (0.0123, "percentunit", "1.23 %"),
        (12.0, "%", "12 %"),
        (12_345.0, "short", "12.35 k"),
        (0.0, "s", "0 s"),
        (3.0, "qps", "3 qps"),
        (math.nan, "s", "–"),
    ],
)
def test_values_are_written_as_people_read_them(value, unit, text):
    assert written(value, unit) == text


@pytest.mark.parametrize("seconds", [1, 60, 300, 3600, 86400, 30 * 86400, 400 * 86400])
def test_moments_are_few_and_round(seconds):
    moments = [moment for moment, _ in time_ticks(1_700_000_000, 1_700_000_000 + seconds)]
    assert 1 <= len(moments) <= 7
    assert all(1_700_000_000 <= moment <= 1_700_000_000 + seconds for moment in moments)


def test_our_dashboard_is_the_same_when_it_is_read_back_as_grafana_has_it():
    read = read_dashboard(grafana_json(OURS))
    assert [(p.id, p.title, p.targets, p.help) for p in read.panels] == [
        (p.id, p.title, p.targets, p.help) for p in OURS.panels
    ]
    assert [title for title, _ in read.rows] == [title for title, _ in OURS.rows]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"uid": "a", "title": "b", "panels": [1]}', '{"panels": {}}'])
def test_a_file_that_is_no_dashboard_is_refused(text):
    with pytest.raises(ValueError, match="not a dashboard"):
        read_dashboard(text)


def test_variables_of_a_dashboard_stand_for_all_until_one_is_asked_for():
    board = Dashboard(uid="u", title="t", rows=(), variables={"App": ".*", "Node": "head|worker"})
    expr = 'a{app=~"$App",node=~"${Node:regex}",x=~"$Other"}[$__rate_interval] b[$__range]'
    everything = fill(expr, chosen(board, {"App": ["All"], "Unknown": ["x"]}), range_s=300)
    assert everything == 'a{app=~".*",node=~"head|worker",x=~".*"}[1m] b[300s]'
    one = fill(expr, chosen(board, {"App": ['a"b.c', "d"]}), range_s=300)
    assert one.startswith('a{app=~"a\\"b\\\\.c|d",')


async def _prometheus(request: Request) -> Response:
    """Answer each expression with two series, except those that name a trouble."""
    if request.url.path == "/api/v1/alerts":
        labels, told = (
            {"alertname": "RaydexDown", "severity": "page"},
            {"summary": EVIL, "runbook": "docs/runbooks/down.md"},
        )
        return JSONResponse(
            {"status": "success", "data": {"alerts": [{"labels": labels, "annotations": told, "state": "firing"}]}}
        )
    form = dict(parse_qsl((await request.body()).decode()))
    expr, start, end = form["query"], float(form["start"]), float(form["end"])
    if "raydex_requests" in expr:
        return JSONResponse({"status": "error", "error": f"many-to-many {EVIL}"}, 422)
    if "raydex:" in expr:
        return PlainTextResponse("a proxy's page")
    values = [[start, "1"], [(start + end) / 2, "NaN"], [end, "+Inf"]]
    rows = [{"metric": {"__name__": "x", "stage": EVIL, "index": name}, "values": values} for name in ("a", "b")]
    return JSONResponse({"status": "success", "data": {"result": rows}})


@contextmanager
def served(app: Starlette) -> Iterator[str]:
    with listening(0) as listener, ServerThread(listener, app):
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("dashboards")
    (folder / "torn.json").write_text("{")
    (folder / "ray.json").write_text(json.dumps(_board("rayDefaultDashboard", "Core")))
    fake = Starlette(routes=[Route("/{path:path}", _prometheus, methods=["GET", "POST"])])
    with served(fake) as url, TestClient(create_charts(url, [folder])) as client:
        yield client


def _board(uid: str, title: str) -> dict[str, Any]:
    graph = {
        "type": "graph",
        "id": 24,
        "title": f"Node {EVIL}",
        "targets": [{"expr": "nodes", "legendFormat": "{{stage}}"}],
    }
    row = {"type": "row", "title": "Inside", "id": 1, "panels": [graph | {"id": 25, "title": "Collapsed"}]}
    return {"uid": uid, "title": title, "panels": [graph, row]}


def test_health_is_what_rays_dashboard_looks_for_and_claims_no_other_name(pages):
    health = pages.get("/api/health").json()
    assert health["database"] == "ok"
    assert "not Grafana" in health["version"]


def test_every_page_says_that_it_is_not_grafana_and_runs_no_script(pages):
    for path in ("/", "/ops", "/d/raydex", "/d/rayDefaultDashboard/", "/d-solo/raydex?panelId=3"):
        answer = pages.get(path)
        assert answer.status_code == 200, path
        assert "This is not Grafana" in answer.text
        assert scripts(answer.text) == []
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_an_expression_that_fails_is_told_in_its_panel_and_the_others_are_drawn(pages):
    text = pages.get("/ops").text
    assert "many-to-many &lt;script&gt;" in text
    assert "gives no JSON (status 200)" in text
    assert "<path" in text
    assert "RaydexDown" in text


def test_without_prometheus_the_page_says_so():
    with TestClient(create_charts(f"http://127.0.0.1:{free_port()}")) as client:
        text = client.get("/ops").text
    assert "gives no answer" in text
    assert "docs/monitoring.md" in text


def test_collapsed_rows_are_drawn_and_a_torn_file_is_left_out(pages):
    text = pages.get("/d/rayDefaultDashboard").text
    assert text.index("Requests a second") < text.index("Node &lt;script") < text.index("Collapsed")
    assert pages.get("/").text.count("<li>") == 3


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/d/none", 404),
        ("/d-solo/raydex?panelId=9999", 404),
        ("/d-solo/raydex", 404),
        ("/ops?from=yesterday", 400),
        ("/ops?from=now&to=now-1h", 400),
        ("/ops?from=now-999999w", 400),
        ("/ops?from=1700000000000&to=1700003600000", 200),
        ("/ops?from=&to=&refresh=&theme=dark", 200),
    ],
)
def test_addresses_are_checked(pages, path, status):
    assert pages.get(path).status_code == status


def test_a_page_is_renewed_as_often_as_asked_but_not_all_the_time(pages):
    assert 'content="30"' in pages.get("/d-solo/raydex?panelId=3&refresh=30s").text
    assert 'content="5"' in pages.get("/d-solo/raydex?panelId=3&refresh=1s").text
    assert "http-equiv" not in pages.get("/d-solo/raydex?panelId=3&refresh=").text


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH that a test fills with programs; nothing of the user's own environment."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in ("RAY_GRAFANA_HOST", "RAY_PROMETHEUS_HOST", "RAY_GRAFANA_IFRAME_HOST"):
        monkeypatch.delenv(name, raising=False)
    return folder


def install(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_monitoring_without_prometheus_names_the_package_and_exits_2(programs, tmp_path, capsys):
    make_snapshot(tmp_path / "docs", {"https://e.org/a.html#b": "a file"}, HashEmbedder())
    flags = ["--data-dir", str(tmp_path), "--monitoring", "--port", str(free_port())]
    assert serve_index.main(flags) == 2
    assert "apt-get install prometheus" in capsys.readouterr().err
    assert command.main(["--session", str(tmp_path)]) == 2


def test_monitoring_of_a_cluster_that_runs_is_refused_with_the_command_for_it():
    with pytest.raises(ConfigError, match=r"python -m raydex\.monitoring"):
        serve_index._monitoring(ServeConfig(monitoring=True, ray_address="127.0.0.2:6379"))


def test_ray_is_told_of_our_pages_and_the_environment_is_as_before_afterwards(programs):
    install(programs, "prometheus")
    with Monitoring() as monitoring:
        assert os.environ["RAY_GRAFANA_HOST"] == monitoring.charts_url
        assert os.environ["RAY_PROMETHEUS_HOST"] == monitoring.prometheus_url
    assert not {"RAY_GRAFANA_HOST", "RAY_PROMETHEUS_HOST", "RAY_GRAFANA_IFRAME_HOST"} & set(os.environ)


def test_a_taken_port_is_named(programs):
    install(programs, "prometheus")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}"), Monitoring(port=port):
            pass


@pytest.mark.parametrize("how", ["installed", "named"])
def test_where_grafana_is_our_pages_stay_away(programs, monkeypatch, how):
    install(programs, "prometheus")
    url = "http://localhost:3000"
    if how == "installed":
        install(programs, "grafana-server")
    else:
        monkeypatch.setenv("RAY_GRAFANA_HOST", url := "http://grafana.example.org")
    with Monitoring() as monitoring:
        assert (monitoring.charts_url, monitoring.grafana_url) == ("", url)
        assert os.environ["RAY_GRAFANA_HOST"] == url


def test_our_dashboard_is_placed_where_grafana_reads_rays(tmp_path, monkeypatch):
    assert dashboards_folder(tmp_path) == tmp_path / "metrics" / "grafana" / "dashboards"
    monkeypatch.setenv("RAY_METRICS_GRAFANA_DASHBOARD_OUTPUT_DIR", str(tmp_path / "own"))
    path = place_dashboard(dashboards_folder(tmp_path))
    assert path.parent == tmp_path / "own"
    assert read_dashboard(path.read_text()).uid == "raydex"
