"""Every setting, once: name, default, bounds, meaning. Flags, RAYDEX_* variables, TOML and docs/settings.md follow.

default < file ([build] or [serve] in sources.toml) < environment < flag  →  BuildConfig / ServeConfig, frozen

RAYDEX_CRAWL__DELAY_S=1 python build_index.py https://docs.example.org/ --max-pages 200
"""

import argparse
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsError

from raydex.errors import ConfigError

CODE_VERSION = "0.1.0"
ENV_PREFIX = "RAYDEX_"
INDEX_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"


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
        pattern=r"^(auto|flat|fp16|rabitq)$",
        description="How vectors are searched: flat (exact), fp16 or rabitq (smaller and faster, best rows scored "
        "anew with the whole vectors), auto: by the number of chunks.",
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


class ServeConfig(IndexesConfig):
    """Settings of serve_index.py."""

    index: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Indexes to serve (repeat the flag); without it, all that are published."
    )
    host: str = Field("127.0.0.1", description="Address to listen on. There is no access control yet: keep it private.")
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
    replicas: int = Field(1, ge=1, le=64, description="Processes that answer queries, each with the whole snapshot.")
    max_k: int = Field(100, ge=1, le=1000, description="Largest k a caller may ask for.")
    max_offset: int = Field(1000, ge=0, description="Largest offset a caller may ask for.")
    max_query_chars: int = Field(4000, ge=1, description="Longest query, in characters.")
    max_batch: int = Field(64, ge=1, description="Most queries in one POST /search.")
    embed_batch: int = Field(16, ge=1, description="Most waiting queries that are embedded in one call of the model.")
    limits: LimitsConfig = LimitsConfig()

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

    _names = field_validator("index", mode="before")(_split_names)


BESIDE_THE_FILE = ("golden_queries", "golden_qrels")
"""Settings of [build.gate] that name files: in the file of settings relative to it, else to the working folder."""

Config = TypeVar("Config", BuildConfig, ServeConfig)


@dataclass(frozen=True, slots=True)
class Setting:
    """One leaf of a settings table. path: its place in the table; the flag is the leaf's own name."""

    path: tuple[str, ...]
    info: FieldInfo

    @property
    def flag(self) -> str:
        return "--" + self.path[-1].replace("_", "-")

    @property
    def variable(self) -> str:
        return ENV_PREFIX + "__".join(self.path).upper()

    @property
    def is_list(self) -> bool:
        return get_origin(self.info.annotation) is tuple

    @property
    def type_name(self) -> str:
        if get_origin(self.info.annotation) is Literal:
            return ", ".join(get_args(self.info.annotation))
        if isinstance(self.info.annotation, UnionType):
            return "path or URI"
        kind = get_args(self.info.annotation)[0] if self.is_list else self.info.annotation
        return {str: "text", int: "number", float: "number", bool: "yes/no", Path: "path"}[cast(type, kind)]

    @property
    def is_switch(self) -> bool:
        return self.info.annotation is bool

    @property
    def default_text(self) -> str:
        default = self.info.default
        if self.is_list:
            return ",".join(default) or "none"
        if self.is_switch:
            return "yes" if default else "no"
        return str(default) if default not in ("", Path()) else "none"


def settings_of(table: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Yield every leaf of a settings table, in the order it is written."""
    for name, info in table.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from settings_of(info.annotation, (*prefix, name))
        else:
            yield Setting((*prefix, name), info)


def add_flags(parser: argparse.ArgumentParser, table: type[BaseModel]) -> None:
    """Give the parser one flag per setting, grouped by table; absent flags stay absent from the namespace."""
    groups: dict[tuple[str, ...], Any] = {(): parser.add_argument_group("settings")}
    for setting in settings_of(table):
        section = setting.path[:-1]
        if section not in groups:
            groups[section] = parser.add_argument_group(f"settings: {section[0]}")
        kind: dict[str, Any] = (
            {"action": "store_true"}
            if setting.is_switch
            else {"action": "append" if setting.is_list else "store", "metavar": setting.path[-1].upper()}
        )
        groups[section].add_argument(
            setting.flag,
            dest=".".join(setting.path),
            default=argparse.SUPPRESS,
            **kind,
            help=f"{setting.info.description} [default: {setting.default_text}, env {setting.variable}]".replace(
                "%", "%%"
            ),
        )


def resolve(table: type[Config], flags: Mapping[str, Any], file_values: Mapping[str, Any], file_name: str) -> Config:
    """Return the settings: default < file < environment < flag.

    flags: dotted name → value, other keys are ignored. Raises ConfigError naming each wrong setting, where its value
    came from and what is allowed.
    """
    given_flags = {s.path: flags[".".join(s.path)] for s in settings_of(table) if ".".join(s.path) in flags}
    environment = EnvSettingsSource(
        cast(type[BaseSettings], table),
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        case_sensitive=False,
    )
    if not isinstance(file_values, Mapping):
        raise ConfigError(f"{file_name}: settings must be a table such as [build], found {file_values!r}")
    try:
        values = _overlay(_overlay(_found_beside(file_values, file_name), environment()), _nested(given_flags))
        return table.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e, given_flags, file_name) for e in error.errors())) from error
    except SettingsError as error:  # a variable that names a table of settings, such as RAYDEX_CRAWL
        raise ConfigError(f"environment variable {ENV_PREFIX}…: {error}") from error


def _found_beside(file_values: Mapping[str, Any], file_name: str) -> dict[str, Any]:
    """Return the values of the file, with the files that it names as paths from the working folder."""
    gate = file_values.get("gate")
    if not isinstance(gate, Mapping):
        return dict(file_values)
    folder = Path(file_name).parent
    named = {key: str(folder / gate[key]) for key in BESIDE_THE_FILE if isinstance(gate.get(key), str) and gate[key]}
    return {**file_values, "gate": {**gate, **named}}


def _explain(error: Any, given_flags: Mapping[tuple[str, ...], Any], file_name: str) -> str:
    path = tuple(str(part) for part in error["loc"])
    setting = Setting(path, FieldInfo())
    if path in given_flags:
        origin = f"flag {setting.flag}"
    elif setting.variable in os.environ:
        origin = f"environment variable {setting.variable}"
    else:
        origin = file_name or "defaults"
    return f"{'.'.join(path)} = {error['input']!r} (from {origin}): {error['msg']}"


def _nested(flat: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        node = tree
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = value
    return tree


def _overlay(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _overlay(dict(merged[key]), value) if both_tables else value
    return merged
