"""A model as one PyTorch module: token ids and mask → L2-normalised vectors. What is compiled or sent to a GPU.

network = load_network(folder, encoder)    network(ids (n, longest), mask) → float (n, dim)
"""

from pathlib import Path
from typing import Any

from raydex.embed.models import Encoder
from raydex.errors import EmbedError


def load_network(folder: Path, encoder: Encoder, *, attention: str) -> Any:
    """Load the weights in fp32, for inference. attention: eager (to be traced) or sdpa (to be run)."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel
    from transformers.utils.logging import disable_progress_bar

    class Network(torch.nn.Module):
        def __init__(self, transformer: Any) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            states = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            if encoder.pooling == "cls":
                pooled = states[:, 0]
            else:
                weights = attention_mask.unsqueeze(-1).to(states.dtype)
                pooled = (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(pooled, dim=1)

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        transformer = AutoModel.from_pretrained(str(folder), dtype=torch.float32, attn_implementation=attention)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise EmbedError(f"{folder}: the model cannot be loaded: {error}") from error
    return Network(transformer).eval()
