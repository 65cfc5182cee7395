"""Layers of one adapter in place of another's: a language expert and a task expert in one encoder.

Two adapters of one base, one trained for a task and one for a language, change different layers most. So an encoder
with the layers of both, each whole, may do the task in the language. Nothing is trained.

Source: Bandarkar et al., 2024, "Layer Swapping for Zero-Shot Cross-Lingual Transfer in Large Language Models",
arXiv 2410.01335 (the lowest and highest layers come from the language expert, the others from the task expert; layers
between the two are averaged).
Differs: experts are low-rank updates of an encoder, not all weights of a language model; which layers come from which
is the caller's choice; averaged layers have equal shares; the base itself can be the second expert.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from search.encoder.adapters import load_updates
from search.errors import TrainingError
from training.export import combine_adapters
from training.layers import format_layers, in_layer, layer_of


def swap_layers(
    adapter: Path, other: Path | None, out: Path, *, layers: Collection[int], averaged: Collection[int] = ()
) -> Path:
    """Write an adapter with the updates of `other` in some layers and those of `adapter` in the rest.

    Costs a second, and a file of the size of the larger adapter; with averaged layers, of both.

    Args:
        adapter: Folder of a LoRA adapter.
        other: Folder of another of the same base; none: the base as it is, without any update.
        out: Folder to write.
        layers: Numbers of the layers that come from `other`, counted from 0.
        averaged: Numbers of the layers that are the mean of both.

    Raises:
        TrainingError: They adapt different weights, a layer is not there or named twice, or none is left to `adapter`.
        EncoderError: An adapter cannot be read or is not plain LoRA.
    """
    adapters = [adapter, other] if other else [adapter]
    weights = [load_updates(path) for path in adapters]
    shapes = [{in_layer(name, "*"): update.shape for name, update in found.items()} for found in weights]
    if different := set(shapes[0].items()) ^ set(shapes[-1].items()):
        name, shape = min(different)
        raise TrainingError(
            f"{other}: adapts other weights than {adapter} ({name} of {'x'.join(map(str, shape))} is not in both); "
            "layers can be swapped between adapters of one base with the same lora.targets"
        )
    known = {layer for found in weights for name in found if (layer := layer_of(name)) is not None}
    _check(known, layers, averaged)

    def shares_of(name: str) -> list[float]:
        layer = layer_of(name)
        share = 0.5 if layer in averaged else float(layer in layers)
        return [1 - share, share][: len(adapters)]

    return combine_adapters(adapters, out, shares_of)


def _check(known: Collection[int], layers: Collection[int], averaged: Collection[int]) -> None:
    if unknown := {*layers, *averaged} - {*known}:
        raise TrainingError(f"no layer {format_layers(unknown)} in the adapters; they have {format_layers(known)}")
    if twice := {*layers} & {*averaged}:
        raise TrainingError(f"layer {format_layers(twice)} can be swapped or averaged, not both; name it once")
    if not layers and not averaged:
        raise TrainingError("no layer to swap; name some")
    if {*layers} >= {*known}:
        raise TrainingError("all layers would be the second adapter's, or the base's; leave some to the first")
