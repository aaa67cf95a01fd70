"""The content digest: what "the same snapshot" means, whatever shards the chunks lie in.

shards → records_of → files of 48 bytes a chunk → digest_of_records → hex sha256
"""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from raydex.errors import SnapshotCorrupt
from raydex.records import Shard
from raydex.shard import text_digests

DIGEST_RECORD = 48
"""Bytes of what a content digest needs to know of a chunk: its id and the sha256 of its text, in binary. Ordered files
of them are merged block by block (0.3 µs a chunk), where a merge of single pairs takes ten times as long."""

_ID_BYTES, _MERGED_BYTES = 16, 4 * 2**20

_IS_ID = re.compile(r"[0-9a-f]{32}").fullmatch


def digest_of_shards(
    shards: Iterable[Shard], objects_dir: Path, embedder_fingerprint: str, chunking: Mapping[str, int]
) -> str:
    """Return the content digest of shards on disk; it does not depend on how the chunks are spread over them.

    One shard is read at a time (all at once, a block of each would be in memory); 48 bytes a chunk lie in a temporary
    file meanwhile. Raises SnapshotCorrupt for an id that is none.
    """
    with tempfile.TemporaryDirectory(prefix="raydex-digest-") as folder:
        paths = []
        for number, shard in enumerate(shards):
            paths.append(Path(folder, f"{number}.records"))
            with paths[-1].open("wb") as out:
                out.writelines(records_of(shard, objects_dir))
        return digest_of_records(paths, embedder_fingerprint, chunking)


def digest_records(chunk_ids: Sequence[str], texts: Sequence[str]) -> bytes:
    return b"".join(
        bytes.fromhex(chunk_id) + hashlib.sha256(text.encode()).digest()
        for chunk_id, text in zip(chunk_ids, texts, strict=True)
    )


def records_of(shard: Shard, objects_dir: Path) -> Iterator[bytes]:
    """Yield the records of a shard on disk, in order."""
    for chunk_id, text_digest in text_digests(shard, objects_dir):
        if not _IS_ID(chunk_id):
            raise SnapshotCorrupt(f"shard {shard.shard_id}", "chunk ids of 32 hex digits", repr(chunk_id))
        yield bytes.fromhex(chunk_id + text_digest)


def has_records(path: Path, shard: Shard) -> bool:
    return path.exists() and path.stat().st_size == DIGEST_RECORD * shard.chunk_count


def digest_of_records(paths: Sequence[Path], embedder_fingerprint: str, chunking: Mapping[str, int]) -> str:
    """Return the content digest of the chunks in these files, each of them ordered; docs/format.md has its form."""
    digest = hashlib.sha256(f"{embedder_fingerprint}\n{json.dumps(dict(chunking), sort_keys=True)}\n".encode())
    for records in _merged_records(paths):
        hexes = np.frombuffer(records.tobytes().hex().encode(), np.uint8).reshape(len(records), 2 * DIGEST_RECORD)
        lines = np.full((len(records), 2 * DIGEST_RECORD + 2), ord(" "), np.uint8)
        lines[:, : 2 * _ID_BYTES] = hexes[:, : 2 * _ID_BYTES]
        lines[:, 2 * _ID_BYTES + 1 : -1] = hexes[:, 2 * _ID_BYTES :]
        lines[:, -1] = ord("\n")
        digest.update(lines.tobytes())
    return digest.hexdigest()


def _merged_records(paths: Sequence[Path]) -> Iterator[npt.NDArray[np.void]]:
    """Yield blocks of records in order over all files, each record once."""
    whole = np.dtype(f"V{DIGEST_RECORD}")
    files = [np.memmap(path, whole, mode="r") for path in paths if path.stat().st_size]
    window = max(256, _MERGED_BYTES // DIGEST_RECORD // max(1, len(files)))
    at = [0] * len(files)
    while left := [number for number, file in enumerate(files) if at[number] < len(file)]:
        heads = {number: _ids(files[number][at[number] : at[number] + window]) for number in left}
        limit = min(ids[-1] for ids in heads.values())  # up to here no file can bring more
        parts = []
        for number, ids in heads.items():
            count = int(np.searchsorted(ids, limit, side="right"))
            parts.append(files[number][at[number] : at[number] + count])
            at[number] += count
        yield _in_order(np.concatenate(parts))


def _ids(records: npt.NDArray[np.void]) -> npt.NDArray[np.bytes_]:
    return records.view(np.dtype({"names": ["id"], "formats": [f"S{_ID_BYTES}"], "itemsize": DIGEST_RECORD}))["id"]


def _in_order(records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    halves = records.view(">u8").reshape(len(records), -1)[:, :2].astype(np.uint64)
    order = np.lexsort((halves[:, 1], halves[:, 0]))
    halves, ordered = halves[order], records[order]
    if not (halves[1:] == halves[:-1]).all(axis=1).any():
        return ordered
    rows = sorted({record.tobytes() for record in ordered})  # an id in two files: seldom, and then one by one
    return np.frombuffer(b"".join(rows), ordered.dtype)
