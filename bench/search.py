"""Measures hybrid search in process at 100,000 chunks and writes bench/results/search.json.

    python bench/search.py [--chunks 100000]    needs: apt-get install python3-doc; about 5 minutes

The chunks are those of python3-doc, repeated with every tenth word exchanged and their vectors
moved by as much as a paraphrase moves them. Queries: questions made of headings, words of passages, symbols; embedded
before the clock starts. One thread.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.local import PYTHON_DOC  # noqa: E402
from raydex.build.lexicon import index_words  # noqa: E402
from raydex.build.sizing import index_kind  # noqa: E402
from raydex.chunk import cut  # noqa: E402
from raydex.config import ChunkConfig  # noqa: E402
from raydex.embed import Embedder, load_embedder  # noqa: E402
from raydex.errors import ParseError  # noqa: E402
from raydex.parse import parse_page  # noqa: E402
from raydex.records import Chunk, PageInfo, Query, Section, Source, StageTimes, Vectors, new_page, stable_id  # noqa: E402
from raydex.search import Searcher  # noqa: E402
from raydex.shard import write_shard  # noqa: E402
from raydex.snapshot import new_manifest, open_snapshot, publish, write_manifest  # noqa: E402
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "search.json"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
SHARDS = 2
QUERIES = 400
MOVED = 0.35
"""Length of the noise on a repeated vector of length 1: cosine about 0.94 to the original, as of a paraphrase."""


def corpus(folder: Path, embedder: Embedder) -> tuple[list[Section], list[Chunk], Vectors]:
    source = Source(name="python", seeds=("http://docs.example/",))
    sections: list[Section] = []
    for path in sorted(folder.rglob("*.html")):
        url = f"http://docs.example/{path.relative_to(folder)}"
        try:
            sections += parse_page(new_page(source, url, path.read_bytes(), "text/html")).sections
        except (ParseError, FileNotFoundError):  # navigation; links to another package
            continue
    chunks = [chunk for section in sections for chunk in cut(section, embedder.tokenizer, ChunkConfig())]
    return sections, chunks, embedder.embed_passages([chunk.embedder_input for chunk in chunks])


def repeated(
    sections: Sequence[Section], chunks: Sequence[Chunk], vectors: Vectors, count: int
) -> Iterator[tuple[list[Section], list[Chunk], Vectors]]:
    """Yield the corpus, then copies of it under other URLs, until there are so many chunks."""
    chance, noise = random.Random(0), np.random.default_rng(0)
    words = [word for chunk in chunks[:: len(chunks) // 1000] for word in chunk.text.split()]
    for copy in range(-(-count // len(chunks))):
        wanted = min(len(chunks), count - copy * len(chunks))
        if not copy:
            yield list(sections), list(chunks[:wanted]), vectors[:wanted]
            continue
        moved = vectors[:wanted] + noise.normal(size=(wanted, vectors.shape[1])) * MOVED / np.sqrt(vectors.shape[1])
        again = [_copy(chunk, copy, words, chance) for chunk in chunks[:wanted]]
        ids = {chunk.section_id for chunk in again}
        moved_sections = (_moved(section, copy) for section in sections)
        yield (
            [section for section in moved_sections if section.section_id in ids],
            again,
            (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32),
        )


def _url(url: str, copy: int) -> str:
    return url.replace("docs.example/", f"docs.example/{copy}/")


def _moved(section: Section, copy: int) -> Section:
    url = _url(section.url, copy)
    return replace(
        section, section_id=_url(section.section_id, copy), url=url, page_id=stable_id(url.partition("#")[0])
    )


def _copy(chunk: Chunk, copy: int, words: Sequence[str], chance: random.Random) -> Chunk:
    text = " ".join(chance.choice(words) if chance.random() < 0.1 else word for word in chunk.text.split(" "))
    url = _url(chunk.url, copy)
    return replace(
        chunk,
        chunk_id=stable_id(chunk.chunk_id, copy),
        section_id=_url(chunk.section_id, copy),
        page_id=stable_id(url.partition("#")[0]),
        url=url,
        text=text,
        char_end=chunk.char_start + len(text),
    )


def write_snapshot(index_dir: Path, count: int, embedder: Embedder) -> tuple[list[Chunk], Searcher]:
    """Write and open a snapshot of so many chunks; return the chunks it began with too."""
    sections, chunks, vectors = corpus(PYTHON_DOC, embedder)
    parts = list(repeated(sections, chunks, vectors, count))
    kind = index_kind(count, "auto", "")
    shards = []
    for number in range(SHARDS):
        mine = parts[number::SHARDS]
        shards.append(
            write_shard(
                f"{number:05d}",
                chunks_to_table([chunk for _, of, _ in mine for chunk in of]),
                np.concatenate([of for _, _, of in mine]),
                sections_to_table([section for of, _, _ in mine for section in of]),
                pages_to_table(_pages(chunk for _, of, _ in mine for chunk in of)),
                index_dir / "objects",
                kind=kind,
            )
        )
    lexical = index_words(shards, index_dir / "objects", index_dir / "work")
    manifest = new_manifest(
        index_dir,
        tuple(shards),
        parent="",
        embedder=embedder.info,
        chunking={},
        sources=(),
        lexical=lexical,
    )
    write_manifest(index_dir, manifest)
    publish(index_dir, manifest.snapshot_id)
    return chunks, Searcher("bench", open_snapshot(index_dir, verify=False))


def _pages(chunks: Iterator[Chunk]) -> list[PageInfo]:
    found = {chunk.page_id: chunk for chunk in chunks}
    return [
        PageInfo(page_id=page_id, url=chunk.url.partition("#")[0], source="python", title=chunk.title, language="en")
        for page_id, chunk in found.items()
    ]


def queries_of(chunks: Sequence[Chunk]) -> dict[str, list[str]]:
    chance = random.Random(1)
    chosen = chance.sample(list(chunks), QUERIES)
    words = []
    for chunk in chosen:
        said = chunk.text.split()
        first = chance.randrange(max(1, len(said) - 4))
        words.append(" ".join(said[first : first + chance.randint(1, 4)]).replace('"', "").replace(" -", " ") or "file")
    return {
        "questions": [f"How do I use {chunk.headings[-1]} in the {chunk.title}?" for chunk in chosen],
        "words": words,
        "symbols": [
            chunk.headings[-1] for chunk in chosen if "." in chunk.headings[-1] and " " not in chunk.headings[-1]
        ],
    }


def timed(searcher: Searcher, texts: Sequence[str], vectors: Vectors, **options: Any) -> dict[str, Any]:
    """Return p50 and p99 in ms, and the mean of each stage; each query once before, unmeasured."""
    taken, times = [], StageTimes()
    for measured in (False, True):
        for text, vector in zip(texts, vectors, strict=True):
            started = time.perf_counter()
            searcher.find(Query(text=text, **options), vector, times=times if measured else None)
            if measured:
                taken.append((time.perf_counter() - started) * 1e3)
    stages = {name: round(1e3 * seconds / len(texts), 3) for name, seconds in times.seconds.items()}
    p50, p99 = np.percentile(taken, [50, 99])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2), "stages_ms": stages}


def bytes_of(searcher: Searcher) -> dict[str, float]:
    """Return bytes a chunk, by part."""
    manifest, parts = searcher.snapshot.manifest, Counter[str]()
    for shard in manifest.shards:
        parts.update({role: stored.bytes for role, stored in shard.objects.items()})
    assert manifest.lexical is not None
    parts["lexical"] = sum(stored.bytes for stored in manifest.lexical.objects.values())
    count = sum(shard.chunk_count for shard in manifest.shards)
    return {part: round(size / count, 1) for part, size in sorted(parts.items())}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000, help="How many. [default: 100000]")
    options = parser.parse_args()
    embedder = load_embedder(MODEL)
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        chunks, searcher = write_snapshot(Path(work) / "bench", options.chunks, embedder)
        queries = queries_of(chunks)
        vectors = {kind: embedder.embed_queries(texts) for kind, texts in queries.items()}
        result = {
            "chunks": options.chunks,
            "index_kind": searcher.snapshot.manifest.shards[0].index_kind,
            "hybrid": {kind: timed(searcher, texts, vectors[kind]) for kind, texts in queries.items()},
            "by_page": timed(searcher, queries["questions"], vectors["questions"], group_by="page"),
            "dense": timed(searcher, queries["questions"], vectors["questions"], mode="dense"),
            "lexical": timed(searcher, queries["questions"], vectors["questions"], mode="lexical"),
            "bytes_per_chunk": bytes_of(searcher),
        }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
