"""Where a snapshot comes from, and the ways back and forward between those that are there. Nothing is built here.

manifests + journal → Chain (is each manifest what its children and the journal say it was?)
CURRENT + journal   → roll_back, roll_forward → the snapshot that is live now (move_live: also under a URI)
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from raydex.errors import GateRefused, SnapshotCorrupt, SnapshotError, SnapshotNotFound
from raydex.journal import entries, moves, published_ids
from raydex.records import Manifest
from raydex.shard import open_shard
from raydex.snapshot import (
    check_quickly,
    current_id,
    list_snapshots,
    make_live,
    manifest_digest,
    passed_gate,
    publishing,
    read_manifest,
)
from raydex.storage.mirror import Storage

_Witnesses = dict[str, list[tuple[str, str]]]
"""snapshot_id → who has seen its manifest, and with which digest."""


class Move(Protocol):
    """roll_back or roll_forward."""

    def __call__(
        self, index_dir: Path, snapshot_id: str = "", *, full: bool = False, sizes: Mapping[str, int] | None = None
    ) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A snapshot and its ancestors, youngest first, as far as they are there. end: why there are no more."""

    snapshots: tuple[str, ...]
    end: str
    problems: tuple[str, ...]


def chain_of(index_dir: Path, snapshot_id: str) -> Chain:
    """Compare each manifest from this one up with the digests that its children and the journal hold of it."""
    witnesses = _witnesses(index_dir)
    found: list[str] = []
    problems: list[str] = []
    end, name = "the first snapshot is", snapshot_id
    while name and name not in found:
        try:
            problems += [str(problem) for problem in _contradictions(index_dir, name, witnesses)]
            manifest = read_manifest(index_dir, name)
        except SnapshotNotFound:
            end = f"{name} is no longer there"
            break
        except SnapshotError as error:
            problems.append(str(error))
            end = f"{name} cannot be read"
            break
        found.append(name)
        name = manifest.parent
    return Chain(snapshots=tuple(found), end=end, problems=tuple(problems))


def _witnesses(index_dir: Path) -> _Witnesses:
    seen: _Witnesses = defaultdict(list)
    for manifest in list_snapshots(index_dir):
        if manifest.parent_manifest_sha256:
            seen[manifest.parent].append((f"its child {manifest.snapshot_id}", manifest.parent_manifest_sha256))
    for entry in entries(index_dir):
        told = (f"the journal of {entry.at}", entry.manifest_sha256)
        if told[1] not in {digest for _, digest in seen[entry.snapshot_id]}:
            seen[entry.snapshot_id].append(told)
    return seen


def _contradictions(index_dir: Path, snapshot_id: str, witnesses: _Witnesses) -> Iterable[SnapshotCorrupt]:
    digest, path = manifest_digest(index_dir, snapshot_id), f"{index_dir}/snapshots/{snapshot_id}/manifest.json"
    for who, seen in witnesses.get(snapshot_id, []):
        if seen != digest:
            yield SnapshotCorrupt(path, f"{seen[:12]}, which {who} says", f"checksum {digest[:12]}")


def proven(index_dir: Path) -> list[Manifest]:
    """Return the snapshots that passed their gate or have been live in spite of it, newest first."""
    lived = published_ids(index_dir, current_id(index_dir))
    return [m for m in list_snapshots(index_dir) if passed_gate(m) or m.snapshot_id in lived]


def roll_back(
    index_dir: Path, snapshot_id: str = "", *, full: bool = False, sizes: Mapping[str, int] | None = None
) -> str:
    """Make an older (or any other) snapshot the live one and return its id; nothing is rebuilt.

    Without an id: the live one's parent, or the newest older snapshot that is proven if the parent is gone. The target
    is checked first, by the lengths of its files and the digest of its manifest, or (full) by every byte;
    SnapshotNotFound, SnapshotCorrupt, SnapshotIncompatible and, for one that its gate refused and that never was live,
    GateRefused leave CURRENT as it is. sizes: the length of each object, where these lie elsewhere.
    """
    with publishing(index_dir):
        return _move(index_dir, snapshot_id or predecessor(index_dir), "rolled_back", full=full, sizes=sizes)


def roll_forward(
    index_dir: Path, snapshot_id: str = "", *, full: bool = False, sizes: Mapping[str, int] | None = None
) -> str:
    """Take a roll back back. Without an id: the snapshot that was left last, else the newest child; raises as above."""
    with publishing(index_dir):
        return _move(index_dir, snapshot_id or successor(index_dir), "rolled_forward", full=full, sizes=sizes)


def move_live(
    index_dir: Path, storage: Storage | None, move: Move, snapshot_id: str = "", *, full: bool = False
) -> tuple[str, str]:
    """Roll back or forward, in the storage too if the folder mirrors one; return what is live and what was.

    The head of a mirror must have been pulled. Raises as roll_back does, and StorageError.
    """
    before = current_id(index_dir)
    if storage and full:
        target = snapshot_id or (predecessor if move is roll_back else successor)(index_dir)
        storage.pull_objects(index_dir.name, [target], checked=True)
    sizes = storage.object_sizes(index_dir.name) if storage and not full else None
    now = move(index_dir, snapshot_id, full=full, sizes=sizes)
    if storage:
        storage.make_live(index_dir.name, now, "rolled_back" if move is roll_back else "rolled_forward")
    return now, before


def _move(index_dir: Path, target: str, event: str, *, full: bool, sizes: Mapping[str, int] | None) -> str:
    manifest = check_quickly(index_dir, target, sizes=sizes)
    for problem in _contradictions(index_dir, target, _witnesses(index_dir)):
        raise problem
    refused = [f"{check}: {found}" for check, found in manifest.gate.items() if not found.startswith("passed")]
    if refused and target not in {known.snapshot_id for known in proven(index_dir)}:
        raise GateRefused(target, tuple(refused), str(index_dir / "builds"))
    for shard in manifest.shards if full else ():
        open_shard(shard, index_dir / "objects")
    if target != current_id(index_dir):
        make_live(index_dir, target, event)
    return target


def predecessor(index_dir: Path) -> str:
    """Return where a roll back leads; raises SnapshotNotFound."""
    live = current_id(index_dir)
    if not live:
        raise SnapshotNotFound(str(index_dir))
    known = list_snapshots(index_dir)
    parent = next((manifest.parent for manifest in known if manifest.snapshot_id == live), "")
    older = [m.snapshot_id for m in known if m.snapshot_id == parent]
    older += [m.snapshot_id for m in proven(index_dir) if m.snapshot_id < live]
    if not older:
        raise SnapshotNotFound(str(index_dir), f"before {live}")
    return older[0]


def successor(index_dir: Path) -> str:
    """Return where a roll forward leads; raises SnapshotNotFound."""
    live = current_id(index_dir)
    if not live:
        raise SnapshotNotFound(str(index_dir))
    there = proven(index_dir)
    ids = {manifest.snapshot_id for manifest in there}
    left = [name for name in reversed(_rolled_back_from(index_dir)) if name in ids]
    children = [manifest.snapshot_id for manifest in there if manifest.parent == live]
    if not left + children:
        raise SnapshotNotFound(str(index_dir), f"after {live}")
    return (left + children)[0]


def _rolled_back_from(index_dir: Path) -> Sequence[str]:
    """Return what has been rolled back from and not been returned to since, the last one last."""
    left: list[str] = []
    for entry in moves(index_dir, current_id(index_dir)):
        if entry.event == "rolled_back":
            left.append(entry.before)
        elif entry.event != "rolled_forward":  # something new is live, and the way forward begins there
            left.clear()
        elif entry.snapshot_id in left:
            del left[left.index(entry.snapshot_id) :]
    return left
