"""`training evaluate`: encoders on evaluation sets, side by side."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.console import emit, say
from search.settings import Settings, load_settings

if TYPE_CHECKING:
    from search.encoder import Encoder
    from training.evaluation.results import Evaluation
    from training.evaluation.sets import EvaluationSet


def evaluate_command(
    encoder: Annotated[list[str], typer.Argument(help="built-in names, folders or hub ids; the first is the baseline")],
    data: Annotated[Path | None, typer.Option(help="folder of evaluation sets, one folder each")] = None,
    sets: Annotated[list[str], typer.Option(help="only the set of this name (repeat); none: all in --data")] = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=1, help="queries of a set, or rows of a language or group")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for evaluation.json, evaluation.md and plots")] = None,
    affine: Annotated[bool, typer.Option(help="also with the language map that the engine applies")] = False,
    mteb: Annotated[
        list[str], typer.Option(help="a task of MTEB to run as well (repeat); needs mteb and the hub")
    ] = [],  # noqa: B006
    backend: Annotated[str | None, typer.Option(help="auto, openvino, torch, ...; see the settings")] = None,
    cache: Annotated[Path | None, typer.Option(help="folder that keeps the vectors for the next run")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per encoder and figure")] = False,
    progress_json: Annotated[
        bool, typer.Option("--progress", help="with --json: lines of progress before the figures")
    ] = False,
) -> None:
    """Judge encoders on evaluation sets and compare them with the first."""
    from training.evaluation.report import compare_all, mteb_table, summary_table

    settings = load_settings(backend=backend)
    folders = choose_sets(data, sets, needed=not mteb)
    loaded = [_load(name, settings) for name in encoder]
    if out:
        out.mkdir(parents=True, exist_ok=True)
    evaluations: list[Evaluation] = []
    meter = _Meter(len(encoder) * len(folders), as_lines=as_json and progress_json)
    for each in loaded:
        evaluations += _evaluate(each, folders, meter, limit=limit, affine=affine, cache=cache, mteb=mteb)
    if as_json:
        for row in iter_rows(evaluations):
            emit(row)
    else:
        if folders:
            print(summary_table(evaluations, compare_all(evaluations)))
        if mteb:
            print(mteb_table(evaluations))
    if out:
        write_files(evaluations, out)


def choose_sets(data: Path | None, names: Sequence[str], *, needed: bool) -> list[Path]:
    """The folders of the named sets, or of all.

    Raises:
        EvaluationError: No folder is given though one is `needed`, or a name is unknown.
    """
    from search.errors import EvaluationError
    from training.evaluation.sets import find_sets

    if data is None:
        if needed or names:
            raise EvaluationError("nothing to evaluate on: give --data FOLDER, a folder of sets, or --mteb TASK")
        return []
    found = {folder.name: folder for folder in find_sets(data)}
    for name in names:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise EvaluationError(f"--sets: no set {name!r} in {data}.{hint} There are: {', '.join(found)}")
    return [found[name] for name in dict.fromkeys(names)] if names else list(found.values())


def iter_rows(evaluations: Sequence[Evaluation]) -> Iterator[dict[str, object]]:
    """Every figure of every encoder and set, with its difference to the first encoder's."""
    from training.evaluation.report import compare_all

    for evaluation, comparison in zip(evaluations, [None, *compare_all(evaluations)], strict=True):
        for result in evaluation.results:
            for metric, value in result.figures.items():
                found = comparison.of(result.name, metric) if comparison else None
                difference = asdict(found.difference) if found and found.difference else None
                figure = {"set": result.name, "kind": str(result.kind), "figure": metric, "value": value}
                yield {**_identity(evaluation), **figure, "difference": difference}
    for evaluation in evaluations:
        for score in evaluation.mteb:
            yield {**_identity(evaluation), **asdict(score)}


def _identity(evaluation: Evaluation) -> dict[str, object]:
    return {"encoder": evaluation.encoder, "fingerprint": evaluation.fingerprint}


def write_files(evaluations: Sequence[Evaluation], out: Path) -> None:
    """Write the figures as JSON, the report as Markdown and the matrices as PNG."""
    from training.evaluation.plots import plot_matrices
    from training.evaluation.report import write_report
    from training.evaluation.results import save_evaluations

    save_evaluations(evaluations, out / "evaluation.json")
    matrices = plot_matrices(evaluations, out)
    (out / "evaluation.md").write_text(write_report(evaluations, matrices), encoding="utf-8")
    say(f"{out}: evaluation.json, evaluation.md and {sum(map(len, matrices.values()))} plots")


def _load(name: str, settings: Settings) -> Encoder:
    from search.encoder import load_encoder

    return load_encoder(name, backend=settings.backend, threads=settings.threads, cache_dir=settings.encoders_folder)


class _Meter:
    """Says how far an evaluation is: sets that were begun, and the share of the present one's texts."""

    def __init__(self, sets: int, *, as_lines: bool) -> None:
        self._sets, self._as_lines = sets, as_lines
        self._begun, self._share, self._at = 0, 0.0, ""

    def begin(self, name: str) -> None:
        """Another set begins."""
        self._begun, self._share, self._at = self._begun + 1, 0.0, name
        say(f"{name} ...")
        self._report()

    def texts(self, what: str, done: int, total: int) -> None:
        """So many texts of the set are encoded, its queries and its documents one after the other."""
        before = 0.5 if self._share >= 0.5 else 0.0
        self._share = max(self._share, before + done / total / 2)
        say(f"  {what}: {done:,} of {total:,} texts")
        self._report()

    def _report(self) -> None:
        if self._as_lines:
            step = round(self._begun - 1 + self._share, 3)
            emit({"event": "progress", "step": step, "of": self._sets, "at": self._at})


def _evaluate(
    encoder: Encoder,
    folders: Sequence[Path],
    meter: _Meter,
    *,
    limit: int | None,
    affine: bool,
    cache: Path | None,
    mteb: Sequence[str],
) -> list[Evaluation]:
    """The encoder, and with `affine` also its mapped variant, on sets and tasks."""
    from training.evaluation.evaluate import evaluate_variants
    from training.evaluation.mteb_tasks import run_mteb
    from training.evaluation.vectors import AffineEncoder, CachedEncoder, TextEncoder

    plain = CachedEncoder(encoder, cache, meter.texts)
    variants: list[TextEncoder] = [plain, AffineEncoder.as_engine(plain)] if affine else [plain]
    evaluations = evaluate_variants(variants, _iter_sets(folders, meter), limit=limit)
    if not mteb:
        return evaluations
    return [
        evaluation.model_copy(update={"mteb": tuple(run_mteb(variant, mteb, progress=say))})
        for evaluation, variant in zip(evaluations, variants, strict=True)
    ]


def _iter_sets(folders: Sequence[Path], meter: _Meter) -> Iterator[EvaluationSet]:
    from training.evaluation.sets import load_set

    for folder in folders:
        meter.begin(folder.name)
        yield load_set(folder)
