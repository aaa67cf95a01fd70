"""A process that has some shards of every snapshot, for replicas that have none. No Ray, no HTTP.

    group_count(config) → n     ShardGroup(config, number, n).answer(key, "look", …) → what a replica ranks

It opens what the council plans, as a replica does, and goes on answering for a snapshot that it serves no longer until
no replica does: replicas swap one after another, and a request keeps its snapshot to its end.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final
from weakref import WeakValueDictionary

import numpy as np

from raydex.config import ServeConfig
from raydex.errors import SnapshotError, SnapshotNotFound
from raydex.records import Filters, Manifest, Shard
from raydex.search import Group, SnapshotKey, groups_needed, megabytes, split
from raydex.serve.open_snapshots import OpenSnapshots, published_names
from raydex.snapshot import current_id, read_manifest
from raydex.storage.mirror import open_storage

logger = logging.getLogger(__name__)

METHODS: Final = frozenset({"look", "chunks", "section"})


@dataclass(frozen=True, slots=True, weakref_slot=True)
class OpenPart:
    """Some shards of a snapshot, open."""

    key: SnapshotKey
    manifest: Manifest
    group: Group


class ShardGroup(OpenSnapshots[OpenPart]):
    """One of `count` groups: of each snapshot it has the shards that split() gives to its number."""

    def __init__(
        self,
        config: ServeConfig,
        number: int,
        count: int,
        *,
        agreed: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._number, self._count, self._clock = number, count, clock
        self._open_parts: WeakValueDictionary[SnapshotKey, OpenPart] = WeakValueDictionary()  # prepared ones, too
        self._adding = Lock()
        self._kept: dict[SnapshotKey, tuple[OpenPart, float]] = {}
        super().__init__(config, agreed=agreed)

    def opened(self, name: str, manifest: Manifest) -> OpenPart:
        shards = split(manifest, self._count)[self._number]
        snapshot = self.read(name, manifest, shards=shards, words=False)
        part = OpenPart(SnapshotKey(name, manifest.snapshot_id), manifest, Group(name, snapshot))
        with self._adding:
            self._open_parts[part.key] = part
        _warn_if_too_large(self.config, manifest, shards)
        return part

    def warm(self, opened: OpenPart) -> None:
        dim = opened.manifest.embedder.dim
        opened.group.look(np.empty(0, np.int64), np.full(dim, dim**-0.5, np.float32), 1, Filters(), None)

    @property
    def keys(self) -> list[SnapshotKey]:
        """The snapshots that are answered for."""
        with self._adding:
            return list(self._open_parts)

    def answer(self, key: SnapshotKey, method: str, arguments: Sequence[Any]) -> Any:
        """Call a method of Group. Raises SnapshotNotFound for a snapshot that is not open here."""
        part = self._open_parts.get(key)
        if part is None:
            raise SnapshotNotFound(key.index, key.snapshot_id)
        if method not in METHODS:
            raise ValueError(f"{method} is none of {', '.join(sorted(METHODS))}")
        return getattr(part.group, method)(*arguments)

    def commit(self, opened: Mapping[str, OpenPart]) -> None:
        self._keep([self.indexes[name] for name in opened if name in self.indexes])
        super().commit(opened)

    def drop(self, name: str) -> None:
        self._keep([self.indexes[name]] if name in self.indexes else [])
        super().drop(name)

    def release(self, in_use: Mapping[str, Collection[str]]) -> None:
        """Close what no replica has served for as long as a request may last."""
        now, lasts_s = self._clock(), self.config.limits.max_timeout_ms / 1000
        for key, (part, used_at) in list(self._kept.items()):
            if key.snapshot_id in in_use.get(key.index, ()):
                self._kept[key] = part, now
            elif now - used_at > lasts_s:
                del self._kept[key]

    def _keep(self, parts: Sequence[OpenPart]) -> None:
        self._kept |= {part.key: (part, self._clock()) for part in parts}


def group_count(config: ServeConfig) -> int:
    """Return in how many groups the shards of what is live now are to be; 1: there are none, each replica has all.

    Raises StorageError.
    """
    most_mb = config.scaling.group_memory_mb
    return groups_needed(live_manifests(config), most_mb) if most_mb else 1


def live_manifests(config: ServeConfig) -> list[Manifest]:
    """Return the manifest of each index that is to be served; of those that cannot be read, none."""
    storage, manifests = open_storage(config.uri, config.folder), []
    for name in dict.fromkeys(config.index or published_names(config)):
        if storage:
            storage.pull(name)
        try:
            manifests.append(read_manifest(config.folder / name, current_id(config.folder / name)))
        except SnapshotError as error:
            logger.warning("index not ready index=%s reason=%s", name, error)
    return manifests


def _warn_if_too_large(config: ServeConfig, manifest: Manifest, shards: Sequence[Shard]) -> None:
    if 0 < config.scaling.group_memory_mb < (held := megabytes(shards)):
        logger.warning(
            "shard group above its memory snapshot=%s megabytes=%.0f group_memory_mb=%g",
            manifest.snapshot_id,
            held,
            config.scaling.group_memory_mb,
        )
