"""Embedding on one GPU: from the token ids that the chunker stored, and from raw text.

    python bench/embed_gpu.py [--chunks 200000]     last line: JSON, kept in bench/results/embed_gpu.json

The chunks are those of python3-doc, repeated in turn until there are enough. From token ids: GpuEmbedder as the build
uses it, in calls of 32 batches. From text: tokenised first in this process, by all its processors. ratio: chunks/s from
token ids ÷ sentence-transformers' own encode() in fp16 with batches of 512 on the same GPU (of the first 20,000).
Without a GPU there is nothing to measure: exit 2.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.embed import MODEL, real_chunks
from bench.local import PYTHON_DOC, ROOT
from raydex.build.embedding import CHECKPOINT_BATCHES, Passage, checkpoint_groups, vector_key
from raydex.embed import Embedder, load_embedder, resolve_model
from raydex.embed.gpu import has_gpu
from raydex.records import Vectors

RESULTS = ROOT / "bench" / "results" / "embed_gpu.json"
LEAST_CHUNKS_PER_S = 20_000
COMPARED = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=PYTHON_DOC, help="folder of .html files")
    parser.add_argument("--chunks", type=int, default=200_000)
    options = parser.parse_args()
    if not has_gpu():
        print("no GPU here: nothing to measure", file=sys.stderr)
        return 2
    real = [(chunk.embedder_input, np.array(chunk.token_ids, np.int32)) for chunk in real_chunks(options.folder)]
    passages = [Passage(vector_key(text), text, ids) for text, ids in islice(cycle(real), options.chunks)]
    embedder = load_embedder(MODEL, backend="gpu")
    _from_ids(embedder, passages[:COMPARED])
    from_ids, vectors = _timed(lambda: _from_ids(embedder, passages))
    from_text, _ = _timed(lambda: _from_text(embedder, [passage.text for passage in passages[:COMPARED]]))
    reference, expected = _timed(lambda: _reference([passage.text for passage in passages[:COMPARED]]))
    rates = {
        "chunks_per_s": round(len(passages) / from_ids, 1),
        "chunks_per_s_from_text": round(COMPARED / from_text, 1),
        "sentence_transformers_chunks_per_s": round(COMPARED / reference, 1),
    }
    result = {
        "ratio": round(rates["chunks_per_s"] / rates["sentence_transformers_chunks_per_s"], 2),
        **rates,
        "chunks": len(passages),
        "tokens_per_chunk": round(float(np.mean([len(passage.token_ids) for passage in passages])), 1),
        "lowest_cosine": round(float((vectors[: len(expected)] * expected).sum(axis=1).min()), 6),
        **_machine(),
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result))
    return 0 if rates["chunks_per_s"] >= LEAST_CHUNKS_PER_S else 1


def _timed(work: Callable[[], Vectors]) -> tuple[float, Vectors]:
    started = time.perf_counter()
    vectors = work()
    return time.perf_counter() - started, vectors


def _from_ids(embedder: Embedder, passages: Sequence[Passage]) -> Vectors:
    groups = checkpoint_groups(passages, CHECKPOINT_BATCHES * embedder.batch_tokens)
    return np.concatenate([embedder.embed_passages([p.text for p in g], [p.token_ids for p in g]) for g in groups])


def _from_text(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    return embedder.embed_passages(texts)


def _reference(texts: list[str]) -> Vectors:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(resolve_model(MODEL)), device="cuda").half()
    with torch.inference_mode():
        return np.asarray(model.encode(texts, batch_size=512, normalize_embeddings=True), np.float32)


def _machine() -> dict[str, Any]:
    import torch

    return {"gpu": torch.cuda.get_device_name(0), "torch": torch.__version__, "python": platform.python_version()}


if __name__ == "__main__":
    sys.exit(main())
