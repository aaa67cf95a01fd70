"""OpenVINO's form of a PyTorch module: converted and tried once, kept in a cache, compiled for this processor.

Conversion → converted_model → model.xml → compile_model → inference requests
"""

import functools
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydex.embed.batching import Ids
from raydex.errors import EmbedError
from raydex.records import stable_id
from utils.files import sha256_of, write_bytes

CACHE_VARIABLE = "RAYDEX_MODEL_CACHE"
RECIPE = 1  # raised when the conversion below changes

TRIED_ROWS = ([101, 2129, 2079, 1045, 6100, 1037, 5371, 102], [101, 102], [*range(1000, 1200)])
"""What a converted model is tried on against the one it came from: any ids will do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """A module to convert. made_of: all that its converted form depends on; load: returns the module, in fp32.

    inputs: names of its inputs, int64 (rows, longest). batch: what both forms are tried on. problem: what is wrong
    with the outputs of the converted one (second) against those expected (first), "" when nothing is. remedy: what to
    do about a failure.
    """

    folder: Path
    made_of: tuple[object, ...]
    load: Callable[[], Any]
    inputs: tuple[str, ...]
    batch: tuple[Ids, ...]
    problem: Callable[[Any, Any], str]
    remedy: str


def model_cache() -> Path:
    """Return the folder of compiled models: $RAYDEX_MODEL_CACHE, else raydex/models in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE_VARIABLE) or Path(cache) / "raydex" / "models")


@functools.cache
def openvino() -> Any:
    """Import OpenVINO without openvino_telemetry, which would tell its makers of every import."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino as imported

    return imported


@functools.cache
def core() -> Any:
    """Return OpenVINO's core: one, kept until the process ends.

    Each core's CPU plugin gives the thread that loads it a signal stack of its own, and at its end puts back the one it
    found. When two end in another order than they began, what is put back is gone, and the next signal that is handled
    ends the process with a segmentation fault.
    """
    return openvino().Core()


@functools.cache
def processor_precision() -> str:
    """Return bf16 where this processor multiplies it natively, else fp32."""
    capabilities = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return "bf16" if "BF16" in capabilities else "fp32"


def compile_model(model: Any, precision: str, *, threads: int, streams: int) -> Any:
    """Compile what core().read_model gave. precision: bf16 or fp32."""
    settings = {
        "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[precision],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,  # two processes would pin their threads to the same cores and halve each other
    }
    return core().compile_model(model, "CPU", settings)


def converted_model(conversion: Conversion) -> Path:
    """Return the OpenVINO form of a model, converted and tried the first time (4 s), then taken from the cache.

    Its folder is named after what it is made of, OpenVINO's version and RECIPE, and holds the checksums of its files:
    one that was altered or cut off is converted again. Weights stay fp32; what they are rounded to is decided when
    compiling.
    """
    cached = model_cache() / f"{stable_id(*conversion.made_of, openvino().__version__, RECIPE)[:24]}"
    try:
        if not _is_whole(cached):
            _convert_into(cached, conversion)
    except OSError as error:
        raise EmbedError(
            f"{cached.parent}: the compiled model cannot be kept there ({error.strerror}). Set {CACHE_VARIABLE} to a "
            f"folder that can be written and has 200 MB of room, or {conversion.remedy}."
        ) from error
    return cached / "model.xml"


def _convert_into(cached: Path, conversion: Conversion) -> None:
    cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cached.parent) as made:
        _convert(conversion, Path(made) / "new")
        shutil.rmtree(cached, ignore_errors=True)
        try:
            (Path(made) / "new").rename(cached)
        except OSError:
            if not _is_whole(cached):  # else another process was faster
                raise


def _convert(conversion: Conversion, made: Path) -> None:
    network = conversion.load()
    import torch

    ids = torch.ones(2, 8, dtype=torch.int64)
    try:
        with warnings.catch_warnings():  # the tracer doubts each branch that it takes; the trial below does not
            warnings.simplefilter("ignore")
            model = openvino().convert_model(
                network,
                example_input=tuple(ids for _ in conversion.inputs),
                input=[(name, [-1, -1]) for name in conversion.inputs],
            )
    except (RuntimeError, openvino().frontend.OpConversionFailure) as error:
        raise EmbedError(f"{conversion.folder}: OpenVINO cannot convert it; {conversion.remedy}: {error}") from error
    with torch.inference_mode():
        expected = network(*map(torch.from_numpy, conversion.batch)).numpy()
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    if problem := conversion.problem(expected, compiled(conversion.batch)[0]):
        raise EmbedError(f"{conversion.folder}: OpenVINO's form of it {problem}; {conversion.remedy}")
    openvino().save_model(model, made / "model.xml", compress_to_fp16=False)
    sums = {name: sha256_of(made / name) for name in ("model.xml", "model.bin")}
    write_bytes(made / "checksums.json", json.dumps(sums).encode())


def _is_whole(cached: Path) -> bool:
    try:
        sums = json.loads((cached / "checksums.json").read_bytes())
        return all(sha256_of(cached / name) == sums.get(name) for name in ("model.xml", "model.bin"))
    except (OSError, ValueError, AttributeError):
        return False
