"""Split text as the model does: token ids, and which characters each token covers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from raydex.embed.models import max_tokens_of
from raydex.errors import EmbedError

Offsets = list[tuple[int, int]]


class TextTokenizer(Protocol):
    """Splits text as the model does. max_tokens: the model's limit, special tokens included."""

    @property
    def max_tokens(self) -> int: ...

    @property
    def special_tokens(self) -> int: ...

    @property
    def is_wordwise(self) -> bool:
        """Whether no token depends on what stands beyond white space, so that the tokens of parts add up."""

    def encode(self, text: str) -> tuple[list[int], Offsets]:
        """Return id and (start, end) in characters of each token, end exclusive; special tokens are left out."""

    def with_special(self, ids: Sequence[int]) -> list[int]:
        """Return what the model reads: the ids between its special tokens, cut to its limit."""

    def count(self, text: str) -> int:
        """Return the number of tokens of the whole text, special tokens included; it may exceed max_tokens."""


class SubwordTokenizer:
    """The tokenizer of a model folder, with neither truncation nor padding. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _read_tokenizer(folder)
        self.max_tokens = max_tokens_of(folder)
        self.special_tokens = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self.is_wordwise = isinstance(self._tokenizer.pre_tokenizer, BertPreTokenizer)  # cuts at white space, first
        probe = self._tokenizer.encode("a")
        first = probe.special_tokens_mask.index(0) if 0 in probe.special_tokens_mask else len(probe.ids)
        last = len(probe.ids) - probe.special_tokens_mask[::-1].index(0) if 0 in probe.special_tokens_mask else first
        self._before, self._after = probe.ids[:first], probe.ids[last:]

    def encode(self, text: str) -> tuple[list[int], Offsets]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def with_special(self, ids: Sequence[int]) -> list[int]:
        return [*self._before, *ids[: self.max_tokens - self.special_tokens], *self._after]

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return what the model reads of each text."""
        return [self.with_special(self.encode(text)[0]) for text in texts]

    def count(self, text: str) -> int:
        return len(self.encode(text)[0]) + self.special_tokens


class PairTokenizer:
    """The tokenizer of a cross-encoder: query and passage as one text, the longer one cut so that both fit."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = _read_tokenizer(folder)
        self._tokenizer.enable_truncation(max_tokens_of(folder))

    def pairs(self, query: str, passages: Sequence[str]) -> list[tuple[list[int], list[int]]]:
        """Return, for each passage, the token ids of the pair and the type of each: 0 the query's, 1 the passage's."""
        encodings = [self._tokenizer.encode(query, passage) for passage in passages]
        return [(encoding.ids, encoding.type_ids) for encoding in encodings]


def _read_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a model folder, with neither truncation nor padding."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise EmbedError(f"{path} is missing: only models with a fast tokenizer can be used")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()  # the file of MiniLM would cut at 128 tokens and pad to 128
    tokenizer.no_padding()
    return tokenizer
