"""The claims of "Retrofitting Small Multilingual Models for Retrieval" (arXiv 2510.14274), tried at a small scale.

    python -m benchmarks.ablations --data TRAIN --eval EVAL --work FOLDER [--steps 100] [--seed 7] [--arms NAME ...]

Every arm trains the base encoder for as many steps by a recipe that differs in one thing:

    scale 1k | 4k | 16k | all           how many rows there are, of all data of the recipe retrofit-e5-small
    negatives 0 | 1 | 4 | 8             mined hard negatives of a query, natural questions in six languages
    one|many tasks, few|many languages  8,000 rows: retrieval or all tasks; in Japanese, Chinese and English or in all

`--mean NAME NAME ...` judges the mean of the updates of arms that were trained (`training average`), `--swap TASK
LANGUAGE` one expert with layers of another (`training swap`); "language expert" is trained on translations alone, into
languages that "one task, few languages" has no questions in. Rows whose texts are in an evaluation set are left out.
`--seed` draws other rows and batches, in a FOLDER of its own.
Then all are judged in float32 on the same sets and queries. What is in FOLDER is not made again, so that an interrupted
measurement goes on. Writes results/ablations.jsonl.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w

from benchmarks.records import ROOT, describe_run, write_rows
from search.encoder import load_encoder
from search.settings import load_settings
from training.data.schema import RetrievalRow, Row, row_langs
from training.mining import MiningOptions, mine_negatives
from training.prepare import fraction, prepare
from training.recipe import Data, Objective, Recipe, load_recipe

BASE = "retrofit-e5-small"
SEED = 7
FEW = ("ja", "zh", "en")
DIVERSE_ROWS = 8_000
QUESTIONS = ("amqa", "arcd", "cmrc2018", "drcd", "facqa", "iapp-wiki-qa")
MINED_ROWS, MOST_NEGATIVES, MARGIN = 1_500, 8, 0.015
SETS = ("debian-faq", "amqa-test", "arcd-test", "tquad-dev", "drcd-test", "sts17")
FIGURES = ("map@100", "own@10", "same_ndcg@10", "ndcg@10", "spearman_cross", "accuracy", "f1")

Preparation = Callable[[], tuple[Sequence[Row], Recipe]]
"""Makes the rows and the recipe of an encoder."""


@dataclass(frozen=True)
class Arm:
    """What one encoder is trained on: rows at the most, tasks and languages (none: all), negatives of a query."""

    rows: int | None = None
    tasks: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    negatives: int | None = None


ARMS = {
    "scale 1k": Arm(rows=1_000),
    "scale 4k": Arm(rows=4_000),
    "scale 16k": Arm(rows=16_000),
    "scale all": Arm(),
    **{f"negatives {number}": Arm(negatives=number) for number in (0, 1, 4, 8)},
    "one task, few languages": Arm(DIVERSE_ROWS, ("retrieval",), FEW),
    "one task, many languages": Arm(DIVERSE_ROWS, ("retrieval",)),
    "many tasks, few languages": Arm(DIVERSE_ROWS, (), FEW),
    "many tasks, many languages": Arm(DIVERSE_ROWS),
    "language expert": Arm(DIVERSE_ROWS, ("bitext",), ("ar", "tr", "ko", "am", "en")),
}
SWAPPED = ("--layers", "0-2,10-11", "--average", "3,9")
"""Which layers come from the second arm: the lowest and highest, as Bandarkar et al. have it (arXiv 2410.01335)."""


def rows_of(arm: Arm, options: argparse.Namespace) -> list[Row]:
    """What an arm is trained on."""
    recipe = load_recipe(BASE)
    rows = mined(options) if arm.negatives is not None else all_rows(recipe, arm, options)
    if arm.tasks:
        rows = [row for row in rows if row.task in arm.tasks]
    return sorted(rows, key=lambda row: fraction(row.model_dump_json(), options.seed))[: arm.rows]


def write_data(rows: Sequence[Row], folder: Path) -> None:
    """Write rows as files of a task and a dataset."""
    folder.mkdir(parents=True, exist_ok=True)
    for task, dataset in {(row.task.value, row.dataset) for row in rows}:
        chosen = [row for row in rows if (row.task.value, row.dataset) == (task, dataset)]
        write_jsonl(folder / f"{task}.{dataset}.jsonl.gz", chosen)


def all_rows(recipe: Recipe, arm: Arm, options: argparse.Namespace) -> list[Row]:
    """What the recipe would train on."""
    data = recipe.data.model_copy(update={"languages": arm.languages, "dev_share": 0.0})
    prepared = prepare(data, options.data, held_out=options.eval, seed=options.seed)
    return [row for rows in prepared.rows.values() for row in rows]


def mined(options: argparse.Namespace) -> list[Row]:
    """Natural questions with hard negatives, mined once with the base encoder."""
    recipe, found = load_recipe(BASE), list[Row]()
    data = recipe.data.model_copy(update={"limit": MINED_ROWS, "dev_share": 0.0})
    missing = [name for name in QUESTIONS if not (options.work / f"mined-{name}.jsonl.gz").exists()]
    if missing:
        encoder = load_encoder(recipe.base, cache_dir=load_settings().encoders_folder)
        rows = prepare(data, options.data, held_out=options.eval, seed=SEED).rows
        for name in missing:
            questions = [row for row in rows[name] if isinstance(row, RetrievalRow)]
            choice = MiningOptions(per_query=MOST_NEGATIVES, max_share=1.0, margin=MARGIN)
            kept = [row for row in mine_negatives(questions, encoder, options=choice).rows if row.negatives]
            write_jsonl(options.work / f"mined-{name}.jsonl.gz", kept)
    for name in QUESTIONS:
        with gzip.open(options.work / f"mined-{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            found += map(RetrievalRow.model_validate_json, lines)
    return [row for row in found if isinstance(row, RetrievalRow) and len(row.negatives) >= MOST_NEGATIVES]


def write_jsonl(path: Path, rows: Iterable[Row]) -> None:
    """Write rows, all or nothing."""
    partial = path.with_suffix(".part")
    with gzip.open(partial, "wt", encoding="utf-8") as file:
        file.writelines(row.model_dump_json() + "\n" for row in rows)
    partial.rename(path)


def prepare_arm(name: str, options: argparse.Namespace) -> tuple[list[Row], Recipe]:
    """Rows and recipe of an arm."""
    rows = rows_of(ARMS[name], options)
    return rows, recipe_of(name, ARMS[name], rows, options)


def recipe_of(name: str, arm: Arm, rows: Sequence[Row], options: argparse.Namespace) -> Recipe:
    """The recipe of an arm: the shipped one's streams, as far as the arm has data for them."""
    base = load_recipe(BASE)
    streams = list(base.streams)
    if arm.negatives is not None:
        questions = {"negatives": arm.negatives, "batch_size": 8, "datasets": QUESTIONS, "weight": 0.5}
        streams = [
            streams[0].model_copy(update={"batch_size": 32, "weight": 0.5}), streams[2].model_copy(update=questions),
        ]  # fmt: skip
    elif arm.rows == DIVERSE_ROWS:
        streams = [stream.model_copy(update={"negatives": 0}) for stream in streams[1:]]
    held = {(row.task.value, row.dataset) for row in rows}
    streams = [
        stream for stream in streams
        if stream.objective is Objective.NEUTRAL
        or any(task == stream.objective and fnmatch(name, glob) for task, name in held for glob in stream.datasets)
    ]  # fmt: skip
    same = {
        "steps": options.steps,
        "evaluate_every": 0,
        "checkpoint_every": options.steps,
        "keep_checkpoints": 1,
        "matryoshka": (),
    }
    return base.model_copy(update={
        "name": file_name(name), "seed": options.seed, "streams": tuple(streams),
        "training": base.training.model_copy(update=same),
        "data": Data(files=("*.jsonl.gz",), dev_share=0.0),
    })  # fmt: skip


def train(name: str, prepared: Preparation, options: argparse.Namespace) -> dict[str, Any]:
    """Train an encoder on rows by a recipe, unless it is there; returns what it was trained on."""
    folder = options.work / file_name(name)
    done = folder / "done.json"
    if done.exists():
        return dict(json.loads(done.read_text(encoding="utf-8")))
    rows, recipe = prepared()
    write_data(rows, folder / "data")
    file = folder / "recipe.toml"
    file.write_text(tomli_w.dumps(json.loads(recipe.model_dump_json(exclude_none=True))), encoding="utf-8")
    started = time.monotonic()
    call("run", str(file), "--data", str(folder / "data"), "--out", str(folder / "run"), "--resume")
    seconds = round(time.monotonic() - started)
    call("export", str(folder / "run"), "--out", str(folder / "encoder"))
    found = {
        "arm": name, "seed": recipe.seed, "steps": recipe.training.steps, "rows": len(rows),
        "tasks": len({row.task for row in rows}),
        "languages": len({lang for row in rows for lang in row_langs(row)}), "seconds": seconds,
    }  # fmt: skip
    done.write_text(json.dumps(found), encoding="utf-8")
    return found


def judge(
    encoder: str, options: argparse.Namespace, *, sets: Sequence[str] = SETS, backend: str = "openvino-f32"
) -> dict[str, float]:
    """The figures of an encoder, by set."""
    chosen = [part for name in sets for part in ("--sets", name)]
    said = call(
        "evaluate", encoder, "--data", str(options.eval), *chosen, "--limit", str(options.limit), "--json",
        "--backend", backend, "--cache", str(options.work / "vectors"),
    )  # fmt: skip
    rows = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    return {
        f"{row['set']} {row['figure']}": round(row["value"], 4)
        for row in rows if row["figure"] in FIGURES and row["value"] is not None
    }  # fmt: skip


def call(*arguments: str) -> str:
    """Run `training`; returns its output."""
    command = [sys.executable, "-m", "training.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"`training {' '.join(arguments)}` failed; run it again, what is done is kept")
    return done.stdout


def record_once(table: str, run: Mapping[str, str], folder: Path, measure: Callable[[], dict[str, Any]]) -> None:
    """Measure a row and write it to results/, unless the folder says that it was done."""
    kept = folder / "judged.json"
    if kept.exists():
        return
    row = measure()
    print(row, flush=True)
    write_rows(table, run, [row])
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(row), encoding="utf-8")


def file_name(name: str) -> str:
    """The arm's name as that of a file."""
    return name.replace(",", "").replace(" ", "-")


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train an arm's encoder, or take the base, and judge it."""
    if name == "base":
        return {"arm": name, **judge(load_recipe(BASE).base, options)}
    trained = train(name, partial(prepare_arm, name, options), options)
    return {**trained, **judge(str(options.work / file_name(name) / "encoder"), options)}


def measure_combined(names: Sequence[str], folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Average the adapters of trained arms, or swap layers of two, and judge what comes of it."""
    runs = [options.work / file_name(name) / "run" for name in names]
    if untrained := [name for name, run in zip(names, runs, strict=True) if not (run / "adapter").exists()]:
        sys.exit(f"not trained yet: {', '.join(untrained)}; train them with --arms")
    adapters, out = [str(run / "adapter") for run in runs], ("--out", str(folder / "adapter"))
    call("swap", *adapters, *SWAPPED, *out) if options.swap else call("average", *adapters, *out)
    call("export", str(runs[0]), "--adapter", str(folder / "adapter"), "--out", str(folder / "encoder"))
    made = f"{names[0]}, layers of {names[1]}" if options.swap else f"mean of {'; '.join(names)}"
    return {"arm": made, **judge(str(folder / "encoder"), options)}


def build_parser(description: str | None, *, steps: int, limit: int) -> argparse.ArgumentParser:
    """What every benchmark asks that trains and judges: data, sets, a folder for what is made, steps and queries."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for folder in ("--data", "--eval", "--work"):
        parser.add_argument(folder, type=Path, required=True)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--limit", type=int, default=limit, help="queries of a set")
    return parser


def main() -> None:
    """Train and judge every arm; what was judged before is not judged again."""
    parser = build_parser(__doc__, steps=100, limit=200)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="NAME")
    parser.add_argument("--mean", nargs="+", choices=list(ARMS), metavar="NAME")
    parser.add_argument("--swap", nargs=2, choices=list(ARMS), metavar="NAME")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    run = describe_run(
        f"python -m benchmarks.ablations --steps {options.steps} --limit {options.limit} --seed {options.seed}"
    )
    if names := options.swap or options.mean:
        how = "swap" if options.swap else "mean"
        quoted = " ".join(f'"{name}"' for name in names)
        folder = options.work / f"{how}-{'-'.join(map(file_name, names))}"
        run = describe_run(f"{run['command']} --{how} {quoted}")
        return record_once("ablations", run, folder, partial(measure_combined, names, folder, options))
    for name in ("base", *options.arms):
        record_once("ablations", run, options.work / file_name(name), partial(measure, name, options))


if __name__ == "__main__":
    main()
