"""Tiny cross-encoders with random weights, as transformers saves them: what the real path is tried on.

tiny_cross_encoder(tmp_path / "model") → folder
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModelForSequenceClassification

WORDS = ("open", "file", "and", "read", "line", "by", "parse", "date", "from", "string", "the", "how", "do", "thread")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_TOKENS = 64


def tiny_cross_encoder(folder: Path, *, labels: int = 1, has_types: bool = True) -> Path:
    """Write config.json, model.safetensors and tokenizer.json. has_types: BERT, else DistilBERT, which reads none."""
    torch.manual_seed(0)
    vocabulary = {token: i for i, token in enumerate((*SPECIAL, *WORDS, *"abcdefghijklmnopqrstuvwxyz"))}
    bert = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    distilbert = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    common = {"vocab_size": len(vocabulary), "max_position_embeddings": MAX_TOKENS, "num_labels": labels}
    kind = "bert" if has_types else "distilbert"
    sizes = {**(bert if has_types else distilbert), **common, "initializer_range": 0.5}  # logits beyond rounding
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(kind, **sizes))
    model.save_pretrained(folder)
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
