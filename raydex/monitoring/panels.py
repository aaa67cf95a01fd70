"""What is drawn: panels of PromQL, as data. Ours come from the table of metrics and the recorded series of rules.py.

METRICS, KEY_PANELS → OURS, a Dashboard; dashboards.py reads those that Ray writes
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raydex.metrics import METRICS, Metric
from raydex.monitoring.rules import NO_PROBES, REQUESTS, SECONDS, exported

OUR_UID = "raydex"
WINDOW = "5m"
QUANTILES = (0.5, 0.95, 0.99)
FIRST_METRIC_ID = 101
"""Ids below are those of the key panels, from here on they follow the table of metrics."""

LESS_IS_WORSE = frozenset({"raydex_shards_ok"})
"""Gauges that are drawn as the replica has them that has least."""

REPLICAS = 'Component=~"ray::ServeReplica:raydex:.*"'
"""How Ray 2.60 names our replicas, and processes of shard groups, among the processes whose memory it tells."""


@dataclass(frozen=True, slots=True)
class Target:
    """One expression of a panel. legend: `{{label}}` stands for the value of a label."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart. unit: s, ms, bytes, percentunit (0 to 1), percent (0 to 100), or any word to write behind numbers."""

    id: int
    title: str
    targets: tuple[Target, ...]
    unit: str = "short"
    help: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """variables: what `$name` stands for until the caller says otherwise, as a regular expression."""

    uid: str
    title: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def panels(self) -> tuple[Panel, ...]:
        return tuple(panel for _, panels in self.rows for panel in panels)


def _quantiles(expr: str, labels: str = "") -> tuple[Target, ...]:
    by = f"le, {labels}" if labels else "le"
    return tuple(
        Target(f"histogram_quantile({share}, sum by ({by}) (rate({expr}[{WINDOW}])))", f"p{share * 100:.0f}")
        for share in QUANTILES
    )


def _latest(metric: str, *labels: str) -> Target:
    legend = " · ".join(f"{{{{{name}}}}}" for name in labels)
    return Target(f"max by ({', '.join(labels)}) ({exported(metric)})", legend)


KEY_PANELS = (
    Panel(
        id=1,
        title="Requests a second",
        targets=(Target(f"sum by (outcome) (rate({REQUESTS}{{{NO_PROBES}}}[{WINDOW}]))", "{{outcome}}"),),
        help="Without probes of health and readiness.",
    ),
    Panel(
        id=2,
        title="Share of requests that fail",
        targets=(Target("raydex:error_share:5m", "5 minutes"), Target("raydex:error_share:1h", "1 hour")),
        unit="percentunit",
        help="0.5 % may fail. See RaydexErrorBudgetBurn.",
    ),
    Panel(
        id=3,
        title="Seconds of a search",
        targets=_quantiles(f'{SECONDS}_bucket{{route="/search"}}'),
        unit="s",
        help="99 % of them are to be answered within half a second.",
    ),
    Panel(
        id=4,
        title="Seconds by stage of a search (95th percentile)",
        targets=(
            Target(
                "histogram_quantile(0.95, sum by (le, stage) "
                f"(rate({exported('raydex_search_stage_seconds')}_bucket[{WINDOW}])))",
                "{{stage}}",
            ),
        ),
        unit="s",
        help=METRICS["raydex_search_stage_seconds"].help,
    ),
    Panel(
        id=5,
        title="Share of queries that find nothing",
        targets=(Target("raydex:zero_result_share:1h", "1 hour"),),
        unit="percentunit",
        help=METRICS["raydex_zero_result_queries"].help,
    ),
    Panel(
        id=6,
        title="Since the last build that succeeded",
        targets=(Target("raydex:index_age_seconds", "{{index}}"),),
        unit="s",
        help="Of an index without a record of runs: since its snapshot was made.",
    ),
    Panel(
        id=7,
        title="Passages of the served snapshots",
        targets=(Target("raydex:snapshot_chunks", "{{index}}"),),
        help=METRICS["raydex_snapshot_chunks"].help,
    ),
    Panel(
        id=8,
        title="Pages of the last build",
        targets=(_latest("raydex_last_build_pages", "index", "outcome"),),
        help=METRICS["raydex_last_build_pages"].help,
    ),
    Panel(
        id=9,
        title="Seconds of the last run of the build",
        targets=(_latest("raydex_last_run_seconds", "index"),),
        unit="s",
        help=METRICS["raydex_last_run_seconds"].help,
    ),
    Panel(
        id=10,
        title="Runs in a row that published nothing",
        targets=(_latest("raydex_last_run_failures", "index"),),
        help=METRICS["raydex_last_run_failures"].help,
    ),
    Panel(
        id=11,
        title="Memory of the replicas",
        targets=(Target(f"sum by (ip) (ray_component_uss_bytes{{{REPLICAS}}})", "{{ip}}"),),
        unit="bytes",
        help="What they, and processes of shard groups, hold for themselves alone (USS).",
    ),
    Panel(
        id=12,
        title="Memory in use",
        targets=(Target("raydex:memory_used_share", "{{ip}}"),),
        unit="percentunit",
        help="Of the whole machine. See RaydexMemoryShort.",
    ),
    Panel(
        id=13,
        title="Canary: how well judged queries are answered",
        targets=(
            Target("raydex:canary_recall", "recall@10"),
            Target(f"min({exported('raydex_canary_mrr')})", "MRR@10"),
        ),
        help="Empty without --canary-queries. " + METRICS["raydex_canary_recall"].help,
    ),
    Panel(
        id=14,
        title="Canary: queries a minute",
        targets=(
            Target(f"sum by (outcome) (rate({exported('raydex_canary_queries')}[{WINDOW}])) * 60", "{{outcome}}"),
        ),
        help=METRICS["raydex_canary_queries"].help,
    ),
    Panel(
        id=15,
        title="Canary: seconds to an answer",
        targets=_quantiles(f"{exported('raydex_canary_seconds')}_bucket"),
        unit="s",
        help=METRICS["raydex_canary_seconds"].help,
    ),
    Panel(
        id=16,
        title="Shards that can be searched",
        targets=(
            Target(f"min by (index) ({exported('raydex_shards_ok')})", "{{index}}"),
            Target(f"max by (index) ({exported('raydex_shards')})", "{{index}} · of"),
        ),
        help="Of the replica that reaches fewest, of all there are. See RaydexShardsLost.",
    ),
    Panel(
        id=17,
        title="Share of answers that lack some shards",
        targets=(Target("raydex:partial_share:5m", "5 minutes"),),
        unit="percentunit",
        help=METRICS["raydex_partial_answers"].help,
    ),
)


def _metric_panel(panel_id: int, metric: Metric) -> Panel:
    return Panel(id=panel_id, title=metric.name, targets=_metric_targets(metric), unit=_unit(metric), help=metric.help)


def _metric_targets(metric: Metric) -> tuple[Target, ...]:
    name, labels = metric.exported, ", ".join(metric.labels)
    legend = " · ".join(f"{{{{{label}}}}}" for label in metric.labels)
    if metric.kind == "histogram":
        shown = _quantiles(f"{name}_bucket", labels)
        return tuple(Target(target.expr, f"{target.legend} {legend}".strip()) for target in shown)
    by = f" by ({labels})" if labels else ""
    if metric.kind == "counter":
        return (Target(f"sum{by} (rate({name}[{WINDOW}]))", legend or "a second"),)
    if metric.name.endswith("_timestamp_seconds"):
        return (Target(f"time() - max{by} ({name})", legend or "seconds ago"),)
    worst = "min" if metric.name in LESS_IS_WORSE else "max"
    return (Target(f"{worst}{by} ({name})", legend or "now"),)


def _unit(metric: Metric) -> str:
    if metric.kind == "counter":
        return "/s"
    return next((unit for end, unit in (("_seconds", "s"), ("_bytes", "bytes")) if metric.name.endswith(end)), "short")


OURS = Dashboard(
    uid=OUR_UID,
    title="Raydex",
    rows=(
        ("Raydex", KEY_PANELS),
        *(
            (
                {"serve": "Every metric of the service", "build": "Every metric of a running build"}[program],
                tuple(
                    _metric_panel(FIRST_METRIC_ID + position, metric)
                    for position, metric in enumerate(METRICS.values())
                    if metric.program == program
                ),
            )
            for program in ("serve", "build")
        ),
    ),
)
