"""The fields of the two tantivy indexes, and how a symbol is spelled in them.

`text` holds title, headings, symbol and body in one field: they add up before BM25 saturates (as in BM25F), have one
length, and a union of the words of one field can skip passages that cannot reach the best.
"""

from collections.abc import Iterator

import tantivy

from raydex.filters import FIELDS


def passages_schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", tokenizer_name="whitespace", index_option="position")
    builder.add_text_field("symbol", tokenizer_name="raw", index_option="basic")
    for name in FIELDS:
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
