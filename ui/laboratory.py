"""Encoders side by side, evaluations, training runs: what the Encoders page shows, and the jobs that it starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import streamlit as st

from search.encoder import Encoder, load_encoder
from search.encoder.loading import ADAPTED, HUB_IDS
from search.results import Hit
from search.settings import Settings, load_settings
from ui import jobs
from ui.corpus import index_options
from ui.files import safe_folder_name
from ui.resources import Library

PASSAGES = 24
"""Passages that the encoders are compared on: encoding takes some hundredths of a second each."""
_PASSAGE_CHARS = 1_500


@dataclass(frozen=True, slots=True)
class Ranking:
    """An encoder's order of the passages: the hit and its cosine, best first."""

    encoder: str
    hits: tuple[tuple[Hit, float], ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A figure of queries in one language (rows) on documents in another (columns); None where nothing was asked."""

    metric: str
    encoder: str
    dataset: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A training run: its folder's name, the step it reached of how many, and its lines of metrics."""

    name: str
    step: int
    steps: int
    metrics: tuple[Mapping[str, float], ...]
    is_exported: bool


def known_encoders(library: Library) -> list[str]:
    """The index's encoder first, then the built-in ones, then those exported here."""
    trained = sorted(str(path.parent) for path in trained_folder(load_settings()).glob("*/modules.json"))
    return list(dict.fromkeys([library.engine.index().manifest.encoder, *ADAPTED, *HUB_IDS, *trained]))


def trained_folder(settings: Settings) -> Path:
    """Where encoders are exported to."""
    return settings.home / "trained"


def runs_folder(settings: Settings) -> Path:
    """Where training runs are kept."""
    return settings.home / "runs"


@st.cache_resource(show_spinner=False, max_entries=3)
def _encoder(name: str) -> Encoder:
    settings = load_settings(encoder=name)
    return load_encoder(name, backend=settings.backend, threads=settings.threads, cache_dir=settings.encoders_folder)


def compare(library: Library, query: str, encoders: Sequence[str]) -> list[Ranking]:
    """Let each encoder order, by plain cosine, the same passages: those that the index finds for the query.

    Raises:
        EncoderError: One cannot be loaded.
    """
    hits = library.engine.search(query, k=PASSAGES).hits
    if not hits:
        return []
    texts = [f"{hit.chunk.title}\n{hit.chunk.text}"[:_PASSAGE_CHARS] for hit in hits]
    rankings = []
    for name in encoders:
        encoder = _encoder(name)
        cosines = encoder.encode_documents(texts) @ encoder.encode_queries([query])[0]
        ranked = sorted(zip(hits, map(float, cosines), strict=True), key=lambda item: -item[1])
        rankings.append(Ranking(name, tuple(ranked)))
    return rankings


def matrices(settings: Settings) -> list[Matrix]:
    """The language matrices of every evaluation below the home folder, newest file first."""
    found: list[Matrix] = []
    paths = (settings.home / "evaluations").glob("*/evaluation.json")
    for path in sorted(paths, key=lambda file: -file.stat().st_mtime):
        with suppress(OSError, ValueError, KeyError, TypeError):
            for evaluation in json.loads(path.read_text(encoding="utf-8"))["evaluations"]:
                found += _matrices_of(evaluation)
    return found


def own_matrix(encoder: str, dataset: str) -> Matrix | None:
    """The newest evaluation on the index's own documents, from its job; None where there is none."""
    done = next((job for job in jobs.jobs(kinds=("own",)) if job.state is jobs.State.DONE), None)
    pairs = [row for row in jobs.all_events(done.id) if row.get("row") == "languages"] if done else []
    if not pairs:
        return None
    recall = {(row["query_lang"], row["document_lang"]): float(row["recall"]) for row in pairs}
    asked, held = sorted({pair[0] for pair in recall}), sorted({pair[1] for pair in recall})
    values = tuple(tuple(recall.get((query, document)) for document in held) for query in asked)
    return Matrix("recall@10", encoder, dataset, tuple(asked), tuple(held), values)


def start_own_evaluation(library: Library) -> str:
    """Start `search evaluate` on questions made from the index's own documents; returns the job."""
    options = ["--json", "--setting", "default", *index_options(library.engine.settings)]
    return jobs.start("own", "", "search.cli", ["evaluate", *options])


def _matrices_of(evaluation: Mapping[str, Any]) -> list[Matrix]:
    return [
        Matrix(
            "nDCG@10", evaluation["encoder"], result["name"],
            tuple(table["query_langs"]), tuple(table["document_langs"]), tuple(tuple(row) for row in table["values"]),
        )
        for result in evaluation["results"]
        if (table := result.get("matrix"))
    ]  # fmt: skip


def runs(settings: Settings) -> list[Run]:
    """Training runs below the home folder, newest first."""
    folders = [path.parent for path in runs_folder(settings).glob("*/metrics.jsonl")]
    return [_run(folder, settings) for folder in sorted(folders, key=lambda path: -path.stat().st_mtime)]


def _run(folder: Path, settings: Settings) -> Run:
    lines = []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        with suppress(ValueError):
            lines.append({name: float(value) for name, value in json.loads(line).items() if _is_number(value)})
    last = lines[-1] if lines else {}
    exported = (trained_folder(settings) / folder.name / "modules.json").is_file()
    return Run(folder.name, int(last.get("step", 0)), int(last.get("of", 0)), tuple(lines), exported)


def curves(run: Run) -> dict[str, list[tuple[float, float]]]:
    """(step, value) of the loss and of what was measured on the way; of a step written twice the last line counts."""
    names = [name for line in run.metrics for name in line if name == "loss" or name.startswith("eval_")]
    wanted = [name for name in dict.fromkeys(names) if not name.endswith(("_runtime", "_per_second"))]
    points = {
        name: sorted({line["step"]: line[name] for line in run.metrics if name in line and "step" in line}.items())
        for name in wanted
    }
    return {name: series for name, series in points.items() if len(series) > 1}


def recipes() -> list[str]:
    """Names of the recipes that come with the package; none where it came without `training`."""
    spec = find_spec("training")  # looks without importing it
    places = spec.submodule_search_locations if spec else None
    return sorted(path.stem for place in places or () for path in (Path(place) / "recipes").glob("*.toml"))


def start_training(settings: Settings, recipe: str, data: Path, name: str) -> str:
    """Start `training run`; a run of that name goes on where it stopped. Returns the job."""
    out = runs_folder(settings) / safe_folder_name(name)
    resume = ["--resume"] if (out / "checkpoints").is_dir() else []
    arguments = ["run", recipe, "--data", str(data), "--out", str(out), "--json", *resume]
    return jobs.start("train", out.name, "training.cli", arguments)


def start_export(settings: Settings, name: str) -> str:
    """Start `training export` of a run; returns the job."""
    source, out = runs_folder(settings) / name, trained_folder(settings) / name
    return jobs.start("export", name, "training.cli", ["export", str(source), "--out", str(out)])


def start_evaluation(settings: Settings, encoders: Sequence[str], data: Path, limit: int) -> str:
    """Start `training evaluate`; returns the job."""
    out = settings.home / "evaluations" / safe_folder_name(data.name)
    options = ["--data", str(data), "--limit", str(limit), "--out", str(out), "--json", "--progress"]
    arguments = ["evaluate", *encoders, *options]
    return jobs.start("evaluate", data.name, "training.cli", arguments)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and value == value
