"""`training swap` and `shrink`: layers of one adapter in place of another's, and encoders with fewer layers."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from search.console import emit, say
from search.settings import load_settings

MIB = 2**20


def swap_command(
    adapter: Annotated[Path, typer.Argument(help="folder of an adapter or of its run: the task expert")],
    out: Annotated[Path, typer.Option(help="folder of the adapter to make")],
    layers: Annotated[str, typer.Option(help="layers that come from OTHER, such as 0-3,10-11")],
    other: Annotated[
        Path | None, typer.Argument(help="another of the same base: the language expert; none: the base")
    ] = None,
    average: Annotated[str, typer.Option(help="layers that are the mean of both, such as 4,9")] = "",
) -> None:
    """Take some layers of another adapter, or of the base, in place of an adapter's own."""
    from training.layers import parse_layers
    from training.run_commands import find_adapter
    from training.swap import swap_layers

    averaged = parse_layers(average) if average else ()
    second = find_adapter(other) if other else None
    print(swap_layers(find_adapter(adapter), second, out, layers=parse_layers(layers), averaged=averaged))
    say(f"next: training export RUN --adapter {shlex.quote(str(out))} --out ENCODER")


def shrink_command(
    encoder: Annotated[str, typer.Argument(help="built-in name, folder or hub id")],
    layers: Annotated[str, typer.Option(help="layers to keep, counted from 0, such as 0,2,4,7,9,11")],
    out: Annotated[Path, typer.Option(help="folder of the encoder to make")],
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Make an encoder of some layers of another, to be trained by the recipe distil."""
    from training.layers import parse_layers
    from training.shrink import shrink_encoder

    report = shrink_encoder(encoder, parse_layers(layers), out, load_settings())
    if as_json:
        emit(report.as_record())
        return
    before, after = report.before, report.after
    print(f"layers      {before.layers:>13,} → {after.layers:,}")
    print(f"parameters  {before.parameters:>13,} → {after.parameters:,}")
    print(f"on disk     {before.disk_bytes / MIB:>9,.0f} MiB → {after.disk_bytes / MIB:,.0f} MiB")
    changes = f"--set base={shlex.quote(str(out))} --set training.teacher={shlex.quote(encoder)}"
    say(f"next: training run distil {changes} --data FOLDER --out RUN")
