"""The served indexes, opened once: texts → vectors → hits. Plain Python, no Ray, no HTTP.

    engine = Engine(ServeConfig(index=("docs",)))
    vectors = engine.embed(engine.select(["docs"])[0].model_id, ["how do I open a file"])
    found = engine.find(engine.select(["docs"]), [Query(text="how do I open a file")], vectors, times=StageTimes())

An index that cannot be opened keeps its reason and leaves the others alone. Methods may run in several threads.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from threading import Lock

from raydex.config import ServeConfig
from raydex.embed import Embedder, describe, load_embedder
from raydex.errors import (
    EmbedError,
    IndexNotFound,
    QueryError,
    SectionNotFound,
    SnapshotCorrupt,
    SnapshotError,
    StorageError,
)
from raydex.lexical import Suggestion
from raydex.records import Found, Manifest, Query, Section, StageTimes, Vectors
from raydex.search import Searcher, merge_found, open_rerank_stage
from raydex.snapshot import Snapshot, current_id, index_names, open_snapshot, read_manifest
from raydex.storage.mirror import Storage, open_storage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OpenIndex:
    name: str
    manifest: Manifest
    searcher: Searcher

    @property
    def model_id(self) -> str:
        """Of the model that made the vectors; a query must be embedded by the same."""
        return self.manifest.embedder.model_id


def published_names(config: ServeConfig) -> list[str]:
    """Return the names of the published indexes; while their storage cannot be reached, of those fetched before."""
    cached = index_names(config.folder)
    storage = open_storage(config.uri, config.folder)
    if storage is None:
        return cached
    try:
        return storage.names()
    except StorageError as error:
        if not cached:
            raise
        logger.warning("only indexes in the cache are known reason=%s", error)
        return cached


class Engine:
    """names: every index asked for; indexes: those that are open; reasons: why the others are not."""

    def __init__(self, config: ServeConfig, *, threads: int = 0) -> None:
        """threads: of one call of the model; 0 leaves it to the library."""
        self._config = config
        self._threads = threads
        self._embedders: dict[str, Embedder] = {}
        self._embedding = Lock()
        self._second_look = open_rerank_stage(
            config.rerank_model,
            candidates=config.rerank_candidates,
            budget_ms=config.rerank_budget_ms,
            threads=threads,
        )
        self._storage = open_storage(config.uri, config.folder)
        self.names: tuple[str, ...] = tuple(dict.fromkeys(config.index or published_names(config)))
        self.indexes: dict[str, OpenIndex] = {}
        self.reasons: dict[str, SnapshotError | EmbedError | StorageError] = {}
        for name in self.names:
            try:
                self.indexes[name] = self._open(name)
            except (SnapshotError, EmbedError, StorageError) as error:
                self.reasons[name] = error
                logger.warning("index not ready index=%s reason=%s", name, error)

    def select(self, names: Sequence[str] = ()) -> list[OpenIndex]:
        """Return the named indexes, or without names all that are open.

        Raises IndexNotFound, the reason why a named index is not open, or QueryError when they were made with
        different models, whose scores cannot be compared.
        """
        if not names and not self.indexes:
            raise next(iter(self.reasons.values()), SnapshotError("no index is served: nothing has been built yet"))
        chosen = [self._named(name) for name in dict.fromkeys(names)] or list(self.indexes.values())
        if len({index.model_id for index in chosen}) > 1:
            models = ", ".join(f"{index.name} ({index.manifest.embedder.name})" for index in chosen)
            raise QueryError("index", f"these were made with different models, name one of them: {models}")
        return chosen

    def embed(self, model_id: str, texts: Sequence[str]) -> Vectors:
        with self._embedding:  # a fast tokenizer that truncates is not thread-safe, and two calls would share the cores
            return self._embedders[model_id].embed_queries(texts)

    def find(
        self, indexes: Sequence[OpenIndex], queries: Sequence[Query], vectors: Vectors | None, *, times: StageTimes
    ) -> list[Found]:
        """Answer each query from all the indexes together. vectors: a row for each, None when none is looked at."""
        rows: Sequence[Vectors | None] = [None] * len(queries) if vectors is None else list(vectors)
        return [
            self._second_look.apply(
                query, self._find(indexes, self._second_look.widened(query), row, times), times=times
            )
            for query, row in zip(queries, rows, strict=True)
        ]

    def _find(self, indexes: Sequence[OpenIndex], query: Query, vector: Vectors | None, times: StageTimes) -> Found:
        if len(indexes) == 1:
            return indexes[0].searcher.find(query, vector, times=times)
        whole = replace(query, k=query.offset + query.k, offset=0)
        parts = [index.searcher.find(whole, vector, times=times) for index in indexes]
        return merge_found(parts, k=query.k, offset=query.offset)

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
        tokens, limit = embedder.tokenizer.count(text), embedder.info.max_tokens
        return f"the query has {tokens} tokens; the model read the first {limit}" if tokens > limit else ""

    def section(self, section_id: str) -> tuple[str, Section]:
        """Return the section and the name of the first index that holds it."""
        for index in self.indexes.values():
            if section := index.searcher.section(section_id):
                return index.name, section
        if not self.indexes:
            self.select()
        raise SectionNotFound(section_id)

    def _named(self, name: str) -> OpenIndex:
        if name in self.reasons:
            raise self.reasons[name]
        if name not in self.indexes:
            raise IndexNotFound(name, self.names)
        return self.indexes[name]

    def _open(self, name: str) -> OpenIndex:
        index_dir = self._config.folder / name
        if self._storage:
            self._fetch(self._storage, name)
        manifest = read_manifest(index_dir, current_id(index_dir))
        model = self._config.model or manifest.embedder.name
        snapshot = self._snapshot(index_dir, manifest, model)
        model_id = manifest.embedder.model_id
        if model_id not in self._embedders:  # indexes of one model share it
            self._embedders[model_id] = load_embedder(model, threads=self._threads)
        return OpenIndex(name, manifest, Searcher(name, snapshot))

    def _fetch(self, storage: Storage, name: str) -> None:
        """Fetch the live snapshot; while the storage cannot be reached, the one fetched before will do."""
        try:
            storage.pull_live(name)
        except StorageError as error:
            if not current_id(self._config.folder / name):
                raise
            logger.warning("served from the cache index=%s reason=%s", name, error)

    def _snapshot(self, index_dir: Path, manifest: Manifest, model: str) -> Snapshot:
        """Open a snapshot, which reads every byte; what turns out damaged in a mirror is fetched again, once."""
        try:
            return open_snapshot(index_dir, manifest.snapshot_id, expected=describe(model))
        except SnapshotCorrupt as error:
            if not self._storage:
                raise
            logger.warning("fetched again index=%s reason=%s", index_dir.name, error)
        self._storage.pull_objects(index_dir.name, [manifest.snapshot_id], checked=True)
        return open_snapshot(index_dir, manifest.snapshot_id, expected=describe(model))

    def published_id(self, name: str) -> str:
        """Return the id of the snapshot that is live now, whatever is served."""
        if not self._storage:
            return current_id(self._config.folder / name)
        try:
            return self._storage.current_id(name)
        except StorageError as error:
            logger.warning("not known what is live index=%s reason=%s", name, error)
            return current_id(self._config.folder / name)
