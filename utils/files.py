"""Files that are either whole or absent: atomic writes, checksums, an exclusive lock. Standard library only."""

import errno
import fcntl
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


@contextmanager
def write_atomically(path: Path, *, durable: bool = True, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file to write; on success it is fsynced and renamed to path, on any error nothing is left behind.

    A reader, and a crash at any moment, sees the old file or the new one, never a mixture. durable=False leaves out the
    fsync: a reader still sees one or the other, but after a power cut the file may be empty. For files that are checked
    when they are read, or made again.
    """
    make_folder(path.parent)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            yield out
            out.flush()
            if durable:
                os.fsync(out.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


class HashedFile(io.RawIOBase):
    """A file that is written once, front to back, and knows its checksum."""

    def __init__(self, out: BinaryIO) -> None:
        self._out, self._digest, self.size = out, hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        self._out.write(view)
        self.size += view.nbytes
        return view.nbytes


@contextmanager
def write_by_checksum(folder: Path) -> Iterator[HashedFile]:
    """Yield a file to write; on success it lies in the folder under its sha256, whole and fsynced.

    A file that is there already and whole is left as it is; a damaged one is replaced.
    """
    make_folder(folder)
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".object.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            hashed = HashedFile(out)
            yield hashed
            out.flush()
            path = folder / hashed.sha256
            is_there = path.is_file() and sha256_of(path) == hashed.sha256
            if not is_there:
                os.fsync(out.fileno())
        if is_there:
            Path(temporary).unlink()
            return
        Path(temporary).chmod(0o644)
        Path(temporary).rename(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_directory(folder)


def make_folder(path: Path) -> None:
    """Create a folder and those above it, so that they survive a power cut."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_directory(folder.parent)


def sync_directory(path: Path) -> None:
    """Make renames inside a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes, *, durable: bool = True, mode: int = 0o644) -> None:
    with write_atomically(path, durable=durable, mode=mode) as out:
        out.write(data)


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file, read in 1 MiB blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_disk_full(error: OSError) -> bool:
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def exclusive_lock(path: Path, note: str, *, wait: bool = False) -> Iterator[bool]:
    """Yield True while this process alone holds the lock, False when another one holds it (with wait: never).

    note is kept in the file, so that the refused one can say who holds it (`path.read_text()`). The kernel frees the
    lock when its holder dies in any way, so a left-over file is never a stale lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as holder:
        try:
            fcntl.flock(holder, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        holder.truncate(0)
        holder.write(note)
        holder.flush()
        yield True
