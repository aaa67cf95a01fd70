"""What a search must beat: rankings by simple means, on the same pages.

    Words([(address, text), …]).run(queries, limit) → {query id: [address, …]}    BM25 over English stems

windows(folder, pages) gives the texts of the well-known recipe: the text of a whole page, cut every 500 characters.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import tantivy
from bs4 import BeautifulSoup

from raydex.lexical.analysis import analyzer

WINDOW = 500
RRF_K = 60

Run = dict[str, list[str]]
"""query id → addresses, best first."""


class Words:
    """BM25 (k1 1.2, b 0.75) over texts in memory."""

    def __init__(self, passages: Iterable[tuple[str, str]]) -> None:
        builder = tantivy.SchemaBuilder()
        builder.add_text_field("text", tokenizer_name="whitespace", index_option="freq")
        builder.add_unsigned_field("row", fast=True)
        index = tantivy.Index(builder.build())
        writer = index.writer(num_threads=1)
        self._addresses = []
        for row, (address, text) in enumerate(passages):
            self._addresses.append(address)
            document = tantivy.Document(text=" ".join(stems(text)))
            document.add_unsigned("row", row)
            writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        self._schema, self._searcher = index.schema, index.searcher()

    def run(self, queries: Mapping[str, str], limit: int) -> Run:
        return {query: self._ranked(text, limit) for query, text in queries.items()}

    def _ranked(self, text: str, limit: int) -> list[str]:
        words = [tantivy.Query.term_query(self._schema, "text", term, "freq") for term in dict.fromkeys(stems(text))]
        query = tantivy.Query.boolean_query([(tantivy.Occur.Should, word) for word in words])
        hits = self._searcher.search(query, limit, count=False).hits
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        return [self._addresses[int(row or 0)] for row in rows]


def stems(text: str) -> list[str]:
    of = analyzer("en")
    return [of.stem(word) for word in re.findall(r"\w+", text.lower())]


def windows(folder: Path, base: str, pages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield (page, text of 500 characters) of pages, whose files lie in the folder as their addresses below base."""
    for page in sorted(pages):
        path = folder / page.removeprefix(base)
        path = path / "index.html" if path.is_dir() else path
        html = path.read_text(encoding="utf-8", errors="replace")
        text = re.sub(r"\s+", " ", BeautifulSoup(html, "html.parser").get_text())
        yield from ((page, text[first : first + WINDOW]) for first in range(0, len(text), WINDOW))


def reciprocal_rank_fusion(runs: Sequence[Mapping[str, Sequence[str]]]) -> Run:
    """Add up 1 / (60 + rank) of each address over the runs (Cormack, Clarke and Büttcher, SIGIR 2009)."""
    fused: Run = {}
    for query in runs[0]:
        scores: dict[str, float] = {}
        for run in runs:
            for rank, address in enumerate(dict.fromkeys(run.get(query, ())), start=1):
                scores[address] = scores.get(address, 0.0) + 1 / (RRF_K + rank)
        fused[query] = sorted(scores, key=lambda address: -scores[address])
    return fused
