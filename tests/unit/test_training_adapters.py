"""Adapters: merging, averaging, shrinking, fingerprints; and which checkpoint is the last whole one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from search.encoder.adapters import fingerprint_adapted, load_updates, merge_adapter
from search.errors import EncoderError, TrainingError
from training.export import average_adapters, shrink_adapter
from training.run import last_checkpoint

WEIGHT = "encoder.layer.0.attention.self.query.weight"
FULL_CONFIG = {"bias": "none", "task_type": "FEATURE_EXTRACTION", "target_modules": ["query"]}


def save_adapter(folder: Path, down: Any, up: Any, *, alpha: float = 4.0, name: str = WEIGHT, **config: Any) -> Path:
    folder.mkdir(parents=True)
    stem = "base_model.model." + name.removesuffix(".weight")
    factors = {f"{stem}.lora_A.weight": np.array(down, np.float32), f"{stem}.lora_B.weight": np.array(up, np.float32)}
    save_file(factors, folder / "adapter_model.safetensors")
    rank = len(factors[f"{stem}.lora_A.weight"])
    content = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        **FULL_CONFIG,
        "base_model_name_or_path": "/home/me",
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(content), "utf-8")
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "1_Pooling" / "config.json").write_text("{}", "utf-8")
    (folder / "modules.json").write_text("[]", "utf-8")
    (folder / "manifest.json").write_text("{}", "utf-8")
    weights = {WEIGHT: np.arange(6, dtype=np.float32).reshape(2, 3), "other.weight": np.ones((2, 2), np.float32)}
    save_file(weights, folder / "model.safetensors")
    return folder


def test_merging_adds_alpha_over_rank_times_the_product(base: Path, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "a", [[1, 0, 2], [0, 1, 0]], [[1, 1], [0, 3]], alpha=4.0)
    out = tmp_path / "out"
    out.mkdir()
    merge_adapter(base, adapter, out)
    merged = load_file(out / "model.safetensors")
    # 4 / 2 * [[1, 1, 2], [0, 3, 0]]
    np.testing.assert_array_equal(merged[WEIGHT], [[0 + 2, 1 + 2, 2 + 4], [3, 4 + 6, 5]])
    np.testing.assert_array_equal(merged["other.weight"], np.ones((2, 2)))
    assert (out / "1_Pooling" / "config.json").is_file()
    assert (out / "modules.json").is_file()
    assert not (out / "manifest.json").exists()


def test_merging_keeps_the_precision_of_the_base(base: Path, tmp_path: Path) -> None:
    save_file({WEIGHT: np.zeros((2, 3), np.float16)}, base / "model.safetensors")
    out = tmp_path / "out"
    out.mkdir()
    merge_adapter(base, save_adapter(tmp_path / "a", [[1, 2, 3]], [[1], [1]], alpha=1), out)
    assert load_file(out / "model.safetensors")[WEIGHT].dtype == np.float16


@pytest.mark.parametrize(
    ("name", "down"), [("encoder.layer.9.query.weight", [[1, 0, 2]]), (WEIGHT, [[1, 0, 2, 3]])], ids=["name", "shape"]
)
def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path, name: str, down: Any) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(EncoderError, match="made for another base than base"):
        merge_adapter(base, save_adapter(tmp_path / "a", down, [[1], [0]], name=name), tmp_path / "out")


def test_damaged_adapters_and_bases_are_named(base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    adapter = save_adapter(tmp_path / "a", [[1, 0, 2]], [[1], [0]])
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    for content in (weights[:-5], b"", b"\xff" * 40):
        (adapter / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(EncoderError, match="not an adapter that can be merged"):
            load_updates(adapter)
    (adapter / "adapter_model.safetensors").write_bytes(weights)
    (adapter / "adapter_config.json").write_text("{", "utf-8")
    with pytest.raises(EncoderError, match="not an adapter"):
        load_updates(adapter)
    with pytest.raises(EncoderError, match="not an adapter"):
        load_updates(tmp_path / "none")
    (base / "model.safetensors").unlink()
    with pytest.raises(EncoderError, match="no base to merge"):
        merge_adapter(base, save_adapter(tmp_path / "b", [[1, 0, 2]], [[1], [0]]), tmp_path / "out")


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"use_rslora": True},
        {"rank_pattern": {"x": 3}},
        {"alpha_pattern": {"x": 3}},
        {"peft_type": "LOHA"},
    ],
)
def test_other_kinds_of_adapters_are_refused_everywhere(tmp_path: Path, config: dict[str, Any]) -> None:
    adapter = save_adapter(tmp_path / "a", [[1, 0, 2]], [[1], [0]], **config)
    for use in (
        load_updates,
        lambda path: shrink_adapter(path, tmp_path / "s"),
        lambda path: average_adapters([path], tmp_path / "m"),
    ):
        with pytest.raises(EncoderError, match="only plain LoRA"):
            use(adapter)
    assert not (tmp_path / "s").exists()


def test_the_average_is_that_of_the_products_not_of_the_factors(tmp_path: Path) -> None:
    first = save_adapter(tmp_path / "a", [[1, 0, 0]], [[2], [0]], alpha=1.0)
    second = save_adapter(tmp_path / "b", [[0, 1, 0], [0, 0, 1]], [[0, 0], [4, 6]], alpha=4.0)
    averaged = average_adapters([first, second], tmp_path / "mean")
    # updates: [[2, 0, 0], [0, 0, 0]] and 4 / 2 * [[0, 0, 0], [0, 4, 6]]
    np.testing.assert_allclose(load_updates(averaged)[WEIGHT], [[1, 0, 0], [0, 4, 6]])
    assert json.loads((averaged / "adapter_config.json").read_text("utf-8"))["r"] == 3
    weighted = average_adapters([first, second], tmp_path / "weighted", weights=[0.75, 0.25])
    np.testing.assert_allclose(load_updates(weighted)[WEIGHT], [[1.5, 0, 0], [0, 2, 3]])


def test_adapters_that_do_not_match_are_not_averaged(tmp_path: Path) -> None:
    first = save_adapter(tmp_path / "a", [[1, 0, 0]], [[2], [0]])
    other = save_adapter(tmp_path / "b", [[1, 0, 0]], [[2], [0]], name="encoder.layer.1.query.weight")
    wide = save_adapter(tmp_path / "c", [[1, 0, 0, 0]], [[2], [0]])
    for wrong in (other, wide):
        with pytest.raises(TrainingError, match="adapt the same weights"):
            average_adapters([first, wrong], tmp_path / "mean")
    with pytest.raises(TrainingError, match="one share for each"):
        average_adapters([first], tmp_path / "mean", weights=[0.5, 0.5])
    with pytest.raises(TrainingError, match="no adapters"):
        average_adapters([], tmp_path / "mean")


def test_a_shrunk_adapter_is_half_the_size_and_names_no_machine(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    adapter = save_adapter(tmp_path / "a", rng.normal(size=(8, 64)), rng.normal(size=(64, 8)))
    small = shrink_adapter(adapter, tmp_path / "small")
    sizes = [(folder / "adapter_model.safetensors").stat().st_size for folder in (adapter, small)]
    assert sizes[1] < 0.6 * sizes[0]
    assert "/home/me" not in (small / "adapter_config.json").read_text("utf-8")
    np.testing.assert_allclose(load_updates(small)[WEIGHT], load_updates(adapter)[WEIGHT], atol=0.02)


def test_fingerprints_follow_base_and_adapter(tmp_path: Path) -> None:
    first = save_adapter(tmp_path / "a", [[1, 0, 0]], [[2], [0]])
    same = save_adapter(tmp_path / "b", [[1, 0, 0]], [[2], [0]])
    weights = save_adapter(tmp_path / "c", [[1, 0, 0]], [[2], [1e-3]])
    alpha = save_adapter(tmp_path / "d", [[1, 0, 0]], [[2], [0]], alpha=8.0)
    assert fingerprint_adapted("x", first) == fingerprint_adapted("x", same)
    others = [fingerprint_adapted("y", first), fingerprint_adapted("x", weights), fingerprint_adapted("x", alpha)]
    assert len({fingerprint_adapted("x", first), *others}) == 4
    with pytest.raises(EncoderError, match="no adapter there"):
        fingerprint_adapted("x", tmp_path / "none")


def test_half_written_checkpoints_are_passed_over(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path / "none") is None
    for step, state, optimizer in ((9, '{"global_step": 9}', True), (100, '{"global_step": 100}', True),
                                   (200, '{"global_st', True), (300, None, True), (400, '{"global_step": 400}', False),
                                   (500, "[]", True)):  # fmt: skip
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state, "utf-8")
        if optimizer:
            (folder / "optimizer.pt").write_bytes(b"x")
    (tmp_path / "checkpoint-last").mkdir()
    (tmp_path / "checkpoint-last" / "trainer_state.json").write_text("{}", "utf-8")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
