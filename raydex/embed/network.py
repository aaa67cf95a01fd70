"""A model as one PyTorch module: token ids and mask → L2-normalised vectors. What is compiled or sent to a GPU.

network = load_network(folder, encoder)    network(ids (n, longest), mask) → float (n, dim)
network = load_packed_network(folder)            network(ids, places, numbers), of batching.packed → states, no vectors
network = load_judge(folder)               network(ids, mask[, types]) → float (n,), a cross-encoder's logits
"""

from pathlib import Path
from typing import Any

from raydex.embed.models import Encoder
from raydex.errors import EmbedError


def load_network(folder: Path, encoder: Encoder, *, attention: str) -> Any:
    """Load the weights in fp32, for inference. attention: eager (to be traced) or sdpa (to be run)."""
    import torch
    from transformers import AutoModel

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

    transformer, _ = _load(AutoModel, folder, attention)
    return Network(transformer).eval()


def load_packed_network(folder: Path) -> Any:
    """Load a model, to be traced, so that it reads several texts in one row: a token sees those of its own text alone.

    For one that is_packable (models.Encoder). states: float (1, length, dim), not pooled.
    """
    import torch
    from transformers import AutoModel

    class Network(torch.nn.Module):
        def __init__(self, transformer: Any) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: Any, position_ids: Any, numbers: Any) -> Any:
            sees = (numbers.unsqueeze(1) == numbers.unsqueeze(2)).unsqueeze(1)
            mask = torch.where(sees, 0.0, torch.finfo(torch.float32).min)
            return self.transformer(
                input_ids=input_ids, position_ids=position_ids, attention_mask=mask
            ).last_hidden_state

    transformer, _ = _load(AutoModel, folder, "eager")
    return Network(transformer).eval()


def load_judge(folder: Path, *, attention: str) -> Any:
    """Load a cross-encoder as load_network does a model. Its third input is for one that has_types (models.Judge)."""
    import torch
    from transformers import AutoModelForSequenceClassification

    class Network(torch.nn.Module):
        def __init__(self, transformer: Any) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return self.transformer(input_ids=input_ids, attention_mask=attention_mask, **types).logits[:, 0]

    transformer, missing = _load(AutoModelForSequenceClassification, folder, attention)
    if missing:
        raise EmbedError(f"{folder}: the weights lack {', '.join(missing[:3])}; chance would fill them in")
    return Network(transformer).eval()


def _load(kind: Any, folder: Path, attention: str) -> tuple[Any, list[str]]:
    """Return a model, from weights that are not pickled, and the names of those that its folder has not."""
    import torch
    from safetensors import SafetensorError
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model, told = kind.from_pretrained(
            str(folder),
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise EmbedError(f"{folder}: the model cannot be loaded: {error}") from error
    return model, sorted(told["missing_keys"])
