"""Which snapshots a service has open, or is opening: a collection leaves those alone.

    checkpoints/<index>/readers/<token>.json     {"holder": …, "snapshots": [id, …], "expires": Unix time}

The kernel keeps the files that a process has open, on one machine. A lease keeps them for a replica that starts after
the others, for clients of a network file system, and under a URI, where it is an object of the same name. A service
that may not write there goes on without.
"""

import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from threading import Lock

from raydex.errors import StorageError
from raydex.snapshot import publishing
from raydex.storage.mirror import Storage
from utils.files import make_folder, write_bytes

logger = logging.getLogger(__name__)

FOLDER = "readers"
LEASE_S = 90.0
"""After the last renewal. Clocks of machines may differ by half of it."""

RENEWED_EVERY_S = 30.0


def leased(index_dir: Path) -> set[str]:
    """Return the ids of the snapshots that some service has or is about to have open."""
    found: set[str] = set()
    for path in (index_dir / FOLDER).glob("*.json"):
        with suppress(OSError, ValueError, TypeError, KeyError):
            lease = json.loads(path.read_bytes())
            if lease["expires"] > time.time():
                found.update(map(str, lease["snapshots"]))
    return found


def expired(index_dir: Path) -> list[Path]:
    """Return the leases of services that died."""
    return [path for path in (index_dir / FOLDER).glob("*.json") if path.stat().st_mtime < time.time() - 2 * LEASE_S]


def pull_readers(storage: Storage, index: str) -> None:
    """Mirror the leases under a URI, as they are now."""
    folder = storage.folder / index / FOLDER
    there = {name.rpartition("/")[2]: name for name in storage.remote.stats(f"{index}/{FOLDER}")}
    for path in folder.glob("*.json"):
        if path.name not in there:
            path.unlink(missing_ok=True)
    for file_name, name in there.items():
        if content := storage.remote.read(name):
            write_bytes(folder / file_name, content.data, durable=False)


class ReaderLeases:
    """The leases of one service, one for each index. Threads may hold and release at once."""

    def __init__(self, folder: Path, storage: Storage | None) -> None:
        """folder: of all indexes."""
        self._folder, self._storage = folder, storage
        self._file_name = f"{secrets.token_hex(8)}.json"
        self._held: dict[str, tuple[frozenset[str], float]] = {}
        self._is_refused = False
        self._changing = Lock()

    def hold(self, index: str, snapshot_ids: Iterable[str]) -> None:
        """Say that these snapshots are in use; when this returns, no collection that begins deletes them."""
        wanted = frozenset(snapshot_ids) - {""}
        with self._changing:
            held, since = self._held.get(index, (frozenset(), 0.0))
            if wanted == held and time.monotonic() - since < RENEWED_EVERY_S:
                return
            try:
                self._write(index, wanted)
            except (OSError, StorageError) as error:
                if not self._is_refused:
                    logger.warning("no lease can be written, files are kept by --grace-s alone reason=%s", error)
                self._is_refused = True
            self._held[index] = wanted, time.monotonic()

    def release(self) -> None:
        with self._changing:
            for index in self._held:
                with suppress(OSError, StorageError):
                    if self._storage:
                        self._storage.remote.delete([f"{index}/{FOLDER}/{self._file_name}"])
                    (self._folder / index / FOLDER / self._file_name).unlink(missing_ok=True)
            self._held.clear()

    def _write(self, index: str, snapshot_ids: frozenset[str]) -> None:
        lease = {
            "holder": f"pid {os.getpid()} on {socket.gethostname()}",
            "snapshots": sorted(snapshot_ids),
            "expires": time.time() + LEASE_S,
        }
        data = json.dumps(lease).encode() + b"\n"
        if self._storage:
            self._storage.remote.write(f"{index}/{FOLDER}/{self._file_name}", data)
            return
        index_dir = self._folder / index
        with publishing(index_dir):  # a collection chooses what goes, and removes manifests, under this lock
            make_folder(index_dir / FOLDER)
            write_bytes(index_dir / FOLDER / self._file_name, data, durable=False)
