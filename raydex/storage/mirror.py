"""An index under a URI and its mirror on this machine. What is remote is the truth; the mirror is a cache of it.

    open_storage(uri, folder).pull("docs") → folder/docs, which all other code takes for an index
    … build, collect, forget … → push, make_live, drop

Objects go first, then the stores, then manifests, then the journal, then CURRENT, on the condition that nobody moved it
meanwhile: a process that dies at any point leaves the old snapshot live and whole.
"""

import json
import logging
import os
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raydex.errors import SnapshotCorrupt, SnapshotError, SnapshotNotFound, StorageError
from raydex.journal import FILE as JOURNAL
from raydex.journal import Entry
from raydex.snapshot import current_id, list_snapshots, manifest_digest, manifest_path, read_manifest, stored_objects
from raydex.storage.lease import Lease, build_lease
from raydex.storage.pages import LEAST_IN_USE, pull_pages, push_pages
from raydex.storage.remote import NEW, Content, Remote, Stat, at_once
from utils.files import exclusive_lock, make_folder, sha256_of, write_bytes

logger = logging.getLogger(__name__)

CURRENT = "CURRENT"
OBJECTS = "objects"
RECORD = "last_build.json"
AREAS = {
    "snapshots": ("snapshots/*/manifest.json",),
    "vectors": ("vectors/*/*.parquet",),
    "builds": ("builds/*/report.json", "builds/*/dropped.parquet", "builds/*/duplicates.json"),
}
"""What is copied file by file. Files of one name and length are taken for equal: none is rewritten but to lose rows."""

STATE = "mirror.json"
"""In the mirror: which names of each area the remote had when we last looked, and the version of its page store."""

TRIES = 5
"""At moving CURRENT, while others move it too."""


def open_storage(uri: str, folder: Path) -> "Storage | None":
    """Return the storage at a URI, mirrored in a folder; None for no URI: then the folder is all there is."""
    return Storage(Remote(uri), folder) if uri else None


class Storage:
    """The indexes under one URI."""

    def __init__(self, remote: Remote, folder: Path) -> None:
        self.remote, self.folder = remote, folder.resolve()
        self._damaged: set[str] = set()  # objects that turned out not to be what their name says; sent again

    @property
    def uri(self) -> str:
        return self.remote.uri

    def names(self) -> list[str]:
        """Return the names of the published indexes, sorted; raises StorageError when there is no such bucket."""
        return [name for name in self.remote.folders() if self.current_id(name)]

    def current_id(self, index: str) -> str:
        found = self.remote.read(f"{index}/{CURRENT}")
        return found.data.decode(errors="replace").strip() if found else ""

    @contextmanager
    def alone(self, index: str) -> Iterator[Lease]:
        """Hold the index for one writer, on all machines; raises BuildLocked."""
        with build_lease(self.remote, index) as lease:
            yield lease

    def pull(self, index: str, *, alone: bool = False) -> Path:
        """Mirror what says which snapshots there are: CURRENT, journal, manifests, reports of builds.

        alone: the caller holds the index, so that a manifest which the remote never had is left over from a build
        that died, and goes. Objects are fetched by pull_objects.
        """
        folder = self.folder / index
        make_folder(folder)
        before = stored_objects(list_snapshots(folder))
        for area in ("snapshots", "builds"):
            self._pull_area(index, area, exact=alone and area == "snapshots")
        if not (folder / "build.lock").exists():  # a cache; where builds are made, a collection knows more
            for name in before.keys() - stored_objects(list_snapshots(folder)).keys():
                (folder / OBJECTS / name).unlink(missing_ok=True)
        for name in (JOURNAL, RECORD, CURRENT):
            found = self.remote.read(f"{index}/{name}")
            if found:
                write_bytes(folder / name, found.data)
            else:
                (folder / name).unlink(missing_ok=True)
        return folder

    def pull_live(self, index: str, *, checked: bool = False) -> Path:
        """Mirror what a service needs: the live snapshot. What has been fetched before is not fetched again.

        checked: the checksums of files that are there are compared, and what is damaged is fetched anew.
        """
        folder = self.pull(index)
        live = current_id(folder)
        if not live:
            raise SnapshotNotFound(f"{self.uri}/{index}")
        self.pull_objects(index, [live], checked=checked)
        return folder

    def pull_objects(
        self, index: str, snapshot_ids: Iterable[str], *, checked: bool = False, anew: bool = False
    ) -> None:
        """Fetch the files of these snapshots that are not here; each is compared with its checksum on the way.

        checked: so are those that are here. anew: all are fetched. Raises SnapshotCorrupt when the remote has another
        content under a checksum.
        """
        objects = self.folder / index / OBJECTS
        make_folder(objects)
        wanted = stored_objects(read_manifest(self.folder / index, snapshot_id) for snapshot_id in snapshot_ids)
        damaged: dict[str, SnapshotCorrupt] = {}

        def fetch(name: str) -> None:
            path = objects / name
            try:
                if anew or not _is_here(path, wanted[name].bytes, checked=checked):
                    self._fetch(f"{index}/{OBJECTS}/{name}", path, sha256=name)
            except SnapshotCorrupt as error:
                damaged[name] = error

        at_once(fetch, wanted)
        self._damaged |= damaged.keys()
        if damaged:
            raise damaged[min(damaged)]

    def pull_stores(self, index: str) -> None:
        """Fetch what a build pays only once for: vectors, and the copies of pages."""
        self._pull_area(index, "vectors")
        state = self._state(index)
        version = pull_pages(self.remote, index, self.folder / index / "pages", str(state.get("pages", "")))
        self._note(index, pages=version)

    def object_sizes(self, index: str) -> dict[str, int]:
        """Return the length of every object by its name, without fetching any."""
        return {name.rpartition("/")[2]: stat.bytes for name, stat in self._objects(index).items()}

    def push(self, index: str, lease: Lease) -> None:
        """Add what is new here; nothing is live or deleted yet."""
        folder = self.folder / index
        there = self.remote.stats(f"{index}/snapshots")
        fresh = [m for m in list_snapshots(folder) if f"{index}/snapshots/{m.snapshot_id}/manifest.json" not in there]
        sizes = self.object_sizes(index) if fresh else {}
        wanted = stored_objects(fresh)
        missing = [name for name, file in wanted.items() if sizes.get(name) != file.bytes or name in self._damaged]
        at_once(lambda name: self.remote.upload(folder / OBJECTS / name, f"{index}/{OBJECTS}/{name}"), missing)
        self.push_vectors(index)
        self._push_pages(index, LEAST_IN_USE)
        self._push_area(index, "builds")
        lease.confirm()
        self._push_area(index, "snapshots")
        logger.info("pushed index=%s snapshots=%d objects=%d", index, len(fresh), len(missing))

    def push_vectors(self, index: str) -> None:
        """Add the vectors that are new here; a build may be running."""
        self._push_area(index, "vectors")

    def pull_record(self, index: str) -> None:
        """Fetch what is said of the last runs; without one there, what is said here stays."""
        if found := self.remote.read(f"{index}/{RECORD}"):
            write_bytes(self.folder / index / RECORD, found.data)

    def push_record(self, index: str) -> None:
        path = self.folder / index / RECORD
        if path.exists():
            self.remote.write(f"{index}/{RECORD}", path.read_bytes())

    def make_live(self, index: str, snapshot_id: str, event: str) -> None:
        """Move CURRENT to a snapshot that has been pushed, and say so in the journal, here and there.

        Whoever moves it at the same moment goes first or second, and is in the journal either way.
        """
        folder = self.folder / index
        digest = manifest_digest(folder, snapshot_id)
        for _ in range(TRIES):
            journal, current = (self.remote.read(f"{index}/{name}") for name in (JOURNAL, CURRENT))
            entry = Entry(
                at=datetime.now(UTC).isoformat(timespec="seconds"),
                event=event,
                snapshot_id=snapshot_id,
                before=current.data.decode(errors="replace").strip() if current else "",
                manifest_sha256=digest,
            )
            lines = (journal.data if journal else b"") + json.dumps(asdict(entry)).encode() + b"\n"
            if not self.remote.write(f"{index}/{JOURNAL}", lines, expected=journal.version if journal else NEW):
                continue
            live = f"{snapshot_id}\n".encode()
            if self.remote.write(f"{index}/{CURRENT}", live, expected=current.version if current else NEW):
                self._refuse_a_collected_one(index, snapshot_id, current)
                write_bytes(folder / JOURNAL, lines)
                write_bytes(folder / CURRENT, live)
                return
        raise StorageError(f"{self.uri}/{index}/{CURRENT}", "move", "others kept moving it", "Run the command again.")

    def _refuse_a_collected_one(self, index: str, snapshot_id: str, before: Content | None) -> None:
        """Move CURRENT back if a collection elsewhere took the manifest since we looked.

        That one looks at CURRENT after deleting: one of the two always sees the other.
        """
        if self.remote.read(f"{index}/snapshots/{snapshot_id}/manifest.json") is not None:
            return
        found = self.remote.read(f"{index}/{CURRENT}")
        if before and found and found.data.decode(errors="replace").strip() == snapshot_id:
            self.remote.write(f"{index}/{CURRENT}", before.data, expected=found.version)
        raise SnapshotNotFound(f"{self.uri}/{index}", snapshot_id)

    def drop(self, index: str, snapshot_ids: Collection[str], *, grace_s: float, everything: bool = False) -> None:
        """Delete these snapshots, then what is gone here of vectors and page copies, then objects that none needs.

        The caller holds the index, has pulled the stores, and has deleted the manifests here. grace_s: younger objects
        stay. everything: leave no byte of what is gone, whatever must be packed anew for it.
        """
        names = {snapshot_id: f"{index}/snapshots/{snapshot_id}/manifest.json" for snapshot_id in snapshot_ids}
        kept = {name: self.remote.read(name) for name in names.values()}
        self.remote.delete(names.values())
        live = self.current_id(index)
        if live in names and (content := kept[names[live]]):  # rolled back to at this very moment
            self.remote.write(names[live], content.data)
            write_bytes(manifest_path(self.folder / index, live), content.data)
        self._push_area(index, "vectors", exact=True)
        self._push_area(index, "builds", exact=True)
        self._push_pages(index, 1.0 if everything else LEAST_IN_USE)
        self.remote.delete(self.unreferenced(index, grace_s=grace_s))
        self._note(index, snapshots=sorted(self.remote.stats(f"{index}/snapshots")))

    def unreferenced(self, index: str, *, grace_s: float, going: Collection[str] = ()) -> dict[str, Stat]:
        """Return the objects that no snapshot needs, by name; going: snapshots to be taken for deleted already."""
        folder = self.folder / index
        ids = [name.split("/")[-2] for name in self.remote.stats(f"{index}/snapshots")]
        try:
            needed = stored_objects(
                read_manifest(folder, snapshot_id) for snapshot_id in ids if snapshot_id not in going
            )
        except SnapshotError as error:
            logger.warning("objects left alone, nobody can tell what they are for index=%s reason=%s", index, error)
            return {}
        limit = time.time() - grace_s
        return {
            name: stat
            for name, stat in self._objects(index).items()
            if name.rpartition("/")[2] not in needed and stat.modified <= limit
        }

    def _objects(self, index: str) -> dict[str, Stat]:
        return self.remote.stats(f"{index}/{OBJECTS}")

    def _pull_area(self, index: str, area: str, *, exact: bool = False) -> None:
        """Fetch the files of an area that are not here, and remove those that the remote has no longer."""
        there, here = self.remote.stats(f"{index}/{area}"), self._here(index, area)
        known = set(self._state(index).get(area, ()))
        for name in here.keys() - there.keys():
            if exact or name in known:
                path = self.folder / name
                path.unlink(missing_ok=True)
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()
        missing = [name for name, stat in there.items() if here.get(name) != stat.bytes]

        def fetch(name: str) -> None:
            self._fetch(name, self.folder / name)
            os.utime(self.folder / name, (there[name].modified,) * 2)  # a collection asks how old it is

        at_once(fetch, missing)
        self._note(index, **{area: sorted(there)})

    def _push_area(self, index: str, area: str, *, exact: bool = False) -> None:
        """Send the files of an area that are not there; exact: delete those that are not here."""
        there, here = self.remote.stats(f"{index}/{area}"), self._here(index, area)
        missing = [name for name, size in here.items() if name not in there or there[name].bytes != size]
        at_once(lambda name: self.remote.upload(self.folder / name, name), missing)
        gone = there.keys() - here.keys() if exact else set[str]()
        self.remote.delete(sorted(gone))
        self._note(index, **{area: sorted((there.keys() | here.keys()) - gone)})

    def _push_pages(self, index: str, least_in_use: float) -> None:
        push_pages(self.remote, index, self.folder / index / "pages", least_in_use=least_in_use)
        found = self.remote.read(f"{index}/pages.index")
        self._note(index, pages=found.version if found else "")

    def _here(self, index: str, area: str) -> dict[str, int]:
        paths = (path for pattern in AREAS[area] for path in (self.folder / index).glob(pattern))
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in paths}

    def _fetch(self, name: str, path: Path, *, sha256: str = "") -> None:
        """Copy an object to its place, whole and checked or not at all."""
        make_folder(path.parent)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".fetched.")
        os.close(descriptor)
        try:
            is_there = self.remote.download(name, Path(temporary))
            if not is_there and not sha256:
                raise StorageError(f"{self.uri}/{name}", "read", "it has just been deleted", "Run the command again.")
            found = sha256_of(Path(temporary)) if is_there else "no file"
            if sha256 and found != sha256:
                raise SnapshotCorrupt(f"{self.uri}/{name}", sha256, found)
            Path(temporary).chmod(0o644)
            Path(temporary).rename(path)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def _state(self, index: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / index / STATE).read_bytes()))
        except (FileNotFoundError, ValueError):
            return {}

    def _note(self, index: str, **facts: object) -> None:
        path = self.folder / index / STATE
        with exclusive_lock(path.with_suffix(".lock"), "", wait=True):
            write_bytes(path, json.dumps({**self._state(index), **facts}).encode(), durable=False)


def _is_here(path: Path, size: int, *, checked: bool) -> bool:
    if not path.is_file() or path.stat().st_size != size:
        return False
    return not checked or sha256_of(path) == path.name
