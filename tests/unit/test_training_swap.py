"""Layers: lists of them, whose a weight is, and those of one adapter in place of another's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from search.encoder.adapters import load_updates, merge_adapter
from search.errors import EncoderError, SettingsError, TrainingError
from training.cli import app
from training.layers import format_layers, in_layer, layer_of, parse_layers
from training.swap import swap_layers

QUERY = "encoder.layer.{}.attention.self.query"


@pytest.mark.parametrize(
    ("text", "layers"),
    [("10-11,0-2", (0, 1, 2, 10, 11)), ("3", (3,)), (" 4 , 4, 2 - 3", (2, 3, 4)), ("0-0", (0,))],
)
def test_lists_of_layers(text: str, layers: tuple[int, ...]) -> None:
    assert parse_layers(text) == layers
    assert parse_layers(format_layers(layers)) == layers


@pytest.mark.parametrize("text", ["", ",", "a", "3-1", "-1", "1-", "0,,2", "٣x"])
def test_what_is_no_list_of_layers(text: str) -> None:
    with pytest.raises(SettingsError, match="such as 0-3,10-11"):
        parse_layers(text)


@pytest.mark.parametrize(
    ("name", "layer", "moved"),
    [
        ("encoder.layer.10.output.dense.weight", 10, "encoder.layer.7.output.dense.weight"),
        ("encoder.block.3.layer.0.SelfAttention.q.weight", 3, "encoder.block.7.layer.0.SelfAttention.q.weight"),
        ("layers.0.attn.Wqkv.weight", 0, "layers.7.attn.Wqkv.weight"),
        ("base_model.model.encoder.layer.2.x.lora_A.weight", 2, "base_model.model.encoder.layer.7.x.lora_A.weight"),
    ],
)
def test_the_layer_of_a_weight(name: str, layer: int, moved: str) -> None:
    assert layer_of(name) == layer
    assert in_layer(name, 7) == moved
    assert layer_of("embeddings.word_embeddings.weight") is None


def save_adapter(
    folder: Path, layers: Sequence[int], value: float, *, rank: int = 1, alpha: float = 1.0, width: int = 3,
    stem: str = QUERY, **config: Any,
) -> Path:  # fmt: skip
    """Updates of (2, `width`) whose numbers are all `value` times one more than their layer."""
    folder.mkdir(parents=True)
    factors = {}
    for layer in layers:
        name = f"base_model.model.{stem.format(layer)}"
        factors[f"{name}.lora_A.weight"] = np.full((rank, width), value / alpha, np.float32)
        factors[f"{name}.lora_B.weight"] = np.full((2, rank), layer + 1, np.float32)
    save_file(factors, folder / "adapter_model.safetensors")
    content = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["query"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(content), "utf-8")
    return folder


def updates(folder: Path) -> dict[int, float]:
    """The number that fills each layer's update."""
    found = {}
    for name, update in load_updates(folder).items():
        assert (update == update[0, 0]).all()
        found[int(name.split(".")[2])] = float(update[0, 0])
    return found


@pytest.fixture
def task(tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "task", range(4), 10.0)


@pytest.fixture
def language(tmp_path: Path) -> Path:
    return save_adapter(tmp_path / "language", range(4), 1.0, rank=2, alpha=4.0)


def rank_of(folder: Path) -> int:
    ranks = {tensor.shape[0 if "lora_A" in name else 1]
             for name, tensor in load_file(folder / "adapter_model.safetensors").items()}  # fmt: skip
    assert ranks == {json.loads((folder / "adapter_config.json").read_text("utf-8"))["r"]}  # as peft needs it
    return int(ranks.pop())


def test_listed_layers_come_from_the_second_adapter(task: Path, language: Path, tmp_path: Path) -> None:
    # task: 10 (layer + 1); language, rank 2 and alpha 4: 4 / 2 * 2 * (layer + 1) / 4 = layer + 1
    assert updates(task) == {0: 10, 1: 20, 2: 30, 3: 40}
    assert updates(language) == {0: 1, 1: 2, 2: 3, 3: 4}
    swapped = swap_layers(task, language, tmp_path / "out", layers=[0, 3])
    assert updates(swapped) == {0: 1, 1: 20, 2: 30, 3: 4}
    assert rank_of(swapped) == 2
    other_way = swap_layers(language, task, tmp_path / "other", layers=[1, 2])
    assert updates(other_way) == updates(swapped)


def test_layers_between_are_the_mean(task: Path, language: Path, tmp_path: Path) -> None:
    swapped = swap_layers(task, language, tmp_path / "out", layers=[0], averaged=[1])
    assert updates(swapped) == {0: 1, 1: 11, 2: 30, 3: 40}
    assert rank_of(swapped) == 3


def test_against_the_base_listed_layers_are_the_bases(task: Path, tmp_path: Path) -> None:
    swapped = swap_layers(task, None, tmp_path / "out", layers=[1, 3], averaged=[2])
    assert updates(swapped) == {0: 10, 1: 0, 2: 15, 3: 0}
    assert rank_of(swapped) == 1
    base, merged = tmp_path / "base", tmp_path / "merged"
    base.mkdir()
    merged.mkdir()
    weights = {f"{QUERY.format(layer)}.weight": np.full((2, 3), layer, np.float16) for layer in range(4)}
    save_file(weights, base / "model.safetensors")
    merge_adapter(base, swapped, merged)
    found = load_file(merged / "model.safetensors")
    assert [float(found[name][1, 2]) for name in weights] == [10, 1, 17, 3]


def test_an_adapter_of_some_layers_leaves_the_others_to_the_base(task: Path, tmp_path: Path) -> None:
    upper = save_adapter(tmp_path / "upper", [2, 3], 1.0, layers_to_transform=[2, 3])
    assert updates(swap_layers(task, upper, tmp_path / "a", layers=[0, 3])) == {0: 0, 1: 20, 2: 30, 3: 4}
    swapped = swap_layers(upper, task, tmp_path / "b", layers=[0])
    assert updates(swapped) == {0: 10, 1: 0, 2: 3, 3: 4}
    assert json.loads((swapped / "adapter_config.json").read_text("utf-8"))["layers_to_transform"] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("layers", "averaged", "words"),
    [
        ([4], [], "no layer 4 in the adapters; they have 0,1,2,3"),
        ([0], [9, 7], "no layer 7,9 in"),
        ([0, 1], [1], "layer 1 can be swapped or averaged, not both"),
        ([], [], "no layer to swap"),
        ([0, 1, 2, 3], [], "leave some to the first"),
    ],
)
def test_layers_that_cannot_be_swapped(
    task: Path, language: Path, tmp_path: Path, layers: list[int], averaged: list[int], words: str
) -> None:
    for other in (language, None):
        with pytest.raises(TrainingError, match=words):
            swap_layers(task, other, tmp_path / "out", layers=layers, averaged=averaged)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change", [{"width": 5}, {"stem": "encoder.layer.{}.attention.self.key"}], ids=["shape", "modules"]
)
def test_adapters_of_other_weights_are_refused(task: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    other = save_adapter(tmp_path / "other", range(4), 1.0, **change)
    with pytest.raises(TrainingError, match=r"adapts other weights than .* of one base with the same lora\.targets"):
        swap_layers(task, other, tmp_path / "out", layers=[0])
    with pytest.raises(EncoderError, match="only plain LoRA"):
        swap_layers(task, save_adapter(tmp_path / "dora", range(4), 1.0, use_dora=True), tmp_path / "out", layers=[0])


def test_the_command_swaps_what_it_is_told(task: Path, language: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["swap", str(task), str(language), "--layers", "0,3", "--average", "2", "--out", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.stdout.splitlines()[0] == str(out)
    assert updates(out) == {0: 1, 1: 20, 2: 16.5, 3: 4}
    against_base = ["swap", str(task), "--layers", "0-2", "--out", str(tmp_path / "upper")]
    assert CliRunner().invoke(app, against_base, catch_exceptions=False).exit_code == 0
    assert updates(tmp_path / "upper") == {0: 0, 1: 0, 2: 0, 3: 40}
