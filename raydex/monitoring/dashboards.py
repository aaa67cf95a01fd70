"""Dashboards as Grafana keeps them: ours written, Ray's read; what `$name` stands for in their expressions.

Dashboard → grafana_json(dashboard) → deploy/grafana/raydex.json
<session>/metrics/grafana/dashboards/*.json → read_dashboard(text) → Dashboard
fill(expr, variables, seconds) → PromQL
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from raydex.monitoring.panels import Dashboard, Panel, Target

PANEL_WIDTH, PANEL_HEIGHT, PANELS_A_ROW = 12, 8, 2
VARIABLE = re.compile(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))")
RATE_INTERVAL = "1m"
"""What Grafana makes of $__rate_interval and $__interval at our scrape interval, within reason."""


def grafana_json(dashboard: Dashboard) -> str:
    """Return the dashboard in Grafana's format, for any Prometheus data source."""
    panels: list[dict[str, Any]] = []
    y, row_id = 0, 1000
    for title, row in dashboard.rows:
        grid = {"h": 1, "w": 24, "x": 0, "y": y}
        panels.append({"type": "row", "title": title, "id": row_id, "collapsed": False, "panels": [], "gridPos": grid})
        y, row_id = y + 1, row_id + 1
        panels += [_grafana_panel(panel, position, y) for position, panel in enumerate(row)]
        y += -(-len(row) // PANELS_A_ROW) * PANEL_HEIGHT
    document = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["raydex"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }
    return json.dumps(document, indent=1) + "\n"


def read_dashboard(text: str) -> Dashboard:
    """Return the panels that have expressions; of a variable that lists values, all of them.

    Raises ValueError when the text is no dashboard.
    """
    try:
        document = json.loads(text)
        rows = tuple((title, tuple(panels)) for title, panels in _rows(document["panels"]) if panels)
        variables = {v["name"]: _all_of(v) for v in document.get("templating", {}).get("list", ())}
        return Dashboard(uid=document["uid"], title=document["title"], rows=rows, variables=variables)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"not a dashboard: {error!r}") from error


def fill(expr: str, variables: Mapping[str, str], *, range_s: float) -> str:
    """Return PromQL with a value for each `$name`; one that nobody knows matches everything."""
    known = {"__rate_interval": RATE_INTERVAL, "__interval": RATE_INTERVAL, "__range": f"{max(1, round(range_s))}s"}
    return VARIABLE.sub(lambda found: {**variables, **known}.get(found[1] or found[2], ".*"), expr)


def chosen(dashboard: Dashboard, asked: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the dashboard's variables with those that were asked for by value, made safe to stand in quotes.

    asked: name → values; `All`, as Grafana's own pages write it, or nothing, leaves the variable as it is.
    """
    values = dict(dashboard.variables)
    for name, texts in asked.items():
        wanted = [text for text in texts if text not in {"", "All", "$__all", ".*", ".+", "undefined"}]
        if name in values and wanted:
            values[name] = "|".join(_quoted(text) for text in wanted)
    return values


def _quoted(text: str) -> str:
    """Escape for a regular expression (RE2 takes what re.escape writes, once each backslash stands in a string)."""
    return re.escape(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "")


def _all_of(variable: Mapping[str, Any]) -> str:
    if variable.get("includeAll"):
        listed = variable.get("query") if variable["type"] == "custom" else None
        return variable.get("allValue") or (str(listed).replace(", ", "|") if listed else ".*")
    value = (variable.get("current") or {}).get("value")
    return value if isinstance(value, str) else ".*"


def _rows(panels: list[Any], title: str = "") -> Iterator[tuple[str, list[Panel]]]:
    """Yield (title, panels) of each row, of collapsed ones too; what stands before the first row has no title."""
    row: list[Panel] = []
    for panel in panels:
        if panel["type"] != "row":
            if panel.get("targets"):
                row.append(_read_panel(panel))
            continue
        yield title, row
        title, row = panel.get("title", ""), []
        for _, inside in _rows(panel.get("panels") or []):
            row += inside
    yield title, row


def _read_panel(panel: Mapping[str, Any]) -> Panel:
    unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
    axes = panel.get("yaxes") or [{}]
    return Panel(
        id=int(panel["id"]),
        title=panel["title"],
        targets=tuple(Target(t["expr"], t.get("legendFormat", "")) for t in panel["targets"] if "expr" in t),
        unit=unit or axes[0].get("format") or "short",
        help=panel.get("description") or "",
    )


def _grafana_panel(panel: Panel, position: int, y: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "type": "timeseries",
        "id": panel.id,
        "title": panel.title,
        "description": panel.help,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": "short" if panel.unit == "/s" else panel.unit}, "overrides": []},
        "gridPos": {
            "h": PANEL_HEIGHT,
            "w": PANEL_WIDTH,
            "x": position % PANELS_A_ROW * PANEL_WIDTH,
            "y": y + position // PANELS_A_ROW * PANEL_HEIGHT,
        },
        "targets": [
            {"refId": chr(ord("A") + number), "expr": target.expr, "legendFormat": target.legend, "datasource": source}
            for number, target in enumerate(panel.targets)
        ],
    }
