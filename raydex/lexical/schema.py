"""The fields of the two tantivy indexes, and how a place is spelled in them.

`text` holds title, headings, symbol and body in one field: they add up before BM25 saturates (as in BM25F), have one
length, and a union of the words of one field can skip passages that cannot reach the best.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

import tantivy

KEYWORDS = ("source", "version", "language", "kind", "path")


def passages_schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", tokenizer_name="whitespace", index_option="position")
    builder.add_text_field("symbol", tokenizer_name="raw", index_option="basic")
    for name in KEYWORDS:
        builder.add_text_field(name, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("row", fast=True)
    return builder.build()


def names_schema() -> tantivy.Schema:
    """A document is a name to suggest (`name`, found by `start` and `words`, of `row`) or the `spelling` of a term."""
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("name", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_text_field("start", tokenizer_name="raw", index_option="basic")
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="basic")
    builder.add_text_field("spelling", stored=True, tokenizer_name="raw", index_option="basic")
    builder.add_unsigned_field("weight", stored=True, fast=True)
    builder.add_unsigned_field("row", stored=True)
    return builder.build()


def symbol_keys(symbol: str) -> Iterator[str]:
    """Yield what a symbol is found by: `=` itself, `~` itself in lower case, and each of its ends (`path.join`)."""
    yield f"={symbol}"
    yield f"~{symbol.lower()}"
    rest = dotted(symbol)
    while rest:
        yield rest
        rest = rest.partition(".")[2]


def dotted(symbol: str) -> str:
    """Return the one spelling in which ends of symbols are compared."""
    return symbol.lower().replace("::", ".").replace("->", ".").replace("#", ".").strip(".")


def languages_of(language: str) -> Iterator[str]:
    """Yield a language and the one it is a kind of: `en-gb`, `en`."""
    lower = language.lower()
    yield lower
    if "-" in lower:
        yield lower.partition("-")[0]


def paths_of(url: str) -> Iterator[str]:
    """Yield each folder above a page and the page itself, as path and as URL, without a slash at the end."""
    parts = urlsplit(url)
    whole = ""
    yield f"{parts.scheme}://{parts.netloc}"
    for segment in filter(None, parts.path.split("/")):
        whole += f"/{segment}"
        yield whole
        yield f"{parts.scheme}://{parts.netloc}{whole}"


def path_key(path: str) -> str:
    """Return how paths_of spells a place that a person named."""
    path = path.partition("#")[0].rstrip("/")
    return path if "://" in path or path.startswith("/") else f"/{path}"
