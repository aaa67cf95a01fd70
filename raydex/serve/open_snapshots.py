"""The snapshots that one process serves from: opened beside what is served, swapped in whole, closed when unused.

    OpenSnapshots[Opened]: prepare(name, snapshot_id) → Opened → commit({name: Opened}) → table

A replica opens whole snapshots (engine.py), a shard group some of their shards (groups.py). Plain Python, no Ray, no
HTTP. An index that cannot be opened keeps its reason and leaves the others alone. Methods may run in several threads.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Generic, Protocol, TypeVar

from raydex.config import ServeConfig
from raydex.errors import EmbedError, RaydexError, SnapshotCorrupt, SnapshotError, StorageError
from raydex.records import EmbedderInfo, Manifest, Shard
from raydex.snapshot import Snapshot, current_id, index_names, open_snapshot, read_manifest
from raydex.storage.mirror import Storage, open_storage
from utils.files import exclusive_lock

logger = logging.getLogger(__name__)


class HasManifest(Protocol):
    @property
    def manifest(self) -> Manifest: ...


Opened = TypeVar("Opened", bound=HasManifest)


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
class Table(Generic[Opened]):
    """What is served at one moment. It is replaced whole, never changed, so that a reader sees one moment.

    names: every index asked for; indexes: those that are open; reasons: why the others are not. refused: index → (id
    of a newer snapshot, why an older one is served).
    """

    names: tuple[str, ...] = ()
    indexes: Mapping[str, Opened] = field(default_factory=dict)
    reasons: Mapping[str, RaydexError] = field(default_factory=dict)
    refused: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class OpenSnapshots(ABC, Generic[Opened]):
    """Readers take what they need from `table` (or `indexes`, `reasons`) once, and keep it to their end."""

    def __init__(self, config: ServeConfig, *, agreed: Mapping[str, str] | None = None) -> None:
        """agreed: index → the snapshot that others serve, which may not be the live one, if that was refused."""
        self.config = config
        self._changing = Lock()
        self.storage = open_storage(config.uri, config.folder)
        self.table: Table[Opened] = Table(names=tuple(dict.fromkeys(config.index or published_names(config))))
        for name in self.table.names:
            try:
                self.commit({name: self._open_first(name, (agreed or {}).get(name, ""))})
            except (SnapshotError, EmbedError, StorageError) as error:
                self.leave_closed(name, error)

    @property
    def names(self) -> tuple[str, ...]:
        return self.table.names

    @property
    def indexes(self) -> Mapping[str, Opened]:
        return self.table.indexes

    @property
    def reasons(self) -> Mapping[str, RaydexError]:
        return self.table.reasons

    @abstractmethod
    def opened(self, name: str, manifest: Manifest) -> Opened:
        """Open a snapshot, every byte of it read. Raises SnapshotError or EmbedError."""

    @abstractmethod
    def warm(self, opened: Opened) -> None:
        """Do a first search in it."""

    def prepare(self, name: str, snapshot_id: str) -> Opened:
        """Open a snapshot beside what is served: every byte read, its model loaded, a first search done.

        Raises SnapshotError, EmbedError or StorageError.
        """
        opened = self._open(name, snapshot_id)
        self.warm(opened)
        return opened

    def commit(self, opened: Mapping[str, Opened]) -> None:
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

    def release(self, in_use: Mapping[str, Collection[str]]) -> None:
        """Close what is kept for others and no longer in use. in_use: index → snapshots that somebody serves."""

    def _open_first(self, name: str, agreed: str) -> Opened:
        """Open what the other replicas serve, or what is live."""
        if agreed:
            try:
                return self._open(name, agreed)
            except (SnapshotError, EmbedError, StorageError) as error:
                logger.warning("not what others serve index=%s snapshot=%s reason=%s", name, agreed, error)
        return self._open(name)

    def _open(self, name: str, snapshot_id: str = "") -> Opened:
        """Open a snapshot, the live one unless named."""
        index_dir = self.config.folder / name
        if self.storage:
            self._fetch(self.storage, name, snapshot_id)
        return self.opened(name, read_manifest(index_dir, snapshot_id or current_id(index_dir)))

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

    def read(
        self,
        name: str,
        manifest: Manifest,
        *,
        expected: EmbedderInfo | None = None,
        shards: Collection[Shard] | None = None,
        words: bool = True,
    ) -> Snapshot:
        """Open the files of a snapshot, see open_snapshot; what is damaged in a mirror is fetched again, once."""
        index_dir = self.config.folder / name

        def opened() -> Snapshot:
            return open_snapshot(index_dir, manifest.snapshot_id, expected=expected, shards=shards, words=words)

        try:
            return opened()
        except SnapshotCorrupt as error:
            if not self.storage:
                raise
            logger.warning("fetched again index=%s reason=%s", name, error)
        self.storage.pull_objects(name, [manifest.snapshot_id], checked=True)
        return opened()

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
