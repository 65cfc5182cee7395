"""`search gaps`: which documents lack which languages."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from search.console import emit, say
from search.engine import Engine
from search.fold import Gap
from search.settings import load_settings
from search.text import counted


def gaps(
    languages: Annotated[
        str | None, typer.Option(help="languages that every document should be in, as in de,fr; default: all found")
    ] = None,
    translated: Annotated[
        bool, typer.Option("--translated", help="only documents that are in two languages or more")
    ] = False,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per document")] = False,
) -> None:
    """List the documents that are not translated into every language, the most translated ones first."""
    wanted = [lang.strip() for lang in (languages or "").split(",") if lang.strip()]
    engine = Engine(load_settings(index=index, store=store))
    try:
        found = [gap for gap in engine.gaps(wanted) if len(gap.documents) > 1 or not translated]
    finally:
        engine.close()
    if as_json:
        for gap in found:
            emit({"documents": dict(gap.documents), "missing": list(gap.missing)})
        return
    for gap in found:
        print(as_text(gap))
    lacking = Counter(lang for gap in found for lang in gap.missing)
    counts = ", ".join(f"{lang} {number}" for lang, number in lacking.most_common())
    say(f"{counted(len(found), 'document')} not in every language" + (f"; lacking: {counts}" if counts else ""))


def as_text(gap: Gap) -> str:
    """For people: one document, the languages it is in and those it lacks."""
    name = next(iter(gap.documents.values()))
    return f"{name}  in {', '.join(gap.documents)}; not in {', '.join(gap.missing)}"
