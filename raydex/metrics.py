"""The table of every metric: name, kind, labels, buckets and what a rise means. Data only.

The build makes them with ray.util.metrics, the service with ray.serve.metrics; Ray adds the prefix `ray_`, and
`_total` to counters, when it exports them. docs/metrics.md is generated from this table.
"""

from dataclasses import dataclass
from typing import Literal

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""Upper bounds of a request stage, in seconds: 1 ms to 10 s in steps of 2 to 2.5."""

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. labels take few values each; help says what a rise means."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    program: Literal["build", "serve"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """Its name in Prometheus. A histogram has `_bucket`, `_sum` and `_count` of it."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"


def _build(name: str, kind: Literal["counter", "gauge"], help_: str, *labels: str) -> Metric:
    return Metric(name=name, kind=kind, program="build", help=help_, labels=labels)


def _serve(
    name: str,
    kind: Literal["counter", "gauge", "histogram"],
    help_: str,
    *labels: str,
    buckets: tuple[float, ...] = (),
) -> Metric:
    return Metric(name=name, kind=kind, program="serve", help=help_, labels=labels, buckets=buckets)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _build(
            "raydex_build_pages",
            "counter",
            "Pages the running build finished, by outcome (fetched, stale, failed, missing, skipped, redirected) and "
            "its reason; of fetched ones, where they came from (network, unchanged, lastmod, reused). Rising failed or "
            "stale: the site is ill.",
            "index",
            "outcome",
            "reason",
        ),
        _build(
            "raydex_build_bytes",
            "counter",
            "Bytes of pages the running build fetched from the network. A rise: pages grow, or change more often.",
            "index",
        ),
        _build(
            "raydex_build_chunks",
            "counter",
            "Chunks the running build has a vector for, by origin (embedded, reused). A rise: content changed.",
            "index",
            "origin",
        ),
        _build(
            "raydex_build_tokens",
            "counter",
            "Tokens of those chunks, by origin (embedded, reused). Embedded a second is the speed of the model.",
            "index",
            "origin",
        ),
        _build(
            "raydex_build_stage_seconds",
            "counter",
            "Seconds all workers of the running build together spent in a stage. The one that rises "
            "fastest is the bottleneck.",
            "index",
            "stage",
        ),
        _build(
            "raydex_build_queue",
            "gauge",
            "Items waiting in a stage of the running build (pages, embed_units). Rising embed_units: embedding is the "
            "bottleneck.",
            "index",
            "stage",
        ),
        _serve(
            "raydex_requests",
            "counter",
            "HTTP requests by route and outcome (ok, client_error, overloaded, not_ready, too_late, error). Rising "
            "error: look at the log; rising overloaded: add replicas; rising too_late: searches pass their timeout_ms.",
            "route",
            "outcome",
        ),
        _serve(
            "raydex_request_seconds",
            "histogram",
            "Seconds from request to response inside the replica, by route. A rise: see the stages.",
            "route",
            buckets=SECONDS,
        ),
        _serve(
            "raydex_refused_requests",
            "counter",
            "Requests refused before a route saw them, by reason (auth_error, forbidden, rate_limited). Rising "
            "auth_error: a key ended, or somebody tries.",
            "reason",
        ),
        _serve(
            "raydex_limiter_failures",
            "counter",
            "Times the Redis that counts rates did not answer, at most one in 5 s; replicas count alone meanwhile.",
        ),
        _serve(
            "raydex_search_stage_seconds",
            "histogram",
            "Seconds per search stage: validate, embed (waiting for a thread included), filter, lexical, scan and "
            "merge (dense), score (dense, what only the words found), groups (waiting for them, where they have the "
            "shards), fuse, present, rerank, serialise, total. Rising embed: too few replicas; rising scan: shards too "
            "large.",
            "stage",
            buckets=SECONDS,
        ),
        _serve(
            "raydex_answers",
            "counter",
            "Answers of GET /search by origin (computed, kept, shared). kept / all: the hit rate of the cache. A fall: "
            "callers ask other things, or snapshots change often.",
            "origin",
        ),
        _serve(
            "raydex_waiting",
            "gauge",
            "Searches that wait in a replica. Near max_waiting: callers are about to be refused, add replicas.",
        ),
        _serve(
            "raydex_queue_seconds",
            "histogram",
            "Seconds a search waits in a replica until a thread takes it. A rise: add replicas.",
            buckets=SECONDS,
        ),
        _serve(
            "raydex_embed_batch",
            "histogram",
            "Queries embedded in one call of the model. A rise: more of them come at once.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
        ),
        _serve(
            "raydex_key_requests",
            "counter",
            "Requests by the id of the API key, where keys are on; those beyond the first 50 that a replica sees are "
            "`other`. A rise: that caller asks more.",
            "key",
        ),
        _serve(
            "raydex_results",
            "histogram",
            "Hits returned per query. A fall: snapshots shrank, or callers page beyond the end.",
            buckets=(1, 2, 5, 10, 20, 50, 100),  # Ray takes bounds above 0 only; zero has its own counter
        ),
        _serve(
            "raydex_partial_answers",
            "counter",
            "Answers without some shards, because a shard group did not answer in time. A rise: it is gone or slow.",
        ),
        _serve(
            "raydex_shards_ok",
            "gauge",
            "Shards of the served snapshot that a replica can search now. Below raydex_shards: a shard group is gone.",
            "index",
        ),
        _serve("raydex_shards", "gauge", "Shards of the served snapshot. A change: another snapshot.", "index"),
        _serve(
            "raydex_zero_result_queries",
            "counter",
            "Queries answered without one hit. A rise: callers page beyond the end, or an index is empty.",
        ),
        _serve(
            "raydex_top_score",
            "histogram",
            "Cosine of the best result of a query, where meaning was looked at. A fall: people ask what is not there.",
            buckets=SHARES,
        ),
        _serve(
            "raydex_confidence",
            "histogram",
            "Confidence that the answer is there (mode hybrid). A fall: people ask what is not there.",
            buckets=SHARES,
        ),
        _serve(
            "raydex_rerank_fall_through",
            "counter",
            "Queries answered without reranking, or with less of it, by reason (budget, failure, no_model). Rising "
            "budget: too many requests for the model, or too small a budget.",
            "reason",
        ),
        _serve(
            "raydex_snapshot_age_seconds",
            "gauge",
            "Seconds since the served snapshot was made. A rise above the rebuild interval: builds fail.",
            "index",
        ),
        _serve(
            "raydex_snapshot_chunks",
            "gauge",
            "Chunks in the served snapshot. A sudden fall: a broken crawl.",
            "index",
        ),
        _serve(
            "raydex_snapshot_bytes",
            "gauge",
            "Bytes of the served snapshot's files. A rise: memory follows.",
            "index",
        ),
        _serve(
            "raydex_feedback",
            "counter",
            "Verdicts on results by kind (click, up, down). Rising down: see the pages in test_client.py --report.",
            "kind",
        ),
        _serve(
            "raydex_analytics_rows",
            "counter",
            "Rows written to the query log. No rise while searches come: it is off, or its folder is full.",
        ),
        _serve(
            "raydex_analytics_dropped",
            "counter",
            "Rows that are in no query log, for want of disk or of time to write them. Any rise: see the log.",
        ),
        _serve(
            "raydex_swaps",
            "counter",
            "Swaps to another snapshot in each replica, by outcome (swapped, refused, removed). Rising refused: see "
            "`reason` in /indexes.",
            "index",
            "outcome",
        ),
        _serve(
            "raydex_swap_seconds",
            "histogram",
            "Seconds that a swap takes in a replica, until all commit. A rise: snapshots grow, or one replica is slow.",
            "index",
            buckets=(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0),
        ),
        _serve(
            "raydex_canary_recall",
            "gauge",
            "Recall@10 of the canary's last round over all its queries; one without an answer scores 0. A fall: the "
            "index, the model or the service got worse; raydex_canary_queries tells which.",
        ),
        _serve(
            "raydex_canary_mrr",
            "gauge",
            "Mean of 1 / rank of the first right result in the canary's last round (MRR@10). A fall: right results "
            "stand lower.",
        ),
        _serve(
            "raydex_canary_seconds",
            "histogram",
            "Seconds from the canary's question to its answer, over HTTP, answers out of the cache among them. A rise: "
            "users wait as well.",
            buckets=SECONDS,
        ),
        _serve(
            "raydex_canary_queries",
            "counter",
            "Queries of the canary by outcome (answered, unreachable, not_allowed, rate_limited, refused, failed, "
            "unasked). Rising not_allowed: its key ended; unreachable, failed: users fare alike.",
            "outcome",
        ),
        _serve(
            "raydex_canary_last_round_timestamp_seconds",
            "gauge",
            "When the canary's last round ended, in seconds since 1970. Older than a few intervals: nobody looks.",
        ),
        _serve(
            "raydex_canary_interval_seconds",
            "gauge",
            "Seconds from one round of the canary to the next, as set.",
        ),
        _serve(
            "raydex_canary_least_recall",
            "gauge",
            "Recall@10 below which the canary raises an alert, as set; 0: none.",
        ),
        _serve(
            "raydex_last_build_pages",
            "gauge",
            "Pages of the last build by outcome, from its report. Rising failed or missing: the site is ill.",
            "index",
            "outcome",
        ),
        _serve(
            "raydex_last_build_chunks",
            "gauge",
            "Chunks of the last build by origin (embedded, reused), from its report.",
            "index",
            "origin",
        ),
        _serve(
            "raydex_last_build_tokens",
            "gauge",
            "Tokens of the last build by origin (embedded, reused), from its report.",
            "index",
            "origin",
        ),
        _serve(
            "raydex_last_build_bytes",
            "gauge",
            "Bytes of pages the last build fetched from the network, from its report.",
            "index",
        ),
        _serve(
            "raydex_last_build_gate",
            "gauge",
            "1 for each check of the gate that the last build passed, 0 for one that it did not; from its report.",
            "index",
            "check",
        ),
        _serve(
            "raydex_last_build_seconds",
            "gauge",
            "Seconds the last build spent per stage, from its report.",
            "index",
            "stage",
        ),
        _serve(
            "raydex_last_run_failures",
            "gauge",
            "Runs of build_index.py in a row that published nothing, from last_build.json. Above 0: read its message.",
            "index",
        ),
        _serve(
            "raydex_last_run_exit_code",
            "gauge",
            "Exit code of the last run of build_index.py, from last_build.json: 0 published, 3 too many failed pages, "
            "4 nothing to index, 5 refused by the gate.",
            "index",
        ),
        _serve(
            "raydex_last_run_seconds",
            "gauge",
            "Seconds the last run of build_index.py took, whatever came of it. A rise: the site grows, or is slow.",
            "index",
        ),
        _serve(
            "raydex_last_success_timestamp_seconds",
            "gauge",
            "When the last run of build_index.py succeeded, in seconds since 1970. Older than the interval of the "
            "schedule and its jitter: runs fail, or nobody starts them.",
            "index",
        ),
    )
}
