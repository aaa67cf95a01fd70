"""Delete what no snapshot worth keeping needs. No Ray, no model.

    manifests + journal → Choice (kept, going)
    going → manifests, then objects, page copies, vectors, folders of builds → Freed

Manifests go first: a process that dies at any point leaves snapshots that are whole, and files that the next collection
finds again. What is younger than a grace period stays, and so does all that an unfinished build would go on from.
"""

import logging
import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raydex.build.changes import report_of, tells_speed
from raydex.build.embedding import keys_of, vector_key
from raydex.build.reading import stored_chunks
from raydex.build.rows import Dropped
from raydex.checkpoint import Ledger, PageStore, VectorStore, ledgers
from raydex.errors import SnapshotCorrupt, SnapshotError, SnapshotNotFound
from raydex.journal import published_ids
from raydex.lineage import predecessor, proven, successor
from raydex.records import Manifest, stable_id
from raydex.shard import pages_of
from raydex.snapshot import current_id, list_snapshots, publishing, read_manifest, snapshot_ids, stored_objects
from raydex.storage.readers import expired, leased
from raydex.tables import read_columns
from utils.files import sync_directory

IMPORTS = ".import-"
"""Head of the name of the folder that an import works in; one that is there while nobody holds the lock is dead."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Ids of snapshots, newest first. unreadable: those among the kept ones whose needs nobody can tell."""

    kept: tuple[str, ...]
    going: tuple[str, ...]
    unreadable: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class Freed:
    """What was deleted, or would be (dry_run). left_alone: what was not looked at, and why."""

    kept: tuple[str, ...] = ()
    snapshots: tuple[str, ...] = ()
    objects: int = 0
    pages: int = 0
    vectors: int = 0
    builds: int = 0
    bytes: int = 0
    left_alone: str = ""
    dry_run: bool = False

    def told(self, index: str) -> str:
        verb = "would be removed" if self.dry_run else "removed"
        return (
            f"{index}: {len(self.snapshots)} snapshots, {self.objects} objects, {self.pages} page copies, "
            f"{self.vectors} vectors and {self.builds} folders of builds {verb}, {self.bytes / 2**20:,.1f} MiB; "
            f"{len(self.kept)} snapshots kept" + (f". {self.left_alone}" if self.left_alone else "")
        )


def choose(index_dir: Path, keep: int) -> Choice:
    """Say which snapshots stay: the newest `keep` that are proven, and whatever may be needed next.

    That is the live one, those that a roll back and a roll forward lead to, those that a service has open, and, for
    looking into, up to `keep` that were refused (or never came to their gate) since the live one was made. Raises
    SnapshotError when the live one cannot be read.
    """
    live = current_id(index_dir)
    if not live:
        raise SnapshotNotFound(str(index_dir))
    read_manifest(index_dir, live)
    names = snapshot_ids(index_dir)
    readable = {manifest.snapshot_id for manifest in list_snapshots(index_dir)}
    good = [manifest.snapshot_id for manifest in proven(index_dir)]
    staying = {live, *good[:keep], *leased(index_dir)}
    for way in (predecessor, successor):
        with suppress(SnapshotNotFound):
            staying.add(way(index_dir))
    staying.update([name for name in names if name in readable and name not in good and name > live][:keep])
    horizon = min(good[:keep], default="")
    unreadable = tuple(name for name in names if name not in readable and name >= horizon)
    kept = tuple(name for name in names if name in staying or name in unreadable)
    return Choice(kept=kept, going=tuple(name for name in names if name not in kept), unreadable=unreadable)


def collect(index_dir: Path, keep: int, *, grace_s: float, dry_run: bool = False) -> Freed:
    """Delete what is not needed; the caller holds the lock of the build. Raises SnapshotError as choose does."""
    with publishing(index_dir):
        choice = choose(index_dir, keep)
        if not dry_run:
            remove_manifests(index_dir, choice.going)
    freed = Freed(kept=choice.kept, snapshots=choice.going, dry_run=dry_run)
    remover = _Remover(freed, younger_than=time.time() - grace_s)
    builds = _remove_old_builds(index_dir, keep, choice.kept, remover)
    _remove_left_overs(index_dir, remover)
    if choice.unreadable:
        freed.left_alone = (
            f"Objects, page copies and vectors were left alone: nobody can tell what snapshot {choice.unreadable[0]} "
            "needs (see --list); remove its folder if you do not want it"
        )
        return freed
    staying = [read_manifest(index_dir, name) for name in choice.kept]
    unfinished = _unfinished(index_dir)
    _remove_objects(index_dir, staying, unfinished, remover)
    if unfinished:
        freed.left_alone = (
            f"Page copies and vectors were left alone: build {unfinished.build_dir.name} is unfinished and goes on "
            "from them"
        )
        return freed
    try:
        _remove_vectors(index_dir, staying, builds, remover)  # before the pages, whose readings say what is in use
        _remove_pages(index_dir, staying, builds, remover)
    except SnapshotCorrupt as error:  # of a snapshot that is kept: nobody can tell all that it needs
        freed.left_alone = f"Page copies and vectors were left alone: {error}"
    return freed


def collect_after_build(index_dir: Path, keep: int, grace_s: float) -> Freed | None:
    """What a build does at its end: collect, if a snapshot has become one too many. Never an error."""
    try:
        if keep and choose(index_dir, keep).going:
            return collect(index_dir, keep, grace_s=grace_s)
    except (SnapshotError, OSError) as error:
        logger.warning("nothing collected after the build index=%s reason=%s", index_dir.name, error)
    return None


def remove_manifests(index_dir: Path, names: Iterable[str]) -> None:
    """Make these snapshots be no more, now and after a power cut; their objects are still there."""
    for name in names:
        shutil.rmtree(index_dir / "snapshots" / name)
    if (index_dir / "snapshots").is_dir():
        sync_directory(index_dir / "snapshots")


class _Remover:
    """Deletes, or in a dry run does not, and counts either way; what is too young stays."""

    def __init__(self, freed: Freed, younger_than: float) -> None:
        self.freed, self.younger_than = freed, younger_than

    @property
    def dry_run(self) -> bool:
        return self.freed.dry_run

    def remove(self, path: Path) -> bool:
        """Tell whether the file is old enough to go, and is gone."""
        try:
            found = path.stat()
        except FileNotFoundError:  # a roll back, which needs no lock, has given it its name meanwhile
            return False
        if found.st_mtime >= self.younger_than:
            return False
        self.freed.bytes += found.st_size
        if not self.dry_run:
            path.unlink()
        return True

    def remove_folder(self, path: Path) -> None:
        self.freed.bytes += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        if not self.dry_run:
            shutil.rmtree(path)


def _unfinished(index_dir: Path) -> Ledger | None:
    """Return the build that the next command may go on with."""
    newest = next(iter(ledgers(index_dir)), None)
    published = published_ids(index_dir, current_id(index_dir))
    return newest if newest and newest.is_unfinished(published) else None


def _remove_old_builds(index_dir: Path, keep: int, kept: Collection[str], remover: _Remover) -> list[Path]:
    """Keep the newest builds, those of kept snapshots, and the newest that tells how fast embedding is; return them."""
    folders = sorted((path for path in (index_dir / "builds").glob("*") if path.is_dir()), reverse=True)
    measured = next((folder for folder in folders if tells_speed(report_of(folder))), None)
    old = [path for path in folders[keep:] if path != measured and report_of(path).get("snapshot_id") not in kept]
    for folder in old:
        remover.remove_folder(folder)
    remover.freed.builds = len(old)
    return [folder for folder in folders if folder not in old]


def _remove_left_overs(index_dir: Path, remover: _Remover) -> None:
    """Remove imports that died, snapshots without a manifest, and files that a dead process was writing."""
    for folder in [*index_dir.glob(f"{IMPORTS}*"), *(index_dir / "snapshots").glob("*")]:
        if folder.is_dir() and not (folder / "manifest.json").exists():
            remover.remove_folder(folder)
    for lease in () if remover.dry_run else expired(index_dir):
        lease.unlink(missing_ok=True)
    for pattern in (".*", "pages/*/.*", "vectors/*/.*", "builds/*/.*"):
        for path in index_dir.glob(pattern):
            if path.is_file():
                remover.remove(path)


def _remove_objects(index_dir: Path, staying: Sequence[Manifest], unfinished: Ledger | None, remover: _Remover) -> None:
    needed = set(stored_objects(staying))
    for line in unfinished.lines() if unfinished else ():
        if line["event"] == "sharded":
            needed.update(stored["sha256"] for stored in line["shard"]["objects"].values())
    for path in (index_dir / "objects").glob("*"):
        if path.name not in needed and remover.remove(path):
            remover.freed.objects += 1


def _remove_vectors(index_dir: Path, staying: Sequence[Manifest], builds: Iterable[Path], remover: _Remover) -> None:
    """Keep, of each model in use, the vectors of the chunks of its snapshots and of what they leave out as duplicate.

    What was written since the live snapshot was made stays too: it is the work of builds that were not published.
    """
    live = read_manifest(index_dir, current_id(index_dir))
    before = min(remover.younger_than, datetime.fromisoformat(live.created_at).timestamp())
    for folder in sorted(path for path in (index_dir / "vectors").glob("*") if path.is_dir()):
        of_model = [m for m in staying if m.embedder.fingerprint.startswith(folder.name)]
        wanted = _Heads(_keys_in_use(index_dir, of_model, builds))
        store = VectorStore(folder, dim=0)
        removed = store.retain(wanted.hold, written_before=before, dry_run=remover.dry_run)
        remover.freed.vectors += removed.vectors
        remover.freed.bytes += removed.bytes
        if not remover.dry_run and not any(folder.iterdir()):
            folder.rmdir()


def _keys_in_use(index_dir: Path, manifests: Sequence[Manifest], builds: Iterable[Path]) -> Iterator[bytes]:
    """Yield the vector keys of the chunks of these snapshots, and of what builds left out of them as duplicate.

    The next build meets the duplicates again, and must not embed them again.
    """
    for name in sorted({shard.objects["chunks"].sha256 for m in manifests for shard in m.shards}):
        yield from keys_of(index_dir / "objects" / name)
    store = PageStore(index_dir / "pages")
    for page_id in sorted({page_id for build in builds for page_id in _pages_with_gaps(build)} if manifests else ()):
        yield from (vector_key(chunk.embedder_input) for chunk in stored_chunks(store, page_id))


def _pages_with_gaps(build_dir: Path) -> Iterator[str]:
    """Yield the ids of the pages that are left out, or of which a section is (its id is the URL of the page#anchor).

    None when nobody can tell: what they hold may be embedded once more.
    """
    with suppress(SnapshotCorrupt):
        for row_id in read_columns(build_dir / Dropped.FILE, ["id"])["id"].to_pylist():
            yield stable_id(row_id.partition("#")[0]) if ":" in row_id else row_id


class _Heads:
    """A set of keys by their first 8 bytes: 8 bytes each. It may hold one too many, never one too few."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        heads = bytearray()
        for key in keys:
            heads += key[:8]
        self._heads = np.unique(_as_numbers(heads))

    def hold(self, keys: Sequence[bytes]) -> list[bool]:
        if not len(self._heads):
            return [False] * len(keys)
        wanted = _as_numbers(b"".join(key[:8] for key in keys))
        at = np.minimum(np.searchsorted(self._heads, wanted), len(self._heads) - 1)
        return [bool(same) for same in self._heads[at] == wanted]


def _as_numbers(heads: bytes | bytearray) -> npt.NDArray[np.uint64]:
    return np.frombuffer(heads, dtype=np.uint64)


def _remove_pages(index_dir: Path, staying: Sequence[Manifest], builds: Iterable[Path], remover: _Remover) -> None:
    """Keep the copies of pages in a kept snapshot, and of those that a build whose folder is there has looked at."""
    shards = {
        shard.objects.get("pages", shard.objects["sections"]).sha256: shard for m in staying for shard in m.shards
    }
    needed = {
        bytes.fromhex(page_id)
        for shard in shards.values()
        for page_id in pages_of(shard, index_dir / "objects", ("page_id",))["page_id"].to_pylist()
    }
    build_ids = {folder.name for folder in builds}
    store = PageStore(index_dir / "pages")
    for page_id in store.ids():
        if bytes.fromhex(page_id) in needed:
            continue
        head, files = store.head(page_id), store.files(page_id)
        recent = any(path.stat().st_mtime >= remover.younger_than for path in files)
        if not recent and not (head and head.build_id in build_ids):
            remover.freed.pages += 1
            for path in files:
                remover.remove(path)
