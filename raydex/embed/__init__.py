"""Turn texts into vectors. Only home of torch, openvino, sentence-transformers and LangChain's embeddings.

    texts → Vectors    float32 (n, dim), rows L2-normalised, input order

    load_embedder("all-MiniLM-L6-v2").embed_passages(["Ray Serve\\nA replica is a process."])

models.py        a model's name → its folder, checked; what its settings say
tokenizers.py    text → token ids and their places
batching.py      token ids → batches under a token budget, padded, or several texts as one row
backends.py      which program runs the model here; describe() and load_embedder()
compiled.py      OpenVINO, on the processor: the default
conversion.py    a model → OpenVINO's form of it, kept in a cache
gpu.py           PyTorch in half precision, on a GPU
reference.py     sentence-transformers through LangChain, which the others are measured against
crossing.py      cross-encoders: query and passage → one score; load_reranker()
fake.py          HashEmbedder and OverlapReranker, for tests: no model at all

describe() and load_tokenizer() never import torch: processes that only cut chunks stay light and start fast.
"""

from raydex.embed.backends import Embedder, describe, load_embedder, load_tokenizer
from raydex.embed.crossing import Reranker, load_reranker
from raydex.embed.fake import FAKE_MODEL, HashEmbedder, OverlapReranker, WordTokenizer
from raydex.embed.models import MINILM_SHA256, resolve_model
from raydex.embed.tokenizers import SubwordTokenizer, TextTokenizer

__all__ = [
    "FAKE_MODEL",
    "MINILM_SHA256",
    "Embedder",
    "HashEmbedder",
    "OverlapReranker",
    "Reranker",
    "SubwordTokenizer",
    "TextTokenizer",
    "WordTokenizer",
    "describe",
    "load_embedder",
    "load_reranker",
    "load_tokenizer",
    "resolve_model",
]
