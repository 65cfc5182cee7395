"""`training static`: an encoder that is a table, for indexing faster than any network."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from search.console import emit, say
from search.settings import load_settings


def static_command(
    encoder: Annotated[str, typer.Argument(help="built-in name, folder or hub id")],
    out: Annotated[Path, typer.Option(help="folder of the encoder to make")],
    rows: Annotated[
        list[Path], typer.Option(help="JSONL(.gz) of retrieval and bitext (repeat); none: the package's", exists=True)
    ] = [],  # noqa: B006
    dimension: Annotated[int, typer.Option(min=8, help="of the vectors")] = 256,
    most: Annotated[int, typer.Option(min=100, help="rows to learn from, all languages alike")] = 100_000,
    epochs: Annotated[int, typer.Option(min=1, help="passes over them")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Distil an encoder into a vector for each piece of its vocabulary: far faster, and less exact."""
    from training.static import StaticOptions, distil_static

    options = StaticOptions(encoder, out, tuple(rows), dimension, most, epochs)
    report = distil_static(options, load_settings(), report=say)
    if as_json:
        emit(report.as_record())
        return
    print(f"{report.pieces:,} pieces, {report.seen:,} of them in {report.pairs:,} pairs; "
          f"{report.dimension} dimensions keep {report.kept:.1%} of the encoder's variance")  # fmt: skip
    print(f"{'lang':7} {'texts':>6} {'cosine before the fit':>21} {'after':>6}")
    for row in report.closeness:
        print(f"{row.lang:7} {row.texts:6,} {row.before:21.3f} {row.after:6.3f}")
    print(f"next: indexer ingest FOLDER --encoder {shlex.quote(str(out))}")
