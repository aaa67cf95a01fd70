"""Embedding on the processor: our default backend against sentence-transformers' encode(), on the same real chunks.

    python bench/embed.py [--queries FILE.tsv --qrels FILE]    last line: JSON, kept in bench/results/embed.json

Three systems: ours; encode() in fp32 with its defaults (batches of 32, sorted by characters); and the same library in
batches sorted by tokens, as our backend of that name runs it. Each runs in a process of its own with all processors, by
turns, --rounds times; the best round counts. chunks per core-second: chunks ÷ processor seconds of the process, loading
left out. ratio: ours ÷ encode(), of that.
overlap@10: share of the ten best chunks of a query that both systems agree on, mean over the queries.
With judged queries (TSV and TREC qrels, judged on pages), all chunks of the folder are embedded by both systems
(15 minutes) and nDCG@10 compared; without, the queries are headings of the pages, only the sample is embedded, and the
file keeps the nDCG@10 of the last run that had them.

GEMM peak: bf16 matrix products of 2048³ in one thread (PyTorch, oneDNN). Work of a chunk of n tokens, from the model's
config.json: layers × n × (8 d² + 4 d f + 4 n d), d the width, f that of the feed-forward layer; a multiplication and an
addition count as two.
"""

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.local import PYTHON_DOC, ROOT
from raydex.chunk import cut
from raydex.config import ChunkConfig
from raydex.embed import describe, load_embedder, load_tokenizer, resolve_model
from raydex.embed.batching import TokenRow
from raydex.errors import ParseError
from raydex.evaluate import evaluate, figures, load_golden
from raydex.parse import parse_page
from raydex.records import Chunk, Source, Vectors, new_page

MODEL = "all-MiniLM-L6-v2"
RESULTS = ROOT / "bench" / "results" / "embed.json"
OURS, THEIRS = "raydex", "sentence-transformers encode()"
SYSTEMS = {OURS: "auto", THEIRS: "encode", "sentence-transformers by tokens": "sentence-transformers"}
JUDGED = (OURS, THEIRS)
SITE = "https://docs.example/"
TOP = 10
LATENCY_QUERIES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure embedding against sentence-transformers.")
    parser.add_argument("folder", type=Path, nargs="?", default=PYTHON_DOC, help="folder of .html files")
    parser.add_argument("--chunks", type=int, default=2000, help="chunks to time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--queries", default="", help="judged queries: TSV of id and text")
    parser.add_argument("--qrels", default="", help="their TREC qrels, judged on page URLs")
    parser.add_argument("--system", nargs=4, help=argparse.SUPPRESS)  # backend, input, output, whether with the rest
    options = parser.parse_args()
    if options.system:
        _run_system(*options.system)
        return
    chunks = real_chunks(options.folder)
    random.Random(0).shuffle(chunks)
    golden = load_golden(options.queries, options.qrels)
    queries = dict(golden.queries) if golden else {chunk.chunk_id: chunk.headings[-1] for chunk in chunks[-500:]}
    timed, rest = chunks[: options.chunks], chunks[options.chunks :] if golden else []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder) / "work.json"
        texts = {"timed": _inputs(timed), "rest": [], "queries": list(queries.values())}
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in SYSTEMS}
        for number in range(options.rounds):
            texts["rest"] = _inputs(rest) if number == options.rounds - 1 else []
            work.write_text(json.dumps(texts))
            for name, backend in SYSTEMS.items():
                out = Path(folder) / f"{name}.npz"
                runs[name].append(_system(backend, work, out, with_rest=name in JUDGED))
        vectors = {name: dict(np.load(Path(folder) / f"{name}.npz")) for name in JUDGED}
    result = _compared(timed, runs, vectors)
    if golden:
        ids, urls = list(queries), [chunk.url for chunk in timed + rest]
        result["judged_queries"] = len(ids)
        result["ndcg_at_10"] = {
            name: round(figures(evaluate(golden, _run(ids, urls, of), k=TOP)).ndcg, 4) for name, of in vectors.items()
        }
    elif RESULTS.exists():
        before = json.loads(RESULTS.read_bytes())
        result |= {name: before[name] for name in ("judged_queries", "ndcg_at_10") if name in before}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def real_chunks(folder: Path) -> list[Chunk]:
    tokenizer = load_tokenizer(MODEL)
    source = Source(name="bench", seeds=(SITE,))
    chunks = []
    for path in sorted(folder.rglob("*.html")):
        page = new_page(source, f"{SITE}{path.relative_to(folder)}", path.read_bytes(), "text/html")
        try:
            sections = parse_page(page).sections
        except ParseError:
            continue
        chunks += [chunk for section in sections for chunk in cut(section, tokenizer, ChunkConfig())]
    return chunks


def _inputs(chunks: Sequence[Chunk]) -> list[tuple[str, tuple[int, ...]]]:
    return [(chunk.embedder_input, chunk.token_ids) for chunk in chunks]


class DefaultEncode:
    """sentence-transformers as its users call it."""

    def __init__(self) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(str(resolve_model(MODEL)), device="cpu")
        self.info = replace(describe(MODEL, "sentence-transformers"), backend="sentence-transformers encode()")

    def embed_passages(self, texts: Sequence[str], _token_ids: Sequence[TokenRow] = ()) -> Vectors:
        return np.asarray(self._model.encode(list(texts), normalize_embeddings=True), np.float32)

    embed_queries = embed_passages


def _system(backend: str, work: Path, out: Path, *, with_rest: bool) -> dict[str, Any]:
    """Run one system on the work in a process of its own and return what it measured."""
    command = [sys.executable, __file__, "--system", backend, str(work), str(out), str(int(with_rest))]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    measured: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    print(backend, json.dumps(measured), file=sys.stderr, flush=True)
    return measured


def _run_system(backend: str, work: str, out: str, with_rest: str) -> None:
    texts = json.loads(Path(work).read_bytes())
    embedder = DefaultEncode() if backend == "encode" else load_embedder(MODEL, backend=backend)
    inputs, stored = zip(*texts["timed"], strict=True)
    embedder.embed_passages(inputs[:64], stored[:64])
    started, cpu = time.perf_counter(), time.process_time()
    passages = embedder.embed_passages(inputs, stored)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    latencies = []
    for text in texts["queries"][:LATENCY_QUERIES]:
        began = time.perf_counter()
        embedder.embed_queries([text])
        latencies.append(time.perf_counter() - began)
    if texts["rest"] and int(with_rest):
        passages = np.concatenate([passages, embedder.embed_passages(*zip(*texts["rest"], strict=True))])
    np.savez(out, passages=passages, queries=embedder.embed_queries(texts["queries"]))
    p50, p99 = (round(1000 * float(np.percentile(latencies, q)), 2) for q in (50, 99))
    measured = {
        "backend": f"{embedder.info.backend} {embedder.info.precision}",
        "chunks_per_s": round(len(inputs) / seconds, 1),
        "chunks_per_core_s": round(len(inputs) / cpu_s, 1),
        "query_p50_ms": p50,
        "query_p99_ms": p99,
        "peak_gflops": round(_peak_gflops(), 1) if backend == "auto" else None,
    }
    print(json.dumps(measured))


def _peak_gflops(size: int = 2048, rounds: int = 5) -> float:
    """Return 10^9 operations a second of one thread in bf16 matrix products, the best of some rounds."""
    import torch

    torch.set_num_threads(1)
    left, right = (torch.rand(size, size).bfloat16() for _ in range(2))
    best = float("inf")
    for _ in range(rounds):
        started = time.thread_time()
        left @ right
        best = min(best, time.thread_time() - started)
    return float(2 * size**3 / best / 1e9)


def _gflop(chunks: Sequence[Chunk]) -> float:
    """Return the work of a chunk, mean, in 10^9 operations."""
    config = json.loads((resolve_model(MODEL) / "config.json").read_bytes())
    layers, width, inner = config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]
    total = sum(n * (8 * width**2 + 4 * width * inner + 4 * n * width) for n in (c.token_count for c in chunks))
    return float(layers * total / len(chunks) / 1e9)


def _compared(
    timed: Sequence[Chunk], runs: dict[str, list[dict[str, Any]]], vectors: dict[str, dict[str, Vectors]]
) -> dict[str, Any]:
    best = {
        name: max(of, key=lambda run: run["chunks_per_core_s"])
        | {"query_p50_ms": min(run["query_p50_ms"] for run in of)}
        for name, of in runs.items()
    }
    ours, theirs, by_tokens = (best[name]["chunks_per_core_s"] for name in SYSTEMS)
    peak = max(run["peak_gflops"] for run in runs[OURS])
    few = {name: {**of, "passages": of["passages"][: len(timed)]} for name, of in vectors.items()}
    tops = [_top(of) for of in few.values()]
    overlaps = [len({*a} & {*b}) / TOP for a, b in zip(*tops, strict=True)]
    cosines = {
        part: round(float((vectors[OURS][part] * vectors[THEIRS][part]).sum(axis=1).min()), 7)
        for part in ("passages", "queries")
    }
    return {
        "ratio": round(ours / theirs, 2),
        "ratio_by_tokens": round(ours / by_tokens, 2),
        "chunks": len(timed),
        "tokens_per_chunk": round(sum(chunk.token_count for chunk in timed) / len(timed), 1),
        "systems": {
            name: {**of, "query_p50_ms": min(r["query_p50_ms"] for r in runs[name])} for name, of in best.items()
        },
        "gflop_per_chunk": round(_gflop(timed), 2),
        "share_of_bf16_peak": round(ours * _gflop(timed) / peak, 3),
        "overlap_at_10": round(float(np.mean(overlaps)), 4),
        "lowest_cosine": cosines,
        "machine": f"{os.cpu_count()} processors, {platform.machine()}, Python {platform.python_version()}",
    }


def _top(of: dict[str, Vectors]) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.argsort(-(of["queries"] @ of["passages"].T), axis=1, kind="stable")[:, :TOP]


def _run(ids: Sequence[str], urls: Sequence[str], of: dict[str, Vectors]) -> dict[str, list[str]]:
    """Return query id → URLs of the 200 best chunks, best first (several on a page count once)."""
    ranked = np.argsort(-(of["queries"] @ of["passages"].T), axis=1, kind="stable")[:, :200]
    return {query: [urls[row] for row in rows] for query, rows in zip(ids, ranked, strict=True)}


if __name__ == "__main__":
    main()
