"""The rules of Prometheus as data: runbooks, names, and promtool's own tests of what is raised when."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydex.metrics import METRICS
from raydex.monitoring.panels import OURS
from raydex.monitoring.rules import ALERTS, RECORDED, SECONDS, SLOW_S

ROOT = Path(__file__).parents[1]
PROMETHEUS = ROOT / "deploy" / "prometheus"
promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not there: apt-get install prometheus")

OF_RAY = {"ray_node_mem_used", "ray_node_mem_total", "ray_node_mem_available", "ray_component_uss_bytes"}
"""What we use of Ray's own figures; tests/test_monitoring_live.py sees that Ray exports them."""


def expressions() -> list[str]:
    alerts = [stage.expr for alert in ALERTS for stage in alert.stages]
    return [rule.expr for rule in RECORDED] + alerts + [t.expr for panel in OURS.panels for t in panel.targets]


def test_each_alert_has_a_runbook_and_each_runbook_an_alert():
    pages = {path.stem: path.read_text() for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert set(pages) == {alert.runbook for alert in ALERTS}
    for alert in ALERTS:
        assert pages[alert.runbook].startswith(f"# {alert.name}\n")
        assert "\n## Look\n" in pages[alert.runbook]
        assert "\n## Do\n" in pages[alert.runbook]


def test_expressions_name_only_metrics_that_are_exported():
    ours = {metric.exported for metric in METRICS.values()}
    for expr in expressions():
        for name in re.findall(r"\bray_\w+", expr):
            assert re.sub(r"_(bucket|count|sum)$", "", name) in ours | OF_RAY, expr


def test_the_meaning_of_each_metric_is_plain_ascii_as_ray_takes_nothing_else():
    assert [metric.name for metric in METRICS.values() if not metric.help.isascii()] == []


def test_expressions_name_only_recorded_series_that_there_are():
    recorded = {rule.name for rule in RECORDED}
    for expr in expressions():
        assert set(re.findall(r"raydex:\w+(?::\w+)?", expr)) <= recorded, expr


def test_no_expression_uses_the_sum_of_a_histogram_which_ray_makes_up_from_bucket_middles():
    assert not [expr for expr in expressions() if re.search(r"_sum\b", expr)]


def test_the_limit_of_a_slow_search_is_a_bound_of_the_histogram():
    metric = next(metric for metric in METRICS.values() if metric.exported == SECONDS)
    assert float(SLOW_S) in metric.buckets


def test_every_metric_has_a_panel_of_its_own_and_ids_are_told_apart():
    ids = [panel.id for panel in OURS.panels]
    assert len(ids) == len(set(ids))
    assert {panel.title for panel in OURS.panels} >= set(METRICS)
    assert json.loads((ROOT / "deploy" / "grafana" / "raydex.json").read_text())["uid"] == OURS.uid


@promtool
def test_promtool_finds_no_fault_in_the_rules():
    checked = subprocess.run(
        ["promtool", "check", "rules", PROMETHEUS / "raydex.rules.yml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@promtool
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["raydex.tests.yml", "raydex.long.tests.yml"])
def test_alerts_are_raised_when_they_should_be_and_no_others(name):
    tested = subprocess.run(["promtool", "test", "rules", PROMETHEUS / name], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_promtool_sees_every_stage_of_every_alert_raised():
    raised: set[tuple[str, str]] = set()
    for path in PROMETHEUS.glob("*.tests.yml"):
        for test in yaml.safe_load(path.read_text())["tests"]:
            for expected in test.get("promql_expr_test", ()):
                raised |= {found for sample in expected["exp_samples"] if (found := _raised(sample))}
    assert raised == {(alert.name, stage.severity) for alert in ALERTS for stage in alert.stages}


def _raised(sample: dict[str, Any]) -> tuple[str, str] | None:
    labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
    return (labels["alertname"], labels["severity"]) if "alertname" in labels else None
