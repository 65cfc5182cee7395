"""`training adapt`: a better encoder from one's own documents, in one command."""

from __future__ import annotations

import shlex
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.console import emit, say
from search.settings import load_settings

if TYPE_CHECKING:
    from training.adapt.flow import Outcome
    from training.adapt.options import Progress

EVERY_S = 1.0


def adapt_command(
    corpus: Annotated[Path, typer.Argument(help="folder of documents in several languages")],
    out: Annotated[Path, typer.Option(help="folder of the encoder to make")],
    minutes: Annotated[float, typer.Option(help="for all of it, judging included")] = 30.0,
    encoder: Annotated[str, typer.Option(help="what to start from: built-in name, folder or hub id")] = "",
    queries: Annotated[Path | None, typer.Option(help="judged queries of the corpus: JSONL or BEIR folder")] = None,
    qrels: Annotated[Path | None, typer.Option(help="their judgements, tab-separated")] = None,
    general: Annotated[
        list[Path], typer.Option(help="JSONL(.gz) of retrieval or bitext rows to stay good on (repeat)", exists=True)
    ] = [],  # noqa: B006
    general_eval: Annotated[
        list[Path], typer.Option(help="retrieval sets in BEIR form that show what is lost (repeat)", exists=True)
    ] = [],  # noqa: B006
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible URL of a model that writes queries")] = "",
    model: Annotated[str, typer.Option(help="model to ask there")] = "",
    recipe: Annotated[str, typer.Option(help="recipe of the package, or a .toml file")] = "adapt",
    steps: Annotated[int, typer.Option(min=0, help="steps of training; 0: as many as the time allows")] = 0,
    seed: Annotated[int, typer.Option(help="chooses held-out documents and batches")] = 7,
    resume: Annotated[bool, typer.Option(help="go on with an adaptation that was cut off")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="progress and verdict as JSON lines")] = False,
) -> None:
    """Adapt the encoder to a folder of documents, without labels, and say whether the outcome is better."""
    from training.adapt.flow import adapt
    from training.adapt.options import AdaptOptions
    from training.synthesis.endpoint import Endpoint

    settings = load_settings(encoder=encoder or None)
    options = AdaptOptions(
        corpus=corpus, out=out, encoder=settings.encoder, recipe=recipe, minutes=minutes, general=tuple(general),
        general_eval=tuple(general_eval), queries=queries, qrels=qrels, steps=steps, seed=seed, resume=resume,
        endpoint=Endpoint(endpoint, model) if endpoint else None, threads=settings.threads, backend=settings.backend,
    )  # fmt: skip
    _show(adapt(options, report=say, progress=_reporter(as_json)), as_json)


def _reporter(as_json: bool) -> Progress:
    """Progress as lines: one a second at the most, and the first and last of every part."""
    last_part, last_time = "", 0.0

    def report(at: str, step: int, of: int) -> None:
        nonlocal last_part, last_time
        part, now = at.partition(" ")[0], time.monotonic()
        if part == last_part and now - last_time < EVERY_S and step < of:
            return
        last_part, last_time = part, now
        if as_json:
            emit({"event": "progress", "at": at, "step": step, "of": of})
        else:
            say(f"{at} ({step:,} of {of:,})")

    return report


def _show(outcome: Outcome, as_json: bool) -> None:
    verdict = outcome.verdict
    following = f"indexer reindex --encoder {shlex.quote(str(outcome.folder))}" if verdict.recommended else ""
    if as_json:
        emit({
            "event": "verdict", **asdict(verdict), "reason": verdict.reason,
            "encoder": str(outcome.folder), "report": str(outcome.folder / "report.md"), "next": following,
        })  # fmt: skip
        return
    print(f"{'recommended' if verdict.recommended else 'not recommended'}: {verdict.reason}")
    print(f"report: {outcome.folder / 'report.md'}")
    if following:
        print(f"next: {following}")
