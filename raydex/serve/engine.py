"""The served indexes, open: texts → vectors → hits. Plain Python, no Ray, no HTTP.

    engine = Engine(ServeConfig(index=("docs",)))
    vectors = engine.embed(engine.select(["docs"])[0].model_id, ["how do I open a file"])
    found = engine.find(engine.select(["docs"]), [Query(text="how do I open a file")], vectors, times=StageTimes())

An index that cannot be opened keeps its reason and leaves the others alone. Methods may run in several threads.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from threading import Lock
from weakref import WeakValueDictionary

from raydex.config import ServeConfig
from raydex.embed import Embedder, describe, load_embedder
from raydex.errors import IndexNotFound, QueryError, SectionNotFound, SnapshotError
from raydex.lexical import Suggestion
from raydex.records import Found, Manifest, Query, Section, StageTimes, Vectors
from raydex.search import Groups, Scattered, Searcher, SnapshotKey, merge_found, open_rerank_stage
from raydex.serve.open_snapshots import OpenSnapshots, Table

PROBE = "is the service ready"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class OpenIndex:
    """A snapshot of an index, open. Nobody keeps it beyond a request, so that it closes once another is served."""

    name: str
    manifest: Manifest
    searcher: Searcher
    embedder: Embedder

    @property
    def model_id(self) -> str:
        """Of the model that made the vectors; a query must be embedded by the same."""
        return self.manifest.embedder.model_id


class Engine(OpenSnapshots[OpenIndex]):
    """The open indexes of one replica, and their models."""

    def __init__(
        self,
        config: ServeConfig,
        *,
        threads: int = 0,
        agreed: Mapping[str, str] | None = None,
        groups: Groups | None = None,
        group_count: int = 1,
    ) -> None:
        """threads: of one call of the model; 0 leaves it to the library. agreed: see OpenSnapshots.

        groups: the other processes that have the shards; without them, this one has all.
        """
        self._threads, self._groups, self._group_count = threads, groups, group_count
        self._embedders: WeakValueDictionary[str, Embedder] = WeakValueDictionary()  # they live with their indexes
        self._embedding, self._opening = Lock(), Lock()
        self._second_look = open_rerank_stage(
            config.rerank_model,
            candidates=config.rerank_candidates,
            budget_ms=config.rerank_budget_ms,
            threads=threads,
        )
        super().__init__(config, agreed=agreed)

    def opened(self, name: str, manifest: Manifest) -> OpenIndex:
        model = self.config.model or manifest.embedder.name
        shards = None if self._groups is None else ()
        snapshot = self.read(name, manifest, expected=describe(model), shards=shards)
        holdings = None
        if self._groups is not None:
            holdings = Scattered(
                SnapshotKey(name, manifest.snapshot_id),
                manifest,
                self._groups,
                count=self._group_count,
                timeout_s=self.config.scaling.group_timeout_ms / 1000,
            )
        searcher = Searcher(name, snapshot, holdings)
        return OpenIndex(name, manifest, searcher, self._embedder(manifest.embedder.model_id, model))

    def warm(self, opened: OpenIndex) -> None:
        """Where groups have the shards, they do that themselves, and may not have opened them yet."""
        with self._embedding:
            vector = opened.embedder.embed_queries([PROBE])[0]
        if self._groups is None:
            opened.searcher.find(Query(text=PROBE, k=1), vector)

    def select(self, names: Sequence[str] = ()) -> list[OpenIndex]:
        """Return the named indexes, or without names all that are open.

        Raises IndexNotFound, the reason why a named index is not open, or QueryError when they were made with
        different models, whose scores cannot be compared.
        """
        table = self.table
        if not names and not table.indexes:
            none = SnapshotError("no index is served: nothing has been built yet")
            raise copy(next(iter(table.reasons.values()), none))
        chosen = [_named(table, name) for name in dict.fromkeys(names)] or list(table.indexes.values())
        if len({index.model_id for index in chosen}) > 1:
            models = ", ".join(f"{index.name} ({index.manifest.embedder.name})" for index in chosen)
            raise QueryError("index", f"these were made with different models, name one of them: {models}")
        return chosen

    def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        with self._embedding:  # a fast tokenizer that truncates is not thread-safe, and two calls would share the cores
            return self._embedders[model_id].embed_queries(texts)

    def find(
        self,
        indexes: Sequence[OpenIndex],
        queries: Sequence[Query],
        vectors: Vectors | None,
        *,
        times: StageTimes,
        before_each: Callable[[], None] = lambda: None,
        seconds_left: Callable[[], float] = lambda: math.inf,
    ) -> list[Found]:
        """Answer each query from all the indexes together. vectors: a row for each, None when none is looked at.

        before_each: called before a query is searched in an index; what it raises ends the whole. seconds_left: of the
        request; reranking takes no more than a part of them, and groups are waited for no longer.
        """
        rows: Sequence[Vectors | None] = [None] * len(queries) if vectors is None else list(vectors)

        def search(index: OpenIndex, query: Query, row: Vectors | None) -> Found:
            before_each()
            return index.searcher.find(query, row, times=times.of_index(index.name), seconds_left=seconds_left)

        answers: list[Found] = []
        for query, row in zip(queries, rows, strict=True):
            found = _find(search, indexes, self._second_look.widened(query), row)
            within_s = seconds_left() / (len(queries) - len(answers))
            answers.append(self._second_look.apply(query, found, times=times, within_s=within_s))
        return answers

    def suggest(self, indexes: Sequence[OpenIndex], prefix: str, *, k: int) -> list[tuple[str, Suggestion, str]]:
        """Return (index, suggestion, its URL): the best of each index first, then the second best, a text once."""
        lists = [[(index.name, found, url) for found, url in index.searcher.suggest(prefix, k)] for index in indexes]
        best: dict[str, tuple[str, Suggestion, str]] = {}
        for one in filter(None, chain.from_iterable(zip_longest(*lists))):
            best.setdefault(one[1].text, one)
        return list(best.values())[:k]

    def length_warning(self, model_id: str, text: str) -> str:
        """Return what to tell the caller when the model cannot read the whole text; empty when it can."""
        embedder = self._embedders[model_id]
        limit = embedder.info.max_tokens
        if text.isascii() and len(text) + embedder.tokenizer.special_tokens <= limit:
            return ""  # no token is shorter than a character
        tokens = embedder.tokenizer.count(text)
        return f"the query has {tokens} tokens; the model read the first {limit}" if tokens > limit else ""

    def section(self, section_id: str, *, allowed: frozenset[str] | None = None) -> tuple[OpenIndex, Section]:
        """Return the section and the first index that holds it. allowed: where to look; None: in all."""
        indexes = self.indexes
        for index in indexes.values():
            is_visible = allowed is None or index.name in allowed
            if is_visible and (section := index.searcher.section(section_id)):
                return index, section
        if not indexes:
            self.select()
        raise SectionNotFound(section_id)

    def _embedder(self, model_id: str, model: str) -> Embedder:
        """Return a model; indexes of one model share it."""
        with self._opening:
            embedder = self._embedders.get(model_id)
            if embedder is None:
                embedder = self._embedders[model_id] = load_embedder(model, threads=self._threads)
            return embedder


def _named(table: Table[OpenIndex], name: str) -> OpenIndex:
    if name in table.indexes:
        return table.indexes[name]
    if name in table.reasons:
        raise copy(table.reasons[name])  # one that is raised again and again gathers the frames of all requests
    raise IndexNotFound(name, table.names)


def _find(
    search: Callable[[OpenIndex, Query, Vectors | None], Found],
    indexes: Sequence[OpenIndex],
    query: Query,
    row: Vectors | None,
) -> Found:
    """Answer one query from all the indexes together."""
    if len(indexes) == 1:
        return search(indexes[0], query, row)
    whole = replace(query, k=query.offset + query.k, offset=0)
    return merge_found([search(index, whole, row) for index in indexes], k=query.k, offset=query.offset)
