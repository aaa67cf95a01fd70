"""One writer of a remote index at a time: an object that names its holder and runs out unless it is renewed.

    with build_lease(remote, "docs") as lease: …; lease.confirm() before CURRENT moves

A holder that dies leaves the object. It is taken over once it has run out (LEASE_S), or at once by whoever can see that
the process is gone: same machine since the same start, same process namespace. Clocks may differ by less than LEASE_S.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from raydex.errors import BuildLocked, StorageError
from raydex.storage.remote import NEW, Remote

logger = logging.getLogger(__name__)

FILE = "build.lease"
LEASE_S = 180.0
"""After the last renewal. A process that hangs or loses its network for longer has lost the index."""

RENEWED_EVERY_S = 45.0

TRIES = 5
"""At one renewal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the object says. place: host, its start and the namespace of processes; expires: Unix time."""

    holder: str
    place: str
    pid: int
    token: str
    expires: float

    @property
    def is_dead(self) -> bool:
        return self.expires < time.time() or (self.place == _place() and not Path(f"/proc/{self.pid}").exists())


class Lease:
    """A lease that is held."""

    def __init__(self, remote: Remote, index: str, note: Note) -> None:
        self._remote, self._index, self._note = remote, index, note
        self._name = f"{index}/{FILE}"

    def confirm(self) -> None:
        """Renew; raises BuildLocked when another process has taken the index meanwhile.

        Two threads of the holder may do so at once, and a store may refuse a write that it has taken before its answer
        was lost: a refusal alone does not mean that the lease is another's.
        """
        for _ in range(TRIES):
            found = self._remote.read(self._name)
            held = found and _parsed(found.data)
            if not found or not held or held.token != self._note.token:
                raise BuildLocked(self._index, held.holder if held else "nobody: the lease was deleted")
            renewed = replace(self._note, expires=time.time() + LEASE_S)
            if self._remote.write(self._name, _bytes(renewed), expected=found.version):
                return
        raise BuildLocked(self._index, "another process, which keeps changing the lease")

    def release(self) -> None:
        found = self._remote.read(self._name)
        if found and (held := _parsed(found.data)) and held.token == self._note.token:
            self._remote.delete([self._name])


@contextmanager
def build_lease(remote: Remote, index: str) -> Iterator[Lease]:
    """Hold a remote index for one writer; raises BuildLocked with pid, host and start of the holder."""
    lease = Lease(remote, index, _taken(remote, index))
    stop = threading.Event()
    beat = threading.Thread(target=_renew, args=(lease, stop), name="raydex-lease", daemon=True)
    beat.start()
    try:
        yield lease
    finally:
        stop.set()
        beat.join()
        with suppress(StorageError):  # it runs out by itself
            lease.release()


def _taken(remote: Remote, index: str) -> Note:
    name, now = f"{index}/{FILE}", datetime.now(UTC).isoformat(timespec="seconds")
    note = Note(
        holder=f"pid {os.getpid()} on {socket.gethostname()} since {now}",
        place=_place(),
        pid=os.getpid(),
        token=secrets.token_hex(8),
        expires=time.time() + LEASE_S,
    )
    if remote.write(name, _bytes(note), expected=NEW):
        return note
    found = remote.read(name)
    held = found and _parsed(found.data)
    if held and held.token == note.token:  # the store had taken the write, and its answer was lost
        return note
    if held and not held.is_dead:
        raise BuildLocked(index, held.holder)
    if remote.write(name, _bytes(note), expected=found.version if found else NEW):
        logger.warning("stale lease taken over index=%s holder=%s", index, held.holder if held else "unknown")
        return note
    raise BuildLocked(index, "another process, which was faster")


def _renew(lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(RENEWED_EVERY_S):
        try:
            lease.confirm()
        except StorageError as error:  # the store may be back before the lease has run out
            logger.warning("lease not renewed reason=%s", error)
        except BuildLocked as error:  # confirm() says so again before anything is published
            logger.warning("lease lost reason=%s", error)
            return


def _place() -> str:
    """Return what two processes share if each can see whether the other is alive."""
    with suppress(OSError):
        started = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{socket.gethostname()} {started} {Path('/proc/self/ns/pid').readlink()}"
    return secrets.token_hex(8)


def _parsed(data: bytes) -> Note | None:
    with suppress(ValueError, TypeError):
        return Note(**json.loads(data))
    return None


def _bytes(note: Note) -> bytes:
    return json.dumps(asdict(note)).encode() + b"\n"
