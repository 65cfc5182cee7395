"""`training run`, `plan`, `average`, `export`: from a recipe to an encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.console import emit, say
from search.errors import RecipeError, TrainingError
from search.settings import load_settings

if TYPE_CHECKING:
    from training.pipeline import RunOptions
    from training.recipe import Kind, Recipe

RecipeName = Annotated[str, typer.Argument(help="name of a recipe of the package, or a .toml file")]
Data = Annotated[Path, typer.Option(help="folder of the recipe's files", exists=True, file_okay=False)]
Changes = Annotated[list[str], typer.Option("--set", help="KEY=VALUE: another value than the recipe's (repeat)")]


def run_command(
    recipe: RecipeName,
    data: Data,
    out: Annotated[Path, typer.Option(help="folder of the run")],
    hold_out: Annotated[
        Path | None, typer.Option(help="folder of evaluation sets whose texts are not trained on", exists=True)
    ] = None,
    changes: Changes = [],  # noqa: B006
    adapter: Annotated[Path | None, typer.Option(help="adapter to start from", exists=True)] = None,
    resume: Annotated[bool, typer.Option(help="go on from the last checkpoint in --out")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line of metrics")] = False,
) -> None:
    """Train an encoder by a recipe; the run can be interrupted and resumed."""
    from training.pipeline import run_recipe
    from training.run import quiet_training

    loaded = _load(recipe, changes)
    start = find_adapter(adapter) if adapter else None
    options = _options(data, out=out, held_out=hold_out, resume=resume, adapter=start)
    with quiet_training():
        folder = run_recipe(loaded, options, report=say, progress=emit if as_json else _show)
    say(f"done. Next: training export {folder} --out encoders/{loaded.name}")


def plan_command(
    recipe: RecipeName,
    data: Data,
    changes: Changes = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Say what a run takes on this device, by making a few of its steps."""
    from training.plan import plan_run, render_plan
    from training.run import quiet_training

    with quiet_training():
        plan = plan_run(_load(recipe, changes), _options(data, out=Path()))
    if as_json:
        emit(plan.as_dict())
    else:
        print(render_plan(plan))


def average_command(
    adapters: Annotated[list[Path], typer.Argument(help="folders of adapters: checkpoints of a run, or runs")],
    out: Annotated[Path, typer.Option(help="folder of the averaged adapter")],
) -> None:
    """Average the updates of several adapters of one base."""
    from training.export import average_adapters

    print(average_adapters([find_adapter(path) for path in adapters], out))


def export_command(
    run: Annotated[Path, typer.Argument(help="folder of a run", exists=True, file_okay=False)],
    out: Annotated[Path, typer.Option(help="folder of the encoder to make")],
    adapter: Annotated[Path | None, typer.Option(help="another adapter than the run's last", exists=True)] = None,
    evaluation: Annotated[Path | None, typer.Option(help="evaluation.json to keep with it", exists=True)] = None,
    adapter_only: Annotated[
        bool, typer.Option(help="write the adapter and its head alone, in float16: a few MB")
    ] = False,
) -> None:
    """Merge a run's adapter into its base: an ordinary SentenceTransformer folder, with a description."""
    from training.export import export_encoder, shrink_adapter
    from training.model import base_folder
    from training.pipeline import BASE_FOLDER, RECIPE_FILE, RUN_FILE
    from training.recipe import Kind, load_recipe

    recipe = load_recipe(str(run / RECIPE_FILE))
    source = find_adapter(adapter or run) if adapter or recipe.streams else None
    if adapter_only:
        if recipe.kind is not Kind.DENSE:
            raise TrainingError(f"--adapter-only leaves out the head that kind {recipe.kind} needs; export the whole")
        print(shrink_adapter(source, out, base=run / BASE_FOLDER if recipe.head.hidden else None))
        return
    encoders = load_settings().encoders_folder
    base = run / BASE_FOLDER if recipe.head.hidden else base_folder(recipe.base, encoders)
    record = json.loads((run / RUN_FILE).read_text("utf-8")) if (run / RUN_FILE).is_file() else {}
    try:
        figures = json.loads(evaluation.read_text("utf-8")) if evaluation else None
    except ValueError as error:
        raise TrainingError(f"{evaluation}: not JSON ({error}); give the evaluation.json of an evaluation.") from error
    print(export_encoder(source, base, out, recipe=recipe, run=record, evaluation=figures))
    say(f"use it with: {_way_to_use(recipe.kind, out)}")


def _way_to_use(kind: Kind, out: Path) -> str:
    from training.recipe import Kind

    if kind is Kind.SPARSE:
        return f"sentence_transformers.SparseEncoder({str(out)!r})"
    return f"indexer ingest FOLDER --encoder {out}" if kind is Kind.DENSE else f"search query QUESTION --rerank {out}"


def find_adapter(folder: Path) -> Path:
    """The adapter in a folder: itself, that of a finished run, or the last checkpoint of an unfinished one.

    Raises:
        TrainingError: There is none.
    """
    from training.run import last_checkpoint

    for path in (folder, folder / "adapter", last_checkpoint(folder / "checkpoints")):
        if path and ((path / "adapter_model.safetensors").is_file() or (path / "modules.json").is_file()):
            return path
    raise TrainingError(f"{folder}: no adapter there (adapter_model.safetensors); give a run's folder or an adapter's.")


def _load(name: str, changes: list[str]) -> Recipe:
    from training.recipe import load_recipe

    overrides: dict[str, Any] = {}
    for change in changes:
        key, separator, value = change.partition("=")
        if not separator:
            raise RecipeError(f"--set {change!r}: KEY=VALUE is expected, such as training.steps=200")
        try:
            overrides[key] = json.loads(value)
        except ValueError:
            overrides[key] = value
    return load_recipe(name, overrides=overrides)


def _options(data: Path, *, out: Path, **rest: Any) -> RunOptions:
    from training.pipeline import RunOptions

    settings = load_settings()
    return RunOptions(data=data, out=out, encoders=settings.encoders_folder, threads=settings.threads, **rest)


def _show(record: Mapping[str, Any]) -> None:
    from training.run import DEV_METRICS

    if "loss" in record:
        say(f"step {record['step']:,} of {record['of']:,}: loss {float(record['loss']):.4f}")
    for metric in set(DEV_METRICS.values()) & record.keys():
        say(f"step {record['step']:,}: dev mAP@100 {record[metric]:.4f}")
