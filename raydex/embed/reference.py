"""sentence-transformers in fp32 through LangChain: runs every model; the other backends are held against it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from raydex.embed.batching import TokenRow, token_batches
from raydex.embed.models import resolve_model
from raydex.embed.tokenizers import SubwordTokenizer
from raydex.errors import EmbedError
from raydex.records import EmbedderInfo, Vectors

MOST_TEXTS = 1024  # of one call: encode() itself cuts no batch smaller than what it is given


class SentenceTransformerEmbedder:
    """A sentence-transformers model, on the GPU if there is one, else on the processor."""

    def __init__(self, info: EmbedderInfo, *, threads: int, batch_tokens: int) -> None:
        folder = resolve_model(info.name)
        self.info, self.batch_tokens = info, batch_tokens
        self.tokenizer = SubwordTokenizer(folder)
        self._model = _load_langchain_embeddings(str(folder), threads)

    def embed_passages(self, texts: Sequence[str], token_ids: Sequence[TokenRow] = ()) -> Vectors:
        """Embed in batches of nearly equal length; the model splits the texts itself, token_ids only give lengths.

        A text's vector varies with its batch in the last bits only (1.3e-7 at most).
        """
        vectors = np.empty((len(texts), self.info.dim), dtype=np.float32)
        lengths = [*map(len, token_ids)] or [self.tokenizer.count(text) for text in texts]
        limit = self.tokenizer.max_tokens
        for batch in token_batches([min(length, limit) for length in lengths], self.batch_tokens):
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


def _load_langchain_embeddings(folder: str, threads: int) -> Any:
    import torch
    from langchain_huggingface import HuggingFaceEmbeddings
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    if threads:
        torch.set_num_threads(threads)
    try:
        return HuggingFaceEmbeddings(
            model_name=folder,
            model_kwargs={"device": "cuda" if torch.cuda.is_available() else "cpu"},
            encode_kwargs={"normalize_embeddings": True, "batch_size": MOST_TEXTS},
            show_progress=False,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise EmbedError(f"{folder}: the model cannot be loaded: {error}") from error
