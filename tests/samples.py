"""Small made-up chunks, vectors and snapshots for the tests of the stores."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from raydex.digest import digest_of_shards
from raydex.embed import HashEmbedder
from raydex.records import Chunk, EmbedderInfo, Lexical, Manifest, PageInfo, Section, Shard, Vectors, stable_id
from raydex.shard import write_shard
from raydex.snapshot import FORMAT_VERSION, new_snapshot_id, write_manifest
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CHUNKING = {"max_tokens": 256, "overlap_tokens": 32}


def sample_chunk(number: int, text: str = "") -> Chunk:
    """The only chunk of section `number`; its id is as good as random, so that ids and numbers differ in order."""
    text = text or f"passage {number}"
    url = f"https://docs.example.org/page{number // 3}.html#s{number}"
    return Chunk(
        chunk_id=stable_id(url, text),
        section_id=url,
        page_id=stable_id(number // 3),
        url=url,
        title=f"Page {number // 3}",
        headings=("Guide", f"Section {number}"),
        context=f"Guide › Section {number}",
        text=text,
        char_start=0,
        char_end=len(text),
        token_count=len(text.split()) + 6,
    )


def section_of(chunk: Chunk) -> Section:
    return Section(
        section_id=chunk.section_id,
        page_id=chunk.page_id,
        url=chunk.url,
        title=chunk.title,
        headings=chunk.headings,
        text=chunk.text,
        position=0,
    )


def page_of(chunk: Chunk) -> PageInfo:
    return PageInfo(page_id=chunk.page_id, url=chunk.url.partition("#")[0], source="sample", title=chunk.title)


def normalised(rows: object) -> Vectors:
    vectors = np.array(rows, dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def content_digest(pairs: Sequence[tuple[str, str]], fingerprint: str, chunking: dict[str, int]) -> str:
    """The digest of ordered (chunk_id, sha256 of the text), word by word as docs/format.md has it."""
    lines = [fingerprint, json.dumps(chunking, sort_keys=True), *(" ".join(pair) for pair in pairs)]
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def write_snapshot(
    index_dir: Path,
    chunks: Sequence[Chunk],
    vectors: Vectors,
    *,
    shards: int = 2,
    parent: str = "",
    now: datetime = NOON,
    gate: dict[str, str] | None = None,
    embedder: EmbedderInfo | None = None,
    kind: str = "flat",
) -> Manifest:
    """Write an unpublished snapshot; chunk i goes to shard i modulo shards."""
    objects_dir = index_dir / "objects"
    parts = [range(number, len(chunks), shards) for number in range(shards)]
    written = tuple(
        write_shard(
            f"{number:05d}",
            chunks_to_table([chunks[i] for i in part]),
            vectors[list(part)],
            sections_to_table([section_of(chunks[i]) for i in part]),
            pages_to_table([page_of(chunks[i]) for i in part]),
            objects_dir,
            kind=kind,
        )
        for number, part in enumerate(parts)
    )
    return write_manifest_of(
        index_dir,
        written,
        embedder or HashEmbedder(vectors.shape[1]).info,
        parent=parent,
        now=now,
        gate={"checksums": "passed"} if gate is None else gate,
    )


def write_manifest_of(
    index_dir: Path,
    shards: tuple[Shard, ...],
    embedder: EmbedderInfo,
    *,
    now: datetime,
    gate: dict[str, str],
    parent: str = "",
    lexical: Lexical | None = None,
) -> Manifest:
    digest = digest_of_shards(shards, index_dir / "objects", embedder.fingerprint, CHUNKING)
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        snapshot_id=new_snapshot_id(index_dir, now, digest),
        parent=parent,
        content_digest=digest,
        created_at=now.isoformat(),
        embedder=embedder,
        chunking=CHUNKING,
        metric="cosine",
        sources=({"name": "sample", "seeds": ["https://docs.example.org/"]},),
        shards=shards,
        counts={"chunks": sum(shard.chunk_count for shard in shards)},
        gate=gate,
        lexical=lexical,
        code_version="test",
    )
    write_manifest(index_dir, manifest)
    return manifest
