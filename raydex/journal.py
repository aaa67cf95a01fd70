"""What was live when: one line for each time that CURRENT moved, and the digest of the manifest it moved to.

    checkpoints/<index>/journal.jsonl    → [Entry, …], oldest first

A line is written before CURRENT moves. Whether it did is seen from what follows: the next line's `before`, or CURRENT.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from utils.files import write_bytes

FILE = "journal.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One move of CURRENT. event: published, rolled_back, rolled_forward, forgot or imported; before: what was live."""

    at: str  # ISO 8601, UTC
    event: str
    snapshot_id: str
    before: str
    manifest_sha256: str


def note(index_dir: Path, event: str, snapshot_id: str, *, before: str, manifest_sha256: str) -> None:
    """Add a line. The caller holds the index's publish.lock, and moves CURRENT next."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = Entry(at=now, event=event, snapshot_id=snapshot_id, before=before, manifest_sha256=manifest_sha256)
    lines = _bytes(index_dir) + json.dumps(asdict(entry)).encode() + b"\n"
    write_bytes(index_dir / FILE, lines)  # 250 bytes a line; a new file each time is never torn


def entries(index_dir: Path) -> list[Entry]:
    """Return all lines, oldest first; one that cannot be read is passed over."""
    return list(_read(index_dir))


def moves(index_dir: Path, live: str) -> list[Entry]:
    """Return the lines after which CURRENT did move: a process may die between the two. live: what CURRENT says."""
    written = entries(index_dir)
    then = [*(entry.before for entry in written[1:]), live]
    return [entry for entry, found in zip(written, then, strict=False) if entry.snapshot_id == found]


def published_ids(index_dir: Path, live: str) -> set[str]:
    """Return the ids of all snapshots that are live or have been."""
    return {live, *(entry.snapshot_id for entry in moves(index_dir, live))} - {""}


def _read(index_dir: Path) -> Iterator[Entry]:
    for line in _bytes(index_dir).splitlines():
        with suppress(ValueError, TypeError):
            yield Entry(**json.loads(line))


def _bytes(index_dir: Path) -> bytes:
    try:
        return (index_dir / FILE).read_bytes()
    except FileNotFoundError:
        return b""
