"""Layers of a transformer by number: lists of them, and the layer that a weight belongs to."""

from __future__ import annotations

import re
from collections.abc import Iterable

from search.errors import SettingsError

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
"""The first number in a weight's name is its layer's: `encoder.layer.3.output…`, `encoder.block.3.layer.0…`."""


def parse_layers(text: str) -> tuple[int, ...]:
    """Numbers of layers, counted from 0, ascending and each once.

    Worked: `10-11,0-2` is (0, 1, 2, 10, 11).

    Raises:
        SettingsError: It is no list of numbers and ranges.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise SettingsError(f"layers {text!r}: {part!r} is no layer; give numbers and ranges, such as 0-3,10-11")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def format_layers(layers: Iterable[int]) -> str:
    """What `parse_layers` reads, without ranges."""
    return ",".join(map(str, sorted(layers)))


def layer_of(name: str) -> int | None:
    """The layer that a weight of this name belongs to; none: to no layer, as the embeddings."""
    match = _NUMBER.search(name)
    return int(match[0]) if match else None


def in_layer(name: str, layer: int | str) -> str:
    """The name of the same weight in another layer."""
    return _NUMBER.sub(str(layer), name, count=1)
