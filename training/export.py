"""From a trained adapter to an encoder folder that anyone can load, and to one that is shipped with the package."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search.balance import OFFSETS_FILE
from search.encoder.adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    WEIGHTS_FILE,
    head_files,
    load_updates,
    merge_adapter,
)
from search.encoder.manifest import MANIFEST_FILE, MODULES_FILE, read_model_type
from search.errors import TrainingError
from training.layers import layer_of
from training.outputs import refuse_existing
from training.recipe import Kind, Recipe

DESCRIPTION_FILE = "panlingua.json"
TRAINING_STATE = (
    *("optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state*", "trainer_state.json", "training_args.bin"),
    "README.md",
)
TEXT_FILES = ("tokenizer*", "special_tokens_map.json", "sentence_bert_config.json")
"""How a text is cut into tokens, and after how many of them."""
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
Factor = npt.NDArray[np.float32]
KEPT_CONFIG = ("peft_type", "r", "lora_alpha", "target_modules", "bias", "task_type")


def export_encoder(
    adapter: Path | None, base: Path, out: Path, *, recipe: Recipe, run: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Merge an adapter into its base and describe the result; `SentenceTransformer(out)` loads it.

    Other kinds than dense are loaded by `CrossEncoder`, `MultiVectorEncoder` and `SparseEncoder` instead.

    Args:
        adapter: Folder of the trained adapter, or of a whole trained model; none: the base, which has a head, is all.
        base: Folder of the base, with its head where it has one.
        out: Folder to make.
        recipe: What it was trained by.
        run: What is known of the run (`run.json`).
        evaluation: Figures to keep with it.

    Raises:
        TrainingError: `out` is there already.
        EncoderError: The adapter does not fit the base.
    """
    refuse_existing(out)
    if adapter and recipe.kind is not Kind.DENSE and not (adapter / MODULES_FILE).is_file():
        raise TrainingError(
            f"{adapter}: an adapter without the head that a recipe of kind {recipe.kind} trains (averaged and swapped "
            "ones have none); give the run's folder or a checkpoint."
        )
    work = out.with_name(f".{out.name}-new")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if adapter is None:
        shutil.copytree(base, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_FILE))
    elif (adapter / ADAPTER_WEIGHTS).is_file():  # first: a checkpoint of an adapter has modules.json as well
        merge_adapter(base, adapter, work)
        if recipe.kind is not Kind.DENSE:
            # A pair is cut where it was in training, a single text where the base cuts it, as by a dense encoder.
            _replace_head(adapter, work, but=() if recipe.kind is Kind.RERANK else TEXT_FILES)
    elif recipe.kind is Kind.DENSE:
        _save_as_base(adapter, base, work)
    else:
        shutil.copytree(adapter, work, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*TRAINING_STATE))
        for path in () if recipe.kind is Kind.RERANK else chain.from_iterable(map(base.glob, TEXT_FILES)):
            shutil.copyfile(path, work / path.name)
    if recipe.kind is Kind.DENSE:
        _keep_offsets(base, work)
    if recipe.kind is not Kind.RERANK:
        write_prompts(work, recipe)
    record = describe(recipe, run or {}, evaluation or {})
    (work / DESCRIPTION_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False), "utf-8")
    work.replace(out)
    return out


def describe(recipe: Recipe, run: Mapping[str, Any], evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a trained encoder: where it comes from and what it is good for."""
    has_adapter = recipe.streams and recipe.lora.rank
    texts: dict[str, int] = {}
    for counts in run.get("data", {}).get("texts", {}).values():
        for lang, count in counts.items():
            texts[lang] = texts.get(lang, 0) + count
    return {
        "name": recipe.name, "base": recipe.base, "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "adapter": {"rank": recipe.lora.rank, "alpha": recipe.lora.alpha} if has_adapter else None,
        "prompts": {"query": recipe.query_prompt, "document": recipe.document_prompt},
        "dimensions": list(recipe.training.matryoshka) or None, "languages": dict(sorted(texts.items())),
        "recipe": json.loads(recipe.model_dump_json()), "data_fingerprint": run.get("data", {}).get("fingerprint"),
        "seed": recipe.seed, "versions": run.get("versions", {}), "evaluation": dict(evaluation),
    }  # fmt: skip


def average_adapters(adapters: Sequence[Path], out: Path, *, weights: Sequence[float] | None = None) -> Path:
    """The mean of several adapters' updates as one adapter: of checkpoints of a run, or of runs.

    The updates B A are averaged, not the factors, whose mean is not the mean of the products: factors are laid side by
    side, so the rank is the sum of the ranks.

    Args:
        adapters: Folders of LoRA adapters of one base.
        out: Folder to write.
        weights: Share of each; none: equal.

    Raises:
        TrainingError: They differ in the weights that they adapt, or there is none.

    Source: Wortsman et al., 2022, "Model soups", section 2 (uniform soup), here of low-rank updates.
    """
    if not adapters:
        raise TrainingError("no adapters to average")
    shares = list(weights) if weights else [1 / len(adapters)] * len(adapters)
    updates = [load_updates(path) for path in adapters]  # refuses what is damaged or is not plain LoRA
    shapes = [{name: update.shape for name, update in found.items()} for found in updates]
    if len(shares) != len(adapters) or any(found != shapes[0] for found in shapes):
        raise TrainingError("adapters can be averaged only when they adapt the same weights, with one share for each")
    return combine_adapters(adapters, out, lambda _: shares)


def combine_adapters(adapters: Sequence[Path], out: Path, shares_of: Callable[[str], Sequence[float]]) -> Path:
    """Write the sum of plain LoRA adapters' updates, each weight with shares of its own, as one adapter.

    Factors are laid side by side, without those whose share is 0. The rank is what the longest sum takes; others are
    filled up with zeros.

    Args:
        adapters: Folders of adapters of one base; one that lacks a weight adds nothing to it.
        out: Folder to write.
        shares_of: The share of each adapter in the weight of this name.

    Raises:
        TrainingError: `out` is there already, or an adapter has a head, as those of other kinds than dense.
    """
    from safetensors.numpy import load_file, save_file

    refuse_existing(out)
    for path in adapters:
        if (kind := read_model_type(path)) not in (None, "SentenceTransformer"):
            raise TrainingError(f"{path}: a {kind}, whose head cannot be combined; adapters of dense encoders can")
    configs = [json.loads((path / ADAPTER_CONFIG).read_text("utf-8")) for path in adapters]
    loaded = [load_file(path / ADAPTER_WEIGHTS) for path in adapters]
    scales = [config["lora_alpha"] / config["r"] for config in configs]
    sums: dict[str, tuple[Factor, Factor]] = {}
    for down in dict.fromkeys(name for tensors in loaded for name in tensors if name.endswith(DOWN)):
        terms = [
            (share * scale, tensors[down].astype(np.float32), tensors[down.replace(DOWN, UP)].astype(np.float32))
            for share, scale, tensors in zip(shares_of(down), scales, loaded, strict=True)
            if down in tensors
        ]
        sums[down] = _side_by_side(terms)
    rank = max([1, *(len(a) for a, _ in sums.values())])
    factors = {}
    for down, (a, b) in sums.items():
        factors[down] = np.pad(a, ((0, rank - len(a)), (0, 0)))
        factors[down.replace(DOWN, UP)] = np.pad(b, ((0, 0), (0, rank - len(a))))
    config = {**configs[0], "r": rank, "lora_alpha": rank}
    if any(each.get("layers_to_transform") for each in configs):
        config["layers_to_transform"] = sorted({layer for name in sums if (layer := layer_of(name)) is not None})
    out.mkdir(parents=True, exist_ok=True)
    save_file(factors, out / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    (out / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2), "utf-8")
    return out


def _side_by_side(terms: Sequence[tuple[float, Factor, Factor]]) -> tuple[Factor, Factor]:
    """Factors (r, in) and (out, r) whose product is the sum of the terms' products, each times its number."""
    _, a, b = terms[0]
    used = [term for term in terms if term[0]] or [(0.0, a[:0], b[:, :0])]
    return np.concatenate([a for _, a, _ in used]), np.concatenate([scale * b for scale, _, b in used], axis=1)


def shrink_adapter(adapter: Path | None, out: Path, *, base: Path | None = None) -> Path:
    """A copy in float16 and without paths of the machine that trained it: what is committed.

    Args:
        adapter: Folder of the adapter; none: the head alone.
        out: Folder to make.
        base: Folder of the encoder whose modules after the network, its head, go with it; none: the adapter alone.
    """
    from safetensors.numpy import load_file, save_file

    refuse_existing(out)
    if adapter:
        load_updates(adapter)  # refuses what cannot be merged: the copy would not show it
    out.mkdir(parents=True, exist_ok=True)
    if adapter:
        tensors = {name: value.astype(np.float16) for name, value in load_file(adapter / ADAPTER_WEIGHTS).items()}
        save_file(tensors, out / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        config = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8"))
        kept = {key: config[key] for key in KEPT_CONFIG} | {"target_modules": sorted(config["target_modules"])}
        (out / ADAPTER_CONFIG).write_text(json.dumps(kept, indent=2), "utf-8")
    if base:
        _copy_head(base, out)
    return out


def _copy_head(base: Path, out: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for path in head_files(base):
        (out / path).parent.mkdir(exist_ok=True)
        if path.name == WEIGHTS_FILE:
            halves = {name: value.astype(np.float16) for name, value in load_file(base / path).items()}
            save_file(halves, out / path, metadata={"format": "pt"})
        else:
            shutil.copyfile(base / path, out / path)


def _save_as_base(trained: Path, base: Path, folder: Path) -> None:
    """A whole model with its base's token limit and precision, not those of its training."""
    from safetensors.torch import load_file, save_file
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(trained), device="cpu", local_files_only=True)
    model.max_seq_length = SentenceTransformer(str(base), device="cpu", local_files_only=True).max_seq_length
    model.save_pretrained(str(folder), create_model_card=False)
    if (base / WEIGHTS_FILE).is_file():
        before, tensors = load_file(base / WEIGHTS_FILE), load_file(folder / WEIGHTS_FILE)
        kept = {name: tensor.to(before.get(name, tensor).dtype) for name, tensor in tensors.items()}
        save_file(kept, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def _keep_offsets(base: Path, folder: Path) -> None:
    """Language offsets of the base, which merging an adapter keeps and saving a whole model does not."""
    if (base / OFFSETS_FILE).is_file():
        (folder / OFFSETS_FILE).parent.mkdir(exist_ok=True)
        shutil.copyfile(base / OFFSETS_FILE, folder / OFFSETS_FILE)


def _replace_head(adapter: Path, folder: Path, but: Sequence[str]) -> None:
    """Make the modules after the transformer those that were trained with the adapter; files `but` stay the base's."""
    for item in folder.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
    unwanted = shutil.ignore_patterns(ADAPTER_WEIGHTS, ADAPTER_CONFIG, *TRAINING_STATE, *but)
    shutil.copytree(adapter, folder, dirs_exist_ok=True, ignore=unwanted)


def write_prompts(folder: Path, recipe: Recipe) -> None:
    """Make the recipe's prompts those of the encoder in a folder."""
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    config["prompts"] = {"query": recipe.query_prompt, "document": recipe.document_prompt}
    path.write_text(json.dumps(config, indent=2), "utf-8")
