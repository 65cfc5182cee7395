"""What comes after the pooling of an encoder, on vectors that were pooled elsewhere: dense layers, computed with numpy.

Where single sentences of a passage are compared, their vectors are means over tokens that were read for other reasons.
An encoder with dense layers after its pooling has made something else of such means, often of another size.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from search.encoder.manifest import read_json, read_modules
from search.errors import EncoderError
from search.records import Vectors

Layer: TypeAlias = Callable[[Vectors], Vectors]


class Head:
    """The layers after the pooling; none: the vectors at unit length."""

    def __init__(self, layers: tuple[Layer, ...] = ()) -> None:
        self._layers = layers

    def __call__(self, pooled: Vectors) -> Vectors:
        """Vectors (N, D) float32 of unit length, of means over tokens (N, H); what is 0 stays 0 without layers."""
        vectors = pooled.astype(np.float32)
        for layer in self._layers:
            vectors = layer(vectors)
        return unit(vectors)


def load_head(folder: Path) -> Head:
    """The head of the encoder in a folder.

    Raises:
        EncoderError: A module after the pooling is neither `Dense` nor `Normalize`, or has an unknown activation.
    """
    names = [(str(module["type"]).rpartition(".")[2], str(module.get("path", ""))) for module in read_modules(folder)]
    pooling = next((place for place, (name, _) in enumerate(names) if name == "Pooling"), len(names))
    return Head(tuple(_load_layer(folder / path, name) for name, path in names[pooling + 1 :] if name != "Dropout"))


def _load_layer(folder: Path, name: str) -> Layer:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if name == "Normalize":
        return unit
    activations: dict[str, Layer] = {"Identity": _same, "Tanh": np.tanh, "ReLU": _relu, "GELU": gelu}
    config = read_json(folder / "config.json") if name == "Dense" else {}
    kind = str(config.get("activation_function", "")).rpartition(".")[2]
    if kind not in activations or config.get("use_residual"):
        raise EncoderError(f"{folder}: sentences are not compared with an encoder that ends in {name} {kind}".rstrip())
    try:
        weights = load_file(folder / "model.safetensors")
        matrix = weights["linear.weight"].astype(np.float32).T
    except (OSError, KeyError, SafetensorError) as error:
        raise EncoderError(f"{folder}: a layer cannot be read ({error}); save the encoder again") from error
    bias = weights["linear.bias"].astype(np.float32) if "linear.bias" in weights else np.float32(0)
    activation = activations[kind]
    return lambda vectors: activation(vectors @ matrix + bias)


def unit(vectors: Vectors) -> Vectors:
    """Vectors (N, D) at unit length."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)


def gelu(vectors: Vectors) -> Vectors:
    """x Phi(x), as torch computes it by default (Hendrycks and Gimpel, 2016, section 2)."""
    from scipy.special import erf

    return np.asarray(vectors * 0.5 * (1 + erf(vectors / np.sqrt(2))), np.float32)


def _same(vectors: Vectors) -> Vectors:
    return vectors


def _relu(vectors: Vectors) -> Vectors:
    return np.maximum(vectors, 0)
