"""A snapshot as one file, to be carried to another machine or kept. Nothing is executed or unpickled on the way back.

    snapshot → export → FILE (tar: head, manifest, objects) → import → snapshot, checked byte by byte, then visible

The members are read in a fixed order and under fixed names; whatever else is in the file ends the import.
"""

import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from raydex.build.garbage import IMPORTS
from raydex.checkpoint import check_free_space
from raydex.config import INDEX_NAME
from raydex.errors import ArchiveRefused, SnapshotError
from raydex.records import Manifest, StoredObject
from raydex.shard import check_object
from raydex.snapshot import (
    check_quickly,
    current_id,
    manifest_path,
    parse_manifest,
    passed_gate,
    publish,
    snapshot_bytes,
    stored_objects,
    verify,
)
from utils.files import make_folder, sync_directory, write_atomically, write_bytes

ARCHIVE_VERSION = 1
HEAD = "raydex-snapshot.json"
MANIFEST = "manifest.json"
MOST_HEAD_BYTES = 2**16
MOST_MANIFEST_BYTES = 2**26
"""Room for about 100,000 shards; both are read into memory."""

COPY_BYTES = 2**20
_SNAPSHOT_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}(-\d{1,6})?")
_INDEX = re.compile(INDEX_NAME)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What an export or an import moved. live: whether the snapshot is the live one of its index now."""

    index: str
    snapshot_id: str
    manifest_sha256: str
    files: int
    bytes: int
    live: bool


@dataclass(frozen=True, slots=True)
class _Head:
    """First member of an archive."""

    archive_version: int
    index: str
    snapshot_id: str
    manifest_sha256: str


def export_snapshot(index_dir: Path, snapshot_id: str, file: Path) -> Moved:
    """Write a snapshot to one file, whole or not at all; the same snapshot gives the same bytes.

    Raises SnapshotCorrupt when a file of the snapshot does not match its checksum.
    """
    manifest = check_quickly(index_dir, snapshot_id)
    content = manifest_path(index_dir, snapshot_id).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    head = _Head(ARCHIVE_VERSION, index_dir.name, snapshot_id, digest)
    with write_atomically(file) as out, tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, HEAD, json.dumps(asdict(head)).encode() + b"\n")
        _add(tar, MANIFEST, content)
        for stored in _objects(manifest):
            path = index_dir / "objects" / stored.sha256
            check_object(path, stored)
            with path.open("rb") as source:
                tar.addfile(_member(f"objects/{stored.sha256}", stored.bytes), source)
    return Moved(
        index=index_dir.name,
        snapshot_id=snapshot_id,
        manifest_sha256=digest,
        files=len(_objects(manifest)) + 2,
        bytes=file.stat().st_size,
        live=snapshot_id == current_id(index_dir),
    )


def _objects(manifest: Manifest) -> list[StoredObject]:
    """Return the files of a snapshot, each once, in the order of their names."""
    return [file for _, file in sorted(stored_objects([manifest]).items())]


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    tar.addfile(_member(name, len(data)), io.BytesIO(data))


def _member(name: str, size: int) -> tarfile.TarInfo:
    """No time, no owner: nothing but content decides the bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


def archived_index(file: Path) -> str:
    """Return the name of the index that an archive came from; raises ArchiveRefused."""
    with _Archive(file) as archive:
        return archive.head.index


def import_snapshot(index_dir: Path, file: Path, *, live: bool = False) -> Moved:
    """Add the snapshot in a file to an index, which need not be there yet; the caller holds the lock of the build.

    It is published if asked (live), or if nothing is and it has passed its gate. Raises ArchiveRefused, and leaves
    nothing behind, when anything in the file is not what it should be.
    """
    with _Archive(file) as archive:
        manifest, content = archive.manifest, archive.manifest_bytes
        check_free_space(index_dir, snapshot_bytes(manifest) + len(content) + COPY_BYTES)
        _refuse_another(index_dir, manifest, content, file)
        work = Path(tempfile.mkdtemp(prefix=IMPORTS, dir=index_dir))
        try:
            archive.unpack(work / "objects")
            write_bytes(manifest_path(work, manifest.snapshot_id), content)
            if problems := verify(work, manifest.snapshot_id):
                raise ArchiveRefused(str(file), _finding(problems[0].replace(f"{work}/", "")))
            _show(work, index_dir, manifest.snapshot_id)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    if live or (not current_id(index_dir) and passed_gate(manifest)):
        publish(index_dir, manifest.snapshot_id, "imported")
    return Moved(
        index=index_dir.name,
        snapshot_id=manifest.snapshot_id,
        manifest_sha256=hashlib.sha256(content).hexdigest(),
        files=len(_objects(manifest)) + 2,
        bytes=file.stat().st_size,
        live=current_id(index_dir) == manifest.snapshot_id,
    )


def _refuse_another(index_dir: Path, manifest: Manifest, content: bytes, file: Path) -> None:
    known = manifest_path(index_dir, manifest.snapshot_id)
    if known.exists() and known.read_bytes() != content:
        raise ArchiveRefused(str(file), f"{index_dir.name} has another snapshot {manifest.snapshot_id}")


def _finding(problem: str) -> str:
    """Return a problem without the advice to roll back: this is an archive, not an index."""
    return problem.partition(". Roll back")[0].rstrip(".")


def _show(work: Path, index_dir: Path, snapshot_id: str) -> None:
    """Move objects, then the manifest: only with it is the snapshot there."""
    make_folder(index_dir / "objects")
    for path in (work / "objects").iterdir():
        path.rename(index_dir / "objects" / path.name)
    sync_directory(index_dir / "objects")
    place = manifest_path(index_dir, snapshot_id)
    make_folder(place.parent)
    manifest_path(work, snapshot_id).rename(place)
    sync_directory(place.parent)


class _Archive:
    """An archive that is being read, from its head on. ArchiveRefused names the first thing that is wrong."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> "_Archive":
        try:
            self._stream: BinaryIO = self._file.open("rb")
        except OSError as error:
            raise ArchiveRefused(str(self._file), error.strerror or "cannot be opened") from error
        try:
            self._tar = self._opened()
            self._members = self._checked()
            self.head = self._read_head()
            self.manifest_bytes = self._read(MANIFEST, MOST_MANIFEST_BYTES)
            self.manifest = self._read_manifest()
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stream.close()

    def unpack(self, folder: Path) -> None:
        """Write the objects to a folder, each compared with its checksum: all that the manifest has, and no more."""
        make_folder(folder)
        for stored in _objects(self.manifest):
            name = f"objects/{stored.sha256}"
            digest = hashlib.sha256()
            with self._open(name, stored.bytes) as source, write_atomically(folder / stored.sha256) as out:
                while block := self._block(source, COPY_BYTES):
                    digest.update(block)
                    out.write(block)
            if digest.hexdigest() != stored.sha256:
                raise self._refused(f"{name} has checksum {digest.hexdigest()[:12]}")
        if extra := next(self._members, None):
            raise self._refused(f"member {extra.name!r} is not part of the snapshot")

    def _refused(self, reason: str) -> ArchiveRefused:
        return ArchiveRefused(str(self._file), reason)

    def _opened(self) -> tarfile.TarFile:
        try:
            return tarfile.open(fileobj=_Sparing(self._stream), mode="r:")
        except (tarfile.TarError, EOFError) as error:
            raise self._refused(f"not an archive of a snapshot ({error})") from error

    def _checked(self) -> Iterator[tarfile.TarInfo]:
        """Yield the members in order: plain files that would stay in the folder they are unpacked to."""
        while True:
            try:
                member = self._tar.next()
                if member is None:
                    return
                tarfile.data_filter(member, "/nowhere")
            except (tarfile.TarError, EOFError, ValueError) as error:
                raise self._refused(str(error)) from error
            self._tar.members.clear()  # type: ignore[attr-defined]  # or tarfile keeps them all
            if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.issparse():
                raise self._refused(f"member {member.name!r} is not a plain file")
            yield member

    def _open(self, name: str, most: int, *, exactly: bool = True) -> IO[bytes]:
        """Open the next member, which must have this name and size (or, not exactly, no larger one)."""
        member = next(self._members, None)
        if member is None or member.name != name:
            raise self._refused(f"expected member {name!r}, found {member.name if member else 'the end'!r}")
        if member.size > most or (exactly and member.size != most):
            raise self._refused(f"{name} has {member.size} bytes, expected {'' if exactly else 'at most '}{most}")
        source = self._tar.extractfile(member)
        if source is None:
            raise self._refused(f"{name} is not a file")
        return source

    def _read(self, name: str, most: int) -> bytes:
        with self._open(name, most, exactly=False) as source:
            return self._block(source, most)

    def _block(self, source: IO[bytes], size: int) -> bytes:
        try:
            return source.read(size)
        except tarfile.TarError as error:  # cut off
            raise self._refused(str(error)) from error

    def _read_head(self) -> _Head:
        try:
            values: dict[str, Any] = json.loads(self._read(HEAD, MOST_HEAD_BYTES))
            head = _Head(**values)
        except (ValueError, TypeError) as error:
            raise self._refused(f"{HEAD} is not the head of an archive ({error})") from error
        if head.archive_version != ARCHIVE_VERSION:
            raise self._refused(f"archive_version is {head.archive_version!r}, this Raydex reads {ARCHIVE_VERSION}")
        for value, pattern, what in (
            (head.snapshot_id, _SNAPSHOT_ID, "id of a snapshot"),
            (head.index, _INDEX, "name"),
        ):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise self._refused(f"{value!r:.80} is no {what}")
        return head

    def _read_manifest(self) -> Manifest:
        found = hashlib.sha256(self.manifest_bytes).hexdigest()
        if found != self.head.manifest_sha256:
            raise self._refused(
                f"{MANIFEST} has checksum {found[:12]}, the head says {self.head.manifest_sha256!r:.14}"
            )
        try:
            manifest = parse_manifest(Path(MANIFEST), self.manifest_bytes, self.head.snapshot_id)
        except SnapshotError as error:
            raise self._refused(_finding(str(error))) from error
        wrong = next(
            (file for file in _objects(manifest) if not _SHA256.fullmatch(file.sha256) or file.bytes < 0), None
        )
        if wrong:
            raise self._refused(f"{MANIFEST} names an object {wrong.sha256!r:.80}, which is no checksum")
        return manifest


class _Sparing(io.RawIOBase):
    """The bytes of a stream, a little at a time: no header of an archive can ask for more memory than its members."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MOST_MANIFEST_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
