"""A recipe, run from its data to a folder that holds everything about the run."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.balance import OFFSETS_FILE
from search.encoder import Encoder, load_encoder
from search.encoder.loading import whole_address
from search.errors import RecipeError, TrainingDataError, TrainingError
from training.mixture import Batch, plan_batches
from training.model import base_folder
from training.neutral import build_teacher, neutral_texts
from training.outputs import hold_folder, refuse_inside
from training.prepare import Prepared, build_evaluator, build_reranking_evaluator, prepare
from training.recipe import OWN, Kind, Recipe, load_recipe

if TYPE_CHECKING:
    from training.data.schema import Row
    from training.model import Model

RECIPE_FILE = "recipe.toml"
RUN_FILE = "run.json"
BASE_FOLDER = "base"
"""The base with its head, in the folder of a run whose recipe has one."""
PACKAGES = ("torch", "sentence-transformers", "transformers", "peft", "datasets", "accelerate", "numpy")
Report = Callable[[str], None]


@dataclass(frozen=True)
class RunOptions:
    """Where a run reads and writes.

    Attributes:
        data: Folder of the recipe's files.
        out: Folder of the run.
        encoders: Folder of converted and downloaded encoders.
        held_out: Folder of evaluation sets whose texts are not trained on.
        resume: Go on from the folder's last checkpoint.
        device: `cpu`, `cuda`, ...; none: the GPU where there is one.
        threads: CPU threads; none: all cores.
        backend: Backend of the encoder that makes the teacher's vectors.
        adapter: Folder of an adapter to start from.
    """

    data: Path
    out: Path
    encoders: Path
    held_out: Path | None = None
    resume: bool = False
    device: str | None = None
    threads: int | None = None
    backend: str = "auto"
    adapter: Path | None = None


def run_recipe(recipe: Recipe, options: RunOptions, *, report: Report = print, progress: Any = None) -> Path:
    """Train as the recipe says; the adapter (or the whole model) is in `adapter/` of the run folder.

    Raises:
        TrainingError: The folder holds another run, or training had to stop.
        TrainingDataError: The data is missing or bad.
    """
    if options.adapter and (not recipe.lora.rank or recipe.kind is not Kind.DENSE):
        raise TrainingError("--adapter is for dense encoders trained with lora.rank above 0: leave it out")
    if not recipe.streams and not recipe.head.hidden:
        raise TrainingDataError("nothing to train on: the recipe has neither [[streams]] nor a [head]")
    if options.out.resolve() == options.data.resolve() or any("/" in pattern for pattern in recipe.data.files):
        refuse_inside(options.out, options.data)  # else no pattern reaches what is written there
    recipe = recipe.model_copy(update={"base": whole_address(recipe.base)})  # the run is exported from any folder
    if options.adapter and not recipe.streams:
        raise TrainingError("--adapter is where training starts, and this recipe has no [[streams]]: leave it out")
    processes = Processes.join(options.device)
    with hold_folder(options.out) if processes.is_first else nullcontext():
        return _run(recipe, options, processes, report, progress)


def _run(recipe: Recipe, options: RunOptions, processes: Processes, report: Report, progress: Any) -> Path:
    import torch

    from training.curves import plot_curves
    from training.model import add_adapter, count_parameters, load_base
    from training.run import METRICS, lay_out, train

    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(recipe.seed)
    say = report if processes.is_first else _quiet
    _open_folder(recipe, options, write=processes.is_first)
    prepared = prepare(recipe.data, options.data, held_out=options.held_out, seed=recipe.seed)
    _check_same_data(prepared, options)
    say(f"{sum(map(len, prepared.rows.values())):,} rows in {len(prepared.statistics.languages)} languages")
    steps = recipe.training.steps if recipe.streams else 0
    batches = plan_batches(prepared.rows, recipe.streams, steps=steps, seed=recipe.seed)
    if recipe.head.hidden and processes.is_first:
        _write_run_file(recipe, options, prepared, batches, (0, 0))  # what is resumed is known by it
        _make_base(prepared.rows, recipe, options, say)
    processes.wait()
    if not recipe.streams:
        if processes.is_first:
            sizes = count_weights(options.out / BASE_FOLDER), _count_head(recipe, options)
            _write_run_file(recipe, options, prepared, batches, sizes)
        return options.out
    model = load_base(recipe, options.encoders, folder=run_base(recipe, options), device=options.device)
    if recipe.training.matryoshka:
        dense: Any = model  # the recipe has seen to it
        _check_dimensions(recipe, dense.get_embedding_dimension())
    teacher = _teacher(batches, recipe, options, model, say, processes)
    add_adapter(model, recipe.lora)
    if options.adapter:
        load_adapter_weights(model, options.adapter)
    total, trained = count_parameters(model)
    say(f"{total:,} parameters, {trained:,} trained; {len(batches)} steps")
    if processes.is_first:
        _write_run_file(recipe, options, prepared, batches, (total, trained + _count_head(recipe, options)))
    build = build_reranking_evaluator if recipe.kind is Kind.RERANK else build_evaluator
    evaluator = build(prepared.dev, recipe) if recipe.training.evaluate_every else None
    train(
        model, lay_out(batches, recipe, teacher), recipe, options.out, evaluator=evaluator, resume=options.resume,
        progress=progress,
    )  # fmt: skip
    if processes.is_first:
        save_trained(model, options.out / "adapter")
        plot_curves(options.out / METRICS, options.out / "curves.png")
    return options.out


def run_base(recipe: Recipe, options: RunOptions) -> Path:
    """Folder of the encoder that a run trains: the recipe's base, with its head if it has one."""
    return options.out / BASE_FOLDER if recipe.head.hidden else base_folder(recipe.base, options.encoders)


def _make_base(rows: Mapping[str, Sequence[Row]], recipe: Recipe, options: RunOptions, say: Report) -> None:
    """The base with its head, once for a run."""
    import torch

    from training.export import write_prompts
    from training.head import append_head, draw_texts, fit_head

    folder = options.out / BASE_FOLDER
    if options.resume and folder.is_dir():
        return
    texts = draw_texts(rows, seed=recipe.seed)
    say(f"head: vectors of {len(texts.queries):,} queries and {len(texts.documents):,} documents ...")
    base = base_folder(recipe.base, options.encoders)
    encoder = prompted_encoder(recipe, options)
    _check_dimensions(recipe, encoder.dimension)
    head, losses = fit_head(
        texts, encoder, recipe.head, kept_mean=recipe.training.teacher_mean,
        dims=recipe.training.matryoshka, seed=recipe.seed,
    )  # fmt: skip
    say("head: " + ", ".join(f"{name} loss {loss}" for name, loss in losses.items()))
    work = folder.with_name(f".{folder.name}-new")
    for old in (work, folder):
        shutil.rmtree(old, ignore_errors=True)
    with torch.random.fork_rng(devices=[]):  # a run that resumes with the head made draws the same numbers
        append_head(base, head, work)
    write_prompts(work, recipe)
    work.replace(folder)


def prompted_encoder(recipe: Recipe, options: RunOptions) -> Encoder:
    """The base, with the recipe's prompts: those that the trained encoder will have."""
    encoder = encoder_at(str(base_folder(recipe.base, options.encoders)), options)
    encoder.manifest = replace(
        encoder.manifest, query_prompt=recipe.query_prompt, document_prompt=recipe.document_prompt
    )
    return encoder


def count_weights(folder: Path) -> int:
    """All parameters of the encoder in a folder."""
    from safetensors import safe_open

    count = 0
    for path in set(folder.rglob("*.safetensors")) - {folder / OFFSETS_FILE}:
        with safe_open(path, "np") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  # no mapping
    return count


def _count_head(recipe: Recipe, options: RunOptions) -> int:
    """Parameters of the run's head."""
    if not recipe.head.hidden:
        return 0
    return count_weights(options.out / BASE_FOLDER) - count_weights(base_folder(recipe.base, options.encoders))


@dataclass(frozen=True)
class Processes:
    """The processes that `torchrun` started, seen from one of them; the first one writes, the others read."""

    is_first: bool = True
    wait: Callable[[], None] = lambda: None

    @classmethod
    def join(cls, device: str | None) -> Processes:
        """Meet the other processes; without `torchrun` there are none."""
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        import torch
        from accelerate import PartialState

        state = PartialState(cpu=device == "cpu" or not torch.cuda.is_available())
        return cls(bool(state.is_main_process), state.wait_for_everyone)


def _quiet(_message: str) -> None:
    """Say nothing."""


def save_trained(model: Model, folder: Path) -> None:
    """The adapter alone where the model has one, with the head of a kind that has one; else the whole model."""
    from sentence_transformers import SentenceTransformer

    from training.model import network

    if network(model)._hf_peft_config_loaded and isinstance(model, SentenceTransformer):
        network(model).save_pretrained(str(folder))
    else:
        model.save_pretrained(str(folder), create_model_card=False)


def load_adapter_weights(model: Model, folder: Path) -> None:
    """Start from an adapter of the same shape.

    Raises:
        TrainingError: It has another shape.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    from training.model import network

    try:
        state = load_file(str(folder / "adapter_model.safetensors"))
        result: Any = set_peft_model_state_dict(network(model), state)
    except (OSError, RuntimeError, ValueError) as error:  # torch lists every weight that does not fit
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"{folder}: not an adapter for this model ({reason}); its recipe's [lora] must be the same."
        ) from error
    absent = [name for name in result.missing_keys if ".lora_" in name]
    if wrong := [*result.unexpected_keys, *absent]:
        raise TrainingError(
            f"{folder}: an adapter of another shape ({wrong[0]}); its recipe's [lora] must be the same."
        )


def _open_folder(recipe: Recipe, options: RunOptions, *, write: bool) -> None:
    import tomli_w

    from training.run import last_checkpoint

    kept = options.out / RECIPE_FILE
    resolved = tomli_w.dumps(json.loads(recipe.model_dump_json(exclude_none=True)))
    if options.resume and kept.is_file() and load_recipe(str(kept)) != recipe:
        raise TrainingError(
            f"{options.out} was made by another recipe ({kept}); resume with that file, or take a new --out."
        )
    if not options.resume and (options.out / BASE_FOLDER).is_dir():
        raise TrainingError(f"{options.out} holds a run with a head; add --resume to go on, or take a new --out.")
    if not options.resume and last_checkpoint(options.out / "checkpoints"):
        raise TrainingError(f"{options.out} holds a run with checkpoints; add --resume to go on, or take a new --out.")
    if write:
        options.out.mkdir(parents=True, exist_ok=True)
        kept.write_text(resolved, "utf-8")


def _check_same_data(prepared: Prepared, options: RunOptions) -> None:
    """Other data would give other batches: the steps already made would not be those that the run is said to hold."""
    kept = options.out / RUN_FILE
    if not options.resume or not kept.is_file():
        return
    before = json.loads(kept.read_text("utf-8"))["data"]["fingerprint"]
    if before != prepared.fingerprint:
        raise TrainingError(
            f"{options.out} was trained on other data (fingerprint {before}, now {prepared.fingerprint}); resume with "
            "the same --data and --hold-out, or take a new --out."
        )


def _check_dimensions(recipe: Recipe, size: int | None) -> None:
    dims = recipe.training.matryoshka
    if dims and size and max(dims) > size:
        raise RecipeError(f"training.matryoshka has {max(dims)}, but the base's vectors have {size} dimensions.")


def _teacher(
    batches: list[Batch], recipe: Recipe, options: RunOptions, model: Any, say: Report, processes: Processes
) -> Mapping[tuple[str, str], Any]:
    """The teacher's vectors, kept in the run folder: a resumed run need not compute them again."""
    import numpy as np

    texts = neutral_texts(batches)
    if not texts:
        return {}
    kept = options.out / "teacher.npy"
    keys = [(text, kind) for text, kind, _ in texts]
    is_there = options.resume and kept.is_file() and len(np.load(kept, mmap_mode="r")) == len(keys)
    if processes.is_first and not is_there:
        say(f"teacher's vectors of {len(texts):,} texts ...")
        encoder = _load_teacher(recipe, options, model.get_embedding_dimension())
        as_is = recipe.training.teacher is not None or recipe.head.hidden > 0
        teacher = build_teacher(texts, encoder, kept_mean=recipe.training.teacher_mean, own=as_is)
        with kept.with_suffix(".new").open("wb") as file:
            np.save(file, np.stack([teacher[key] for key in keys]))
        kept.with_suffix(".new").replace(kept)
    processes.wait()
    return dict(zip(keys, np.load(kept), strict=True))


def _load_teacher(recipe: Recipe, options: RunOptions, dimension: int) -> Encoder:
    own = recipe.training.teacher in (None, OWN)
    name = recipe.training.teacher if recipe.training.teacher and not own else recipe.base
    if own:
        encoder = encoder_at(str(run_base(recipe, options)) if recipe.head.hidden or "/" in name else name, options)
    else:
        encoder = encoder_at(str(base_folder(name, options.encoders)) if "/" in name else name, options)
    if encoder.dimension != dimension:
        raise RecipeError(
            f"training.teacher: {name}'s vectors have {encoder.dimension} dimensions, those of the base {recipe.base} "
            f"{dimension}; name a teacher with {dimension}, or a base with {encoder.dimension}."
        )
    return encoder


def encoder_at(name: str, options: RunOptions) -> Encoder:
    """The encoder of that name or in that folder, to compute vectors with on the run's device."""
    return load_encoder(
        name, backend=options.backend, device=options.device, threads=options.threads, cache_dir=options.encoders
    )


def _write_run_file(
    recipe: Recipe, options: RunOptions, prepared: Prepared, batches: list[Batch], parameters: tuple[int, int]
) -> None:
    record = {
        "recipe": recipe.name, "base": recipe.base, "seed": recipe.seed, "steps": len(batches),
        "parameters": parameters[0], "trained_parameters": parameters[1],
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(), "machine": platform.machine(),
        "data": {
            "fingerprint": prepared.fingerprint, "cleaning": prepared.cleaning.as_dict(),
            "held_out": options.held_out is not None, "dev_rows": len(prepared.dev),
            "skipped": dict(prepared.skipped), **prepared.statistics.as_dict(),
        },
    }  # fmt: skip
    (options.out / RUN_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False), "utf-8")
