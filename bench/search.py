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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.grown import bytes_of, python_corpus, write_grown  # noqa: E402
from raydex.embed import Embedder, load_embedder  # noqa: E402
from raydex.records import Chunk, Query, StageTimes, Vectors  # noqa: E402
from raydex.search import Searcher  # noqa: E402
from raydex.snapshot import open_snapshot  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "search.json"
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
QUERIES = 400


def write_snapshot(index_dir: Path, count: int, embedder: Embedder) -> tuple[list[Chunk], Searcher]:
    """Write and open a snapshot of so many chunks; return the chunks it began with too."""
    sections, chunks = python_corpus(embedder.tokenizer)
    vectors = embedder.embed_passages([chunk.embedder_input for chunk in chunks])
    write_grown(index_dir, count, sections, chunks, vectors, embedder.info)
    return chunks, Searcher("bench", open_snapshot(index_dir, verify=False))


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
            "bytes_per_chunk": bytes_of(searcher.snapshot.manifest),
        }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
