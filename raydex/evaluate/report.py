"""Figures of a run, per kind of query, and what differs between two runs.

{query id: {metric: value}} → Report → lines for people, a document for programs

report(golden, metrics_of(golden, run)).lines()
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from raydex.evaluate.golden import Golden
from raydex.evaluate.judging import METRICS
from raydex.evaluate.resampling import Difference, Interval, interval, paired

ALL = "all"
DECIDING = "page-nDCG@10"
"""The metric by which a query counts as won or lost."""

Values = Mapping[str, Mapping[str, float]]
"""query id → metric → value"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """figures: kind → metric → mean with interval. The first kind is "all"; a metric without a query is missing."""

    figures: Mapping[str, Mapping[str, Interval]]
    queries: Mapping[str, int]

    def lines(self) -> list[str]:
        """Return the table: a metric a line, a kind a column."""
        head = [f"{kind} ({count})" for kind, count in self.queries.items()]
        rows = [[_interval_text(of.get(metric)) for of in self.figures.values()] for metric in METRICS]
        return _table(head, rows)

    def document(self) -> dict[str, dict[str, dict[str, float]]]:
        return {kind: {metric: _rounded(of) for metric, of in found.items()} for kind, found in self.figures.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """differences: kind → metric → ours − theirs. won, lost: query id → difference in nDCG@10, the largest first."""

    differences: Mapping[str, Mapping[str, Difference]]
    queries: Mapping[str, int]
    won: Mapping[str, float]
    lost: Mapping[str, float]

    def lines(self) -> list[str]:
        head = [f"{kind} ({count})" for kind, count in self.queries.items()]
        rows = [[_difference_text(of.get(metric)) for of in self.differences.values()] for metric in METRICS]
        same = next(iter(self.queries.values())) - len(self.won) - len(self.lost)
        return [*_table(head, rows), f"{len(self.won)} queries won, {len(self.lost)} lost, {same} alike by {DECIDING}"]

    def document(self) -> dict[str, object]:
        differences = {
            kind: {metric: _rounded(of) for metric, of in found.items()} for kind, found in self.differences.items()
        }
        return {"differences": differences, "won": _sorted(self.won), "lost": _sorted(self.lost), "by": DECIDING}


def report(golden: Golden, values: Values) -> Report:
    """Sum up the values of these queries (some or all of the golden set's; at least one)."""
    kinds = _kinds(golden, values)
    return Report(
        figures={
            kind: {metric: interval(found) for metric in METRICS if (found := _of(values, queries, metric))}
            for kind, queries in kinds.items()
        },
        queries={kind: len(queries) for kind, queries in kinds.items()},
    )


def compare(golden: Golden, ours: Values, theirs: Values) -> Comparison:
    """Compare two runs over the queries of ours; theirs must hold each of them."""
    kinds = _kinds(golden, ours)
    change = {query: round(ours[query][DECIDING] - theirs[query][DECIDING], 12) for query in ours}
    return Comparison(
        differences={
            kind: {
                metric: paired(found, _of(theirs, queries, metric))
                for metric in METRICS
                if (found := _of(ours, queries, metric))
            }
            for kind, queries in kinds.items()
        },
        queries={kind: len(queries) for kind, queries in kinds.items()},
        won={query: change[query] for query in sorted(change, key=lambda query: -change[query]) if change[query] > 0},
        lost={query: change[query] for query in sorted(change, key=lambda query: change[query]) if change[query] < 0},
    )


def _kinds(golden: Golden, queries: Iterable[str]) -> dict[str, list[str]]:
    """Return kind → its queries; kinds are listed beside "all" where there is more than one."""
    of_kind: dict[str, list[str]] = {}
    for query in queries:
        of_kind.setdefault(golden.kinds.get(query, "other"), []).append(query)
    everything = {ALL: [query for of in of_kind.values() for query in of]}
    return everything | (dict(sorted(of_kind.items())) if len(of_kind) > 1 else {})


def _of(values: Values, queries: Iterable[str], metric: str) -> list[float]:
    return [values[query][metric] for query in queries if metric in values[query]]


def _interval_text(of: Interval | None) -> str:
    return f"{of.mean:.3f} [{of.low:.3f} {of.high:.3f}]" if of else "–"


def _difference_text(of: Difference | None) -> str:
    return f"{of.mean:+.3f} [{of.low:+.3f} {of.high:+.3f}] p {of.p:.4f}" if of else "–"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [["", *head], *([metric, *row] for metric, row in zip(METRICS, rows, strict=True))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _rounded(of: Interval | Difference) -> dict[str, float]:
    return {name: round(value, 5) for name, value in asdict(of).items()}


def _sorted(change: Mapping[str, float]) -> list[dict[str, object]]:
    return [{"id": query, "difference": round(value, 5)} for query, value in change.items()]
