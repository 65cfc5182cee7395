"""The `ui` command: see that there is something to search, then let Streamlit serve the application."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from search.console import run, say
from search.errors import SettingsError
from search.settings import load_settings
from ui.files import FOLDERS_VARIABLE

APPLICATION = Path(__file__).parent / "app.py"
LOOPBACK = ("127.0.0.1", "localhost", "::1")

app = typer.Typer(add_completion=False, help="Open the application in the browser.")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0: every one of this machine")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(help="folder below which the application may ingest (repeat); on this machine alone: your own"),
    ] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
) -> None:
    """Serve the application; the bundled corpus is searched while there is no index."""
    if not _is_installed("streamlit"):
        raise SettingsError("the application needs Streamlit: pip install 'panlingua[ui]'")
    settings = load_settings(index=index, store=store)
    environment = {"MALLOC_ARENA_MAX": "2", **os.environ}  # every session is a thread: see search.memory.share_heap
    if index:
        environment["PANLINGUA_INDEX"] = index
    if store:
        environment["PANLINGUA_STORE"] = store
    if host in LOOPBACK:  # whoever sits at this machine may ingest what is theirs
        environment.setdefault(FOLDERS_VARIABLE, os.pathsep.join(map(str, folder or [Path.home(), Path.cwd()])))
    elif folder:
        environment[FOLDERS_VARIABLE] = os.pathsep.join(map(str, folder))
    if host not in LOOPBACK and not environment.get("PANLINGUA_PASSWORD"):
        say(f"warning: everybody who reaches {host}:{port} can search and change the index; set PANLINGUA_PASSWORD")
    if not settings.store:
        _ingest_sample_if_needed(index)
    command = [sys.executable, "-m", "streamlit", "run", str(APPLICATION)]
    address = ["--server.address", host, "--server.port", str(port)]
    say(f"Panlingua on http://{'localhost' if host in LOOPBACK else host}:{port} (Ctrl-C ends it)")
    with subprocess.Popen([*command, *address], env=environment) as server:
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            sys.exit(server.wait())
        except KeyboardInterrupt:
            return


def _ingest_sample_if_needed(index: str | None) -> None:
    """Index the bundled corpus, where it is at hand, when there is nothing to search."""
    from ui.resources import SAMPLE_CORPUS, SAMPLE_INDEX, has_index

    searchable = has_index(load_settings()) or has_index(load_settings(index=SAMPLE_INDEX))
    if index or searchable or not SAMPLE_CORPUS.is_dir():
        return
    say("There is no index yet: reading the bundled corpus ...")
    subprocess.run(
        [sys.executable, "-m", "indexer.cli", "ingest", str(SAMPLE_CORPUS), "--index", SAMPLE_INDEX], check=False
    )


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
