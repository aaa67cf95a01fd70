"""OpenVINO on the processor: the model compiled from its own weights, bfloat16 where the processor has it.

token ids → batches under a token budget → one inference stream per thread → vectors

Passages and queries run in bf16 (cosine to fp32 ≥ 0.9999); what that changes in answers: docs/decisions/0020.
"""

import functools
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from raydex.embed.batching import TokenRow, padded, token_batches
from raydex.embed.models import Encoder, required_encoder, resolve_model
from raydex.embed.network import load_network
from raydex.embed.tokenizers import SubwordTokenizer
from raydex.errors import EmbedError
from raydex.records import EmbedderInfo, Vectors, stable_id
from utils.files import sha256_of, write_bytes

CACHE_VARIABLE = "RAYDEX_MODEL_CACHE"
RECIPE = 1  # raised when the conversion below changes

TRIED_ROWS = ([101, 2129, 2079, 1045, 6100, 1037, 5371, 102], [101, 102], [*range(1000, 1200)])
"""What a converted model is tried on against the one it came from: any ids will do."""

TILE_ROWS = 16
"""A query of 16 tokens takes a quarter less time than one of 12. In batches filling up costs more than it saves."""

SAME_COSINE = 1 - 1e-5
"""fp32 in two libraries: 1 - 2e-7 measured."""


def model_cache() -> Path:
    """Return the folder of compiled models: $RAYDEX_MODEL_CACHE, else raydex/models in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_VARIABLE) or Path(cache) / "raydex" / "models")


@functools.cache
def _openvino() -> Any:
    """Import OpenVINO without openvino_telemetry, which would tell its makers of every import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@functools.cache
def _core() -> Any:
    """Return OpenVINO's core: one, kept until the process ends.

    Each core's CPU plugin gives the thread that loads it a signal stack of its own, and at its end puts back the one it
    found. When two end in another order than they began, what is put back is gone, and the next signal that is handled
    ends the process with a segmentation fault.
    """
    return _openvino().Core()


@functools.cache
def processor_precision() -> str:
    """Return bf16 where this processor multiplies it natively, else fp32."""
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "fp32"


class CompiledEmbedder:
    """A model with one transformer and plain pooling. Calls from several threads wait for each other."""

    def __init__(self, info: EmbedderInfo, *, threads: int, batch_tokens: int) -> None:
        folder = resolve_model(info.name)
        encoder = required_encoder(info.name, folder)
        self.info, self.batch_tokens = info, batch_tokens
        self.tokenizer = SubwordTokenizer(folder)
        self._pad_id = encoder.pad_id
        self._threads = threads or len(os.sched_getaffinity(0))
        self._model = _core().read_model(converted_model(folder, encoder, info))
        self._lock = Lock()

    def embed_passages(self, texts: Sequence[str], token_ids: Sequence[TokenRow] = ()) -> Vectors:
        """Embed the texts; where their token_ids are given, the texts are not looked at."""
        rows = token_ids or self.tokenizer.token_ids(texts)
        vectors = np.empty((len(rows), self.info.dim), dtype=np.float32)
        with self._lock:
            requests = self._streams
            requests.set_callback(lambda request, batch: vectors.__setitem__(batch, request.get_output_tensor(0).data))
            for batch in token_batches([*map(len, rows)], self.batch_tokens):
                requests.start_async(padded([rows[i] for i in batch], self._pad_id), batch)
            requests.wait_all()
        return vectors

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        rows = self.tokenizer.token_ids(texts)
        vectors = np.empty((len(rows), self.info.dim), dtype=np.float32)
        with self._lock:
            for batch in token_batches([*map(len, rows)], self.batch_tokens):
                self._single.infer(padded([rows[i] for i in batch], self._pad_id, least=self._least(batch, rows)))
                vectors[batch] = self._single.get_output_tensor(0).data
        return vectors

    def _least(self, batch: Sequence[int], rows: Sequence[TokenRow]) -> int:
        """Return to how many tokens a batch is filled up: a query alone, to a whole number of the processor's tiles."""
        if len(batch) > 1:
            return 0
        return min(-(-len(rows[batch[0]]) // TILE_ROWS) * TILE_ROWS, self.info.max_tokens)

    @functools.cached_property
    def _streams(self) -> Any:
        """One thread a stream: 12 % more chunks per core-second than one stream of two threads."""
        return _openvino().AsyncInferQueue(self._compile(self.info.precision, streams=self._threads), self._threads)

    @functools.cached_property
    def _single(self) -> Any:
        return self._compile(self.info.precision, streams=1).create_infer_request()

    def _compile(self, precision: str, *, streams: int) -> Any:
        settings = {
            "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # two processes would pin their threads to the same cores and halve each other
        }
        return _core().compile_model(self._model, "CPU", settings)


def converted_model(folder: Path, encoder: Encoder, info: EmbedderInfo) -> Path:
    """Return the OpenVINO form of a model, converted and tried the first time (4 s), then taken from the cache.

    Its folder is named after the weights, OpenVINO's version and RECIPE, and holds the checksums of its files: one that
    was altered or cut off is converted again. Weights stay fp32; what they are rounded to is decided when compiling.
    """
    made_of = (info.sha256, info.dim, encoder.pooling, _openvino().__version__, RECIPE)
    cached = model_cache() / f"{stable_id(*made_of)[:24]}"
    try:
        if not _is_whole(cached):
            _convert_into(cached, folder, encoder)
    except OSError as error:
        raise EmbedError(
            f"{cached.parent}: the compiled model cannot be kept there ({error.strerror}). Set {CACHE_VARIABLE} to a "
            "folder that can be written and has 100 MB of room, or use --backend sentence-transformers."
        ) from error
    return cached / "model.xml"


def _convert_into(cached: Path, folder: Path, encoder: Encoder) -> None:
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as made:
        _convert(folder, encoder, Path(made) / "new")
        shutil.rmtree(cached, ignore_errors=True)
        try:
            (Path(made) / "new").rename(cached)
        except OSError:
            if not _is_whole(cached):  # else another process was faster
                raise


def _convert(folder: Path, encoder: Encoder, made: Path) -> None:
    network = load_network(folder, encoder, attention="eager")
    import torch

    ids = torch.ones(2, 8, dtype=torch.int64)
    openvino = _openvino()
    try:
        with warnings.catch_warnings():  # the tracer doubts each branch that it takes; the trial below does not
            warnings.simplefilter("ignore")
            model = openvino.convert_model(
                network,
                example_input=(ids, ids),
                input=[("input_ids", [-1, -1]), ("attention_mask", [-1, -1])],
            )
    except (RuntimeError, openvino.frontend.OpConversionFailure) as error:
        raise EmbedError(
            f"{folder}: OpenVINO cannot convert it; use --backend sentence-transformers: {error}"
        ) from error
    batch = padded([[i % 1000 for i in row] for row in TRIED_ROWS], encoder.pad_id)
    with torch.inference_mode():
        expected = network(*map(torch.from_numpy, batch)).numpy()
    compiled = _core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    cosines = (compiled(batch)[0] * expected).sum(axis=1)
    if not (cosines >= SAME_COSINE).all():
        raise EmbedError(
            f"{folder}: OpenVINO's form of it gives other vectors (cosine {cosines.min():.6f}); "
            "use --backend sentence-transformers"
        )
    openvino.save_model(model, made / "model.xml", compress_to_fp16=False)
    sums = {name: sha256_of(made / name) for name in ("model.xml", "model.bin")}
    write_bytes(made / "checksums.json", json.dumps(sums).encode())


def _is_whole(cached: Path) -> bool:
    try:
        sums = json.loads((cached / "checksums.json").read_bytes())
        return all(sha256_of(cached / name) == sums.get(name) for name in ("model.xml", "model.bin"))
    except (OSError, ValueError, AttributeError):
        return False
