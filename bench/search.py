"""Measures hybrid search in process at 100,000 chunks and writes bench/results/search.json.

    python bench/search.py [--chunks 100000]    needs: apt-get install python3-doc; about 5 minutes

The chunks are those of python3-doc, repeated with every tenth word exchanged (bench/grown.py) and their vectors moved
by as much as a paraphrase moves them; shards and index kind are those of a build. Queries: questions made of headings,
words of passages, symbols; embedded before the clock starts. One thread.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.grown import python_corpus, repeated  # noqa: E402
from raydex.build.lexicon import index_words  # noqa: E402
from raydex.build.sizing import index_kind, shard_count  # noqa: E402
from raydex.embed import Embedder, load_embedder  # noqa: E402
from raydex.records import Chunk, PageInfo, Query, Section, StageTimes, Vectors  # noqa: E402
from raydex.search import Searcher  # noqa: E402
from raydex.shard import write_shard  # noqa: E402
from raydex.snapshot import new_manifest, open_snapshot, publish, write_manifest  # noqa: E402
from raydex.tables import chunks_to_table, pages_to_table, sections_to_table  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "search.json"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUERIES = 400
MOVED = 0.35
"""Length of the noise on a repeated vector of length 1: cosine about 0.94 to the original, as of a paraphrase."""


def moved(vectors: Vectors, copy: int) -> Vectors:
    """Return the vectors of the copy with this number."""
    noise = np.random.default_rng(copy).normal(size=vectors.shape) * MOVED / np.sqrt(vectors.shape[1])
    others = vectors + noise if copy else vectors
    normalised: Vectors = (others / np.linalg.norm(others, axis=1, keepdims=True)).astype(np.float32)
    return normalised


def write_snapshot(index_dir: Path, count: int, embedder: Embedder) -> tuple[list[Chunk], Searcher]:
    """Write and open a snapshot of so many chunks; return the chunks it began with too."""
    sections, chunks = python_corpus(embedder.tokenizer)
    vectors = embedder.embed_passages([chunk.embedder_input for chunk in chunks])
    parts = list(repeated(sections, chunks, count))
    all_sections = [section for of, _ in parts for section in of]
    all_chunks = [chunk for _, of in parts for chunk in of]
    all_vectors = np.concatenate([moved(vectors[: len(of)], copy) for copy, (_, of) in enumerate(parts)])
    number_of_shards = shard_count(count, 0, 0)

    def shard_of(record: Chunk | Section) -> int:
        return int(record.page_id[:8], 16) % number_of_shards

    numbers = np.array([shard_of(chunk) for chunk in all_chunks])
    shards = []
    for number in range(number_of_shards):
        rows = np.flatnonzero(numbers == number)
        mine = [all_chunks[row] for row in rows.tolist()]
        shards.append(
            write_shard(
                f"{number:05d}",
                chunks_to_table(mine),
                all_vectors[rows],
                sections_to_table([section for section in all_sections if shard_of(section) == number]),
                pages_to_table(_pages(mine)),
                index_dir / "objects",
                kind=index_kind(count, "auto", ""),
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


def _pages(chunks: Iterable[Chunk]) -> list[PageInfo]:
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
    """Return bytes a chunk on disk: of vectors (whole and coarse), texts (chunks, sections, pages), words, and all."""
    manifest, parts = searcher.snapshot.manifest, Counter[str]()
    for shard in manifest.shards:
        for role, stored in shard.objects.items():
            parts["vectors" if role in {"index", "vectors"} else "texts"] += stored.bytes
    assert manifest.lexical is not None
    parts["lexical"] = sum(stored.bytes for stored in manifest.lexical.objects.values())
    parts["all"] = parts.total()
    return {part: round(size / len(searcher.facts.page), 1) for part, size in parts.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000, help="How many. [default: 100000]")
    options = parser.parse_args()
    embedder = load_embedder(MODEL)
    with tempfile.TemporaryDirectory(prefix="raydex-bench-") as work:
        chunks, searcher = write_snapshot(Path(work) / "bench", options.chunks, embedder)
        queries = queries_of(chunks)
        vectors = {kind: embedder.embed_queries(texts) for kind, texts in queries.items()}
        everything = [text for texts in queries.values() for text in texts]
        result = {
            "chunks": options.chunks,
            "index_kind": searcher.snapshot.manifest.shards[0].index_kind,
            "shards": len(searcher.snapshot.shards),
            "hybrid": timed(searcher, everything, np.concatenate(list(vectors.values()))),
            "hybrid_by_kind": {kind: timed(searcher, texts, vectors[kind]) for kind, texts in queries.items()},
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
