"""Rows of the query log → what people look for, and what they do not find. Pure, in pyarrow.

A query or a page is named when at least `least_sessions` sessions had to do with it; what is not is counted. Without
texts in the log, a query is named by the beginning of its hash.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

SHOWN_HASH = 12

COLUMNS = ("at", "kind", "query", "text", "session", "indexes", "results", "page")
"""What a report reads of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCount:
    """results: most that the query found."""

    query: str
    searches: int
    sessions: int
    results: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reformulation:
    query: str
    then: str
    sessions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PageCount:
    """best: searches of which it was the best result; asked_again: after how many of them the session asked otherwise,
    without a click between.
    """

    page: str
    best: int
    asked_again: int
    clicks: int
    up: int
    down: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """sessions: of a day each. kept_back: queries that too few sessions asked to be named."""

    searches: int
    sessions: int
    queries: int
    without_results: int
    kept_back: int
    top: Sequence[QueryCount]
    nothing_found: Sequence[QueryCount]
    reformulations: Sequence[Reformulation]
    pages: Sequence[PageCount]


def report(rows: pa.Table, *, most: int, least_sessions: int, again_s: float, allowed: frozenset[str] | None) -> Report:
    """most: lines of each table. again_s: within which a second query is another try. allowed: None for all indexes;
    else a row counts when every index of it is among them.
    """
    if allowed is not None:
        seen = [bool(names) and allowed.issuperset(names) for names in rows["indexes"].to_pylist()]
        rows = rows.filter(pa.array(seen, pa.bool_()))
    rows = _named(rows).sort_by([("session", "ascending"), ("at", "ascending")])
    searches = rows.filter(pc.equal(rows["kind"], "search"))
    empty = searches.filter(pc.equal(searches["results"], 0))
    counts = _counts(searches)
    tried = _tries(rows, again_s)
    return Report(
        searches=len(searches),
        sessions=_distinct(searches["session"]),
        queries=len(counts),
        without_results=len(empty),
        kept_back=sum(one.sessions < least_sessions for one in counts),
        top=[one for one in counts if one.sessions >= least_sessions][:most],
        nothing_found=[one for one in _counts(empty) if one.sessions >= least_sessions][:most],
        reformulations=_reformulations(tried, counts, least_sessions)[:most],
        pages=_pages(rows, tried, least_sessions)[:most],
    )


def _named(rows: pa.Table) -> pa.Table:
    """Return the rows with a column `name`: the text, or the hash where there is none."""
    hashes = pc.binary_join_element_wise("#", pc.utf8_slice_codeunits(rows["query"], 0, SHOWN_HASH), "")
    return rows.append_column("name", pc.if_else(pc.equal(rows["text"], ""), hashes, rows["text"]))


def _counts(searches: pa.Table) -> list[QueryCount]:
    """Return the queries, those that most sessions asked first."""
    of = searches.group_by("name").aggregate([("at", "count"), ("session", "count_distinct"), ("results", "max")])
    order = [("session_count_distinct", "descending"), ("at_count", "descending"), ("name", "ascending")]
    return [
        QueryCount(
            query=row["name"],
            searches=row["at_count"],
            sessions=row["session_count_distinct"],
            results=row["results_max"],
        )
        for row in of.sort_by(order).to_pylist()
    ]


def _tries(rows: pa.Table, again_s: float) -> pa.Table:
    """Return (session, name, then, page): a search, and the other one right after it in the same session.

    rows: by session and time. A click between the two ends the first: something was found. What is asked within one
    second, as the queries of a batch are, is no other try, and has no order.
    """
    this, after = rows.slice(0, max(0, len(rows) - 1)), rows.slice(1)
    columns = {"session": this["session"], "name": this["name"], "then": after["name"], "page": this["page"]}
    seconds = pc.seconds_between(this["at"], after["at"])
    is_try = pc.and_(pc.equal(this["kind"], "search"), pc.equal(after["kind"], "search"))
    is_try = pc.and_(is_try, pc.equal(this["session"], after["session"]))
    is_try = pc.and_(is_try, pc.not_equal(this["name"], after["name"]))
    is_try = pc.and_(is_try, pc.greater(seconds, 0))
    return pa.table(columns).filter(pc.and_(is_try, pc.less_equal(seconds, again_s)))


def _reformulations(tried: pa.Table, counts: Sequence[QueryCount], least_sessions: int) -> list[Reformulation]:
    known = {one.query for one in counts if one.sessions >= least_sessions}
    of = tried.group_by(["name", "then"]).aggregate([("session", "count_distinct")])
    order = [("session_count_distinct", "descending"), ("name", "ascending"), ("then", "ascending")]
    return [
        Reformulation(query=row["name"], then=row["then"], sessions=row["session_count_distinct"])
        for row in of.sort_by(order).to_pylist()
        if row["session_count_distinct"] >= least_sessions and {row["name"], row["then"]} <= known
    ]


def _pages(rows: pa.Table, tried: pa.Table, least_sessions: int) -> list[PageCount]:
    """Return the pages, those first after which most asked again or that most called wrong."""
    rows = rows.filter(pc.not_equal(rows["page"], ""))
    sessions = _by_page(rows.group_by("page").aggregate([("session", "count_distinct")]), "session_count_distinct")
    again = _by_page(tried.group_by("page").aggregate([("name", "count")]), "name_count")
    kinds: dict[str, dict[str, int]] = {}
    for row in rows.group_by(["page", "kind"]).aggregate([("at", "count")]).to_pylist():
        kinds.setdefault(row["page"], {})[row["kind"]] = row["at_count"]
    pages = [
        PageCount(
            page=page,
            best=of.get("search", 0),
            asked_again=again.get(page, 0),
            clicks=of.get("click", 0),
            up=of.get("up", 0),
            down=of.get("down", 0),
        )
        for page, of in kinds.items()
        if sessions[page] >= least_sessions
    ]
    return sorted(pages, key=lambda one: (-(one.asked_again + one.down), -one.best, one.page))


def _by_page(table: pa.Table, column: str) -> dict[str, int]:
    return dict(zip(table["page"].to_pylist(), table[column].to_pylist(), strict=True))


def _distinct(column: Any) -> int:
    count: int = pc.count_distinct(column).as_py()
    return count
