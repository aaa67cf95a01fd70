"""What a build may lose its process but not its work over: page store, embedding store, ledger, lock, room on disk.

    checkpoints/<index>/pages/      PageStore     the checkpoint of crawling
    checkpoints/<index>/vectors/    VectorStore   the checkpoint of embedding
    checkpoints/<index>/builds/     Ledger        which units of work of a build are finished

A checkpoint is resumable progress; a snapshot (snapshot.py) is immutable and servable.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from raydex.errors import BuildLocked, EmbedError, StorageFull
from raydex.records import Page, Vectors
from utils.files import exclusive_lock, is_disk_full, write_atomically, write_bytes

logger = logging.getLogger(__name__)

SMALLEST_BUILD_BYTES = 256 * 2**20
"""A build is not started with less room than this: page store, unit files and objects of a small site."""


FILES_PER_REFRESH = 256
"""A store of vectors lists its folder once for this many files in it, or it would list all of them for each unit."""


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page and the build that last looked at it.

    stale_builds: builds in a row, build_id the last of them, that could not get the page; 0 when it is current. The
    body is empty when only the head was asked for.
    """

    page: Page
    build_id: str
    stale_builds: int = 0


class PageStore:
    """The last good copy of each page, and what was read from it: two files a page.

    `<page_id>.page`: a line of JSON, the zstd body. `<page_id>.reading`: the recipe (digest of all that decides what is
    read from the body), a newline, zstd bytes that the reader of the page chose. Neither is fsynced: the body is
    checked against its sha256, the reading by zstd, and what was torn is fetched or read again.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, page_id: str) -> StoredPage | None:
        """Return the copy of a page, None when there is none that can be read (it is fetched again then)."""
        try:
            header, _, body = self._path(page_id).read_bytes().partition(b"\n")
            stored = _stored_page(header, zstandard.decompress(body))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
            logger.warning("stored page unreadable page_id=%s reason=%s", page_id, error)
            return None
        if hashlib.sha256(stored.page.body).hexdigest() == stored.page.body_sha256:
            return stored
        logger.warning("stored page differs from its checksum page_id=%s", page_id)
        return None

    def head(self, page_id: str) -> StoredPage | None:
        """Return the copy of a page without its body, which is not read and not checked."""
        try:
            with self._path(page_id).open("rb") as stored:
                return _stored_page(stored.readline(), b"")
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None  # load() says why, when somebody wants the body

    def save(self, page: Page, build_id: str, *, stale_builds: int = 0) -> None:
        self._write(page, build_id, stale_builds, zstandard.compress(page.body))

    def confirm(self, page: Page, build_id: str, *, stale_builds: int = 0) -> None:
        """Keep the stored body under a new head (page.body is not looked at)."""
        body = self._path(page.page_id).read_bytes().partition(b"\n")[2]
        self._write(page, build_id, stale_builds, body)

    def remove(self, page_id: str) -> None:
        for path in (self._path(page_id), self._reading_path(page_id)):
            path.unlink(missing_ok=True)

    def ids(self) -> Iterator[str]:
        yield from (path.stem for path in sorted(self._folder.glob("*/*.page")))

    def files(self, page_id: str) -> list[Path]:
        """Return the files that are kept of a page."""
        return [path for path in (self._path(page_id), self._reading_path(page_id)) if path.exists()]

    def heads(self) -> Iterator[StoredPage]:
        for page_id in self.ids():
            if stored := self.head(page_id):
                yield stored

    def reading(self, page_id: str, recipe: str = "") -> bytes | None:
        """Return what save_reading kept under this recipe ("": any); None when there is none, or it was damaged."""
        try:
            kept, _, data = self._reading_path(page_id).read_bytes().partition(b"\n")
            return zstandard.decompress(data) if recipe in {kept.decode(), ""} else None
        except FileNotFoundError:
            return None
        except (ValueError, zstandard.ZstdError) as error:
            logger.warning("stored reading unreadable page_id=%s reason=%s", page_id, error)
            return None

    def save_reading(self, page_id: str, recipe: str, data: bytes) -> None:
        packed = zstandard.ZstdCompressor(write_checksum=True).compress(data)
        write_bytes(self._reading_path(page_id), recipe.encode() + b"\n" + packed, durable=False)

    def _write(self, page: Page, build_id: str, stale_builds: int, body: bytes) -> None:
        fields = {name: getattr(page, name) for name in Page.__dataclass_fields__ if name != "body"}
        header = {**fields, "fetched_at": page.fetched_at.isoformat(), "build_id": build_id}
        data = json.dumps({**header, "stale_builds": stale_builds}).encode() + b"\n" + body
        write_bytes(self._path(page.page_id), data, durable=False)

    def _path(self, page_id: str) -> Path:
        return self._folder / page_id[:2] / f"{page_id}.page"

    def _reading_path(self, page_id: str) -> Path:
        return self._path(page_id).with_suffix(".reading")


def _stored_page(header: bytes, body: bytes) -> StoredPage:
    fields = json.loads(header)
    build_id, stale_builds = fields.pop("build_id"), fields.pop("stale_builds", 0)
    fields["fetched_at"] = datetime.fromisoformat(fields["fetched_at"])
    return StoredPage(Page(body=body, **fields), build_id, stale_builds)


class RemovedVectors(NamedTuple):
    vectors: int
    bytes: int


class VectorStore:
    """Vectors by key, never computed twice: immutable Parquet files, found through a small table in memory.

    A key is the sha256 (32 bytes) of the exact embedder input; the folder bears the model's fingerprint. The table
    holds 16 bytes a key (160 MB for 10 million); vectors stay on disk until they are asked for. It is made of sorted
    runs that double in size, so that a key is sorted some twenty times in a million, and never all of them anew.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder, self._dim = folder, dim
        self._files: list[Path] = []
        self._known: set[str] = set()
        self._runs: list[_Run] = []  # longest first
        self._refreshes_left_out = 0
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return sum(len(run.heads) for run in self._runs)

    def refresh(self) -> None:
        """Learn the files that this or another process has added since.

        Listing a folder takes as long as it is full: one of n files is listed at every n/256th call only, and until
        then what another process has added is unknown here (its texts may be embedded twice, no more).
        """
        self._refreshes_left_out += 1
        if self._refreshes_left_out < len(self._known) // FILES_PER_REFRESH:
            return
        self._refreshes_left_out = 0
        fresh = sorted(
            {entry.name for entry in os.scandir(self._folder) if entry.name.endswith(".parquet")} - self._known
        )
        runs = [run for name in fresh if (run := self._run_of(name)) is not None]
        if runs:
            self._take_in(_merged(runs))

    def _run_of(self, name: str) -> "_Run | None":
        self._known.add(name)
        path = self._folder / name
        keys = _keys_in(path)
        if not keys:
            return None
        self._files.append(path)
        rows = np.arange(len(keys), dtype=np.uint32)
        return _Run(_heads(keys), np.column_stack([np.full_like(rows, len(self._files) - 1), rows]))

    def _take_in(self, run: "_Run") -> None:
        """Add a run, merged with those that are less than twice as long as it: few runs, each key merged seldom."""
        while self._runs and len(self._runs[-1].heads) < 2 * len(run.heads):
            run = _merged([self._runs.pop(), run])
        self._runs.append(run)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        """Return the stored vectors among these keys; a key that is not stored is absent."""
        if not keys:
            return {}
        wanted = _heads(keys)
        rows_by_file: dict[int, list[int]] = defaultdict(list)
        for run in self._runs:
            for file, row in run.places_of(wanted):
                rows_by_file[int(file)].append(int(row))
        asked, found = set(keys), dict[bytes, npt.NDArray[np.float32]]()
        for file, rows in rows_by_file.items():
            if (whole := _read_stored(self._files[file])) is None:
                continue
            table = whole.take(pa.array(rows))
            vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self._dim)
            # two keys may share a head (8 of 32 bytes): only the whole key counts
            found.update((key, vectors[i]) for i, key in enumerate(_key_bytes(table)) if key in asked)
        return found

    def remove(self, keys: Collection[bytes]) -> int:
        """Forget these keys, rewriting the files that hold them; return how many vectors were removed."""
        return self.retain(lambda stored: [key not in keys for key in stored]).vectors

    def retain(
        self,
        wanted: Callable[[Sequence[bytes]], Sequence[bool]],
        *,
        written_before: float = math.inf,
        dry_run: bool = False,
    ) -> "RemovedVectors":
        """Keep what is wanted, rewriting the files that hold anything else; no other process may use the store.

        One file of at most 256 rows is in memory at a time. written_before: Unix time; younger files stay as they are.
        One that is damaged goes: nobody can tell whose vectors it holds.
        """
        vectors = freed = 0
        for path in sorted(self._folder.glob("*.parquet")):
            before = path.stat()
            if before.st_mtime >= written_before:
                continue
            kept = wanted(_keys_in(path))
            if kept and all(kept):
                continue
            gone = len(kept) - sum(kept)
            vectors += gone
            freed += before.st_size * gone // len(kept) if any(kept) else before.st_size
            if dry_run:
                continue
            whole = _read_stored(path) if any(kept) else None
            if whole is None:
                path.unlink()
            else:
                write_parquet(path, whole.filter(pa.array(kept)))
        return RemovedVectors(vectors, freed)

    def add(self, keys: Sequence[bytes], vectors: Vectors) -> None:
        """Keep these vectors, in one new file named after its keys; EmbedError for one that is not of length 1."""
        if not np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-3):
            raise EmbedError("the model gave a vector that is not a number or not of length 1; nothing was stored")
        table = pa.table(
            {
                "key": pa.array(keys, pa.binary(32)),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), self._dim),
            }
        )
        write_parquet(self._folder / f"{keys[0].hex()[:16]}-{len(keys)}-{keys[-1].hex()[:16]}.parquet", table)


@dataclass(frozen=True, slots=True)
class _Run:
    """A part of the table of a VectorStore. heads: first 8 bytes of each key, sorted; places: (file, row) of each."""

    heads: npt.NDArray[np.uint64]
    places: npt.NDArray[np.uint32]

    def places_of(self, wanted: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        at = np.minimum(np.searchsorted(self.heads, wanted), len(self.heads) - 1)
        places: npt.NDArray[np.uint32] = self.places[at[self.heads[at] == wanted]]
        return places


def _merged(runs: Sequence[_Run]) -> _Run:
    heads, places = np.concatenate([run.heads for run in runs]), np.concatenate([run.places for run in runs])
    order = np.argsort(heads, kind="stable")  # of runs that are sorted: a merge
    return _Run(heads[order], places[order])


def _read_stored(path: Path, columns: list[str] | None = None) -> pa.Table | None:
    """Return what a file of vectors holds; None when it is damaged: they are made again."""
    try:
        return pq.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:  # not Parquet; damaged pages
        logger.warning("stored vectors unreadable, to be made again path=%s reason=%s", path, error)
        return None


def _keys_in(path: Path) -> list[bytes]:
    table = _read_stored(path, ["key"])
    return _key_bytes(table) if table is not None else []


def _key_bytes(table: pa.Table) -> list[bytes]:
    return table["key"].to_pylist()  # type: ignore[no-any-return]


def _heads(keys: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(key[:8] for key in keys), dtype=">u8").astype(np.uint64)


def write_parquet(path: Path, table: pa.Table, *, durable: bool = True) -> None:
    """Write a table, whole or not at all; durable as in write_atomically."""
    with write_atomically(path, durable=durable) as out:
        pq.write_table(table, out, compression="zstd")


class Ledger:
    """builds/<build_id>/ledger.jsonl: one line per finished unit. Only the driver writes it.

    A torn last line, left by a crash, is cut off when the ledger is opened again.
    """

    def __init__(self, build_dir: Path) -> None:
        self.build_dir = build_dir
        self._path = build_dir / "ledger.jsonl"

    def lines(self) -> list[dict[str, Any]]:
        """Return the whole lines, oldest first."""
        if not self._path.exists():
            return []
        whole, _, _ = self._path.read_bytes().rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()]

    def cut_torn_line(self) -> None:
        if self._path.exists():
            data = self._path.read_bytes()
            with self._path.open("r+b") as ledger:
                ledger.truncate(data.rfind(b"\n") + 1)

    def config_digest(self) -> str:
        return next((str(line.get("config_digest", "")) for line in self.lines()), "")

    def is_unfinished(self, published: Collection[str]) -> bool:
        """Tell whether the build can go on; one that was killed after it had published cannot.

        published: every snapshot that is live or has been.
        """
        lines = self.lines()
        return bool(lines) and not any(line["event"] == "end" or line.get("snapshot_id") in published for line in lines)

    def append(self, event: str, **fields: Any) -> None:
        self.build_dir.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as ledger:
            ledger.write(json.dumps({"event": event, "at": _now(), **fields}).encode() + b"\n")
            ledger.flush()
            os.fsync(ledger.fileno())


def open_build(
    index_dir: Path, config_digest: str, *, published: Collection[str] = (), fresh: bool = False
) -> tuple[Ledger, bool]:
    """Return the ledger to write to, and whether it resumes the newest build.

    That is resumed when it is unfinished and of the same configuration, unless fresh. Otherwise a new build is begun,
    and the unit files of older ones are removed. published: as in Ledger.is_unfinished.
    """
    builds = ledgers(index_dir)
    if builds and not fresh and builds[0].is_unfinished(published) and builds[0].config_digest() == config_digest:
        builds[0].cut_torn_line()
        builds[0].append("resume")
        return builds[0], True
    for abandoned in builds:
        shutil.rmtree(abandoned.build_dir / "units", ignore_errors=True)
    ledger = Ledger(index_dir / "builds" / _unused_build_id(index_dir))
    ledger.append("start", config_digest=config_digest)
    return ledger, False


def ledgers(index_dir: Path) -> list[Ledger]:
    """Return the ledgers of all builds, newest first; only the first one can be resumed."""
    return [Ledger(path.parent) for path in sorted((index_dir / "builds").glob("*/ledger.jsonl"), reverse=True)]


def _unused_build_id(index_dir: Path) -> str:
    """Return a name that sorts after every build there is."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    taken = sorted(path.name for path in (index_dir / "builds").glob("*"))
    return stamp if not taken or stamp > taken[-1] else f"{taken[-1]}+"


@contextmanager
def build_lock(index_dir: Path) -> Iterator[None]:
    """Hold the index for one build; raises BuildLocked with pid, host and start of the holder."""
    path = index_dir / "build.lock"
    note = f"pid {os.getpid()} on {socket.gethostname()} since {_now()}"
    with exclusive_lock(path, note) as held:
        if not held:
            raise BuildLocked(index_dir.name, path.read_text(encoding="utf-8") or "another process")
        yield


def check_free_space(folder: Path, needed_bytes: int) -> None:
    """Raise StorageFull unless the disk of this folder has room for a build."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise StorageFull(str(folder), free, needed_bytes)


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """Turn the kernel's `no space left` into StorageFull, which says what to do."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise StorageFull(str(folder), shutil.disk_usage(folder).free, SMALLEST_BUILD_BYTES) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
