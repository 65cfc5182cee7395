"""`search mcp`: the index as tools for agents, over stdin and stdout."""

from __future__ import annotations

from typing import Annotated

import typer

from search.engine import Engine
from search.errors import SettingsError
from search.settings import load_settings


def mcp(
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="built-in name, folder or hub id")] = None,
) -> None:
    """Let agents search and read, by the Model Context Protocol over stdin and stdout."""
    try:
        from search.mcp import create_server
    except ModuleNotFoundError as error:
        message = f"agents need the package {error.name}; install it with pip install 'panlingua[api]'"
        raise SettingsError(message) from error
    engine = Engine(load_settings(index=index, store=store, encoder=encoder))
    try:
        engine.index()
        create_server(engine).run("stdio")
    finally:
        engine.close()
