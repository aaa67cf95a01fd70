"""Small published snapshots for tests.

make_snapshot(tmp_path / "docs", {"https://docs.example.org/io.html#files": "Open a file."}, HashEmbedder()) → Manifest
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from raydex.build.lexicon import index_words
from raydex.embed import Embedder
from raydex.records import Chunk, Manifest, PageInfo, Section, Shard, stable_id
from raydex.shard import write_shard
from raydex.snapshot import publish
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table
from tests.samples import page_of, write_manifest_of


def make_snapshot(
    index_dir: Path,
    texts: Mapping[str, str],
    embedder: Embedder,
    *,
    shards: int = 2,
    now: datetime | None = None,
    published: bool = True,
    words: bool = True,
    page: Callable[[PageInfo], PageInfo] = lambda info: info,
    kind: str = "flat",
) -> Manifest:
    """Write one section of one chunk for each URL#anchor → text; return the manifest of the live snapshot.

    words: with a lexical index. page: changes what is known of a page. kind: of the index of vectors.
    """
    pairs = [_section_and_chunk(url, text, embedder) for url, text in texts.items()]
    parts = [[pair for pair in pairs if int(pair[0].page_id[:8], 16) % shards == part] for part in range(shards)]
    written = tuple(_shard(index_dir, f"{number:05d}", part, embedder, page, kind) for number, part in enumerate(parts))
    gate = {"checksums": "passed: all files"}
    lexical = index_words(written, index_dir / "objects", index_dir / "work") if words else None
    manifest = write_manifest_of(
        index_dir, written, embedder.info, now=now or datetime.now(UTC), gate=gate, lexical=lexical
    )
    if published:
        publish(index_dir, manifest.snapshot_id)
    return manifest


def _section_and_chunk(url: str, text: str, embedder: Embedder) -> tuple[Section, Chunk]:
    page, _, anchor = url.partition("#")
    title = page.rsplit("/", 1)[-1]
    headings = (title, anchor) if anchor else (title,)
    section = Section(
        section_id=url, page_id=stable_id(page), url=url, title=title, headings=headings, text=text, position=0
    )
    chunk = Chunk(
        chunk_id=stable_id(url, 0, len(text), text),
        section_id=url,
        page_id=section.page_id,
        url=url,
        title=title,
        headings=headings,
        context=" › ".join(headings),
        text=text,
        char_start=0,
        char_end=len(text),
        token_count=embedder.tokenizer.count(text),
    )
    return section, chunk


def _shard(
    index_dir: Path,
    shard_id: str,
    part: list[tuple[Section, Chunk]],
    embedder: Embedder,
    page: Callable[[PageInfo], PageInfo],
    kind: str,
) -> Shard:
    chunks = [chunk for _, chunk in part]
    vectors = (
        embedder.embed_passages([chunk.embedder_input for chunk in chunks])
        if chunks
        else np.empty((0, embedder.info.dim), np.float32)
    )
    sections = sections_to_table([section for section, _ in part])
    pages = pages_to_table([page(page_of(chunk)) for chunk in chunks])
    return write_shard(shard_id, chunks_to_table(chunks), vectors, sections, pages, index_dir / "objects", kind=kind)
