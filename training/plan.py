"""What a recipe will take: parameters, memory, steps and time, measured on a few of its own batches on this device."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from training.data.schema import Row
from training.mixture import Batch, plan_batches
from training.model import add_adapter, base_folder, count_parameters, load_base, peak_memory
from training.neutral import neutral_texts
from training.pipeline import RunOptions, count_weights, prompted_encoder
from training.prepare import prepare
from training.recipe import Recipe, Training

HEAD_SAMPLE = 256
"""Texts of each side whose vectors are timed."""


@dataclass(frozen=True)
class StreamPlan:
    """One stream's share of a run."""

    objective: str
    steps: int
    texts_per_step: float
    seconds_per_step: float


@dataclass(frozen=True)
class Plan:
    """What a run takes on this device; evaluation on the dev split and the teacher's vectors come on top.

    Of a head, computing the vectors that it is fitted on is counted; fitting it takes a minute or two.

    Attributes:
        parameters: Parameters of the model with its adapter.
        trained_parameters: Those that are trained.
        steps: Steps of the run.
        seconds: Estimated time of the steps.
        peak_bytes: Largest memory of the sampled steps: the GPU's where there is one, else the process's.
        streams: By stream.
        head_texts: Texts that the head is fitted on; 0: no head.
        head_seconds: Estimated time of their vectors.
        languages: Languages in the data.
        rows: Rows of the data.
    """

    parameters: int
    trained_parameters: int
    steps: int
    seconds: float
    peak_bytes: int
    device: str
    rows: int
    languages: int
    streams: tuple[StreamPlan, ...]
    head_texts: int = 0
    head_seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def plan_run(recipe: Recipe, options: RunOptions, *, samples: int = 3) -> Plan:
    """Plan a run by making a few real steps of every stream, with the batches that the run would begin with.

    Args:
        recipe: The recipe.
        options: Where data and encoders are; nothing is written to `out`.
        samples: Steps timed for each stream, after one to warm up.

    Raises:
        TrainingDataError: The data is missing or bad.
        TrainingError: A step does not fit into memory.
    """
    prepared = prepare(recipe.data, options.data, held_out=None, seed=recipe.seed)
    texts, head_seconds, head = _plan_head(prepared.rows, recipe, options) if recipe.head.hidden else (0, 0.0, 0)
    if not recipe.streams:
        return Plan(
            count_weights(base_folder(recipe.base, options.encoders)) + head, head, 0, 0.0, peak_memory(), "cpu",
            sum(map(len, prepared.rows.values())), len(prepared.statistics.languages), (), texts, head_seconds,
        )  # fmt: skip
    batches = plan_batches(prepared.rows, recipe.streams, steps=recipe.training.steps, seed=recipe.seed)
    chosen = choose_samples(batches, samples + 1)
    model = load_base(recipe, options.encoders, device=options.device)
    add_adapter(model, recipe.lora)
    parameters, trained = count_parameters(model)
    seconds = _time_steps(model, chosen, recipe)
    steps = Counter(batch.stream for batch in batches)
    streams = tuple(
        StreamPlan(
            str(recipe.streams[number].objective), steps[number],
            fmean(len(batch.rows) * _texts(batch) for batch in chosen if batch.stream == number), seconds[number],
        )
        for number in sorted(steps)
    )  # fmt: skip
    total = sum(stream.steps * stream.seconds_per_step for stream in streams)
    return Plan(
        parameters + head, trained + head, len(batches), total, peak_memory(), str(model.device),
        sum(map(len, prepared.rows.values())), len(prepared.statistics.languages), streams, texts, head_seconds,
    )  # fmt: skip


def _plan_head(rows: Mapping[str, Sequence[Row]], recipe: Recipe, options: RunOptions) -> tuple[int, float, int]:
    """Texts of the head, seconds for their vectors, from a sample of both sides, and the head's parameters."""
    from training.head import draw_texts, head_size

    texts = draw_texts(rows, seed=recipe.seed)
    encoder = prompted_encoder(recipe, options)
    rng, seconds = random.Random(recipe.seed), 0.0
    for encode, side in ((encoder.encode_queries, texts.queries), (encoder.encode_documents, texts.documents)):
        sample = [text for _, text in rng.sample(side, min(HEAD_SAMPLE, len(side)))]
        for timed in (False, True):
            start = time.perf_counter()
            encode(sample[: None if timed else 8])
            seconds += timed * (time.perf_counter() - start) * len(side) / max(len(sample), 1)
    size = head_size(encoder.dimension, recipe.head.hidden)
    return len(texts.queries) + len(texts.documents), seconds, size


def choose_samples(batches: list[Batch], count: int) -> list[Batch]:
    """The first `count` batches of every stream, stream by stream; the first again where a stream has fewer."""
    found: dict[int, list[Batch]] = defaultdict(list)
    for batch in batches:
        if len(found[batch.stream]) < count:
            found[batch.stream].append(batch)
    return [(members * count)[place] for _, members in sorted(found.items()) for place in range(count)]


def _texts(batch: Batch) -> int:
    return len([name for name in batch.columns if name not in ("score", "label", "kind")])


def _time_steps(model: Any, chosen: list[Batch], recipe: Recipe) -> dict[int, float]:
    """Mean seconds of a step by stream, the first step of each left out."""
    import numpy as np
    import torch
    from transformers import TrainerCallback

    from training.run import lay_out, train

    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            times.append(-time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[-1] += time.perf_counter()

    texts = neutral_texts(chosen)
    any_vector = np.full(model.get_embedding_dimension(), 0.05, np.float32) if texts else None
    teacher = {(text, kind): any_vector for text, kind, _ in texts}
    quick = recipe.model_copy(update={"training": _without_evaluation(recipe.training, len(chosen))})
    with tempfile.TemporaryDirectory(prefix="training-plan-") as folder:
        train(model, lay_out(chosen, quick, teacher), quick, Path(folder), callbacks=(Clock(),))
    by_stream: dict[int, list[float]] = defaultdict(list)
    for batch, seconds in zip(chosen, times, strict=True):
        by_stream[batch.stream].append(seconds)
    return {number: fmean(taken[1:] or taken) for number, taken in by_stream.items()}


def _without_evaluation(training: Training, steps: int) -> Training:
    return training.model_copy(update={"evaluate_every": 0, "checkpoint_every": steps + 1, "steps": steps})


def render_plan(plan: Plan) -> str:
    """The plan as lines for people."""
    hours, minutes = divmod(round(plan.seconds / 60), 60)
    lines = [
        f"data        {plan.rows:,} rows in {plan.languages} languages",
        f"parameters  {plan.parameters:,}, trained {plan.trained_parameters:,}",
        f"memory      {plan.peak_bytes / 2**20:,.0f} MiB at the peak of the sampled steps, on {plan.device}",
    ]
    if plan.head_texts:
        lines.append(
            f"head        vectors of {plan.head_texts:,} texts, {plan.head_seconds / 60:.0f} min, and 1 or 2 to fit it"
        )
    if plan.steps:
        lines.append(f"time        {plan.steps:,} steps, {hours} h {minutes} min")
    lines += [
        f"  {stream.objective:<15} {stream.steps:>6,} steps of {stream.texts_per_step:,.0f} texts, "
        f"{stream.seconds_per_step:.2f} s each"
        for stream in plan.streams
    ]
    return "\n".join(lines)
