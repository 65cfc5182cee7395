"""The `search` command: parse, call the engine, print."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from search import (
    evaluate_command,
    facets_command,
    gaps_command,
    mcp_command,
    serve_command,
    similar_command,
    topics_command,
    translations_command,
)
from search.console import run, say
from search.engine import Engine
from search.errors import QueryError
from search.interpretation import readings
from search.language import canonical_language
from search.records import Filter, Match, Range
from search.results import Hit, Mode, SearchResult
from search.settings import load_settings
from search.terminal import draw_passage
from search.text import counted

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Search your documents across languages.")

IndexOption = Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")]
StoreOption = Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")]
EncoderOption = Annotated[str | None, typer.Option("--encoder", help="built-in name, folder or hub id")]


@app.callback()
def _group() -> None:
    """Keep `query` a subcommand."""


@app.command()
def query(
    text: Annotated[str, typer.Argument(help='a question or words, in any language; also lang:de "a phrase" -word')],
    k: Annotated[int, typer.Option("--top", "-k", help="documents to show")] = 10,
    offset: Annotated[int, typer.Option(help="documents to leave out at the top")] = 0,
    mode: Annotated[Mode, typer.Option(help="how candidates are found")] = Mode.HYBRID,
    balance: Annotated[
        float | None, typer.Option(help="0: prefer the query's language as the encoder does; 1: languages equal")
    ] = None,
    lang: Annotated[list[str] | None, typer.Option(help="only these languages (repeat)")] = None,
    source: Annotated[list[str] | None, typer.Option(help="only these files, or folders ending in / (repeat)")] = None,
    since: Annotated[str | None, typer.Option(help="dated on or after, YYYY-MM-DD")] = None,
    until: Annotated[str | None, typer.Option(help="dated on or before, YYYY-MM-DD")] = None,
    where: Annotated[list[str] | None, typer.Option(help="metadata condition name=value (repeat)")] = None,
    fold: Annotated[bool, typer.Option("--fold/--no-fold", help="translations of one document are one hit")] = True,
    reader: Annotated[
        list[str] | None, typer.Option("--reader", help="language to show such a hit in, first choice first (repeat)")
    ] = None,
    spoken: Annotated[str | None, typer.Option("--query-lang", help="language of the query; else detected")] = None,
    diversity: Annotated[float, typer.Option(help="0 to 1: how far a hit should differ from those before it")] = 0.0,
    rerank: Annotated[
        str | None,
        typer.Option(help="read the best 50 again: none, late, or folder or hub id of a reranker"),
    ] = None,
    highlight: Annotated[
        bool | None, typer.Option("--highlight/--no-highlight", help="mark why; by default in a terminal")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="show where each score comes from")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per hit")] = False,
    index: IndexOption = None,
    store: StoreOption = None,
    encoder: EncoderOption = None,
) -> None:
    """Find the documents that answer a question, whatever language they are in."""
    chosen = build_filter(lang=lang, source=source, since=since, until=until, where=where)
    engine = Engine(load_settings(index=index, store=store, encoder=encoder))
    try:
        result = engine.search(
            text, k=k, offset=offset, mode=mode, balance=balance, filter=chosen, explain=explain or as_json,
            fold=fold, reader_languages=reader or (), lang=spoken, diversity=diversity, rerank=rerank,
            highlight=not as_json and sys.stdout.isatty() if highlight is None else highlight,
        )  # fmt: skip
        languages = engine.index().languages
    finally:
        engine.close()
    for line in as_json_lines(result) if as_json else as_text(result, explain=explain):
        print(line)
    for line in as_remarks(result):
        say(line)
    if not result.hits and chosen is not None:
        known = ", ".join(languages)
        say(f"nothing passes the filters; languages of the index: {known}; `indexer status --files` lists the files")


app.command()(similar_command.similar)
app.command()(facets_command.facets)
app.command()(evaluate_command.evaluate)
app.command()(translations_command.translations)
app.command()(gaps_command.gaps)
app.command()(serve_command.serve)
app.command()(serve_command.key)
app.command()(mcp_command.mcp)
app.command()(topics_command.topics)


def build_filter(
    *,
    lang: list[str] | None,
    source: list[str] | None,
    since: str | None,
    until: str | None,
    where: list[str] | None,
) -> Filter | None:
    """Conditions from the command's options, None when there are none.

    Raises:
        QueryError: A condition is not of the form name=value, or a date is not a date.
    """
    conditions: list[Match | Range] = []
    if lang:
        conditions.append(Match("lang", tuple(map(canonical_language, lang))))
    if source:
        folders = tuple(name.rstrip("/") for name in source if name.endswith("/"))
        files = tuple(name for name in source if not name.endswith("/"))
        if folders and files:
            raise QueryError("--source takes files or folders, not both in one search")
        conditions.append(Match("folders", folders) if folders else Match("source", files))
    if since or until:
        conditions.append(Range("date", _date(since, "T00:00:00Z"), _date(until, "T23:59:59Z")))
    for condition in where or []:
        name, equals, value = condition.partition("=")
        if not equals or not name:
            raise QueryError(f"--where takes name=value, got {condition!r}")
        conditions.append(Match(f"metadata.{name}", readings(value)))
    return Filter(tuple(conditions)) if conditions else None


def _date(value: str | None, clock: str) -> str | None:
    from datetime import date

    if value is None:
        return None
    try:
        return date.fromisoformat(value).isoformat() + clock
    except ValueError as error:
        raise QueryError(f"dates are written YYYY-MM-DD, got {value!r}") from error


def as_json_lines(result: SearchResult) -> list[str]:
    """One JSON object per hit."""
    return [json.dumps(hit.as_json(), ensure_ascii=False) for hit in result.hits]


def as_remarks(result: SearchResult) -> list[str]:
    """What to tell people about how their query was read."""
    conditions = [f"only {' '.join(result.interpretation.conditions)}"] if result.interpretation.conditions else []
    meant = [f"did you mean: {result.suggestion}"] if result.suggestion else []
    return [*conditions, *result.notes, *meant]


def as_text(result: SearchResult, *, explain: bool = False, width: int = 240) -> list[str]:
    """Hits for people: rank, title, language and source, then the beginning of the passage."""
    detected = f"{result.detection.lang} ({result.detection.confidence:.0%})"
    took = result.timings_ms["total"]
    lines = [f"{counted(len(result.hits), 'hit')} for {result.query!r}, read as {detected}, in {took:.0f} ms"]
    if not result.hits:
        lines.append("Nothing found: other words or --mode dense may help.")
    for hit in result.hits:
        lines += ["", *_hit_lines(hit, width)]
        if hit.also_in:
            lines.append(f"    also in {', '.join(dict.fromkeys(other.lang for other in hit.also_in))}")
        if explain and hit.explanation is not None:
            e = hit.explanation
            lines.append(f"    score {hit.score:.4f} from {_part('dense', e.dense_rank, e.dense_score)}, "
                         f"{_part('lexical', e.lexical_rank, e.lexical_score)}")  # fmt: skip
            if e.rerank_rank is not None:
                lines.append(f"    {_part('reranker', e.rerank_rank, e.rerank_score)}")
    return lines


def _part(name: str, rank: int | None, score: float | None) -> str:
    return f"{name}: not listed" if rank is None or score is None else f"{name}: rank {rank} ({score:.3f})"


def _hit_lines(hit: Hit, width: int) -> list[str]:
    chunk = hit.chunk
    heading = f" › {chunk.headings[-1]}" if chunk.headings and chunk.headings[-1] != chunk.title else ""
    return [
        f"{hit.rank}. [{chunk.lang}] {chunk.title or chunk.document_id}{heading}  ({chunk.document_id})",
        f"    {draw_passage(chunk, hit.highlights, width=width)}",
    ]


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
