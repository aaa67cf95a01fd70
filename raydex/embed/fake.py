"""The shipped fakes: tokenizer, embedder and reranker that need no model. Deterministic; they understand nothing."""

import hashlib
import re
from collections.abc import Sequence
from zlib import crc32

import numpy as np

from raydex.embed.batching import Scores, TokenRow
from raydex.embed.tokenizers import Offsets
from raydex.records import EmbedderInfo, Vectors

FAKE_MODEL = "hash"
"""The model name that selects HashEmbedder."""


FAKE_RERANKER = "overlap"
"""The model name that selects OverlapReranker."""


class WordTokenizer:
    """The fake model's tokenizer: a run of letters and digits, or a single other character, is one token."""

    max_tokens = 256
    special_tokens = 2
    is_wordwise = True

    _TOKEN = re.compile(r"[^\W_]+|[^\w\s]|_")

    def encode(self, text: str) -> tuple[list[int], Offsets]:
        tokens = list(self._TOKEN.finditer(text))
        return [crc32(token[0].encode()) >> 1 for token in tokens], [token.span() for token in tokens]

    def with_special(self, ids: Sequence[int]) -> list[int]:
        return [0, *ids[: self.max_tokens - self.special_tokens], 0]

    def count(self, text: str) -> int:
        return len(self.encode(text)[0]) + self.special_tokens


class HashEmbedder:
    """A deterministic fake for tests and demonstrations: it needs no model and understands nothing.

    Each word, lower-cased, is hashed to a signed bucket of the vector; so texts that share words score high, near
    duplicates highest. Like a real model it reads no more than max_tokens. A text without words gets a fixed vector.
    """

    ALGORITHM = "raydex HashEmbedder 1: blake2b-8 of lower-cased words, signed buckets, L2"
    batch_tokens = 2048

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

    def embed_passages(self, texts: Sequence[str], token_ids: Sequence[TokenRow] = ()) -> Vectors:
        """Embed the texts; token_ids are not looked at."""
        vectors = np.zeros((len(texts), self.info.dim), dtype=np.float32)
        for row, text in zip(vectors, texts, strict=True):
            self._fill(row, text)
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed_passages(texts)

    def _fill(self, row: Vectors, text: str) -> None:
        _, offsets = self.tokenizer.encode(text)
        for start, end in offsets[: self.tokenizer.max_tokens - self.tokenizer.special_tokens]:
            if (word := text[start:end]).isalnum():
                bucket, sign = _bucket_of(word.lower())
                row[bucket % self.info.dim] += sign
        if not row.any():
            row[0] = 1.0
        row /= np.linalg.norm(row)


def _bucket_of(word: str) -> tuple[int, int]:
    number = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
    return number >> 1, 1 if number & 1 else -1


class OverlapReranker:
    """A deterministic fake for tests and demonstrations, which ranks passages by the words of the query that they have.

    Score: the share of the query's words, lower-cased, that are in the passage, from 0 to 1.
    """

    name = FAKE_RERANKER

    def score(self, query: str, passages: Sequence[str]) -> Scores:
        asked = _words_of(query)
        return np.array([len(asked & _words_of(text)) / max(1, len(asked)) for text in passages], np.float32)


def _words_of(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
