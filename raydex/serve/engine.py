"""The served indexes, open: texts → vectors → hits. Plain Python, no Ray, no HTTP.

    engine = Engine(ServeConfig(index=("docs",)))
    vectors = engine.embed(engine.select(["docs"])[0].model_id, ["how do I open a file"])
    found = engine.find(engine.select(["docs"]), [Query(text="how do I open a file")], vectors, times=StageTimes())

An index that cannot be opened keeps its reason and leaves the others alone. Methods may run in several threads.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

from raydex.config import ServeConfig
from raydex.embed import Embedder, describe, load_embedder
from raydex.errors import (
    EmbedError,
    IndexNotFound,
    QueryError,
    RaydexError,
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
from utils.files import exclusive_lock

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class Table:
    """What is served at one moment. It is replaced whole, never changed, so that a reader sees one moment.

    names: every index asked for; indexes: those that are open; reasons: why the others are not. refused: index → (id
    of a newer snapshot, why an older one is served).
    """

    names: tuple[str, ...] = ()
    indexes: Mapping[str, OpenIndex] = field(default_factory=dict)
    reasons: Mapping[str, RaydexError] = field(default_factory=dict)
    refused: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class Engine:
    """Readers take what they need from `table` (or `indexes`, `reasons`) once, and keep it to their end."""

    def __init__(self, config: ServeConfig, *, threads: int = 0, agreed: Mapping[str, str] | None = None) -> None:
        """threads: of one call of the model; 0 leaves it to the library.

        agreed: index → the snapshot that other replicas serve, which may not be the live one, if that was refused.
        """
        self.config = config
        self._threads = threads
        self._embedders: WeakValueDictionary[str, Embedder] = WeakValueDictionary()  # they live with their indexes
        self._embedding, self._changing, self._opening = Lock(), Lock(), Lock()
        self._second_look = open_rerank_stage(
            config.rerank_model,
            candidates=config.rerank_candidates,
            budget_ms=config.rerank_budget_ms,
            threads=threads,
        )
        self.storage = open_storage(config.uri, config.folder)
        self.table = Table(names=tuple(dict.fromkeys(config.index or published_names(config))))
        for name in self.table.names:
            try:
                self.commit({name: self._open_first(name, (agreed or {}).get(name, ""))})
            except (SnapshotError, EmbedError, StorageError) as error:
                self.leave_closed(name, error)

    @property
    def names(self) -> tuple[str, ...]:
        return self.table.names

    @property
    def indexes(self) -> Mapping[str, OpenIndex]:
        return self.table.indexes

    @property
    def reasons(self) -> Mapping[str, RaydexError]:
        return self.table.reasons

    def prepare(self, name: str, snapshot_id: str) -> OpenIndex:
        """Open a snapshot beside what is served: every byte read, its model loaded, a first search done.

        Raises SnapshotError, EmbedError or StorageError.
        """
        opened = self._open(name, snapshot_id)
        with self._embedding:
            vector = opened.embedder.embed_queries([PROBE])[0]
        opened.searcher.find(Query(text=PROBE, k=1), vector)
        return opened

    def commit(self, opened: Mapping[str, OpenIndex]) -> None:
        """Serve these from the next request on; what they replace closes with its last request."""
        with self._changing:
            old = self.table
            self.table = replace(
                old,
                names=tuple(dict.fromkeys([*old.names, *opened])),
                indexes={**old.indexes, **opened},
                reasons={name: reason for name, reason in old.reasons.items() if name not in opened},
                refused={name: refusal for name, refusal in old.refused.items() if name not in opened},
            )

    def leave_closed(self, name: str, reason: RaydexError) -> None:
        """Say why an index is not open."""
        logger.warning("index not ready index=%s reason=%s", name, reason)
        with self._changing:
            names = tuple(dict.fromkeys([*self.table.names, name]))
            self.table = replace(self.table, names=names, reasons={**self.table.reasons, name: copy(reason)})

    def refuse(self, refused: Mapping[str, tuple[str, str]]) -> None:
        """Say which newer snapshots are not served, and why: index → (id, reason), all there are."""
        with self._changing:
            self.table = replace(self.table, refused=refused)

    def drop(self, name: str) -> None:
        """Serve an index no longer."""
        with self._changing:
            old = self.table
            self.table = Table(
                names=tuple(other for other in old.names if other != name),
                indexes={other: index for other, index in old.indexes.items() if other != name},
                reasons={other: reason for other, reason in old.reasons.items() if other != name},
                refused={other: refusal for other, refusal in old.refused.items() if other != name},
            )

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
        request; reranking takes no more than a part of them.
        """
        rows: Sequence[Vectors | None] = [None] * len(queries) if vectors is None else list(vectors)

        def search(index: OpenIndex, query: Query, row: Vectors | None) -> Found:
            before_each()
            return index.searcher.find(query, row, times=times)

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

    def _open_first(self, name: str, agreed: str) -> OpenIndex:
        """Open what the other replicas serve, or what is live."""
        if agreed:
            try:
                return self._open(name, agreed)
            except (SnapshotError, EmbedError, StorageError) as error:
                logger.warning("not what others serve index=%s snapshot=%s reason=%s", name, agreed, error)
        return self._open(name)

    def _open(self, name: str, snapshot_id: str = "") -> OpenIndex:
        """Open a snapshot, the live one unless named."""
        index_dir = self.config.folder / name
        if self.storage:
            self._fetch(self.storage, name, snapshot_id)
        manifest = read_manifest(index_dir, snapshot_id or current_id(index_dir))
        model = self.config.model or manifest.embedder.name
        snapshot = self._snapshot(index_dir, manifest, model)
        return OpenIndex(name, manifest, Searcher(name, snapshot), self._embedder(manifest.embedder.model_id, model))

    def _embedder(self, model_id: str, model: str) -> Embedder:
        """Return a model; indexes of one model share it."""
        with self._opening:
            embedder = self._embedders.get(model_id)
            if embedder is None:
                embedder = self._embedders[model_id] = load_embedder(model, threads=self._threads)
            return embedder

    def _fetch(self, storage: Storage, name: str, snapshot_id: str) -> None:
        """Fetch a snapshot; the live one when none is named, or, while the storage cannot be reached, what is here."""
        index_dir = self.config.folder / name
        try:
            with self._alone_in(name):
                if snapshot_id:
                    storage.pull(name)
                    storage.pull_objects(name, [snapshot_id])
                else:
                    storage.pull_live(name)
        except StorageError as error:
            if snapshot_id or not current_id(index_dir):
                raise
            logger.warning("served from the cache index=%s reason=%s", name, error)

    def pull(self, name: str) -> Path:
        """Return the folder of an index, where CURRENT, journal and manifests are as they are in the storage."""
        if self.storage:
            with self._alone_in(name):
                self.storage.pull(name)
        return self.config.folder / name

    def _alone_in(self, name: str) -> AbstractContextManager[bool]:
        """One process at a time fetches into a mirror, for all that share it."""
        return exclusive_lock(self.config.folder / name / "fetch.lock", "", wait=True)

    def _snapshot(self, index_dir: Path, manifest: Manifest, model: str) -> Snapshot:
        """Open a snapshot, which reads every byte; what turns out damaged in a mirror is fetched again, once."""
        try:
            return open_snapshot(index_dir, manifest.snapshot_id, expected=describe(model))
        except SnapshotCorrupt as error:
            if not self.storage:
                raise
            logger.warning("fetched again index=%s reason=%s", index_dir.name, error)
        self.storage.pull_objects(index_dir.name, [manifest.snapshot_id], checked=True)
        return open_snapshot(index_dir, manifest.snapshot_id, expected=describe(model))

    def published_id(self, name: str) -> str:
        """Return the id of the snapshot that is live now, whatever is served; "" when nobody can tell."""
        try:
            if self.storage:
                return self.storage.current_id(name)
        except StorageError as error:
            logger.warning("not known what is live index=%s reason=%s", name, error)
        try:
            return current_id(self.config.folder / name)
        except OSError as error:
            logger.warning("not known what is live index=%s reason=%s", name, error)
            return ""


def _named(table: Table, name: str) -> OpenIndex:
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
