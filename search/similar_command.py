"""`search similar`: documents about the same as one."""

from __future__ import annotations

from typing import Annotated

import typer

from search.console import emit
from search.engine import Engine
from search.settings import load_settings


def similar(
    document: Annotated[str, typer.Argument(help="id of a document, as a search shows it in parentheses")],
    k: Annotated[int, typer.Option("--top", "-k", help="documents to show")] = 10,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per document")] = False,
) -> None:
    """List the documents that are about the same as one, in any language."""
    engine = Engine(load_settings(index=index, store=store))
    try:
        hits = engine.similar(document, k=k)
    finally:
        engine.close()
    for hit in hits:
        if as_json:
            emit(hit.as_json())
        else:
            title = hit.chunk.title or hit.document_id
            print(f"{hit.rank}. [{hit.chunk.lang}] {title}  ({hit.document_id}), {hit.score:.3f}")
