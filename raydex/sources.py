"""What to index: documentation sites, local folders, LangChain loaders; and which addresses belong to each.

    sources.toml, one URL or folder, or one loader → [Source, …]        crawl URL ↔ public URL

[[source]]
name = "python"
seeds = ["https://docs.python.org/3/"]
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo

from raydex.errors import ConfigError
from raydex.records import Source
from utils.urls import canonical_url, directory_of, file_path, file_url, in_scope, is_file_url, prefixes, public_url

__all__ = [
    "canonical_url",
    "check_names",
    "in_scope",
    "index_name",
    "load_document",
    "loader_source",
    "prefixes",
    "public_url",
    "source_from_url",
    "sources_of",
]

TABLES = frozenset({"source", "build", "serve"})
MAX_NAME_LENGTH = 63  # of an index: config.INDEX_NAME
KEYS_OF = {
    "seeds": {"seeds", "allow", "deny", "sitemaps", "headers", "basic_auth", "cookies"},
    "folder": {"folder", "allow", "deny", "link_style"},
    "loader": {"loader", "loader_args"},
}
"""What a source is read from → the keys that mean something only then."""
SECRET_KEYS = frozenset({"headers", "basic_auth", "cookies", "loader_args"})  # an error must not repeat their values
SITEMAP_SUFFIXES = (".xml", ".xml.gz")
_LANGUAGE = r"^([A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*)?$"  # BCP 47, its shape
_LOADER = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"
_VARIABLE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


def _canonical(url: str) -> str:
    address = canonical_url(url)
    if not address:
        raise ValueError("not an http or https URL")
    return address


def _beside(name: str, info: ValidationInfo) -> Path:
    """Return the path that a sources file names, relative to its own folder, which is the validation context."""
    return (cast(Path, info.context) / Path(name).expanduser()).resolve()


def _folder(name: str, info: ValidationInfo) -> str:
    path = _beside(name, info)
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    return file_url(path)


def _part(entry: str, info: ValidationInfo) -> str:
    """Return a prefix or glob as a URL: of a folder it is a path below it."""
    folder = info.data.get("folder")
    return folder + quote(entry.lstrip("/"), safe="/*") if folder else _canonical(entry)


def _sitemap(address: str, info: ValidationInfo) -> str:
    if "://" in address:
        return _canonical(address)
    path = _beside(address, info)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return file_url(path)


def _without_secret(template: str) -> str:
    if template and not _VARIABLE.search(template):
        raise ValueError("holds no ${NAME}; keep the secret in an environment variable and name that")
    return template


def _header_values(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if name.lower() in {"authorization", "cookie", "proxy-authorization"}:
            _without_secret(value)
    return headers


Address = Annotated[str, AfterValidator(_canonical)]
Part = Annotated[str, AfterValidator(_part)]
Secret = Annotated[str, AfterValidator(_without_secret)]


class _SourceTable(BaseModel):
    """One [[source]] table of the file: the fields of Source, checked. The validation context is the file's folder."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1)
    seeds: list[Address] = Field([], min_length=1)
    folder: Annotated[str, AfterValidator(_folder)] = ""
    loader: str = Field("", pattern=_LOADER)
    loader_args: dict[str, str] = {}
    allow: list[Part] = []
    deny: list[Part] = []
    public_url: Address | None = None
    link_style: Literal["keep", "html", "bare", "directory"] = "keep"
    version: str = ""
    language: str = Field("", pattern=_LANGUAGE)
    max_pages: int = Field(ge=1)
    max_depth: int = Field(ge=0)
    sitemaps: list[Annotated[str, AfterValidator(_sitemap)]] = []
    headers: Annotated[dict[str, str], AfterValidator(_header_values)] = {}
    basic_auth: Secret = ""
    cookies: Secret = ""
    synonyms: list[Annotated[list[Annotated[str, Field(pattern=r"\w")]], Field(min_length=2)]] = []

    def source(self) -> Source:
        seeds = [self.folder] if self.folder else [_loader_seed(self.name)] if self.loader else self.seeds
        return Source(
            name=self.name,
            seeds=tuple(dict.fromkeys(seeds)),
            allow=tuple(self.allow),
            deny=tuple(self.deny),
            public_url=self.public_url or "",
            version=self.version,
            language=self.language,
            max_pages=self.max_pages,
            max_depth=self.max_depth,
            sitemaps=tuple(self.sitemaps),
            link_style=self.link_style,
            loader=self.loader,
            loader_args=tuple(self.loader_args.items()),
            headers=tuple(self.headers.items()),
            basic_auth=self.basic_auth,
            cookies=self.cookies,
            synonyms=tuple(map(tuple, self.synonyms)),
        )


def source_from_url(url: str, *, max_pages: int, max_depth: int) -> Source:
    """Return the source of one address given on the command line: a site, a site's sitemap or a local folder.

    A site is named after its host and path, a folder after itself.
    """
    seed = canonical_url(url)
    if not seed and url and Path(url).expanduser().is_dir():
        folder = Path(url).expanduser().resolve()
        return Source(name=_slug(folder.name), seeds=(file_url(folder),), max_pages=max_pages, max_depth=max_depth)
    if not seed:
        hint = f"; did you mean https://{url}?" if canonical_url(f"https://{url}") and "://" not in url else ""
        raise ConfigError(f"{url!r} is not an http or https URL{hint}")
    parts = urlsplit(seed)
    sitemaps = (seed,) if parts.path.endswith(SITEMAP_SUFFIXES) else ()
    return Source(
        name=_slug(parts.netloc + parts.path),
        seeds=(directory_of(seed) if sitemaps else seed,),
        sitemaps=sitemaps,
        max_pages=max_pages,
        max_depth=max_depth,
    )


def loader_source(loader: str, arguments: Sequence[str], *, max_pages: int, max_depth: int) -> Source:
    """Return the source of a LangChain loader given on the command line, named after its class.

    loader: `package.module:Class`. arguments: `key=value` each, for its constructor.
    """
    if not re.match(_LOADER, loader):
        raise ConfigError(f"--loader {loader}: write it as package.module:Class")
    for argument in arguments:
        if not argument.partition("=")[0].isidentifier() or "=" not in argument:
            raise ConfigError(f"--loader-arg {argument.partition('=')[0]}: write it as key=value")
    pairs = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    name = _slug(loader.rpartition(":")[2])
    return Source(
        name=name,
        seeds=(_loader_seed(name),),
        loader=loader,
        loader_args=tuple(pairs.items()),
        max_pages=max_pages,
        max_depth=max_depth,
    )


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

    max_pages, max_depth: for the sources that do not say. origin: the file that the document came from; folders and
    files are named relative to it. Raises ConfigError naming the source and the key.
    """
    if unknown := sorted(document.keys() - TABLES):
        raise ConfigError(f"{origin}: unknown key {unknown[0]!r}; allowed are [[source]], [build] and [serve]")
    tables = document.get("source", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{origin}: write each source as a table of its own under [[source]]")
    defaults = {"max_pages": max_pages, "max_depth": max_depth}
    sources = tuple(_source(defaults | table, number, origin) for number, table in enumerate(tables, start=1))
    check_names(sources, origin)
    return sources


def check_names(sources: Sequence[Source], origin: str) -> None:
    """Raise ConfigError when two sources have one name."""
    seen: set[str] = set()
    for source in sources:
        if source.name in seen:
            raise ConfigError(f"{origin}: source {source.name!r}, name: is used twice; each source needs its own")
        seen.add(source.name)


def index_name(sources: Sequence[Source]) -> str:
    """Return the name of an index of these sources, after the first of them.

    That is its host, with the port unless it is the default, the name of its folder, or the class of its loader.
    """
    seed = sources[0].seeds[0]
    if sources[0].loader:
        return _slug(sources[0].loader.rpartition(":")[2])
    return _slug(file_path(seed).name if is_file_url(seed) else urlsplit(seed).netloc)


def _source(table: dict[str, Any], number: int, origin: str) -> Source:
    name = table.get("name")
    label = repr(name) if name and isinstance(name, str) else f"number {number}"
    if mistake := _misplaced_key(table):
        raise ConfigError(f"{origin}: source {label}, {mistake}")
    try:
        source = _SourceTable.model_validate(table, context=Path(origin).parent).source()
    except ValidationError as error:
        raise ConfigError("; ".join(f"{origin}: source {label}, {_explain(e)}" for e in error.errors())) from error
    for seed in source.seeds:
        if not is_file_url(seed) and not in_scope(source, seed):
            raise ConfigError(f"{origin}: source {label}, seeds: {seed} is not under `allow`, or is under `deny`")
    return source


def _misplaced_key(table: Mapping[str, Any]) -> str:
    """Return what is wrong with the choice of keys; "" when nothing is."""
    kinds = [kind for kind in KEYS_OF if kind in table]
    if not kinds:
        return "seeds: is missing; a source has seeds, a folder or a loader"
    if len(kinds) > 1:
        return f"{kinds[1]}: a source has only one of {', '.join(KEYS_OF)}, and {kinds[0]} is given too"
    elsewhere = set[str]().union(*KEYS_OF.values()) - KEYS_OF[kinds[0]]
    return next((f"{key}: has no meaning with {kinds[0]}" for key in table if key in elsewhere), "")


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"{key}: is missing"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key; allowed are {', '.join(_SourceTable.model_fields)}"
    found = "" if error["loc"][0] in SECRET_KEYS else f" = {error['input']!r}"
    return f"{key}{found}: {error['msg']}"


def _loader_seed(name: str) -> str:
    return f"loader://{quote(name, safe='')}/"


def _slug(text: str) -> str:
    """Return text as a name that config.INDEX_NAME accepts."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:MAX_NAME_LENGTH] or "index"
