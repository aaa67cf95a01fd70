"""What Prometheus records and when it raises an alert, as data; deploy/prometheus/raydex.rules.yml is written from it.

RECORDED, ALERTS → rules_text() → YAML

An alert has up to three stages: `info` is for whoever looks, `warn` for the next working day, `page` for now. Each
stage is one or more terms that must hold together, and do so for a while. Each alert has a page in docs/runbooks/.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import yaml

from raydex.metrics import METRICS

Severity = Literal["info", "warn", "page"]

MINUTE, HOUR, DAY = 60, 3600, 86400

ERRORS_ALLOWED = 0.005
"""Share of requests that may fail over a month: the service answers 99.5 %."""

SLOW_ALLOWED, SLOW_S = 0.01, "0.5"
"""99 % of searches are answered within half a second, which is a bound of the histogram."""

BURNS: Mapping[Severity, tuple[float, str, str]] = {
    "page": (14.4, "1h", "5m"),
    "warn": (6.0, "6h", "30m"),
    "info": (1.0, "3d", "6h"),
}
"""How many times faster than allowed, over a long window and still over a short one. 14.4 uses up 2 % of a month's
allowance in an hour, 6 uses up 5 % in six hours, 1 uses up 10 % in three days."""

WINDOWS = sorted({window for _, *windows in BURNS.values() for window in windows})

STALE_DAYS: Mapping[Severity, int] = {"info": 3, "warn": 8, "page": 31}
"""Without a successful build; whoever builds less often than weekly sets other ones."""

ZERO_RESULTS_RISE: Mapping[Severity, int] = {"info": 2, "warn": 4}
"""Times the share of the week before, and 5 % on top."""

RECALL_LEFT: Mapping[Severity, float] = {"info": 0.95, "warn": 0.85, "page": 0.5}
"""Share of its own mean of the week before below which the canary's recall is told."""

LOW_RECALL: Mapping[Severity, float] = {"warn": 1, "page": 0.5}
"""Shares of --canary-least-recall."""

PARTIAL_ALLOWED = 0.01
"""Share of answers that may lack some shards."""

ROUNDS_MISSED: Mapping[Severity, int] = {"info": 3, "warn": 12}

NO_PROBES = 'route!~"/healthz|/readyz"'
NOT_OUR_FAULT = "ok|client_error|too_late"
"""Outcomes that use up no allowance. too_late: the caller gave the search less time than it takes."""

ENOUGH = 20
"""Requests (or queries) below which a share says nothing."""


def exported(name: str) -> str:
    """Return the name in Prometheus of a metric of ours; KeyError when there is none."""
    return METRICS[name].exported


REFUSED_SWAPS = f'{exported("raydex_swaps")}{{outcome="refused"}}'
REQUESTS = exported("raydex_requests")
SECONDS = exported("raydex_request_seconds")
CANARY_INTERVAL = f"max(max_over_time({exported('raydex_canary_interval_seconds')}[1d]))"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A series that Prometheus computes at each evaluation, so that alerts and panels can look back at it."""

    name: str
    expr: str


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison: a series, which is there whenever the service is, and what it is compared with."""

    series: str
    condition: str

    def __str__(self) -> str:
        return f"{self.series} {self.condition}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """When an alert is raised with one severity: all terms hold, for so many seconds.

    on: the labels by which the terms belong together, none of them unless given.
    """

    severity: Severity
    terms: tuple[Term, ...]
    for_s: int = 0
    on: str = ""

    @property
    def expr(self) -> str:
        if len(self.terms) == 1:
            return str(self.terms[0])
        return f" and on ({self.on}) ".join(f"({term})" for term in self.terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """name in CamelCase, summary with the labels of the series as {{ $labels.index }}."""

    name: str
    summary: str
    stages: tuple[Stage, ...]

    @property
    def runbook(self) -> str:
        """Return its page: RaydexIndexStale → index-stale."""
        words = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in self.name)
        return words.removeprefix("-raydex-")


def _share_of_errors(window: str) -> Recorded:
    every = f"sum(rate({REQUESTS}{{{NO_PROBES}}}[{window}]))"
    failed = f'sum(rate({REQUESTS}{{{NO_PROBES},outcome!~"{NOT_OUR_FAULT}"}}[{window}]))'
    return Recorded(f"raydex:error_share:{window}", f"({failed} or vector(0)) / ({every} > 0)")


def _share_of_slow(window: str) -> Recorded:
    fast = f'sum(rate({SECONDS}_bucket{{route="/search",le="{SLOW_S}"}}[{window}]))'
    every = f'sum(rate({SECONDS}_count{{route="/search"}}[{window}]))'
    return Recorded(f"raydex:slow_share:{window}", f"1 - {fast} / ({every} > 0)")


def _index_age() -> str:
    """Seconds since somebody last made sure that the index is up to date, by index; without runs, since it was made."""
    success = f"time() - max by (index) ({exported('raydex_last_success_timestamp_seconds')})"
    return f"{success} or min by (index) ({exported('raydex_snapshot_age_seconds')})"


RECORDED = (
    Recorded("raydex:requests:rate5m", f"sum(rate({REQUESTS}{{{NO_PROBES}}}[5m]))"),
    Recorded("raydex:requests:increase5m", f"sum(increase({REQUESTS}{{{NO_PROBES}}}[5m]))"),
    *(_share_of_errors(window) for window in WINDOWS),
    *(_share_of_slow(window) for window in WINDOWS),
    Recorded(  # > 0: without a search it is no number, and nor would be any mean over a day with an hour of them
        "raydex:search_seconds:p95_30m",
        f'histogram_quantile(0.95, sum by (le) (rate({SECONDS}_bucket{{route="/search"}}[30m]))) > 0',
    ),
    Recorded("raydex:queries:increase1h", f"sum(increase({exported('raydex_results')}_count[1h]))"),
    Recorded(
        "raydex:zero_result_share:1h",
        f"(sum(increase({exported('raydex_zero_result_queries')}[1h])) or vector(0))"
        f" / (sum(increase({exported('raydex_results')}_count[1h])) > 0)",
    ),
    Recorded("raydex:index_age_seconds", _index_age()),
    Recorded("raydex:snapshot_chunks", f"min by (index) ({exported('raydex_snapshot_chunks')})"),
    Recorded(  # the replica that reaches least: what it is asked is answered without the rest
        "raydex:shards_ok_share",
        f"min by (index) ({exported('raydex_shards_ok')} / {exported('raydex_shards')})",
    ),
    Recorded("raydex:queries:increase5m", f"sum(increase({exported('raydex_results')}_count[5m]))"),
    Recorded(
        "raydex:partial_share:5m",
        f"(sum(increase({exported('raydex_partial_answers')}[5m])) or vector(0)) / (raydex:queries:increase5m > 0)",
    ),
    Recorded("raydex:canary_recall", f"min({exported('raydex_canary_recall')})"),
    Recorded(  # over a day: a canary that is gone tells nothing any more
        "raydex:canary_age_seconds",
        f"time() - max(max_over_time({exported('raydex_canary_last_round_timestamp_seconds')}[1d]))",
    ),
    Recorded(
        "raydex:memory_used_share",
        "max by (ip) (ray_node_mem_used) / max by (ip) (ray_node_mem_total)",
    ),
)


def _burns(series: str, allowed: float) -> tuple[Stage, ...]:
    enough = Term("raydex:requests:increase5m", f"> {ENOUGH}")
    return tuple(
        Stage(
            severity=severity,
            terms=(
                Term(f"{series}:{long}", f"> {times * allowed:.4g}"),
                Term(f"{series}:{short}", f"> {times * allowed:.4g}"),
                *((enough,) if severity == "page" else ()),
            ),
            for_s=2 * MINUTE,
        )
        for severity, (times, long, short) in BURNS.items()
    )


def _graded(series: str, conditions: Mapping[Severity, str], *, for_s: int) -> tuple[Stage, ...]:
    """Return a stage for each severity: what the series must fulfil, for so many seconds."""
    return tuple(
        Stage(severity=severity, terms=(Term(series, condition),), for_s=for_s)
        for severity, condition in conditions.items()
    )


def _index_stage(severity: Severity, metric: str, condition: str, *, for_s: int = 0) -> Stage:
    return Stage(severity=severity, terms=(Term(f"max by (index) ({exported(metric)})", condition),), for_s=for_s)


ALERTS = (
    Alert(
        name="RaydexErrorBudgetBurn",
        summary="{{ $value | humanizePercentage }} of requests fail; 0.5 % may.",
        stages=_burns("raydex:error_share", ERRORS_ALLOWED),
    ),
    Alert(
        name="RaydexSearchSlow",
        summary="{{ $value | humanizePercentage }} of searches take longer than half a second; 1 % may.",
        stages=_burns("raydex:slow_share", SLOW_ALLOWED),
    ),
    Alert(
        name="RaydexSearchSlowerThanUsual",
        summary="Searches take {{ $value | humanizeDuration }} (95th percentile), more than twice yesterday's mean.",
        stages=(
            Stage(
                severity="info",
                terms=(
                    Term(
                        "raydex:search_seconds:p95_30m",
                        "> 2 * avg_over_time(raydex:search_seconds:p95_30m[1d] offset 1h)",
                    ),
                    Term("raydex:search_seconds:p95_30m", "> 0.05"),
                ),
                for_s=15 * MINUTE,
            ),
        ),
    ),
    Alert(
        name="RaydexTrafficGone",
        summary="{{ $value | humanize }} requests a second come in, less than a tenth of a week ago.",
        stages=(
            Stage(
                severity="info",
                terms=(
                    Term("raydex:requests:rate5m", "< 0.1 * avg_over_time(raydex:requests:rate5m[1h] offset 1w)"),
                    Term("", "avg_over_time(raydex:requests:rate5m[1h] offset 1w) > 0.1"),
                ),
                for_s=30 * MINUTE,
            ),
        ),
    ),
    Alert(
        name="RaydexDown",
        summary="No replica has told of an open index for five minutes.",
        stages=(
            Stage(
                severity="page",
                terms=(Term("", f"absent_over_time({exported('raydex_snapshot_chunks')}[5m])"),),
                for_s=2 * MINUTE,
            ),
        ),
    ),
    Alert(
        name="RaydexNodeUnseen",
        summary="Prometheus gets no figures from {{ $labels.instance }}.",
        stages=(Stage(severity="warn", terms=(Term('up{job="ray"}', "== 0"),), for_s=5 * MINUTE),),
    ),
    Alert(
        name="RaydexIndexStale",
        summary="Index {{ $labels.index }}: no build has succeeded for {{ $value | humanizeDuration }}.",
        stages=_graded(
            "raydex:index_age_seconds",
            {severity: f"> {days * DAY}" for severity, days in STALE_DAYS.items()},
            for_s=10 * MINUTE,
        ),
    ),
    Alert(
        name="RaydexBuildOverdue",
        summary="Index {{ $labels.index }} has not been built for {{ $value | humanizeDuration }}, twice as "
        "long as ever in the week before last.",
        stages=(
            Stage(
                severity="warn",
                terms=(
                    Term("raydex:index_age_seconds", "> 2 * max_over_time(raydex:index_age_seconds[1w:1h] offset 1w)"),
                    Term("", "raydex:index_age_seconds offset 13d >= 0"),  # that week is known
                    Term("raydex:index_age_seconds", f"> {HOUR}"),
                ),
                on="index",
                for_s=10 * MINUTE,
            ),
        ),
    ),
    Alert(
        name="RaydexBuildsFail",
        summary="Index {{ $labels.index }}: {{ $value }} runs of build_index.py in a row have published nothing.",
        stages=(
            _index_stage("info", "raydex_last_run_failures", ">= 1"),
            _index_stage("warn", "raydex_last_run_failures", ">= 2"),
            _index_stage("page", "raydex_last_run_failures", ">= 6"),
        ),
    ),
    Alert(
        name="RaydexGateRefused",
        summary="Index {{ $labels.index }}: the gate has refused the newest snapshot, the earlier one is served.",
        stages=(
            _index_stage("info", "raydex_last_run_exit_code", "== 5"),
            Stage(
                severity="warn",
                terms=(
                    Term(f"max by (index) ({exported('raydex_last_run_exit_code')})", "== 5"),
                    Term(f"max by (index) ({exported('raydex_last_run_failures')})", ">= 2"),
                ),
                on="index",
            ),
        ),
    ),
    Alert(
        name="RaydexSwapRefused",
        summary="Index {{ $labels.index }}: the newest snapshot could not be opened, the earlier one is served.",
        stages=(
            Stage(
                severity="warn",
                terms=(
                    Term(
                        "",
                        f"sum by (index) ({REFUSED_SWAPS} unless {REFUSED_SWAPS} offset 1h)"
                        f" or sum by (index) (increase({REFUSED_SWAPS}[1h])) > 0",
                    ),
                ),  # a counter is born with its first count, of which no increase tells
            ),
        ),
    ),
    Alert(
        name="RaydexShardsLost",
        summary="Index {{ $labels.index }}: {{ $value | humanizePercentage }} of the shards can be searched; answers "
        "lack the rest.",
        stages=(
            Stage(severity="warn", terms=(Term("raydex:shards_ok_share", "< 1"),), for_s=2 * MINUTE),
            Stage(severity="page", terms=(Term("raydex:shards_ok_share", "< 1"),), for_s=10 * MINUTE),
        ),
    ),
    Alert(
        name="RaydexPartialAnswers",
        summary="{{ $value | humanizePercentage }} of answers lack some shards; 1 % may.",
        stages=(
            Stage(
                severity="warn",
                terms=(
                    Term("raydex:partial_share:5m", f"> {PARTIAL_ALLOWED}"),
                    Term("raydex:queries:increase5m", f"> {ENOUGH}"),
                ),
                for_s=6 * MINUTE,  # longer than one restart stays in the five minutes that are looked at
            ),
        ),
    ),
    Alert(
        name="RaydexIndexShrank",
        summary="Index {{ $labels.index }} has {{ $value | humanize }} passages, less than 70 % of what it had in the "
        "last two days.",
        stages=(
            Stage(
                severity="warn",
                terms=(Term("raydex:snapshot_chunks", "< 0.7 * max_over_time(raydex:snapshot_chunks[2d])"),),
                for_s=5 * MINUTE,
            ),
        ),
    ),
    Alert(
        name="RaydexZeroResults",
        summary="{{ $value | humanizePercentage }} of queries find nothing, far more than in the week before.",
        stages=tuple(
            Stage(
                severity=severity,
                terms=(
                    Term(
                        "raydex:zero_result_share:1h",
                        f"> {times} * avg_over_time(raydex:zero_result_share:1h[1w:10m] offset 1h) + 0.05",
                    ),
                    Term("raydex:queries:increase1h", f"> {ENOUGH}"),
                ),
                for_s=15 * MINUTE,
            )
            for severity, times in ZERO_RESULTS_RISE.items()
        ),
    ),
    Alert(
        name="RaydexCanaryRecallDrop",
        summary="The canary finds {{ $value | humanizePercentage }} of the right sections, less than its own mean of "
        "the week before.",
        stages=_graded(
            "raydex:canary_recall",
            {
                severity: f"< {left} * avg_over_time(raydex:canary_recall[1w] offset 1h)"
                for severity, left in RECALL_LEFT.items()
            },
            for_s=15 * MINUTE,
        ),
    ),
    Alert(
        name="RaydexCanaryRecallLow",
        summary="The canary finds {{ $value | humanizePercentage }} of the right sections, less than is set as least.",
        stages=_graded(
            "raydex:canary_recall",
            {
                severity: f"< {share} * max({exported('raydex_canary_least_recall')})"
                for severity, share in LOW_RECALL.items()
            },
            for_s=15 * MINUTE,
        ),
    ),
    Alert(
        name="RaydexCanarySilent",
        summary="The canary has ended no round for {{ $value | humanizeDuration }}.",
        stages=_graded(
            "raydex:canary_age_seconds",
            {severity: f"> {missed} * {CANARY_INTERVAL}" for severity, missed in ROUNDS_MISSED.items()},
            for_s=2 * MINUTE,
        ),
    ),
    Alert(
        name="RaydexMemoryShort",
        summary="{{ $value | humanizePercentage }} of the memory of {{ $labels.ip }} is in use.",
        stages=(
            Stage(severity="warn", terms=(Term("raydex:memory_used_share", "> 0.9"),), for_s=5 * MINUTE),
            Stage(severity="page", terms=(Term("raydex:memory_used_share", "> 0.96"),), for_s=5 * MINUTE),
        ),
    ),
    Alert(
        name="RaydexMemoryGrows",
        summary="{{ $labels.ip }} runs out of memory within four hours if it goes on so.",
        stages=(
            Stage(
                severity="info",
                terms=(
                    Term("max by (ip) (predict_linear(ray_node_mem_available[1h], 14400))", "< 0"),
                    Term("raydex:memory_used_share", "> 0.6"),
                ),
                on="ip",
                for_s=15 * MINUTE,
            ),
        ),
    ),
)


def rules_text() -> str:
    """Return the rule file for Prometheus."""
    recorded = [{"record": one.name, "expr": one.expr} for one in RECORDED]
    alerts = [_rule(alert, stage) for alert in ALERTS for stage in alert.stages]
    groups = [{"name": "raydex", "rules": [*recorded, *alerts]}]  # one group: it is evaluated in this order
    return "# Written by `make docs` from raydex/monitoring/rules.py; do not edit.\n" + yaml.safe_dump(
        {"groups": groups}, sort_keys=False, width=10_000, allow_unicode=True
    )


def _rule(alert: Alert, stage: Stage) -> dict[str, object]:
    return {
        "alert": alert.name,
        "expr": stage.expr,
        **({"for": f"{stage.for_s // MINUTE}m"} if stage.for_s else {}),
        "labels": {"severity": stage.severity},
        "annotations": {"summary": alert.summary, "runbook": f"docs/runbooks/{alert.runbook}.md"},
    }
