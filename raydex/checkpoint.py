"""What a build may lose its process but not its work over: page store, embedding store, ledger, lock, room on disk.

    checkpoints/<index>/pages/      PageStore     the checkpoint of crawling
    checkpoints/<index>/vectors/    VectorStore   the checkpoint of embedding
    checkpoints/<index>/builds/     Ledger        which units of work of a build are finished

A checkpoint is resumable progress; a snapshot (snapshot.py) is immutable and servable.
"""

import json
import logging
import os
import shutil
import socket
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True)
class StoredPage:
    """A page and the build that last saw it on the site (fetched, or confirmed by 304)."""

    page: Page
    build_id: str


class PageStore:
    """The last good copy of each page: one file a page, a line of JSON and the zstd body."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, page_id: str) -> StoredPage | None:
        """Return the copy of a page, None when there is none that can be read (it is fetched again then)."""
        try:
            header, _, body = self._path(page_id).read_bytes().partition(b"\n")
            fields = json.loads(header)
            build_id = fields.pop("build_id")
            fields["fetched_at"] = datetime.fromisoformat(fields["fetched_at"])
            return StoredPage(Page(body=zstandard.decompress(body), **fields), build_id)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
            logger.warning("stored page unreadable page_id=%s reason=%s", page_id, error)
            return None

    def save(self, page: Page, build_id: str) -> None:
        fields = {name: getattr(page, name) for name in Page.__dataclass_fields__ if name != "body"}
        header = json.dumps({**fields, "fetched_at": page.fetched_at.isoformat(), "build_id": build_id})
        write_bytes(self._path(page.page_id), header.encode() + b"\n" + zstandard.compress(page.body))

    def _path(self, page_id: str) -> Path:
        return self._folder / page_id[:2] / f"{page_id}.page"


class VectorStore:
    """Vectors by key, never computed twice: immutable Parquet files, found through a small table in memory.

    A key is the sha256 (32 bytes) of the exact embedder input; the folder bears the model's fingerprint. The table
    holds 16 bytes a key (160 MB for 10 million); vectors stay on disk until they are asked for.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder, self._dim = folder, dim
        self._files: list[Path] = []
        self._known: set[Path] = set()
        self._heads: npt.NDArray[np.uint64] = np.empty(0, np.uint64)  # first 8 bytes of each key, sorted
        self._places: npt.NDArray[np.uint32] = np.empty((0, 2), np.uint32)  # (file, row) of each head
        folder.mkdir(parents=True, exist_ok=True)

    def refresh(self) -> None:
        """Learn the files that this or another process has added since."""
        heads, places = [self._heads], [self._places]
        for path in sorted(set(self._folder.glob("*.parquet")) - self._known):
            self._known.add(path)
            try:
                keys = _key_bytes(pq.read_table(path, columns=["key"]))
            except pa.ArrowException as error:
                logger.warning("stored vectors unreadable, to be made again path=%s reason=%s", path, error)
                continue
            rows = np.arange(len(keys), dtype=np.uint32)
            heads.append(_heads(keys))
            places.append(np.column_stack([np.full_like(rows, len(self._files)), rows]))
            self._files.append(path)
        if len(heads) > 1:
            all_heads, all_places = np.concatenate(heads), np.concatenate(places)
            order = np.argsort(all_heads, kind="stable")
            self._heads, self._places = all_heads[order], all_places[order]

    def find(self, keys: Sequence[bytes]) -> dict[bytes, npt.NDArray[np.float32]]:
        """Return the stored vectors among these keys; a key that is not stored is absent."""
        if not keys or not len(self._heads):
            return {}
        wanted = _heads(keys)
        at = np.minimum(np.searchsorted(self._heads, wanted), len(self._heads) - 1)
        rows_by_file: dict[int, list[int]] = defaultdict(list)
        for file, row in self._places[at[self._heads[at] == wanted]]:
            rows_by_file[int(file)].append(int(row))
        asked, found = set(keys), dict[bytes, npt.NDArray[np.float32]]()
        for file, rows in rows_by_file.items():
            table = pq.read_table(self._files[file]).take(pa.array(rows))
            vectors = table["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self._dim)
            # two keys may share a head (8 of 32 bytes): only the whole key counts
            found.update((key, vectors[i]) for i, key in enumerate(_key_bytes(table)) if key in asked)
        return found

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


def _key_bytes(table: pa.Table) -> list[bytes]:
    return table["key"].to_pylist()  # type: ignore[no-any-return]


def _heads(keys: Sequence[bytes]) -> npt.NDArray[np.uint64]:
    return np.frombuffer(b"".join(key[:8] for key in keys), dtype=">u8").astype(np.uint64)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table, whole or not at all."""
    with write_atomically(path) as out:
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

    def append(self, event: str, **fields: Any) -> None:
        self.build_dir.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as ledger:
            ledger.write(json.dumps({"event": event, "at": _now(), **fields}).encode() + b"\n")
            ledger.flush()
            os.fsync(ledger.fileno())


def open_build(index_dir: Path, config_digest: str, *, live: str = "", fresh: bool = False) -> tuple[Ledger, bool]:
    """Return the ledger to write to, and whether it resumes the newest build.

    That is resumed when it is unfinished and of the same configuration, unless fresh. Otherwise a new build is begun,
    and the unit files of older ones are removed. live: the published snapshot; a build that was killed after it had
    published that one is finished.
    """
    builds = [Ledger(path.parent) for path in sorted((index_dir / "builds").glob("*/ledger.jsonl"), reverse=True)]
    if builds and not fresh and _is_resumable(builds[0].lines(), config_digest, live):
        builds[0].cut_torn_line()
        builds[0].append("resume")
        return builds[0], True
    for abandoned in builds:
        shutil.rmtree(abandoned.build_dir / "units", ignore_errors=True)
    ledger = Ledger(index_dir / "builds" / _unused_build_id(index_dir))
    ledger.append("start", config_digest=config_digest)
    return ledger, False


def _is_resumable(lines: Sequence[dict[str, Any]], config_digest: str, live: str) -> bool:
    if not lines or lines[0].get("config_digest") != config_digest:
        return False
    return not any(line["event"] == "end" or (live and line.get("snapshot_id") == live) for line in lines)


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


def stamped(page: Page) -> Page:
    """Return the page as confirmed now (304: the copy we have is the current one)."""
    return replace(page, fetched_at=datetime.now(UTC))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
