"""Which program runs a model on this machine, and loading it.

describe("all-MiniLM-L6-v2") → EmbedderInfo(backend="openvino", precision="bf16", …) → load_embedder(info)
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from raydex.embed.batching import TokenRow
from raydex.embed.fake import FAKE_MODEL, HashEmbedder, WordTokenizer
from raydex.embed.gpu import GpuEmbedder, has_gpu
from raydex.embed.models import dim_of, encoder_of, max_tokens_of, required_encoder, resolve_model, weights_sha256
from raydex.embed.tokenizers import SubwordTokenizer, TextTokenizer
from raydex.errors import EmbedError
from raydex.records import EmbedderInfo, Vectors

BATCH_TOKENS = {"openvino": 2048, "sentence-transformers": 4096, "gpu": 262_144}
"""Tokens of one call of the model, padding included: on a processor 1,024 to 8,192 differ by 3 %."""


class Embedder(Protocol):
    """Makes vectors of which `info` is the origin. Rows: float32 (n, dim), L2-normalised, input order."""

    @property
    def info(self) -> EmbedderInfo: ...

    @property
    def tokenizer(self) -> TextTokenizer: ...

    @property
    def batch_tokens(self) -> int:
        """Tokens of one call of the model; a caller that has many texts hands over many times this at once."""

    def embed_passages(self, texts: Sequence[str], token_ids: Sequence[TokenRow] = ()) -> Vectors:
        """token_ids: of each text, special tokens included (TextTokenizer.with_special), when they are known."""

    def embed_queries(self, texts: Sequence[str]) -> Vectors: ...


def describe(model: str, backend: str = "auto") -> EmbedderInfo:
    """Say what would run a model here, without loading it: settings and, once per process, checksum of its weights.

    backend: auto, openvino, gpu or sentence-transformers. Raises EmbedError when this one cannot run it.
    """
    if model == FAKE_MODEL:
        return HashEmbedder().info
    folder = resolve_model(model)
    info = EmbedderInfo(
        name=model,
        revision=folder.name if folder.parent.name == "snapshots" else "",  # the hub's cache: snapshots/<commit>
        sha256=weights_sha256(folder),
        dim=dim_of(folder),
        max_tokens=max_tokens_of(folder),
        backend="sentence-transformers",
        precision="fp32",
    )
    chosen = _automatic(folder) if backend == "auto" else backend
    if chosen != "sentence-transformers":
        required_encoder(model, folder)
    if chosen == "openvino":
        if find_spec("openvino") is None:
            raise EmbedError("backend openvino: the package is not installed (see requirements.txt)")
        from raydex.embed.conversion import processor_precision

        return replace(info, backend=chosen, precision=processor_precision())
    return replace(info, backend=chosen, precision="fp16") if chosen == "gpu" else info


def _automatic(folder: Path) -> str:
    """Return gpu where there is one, else openvino, for models that these can run."""
    if encoder_of(folder) is None:
        return "sentence-transformers"
    if has_gpu():
        return "gpu"
    return "openvino" if find_spec("openvino") else "sentence-transformers"


def load_embedder(model: str, *, backend: str = "auto", threads: int = 0, batch_tokens: int = 0) -> Embedder:
    """Load a model: 0.5 s compiled (5 s the first time), 5 to 10 s with sentence-transformers. Raises EmbedError.

    threads: the model may use, 0: as many as there are processors. batch_tokens: 0 leaves it to the backend.
    """
    info = describe(model, backend)
    if info.backend == "fake":
        return HashEmbedder()
    budget = batch_tokens or BATCH_TOKENS[info.backend]
    if info.backend == "openvino":
        from raydex.embed.compiled import CompiledEmbedder  # imports OpenVINO

        return CompiledEmbedder(info, threads=threads, batch_tokens=budget)
    if info.backend == "gpu":
        return GpuEmbedder(info, batch_tokens=budget)
    from raydex.embed.reference import SentenceTransformerEmbedder

    return SentenceTransformerEmbedder(info, threads=threads, batch_tokens=budget)


def load_tokenizer(model: str) -> TextTokenizer:
    return WordTokenizer() if model == FAKE_MODEL else SubwordTokenizer(resolve_model(model))
