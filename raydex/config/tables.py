"""Every setting, once: name, default, bounds, meaning. Data only."""

import hashlib
import os
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


def split_names(value: Any) -> Any:
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

    _names = field_validator("discover", mode="before")(split_names)

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
