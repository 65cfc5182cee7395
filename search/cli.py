"""The `search` command: parse, call the engine, print."""

from __future__ import annotations

import json
import re
from typing import Annotated

import typer

from search.console import run, say
from search.engine import Engine, Hit, Mode, SearchResult
from search.errors import QueryError
from search.language import canonical_language
from search.records import Filter, Match, MetadataValue, Range
from search.settings import load_settings
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
    text: Annotated[str, typer.Argument(help="a question or words, in any language")],
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
            text, k=k, offset=offset, mode=mode, balance=balance, filter=chosen, explain=explain or as_json
        )
        languages = engine.index().languages
    finally:
        engine.close()
    for line in as_json_lines(result) if as_json else as_text(result, explain=explain):
        print(line)
    if not result.hits and chosen is not None:
        known = ", ".join(languages)
        say(f"nothing passes the filters; languages of the index: {known}; `indexer status --files` lists the files")


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
        conditions.append(Match(f"metadata.{name}", _readings(value)))
    return Filter(tuple(conditions)) if conditions else None


def _date(value: str | None, clock: str) -> str | None:
    from datetime import date

    if value is None:
        return None
    try:
        return date.fromisoformat(value).isoformat() + clock
    except ValueError as error:
        raise QueryError(f"dates are written YYYY-MM-DD, got {value!r}") from error


def _readings(value: str) -> tuple[MetadataValue, ...]:
    """A value from the shell matches the text, and the number or truth value that it reads as."""
    readings: list[MetadataValue] = [value]
    if value.lower() in ("true", "false"):
        readings.append(value.lower() == "true")
    elif re.fullmatch(r"-?[0-9]{1,18}", value):
        readings.append(int(value))
    elif re.fullmatch(r"-?[0-9]{0,18}\.[0-9]{1,18}", value):
        readings.append(float(value))
    return tuple(readings)


def as_json_lines(result: SearchResult) -> list[str]:
    """One JSON object per hit."""
    return [json.dumps(hit.as_json(), ensure_ascii=False) for hit in result.hits]


def as_text(result: SearchResult, *, explain: bool = False, width: int = 240) -> list[str]:
    """Hits for people: rank, title, language and source, then the beginning of the passage."""
    detected = f"{result.detection.lang} ({result.detection.confidence:.0%})"
    took = result.timings_ms["total"]
    lines = [f"{counted(len(result.hits), 'hit')} for {result.query!r}, read as {detected}, in {took:.0f} ms"]
    if not result.hits:
        lines.append("Nothing found: other words or --mode dense may help.")
    for hit in result.hits:
        lines += ["", *_hit_lines(hit, width)]
        if explain and hit.explanation is not None:
            e = hit.explanation
            lines.append(f"    score {hit.score:.4f} from {_part('dense', e.dense_rank, e.dense_score)}, "
                         f"{_part('lexical', e.lexical_rank, e.lexical_score)}")  # fmt: skip
    return lines


def _part(name: str, rank: int | None, score: float | None) -> str:
    return f"{name}: not listed" if rank is None or score is None else f"{name}: rank {rank} ({score:.3f})"


def _hit_lines(hit: Hit, width: int) -> list[str]:
    chunk = hit.chunk
    passage = " ".join(chunk.text.split())
    shown = passage if len(passage) <= width else passage[:width].rstrip() + "…"
    heading = f" › {chunk.headings[-1]}" if chunk.headings and chunk.headings[-1] != chunk.title else ""
    return [
        f"{hit.rank}. [{chunk.lang}] {chunk.title or chunk.document_id}{heading}  ({chunk.document_id})",
        f"    {shown}",
    ]


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
