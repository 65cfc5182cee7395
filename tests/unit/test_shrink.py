"""Encoders of fewer layers: which weights stay, under which names, and that all else is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from made_unigram import DIMENSION, many_scripts, save_unigram_encoder
from typer.testing import CliRunner

from search.balance import OFFSETS_FILE, LanguageOffsets
from search.encoder import load_encoder
from search.encoder.manifest import read_prompts
from search.errors import EncoderError, TrainingError
from search.settings import Settings
from training.cli import app
from training.shrink import keep_layers, shrink_encoder
from training.vocabulary.folder import Tensors, folder_bytes

TEXTS = [text for found in many_scripts().values() for text in found][:24]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"), threads=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_unigram_encoder(tmp_path_factory.mktemp("unigram") / "base")


def weights(*names: str) -> Tensors:
    return {name: np.full(2, number, np.float16) for number, name in enumerate(names)}


def test_kept_layers_are_numbered_anew_and_keep_their_numbers_and_precision() -> None:
    four = weights("embeddings.weight", *(f"encoder.layer.{layer}.dense.weight" for layer in range(4)), "pooler.weight")
    kept = keep_layers(four, [3, 1])
    names = ("embeddings.weight", "encoder.layer.0.dense.weight", "encoder.layer.1.dense.weight", "pooler.weight")
    assert {name: float(tensor[0]) for name, tensor in kept.items()} == dict(zip(names, (0, 2, 4, 5), strict=True))
    assert {tensor.dtype for tensor in kept.values()} == {np.dtype(np.float16)}


def test_a_first_layer_that_holds_more_than_the_others_has_to_stay() -> None:
    t5 = weights(
        "shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight",
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.1.layer.0.SelfAttention.q.weight", "encoder.block.2.layer.0.SelfAttention.q.weight",
    )  # fmt: skip
    assert len(keep_layers(t5, [0, 2])) == 4
    with pytest.raises(TrainingError, match=r"relative_attention_bias.*keep the first ones, 0 above all"):
        keep_layers(t5, [1, 2])


def test_a_shrunk_encoder_is_the_base_without_the_other_layers(base: Path, settings: Settings, tmp_path: Path) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    out = tmp_path / "small"
    report = shrink_encoder(str(base), [1], out, settings)
    expected = SentenceTransformer(str(base), device="cpu")
    network = expected.transformers_model
    network.encoder.layer = torch.nn.ModuleList([network.encoder.layer[1]])
    found = SentenceTransformer(str(out), device="cpu")
    assert len(found.transformers_model.encoder.layer) == 1
    np.testing.assert_allclose(found.encode(TEXTS), expected.encode(TEXTS), atol=1e-6)
    assert (report.before.layers, report.after.layers, report.kept) == (2, 1, (1,))
    assert report.after.parameters == sum(parameter.numel() for parameter in found.parameters())
    assert report.after.disk_bytes == folder_bytes(out) < report.before.disk_bytes


def test_layers_after_pooling_keep_their_weights(base: Path, settings: Settings, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    model = SentenceTransformer(str(base), device="cpu")
    SentenceTransformer(modules=[model[0], model[1], Dense(DIMENSION, 8)]).save_pretrained(str(tmp_path / "dense"))
    shrink_encoder(str(tmp_path / "dense"), (0,), tmp_path / "small", settings)
    small, whole = (SentenceTransformer(str(tmp_path / name), device="cpu") for name in ("small", "dense"))
    np.testing.assert_array_equal(small[2].linear.weight.numpy(force=True), whole[2].linear.weight.numpy(force=True))
    assert small.encode(TEXTS[:2]).shape == (2, 8)


def test_prompts_offsets_and_origin_are_kept(base: Path, settings: Settings, tmp_path: Path) -> None:
    out = tmp_path / "small"
    shrink_encoder(str(base), [0], out, settings)
    assert read_prompts(out) == ("query: ", "passage: ")
    assert LanguageOffsets.load(out / OFFSETS_FILE).languages == ("ar", "ja")
    described = json.loads((out / "panlingua.json").read_text("utf-8"))
    assert described["base"] == "base"
    assert described["shrunk"] == {"layers_before": 2, "layers": [0]}


@pytest.mark.parametrize("backend", ["torch", "openvino-f32"])
def test_the_engine_runs_it(base: Path, settings: Settings, tmp_path: Path, backend: str) -> None:
    from sentence_transformers import SentenceTransformer

    if backend != "torch":
        pytest.importorskip("openvino")
    shrink_encoder(str(base), [1], tmp_path / "small", settings)
    encoder = load_encoder(str(tmp_path / "small"), backend=backend, device="cpu", threads=1, cache_dir=tmp_path / "c")
    expected = SentenceTransformer(str(tmp_path / "small"), device="cpu").encode(TEXTS, prompt_name="document")
    found = encoder.encode_documents(TEXTS)
    assert found.shape == (len(TEXTS), DIMENSION)
    assert np.sum(found * expected, axis=1).min() > 0.9999


@pytest.mark.parametrize(
    ("layers", "words"),
    [([2], "no layer 2: the encoder has layers 0 to 1"), ([], "no layer is kept"), ([0, 1], "all 2 layers are kept")],
)
def test_layers_that_cannot_be_kept(
    base: Path, settings: Settings, tmp_path: Path, layers: list[int], words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        shrink_encoder(str(base), layers, tmp_path / "small", settings)
    assert not list(tmp_path.iterdir())


def test_encoders_without_numbered_layers_and_folders_in_use_are_refused(
    base: Path, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="is there already"):
        shrink_encoder(str(base), [0], tmp_path, settings)
    odd = tmp_path / "odd"
    shutil.copytree(base, odd)
    config = json.loads((odd / "config.json").read_text("utf-8"))
    (odd / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2, "num_layers": 3}), "utf-8")
    with pytest.raises(EncoderError, match=r"names 2,3 layers, the weights have 2"):
        shrink_encoder(str(odd), [0], tmp_path / "small", settings)


def test_the_command_says_the_sizes(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANLINGUA_HOME", str(tmp_path / "home"))
    arguments = ["shrink", str(base), "--layers", "1", "--out", str(tmp_path / "small")]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.stdout.splitlines()[0].split() == ["layers", "2", "→", "1"]
    arguments[-1] += "-too"
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False).stdout.splitlines()[0])
    assert found["kept"] == [1]
    assert found["after"]["parameters"] < found["before"]["parameters"]
