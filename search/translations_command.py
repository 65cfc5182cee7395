"""`search translations`: the documents that say the same as one, in other languages."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from search.console import emit
from search.engine import Engine
from search.fold import Translation
from search.settings import load_settings


def translations(
    document: Annotated[str, typer.Argument(help="id of a document, as a search shows it in parentheses")],
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per translation")] = False,
) -> None:
    """List the translations of a document that were found when it was ingested."""
    engine = Engine(load_settings(index=index, store=store))
    try:
        found = engine.translations(document)
    finally:
        engine.close()
    if as_json:
        for translation in found:
            emit(asdict(translation))
        return
    for line in as_text(document, found):
        print(line)


def as_text(document: str, found: list[Translation]) -> list[str]:
    """For people: one line per translation, how much of it has a counterpart in the document at its end."""
    if not found:
        return [f"no translation of {document} was found in the index"]
    titled = [f"{item.document_id}  {item.title}" if item.title else item.document_id for item in found]
    return [f"{item.lang:<8}{name}  ({item.shared:.0%} shared)" for item, name in zip(found, titled, strict=True)]
