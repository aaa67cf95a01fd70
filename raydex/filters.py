"""What a filter means: a row passes when, of each field that is filtered, one of its keys is wanted.

    Filters → wanted_keys → {field: keys} ;  value of a row → keys_of → keys

The lexical index holds the keys of each row, the dense leg compares them (search/facts.py): both by these functions.
"""

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from raydex.records import Filters

FIELDS = ("source", "version", "language", "kind", "path")


def wanted_keys(filters: Filters) -> dict[str, frozenset[str]]:
    """Return of each field that is filtered which keys pass. The path `/` takes every page, as no path does."""
    keys = {
        "source": frozenset(filters.sources),
        "version": frozenset(filters.versions),
        "language": frozenset(language.lower() for language in filters.languages),
        "kind": frozenset(filters.kinds),
        "path": frozenset(map(_place, filters.paths)),
    }
    if "" in keys["path"]:
        keys["path"] = frozenset()
    return {field: of for field, of in keys.items() if of}


def keys_of(field: str, value: str) -> Iterable[str]:
    """Return the keys of a row with this value of a field; of the path, the value is the URL of the page."""
    if field == "language":
        return _languages(value)
    return _places(value) if field == "path" else (value,)


def _languages(language: str) -> Iterator[str]:
    """Yield a language and the one it is a kind of: `en-gb`, `en`."""
    lower = language.lower()
    yield lower
    if "-" in lower:
        yield lower.partition("-")[0]


def _places(url: str) -> Iterator[str]:
    """Yield each folder above a page and the page itself, as path and as URL, without a slash at the end."""
    parts = urlsplit(url)
    whole = ""
    yield f"{parts.scheme}://{parts.netloc}"
    for segment in filter(None, parts.path.split("/")):
        whole += f"/{segment}"
        yield whole
        yield f"{parts.scheme}://{parts.netloc}{whole}"


def _place(path: str) -> str:
    """Return how _places spells a place that a person named: whole segments, "" for the root of every site."""
    path = path.partition("#")[0].rstrip("/")
    return path if "://" in path or path.startswith("/") or not path else f"/{path}"
