"""`search facets`: how many documents there are of each language, folder, year and metadata value."""

from __future__ import annotations

from typing import Annotated

import typer

from search.console import emit
from search.engine import Engine
from search.facets import Facets
from search.settings import load_settings


def facets(
    query: Annotated[
        str | None,
        typer.Argument(help="a question or conditions such as lang:de; none: the whole index"),
    ] = None,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per value")] = False,
) -> None:
    """Count the documents of each language, folder, year and metadata value."""
    engine = Engine(load_settings(index=index, store=store))
    try:
        counts = engine.search(query, k=1).facets if query else engine.facets()
    finally:
        engine.close()
    if as_json:
        for name, values in counts.items():
            for value, documents in values:
                emit({"field": name, "value": value, "documents": documents})
        return
    for line in as_text(counts):
        print(line)


def as_text(counts: Facets) -> list[str]:
    """For people: one line per field."""
    shown = {name: ", ".join(f"{value} {documents}" for value, documents in values) for name, values in counts.items()}
    return [f"{name}: {values or 'none'}" for name, values in shown.items()]
