"""An encoder with fewer layers: what a smaller encoder starts from when it is taught by a larger one.

Without training its vectors mean little; the recipe `distil` teaches it the larger encoder's.

Source: Sanh et al., 2019, "DistilBERT, a distilled version of BERT", section 3 (a student starts from every other layer
of its teacher; the width stays, since it costs less time than depth).
Differs: any layers can be kept; embeddings, pooling and all else are copied too, so that it is an encoder at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search.encoder.adapters import WEIGHTS_FILE
from search.encoder.loading import resolve
from search.encoder.manifest import MANIFEST_FILE, read_json
from search.errors import EncoderError, TrainingError
from search.settings import Settings
from training.layers import format_layers, in_layer, layer_of
from training.outputs import refuse_existing
from training.vocabulary.folder import (
    Tensors,
    finish_folder,
    folder_bytes,
    read_weights,
    transformer_folder,
)

COUNTS = ("num_hidden_layers", "num_layers")
"""What BERT and T5 call the number of layers in `config.json`."""
KINDS = "layer_types"
"""A list in `config.json` that says of each layer how it attends, where layers differ."""


@dataclass(frozen=True, slots=True)
class Depth:
    """An encoder's layers, parameters, and bytes of its folder."""

    layers: int
    parameters: int
    disk_bytes: int


@dataclass(frozen=True, slots=True)
class ShrinkReport:
    """Sizes before and after, and which layers were kept."""

    before: Depth
    after: Depth
    kept: tuple[int, ...]

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def shrink_encoder(encoder: str, layers: Collection[int], out: Path, settings: Settings) -> ShrinkReport:
    """Write an encoder with some of the layers of another; `SentenceTransformer(out)` loads it.

    Prompts, tokenizer, pooling and language offsets stay. Costs a second.

    Args:
        encoder: Built-in name, folder or hub id.
        layers: Numbers of the layers to keep, counted from 0.
        out: Folder to make.
        settings: Where encoders are kept.

    Raises:
        TrainingError: A layer is not there, none or all are named, the first one cannot be left out, or `out` exists.
        EncoderError: The encoder cannot be found, or it has no transformer of numbered layers.
    """
    from safetensors.numpy import save_file

    refuse_existing(out)
    folder, manifest = resolve(encoder, settings.encoders_folder)
    transformer = transformer_folder(folder)
    config, tensors = read_json(transformer / "config.json"), read_weights(transformer)
    total = _count_layers(transformer, config, tensors)
    kept = tuple(sorted(set(layers)))
    _check(kept, total)
    fewer = keep_layers(tensors, kept)
    work = out.with_name(f".{out.name}-new")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder, work, ignore=shutil.ignore_patterns(MANIFEST_FILE))
    target = work / transformer.relative_to(folder)
    save_file(fewer, target / WEIGHTS_FILE, metadata={"format": "pt"})
    config.update({key: len(kept) for key in COUNTS if key in config})
    if KINDS in config:
        config[KINDS] = [config[KINDS][layer] for layer in kept]
    (target / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    record = {"base": manifest.name, "base_fingerprint": manifest.fingerprint}
    finish_folder(work, out, base=folder, fingerprint=manifest.fingerprint, record={
        **record, "shrunk": {"layers_before": total, "layers": list(kept)},
    })  # fmt: skip
    return ShrinkReport(measure_depth(folder), measure_depth(out), kept)


def measure_depth(folder: Path) -> Depth:
    """How large the encoder in a folder is.

    Raises:
        EncoderError: It has no transformer of numbered layers.
    """
    transformer = transformer_folder(folder)
    tensors = read_weights(transformer)
    layers = _count_layers(transformer, read_json(transformer / "config.json"), tensors)
    return Depth(layers, sum(tensor.size for tensor in tensors.values()), folder_bytes(folder))


def keep_layers(tensors: Tensors, layers: Collection[int]) -> Tensors:
    """The weights of these layers, numbered anew from 0, and all that belong to no layer.

    Raises:
        TrainingError: What becomes the first layer lacks a weight that the first one has, such as T5's positions.
    """
    places = {layer: place for place, layer in enumerate(sorted(layers))}
    kept: Tensors = {}
    for name, tensor in tensors.items():
        layer = layer_of(name)
        if layer is None or layer in places:
            kept[name if layer is None else in_layer(name, places[layer])] = tensor
    needed = {name for name in tensors if (layer := layer_of(name)) is None or layer < len(places)}
    if different := sorted(needed ^ kept.keys()):
        raise TrainingError(f"layers differ in their weights ({different[0]}): keep the first ones, 0 above all")
    return kept


def _count_layers(transformer: Path, config: dict[str, Any], tensors: Tensors) -> int:
    counts = {config[key] for key in COUNTS if key in config}
    found = {layer for name in tensors if (layer := layer_of(name)) is not None}
    if len(counts) != 1 or found != set(range(max(counts))):
        raise EncoderError(
            f"{transformer}: config.json names {format_layers(counts) or 'no'} layers, the weights have {len(found)}; "
            "only transformers with numbered layers, such as BERT's or T5's encoder, can be made smaller"
        )
    return len(found)


def _check(kept: Collection[int], total: int) -> None:
    if not kept:
        raise TrainingError(f"no layer is kept; name some of 0 to {total - 1}, such as 0 and {total - 1}")
    if unknown := [layer for layer in kept if not 0 <= layer < total]:
        raise TrainingError(f"no layer {format_layers(unknown)}: the encoder has layers 0 to {total - 1}")
    if len(kept) == total:
        raise TrainingError(f"all {total} layers are kept; name fewer of 0 to {total - 1}")
