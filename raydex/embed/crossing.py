"""Cross-encoders: a query and a passage read as one text → how well the passage answers, one number.

load_reranker("cross-encoder/ms-marco-MiniLM-L6-v2").score("open a file", ["open() opens a file.", …]) → float32 (n,)

Compiled with OpenVINO where it is installed and can convert the model, else run by PyTorch in fp32.
"""

import logging
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from raydex.embed.batching import Ids, Scores, padded, token_batches
from raydex.embed.conversion import (
    TRIED_ROWS,
    Conversion,
    compile_model,
    converted_model,
    core,
    processor_precision,
)
from raydex.embed.fake import FAKE_RERANKER, OverlapReranker
from raydex.embed.models import Judge, judge_of, max_tokens_of, resolve_model, weights_sha256
from raydex.embed.network import load_judge
from raydex.embed.tokenizers import PairTokenizer
from raydex.errors import EmbedError

logger = logging.getLogger(__name__)

Run: TypeAlias = Callable[[tuple[Ids, ...]], Scores]
"""A loaded model: token ids, mask and, if it has_types, types, all int64 (n, longest) → logits, float32 (n,)."""

BATCH_TOKENS = 2048
"""Tokens of one call of the model, padding included."""

SAME_LOGIT = 1e-3
"""How far the logits of a converted model may be off; of those above 1, as a share of them."""


class Reranker(Protocol):
    """Says how well passages answer a query. One call at a time: it is not safe to use from several threads at once."""

    @property
    def name(self) -> str: ...

    def score(self, query: str, passages: Sequence[str]) -> Scores:
        """Return a finite number for each passage, in their order; the scale is the model's own. Raises EmbedError."""


def load_reranker(model: str, *, threads: int = 0) -> Reranker:
    """Load a cross-encoder, ready for its first query: 1 s compiled, 5 s the first time. Raises EmbedError.

    model: a local folder, a Hugging Face name, or `overlap`, a fake. threads: 0 takes as many as there are processors.
    """
    if model == FAKE_RERANKER:
        return OverlapReranker()
    folder = resolve_model(model)
    weights_sha256(folder)  # refuses a folder without weights, or with pickled ones
    judge, threads = judge_of(folder), threads or len(os.sched_getaffinity(0))
    tokenizer = PairTokenizer(folder)
    run = _compiled(folder, judge, threads) if find_spec("openvino") else _interpreted(folder, threads)
    reranker = CrossEncoder(model, tokenizer, judge, run)
    reranker.score("ready", ["ready"])
    return reranker


class CrossEncoder:
    """A sequence classifier with one logit, which is the score."""

    def __init__(self, name: str, tokenizer: PairTokenizer, judge: Judge, run: Run) -> None:
        self.name = name
        self._tokenizer, self._judge, self._run = tokenizer, judge, run

    def score(self, query: str, passages: Sequence[str]) -> Scores:
        pairs = self._tokenizer.pairs(query, passages)
        scores = np.empty(len(pairs), np.float32)
        for batch in token_batches([len(ids) for ids, _ in pairs], BATCH_TOKENS):
            ids, mask = padded([pairs[i][0] for i in batch], self._judge.pad_id)
            types = [padded([pairs[i][1] for i in batch], 0)[0]] if self._judge.has_types else []
            try:
                scores[batch] = self._run((ids, mask, *types))
            except (RuntimeError, ValueError, IndexError) as error:  # what OpenVINO and PyTorch raise
                raise EmbedError(f"{self.name}: the model failed: {error}") from error
        if not np.isfinite(scores).all():
            raise EmbedError(f"{self.name}: the model gave NaN or infinity for a score")
        return scores


def _compiled(folder: Path, judge: Judge, threads: int) -> Run:
    """Return the model compiled; by PyTorch, and a line in the log, when OpenVINO cannot have it."""
    try:
        model = core().read_model(converted_model(_conversion(folder, judge)))
    except EmbedError as error:
        logger.warning("reranking model not compiled reason=%s", error)
        return _interpreted(folder, threads)
    request = compile_model(model, processor_precision(), threads=threads, streams=1).create_infer_request()

    def run(inputs: tuple[Ids, ...]) -> Scores:
        request.infer(inputs)
        return np.array(request.get_output_tensor(0).data, np.float32)

    return run


def _interpreted(folder: Path, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    network = load_judge(folder, attention="sdpa")

    def run(inputs: tuple[Ids, ...]) -> Scores:
        with torch.inference_mode():
            logits: Scores = network(*map(torch.from_numpy, inputs)).numpy()
        return logits

    return run


def _conversion(folder: Path, judge: Judge) -> Conversion:
    rows = [row[: max_tokens_of(folder)] for row in TRIED_ROWS]
    ids, mask = padded([[i % min(1000, judge.vocabulary) for i in row] for row in rows], judge.pad_id)
    return Conversion(
        folder=folder,
        made_of=("cross-encoder", weights_sha256(folder), judge.has_types),
        load=lambda: load_judge(folder, attention="eager"),
        inputs=("input_ids", "attention_mask", "token_type_ids")[: 3 if judge.has_types else 2],
        batch=(ids, mask, np.zeros_like(ids))[: 3 if judge.has_types else 2],
        problem=_other_logits,
        remedy="PyTorch runs it",
    )


def _other_logits(expected: Any, found: Any) -> str:
    difference = (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max()
    return "" if difference <= SAME_LOGIT else f"gives other logits (difference {difference:.6f})"
