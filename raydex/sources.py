"""Which documentation sites to index, and which addresses belong to each.

    sources.toml, or one URL → [Source, …]        crawl URL ↔ public URL

[[source]]
name = "python"
seeds = ["https://docs.python.org/3/"]
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from raydex.errors import ConfigError
from raydex.records import Source
from utils.urls import canonical_url, in_scope, prefixes, public_url

__all__ = [
    "canonical_url",
    "in_scope",
    "index_name",
    "load_document",
    "prefixes",
    "public_url",
    "source_from_url",
    "sources_of",
]

TABLES = frozenset({"source", "build", "serve"})
MAX_NAME_LENGTH = 63  # of an index: config.INDEX_NAME


def _canonical(url: str) -> str:
    address = canonical_url(url)
    if not address:
        raise ValueError("not an http or https URL")
    return address


Address = Annotated[str, AfterValidator(_canonical)]


class _SourceTable(BaseModel):
    """One [[source]] table of the file: the fields of Source, checked."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1)
    seeds: list[Address] = Field(min_length=1)
    allow: list[Address] = []
    deny: list[Address] = []
    public_url: Address | None = None
    version: str = ""
    max_pages: int = Field(ge=1)
    max_depth: int = Field(ge=0)

    def source(self) -> Source:
        return Source(
            name=self.name,
            seeds=tuple(dict.fromkeys(self.seeds)),
            allow=tuple(self.allow),
            deny=tuple(self.deny),
            public_url=self.public_url or "",
            version=self.version,
            max_pages=self.max_pages,
            max_depth=self.max_depth,
        )


def source_from_url(url: str, *, max_pages: int, max_depth: int) -> Source:
    """Return the source of one address given on the command line, named after its host and path."""
    seed = canonical_url(url)
    if not seed:
        hint = f"; did you mean https://{url}?" if canonical_url(f"https://{url}") and "://" not in url else ""
        raise ConfigError(f"{url!r} is not an http or https URL{hint}")
    parts = urlsplit(seed)
    return Source(name=_slug(parts.netloc + parts.path), seeds=(seed,), max_pages=max_pages, max_depth=max_depth)


def load_document(path: Path) -> dict[str, Any]:
    """Return the tables of a sources file. Raises ConfigError naming file and line when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; name the file to read with --sources") from error
    except ValueError as error:  # TOMLDecodeError names line and column; UnicodeDecodeError the byte
        raise ConfigError(f"{path}: {error}") from error


def sources_of(document: Mapping[str, Any], *, max_pages: int, max_depth: int, origin: str) -> tuple[Source, ...]:
    """Return the [[source]] tables of a document, in its order.

    max_pages, max_depth: for the sources that do not say. origin: where the document came from, for the messages.
    Raises ConfigError naming the source and the key.
    """
    if unknown := sorted(document.keys() - TABLES):
        raise ConfigError(f"{origin}: unknown key {unknown[0]!r}; allowed are [[source]], [build] and [serve]")
    tables = document.get("source", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{origin}: write each source as a table of its own under [[source]]")
    defaults = {"max_pages": max_pages, "max_depth": max_depth}
    sources = tuple(_source(defaults | table, number, origin) for number, table in enumerate(tables, start=1))
    _check_names(sources, origin)
    return sources


def index_name(sources: Sequence[Source]) -> str:
    """Return the name of an index of these sources: the first seed's host, with its port unless it is the default."""
    return _slug(urlsplit(sources[0].seeds[0]).netloc)


def _source(table: dict[str, Any], number: int, origin: str) -> Source:
    name = table.get("name")
    label = repr(name) if name and isinstance(name, str) else f"number {number}"
    try:
        source = _SourceTable.model_validate(table).source()
    except ValidationError as error:
        raise ConfigError("; ".join(f"{origin}: source {label}, {_explain(e)}" for e in error.errors())) from error
    for seed in source.seeds:
        if not in_scope(source, seed):
            raise ConfigError(f"{origin}: source {label}, seeds: {seed} is not under `allow`, or is under `deny`")
    return source


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{key}: is missing"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed are {', '.join(_SourceTable.model_fields)}"
    return f"{key} = {error['input']!r}: {error['msg']}"


def _check_names(sources: tuple[Source, ...], origin: str) -> None:
    seen: set[str] = set()
    for source in sources:
        if source.name in seen:
            raise ConfigError(f"{origin}: source {source.name!r}, name: is used twice; each source needs its own")
        seen.add(source.name)


def _slug(text: str) -> str:
    """Return text as a name that config.INDEX_NAME accepts."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:MAX_NAME_LENGTH] or "index"
