"""The chart pages: panels over Prometheus as plain HTML, where Ray's dashboard looks for Grafana. This is not Grafana.

    app = create_charts(prometheus_url, folders)      Starlette

/  ·  /ops  ·  /d/{uid}  ·  /d-solo/{uid}?panelId=7&from=now-1h&to=now  ·  /api/health

Ray's dashboard asks /api/health whether to embed charts, and shows /d/… and /d-solo/… in frames. On its Metrics page
our own panels stand above Ray's.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from raydex.errors import PrometheusError
from raydex.monitoring.charts import Line, chart
from raydex.monitoring.dashboards import chosen, fill, read_dashboard
from raydex.monitoring.html import NOTE, page, render
from raydex.monitoring.panels import KEY_PANELS, OURS, Dashboard, Panel
from raydex.monitoring.promql import PromQL, Series

RAY_CORE_UID = "rayDefaultDashboard"
POINTS = 240
LEAST_STEP_S = 1.0
AT_ONCE = 8
"""Expressions that Prometheus is asked at the same time for one page."""

LEAST_REFRESH_S, LONGEST_RANGE_S = 5, 400 * 86400
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
LEGEND = re.compile(r"\{\{\s*([\w, ]+?)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Span:
    """What a page shows: from start to end, in seconds since 1970, a value for each step."""

    start: float
    end: float

    @property
    def step_s(self) -> float:
        return max(LEAST_STEP_S, math.ceil((self.end - self.start) / POINTS))


def create_charts(prometheus_url: str, folders: Sequence[Path] = ()) -> Starlette:
    """folders: where Ray, or anybody, puts dashboards as Grafana's JSON; read anew for each page."""

    @asynccontextmanager
    async def connected(app: Starlette) -> AsyncIterator[None]:
        async with PromQL(prometheus_url) as app.state.prometheus:
            yield

    pages = ChartPages(folders)
    return Starlette(
        lifespan=connected,
        routes=[
            Route("/api/health", _health),
            Route("/", pages.overview),
            Route("/ops", pages.ops),
            Route("/d/{uid}", pages.dashboard),
            Route("/d/{uid}/{rest:path}", pages.dashboard),
            Route("/d-solo/{uid}", pages.panel),
            Route("/d-solo/{uid}/{rest:path}", pages.panel),
        ],
    )


async def _health(_: Request) -> Response:
    """Answer in the words in which Ray asks; `database` is what it looks at."""
    return JSONResponse({"database": "ok", "version": NOTE.format(source="Prometheus")})


class ChartPages:
    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    async def overview(self, request: Request) -> Response:
        body = Element("ul", {"class": "boards"})
        for path, title in (("ops", "Key series and alerts"), *((f"d/{b.uid}", b.title) for b in self._all())):
            SubElement(SubElement(body, "li"), "a", {"href": f"/{path}"}).text = title
        return _html(request, "Charts", [body])

    async def ops(self, request: Request) -> Response:
        prometheus: PromQL = request.app.state.prometheus
        try:
            alerts = _alerts(await prometheus.alerts())
        except PrometheusError as error:
            alerts = _complaint(str(error))
        return _html(request, "Raydex: key series", [alerts, *await _drawn(request, OURS, KEY_PANELS)])

    async def dashboard(self, request: Request) -> Response:
        board = self._find(request.path_params["uid"])
        parts = [
            *(await _rows(request, OURS, OURS.rows[:1]) if board.uid == RAY_CORE_UID else ()),
            *await _rows(request, board, board.rows),
        ]
        return _html(request, board.title, parts)

    async def panel(self, request: Request) -> Response:
        board = self._find(request.path_params["uid"])
        wanted = request.query_params.get("panelId", "").removeprefix("panel-")
        for panel in board.panels:
            if str(panel.id) == wanted:
                return _html(request, panel.title, await _drawn(request, board, [panel]), alone=True)
        raise HTTPException(404, f"dashboard {board.uid} has no panel {wanted!r}")

    def _find(self, uid: str) -> Dashboard:
        for board in self._all():
            if board.uid == uid:
                return board
        raise HTTPException(404, f"there is no dashboard {uid!r}")

    def _all(self) -> list[Dashboard]:
        found = [OURS]
        for path in (path for folder in self._folders for path in sorted(folder.glob("*.json"))):
            try:
                found.append(read_dashboard(path.read_text()))
            except (OSError, ValueError):  # being written just now, or none
                continue
        return found


async def _rows(request: Request, board: Dashboard, rows: Sequence[tuple[str, Sequence[Panel]]]) -> list[Element]:
    parts = []
    for title, panels in rows:
        if title:
            heading = Element("h2")
            heading.text = title
            parts.append(heading)
        parts += await _drawn(request, board, panels)
    return parts


async def _drawn(request: Request, board: Dashboard, panels: Sequence[Panel]) -> list[Element]:
    """Return a <section> for each panel; one that cannot be drawn says why."""
    span = _span(request.query_params)
    asked: dict[str, list[str]] = {}
    for key, value in request.query_params.multi_items():
        if key.startswith("var-"):
            asked.setdefault(key[4:], []).append(value)
    variables, turn = chosen(board, asked), asyncio.Semaphore(AT_ONCE)

    async def one(panel: Panel) -> Element:
        try:
            lines = await _lines(request.app.state.prometheus, panel, variables, span, turn)
        except PrometheusError as error:
            return _section(panel, _complaint(str(error)))
        if not lines:
            return _section(panel, _remark("No values in this time."))
        return _section(
            panel,
            chart(panel.title, lines, unit=panel.unit, start=span.start, end=span.end, step_s=span.step_s),
        )

    return list(await asyncio.gather(*(one(panel) for panel in panels)))


async def _lines(
    prometheus: PromQL, panel: Panel, variables: Mapping[str, str], span: Span, turn: asyncio.Semaphore
) -> list[Line]:
    async def of(expr: str) -> list[Series]:
        async with turn:
            filled = fill(expr, variables, range_s=span.end - span.start)
            return await prometheus.over(filled, span.start, span.end, span.step_s)

    found = await asyncio.gather(*(of(target.expr) for target in panel.targets))
    return [
        Line(_named(target.legend, series.labels), series.points)
        for target, rows in zip(panel.targets, found, strict=True)
        for series in rows
    ]


def _named(legend: str, labels: Mapping[str, str]) -> str:
    """Return the legend with values for `{{label}}` and `{{one, other}}`; without a legend, the labels."""
    if not legend:
        return ", ".join(f"{name}={value}" for name, value in labels.items() if name != "__name__")
    return LEGEND.sub(
        lambda found: " · ".join(v for name in found[1].split(",") if (v := labels.get(name.strip(), ""))), legend
    ).strip(" ·")


def _span(asked: Mapping[str, str]) -> Span:
    now = time.time()
    start, end = (_moment(asked.get(key) or usual, now) for key, usual in (("from", "now-30m"), ("to", "now")))
    if not 0 < end - start <= LONGEST_RANGE_S:
        raise HTTPException(400, "from must be before to, by 400 days at most")
    return Span(start, end)


def _moment(text: str, now: float) -> float:
    """Read now, now-30m, or milliseconds since 1970, as Grafana's addresses have them."""
    if text == "now":
        return now
    if found := re.fullmatch(r"now-(\d{1,6})([smhdw])", text):
        return now - int(found[1]) * SECONDS[found[2]]
    if re.fullmatch(r"\d{10,14}", text):
        return int(text) / 1000
    raise HTTPException(400, f"{text!r} is no time; expected now, now-30m or milliseconds since 1970")


def _refresh_s(text: str) -> int:
    """Return after how many seconds a page is to be asked for again, 0 for never."""
    found = re.fullmatch(r"(\d{1,5})([smhd])", text)
    return max(LEAST_REFRESH_S, int(found[1]) * SECONDS[found[2]]) if found else 0


def _section(panel: Panel, inside: Element) -> Element:
    section = Element("section", {"title": panel.help} if panel.help else {})
    SubElement(section, "h3").text = panel.title
    section.append(inside)
    return section


def _alerts(alerts: Sequence[Mapping[str, object]]) -> Element:
    if not alerts:
        return _remark("No alert is raised.")
    table = Element("table")
    for alert in alerts:
        labels, told = alert["labels"], alert["annotations"]
        assert isinstance(labels, Mapping)  # noqa: S101 - for mypy
        assert isinstance(told, Mapping)  # noqa: S101 - for mypy
        row = SubElement(table, "tr")
        cells = (labels.get("severity", ""), alert["state"], labels["alertname"], told.get("summary", ""))
        for text in (*cells, told.get("runbook", "")):
            SubElement(row, "td").text = str(text)
    return table


def _complaint(text: str) -> Element:
    element = Element("p", {"class": "failed"})
    element.text = text
    return element


def _remark(text: str) -> Element:
    element = Element("p", {"class": "quiet"})
    element.text = text
    return element


def _html(request: Request, title: str, parts: Sequence[Element], *, alone: bool = False) -> HTMLResponse:
    asked = request.query_params
    tree = page(
        title, parts, dark=asked.get("theme") == "dark", alone=alone, refresh_s=_refresh_s(asked.get("refresh", ""))
    )
    return render(tree)
