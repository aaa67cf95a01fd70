"""The served indexes, opened once: texts → vectors → hits. Plain Python, no Ray, no HTTP.

    engine = Engine(ServeConfig(index=("docs",)))
    vectors = engine.embed(engine.select(["docs"])[0].model_id, ["how do I open a file"])
    hits = engine.search(engine.select(["docs"]), vectors, k=5, offset=0, times=StageTimes())

An index that cannot be opened keeps its reason and leaves the others alone. Methods may run in several threads.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
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
from raydex.records import Hit, Manifest, Section, StageTimes, Vectors
from raydex.search import Searcher, merge_hits
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

    def search(
        self, indexes: Sequence[OpenIndex], vectors: Vectors, *, k: int, offset: int, times: StageTimes
    ) -> list[list[Hit]]:
        """Return the hits of each row of vectors, best first, ranked over all the indexes together."""
        if len(indexes) == 1:
            return indexes[0].searcher.search(vectors, k=k, offset=offset, times=times)
        per_index = [index.searcher.search(vectors, k=offset + k, times=times) for index in indexes]
        return [merge_hits(list(lists), k=k, offset=offset) for lists in zip(*per_index, strict=True)]

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
