"""What is learnt from who asks: searches into the query log, verdicts on results, the report (docs/analytics.md).

POST /feedback · GET /admin/report · a section of /ops
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated
from xml.etree.ElementTree import Element, SubElement

from fastapi import APIRouter, Query, Request
from starlette.types import Scope

from raydex.analytics.log import Event, Kind, QueryLog
from raydex.analytics.report import Report
from raydex.config import ServeConfig
from raydex.errors import IndexNotFound
from raydex.keys import Key
from raydex.serve.access import KEY, allowed_indexes
from raydex.serve.queries import Backend, check_characters, check_text, visible_names
from raydex.serve.schemas import FeedbackRequest, FeedbackResponse, ReportParameters, ReportResponse

SESSION_HEADER = b"x-session-id"
WISHES = (b"dnt", b"sec-gpc")
"""Headers by which a caller (a browser, the canary) asks not to be followed, with 1."""

LONGEST_NAME = 256
"""Bytes by which callers are told apart: events wait in memory."""

OPS_DAYS, OPS_LINES, OPS_FRESH_S = 7, 10, 60.0


class Insights:
    """The query log as the routes see it."""

    def __init__(self, log: QueryLog) -> None:
        self.log = log
        self._reports: dict[frozenset[str] | None, tuple[float, Report]] = {}

    def searched(self, scope: Scope, query: str, indexes: Sequence[str], *, results: int, best: str) -> None:
        """best: URL of the best result, empty without one."""
        if self._keeps(scope):
            self._add(scope, "search", query, indexes, results=results, url=best)

    def judged(self, scope: Scope, verdict: FeedbackRequest) -> bool:
        """Return whether it is kept."""
        if is_kept := self._keeps(scope):
            indexes = [verdict.index] if verdict.index else []
            self._add(scope, verdict.kind, verdict.query, indexes, results=0, url=verdict.url)
        return is_kept

    async def recent(self, allowed: frozenset[str] | None) -> Report:
        """Return the report that /ops shows, made at most once in OPS_FRESH_S."""
        made_at, found = self._reports.get(allowed, (0.0, None))
        if found is None or time.monotonic() - made_at > OPS_FRESH_S:
            found = await asyncio.to_thread(self.log.report, days=OPS_DAYS, most=OPS_LINES, allowed=allowed)
            self._reports = {allowed: (time.monotonic(), found)}
        return found

    def _keeps(self, scope: Scope) -> bool:
        return self.log.is_on and not any(name in WISHES and value == b"1" for name, value in scope["headers"])

    def _add(self, scope: Scope, kind: Kind, query: str, indexes: Sequence[str], *, results: int, url: str) -> None:
        key: Key | None = scope.get(KEY)
        self.log.add(
            Event(
                at=time.time(),
                kind=kind,
                query=query,
                session=_caller(scope, key),
                key_id=key.key_id if key else "",
                indexes=tuple(indexes),
                results=results,
                url=url,
            )
        )


def _caller(scope: Scope, key: Key | None) -> str:
    """Return what tells callers apart: the session they name, else their address and program; and their key."""
    headers = dict(scope["headers"])
    named = headers.get(SESSION_HEADER)
    address = (scope.get("client") or ("",))[0]
    parts = (named,) if named else (address.encode(), headers.get(b"user-agent", b""))
    return "\0".join([key.key_id if key else "", *(part[:LONGEST_NAME].decode("latin-1") for part in parts)])


def feedback_routes(backend: Backend, config: ServeConfig, insights: Insights) -> APIRouter:
    router = APIRouter()

    @router.post("/feedback", summary="Say that a result was opened, right or wrong", tags=["search"])
    async def feedback(request: Request, verdict: FeedbackRequest) -> FeedbackResponse:
        check_text(verdict.query, "query", config)
        check_characters(verdict.url, "url", config)
        check_characters(verdict.index, "index", config)
        names = visible_names(backend.engine, allowed_indexes(request.scope))
        if verdict.index and verdict.index not in names:
            raise IndexNotFound(verdict.index, names)
        backend.recorder.count("raydex_feedback", kind=verdict.kind)
        return FeedbackResponse(kept=insights.judged(request.scope, verdict))

    @router.get("/admin/report", summary="What people look for, and do not find", tags=["admin"])
    async def report(request: Request, parameters: Annotated[ReportParameters, Query()]) -> ReportResponse:
        allowed = allowed_indexes(request.scope)
        made = await asyncio.to_thread(
            insights.log.report, days=parameters.days, most=parameters.lines, allowed=allowed
        )
        least = config.analytics.least_sessions
        return ReportResponse(
            query_log=config.analytics.query_log, days=parameters.days, least_sessions=least, **asdict(made)
        )

    return router


def may_see_report(scope: Scope) -> bool:
    """Only who may ask for it: an admin, or anybody on this machine while keys are off, but for other sites' pages."""
    key: Key | None = scope.get(KEY)
    return "admin" in key.scopes if key else b"origin" not in dict(scope["headers"])


def report_sections(report: Report) -> list[Element]:
    """Return the report as it stands in /ops. What was typed is text, here as everywhere."""
    queries = ("query", "sessions", "searches")
    return [
        _table("What people look for", queries, [(q.query, q.sessions, q.searches) for q in report.top]),
        _table("What finds nothing", queries, [(q.query, q.sessions, q.searches) for q in report.nothing_found]),
        _table(
            "Tried otherwise within minutes",
            ("query", "then", "sessions"),
            [(one.query, one.then, one.sessions) for one in report.reformulations],
        ),
        _table(
            "Pages that were best, and did not satisfy",
            ("page", "best", "asked again", "clicks", "up", "down"),
            [(p.page, p.best, p.asked_again, p.clicks, p.up, p.down) for p in report.pages],
        ),
    ]


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Element:
    section = Element("section")
    SubElement(section, "h3").text = f"{title} ({OPS_DAYS} days)"
    if not rows:
        SubElement(section, "p", {"class": "quiet"}).text = "Nothing that enough sessions had to do with."
        return section
    table = SubElement(section, "table")
    for tag, cells in (("th", columns), *(("td", row) for row in rows)):
        line = SubElement(table, "tr")
        for cell in cells:
            SubElement(line, tag).text = str(cell)
    return section
