"""In which layers the shipped adapter does its work: its lowest or highest layers alone, the base's in the others.

    python -m benchmarks.layer_swap --eval EVAL --work FOLDER [--limit 200]

Each arm is `training swap` of the shipped adapter against its base, merged and judged in float32 on the same sets and
queries: pooled (debian-faq, every translation relevant), in one language (Turkish, Japanese, Chinese), and graded pairs
between languages (sts17). What is in FOLDER is not made again. Nothing is trained. Writes results/layer-swap.jsonl.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ablations import BASE, file_name, judge, record_once
from benchmarks.records import describe_run
from search.encoder.adapters import SHIPPED_ADAPTERS
from search.settings import DEFAULT_ENCODER, load_settings
from training.export import export_encoder
from training.model import base_folder
from training.recipe import load_recipe
from training.swap import swap_layers

LAYERS = 12
SETS = ("debian-faq", "tquad-dev", "jaquad-dev", "drcd-test", "sts17")
ARMS = {
    "base": (),
    "all layers": tuple(range(LAYERS)),
    **{f"lower {count}": tuple(range(count)) for count in (4, 6, 8)},
    **{f"upper {count}": tuple(range(LAYERS - count, LAYERS)) for count in (4, 6, 8)},
}
"""Layers that have the adapter's update."""


def make(layers: Collection[int], folder: Path) -> str:
    """The encoder with the adapter in these layers alone, made unless it is there; returns its name."""
    if not layers:
        return load_recipe(BASE).base
    if len(layers) == LAYERS:
        return DEFAULT_ENCODER
    encoder = folder / "encoder"
    if not encoder.exists():
        others = set(range(LAYERS)) - set(layers)
        adapter = swap_layers(SHIPPED_ADAPTERS / DEFAULT_ENCODER, None, folder / "adapter", layers=others)
        recipe = load_recipe(BASE)
        export_encoder(adapter, base_folder(recipe.base, load_settings().encoders_folder), encoder, recipe=recipe)
    return str(encoder)


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """An arm's figures."""
    encoder = make(ARMS[name], options.work / file_name(name))
    return {"arm": name, "layers": list(ARMS[name]), **judge(encoder, options, sets=SETS)}


def main() -> None:
    """Judge every arm; what was judged before is not judged again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200, help="queries of a set")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="NAME")
    options = parser.parse_args()
    run = describe_run(f"python -m benchmarks.layer_swap --limit {options.limit}")
    for name in options.arms:
        record_once("layer-swap", run, options.work / file_name(name), partial(measure, name, options))


if __name__ == "__main__":
    main()
