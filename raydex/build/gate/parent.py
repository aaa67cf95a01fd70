"""What a new snapshot is compared with: the one that is live.

    parent's manifest (its figures) → else the parent itself, opened when something is to be measured or named

Figures of a parent made with another model, or one whose files are damaged, are those of its manifest or none at all.
"""

import functools
import logging
from pathlib import Path

from raydex.errors import SnapshotCorrupt, SnapshotError
from raydex.records import Manifest
from raydex.shard import check_object, pages_of
from raydex.snapshot import Snapshot, open_snapshot, read_manifest, stored_objects

logger = logging.getLogger(__name__)


class Parent:
    """The parent of a snapshot; without one everything is unknown, and nothing can be worse than it."""

    def __init__(self, index_dir: Path, manifest: Manifest) -> None:
        self._index_dir, self._child = index_dir, manifest

    @functools.cached_property
    def manifest(self) -> Manifest | None:
        try:
            return read_manifest(self._index_dir, self._child.parent) if self._child.parent else None
        except SnapshotError as error:
            logger.warning("parent cannot be compared with parent=%s reason=%s", self._child.parent, error)
            return None

    @functools.cached_property
    def readable(self) -> Manifest | None:
        """The manifest, when the files behind it are whole. Those that the child shares have been checked with it."""
        if self.manifest is None:
            return None
        checked = stored_objects([self._child])
        try:
            for name, file in stored_objects([self.manifest]).items():
                if checked.get(name) != file:
                    check_object(self._index_dir / "objects" / name, file)
        except SnapshotCorrupt as error:
            logger.warning("parent is damaged, only its figures count parent=%s reason=%s", self._child.parent, error)
            return None
        return self.manifest

    @functools.cached_property
    def snapshot(self) -> Snapshot | None:
        """The parent, opened; None when there is none, when another model made it, or when it cannot be read."""
        if not self.has_same_model or self.readable is None:
            return None
        return open_snapshot(self._index_dir, self.readable.snapshot_id, verify=False)

    @property
    def has_same_model(self) -> bool:
        return self.manifest is not None and self.manifest.embedder.fingerprint == self._child.embedder.fingerprint

    @property
    def is_cut_alike(self) -> bool:
        """Whether its chunks were cut by the same settings, so that their numbers mean the same."""
        return self.manifest is not None and self.manifest.chunking == self._child.chunking

    def metric(self, name: str) -> float | None:
        return self.manifest.gate_metrics.get(name) if self.manifest else None

    def page_ids(self) -> frozenset[str]:
        shards = self.readable.shards if self.readable else ()
        tables = (pages_of(shard, self._index_dir / "objects", ("page_id",)) for shard in shards)
        return frozenset(page_id for table in tables for page_id in table["page_id"].to_pylist())
