"""`training swap`: layers of one adapter in place of another's."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from search.console import say


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
