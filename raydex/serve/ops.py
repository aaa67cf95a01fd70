"""GET /ops: the key series of this process as a page, without a Prometheus. The same panels and the same charts.

Recent → lines for each of monitoring's KEY_PANELS that a process knows of → HTML

A key that may see some indexes only is shown those. What people look for is shown to admins alone. Figures are of the
one replica that answers.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from xml.etree.ElementTree import Element, SubElement

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from raydex.monitoring.charts import Line, chart
from raydex.monitoring.html import page, render
from raydex.monitoring.panels import KEY_PANELS
from raydex.serve.access import allowed_indexes
from raydex.serve.insights import Insights, may_see_report, report_sections
from raydex.serve.recent import BIN_S, SPREAD, Points, Recent, Window

PROBES = frozenset({"/healthz", "/readyz"})
NOT_OUR_FAULT = frozenset({"ok", "client_error", "too_late"})
REFRESH_S = 10
SPAN_S = SPREAD * BIN_S
NOTE = "The last half hour of the replica that answered. For all of them, and longer: serve_index.py --monitoring."

Allowed = frozenset[str] | None


def ops_routes(recent: Recent, insights: Insights, canary: Callable[[], Awaitable[Window | None]]) -> APIRouter:
    router = APIRouter()

    @router.get("/ops", summary="The key series of this replica, as a page", response_class=HTMLResponse)
    async def ops(request: Request) -> HTMLResponse:
        allowed = allowed_indexes(request.scope)
        has_report = insights.log.is_on and may_see_report(request.scope)
        told = report_sections(await insights.recent(allowed)) if has_report else []
        return render(ops_page(recent.window(), await canary(), allowed, told))

    return router


def ops_page(window: Window, canary: Window | None, allowed: Allowed, told: Sequence[Element] = ()) -> Element:
    """told: sections below the charts."""
    note = Element("p", {"class": "quiet"})
    note.text = NOTE
    parts = [note]
    for panel in KEY_PANELS:
        if panel.id in LINES:
            lines = LINES[panel.id](window, allowed)
        elif canary and panel.id in OF_CANARY:
            lines = OF_CANARY[panel.id](canary, allowed)
        else:
            continue
        section = Element("section", {"title": panel.help})
        SubElement(section, "h3").text = panel.title
        if lines:
            span = {"start": window.start, "end": window.end, "step_s": BIN_S}
            section.append(chart(panel.title, lines, unit=panel.unit, **span))
        else:
            SubElement(section, "p", {"class": "quiet"}).text = "No values in this time."
        parts.append(section)
    return page(
        "Raydex: key series", [*parts, *told], dark=False, alone=False, refresh_s=REFRESH_S, source="this process"
    )


def _requests(window: Window, _: Allowed) -> list[Line]:
    return _lines(
        (outcome, tuple((moment, count / SPAN_S) for moment, count in points))
        for outcome, points in window.counted("raydex_requests", "outcome", without=PROBES).items()
    )


def _failing(window: Window, _: Allowed) -> list[Line]:
    failed = window.counted("raydex_requests", without=PROBES | NOT_OUR_FAULT)
    return _lines([("1 minute", _shares(failed, window.counted("raydex_requests", without=PROBES)))])


def _seconds(window: Window, _: Allowed) -> list[Line]:
    search = ("route", "/search")
    return _lines(
        (f"p{share * 100:.0f}", points)
        for share in (0.5, 0.95, 0.99)
        for points in window.quantiles("raydex_request_seconds", share, only=search).values()
    )


def _stages(window: Window, _: Allowed) -> list[Line]:
    return _lines(window.quantiles("raydex_search_stage_seconds", 0.95, "stage").items())


def _nothing_found(window: Window, _: Allowed) -> list[Line]:
    nothing, queries = (window.counted(name) for name in ("raydex_zero_result_queries", "raydex_results"))
    return _lines([("1 minute", _shares(nothing, queries))])


def _index_ages(window: Window, allowed: Allowed) -> list[Line]:
    since = window.latest("raydex_last_success_timestamp_seconds")
    ages = window.latest("raydex_snapshot_age_seconds") | {
        labels: tuple((moment, moment - success) for moment, success in points) for labels, points in since.items()
    }
    return _of_indexes(ages, allowed)


def _canary_figures(window: Window, allowed: Allowed) -> list[Line]:
    """Of all indexes together: nothing for a key that may see some only."""
    told = {"recall@10": "raydex_canary_recall", "MRR@10": "raydex_canary_mrr"}
    if allowed is not None:
        return []
    return _lines((word, points) for word, name in told.items() for points in window.latest(name).values())


def _canary_seconds(window: Window, allowed: Allowed) -> list[Line]:
    if allowed is not None:
        return []
    return _lines(
        (f"p{share * 100:.0f}", points)
        for share in (0.5, 0.95, 0.99)
        for points in window.quantiles("raydex_canary_seconds", share).values()
    )


def _canary_queries(window: Window, allowed: Allowed) -> list[Line]:
    return _lines(window.counted("raydex_canary_queries", "outcome").items()) if allowed is None else []


def _partial(window: Window, _: Allowed) -> list[Line]:
    partial, answers = (window.counted(name) for name in ("raydex_partial_answers", "raydex_results"))
    return _lines([("1 minute", _shares(partial, answers))])


def _gauge(name: str) -> Callable[[Window, Allowed], list[Line]]:
    return lambda window, allowed: _of_indexes(window.latest(name), allowed)


def _of_indexes(found: dict[tuple[tuple[str, str], ...], Points], allowed: Allowed) -> list[Line]:
    return _lines(
        (" · ".join(value for _, value in labels), points)
        for labels, points in found.items()
        if allowed is None or dict(labels)["index"] in allowed
    )


def _shares(some: dict[str, Points], every: dict[str, Points]) -> Points:
    """Return some / every at each moment at which there was any."""
    part = dict(next(iter(some.values()), ()))
    whole = next(iter(every.values()), ())
    return tuple((moment, part.get(moment, 0.0) / count) for moment, count in whole if count)


def _lines(named: Iterable[tuple[str, Points]]) -> list[Line]:
    return [Line(name, points) for name, points in named if points]


LINES: dict[int, Callable[[Window, Allowed], list[Line]]] = {
    1: _requests,
    2: _failing,
    3: _seconds,
    4: _stages,
    5: _nothing_found,
    6: _index_ages,
    7: _gauge("raydex_snapshot_chunks"),
    8: _gauge("raydex_last_build_pages"),
    9: _gauge("raydex_last_run_seconds"),
    10: _gauge("raydex_last_run_failures"),
    16: _gauge("raydex_shards_ok"),
    17: _partial,
}
"""By the id of the panel. Memory is not among them: a process does not know its machine's."""

OF_CANARY: dict[int, Callable[[Window, Allowed], list[Line]]] = {
    13: _canary_figures,
    14: _canary_queries,
    15: _canary_seconds,
}
"""The same of what the canary remembers."""
