"""From a folder of documents to an encoder that knows them: read, split, make pairs, train, judge, decide.

Everything lies in a hidden folder beside `out` until the encoder is complete, so that a run that was killed can go on:

    index/, general/    the corpus and the bundled one, read by an ingest
    data/               rows to train on
    plan.json           rows by data set, and the steps that the time allows
    run/                the training run
    encoder/            the encoder, until it is judged
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.balance import OFFSETS_FILE, load_offsets
from search.encoder import load_encoder
from search.encoder.backends import is_static
from search.errors import EncoderError, EvaluationError, RecipeError, SourceError, TrainingDataError, TrainingError
from search.records import Vectors
from search.settings import Settings
from training.adapt.corpus import Corpus, check_corpus, embedded_settings, read_corpus
from training.adapt.general import check_sets, general_trials
from training.adapt.judging import Scores, Trial, encode_pool, pool_of, run_trial
from training.adapt.options import AdaptOptions, Progress
from training.adapt.questions import ask, given_questions
from training.adapt.report import render
from training.adapt.rows import write_rows
from training.adapt.schedule import Budget, choose_steps, fill_recipe
from training.adapt.split import choose_held_out
from training.adapt.verdict import Comparison, Verdict, as_record, compare, decide
from training.export import DESCRIPTION_FILE, export_encoder
from training.model import peak_memory
from training.outputs import hold_folder, refuse_existing, refuse_inside
from training.pipeline import RUN_FILE, Report, RunOptions, run_base, run_recipe
from training.recipe import Kind, Recipe, load_recipe
from training.run import CHECKPOINTS, last_checkpoint, quiet_training

if TYPE_CHECKING:
    from search.encoder import Encoder

_REFUSED = (EncoderError, EvaluationError, RecipeError, SourceError, TrainingDataError, TrainingError)
KEY_FILE, PLAN_FILE, REPORT_FILE, RECORD_FILE = "options.json", "plan.json", "report.md", "report.json"


@dataclass(frozen=True)
class Outcome:
    """The encoder's folder and whether to use it; `record` is what `report.json` holds."""

    folder: Path
    verdict: Verdict
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Trials:
    """Questions about held-out documents and about others, and how the encoder to start from answers them."""

    domain: list[Trial]
    general: list[Trial]
    before: list[Scores]


def adapt(options: AdaptOptions, *, report: Report, progress: Progress) -> Outcome:
    """Make an encoder of a folder's own documents, and judge it against the one it was made from.

    Costs one pass of the encoder over the corpus before training and one after it; training takes what is left of
    `options.minutes`.

    Args:
        options: What to do.
        report: Told in words what was found.
        progress: Told how far it is.

    Raises:
        RecipeError: The recipe is not there, wrong, or not of dense encoders.
        SourceError: The folder is not there.
        TrainingDataError: It holds too little, or one language only.
        TrainingError: `out` or an unfinished adaptation is in the way, or training had to stop; `resume` goes on.
    """
    _check(options)
    is_new = _open_work(options)
    with hold_folder(options.work):
        try:
            return _adapt(options, report, progress)
        except _REFUSED:
            if is_new and not (options.work / PLAN_FILE).is_file():  # nothing was trained yet
                shutil.rmtree(options.work)
            raise


def _check(options: AdaptOptions) -> None:
    """What can be refused before the corpus is read."""
    recipe = load_recipe(options.recipe)
    if recipe.kind is not Kind.DENSE:
        raise RecipeError(f"{options.recipe}: trains kind {recipe.kind}; adapting needs a recipe of dense encoders")
    if not recipe.streams:
        raise RecipeError(f"{options.recipe}: adapting needs a recipe with [[streams]]")
    refuse_inside(options.out, options.corpus)
    if options.queries:
        from search.evaluation.questions import read_questions

        read_questions(options.queries, options.qrels)
    check_sets(options.general_eval)


def _adapt(options: AdaptOptions, report: Report, progress: Progress) -> Outcome:
    started = time.monotonic()
    settings = embedded_settings(options.work / "index", encoder=options.encoder)
    encoder = _load(options.encoder, options, settings)
    if encoder.folder and is_static(encoder.folder):
        raise EncoderError(f"{options.encoder}: a static encoder is a table without a network to train; take another.")
    corpus = read_corpus(options.corpus, settings, encoder, progress)
    read_s = time.monotonic() - started
    report(_describe(corpus))
    check_corpus(corpus, options.corpus)
    held_out = _held_out(options, corpus)
    trials = _make_trials(options, corpus, held_out, encoder, progress)
    judging_s = time.monotonic() - started
    counts = _rows(options, corpus, held_out, encoder, progress)
    recipe = fill_recipe(options.recipe, base=encoder.address, encoder=encoder, counts=counts, seed=options.seed)
    offsets = load_offsets(encoder.fingerprint, encoder.folder and encoder.folder / OFFSETS_FILE)
    del encoder  # its memory is needed for training
    left = 60 * options.minutes - (time.monotonic() - started) - judging_s
    recipe = _plan(options, settings, recipe, counts, Budget(left, read_s / len(corpus.chunks)), progress)
    report(f"training {recipe.training.steps} steps on {sum(counts.values())} rows; {len(held_out)} documents held out")
    folder = _train(options, recipe, settings, report, progress)
    if offsets:  # some hundred steps move them little; without them every language has to be learnt from the index
        offsets.save(folder / OFFSETS_FILE)
    after = _judge(trials, folder, options, settings, progress)
    about = {
        "corpus": options.corpus.name, "base": options.encoder, "documents": corpus.describe(), "rows": counts,
        "held_out": sorted(held_out), "steps": recipe.training.steps, "minutes": (time.monotonic() - started) / 60,
        "peak_mib": peak_memory() // 2**20, "resumed": options.resume,
    }  # fmt: skip
    return _publish(options, folder, trials, after, about)


def _open_work(options: AdaptOptions) -> bool:
    """The folder of an adaptation: a new one, or with `resume` one that was cut off, of the same options.

    Returns whether it is new.
    """
    refuse_existing(options.out)
    kept = options.work / KEY_FILE
    if kept.exists() and not options.resume:
        raise TrainingError(f"{options.work}: an adaptation was cut off there; add --resume, or remove that folder.")
    if kept.exists() and json.loads(kept.read_text("utf-8")) != options.key:
        raise TrainingError(
            f"{options.work} holds an adaptation with other options ({kept}); give the same, or remove that folder."
        )
    is_new = not kept.exists()
    options.work.mkdir(parents=True, exist_ok=True)
    _write_json(kept, options.key)
    return is_new


def _load(name: str, options: AdaptOptions, settings: Settings) -> Encoder:
    return load_encoder(
        name, backend=options.backend, device=options.device, threads=options.threads,
        cache_dir=settings.encoders_folder,
    )  # fmt: skip


def _held_out(options: AdaptOptions, corpus: Corpus) -> frozenset[str]:
    """Documents to judge on; those of an adaptation that was cut off stay, whatever has changed since."""
    kept = options.work / "held_out.json"
    if not kept.is_file():
        chosen = choose_held_out(corpus, share=options.held_out_share, seed=options.seed)
        _write_json(kept, {"documents": sorted(chosen)})
    return frozenset(json.loads(kept.read_text("utf-8"))["documents"]).intersection(corpus.documents)


def _describe(corpus: Corpus) -> str:
    found = corpus.describe()
    return (
        f"{len(corpus.documents)} documents in {len(set(corpus.languages.values()))} languages, {len(corpus.chunks)} "
        f"passages, {found['works_with_translations']} works in several languages"
    )


def _make_trials(
    options: AdaptOptions, corpus: Corpus, held_out: frozenset[str], encoder: Encoder, progress: Progress
) -> Trials:
    domain = [Trial("held-out documents", pool_of(corpus), ask(corpus, held_out), corpus.vectors)]
    if not domain[0].asked:
        raise TrainingError(
            f"{options.corpus}: no questions can be made of the held-out documents: they need passages of three "
            "sentences or more, or translations."
        )
    if options.queries:
        from search.evaluation.questions import read_questions, resolve

        found = resolve(read_questions(options.queries, options.qrels), corpus.documents).questions
        if not found:
            raise TrainingError(f"{options.queries}: none of the documents judged there is in {options.corpus}.")
        domain.append(Trial("given queries", domain[0].pool, given_questions(found, corpus, held_out), corpus.vectors))
    general = general_trials(options.general_eval, options.corpus, options.work, encoder, progress)
    before = []
    for place, trial in enumerate((*domain, *general)):
        progress(f"judging {options.encoder} on {trial.name}", place, len(domain) + len(general))
        before.append(run_trial(trial, encoder, known=trial.known))
    return Trials(domain, general, before)


def _judge(trials: Trials, folder: Path, options: AdaptOptions, settings: Settings, progress: Progress) -> list[Scores]:
    """The adapted encoder on the same questions; what several trials search in is encoded once."""
    encoder = _load(str(folder), options, settings)
    known: dict[int, Vectors] = {}
    scores = []
    for trial in (*trials.domain, *trials.general):
        if id(trial.pool) not in known:
            at = f"judging the adapted encoder on {trial.name}"
            known[id(trial.pool)] = encode_pool(trial.pool, encoder, partial(progress, at))
        scores.append(run_trial(trial, encoder, known=known[id(trial.pool)]))
    return scores


def _rows(
    options: AdaptOptions, corpus: Corpus, held_out: frozenset[str], encoder: Encoder, progress: Progress
) -> dict[str, int]:
    """Rows by data set; those of an adaptation that was cut off stay as they are."""
    kept, data = options.work / "rows.json", options.work / "data"
    if not kept.is_file():
        shutil.rmtree(data, ignore_errors=True)
        _write_json(kept, write_rows(options, corpus, held_out, encoder, data, progress))
    counts: dict[str, int] = json.loads(kept.read_text("utf-8"))
    return counts


def _run_options(options: AdaptOptions, settings: Settings) -> RunOptions:
    run = options.work / "run"
    return RunOptions(
        data=options.work / "data", out=run, encoders=settings.encoders_folder, device=options.device,
        resume=last_checkpoint(run / CHECKPOINTS) is not None, threads=options.threads, backend=options.backend,
    )  # fmt: skip


def _plan(
    options: AdaptOptions, settings: Settings, recipe: Recipe, counts: Mapping[str, int], budget: Budget,
    progress: Progress,
) -> Recipe:  # fmt: skip
    """The recipe with its number of steps; that of an adaptation that was cut off stays as it is."""
    kept = options.work / PLAN_FILE
    if not recipe.streams:
        raise TrainingDataError(
            "nothing to train on: the recipe has no [[streams]] for which these documents have data"
        )
    if not kept.is_file():
        progress("measuring a few steps", 0, 1)
        with quiet_training():
            steps = options.steps or choose_steps(recipe, _run_options(options, settings), counts, budget)
        _write_json(kept, {"steps": steps})
    steps = int(json.loads(kept.read_text("utf-8"))["steps"])
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"steps": steps})})


def _train(options: AdaptOptions, recipe: Recipe, settings: Settings, report: Report, progress: Progress) -> Path:
    """The trained encoder, not judged yet."""
    folder, run_options = options.work / "encoder", _run_options(options, settings)
    if folder.is_dir():
        return folder

    def advance(record: Mapping[str, Any]) -> None:
        if "loss" in record:
            progress(f"training, loss {float(record['loss']):.3f}", int(record["step"]), int(record["of"]))

    with quiet_training():
        run = run_recipe(recipe, run_options, report=report, progress=advance)
    described = json.loads((run / RUN_FILE).read_text("utf-8"))
    return export_encoder(run / "adapter", run_base(recipe, run_options), folder, recipe=recipe, run=described)


def _publish(
    options: AdaptOptions, folder: Path, trials: Trials, after: Sequence[Scores], about: Mapping[str, Any]
) -> Outcome:
    """Decide, write the report into the encoder's folder, and move that to where it was asked for."""
    every = (*trials.domain, *trials.general)
    compared = [compare(*each) for each in zip(every, trials.before, after, strict=True)]
    domain, general = compared[: len(trials.domain)], compared[len(trials.domain) :]
    verdict = decide(domain, general)
    record = {**about, **as_record(verdict, domain, general)}
    _write_json(folder / RECORD_FILE, record)
    (folder / REPORT_FILE).write_text(render(options.out.name, verdict, domain, general, about), "utf-8")
    description = json.loads((folder / DESCRIPTION_FILE).read_text("utf-8"))
    description |= {"name": options.out.name, "recommended": verdict.recommended, "reason": verdict.reason}
    description["evaluation"] = {found.name: _figures(found) for found in compared}
    _write_json(folder / DESCRIPTION_FILE, description)
    curves = options.work / "run" / "curves.png"
    if curves.is_file():
        shutil.copyfile(curves, folder / curves.name)
    folder.replace(options.out)
    shutil.rmtree(options.work)
    return Outcome(options.out, verdict, record)


def _figures(found: Comparison) -> dict[str, object]:
    gain = found.overall.difference
    return {
        "ndcg@10 before": found.overall.before, "ndcg@10 after": found.overall.after,
        "difference": [gain.mean, gain.low, gain.high] if gain else None,
    }  # fmt: skip


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write whole or not at all."""
    work = path.with_name(f".{path.name}-new")
    work.write_text(json.dumps(content, indent=2, ensure_ascii=False), "utf-8")
    work.replace(path)
