"""The corpus of the benches of search: the sections and chunks of python3-doc, and as many like them as are wanted.

python_corpus(tokenizer) → sections, chunks → repeated(sections, chunks, 100_000) → (sections, chunks) of each copy
write_grown(index_dir, 1_000_000, sections, chunks, vectors, model): a published snapshot of so many chunks
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.local import PYTHON_DOC
from raydex.build.lexicon import index_words
from raydex.build.sizing import index_kind, shard_count
from raydex.chunk import cut
from raydex.config import ChunkConfig
from raydex.embed import TextTokenizer
from raydex.errors import ParseError
from raydex.parse import parse_page
from raydex.records import Chunk, EmbedderInfo, Manifest, PageInfo, Section, Source, Vectors, new_page, stable_id
from raydex.shard import write_shard
from raydex.snapshot import new_manifest, publish, write_manifest
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table

MOVED = 0.35
"""Length of the noise on a repeated vector of length 1: cosine about 0.94 to the original, as of a paraphrase."""


def python_corpus(tokenizer: TextTokenizer) -> tuple[list[Section], list[Chunk]]:
    """Return the sections of python3-doc and its chunks, those of a section after each other."""
    source = Source(name="python", seeds=("http://docs.example/",))
    sections: list[Section] = []
    for path in sorted(PYTHON_DOC.rglob("*.html")):
        url = f"http://docs.example/{path.relative_to(PYTHON_DOC)}"
        try:
            sections += parse_page(new_page(source, url, path.read_bytes(), "text/html")).sections
        except (ParseError, FileNotFoundError):  # navigation; links to another package
            continue
    return sections, [chunk for section in sections for chunk in cut(section, tokenizer, ChunkConfig())]


def repeated(
    sections: Sequence[Section], chunks: Sequence[Chunk], count: int
) -> Iterator[tuple[list[Section], list[Chunk]]]:
    """Yield the corpus, then copies of it, until there are so many chunks.

    A copy has other URLs and symbols, and every tenth word of its texts is another one.
    """
    chance = random.Random(0)
    words = [word for chunk in chunks[:: max(1, len(chunks) // 1000)] for word in chunk.text.split()]
    for copy in range(-(-count // len(chunks))):
        mine = chunks[: count - copy * len(chunks)]
        ids = {chunk.section_id for chunk in mine}
        of = [section for section in sections if section.section_id in ids]
        if copy:
            yield [_section(section, copy) for section in of], [_chunk(chunk, copy, words, chance) for chunk in mine]
        else:
            yield of, list(mine)


def moved(vectors: Vectors, copy: int) -> Vectors:
    """Return the vectors of the copy with this number."""
    noise = np.random.default_rng(copy).normal(size=vectors.shape) * MOVED / np.sqrt(vectors.shape[1])
    others = vectors + noise if copy else vectors
    normalised: Vectors = (others / np.linalg.norm(others, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def write_grown(
    index_dir: Path,
    count: int,
    sections: Sequence[Section],
    chunks: Sequence[Chunk],
    vectors: Vectors,
    model: EmbedderInfo,
) -> None:
    """Write and publish a snapshot of so many chunks, in the shards and with the index kind that a build would choose.

    vectors: (chunks, dim), those of the chunks; each copy has them moved by as much as a paraphrase moves them.
    """
    shards, kind = shard_count(count, 0, 0), index_kind(count, "auto", "")
    parts: list[list[tuple[pa.Table, pa.Table, pa.Table, Vectors]]] = [[] for _ in range(shards)]
    for copy, (of, mine) in enumerate(repeated(sections, chunks, count)):
        tables = chunks_to_table(mine), sections_to_table(of), pages_to_table(_pages(mine))
        copied = moved(vectors[: len(mine)], copy)
        for part, rows in zip(parts, zip(*(_divided(table, shards) for table in tables), strict=True), strict=True):
            chunk_rows, section_rows, page_rows = (table.take(taken) for table, taken in zip(tables, rows, strict=True))
            part.append((chunk_rows, section_rows, page_rows, copied[rows[0]]))
    written = []
    for number, part in enumerate(parts):
        chunk_parts, section_parts, page_parts, vector_parts = zip(*part, strict=True)
        written.append(
            write_shard(
                f"{number:05d}",
                pa.concat_tables(chunk_parts),
                np.concatenate(vector_parts),
                pa.concat_tables(section_parts),
                pa.concat_tables(page_parts),
                index_dir / "objects",
                kind=kind,
            )
        )
        part.clear()
    lexical = index_words(written, index_dir / "objects", index_dir / "work")
    manifest = new_manifest(
        index_dir, tuple(written), parent="", embedder=model, chunking={}, sources=(), lexical=lexical
    )
    write_manifest(index_dir, manifest)
    publish(index_dir, manifest.snapshot_id)


def bytes_of(manifest: Manifest) -> dict[str, float]:
    """Return bytes a chunk on disk: of vectors (whole and coarse), texts (chunks, sections, pages), words, and all."""
    parts = Counter[str]()
    for shard in manifest.shards:
        for role, stored in shard.objects.items():
            parts["vectors" if role in {"index", "vectors"} else "texts"] += stored.bytes
    parts["lexical"] = sum(stored.bytes for stored in manifest.lexical.objects.values()) if manifest.lexical else 0
    parts["all"] = parts.total()
    return {part: round(size / manifest.counts["chunks"], 1) for part, size in parts.items()}


def _divided(table: pa.Table, shards: int) -> list["np.typing.NDArray[np.int64]"]:
    """Return the rows of each shard."""
    numbers = np.array([int(page_id[:8], 16) % shards for page_id in table["page_id"].to_pylist()])
    return [np.flatnonzero(numbers == number) for number in range(shards)]


def _pages(chunks: Sequence[Chunk]) -> list[PageInfo]:
    found = {chunk.page_id: chunk for chunk in chunks}
    return [
        PageInfo(page_id=page_id, url=chunk.url.partition("#")[0], source="python", title=chunk.title, language="en")
        for page_id, chunk in found.items()
    ]


def _elsewhere(url: str, copy: int) -> str:
    return re.sub(r"^(https?://[^/]+)/", rf"\1/{copy}/", url)


def _section(section: Section, copy: int) -> Section:
    url = _elsewhere(section.url, copy)
    return replace(
        section,
        section_id=_elsewhere(section.section_id, copy),
        url=url,
        page_id=stable_id(url.partition("#")[0]),
        symbol=f"{section.symbol}_{copy}" if section.symbol else "",
    )


def _chunk(chunk: Chunk, copy: int, words: Sequence[str], chance: random.Random) -> Chunk:
    text = " ".join(chance.choice(words) if chance.random() < 0.1 else word for word in chunk.text.split(" "))
    url = _elsewhere(chunk.url, copy)
    return replace(
        chunk,
        chunk_id=stable_id(chunk.chunk_id, copy),
        section_id=_elsewhere(chunk.section_id, copy),
        page_id=stable_id(url.partition("#")[0]),
        url=url,
        text=text,
        char_end=chunk.char_start + len(text),
    )
