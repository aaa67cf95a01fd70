"""The files of the query log: its key, a folder of Parquet files for each day, what is deleted and when.

    Store(folder).append("2026-01-05", rows)        → <folder>/2026-01-05/<random>.parquet
    Store(folder).forget(since=…, until=…, query="…", key_id="…")

A file is written once and only rewritten to take rows out of it. Who deletes or reads holds the lock; who appends need
not, since a new file appears whole.
"""

import hashlib
import hmac
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raydex.analytics.redaction import normalise
from utils.files import exclusive_lock, write_atomically, write_bytes

KEY_BYTES, HASH_BYTES = 32, 16
PRIVATE = 0o600
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")

SCHEMA = pa.schema(
    [
        ("at", pa.timestamp("ms", "UTC")),
        ("kind", pa.string()),  # search, click, up, down
        ("query", pa.string()),  # keyed hash of the normalised text
        ("text", pa.string()),  # redacted; empty unless the log is to have it
        ("raw", pa.string()),  # as it was typed; empty unless sampled
        ("session", pa.string()),  # keyed hash of day and caller
        ("caller", pa.string()),  # keyed hash of day and id of the API key; empty without one
        ("indexes", pa.list_(pa.field("element", pa.string()))),  # as Parquet calls it
        ("results", pa.int32()),
        ("page", pa.string()),  # of the best result, or the one that was judged
    ]
)


class Store:
    """One log. Without a folder there is nothing in it; the first row makes it, and its key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, day: str, rows: Sequence[Mapping[str, Any]]) -> None:
        path = self.folder / day / f"{secrets.token_hex(8)}.parquet"
        _write(path, pa.Table.from_pylist(list(rows), schema=SCHEMA))

    def hasher(self) -> "Hasher":
        """Return what hashes with the key of this log, which is made if there is none."""
        path = self.folder / "key"
        with self._locked():
            if not path.exists():
                write_bytes(path, secrets.token_bytes(KEY_BYTES), mode=PRIVATE)
            return Hasher(path.read_bytes())

    def read(self, since: date, until: date, columns: Sequence[str] = tuple(SCHEMA.names)) -> pa.Table:
        """Return the rows of these days, the last one too, in no order."""
        nothing = SCHEMA.empty_table().select(list(columns))
        if not self.folder.exists():
            return nothing
        with self._locked():
            paths = [path for day in self._days(since, until) for path in _files(day)]
            tables = [pq.read_table(path, columns=list(columns)) for path in paths]
        return pa.concat_tables([nothing, *tables])

    def forget(self, since: date, until: date, *, query: str = "", key_id: str = "") -> int:
        """Take out the rows of these days, or of them those of a query and of an API key; return how many went.

        What a running service has not written yet comes later (flush_s).
        """
        if not self.folder.exists():
            return 0
        hasher, gone = self.hasher(), 0
        with self._locked():
            for day in self._days(since, until):
                for path in _files(day):
                    table = pq.read_table(path)
                    kept = table.filter(pc.invert(_chosen(table, day.name, hasher, query=query, key_id=key_id)))
                    gone += len(table) - len(kept)
                    if not len(kept):
                        path.unlink()
                    elif len(kept) < len(table):
                        _write(path, kept)
        return gone

    def sweep(self, today: date, *, days: int, most_bytes: int) -> None:
        """Delete days that are too old, and the oldest while all are too large."""
        with self._locked():
            kept = []
            for day in self._days(date.min, date.max):
                if day.name <= (today - timedelta(days=days)).isoformat():
                    shutil.rmtree(day)
                else:
                    kept.append((day, sum(path.stat().st_size for path in _files(day))))
            while kept and sum(size for _, size in kept) > most_bytes:
                shutil.rmtree(kept.pop(0)[0])

    def _days(self, since: date, until: date) -> list[Path]:
        """Return the folders of these days, oldest first."""
        days = (path for path in self.folder.iterdir() if DAY.fullmatch(path.name))
        return sorted(path for path in days if since.isoformat() <= path.name <= until.isoformat())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with exclusive_lock(self.folder / ".lock", "", wait=True):
            yield


class Hasher:
    """Keyed hashes (HMAC-SHA256, cut to 128 bits): who lacks the key cannot try a dictionary on them."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def query(self, text: str) -> str:
        return self._hash("query", normalise(text))

    def session(self, day: str, caller: str) -> str:
        return self._hash("session", day, caller)

    def caller(self, day: str, key_id: str) -> str:
        return self._hash("caller", day, key_id) if key_id else ""

    def _hash(self, *parts: str) -> str:
        message = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, message, hashlib.sha256)[:HASH_BYTES].hex()


def _chosen(table: pa.Table, day: str, hasher: Hasher, *, query: str, key_id: str) -> Any:
    chosen = pa.array([True] * len(table))
    if query:
        chosen = pc.and_(chosen, pc.equal(table["query"], hasher.query(query)))
    if key_id:
        chosen = pc.and_(chosen, pc.equal(table["caller"], hasher.caller(day, key_id)))
    return chosen


def _files(day: Path) -> list[Path]:
    return sorted(day.glob("*.parquet"))


def _write(path: Path, table: pa.Table) -> None:
    with write_atomically(path, mode=PRIVATE) as out:
        pq.write_table(table, out, compression="zstd")


def day_of(moment: float) -> str:
    """moment: seconds since 1970."""
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
