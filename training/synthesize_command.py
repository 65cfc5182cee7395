"""`training synthesize`: queries for documents that have none."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from search.console import say
from search.errors import SettingsError, TrainingDataError
from search.language import canonical_language
from search.settings import load_settings

if TYPE_CHECKING:
    from training.synthesis.documents import ReadCounts, SourceDocument, SyntheticQuery
    from training.synthesis.endpoint import Endpoint
    from training.synthesis.round_trip import RoundTripReport
    from training.synthesis.templates import Form


def synthesize_command(
    source: Annotated[Path, typer.Argument(help="folder or file of documents, or JSONL(.gz) rows with `text`")],
    out: Annotated[Path, typer.Option(help="JSONL(.gz) of training rows to write")],
    encoder: Annotated[str, typer.Option(help="built-in name, folder or hub id; filters the queries")] = "",
    forms: Annotated[str, typer.Option(help="kinds of template queries, by commas; all if empty")] = "",
    query_langs: Annotated[str, typer.Option(help="languages of queries, by commas; all if empty")] = "",
    per_document: Annotated[int, typer.Option(min=1, help="queries for each passage")] = 3,
    endpoint: Annotated[str, typer.Option(help="OpenAI-compatible URL, as http://localhost:8000/v1")] = "",
    model: Annotated[str, typer.Option(help="model to ask there")] = "",
    key_variable: Annotated[
        str, typer.Option(help="environment variable with the endpoint's key")
    ] = "PANLINGUA_ENDPOINT_KEY",
    concurrency: Annotated[int, typer.Option(help="questions to the endpoint at once")] = 4,
    timeout: Annotated[float, typer.Option(help="seconds to wait for one answer")] = 120.0,
    filter_: Annotated[bool, typer.Option("--filter/--no-filter", help="keep what finds its own document")] = True,
    top: Annotated[int, typer.Option(min=1, help="the document must be among so many first")] = 10,
    seed: Annotated[int, typer.Option(help="chooses forms, phrases and languages")] = 0,
) -> None:
    """Make training rows from documents, by templates or by a language model; counts go to stderr."""
    from search.encoder import load_encoder
    from training.outputs import refuse_inside
    from training.synthesis.documents import ReadCounts, iter_source_documents
    from training.synthesis.endpoint import Endpoint
    from training.synthesis.round_trip import filter_round_trip

    chosen_forms, langs = parse_forms(forms), tuple(map(canonical_language, _split(query_langs)))
    asked = Endpoint(endpoint, model, key_variable, timeout_s=timeout, concurrency=concurrency) if endpoint else None
    refuse_inside(out, source)
    settings = load_settings(encoder=encoder or None)
    loaded = load_encoder(settings.encoder, threads=settings.threads, cache_dir=settings.encoders_folder)
    counts = ReadCounts()
    documents = list(iter_source_documents(source, tokenizer=loaded.tokenizer, counts=counts))
    _say_read(source, documents, counts)
    if asked:
        queries = ask_queries(documents, asked, out, langs=langs, per_document=per_document, seed=seed)
    else:
        queries = fill_templates(documents, forms=chosen_forms, langs=langs, per_document=per_document, seed=seed)
    if filter_:
        result = filter_round_trip(queries, documents, loaded, top=top)
        _say_filtered(result.report)
        queries = list(result.kept)
    write_queries(out, queries)
    pairs = Counter((query.lang, query.document.lang) for query in queries)
    across = sum(count for (lang, other), count in pairs.items() if lang != other)
    say(f"{out}: {len(queries)} rows, {across} of them across languages, {len({lang for lang, _ in pairs})} languages")


def parse_forms(names: str) -> tuple[Form, ...]:
    """The forms named, all for an empty text.

    Raises:
        SettingsError: A name is unknown.
    """
    from training.synthesis.templates import Form

    try:
        return tuple(Form(name) for name in _split(names)) or tuple(Form)
    except ValueError as error:
        raise SettingsError(f"--forms {names}: {error}; known are {', '.join(Form)}.") from error


def fill_templates(
    documents: Sequence[SourceDocument],
    *,
    forms: tuple[Form, ...],
    langs: tuple[str, ...],
    per_document: int,
    seed: int,
) -> list[SyntheticQuery]:
    """Template queries for all documents."""
    from training.synthesis.templates import TemplateOptions, iter_template_queries

    options = TemplateOptions(forms=forms, query_langs=langs, per_document=per_document, seed=seed)
    return list(iter_template_queries(documents, options=options))


def ask_queries(
    documents: Sequence[SourceDocument],
    endpoint: Endpoint,
    out: Path,
    *,
    langs: tuple[str, ...],
    per_document: int,
    seed: int,
) -> list[SyntheticQuery]:
    """Queries of an endpoint for all documents, in their order.

    Answers are kept in `<out>.asked.jsonl` as they come, before any filter; documents that it holds are not asked for
    again, whatever the options are now.
    """
    from training.synthesis.asked import AskedFile
    from training.synthesis.endpoint import AskCounts, iter_endpoint_queries

    counts = AskCounts()
    with AskedFile(out.with_name(f"{out.name}.asked.jsonl"), documents) as kept:
        unasked = kept.unasked()
        if kept.queries or kept.strangers:
            say(f"{kept.path}: {len(kept.queries)} queries kept, {kept.strangers} of other documents left out")
        answers = iter_endpoint_queries(
            unasked, endpoint, langs=langs, per_document=per_document, seed=seed, counts=counts
        )
        for answer in answers:
            kept.add(answer)
    say(f"{endpoint.model}: {counts.answered} of {counts.asked} documents answered, {counts.retried} requests repeated")
    for name, reason in list(counts.failed.items())[:10]:
        say(f"  {name}: {reason}")
    places = {(document.id, document.text): place for place, document in enumerate(documents)}
    return sorted(kept.queries, key=lambda query: places[query.document.id, query.document.text])


def write_queries(out: Path, queries: Iterable[SyntheticQuery]) -> None:
    """Write rows; the file appears when it is complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    with (
        gzip.open(partial, "wt", encoding="utf-8") if out.suffix == ".gz" else partial.open("w", encoding="utf-8") as f
    ):
        f.writelines(json.dumps(query.as_row(), ensure_ascii=False) + "\n" for query in queries)
    partial.replace(out)


def _say_read(source: Path, documents: Sequence[SourceDocument], counts: ReadCounts) -> None:
    if not documents:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(counts.skipped.items())[:3])
        raise TrainingDataError(
            f"{source} holds no text{f' ({reasons})' if reasons else ''}; give another folder or file."
        )
    langs = Counter(document.lang for document in documents)
    shown = ", ".join(f"{lang} {count}" for lang, count in langs.most_common())
    say(f"{source}: {counts.documents} documents, {counts.passages} passages ({shown})")
    for name, reason in list(counts.skipped.items())[:10]:
        say(f"  skipped {name}: {reason}")
    if len(counts.skipped) > 10:
        say(f"  and {len(counts.skipped) - 10} more")


def _say_filtered(report: RoundTripReport) -> None:
    every = report.kept + report.dropped
    say(f"kept {report.kept} of {every} queries, whose document is among the first {report.top} of {report.documents}")
    if report.documents <= report.top:
        say("  so few documents that all are kept: nothing was filtered; lower --top or give more documents")
    for kept, dropped in (
        (report.kept_by_form, report.dropped_by_form),
        (report.kept_by_lang, report.dropped_by_lang),
    ):
        names = sorted({*kept, *dropped})
        say(
            "  " + ", ".join(f"{name} {kept.get(name, 0)}/{kept.get(name, 0) + dropped.get(name, 0)}" for name in names)
        )


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
