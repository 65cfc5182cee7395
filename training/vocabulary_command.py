"""`training tokens`, `trim` and `extend`: what an encoder's vocabulary covers, and changing it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.console import emit, say
from search.settings import load_settings

if TYPE_CHECKING:
    from training.vocabulary.coverage import LanguageCoverage
    from training.vocabulary.proof import Agreement
    from training.vocabulary.trim import Size, TrimReport

MIB = 2**20
Corpora = Annotated[
    list[Path], typer.Option("--corpus", help="folder, file or JSON lines with `text`, `lang` (repeat)", exists=True)
]
Out = Annotated[Path, typer.Option(help="folder of the encoder to make")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON lines")]


def tokens_command(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(help="folders, files or JSON lines with `text`, `lang`; none: the package's", exists=True),
    ] = None,
    encoder: Annotated[str, typer.Option(help="built-in name, folder or hub id")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per language, and one of the whole")] = False,
) -> None:
    """Say how the encoder's tokenizer cuts each language, and what to do where it cuts badly."""
    from training.vocabulary.survey import survey_tokens

    survey = survey_tokens(sources or [], load_settings(encoder=encoder or None), report=say)
    if as_json:
        for row in survey.languages:
            emit({"lang": row.lang, **row.as_row(), "advice": row.advice})
        emit(survey.summary())
        return
    _print_coverage(survey.languages)
    print(f"\n{survey.vocabulary_advice}")


def trim_command(
    encoder: Annotated[str, typer.Argument(help="built-in name, folder or hub id")],
    out: Out,
    languages: Annotated[str, typer.Option(help="by commas: keep all pieces of their scripts")] = "",
    corpus: Corpora = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Make an encoder smaller: keep the pieces of the vocabulary that languages or corpora need."""
    from training.vocabulary.trim import TrimOptions, trim_encoder

    langs = tuple(lang for name in languages.split(",") if (lang := name.strip()))
    report = trim_encoder(TrimOptions(encoder, out, langs, tuple(corpus)), load_settings(), report=say)
    if as_json:
        emit(report.as_record())
        return
    _print_sizes(report.before, report.after)
    _print_scripts(report)
    _print_agreement(report.agreement)
    print(f"next: {_next(out)}")


def extend_command(
    encoder: Annotated[str, typer.Argument(help="built-in name, folder or hub id")],
    corpus: Corpora,
    language: Annotated[str, typer.Option(help="whose texts to learn from, as a BCP-47 code")],
    out: Out,
    tokens: Annotated[int, typer.Option(min=1, help="pieces to add at the most")] = 2000,
    steps: Annotated[int, typer.Option(min=0, help="of teaching the new pieces what they stand for; 0: none")] = 300,
    as_json: AsJson = False,
) -> None:
    """Add pieces to an encoder's vocabulary for a language that its tokenizer shreds; train it afterwards."""
    from training.vocabulary.extend import ExtendOptions, extend_encoder

    options = ExtendOptions(encoder, out, language, tuple(corpus), tokens, steps)
    report = extend_encoder(options, load_settings(), report=say)
    if as_json:
        emit(report.as_record())
        return
    print(f"{report.added:,} pieces added, such as {' '.join(report.examples)}")
    if report.unseen:
        print(f"{report.unseen:,} of them are of characters that the encoder has never seen: they mean nothing yet")
    _print_coverage([report.before, report.after])
    _print_agreement(report.agreement)
    print(f"next: training adapt FOLDER --encoder {shlex.quote(str(out))} --out ENCODER")


def _print_coverage(rows: Sequence[LanguageCoverage]) -> None:
    print(f"{'lang':5} {'script':6} {'passages':>8} {'tok/100 chars':>13} {'× median':>8} {'unknown':>8} "
          f"{'1 letter':>8} {'passage':>8} {'fits':>7}  verdict")  # fmt: skip
    for row in rows:
        print(f"{row.lang:5} {row.script:6} {row.passages:8,} {row.tokens_per_100_characters:13.1f} {row.ratio:8.2f} "
              f"{row.unknown_characters:8.1%} {row.single_letters:8.0%} {row.median_tokens:8.0f} "
              f"{row.characters_that_fit:7,}  {row.verdict}")  # fmt: skip
    print()
    for row in rows:
        if row.advice:
            print(f"{row.lang}: {row.advice}")


def _print_sizes(before: Size, after: Size) -> None:
    print(f"pieces      {before.pieces:>13,} → {after.pieces:,}")
    print(f"parameters  {before.parameters:>13,} → {after.parameters:,}")
    print(f"on disk     {before.disk_bytes / MIB:>9,.0f} MiB → {after.disk_bytes / MIB:,.0f} MiB")
    if before.memory_bytes:
        print(f"in memory   {before.memory_bytes / MIB:>9,.0f} MiB → {after.memory_bytes / MIB:,.0f} MiB")


def _print_scripts(report: TrimReport) -> None:
    if report.scripts:
        kept = "; ".join(f"{lang}: {', '.join(names)}" for lang, names in report.scripts.items())
        print(f"scripts kept whole: {kept}")


def _print_agreement(rows: Sequence[Agreement]) -> None:
    """How passages that were not learnt from fare."""
    if not rows:
        print("no passage at hand to compare the two encoders on")
        return
    print(f"\n{'lang':5} {'passages':>8} {'tokens':>15} {'cut alike':>9} {'cosine, mean':>12} {'least':>7}")
    for row in rows:
        print(f"{row.lang:5} {row.passages:8,} {row.tokens_before:7,} →{row.tokens_after:6,} {row.same_tokens:9.0%} "
              f"{row.mean_cosine:12.4f} {row.least_cosine:7.4f}")  # fmt: skip


def _next(out: Path) -> str:
    return f"indexer reindex --encoder {shlex.quote(str(out))}"
