"""The settings of the service: what serve_index.py takes. Data only."""

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from raydex.config.tables import HTTP_URL, RATE, IndexesConfig, Settings, TelemetryConfig, split_names


class ServeTelemetryConfig(TelemetryConfig):
    trace_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the requests without error whose spans are kept; of those with, all are.",
    )
    trace_callers: Literal["follow", "ignore"] = Field(
        "follow",
        description="Whether a caller's traceparent that says `sampled` has the request's spans kept, too; their ids "
        "follow it in any case.",
    )
    trace_queries: bool = Field(default=False, description="Write into spans what was asked.")


class LimitsConfig(Settings):
    """What one request may cost; docs/limits.md has all limits, with what is answered beyond them."""

    max_body_bytes: int = Field(1_000_000, ge=1024, description="Longest body of a request, in bytes.")
    max_nesting: int = Field(16, ge=2, le=500, description="Deepest nesting of a JSON body.")
    max_headers: int = Field(100, ge=10, description="Most headers of a request.")
    max_header_bytes: int = Field(16_384, ge=1024, description="Longest headers of a request, all together, in bytes.")
    max_url_bytes: int = Field(50_000, ge=1024, description="Longest path and query string, percent-encoded, in bytes.")
    body_timeout_s: float = Field(10.0, gt=0, description="Seconds within which a body must have come whole.")
    max_values: int = Field(100, ge=1, description="Most values of one filter, and most indexes of one request.")
    default_timeout_ms: int = Field(
        10_000, ge=1, description="Milliseconds a search may take when the request does not say (timeout_ms)."
    )
    max_timeout_ms: int = Field(60_000, ge=1, description="Largest timeout_ms a caller may ask for.")


class ScalingConfig(Settings):
    """How many replicas there are when that follows the load; docs/serving.md says how to choose."""

    max_replicas: int = Field(
        0, ge=0, le=64, description="Most replicas; with it, there are as many as the load needs, at least `replicas` "
        "(0: 1). 0: always `replicas`."
    )  # fmt: skip
    queue_length: float = Field(
        8.0, gt=0, description="Requests that one replica should have, at work and waiting; replicas are added above."
    )
    busy_s: float = Field(15.0, ge=0, description="Seconds for which there must be too many before a replica is added.")
    calm_s: float = Field(300.0, ge=0, description="Seconds for which there must be too few before one is taken away.")
    group_memory_mb: float = Field(
        0.0,
        ge=0,
        description="Megabytes of texts and vectors that one process may have in memory; shards that need more are "
        "spread over groups of processes, which are asked together. 0: every replica has all.",
    )
    group_replicas: int = Field(1, ge=1, le=16, description="Processes for each group; with two, one may fail unseen.")
    group_timeout_ms: int = Field(
        1000, ge=1, description="Milliseconds for which a group is waited for before an answer goes without its shards."
    )


class AccessConfig(Settings):
    keys_file: Path = Field(
        Path(),
        description="File of the API keys; without it, keys.json in the data folder (none when that is a URI).",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Answer searches without a key, on any address. /admin/ needs one all the same.",
    )
    default_rate: str = Field(
        "", pattern=RATE, description="Most requests of a key that has no rate of its own, such as 20/second."
    )
    default_quota: str = Field(
        "", pattern=RATE, description="The same over longer, for a key that has no quota of its own, such as 10000/day."
    )
    redis_url: str = Field(
        "",
        repr=False,
        description="Redis that counts for all replicas, such as redis://:password@host:6379/0 (better in the "
        "environment than in a flag); without it, each replica counts for itself.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Sites whose pages may ask from a browser, such as https://docs.example.org (repeat the flag)."
    )
    access_log: Literal["off", "on", "queries"] = Field(
        "on", description="A log line for each request; `queries` writes down what is asked in URLs, too."
    )

    _names = field_validator("cors_origins", mode="before")(split_names)

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if wrong := [one for one in value if one != "*" and not re.fullmatch(r"https?://[^/\s]+", one)]:
            raise ValueError(f"not an origin such as https://docs.example.org: {', '.join(wrong)}")
        return value


class AnalyticsConfig(Settings):
    """What is kept of searches, and what is told of it; docs/analytics.md."""

    query_log: Literal["off", "hashes", "text"] = Field(
        "off",
        description="What is kept of each search: nothing, counts with keyed hashes, or the text too, without "
        "addresses, numbers and secrets.",
    )
    query_log_dir: Path = Field(
        Path(), description="Folder of the query log and its key; without it, `_analytics` in the data folder."
    )
    query_log_days: int = Field(30, ge=1, le=3650, description="Days for which the query log is kept.")
    query_log_mb: int = Field(100, ge=1, description="Most megabytes of the query log; the oldest days go first.")
    raw_share: float = Field(
        0.0, ge=0, le=1, description="Share of searches of which the query log `text` keeps the text as it was typed."
    )
    flush_s: float = Field(60.0, gt=0, le=3600, description="Seconds between two writes of the query log.")
    least_sessions: int = Field(
        3, ge=1, description="Sessions that must have asked a query, or met a page, for a report to name it."
    )
    again_minutes: float = Field(
        10.0, gt=0, description="Minutes within which another query of a session counts as another try."
    )


class ServeConfig(IndexesConfig):
    """Settings of serve_index.py."""

    index: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Indexes to serve (repeat the flag); without it, all that are published."
    )
    host: str = Field(
        "127.0.0.1", description="Address to listen on; one that others reach needs API keys (docs/access.md)."
    )
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    ray_address: str = Field("", description="Address of an existing Ray cluster; without it, a local one is started.")
    model: str = Field(
        "", description="Where to load the embedding model from, when not under the name in the manifest; its checksum "
        "must match."
    )  # fmt: skip
    swap_check_s: float = Field(
        2.0,
        ge=0,
        description="Seconds between two looks for a newly published (or rolled back) snapshot, which is then served "
        "without a restart; 0: swap only when POST /admin/reload says so.",
    )
    replicas: int = Field(
        0, ge=0, le=64, description="Processes that answer queries, each with the whole snapshot; 0: one for each "
        "processor, at most 8. With max_replicas, the fewest."
    )  # fmt: skip
    ingress: Literal["auto", "haproxy", "proxy"] = Field(
        "auto", description="What takes requests for the replicas: HAProxy, or Ray's own proxy, which is slower; auto: "
        "HAProxy where it is installed."
    )  # fmt: skip
    max_k: int = Field(100, ge=1, le=1000, description="Largest k a caller may ask for.")
    max_offset: int = Field(1000, ge=0, description="Largest offset a caller may ask for.")
    max_query_chars: int = Field(4000, ge=1, description="Longest query, in characters.")
    max_batch: int = Field(64, ge=1, description="Most queries in one POST /search.")
    embed_batch: int = Field(32, ge=1, description="Most waiting queries that are embedded in one call of the model.")
    max_waiting: int = Field(
        256, ge=1, description="Most searches that wait in one replica; more are refused with 503 and Retry-After."
    )
    cache_mb: int = Field(64, ge=0, description="Megabytes of answers that one replica keeps; 0: none.")
    monitoring: bool = Field(
        default=False,
        description="Run Prometheus with our rules beside the service, and show charts on Ray's dashboard "
        "(docs/monitoring.md).",
    )
    monitoring_port: int = Field(
        0, ge=0, le=65535, description="Port of the chart pages that --monitoring serves; 0: a free one."
    )
    monitoring_dir: Path = Field(
        Path(),
        description="Folder in which --monitoring keeps Prometheus's data; without it, in the folder of Ray's session, "
        "which a restart does not read.",
    )
    scrape_interval_s: float = Field(
        10.0, ge=1, le=60, description="Seconds between two looks of Prometheus at the figures; Ray renews them in 10."
    )
    scaling: ScalingConfig = ScalingConfig()
    limits: LimitsConfig = LimitsConfig()
    access: AccessConfig = AccessConfig()
    analytics: AnalyticsConfig = AnalyticsConfig()
    telemetry: ServeTelemetryConfig = ServeTelemetryConfig()

    canary_queries: str = Field(
        "",
        description="Judged queries (.jsonl, docs/evaluate.md) that a canary puts to this service again and again "
        "(docs/monitoring.md).",
    )
    canary_base: str = Field("", description="What relative addresses in --canary-queries are relative to.")
    canary_index: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Indexes that the canary searches (repeat the flag); without it, all that are served."
    )
    canary_interval_s: float = Field(300.0, ge=1, description="Seconds from one round of the canary to the next.")
    canary_least_recall: float = Field(
        0.0, ge=0, le=1, description="Recall@10 of the canary below which an alert is raised, whatever it was before."
    )
    canary_url: str = Field(
        "", pattern=HTTP_URL, description="Where the canary asks, as users do; without it, --host and --port."
    )
    canary_key: str = Field(
        "", repr=False, description="API key with which the canary asks (better in the environment than in a flag)."
    )

    rerank_model: str = Field(
        "",
        description="Cross-encoder that looks again at the best hits: a local folder or a Hugging Face name "
        "('overlap': a fake for tests); empty: none.",
    )
    rerank_candidates: int = Field(30, ge=1, le=200, description="Best hits that the cross-encoder looks at.")
    rerank_budget_ms: int = Field(
        500,
        ge=1,
        description="Milliseconds for which it may look at the hits of one query; those it does not get to keep their "
        "places.",
    )

    _names = field_validator("index", "canary_index", mode="before")(split_names)

    @property
    def keys_path(self) -> Path | None:
        """The file of the API keys; None when there can be none."""
        if self.access.keys_file != Path():
            return self.access.keys_file
        return None if self.uri else self.folder / "keys.json"

    @property
    def analytics_dir(self) -> Path:
        """The folder of the query log; no index has a name that begins with `_`."""
        given = self.analytics.query_log_dir
        return self.folder / "_analytics" if given == Path() else given

    @property
    def url(self) -> str:
        """Where this machine reaches the service."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - the reverse
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """True when only this machine can reach the address."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:  # a name, which may mean any address
            return False
