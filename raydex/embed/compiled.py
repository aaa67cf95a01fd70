"""OpenVINO on the processor: the model compiled from its own weights, bfloat16 where the processor has it.

passages: token ids → batches under a token budget → one inference stream per thread → vectors
queries:  token ids → all that wait as one row of tokens → states → pooled → vectors

Passages and queries run in bf16 (cosine to fp32 ≥ 0.9999); what that changes in answers: docs/decisions/0020.
"""

import functools
import os
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from raydex.embed.batching import TokenRow, packed, padded, runs, token_batches
from raydex.embed.conversion import TRIED_ROWS, Conversion, compile_model, converted_model, core, openvino
from raydex.embed.models import Encoder, required_encoder, resolve_model
from raydex.embed.network import load_network, load_packed_network
from raydex.embed.tokenizers import SubwordTokenizer
from raydex.records import EmbedderInfo, Vectors

TILE_ROWS = 16
"""A query of 16 tokens takes a quarter less time than one of 12; and of a few lengths the model knows each from before.
In batches that are padded filling up costs more than it saves."""

RUN_TOKENS = 256
"""Of queries that are read as one: 16 of them cost 0.85 ms each, padded 1.25. Much longer rows cost more again,
because attention looks at all pairs of tokens before it leaves out those of different queries."""

CALL_TOKENS = 20
"""What a call of the model costs however little it is given (its weights are read), in tokens. Waiting queries are of 5
to 30 tokens: filled up to the longest, 8 or 16 of them take half as long again."""

SAME_COSINE = 1 - 1e-5
"""fp32 in two libraries: 1 - 2e-7 measured."""


class CompiledEmbedder:
    """A model with one transformer and plain pooling. Calls from several threads wait for each other."""

    def __init__(self, info: EmbedderInfo, *, threads: int, batch_tokens: int) -> None:
        folder = resolve_model(info.name)
        encoder = required_encoder(info.name, folder)
        self.info, self.batch_tokens = info, batch_tokens
        self.tokenizer = SubwordTokenizer(folder)
        self._pad_id = encoder.pad_id
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pooling = encoder.pooling
        self._converted = converted_model(_conversion(folder, encoder, info))
        self._packable = converted_model(_packed_conversion(folder, encoder, info)) if encoder.is_packable else None
        self._lock = Lock()

    def embed_passages(self, texts: Sequence[str], token_ids: Sequence[TokenRow] = ()) -> Vectors:
        """Embed the texts; where their token_ids are given, the texts are not looked at."""
        rows = token_ids or self.tokenizer.token_ids(texts)
        vectors = np.empty((len(rows), self.info.dim), dtype=np.float32)
        with self._lock:
            requests = self._streams
            requests.set_callback(lambda request, batch: vectors.__setitem__(batch, request.get_output_tensor(0).data))
            for batch in token_batches([*map(len, rows)], self.batch_tokens):
                requests.start_async(padded([rows[i] for i in batch], self._pad_id), batch)
            requests.wait_all()
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        rows = self.tokenizer.token_ids(texts)
        vectors = np.empty((len(rows), self.info.dim), dtype=np.float32)
        with self._lock:
            if self._packable:
                for run in runs([*map(len, rows)], RUN_TOKENS):
                    self._single.infer(packed(rows[run], self._pad_id, tile=TILE_ROWS))
                    vectors[run] = _pooled(self._single.get_output_tensor(0).data[0], rows[run], self._pooling)
                return vectors
            for batch in token_batches([*map(len, rows)], self.batch_tokens, most_padding=CALL_TOKENS):
                self._single.infer(padded([rows[i] for i in batch], self._pad_id, least=self._least(batch, rows)))
                vectors[batch] = self._single.get_output_tensor(0).data
        return vectors

    def _least(self, batch: Sequence[int], rows: Sequence[TokenRow]) -> int:
        """Return to how many tokens a batch is filled up: a query alone, to a whole number of the processor's tiles."""
        if len(batch) > 1:
            return 0
        return min(-(-len(rows[batch[0]]) // TILE_ROWS) * TILE_ROWS, self.info.max_tokens)

    @functools.cached_property
    def _streams(self) -> Any:
        """One thread a stream: 12 % more chunks per core-second than one stream of two threads."""
        return openvino().AsyncInferQueue(self._compiled(self._converted, streams=self._threads), self._threads)

    @functools.cached_property
    def _single(self) -> Any:
        return self._compiled(self._packable or self._converted, streams=1).create_infer_request()

    def _compiled(self, path: Path, *, streams: int) -> Any:
        return compile_model(core().read_model(path), self.info.precision, threads=self._threads, streams=streams)


def _conversion(folder: Path, encoder: Encoder, info: EmbedderInfo) -> Conversion:
    return Conversion(
        folder=folder,
        made_of=(info.sha256, info.dim, encoder.pooling),
        load=lambda: load_network(folder, encoder, attention="eager"),
        inputs=("input_ids", "attention_mask"),
        batch=padded([[i % 1000 for i in row] for row in TRIED_ROWS], encoder.pad_id),
        problem=_other_vectors,
        remedy="use --backend sentence-transformers",
    )


def _packed_conversion(folder: Path, encoder: Encoder, info: EmbedderInfo) -> Conversion:
    def problem(expected: Vectors, found: Vectors) -> str:
        return _other_vectors(*(_pooled(states[0], TRIED_ROWS, encoder.pooling) for states in (expected, found)))

    return Conversion(
        folder=folder,
        made_of=(info.sha256, info.dim, "packed"),
        load=lambda: load_packed_network(folder),
        inputs=("input_ids", "position_ids", "numbers"),
        batch=packed([[i % 1000 for i in row] for row in TRIED_ROWS], encoder.pad_id, tile=TILE_ROWS),
        problem=problem,
        remedy="use --backend sentence-transformers",
    )


def _pooled(states: Vectors, rows: Sequence[TokenRow], pooling: Literal["mean", "cls"]) -> Vectors:
    """Return the vector of each row. states: of the tokens of all rows, one row after the other; more are not read."""
    *firsts, end = accumulate(map(len, rows), initial=0)
    pooled = states[firsts] if pooling == "cls" else np.add.reduceat(states[:end], firsts)
    vectors: Vectors = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    return vectors


def _other_vectors(expected: Vectors, found: Vectors) -> str:
    cosines = (found * expected).sum(axis=1)
    return "" if (cosines >= SAME_COSINE).all() else f"gives other vectors (cosine {cosines.min():.6f})"
