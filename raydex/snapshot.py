"""Publish, open, verify and list snapshots: what builders write and servers read.

    [Shard, …] → Manifest → write_manifest → publish → open_snapshot → Snapshot

    checkpoints/<index>/CURRENT                                one line: the live snapshot_id, replaced atomically
    checkpoints/<index>/snapshots/<snapshot_id>/manifest.json  what the snapshot is made of
    checkpoints/<index>/objects/<sha256>                       its immutable files, shared between snapshots

`index_dir` is checkpoints/<index> throughout. The format is in docs/format.md.
"""

import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raydex.config import CODE_VERSION
from raydex.digest import digest_of_shards
from raydex.errors import SnapshotCorrupt, SnapshotError, SnapshotIncompatible, SnapshotNotFound
from raydex.journal import note
from raydex.lexical import ANALYZER, LexicalIndex, open_lexical
from raydex.records import EmbedderInfo, Lexical, Manifest, Shard, StoredObject
from raydex.shard import KNOWN_KINDS, OpenShard, check_object, open_shard
from utils.files import exclusive_lock, sha256_of, write_bytes

FORMAT_VERSION = 2
READABLE_FORMATS = frozenset({FORMAT_VERSION - 1, FORMAT_VERSION})

logger = logging.getLogger(__name__)

_MANIFEST = TypeAdapter(Manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """An opened snapshot. Its files stay readable while it is in use, even when they are deleted.

    lexical: None when the snapshot has none that this Raydex can read; its vectors can be searched all the same.
    """

    manifest: Manifest
    shards: list[OpenShard]
    lexical: LexicalIndex | None = None


def new_snapshot_id(index_dir: Path, now: datetime, digest: str) -> str:
    """Return an id such as 20260101T120000Z-3f9c1b (UTC time, head of the content digest) that is not in use."""
    base = f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest[:6]}"
    number, snapshot_id = 1, base
    while (index_dir / "snapshots" / snapshot_id).exists():
        number, snapshot_id = number + 1, f"{base}-{number + 1}"
    return snapshot_id


def new_manifest(
    index_dir: Path,
    shards: tuple[Shard, ...],
    *,
    parent: str,
    embedder: EmbedderInfo,
    chunking: dict[str, int],
    sources: tuple[dict[str, Any], ...],
    digest: str = "",
    ann_recall: float = 1.0,
    lexical: Lexical | None = None,
) -> Manifest:
    """Return the manifest of shards that have been written; it is not on disk and has passed no gate yet.

    digest: of their content, if it is known.
    """
    digest = digest or digest_of_shards(shards, index_dir / "objects", embedder.fingerprint, chunking)
    return Manifest(
        format_version=FORMAT_VERSION,
        snapshot_id=new_snapshot_id(index_dir, datetime.now(UTC), digest),
        parent=parent,
        content_digest=digest,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        embedder=embedder,
        chunking=chunking,
        metric="cosine",
        sources=sources,
        shards=shards,
        counts={
            "pages": sum(shard.page_count for shard in shards),
            "sections": sum(shard.section_count for shard in shards),
            "chunks": sum(shard.chunk_count for shard in shards),
        },
        gate={},
        code_version=CODE_VERSION,
        ann_recall=ann_recall,
        lexical=lexical,
        parent_manifest_sha256=manifest_digest(index_dir, parent) if parent else "",
    )


def recall_failures(manifest: Manifest, least: float) -> list[str]:
    """Return where the indexes of a snapshot find less than this share of the ten best rows, worded for a person."""
    remedy = "Build with `--index-kind flat`, or allow less with --least-recall"
    failures = [
        f"shard {shard.shard_id} ({shard.index_kind}) finds {shard.recall:.2%} of the ten best rows, "
        f"wanted are {least:.2%}. {remedy}"
        for shard in manifest.shards
        if shard.recall < least
    ]
    if manifest.ann_recall < least:
        failures.append(f"all shards together find {manifest.ann_recall:.2%}, wanted are {least:.2%}. {remedy}")
    return failures


def write_manifest(index_dir: Path, manifest: Manifest) -> None:
    """Write a manifest, again as often as need be until the snapshot goes live; its bytes are final from then on."""
    path = manifest_path(index_dir, manifest.snapshot_id)
    write_bytes(path, _MANIFEST.dump_json(manifest, indent=2) + b"\n")


def read_manifest(index_dir: Path, snapshot_id: str) -> Manifest:
    """Raises SnapshotNotFound, SnapshotCorrupt (unreadable) or SnapshotIncompatible (another format)."""
    path = manifest_path(index_dir, snapshot_id)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise SnapshotNotFound(str(index_dir), snapshot_id) from error
    except OSError as error:
        raise SnapshotCorrupt(str(path), "a manifest", error.strerror or "no file") from error
    return parse_manifest(path, content, snapshot_id)


def parse_manifest(path: Path, content: bytes, snapshot_id: str) -> Manifest:
    """Return the manifest in these bytes, which came from path; raises as read_manifest does."""
    _check_format(path, content)
    try:
        manifest = _MANIFEST.validate_json(content, strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise SnapshotCorrupt(str(path), "a whole manifest", f"{field}: {problem['msg']}") from error
    if manifest.snapshot_id != snapshot_id:
        raise SnapshotCorrupt(str(path), f"the manifest of {snapshot_id}", f"that of {manifest.snapshot_id}")
    return manifest


def manifest_digest(index_dir: Path, snapshot_id: str) -> str:
    """Return the sha256 of manifest.json as it is now, the link of the chain; raises SnapshotNotFound."""
    try:
        return sha256_of(manifest_path(index_dir, snapshot_id))
    except FileNotFoundError as error:
        raise SnapshotNotFound(str(index_dir), snapshot_id) from error


def manifest_path(index_dir: Path, snapshot_id: str) -> Path:
    if not snapshot_id or Path(snapshot_id).name != snapshot_id:
        raise SnapshotNotFound(str(index_dir), snapshot_id)
    return index_dir / "snapshots" / snapshot_id / "manifest.json"


def _check_format(path: Path, content: bytes) -> None:
    try:
        manifest = json.loads(content)
    except ValueError as error:
        raise SnapshotCorrupt(str(path), "a manifest", "broken JSON") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if not isinstance(version, int):
        raise SnapshotCorrupt(str(path), "a manifest", "JSON without a format_version")
    if version not in READABLE_FORMATS:
        raise SnapshotIncompatible(
            str(path),
            "format_version",
            str(FORMAT_VERSION),
            str(version),
            f"Use the Raydex that wrote it ({manifest.get('code_version', 'unknown')}), or build the index again.",
        )


def current_id(index_dir: Path) -> str:
    """Return the id of the live snapshot, "" when nothing is published."""
    try:
        return (index_dir / "CURRENT").read_text(encoding="utf-8", errors="replace").strip()
    except FileNotFoundError:
        return ""


def publish(index_dir: Path, snapshot_id: str, event: str = "published") -> None:
    """Make a snapshot the live one. Readers see the old id or the new one, never a mixture.

    event: what the journal calls it.
    """
    with publishing(index_dir):
        make_live(index_dir, snapshot_id, event)


@contextmanager
def publishing(index_dir: Path) -> Iterator[None]:
    """Hold what is live for a moment: whoever moves CURRENT, or removes a manifest, waits for the others here.

    It is not the lock of a build, which is held for hours: a roll back must never wait for one.
    """
    with exclusive_lock(index_dir / "publish.lock", "", wait=True):
        yield


def make_live(index_dir: Path, snapshot_id: str, event: str) -> None:
    """publish, for a caller that holds `publishing`."""
    digest = manifest_digest(index_dir, snapshot_id)
    note(index_dir, event, snapshot_id, before=current_id(index_dir), manifest_sha256=digest)
    write_bytes(index_dir / "CURRENT", f"{snapshot_id}\n".encode())
    logger.info("snapshot published snapshot=%s move=%s", snapshot_id, event)


def snapshot_ids(index_dir: Path) -> list[str]:
    """Return the ids of all snapshots that have a manifest, whether or not it can be read, newest first."""
    return sorted((path.parent.name for path in (index_dir / "snapshots").glob("*/manifest.json")), reverse=True)


def list_snapshots(index_dir: Path) -> list[Manifest]:
    """Return the manifests of all snapshots that can be read, published or not, newest first."""
    manifests = []
    for snapshot_id in snapshot_ids(index_dir):
        try:
            manifests.append(read_manifest(index_dir, snapshot_id))
        except SnapshotError as error:
            logger.warning("snapshot left out of the list reason=%s", error)
    return sorted(manifests, key=lambda manifest: (manifest.created_at, manifest.snapshot_id), reverse=True)


def passed_gate(manifest: Manifest) -> bool:
    if manifest.published_anyway is not None:
        return True
    return bool(manifest.gate) and all(result.startswith("passed") for result in manifest.gate.values())


def check_quickly(index_dir: Path, snapshot_id: str, *, sizes: Mapping[str, int] | None = None) -> Manifest:
    """Return the manifest if it is sound and every file is there in its full length; no file is read.

    sizes: name → length, of files that lie elsewhere. Raises SnapshotNotFound, SnapshotCorrupt or SnapshotIncompatible.
    """
    manifest = read_manifest(index_dir, snapshot_id)
    for problem in _inconsistencies(index_dir, manifest):
        raise problem
    for name, file in stored_objects([manifest]).items():
        if sizes is None:
            check_object(index_dir / "objects" / name, file, verify=False)
        elif (found := sizes.get(name)) != file.bytes:
            finding = "no file" if found is None else f"{found} bytes"
            raise SnapshotCorrupt(f"objects/{name}", f"{file.bytes} bytes", finding)
    return manifest


def verify(index_dir: Path, snapshot_id: str) -> list[str]:
    """Read every byte of a snapshot and return what is wrong, worded for a person; empty when all is well."""
    try:
        manifest = read_manifest(index_dir, snapshot_id)
        problems = [str(problem) for problem in _inconsistencies(index_dir, manifest)]
    except SnapshotError as error:
        return [str(error)]
    problems += [str(problem) for problem in _damaged_objects(index_dir, manifest)]
    return problems or _differences(index_dir, manifest)


def _damaged_objects(index_dir: Path, manifest: Manifest) -> Iterator[SnapshotError]:
    for name, file in stored_objects([manifest]).items():
        try:
            check_object(index_dir / "objects" / name, file)
        except SnapshotCorrupt as error:
            yield error


def _differences(index_dir: Path, manifest: Manifest) -> list[str]:
    """Compare the content of whole files with the manifest: rows, columns, and the content digest made anew."""
    objects_dir = index_dir / "objects"
    try:
        for shard in manifest.shards:
            open_shard(shard, objects_dir, verify=False)
        _open_lexical(index_dir, manifest, verify=False)
        found = digest_of_shards(manifest.shards, objects_dir, manifest.embedder.fingerprint, manifest.chunking)
    except SnapshotCorrupt as error:
        return [str(error)]
    if found == manifest.content_digest:
        return []
    return [str(SnapshotCorrupt(f"content digest of {manifest.snapshot_id}", manifest.content_digest, found))]


def _inconsistencies(index_dir: Path, manifest: Manifest) -> Iterator[SnapshotError]:
    """Yield where a manifest contradicts itself, or asks for something this version does not know."""
    path = str(manifest_path(index_dir, manifest.snapshot_id))
    chunks = sum(shard.chunk_count for shard in manifest.shards)
    if manifest.counts.get("chunks", chunks) != chunks:
        yield SnapshotCorrupt(path, f"{manifest.counts['chunks']} chunks", f"{chunks} in its shards")
    if manifest.lexical and manifest.lexical.documents != chunks:
        yield SnapshotCorrupt(path, f"{chunks} documents", f"{manifest.lexical.documents} in its lexical index")
    for shard in manifest.shards:
        if shard.dim != manifest.embedder.dim:
            name = f"{path}, shard {shard.shard_id}"
            yield SnapshotCorrupt(name, f"{manifest.embedder.dim} dimensions", f"{shard.dim}")
        if shard.index_kind not in KNOWN_KINDS:
            remedy = "Update Raydex, or build the index again."
            yield SnapshotIncompatible(path, "index_kind", ", ".join(KNOWN_KINDS), shard.index_kind, remedy)


def open_snapshot(
    index_dir: Path,
    snapshot_id: str = "",
    *,
    expected: EmbedderInfo | None = None,
    verify: bool = True,
    shards: Collection[Shard] | None = None,
    words: bool = True,
) -> Snapshot:
    """Open the live snapshot, or the one named.

    shards: only these of its shards. words: its lexical index, too.

    expected: the model queries are embedded with; SnapshotIncompatible when the snapshot was made with another.
    verify: compare the checksum of every file (SnapshotCorrupt); only a caller that has just done so leaves it out.
    """
    started = time.perf_counter()
    snapshot_id = snapshot_id or current_id(index_dir)
    if not snapshot_id:
        raise SnapshotNotFound(str(index_dir))
    manifest = read_manifest(index_dir, snapshot_id)
    for problem in _inconsistencies(index_dir, manifest):
        raise problem
    if expected is not None:
        _check_model(index_dir, manifest, expected)
    wanted = manifest.shards if shards is None else shards
    opened = [open_shard(shard, index_dir / "objects", verify=verify) for shard in wanted]
    lexical = _open_lexical(index_dir, manifest, verify=verify) if words else None
    logger.info(
        "snapshot opened snapshot=%s shards=%d chunks=%d seconds=%.2f",
        snapshot_id,
        len(opened),
        sum(map(len, opened)),
        time.perf_counter() - started,
    )
    return Snapshot(manifest=manifest, shards=opened, lexical=lexical)


def _open_lexical(index_dir: Path, manifest: Manifest, *, verify: bool) -> LexicalIndex | None:
    """Map the lexical index. One of another analyzer is left alone: queries would be read otherwise than its texts."""
    lexical = manifest.lexical
    if lexical is None or lexical.analyzer != ANALYZER:
        logger.warning("no lexical index, the next build makes one snapshot=%s", manifest.snapshot_id)
        return None
    for file in lexical.objects.values():
        check_object(index_dir / "objects" / file.sha256, file, verify=verify)
    synonyms = [group for source in manifest.sources for group in source.get("synonyms", ())]
    return open_lexical(lexical, index_dir / "objects", synonyms)


def _check_model(index_dir: Path, manifest: Manifest, expected: EmbedderInfo) -> None:
    made_with = manifest.embedder
    if made_with.model_id == expected.model_id:
        return
    raise SnapshotIncompatible(
        f"{index_dir} ({manifest.snapshot_id})",
        "the embedding model",
        _named(expected),
        _named(made_with),
        f"Serve with the model {made_with.name!r} (--model), or build the index again with {expected.name!r}.",
    )


def _named(model: EmbedderInfo) -> str:
    return f"{model.name} (sha256 {model.sha256[:12]}, {model.dim} dimensions, {model.backend} {model.precision})"


def stored_objects(manifests: Iterable[Manifest]) -> dict[str, StoredObject]:
    """Return the files of snapshots by name; one that several shards share is there once."""
    return {file.sha256: file for manifest in manifests for part in _parts(manifest) for file in part.values()}


def _parts(manifest: Manifest) -> Iterator[Mapping[str, StoredObject]]:
    yield from (shard.objects for shard in manifest.shards)
    if manifest.lexical:
        yield manifest.lexical.objects


def snapshot_bytes(manifest: Manifest) -> int:
    return sum(file.bytes for file in stored_objects([manifest]).values())


def index_names(data_dir: Path) -> list[str]:
    """Return the names of the published indexes in a data folder, sorted."""
    return sorted(path.parent.name for path in data_dir.glob("*/CURRENT"))
