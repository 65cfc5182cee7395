"""`search topics`: what the index, a part of it, or what a query finds is about."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from search.console import say
from search.engine import Engine
from search.language import canonical_language
from search.settings import load_settings
from search.text import counted, truncate_graphemes
from search.topics import Topic, Topics

_LABEL_CHARS = 100


def topics(
    text: Annotated[str | None, typer.Argument(help="a question or words; none: the whole index")] = None,
    reader: Annotated[list[str] | None, typer.Option(help="language of the labels to show first (repeat)")] = None,
    count: Annotated[int | None, typer.Option(help="topics wanted, 2 to 500")] = None,
    show: Annotated[int, typer.Option(min=1, help="labels to show for each topic")] = 3,
    lang: Annotated[list[str] | None, typer.Option(help="only these languages (repeat)")] = None,
    source: Annotated[list[str] | None, typer.Option(help="only these files, or folders ending in / (repeat)")] = None,
    since: Annotated[str | None, typer.Option(help="dated on or after, YYYY-MM-DD")] = None,
    until: Annotated[str | None, typer.Option(help="dated on or before, YYYY-MM-DD")] = None,
    where: Annotated[list[str] | None, typer.Option(help="metadata condition name=value (repeat)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per topic")] = False,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="built-in name, folder or hub id")] = None,
) -> None:
    """Say what documents are about: one topic for one subject, whatever their languages."""
    from search.cli import build_filter

    chosen = build_filter(lang=lang, source=source, since=since, until=until, where=where)
    readers = [canonical_language(name) for name in reader or []]
    engine = Engine(load_settings(index=index, store=store, encoder=encoder))
    try:
        found = engine.topics(filter=chosen, query=text, reader_languages=readers, count=count)
    finally:
        engine.close()
    for line in _json_lines(found) if as_json else _lines(found, show):
        print(line)
    for note in found.notes:
        say(note)


def _json_lines(found: Topics) -> Iterator[str]:
    for topic in found.topics:
        yield json.dumps(topic.as_json(), ensure_ascii=False)


def _lines(found: Topics, labels: int) -> Iterator[str]:
    leaves = sum(not topic.children for topic in found.topics)
    held = f"{counted(len(found.assigned), 'chunk')} in {counted(len(found.languages), 'language')}"
    yield f"{counted(leaves, 'topic')} in {held}; {counted(found.outliers, 'chunk')} in none"
    for root in found.roots:
        yield ""
        yield from _topic_lines(found, root, labels, 0)


def _topic_lines(found: Topics, topic: Topic, labels: int, depth: int) -> Iterator[str]:
    indent = "    " * depth
    languages = ", ".join(f"{lang} {chunks}" for lang, chunks in list(topic.languages.items())[:6])
    more = len(topic.languages) - 6
    size = f"{counted(topic.chunks, 'chunk')} of {counted(topic.documents, 'document')}"
    yield f"{indent}{topic.id}. {size}  ({languages}{f' and {more} more' if more > 0 else ''})"
    for label in topic.labels[:labels]:
        yield f"{indent}   [{label.lang}] {truncate_graphemes(label.text, _LABEL_CHARS, ellipsis='…')}"
    if topic.warning:
        yield f"{indent}   warning: {topic.warning}"
    for child in found.children(topic):
        yield from _topic_lines(found, child, labels, depth + 1)
