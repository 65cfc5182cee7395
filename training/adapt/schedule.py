"""How many steps the time allows, measured on steps of the run itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from training.pipeline import RunOptions
from training.recipe import Objective, Recipe, Stream, load_recipe

if TYPE_CHECKING:
    from search.encoder import Encoder

LEAST_STEPS = 20
MOST_PASSES = 6.0
"""Looks at every row beyond which a run learns the rows by heart."""
_SAMPLED_STEPS = 200
_MATRYOSHKA_FROM = 256
_TAUGHT = (Objective.NEUTRAL, Objective.PARALLEL)


@dataclass(frozen=True)
class Budget:
    """Seconds for the steps, and what one text costs to encode, in seconds."""

    seconds: float
    text_seconds: float


def fill_recipe(name: str, *, base: str, encoder: Encoder, counts: Mapping[str, int], seed: int) -> Recipe:
    """The recipe for this encoder and these rows: streams that have none are left out.

    Args:
        name: A recipe of the package or a TOML file.
        base: What the recipe trains: a built-in name, folder or hub id.
        encoder: The same, loaded.
        counts: Rows by data set.
        seed: Of the run.
    """
    whole = load_recipe(name)
    overrides: dict[str, Any] = {
        "base": base, "seed": seed, "query_prompt": encoder.manifest.query_prompt,
        "document_prompt": encoder.manifest.document_prompt,
        "training.max_tokens": min(whole.training.max_tokens, encoder.max_tokens),
    }  # fmt: skip
    if not whole.training.matryoshka and encoder.dimension >= _MATRYOSHKA_FROM:
        overrides["training.matryoshka"] = [encoder.dimension * part // 6 for part in (6, 4, 2, 1)]
    recipe = load_recipe(name, overrides=overrides)
    streams = tuple(stream for stream in recipe.streams if _has_rows(stream, counts))
    return recipe.model_copy(update={"streams": streams})


def _has_rows(stream: Stream, counts: Mapping[str, int]) -> bool:
    return any(fnmatch(name, pattern) for name in counts for pattern in stream.datasets)


def choose_steps(recipe: Recipe, options: RunOptions, counts: Mapping[str, int], budget: Budget) -> int:
    """Steps that fit into the budget, no more than MOST_PASSES over the rows; at least LEAST_STEPS.

    Makes a few steps of every stream; teacher vectors of the neutral streams are counted in.
    """
    from training.plan import plan_run

    sampled = recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": _SAMPLED_STEPS})})
    plan = plan_run(sampled, options, samples=2)
    total = sum(stream.weight for stream in recipe.streams)
    taught = sum(
        stream.weight / total * stream.batch_size
        for stream in recipe.streams if stream.objective in _TAUGHT
    )  # fmt: skip
    seconds = plan.seconds / plan.steps + taught * budget.text_seconds
    return max(LEAST_STEPS, min(int(budget.seconds / seconds), most_steps(recipe, counts)))


def most_steps(recipe: Recipe, counts: Mapping[str, int]) -> int:
    """Steps after which the contrastive streams have seen as many rows as MOST_PASSES over their data sets."""
    total = sum(stream.weight for stream in recipe.streams)
    taught = [stream for stream in recipe.streams if stream.objective not in _TAUGHT]
    rows = sum(
        count for name, count in counts.items()
        if any(fnmatch(name, pattern) for stream in taught for pattern in stream.datasets)
    )  # fmt: skip
    each_step = sum(stream.weight / total * stream.batch_size for stream in taught)
    return max(LEAST_STEPS, int(MOST_PASSES * rows / max(each_step, 1.0)))
