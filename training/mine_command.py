"""`training mine`: hard negatives for files of training rows."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.console import say
from search.errors import SettingsError
from search.settings import load_settings

if TYPE_CHECKING:
    from training.mining import MinedRow, MinedSample, MiningEncoder, MiningOptions, MiningReport

SHOWN_CHARACTERS = 200


def mine_command(
    data: Annotated[list[Path], typer.Argument(help="JSONL(.gz) files of retrieval rows; each is mined on its own")],
    out: Annotated[Path, typer.Option(help="JSONL(.gz) to write; the report goes beside it as .md and .json")],
    encoder: Annotated[str, typer.Option(help="built-in name, folder or hub id")] = "",
    per_query: Annotated[int, typer.Option(help="negatives a row shall have, given ones included")] = 8,
    candidates: Annotated[int, typer.Option(help="documents that each source proposes, per side")] = 100,
    max_share: Annotated[float, typer.Option(help="highest score of a negative, as a share of the positive's")] = 0.95,
    margin: Annotated[float | None, typer.Option(help="instead: so far below the positive, in cosine")] = None,
    source: Annotated[list[str], typer.Option(help="who proposes: dense, bm25 (repeat)")] = ["dense", "bm25"],  # noqa: B006
    same_language_share: Annotated[float, typer.Option(help="share of negatives in the query's language")] = 0.5,
    skip_top: Annotated[int, typer.Option(help="first candidates to leave out")] = 0,
    titles: Annotated[bool, typer.Option(help="score and write documents with their titles")] = False,
    sample: Annotated[int, typer.Option(help="rows to show in the report")] = 20,
    seed: Annotated[int, typer.Option(help="chooses those rows")] = 0,
) -> None:
    """Add hard negatives to retrieval rows; rows of other tasks are written as they are."""
    from training.mining import CandidateSource, MiningOptions

    try:
        sources = tuple(CandidateSource(name) for name in source)
    except ValueError as error:
        raise SettingsError(f"--source {' '.join(source)}: give {' or '.join(CandidateSource)}.") from error
    options = MiningOptions(
        per_query=per_query, candidates=candidates, max_share=max_share, margin=margin, sources=sources,
        same_language_share=same_language_share, skip_top=skip_top, titles=titles, sample=sample, seed=seed,
    )  # fmt: skip
    from search.encoder import load_encoder

    _check_out(out, data)
    settings = load_settings(encoder=encoder or None)
    loaded = load_encoder(settings.encoder, threads=settings.threads, cache_dir=settings.encoders_folder)
    reports = mine_files(data, out, loaded, options=options)
    write_reports(out, reports, options, encoder=f"{loaded.name} ({loaded.fingerprint})")
    for path, report in reports.items():
        say(f"{path}: {report.mined} negatives for {report.rows} rows; {sum(report.short.values())} rows have too few")


def _check_out(out: Path, data: Sequence[Path]) -> None:
    """No report is written over rows; rows may be mined again in their place."""
    if out.is_dir() or not out.name.endswith((".jsonl", ".jsonl.gz")):
        raise SettingsError(f"--out {out}: give a file to write whose name ends in .jsonl or .jsonl.gz.")
    read = {path.resolve() for path in data}
    for path in report_files(out):
        if path.resolve() in read:
            raise SettingsError(f"--out {out}: its report would be {path}, which is mined itself; take another name.")


def report_files(out: Path) -> tuple[Path, Path]:
    """The reports beside the rows in `out`: for programs, and for the eye."""
    stem = out.with_suffix("") if out.suffix == ".gz" else out
    return stem.with_suffix(".json"), stem.with_suffix(".md")


def mine_files(
    paths: Iterable[Path], out: Path, encoder: MiningEncoder, *, options: MiningOptions
) -> dict[str, MiningReport]:
    """Mine each file on its own and write all rows to `out`, which appears when it is complete.

    Fields that a row type does not know are kept.

    Raises:
        TrainingDataError: A file cannot be read.
        SettingsError: A file has too few documents for the negatives asked for.
    """
    from training.mining import mine_negatives

    reports: dict[str, MiningReport] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    with (
        gzip.open(partial, "wt", encoding="utf-8") if out.suffix == ".gz" else partial.open("w", encoding="utf-8") as f
    ):
        for path in paths:
            raw, rows = _read(path)
            mined = mine_negatives(list(rows.values()), encoder, options=options)
            reports[str(path)] = mined.report
            for number, row in zip(rows, mined.rows, strict=True):
                raw[number] |= {"negatives": row.negatives, "mined": row.mined}
            f.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in raw)
    partial.replace(out)
    return reports


def write_reports(out: Path, reports: dict[str, MiningReport], options: MiningOptions, *, encoder: str) -> None:
    """Write the reports beside `out`: `.json` for programs, `.md` with the sample for the eye."""
    told, shown = report_files(out)
    record = {"encoder": encoder, "options": asdict(options), "files": {k: as_json(v) for k, v in reports.items()}}
    told.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    lines = ["# Mined negatives", "", f"Encoder: {encoder}", ""]
    for path, report in reports.items():
        lines += [f"## {path}", "", *as_markdown(report)]
    shown.write_text("\n".join(lines) + "\n", encoding="utf-8")


def as_json(report: MiningReport) -> dict[str, Any]:
    """The report with keys that JSON can hold."""
    pairs = [
        {"query": query, "negative": negative, "count": count}
        for (query, negative), count in report.language_pairs.items()
    ]
    return {**asdict(report), "language_pairs": pairs}


def as_markdown(report: MiningReport) -> Iterator[str]:
    """Lines of a section: counts, distributions, languages, sample."""
    yield (
        f"{report.rows} rows, {report.queries} queries, {report.documents} documents ({report.merged} more had the "
        f"text of another). {report.mined} negatives mined, {report.given} given, {report.asked} per row asked for."
    )
    if report.short:
        parts = ", ".join(f"{rows} with {count}" for count, rows in report.short.items())
        yield f"\nFewer than asked for: {sum(report.short.values())} rows ({parts}). Lower the bounds or add documents."
    yield from ("", "| cosine | min | 25 % | 50 % | 75 % | max | mean |", "|---|---|---|---|---|---|---|")
    for name in ("positives", "negatives", "gaps"):
        values = getattr(report, name)
        yield (
            f"| {name} | " + " | ".join(f"{value:.3f}" for value in values.values()) + " |" if values else f"| {name} |"
        )
    yield from ("", "| candidates | count |", "|---|---|")
    yield from (f"| chosen, proposed by {source} | {count} |" for source, count in report.sources.items())
    yield from (f"| dropped: {rule} | {count} |" for rule, count in report.dropped.items())
    yield from ("", "| query | negatives by language |", "|---|---|")
    for lang in dict.fromkeys(query for query, _ in report.language_pairs):
        counts = [(count, other) for (query, other), count in report.language_pairs.items() if query == lang]
        yield f"| {lang} | " + ", ".join(f"{other} {count}" for count, other in sorted(counts, reverse=True)) + " |"
    for sample in report.sample:
        yield from _sample_lines(sample)
    yield ""


def _sample_lines(sample: MinedSample) -> Iterator[str]:
    yield f"\n**{_one_line(sample.query)}** ({sample.lang_query})\n"
    yield f"- positive {sample.positive_score:.3f} {sample.lang_doc}: {_one_line(sample.positive)}"
    for negative in sample.negatives:
        yield f"- {negative.source} {negative.score:.3f} {negative.lang}: {_one_line(negative.text)}"


def _one_line(text: str) -> str:
    from search.text import truncate_graphemes

    return truncate_graphemes(" ".join(text.split()), SHOWN_CHARACTERS, ellipsis="…")


def _read(path: Path) -> tuple[list[dict[str, Any]], dict[int, MinedRow]]:
    """The records of a file with all their fields, and the retrieval rows among them by place."""
    from training.data.loading import iter_rows
    from training.data.schema import RetrievalRow
    from training.mining import MinedRow

    checked = list(iter_rows(path))
    with gzip.open(path, "rt", encoding="utf-8-sig") if path.suffix == ".gz" else path.open(encoding="utf-8-sig") as f:
        raw: list[dict[str, Any]] = [json.loads(line) for line in f if line.strip()]
    rows = {
        number: MinedRow(**row.model_dump(), mined=record.get("mined", 0))
        for number, (record, row) in enumerate(zip(raw, checked, strict=True))
        if isinstance(row, RetrievalRow)
    }
    return raw, rows
