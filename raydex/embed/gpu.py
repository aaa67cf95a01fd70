"""PyTorch in half precision on one GPU, fed large batches of token ids; nothing is tokenised here.

token ids → batches under a token budget → padded in pinned memory, copied while the GPU works → vectors
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raydex.embed.batching import TokenRow, padded, token_batches
from raydex.embed.models import required_encoder, resolve_model
from raydex.embed.network import load_network
from raydex.embed.tokenizers import SubwordTokenizer
from raydex.errors import EmbedError
from raydex.records import EmbedderInfo, Vectors

DRIVER = Path("/dev/nvidiactl")
"""There when a GPU and its driver are; asking torch would take seconds."""


def has_gpu() -> bool:
    return DRIVER.exists()


class GpuEmbedder:
    """A model with one transformer and plain pooling. device: cuda; cpu runs the same code in fp32, for tests."""

    def __init__(self, info: EmbedderInfo, *, batch_tokens: int, device: str = "cuda") -> None:
        import torch

        folder = resolve_model(info.name)
        encoder = required_encoder(info.name, folder)
        if device == "cuda" and not torch.cuda.is_available():
            raise EmbedError("no GPU that this PyTorch can use; install its CUDA build, or leave --backend gpu out")
        self.info, self.batch_tokens = info, batch_tokens
        self.tokenizer = SubwordTokenizer(folder)
        self._torch, self._device, self._pad_id = torch, device, encoder.pad_id
        network = load_network(folder, encoder, attention="sdpa")
        self._network = (network.half() if info.precision == "fp16" else network).to(device)

    def embed_passages(self, texts: Sequence[str], token_ids: Sequence[TokenRow] = ()) -> Vectors:
        """Embed the texts; where their token_ids are given, the texts are not looked at."""
        rows = token_ids or self.tokenizer.token_ids(texts)
        vectors = np.empty((len(rows), self.info.dim), dtype=np.float32)
        running: list[tuple[list[int], Any]] = []
        with self._torch.inference_mode():
            for batch in token_batches([*map(len, rows)], self.batch_tokens):
                running.append((batch, self._start([rows[i] for i in batch])))
                if len(running) > 1:  # fetch a result only when the next batch is on its way
                    self._take(*running.pop(0), vectors)
            for batch, result in running:
                self._take(batch, result, vectors)
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed_passages(texts)

    def _start(self, rows: Sequence[TokenRow]) -> Any:
        is_gpu = self._device == "cuda"
        ids, mask = (self._torch.from_numpy(part) for part in padded(rows, self._pad_id))
        if is_gpu:
            ids, mask = ids.pin_memory(), mask.pin_memory()
        ids, mask = ids.to(self._device, non_blocking=is_gpu), mask.to(self._device, non_blocking=is_gpu)
        return self._network(ids, mask)

    def _take(self, batch: list[int], result: Any, vectors: Vectors) -> None:
        rows = result.float().cpu().numpy()
        vectors[batch] = rows / np.linalg.norm(rows, axis=1, keepdims=True)  # fp16 lengths are off by up to 1e-3
