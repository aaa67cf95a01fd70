"""Cross-encoders as models on disk: loaded, compiled, scored; tiny ones with random weights, so nothing of quality."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from raydex.embed import OverlapReranker, load_reranker
from raydex.embed import crossing as crossing_module
from raydex.embed.tokenizers import PairTokenizer
from raydex.errors import EmbedError
from tests.cross_encoders import MAX_TOKENS, tiny_cross_encoder

QUERY = "how do i read a file"
PASSAGES = ["Open a file and read it line by line.", "Parse a date from a string.", "", "file " * 200, "Zürich 東京 🙂"]


@pytest.fixture(scope="module", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No hub, and a model cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read once, when the hub is imported
        patch.setenv("RAYDEX_MODEL_CACHE", str(tmp_path_factory.mktemp("models")))
        yield Path(os.environ["RAYDEX_MODEL_CACHE"])


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cross_encoder(tmp_path_factory.mktemp("bert"))


def expected_logits(folder: Path) -> np.ndarray:
    """Ask transformers itself, one pair at a time."""
    import torch

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PairTokenizer(folder)
    names = ["input_ids", "token_type_ids"] if model.config.model_type == "bert" else ["input_ids"]
    logits = []
    for pair in tokenizer.pairs(QUERY, PASSAGES):
        given = {name: torch.tensor([part]) for name, part in zip(names, pair, strict=False)}
        with torch.inference_mode():
            logits.append(model(**given).logits[0, 0].item())
    return np.array(logits, np.float32)


@pytest.mark.parametrize("has_types", [True, False])
@pytest.mark.parametrize("backend", ["openvino", "torch"])
def test_a_cross_encoder_scores_as_transformers_does_whatever_runs_it(tmp_path, monkeypatch, has_types, backend):
    folder = tiny_cross_encoder(tmp_path / "model", has_types=has_types)
    monkeypatch.setattr(crossing_module, "processor_precision", lambda: "fp32")
    if backend == "torch":
        monkeypatch.setattr(crossing_module, "find_spec", lambda _: None)
    scores = load_reranker(str(folder), threads=1).score(QUERY, PASSAGES)
    assert scores.dtype == np.float32
    assert scores.shape == (len(PASSAGES),)
    expected = expected_logits(folder)
    assert np.ptp(expected) > 0.1  # they differ by more than what is tolerated
    np.testing.assert_allclose(scores, expected, atol=1e-3)


def test_a_passage_has_the_same_score_in_any_company_but_for_rounding(bert, monkeypatch):
    monkeypatch.setattr(crossing_module, "processor_precision", lambda: "fp32")
    reranker = load_reranker(str(bert), threads=1)
    alone = np.concatenate([reranker.score(QUERY, [passage]) for passage in PASSAGES])
    np.testing.assert_allclose(reranker.score(QUERY, PASSAGES), alone, atol=1e-4)
    assert reranker.score(QUERY, []).shape == (0,)


def test_a_pair_is_cut_to_what_the_model_reads_and_keeps_some_of_both(bert):
    tokenizer = PairTokenizer(bert)
    for query, passage in ((QUERY, "file " * 500), ("file " * 500, "read"), ("file " * 500, "read " * 500)):
        ((ids, types),) = tokenizer.pairs(query, [passage])
        assert len(ids) == MAX_TOKENS
        assert types.count(0) > 2
        assert types.count(1) > 1


def test_a_model_that_openvino_cannot_have_is_run_by_pytorch_and_the_log_says_so(bert, monkeypatch, caplog):
    monkeypatch.setenv("RAYDEX_MODEL_CACHE", "/proc/nowhere")
    scores = load_reranker(str(bert), threads=1).score(QUERY, PASSAGES)
    np.testing.assert_allclose(scores, expected_logits(bert), atol=1e-4)
    assert "/proc/nowhere" in caplog.text


def test_a_compiled_model_needs_no_torch_the_second_time(bert, alone):
    load_reranker(str(bert), threads=1)
    code = (
        "import sys; from raydex.embed import load_reranker\n"
        f"load_reranker({str(bert)!r}, threads=1).score('read', ['a file'])\n"
        "loaded = {name for name, module in sys.modules.items() if module}\n"
        "sys.exit(bool({'torch', 'transformers', 'openvino_telemetry'} & loaded))"
    )
    environment = {**os.environ, "PYTHONPATH": "."}
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment).returncode == 0


def test_a_model_that_is_nowhere_is_refused_with_what_was_tried():
    with pytest.raises(EmbedError, match=r"'nobody/nothing': .* folder, .* hub .*give the path"):
        load_reranker("nobody/nothing")


@pytest.mark.parametrize(
    ("missing", "message"),
    [("model.safetensors", "no .*safetensors"), ("config.json", "no architecture"), ("tokenizer.json", "fast tokeniz")],
)
def test_an_incomplete_folder_is_refused_by_name_of_the_gap(tmp_path, missing, message):
    folder = tiny_cross_encoder(tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(EmbedError, match=message):
        load_reranker(str(folder))


def test_a_model_that_ranks_nothing_is_refused_by_what_it_is(tmp_path):
    classes = tiny_cross_encoder(tmp_path / "three", labels=3)
    with pytest.raises(EmbedError, match="gives 3 numbers for a pair"):
        load_reranker(str(classes))
    embeds = tiny_cross_encoder(tmp_path / "bert")
    config = json.loads((embeds / "config.json").read_text())
    (embeds / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    with pytest.raises(EmbedError, match="says BertModel; a cross-encoder is"):
        load_reranker(str(embeds))


@pytest.mark.filterwarnings("ignore")  # transformers tells of the missing weights, too
def test_weights_without_the_head_that_scores_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tiny_cross_encoder(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    headless = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(headless, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EmbedError, match=r"the weights lack classifier\.bias"):
        load_reranker(str(folder))


def test_pickled_weights_are_not_read_even_with_others_beside_them(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYDEX_MODEL_CACHE", str(tmp_path / "models"))
    folder = tiny_cross_encoder(tmp_path / "model")
    (folder / "other").mkdir()
    (folder / "model.safetensors").rename(folder / "other" / "model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    with pytest.raises(EmbedError, match="cannot be loaded"):
        load_reranker(str(folder))


class Sick:
    """Network outputs that no ranking follows from."""

    def __init__(self, outcome: float | Exception) -> None:
        self.outcome = outcome

    def __call__(self, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return np.full(len(inputs[0]), self.outcome, np.float32)


@pytest.mark.parametrize(
    "outcome", [float("nan"), float("inf"), RuntimeError("out of memory"), IndexError("no such id")]
)
def test_a_model_that_fails_on_a_query_raises_one_kind_of_error(bert, outcome):
    reranker = load_reranker(str(bert), threads=1)
    assert isinstance(reranker, crossing_module.CrossEncoder)
    reranker._run = Sick(outcome)
    with pytest.raises(EmbedError, match=r"the model (gave NaN|failed: )"):
        reranker.score(QUERY, PASSAGES)


def test_the_fake_ranks_by_shared_words_and_is_named_so():
    fake = load_reranker("overlap")
    assert isinstance(fake, OverlapReranker)
    assert fake.name == "overlap"
    assert fake.score("Read a file", ["a FILE to read", "read", "nothing", ""]).tolist() == pytest.approx(
        [1, 1 / 3, 0, 0]
    )
    assert fake.score("?!", ["a"]).tolist() == [0]
