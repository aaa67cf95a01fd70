"""Every setting, once: name, default, bounds, meaning. Data only."""

import hashlib
import os
import re
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic_settings import NoDecode

CODE_VERSION = "0.1.0"
INDEX_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"
HTTP_URL = r"^(https?://[^/\s]\S*)?$"
RATE = r"^([1-9][0-9]{0,8}/(second|minute|hour|day))?$"


class Settings(BaseModel):
    """A table of settings that is checked once and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _split_names(value: Any) -> Any:
    """Take `a,b` from the environment as well as a list."""
    return tuple(name for name in value.split(",") if name) if isinstance(value, str) else value


class CrawlConfig(Settings):
    max_pages: int = Field(5000, ge=1, description="Most pages to fetch per source.")
    max_depth: int = Field(20, ge=0, description="Most links to follow from a seed; 0 fetches the seeds alone.")
    delay_s: float = Field(
        0.0, ge=0, description="Seconds between two requests to a host; above 0, one request at a time."
    )
    per_host: int = Field(
        8, ge=1, le=64, description="Most requests in flight to one host; fewer while it answers slowly or with errors."
    )
    timeout_s: float = Field(20.0, gt=0, description="Seconds one request may take, from connect to last byte.")
    attempts: int = Field(
        3, ge=1, le=10, description="Most requests for one page (timeouts, 429 and 5xx are repeated)."
    )
    retry_deadline_s: float = Field(
        120.0, gt=0, description="Seconds after which a page is given up, all attempts and waits together."
    )
    max_body_bytes: int = Field(10_000_000, ge=1024, description="Longest page taken, in bytes after decompression.")
    batch_pages: int = Field(8, ge=1, le=256, description="Pages of one unit of work: what a kill may cost.")
    user_agent: str = Field(
        f"RaydexBot/{CODE_VERSION} (documentation search indexer)",
        min_length=1,
        description="User-Agent header; its first word is the name robots.txt is asked for.",
    )
    contact: str = Field("", description="Mail address or URL that the User-Agent gives to whoever runs the site.")
    discover: Annotated[tuple[str, ...], NoDecode] = Field(
        ("links", "sitemap", "llms.txt"),
        description="How pages are found from the seeds: links, sitemap, llms.txt (repeat the flag).",
    )
    max_per_pattern: int = Field(
        1000, ge=1, description="Most URLs that differ only in their query string or date; beyond it lies a trap."
    )
    lastmod_days: float = Field(
        7.0,
        ge=0,
        description="Days for which a page that its sitemap calls unchanged is not asked for; 0: ask each time.",
    )
    stale_builds: int = Field(
        3, ge=0, description="Builds in a row for which a page that fails stays in the index with its last good copy."
    )
    parse_deadline_s: float = Field(20.0, gt=0, description="Seconds that reading one page may take.")
    render: bool = Field(
        default=False,
        description="Run pages that need JavaScript in a browser (needs requirements-render.txt and Chromium).",
    )
    duplicate_share: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Similarity (shared 5-word sequences) from which pages and sections count as duplicates, of which "
        "one is kept; 1: identical text only, 0: keep all.",
    )

    _names = field_validator("discover", mode="before")(_split_names)

    @field_validator("discover")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(value) - {"links", "sitemap", "llms.txt"}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}; allowed are links, sitemap, llms.txt")
        return value


class ChunkConfig(Settings):
    max_tokens: int = Field(
        256,
        ge=16,
        description="Longest chunk, in tokens of the model, heading path and special tokens included "
        "(the model's own limit, when that is lower).",
    )
    overlap_tokens: int = Field(32, ge=0, description="Most tokens shared by neighbouring chunks of one section.")


class EmbedConfig(Settings):
    model: str = Field(
        "all-MiniLM-L6-v2",
        min_length=1,
        description="Embedding model: a local folder, the name of an installed model package or a Hugging Face name "
        "('hash': a fake for tests that needs no model and ranks by shared words).",
    )
    actors: int = Field(0, ge=0, le=256, description="Embedding processes; 0: one for every two processors.")
    backend: Literal["auto", "openvino", "gpu", "sentence-transformers"] = Field(
        "auto",
        description="What runs the model: openvino (bf16 where the processor has it), gpu (fp16) or "
        "sentence-transformers (fp32, any model); auto: a GPU if there is one, else openvino, if it can run the model.",
    )
    batch_tokens: int = Field(
        0,
        ge=0,
        description="Tokens per call of the model, padding included; 0: 2,048 on a processor, 262,144 on a GPU.",
    )


class VectorsConfig(Settings):
    index_kind: str = Field(
        "auto",
        pattern=r"^(auto|flat|fp16|int8|rabitq)$",
        description="How vectors are searched: flat, fp16, int8 (exact, each faster than the one before) or rabitq "
        "(smaller, may miss a row); all but flat score the best rows anew with the whole vectors. auto: by the number "
        "of chunks.",
    )
    least_recall: float = Field(
        0.99,
        ge=0,
        le=1,
        description="Least share of the ten best rows that an index must find of a sample; below it, the shard is "
        "searched exactly.",
    )


class GateConfig(Settings):
    max_failed_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest share of pages that may fail before the build is given up (exit 3).",
    )
    max_shrink_share: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Largest share of pages, sections or chunks that may vanish since the live snapshot, of the whole "
        "or of one directory (exit 5).",
    )
    max_collapsed_share: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Largest share of pages whose text may collapse, or become that of other pages, since the live "
        "snapshot (exit 5).",
    )
    max_probe_loss: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest loss of sampled pages that their own heading finds, against the live snapshot (exit 5).",
    )
    max_repeated_rise: float = Field(
        0.04,
        ge=0,
        le=1,
        description="Largest rise of sampled pages that read like many others, against the live snapshot (exit 5).",
    )
    golden_queries: str = Field(
        "",
        description="Golden queries: `id<TAB>text` a line, or .jsonl with answers. In a settings file, relative to it.",
    )
    golden_qrels: str = Field(
        "",
        description="File of what answers them (TREC qrels: `id 0 url relevance` a line, url with or without #anchor).",
    )
    golden_k: int = Field(10, ge=1, le=100, description="Sections looked at for each golden query.")
    max_golden_loss: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Largest loss of recall@k or nDCG@k of the golden queries against the live snapshot (exit 5).",
    )


class StorageConfig(Settings):
    keep_snapshots: int = Field(
        10,
        ge=0,
        description="Snapshots kept when a build ends, and by --gc; with what hangs on the others, all else "
        "goes (docs/lifecycle.md). 0: a build removes nothing.",
    )
    grace_s: float = Field(
        3600.0, ge=0, description="Seconds for which a file that nothing needs is kept all the same."
    )


def _folder_or_uri(value: Any) -> Any:
    """Take `scheme://…` as it is (a Path would swallow a slash), and all else as a path."""
    return value.rstrip("/") if isinstance(value, str) and "://" in value else Path(value)


class TelemetryConfig(Settings):
    """What the programs tell of themselves beside metrics: docs/logs.md, docs/tracing.md."""

    log_format: Literal["text", "json"] = Field("text", description="How log lines are written, one for each event.")
    trace_endpoint: str = Field(
        "",
        pattern=HTTP_URL,
        description="Where spans are sent to (OTLP over HTTP), such as http://127.0.0.1:4318/v1/traces; without it, "
        "there are none (needs requirements-otlp.txt).",
    )


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


class IndexesConfig(Settings):
    """Where the indexes are."""

    data_dir: Annotated[Path | str, BeforeValidator(_folder_or_uri)] = Field(
        Path("checkpoints"),
        description="Folder of all indexes, or its URI, such as s3://bucket/prefix (docs/storage.md).",
    )
    work_dir: Path = Field(
        Path(),
        description="Folder on this machine that mirrors a --data-dir which is a URI; without it, one in the "
        "user's cache.",
    )

    @property
    def uri(self) -> str:
        """data_dir when it is a URI, else ""."""
        return self.data_dir if isinstance(self.data_dir, str) else ""

    @property
    def folder(self) -> Path:
        """The indexes on this machine: data_dir itself, or what mirrors the URI."""
        if isinstance(self.data_dir, Path):
            return self.data_dir
        if self.work_dir != Path():
            return self.work_dir
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return cache / "raydex" / hashlib.sha256(self.data_dir.encode()).hexdigest()[:16]


class BuildConfig(IndexesConfig):
    """Settings of build_index.py."""

    index: str = Field(
        "",
        pattern=INDEX_NAME + "|^$",
        description="Name of the index (lower case); without it, the first host.",
    )
    ray_address: str = Field("", description="Address of an existing Ray cluster; without it, a local one is started.")
    shards: int = Field(
        0,
        ge=0,
        le=1024,
        description="Parts of the index; 0: a power of two with about 4096 chunks each, above 64 parts a million.",
    )
    crawl: CrawlConfig = CrawlConfig()
    chunk: ChunkConfig = ChunkConfig()
    embed: EmbedConfig = EmbedConfig()
    vectors: VectorsConfig = VectorsConfig()
    gate: GateConfig = GateConfig()
    storage: StorageConfig = StorageConfig()
    telemetry: TelemetryConfig = TelemetryConfig()


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

    _names = field_validator("cors_origins", mode="before")(_split_names)

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

    _names = field_validator("index", "canary_index", mode="before")(_split_names)

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
