"""`search serve`: the HTTP API. `search key`: a key for it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from search.api.keys import KeyRing, Scope, as_toml, check_entry, load_keys, new_secret
from search.console import say
from search.errors import SettingsError
from search.memory import share_heap
from search.settings import Settings, load_settings

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
INSTALL = "pip install 'panlingua[api]'"


def serve(
    host: Annotated[str | None, typer.Option(help="address to listen on; by default this machine only")] = None,
    port: Annotated[int | None, typer.Option(help="port to listen on, by default 8080")] = None,
    keys_file: Annotated[Path | None, typer.Option(help="TOML file of API keys; `search key NAME` writes one")] = None,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="let everybody who reaches the server do everything")
    ] = False,
    folder: Annotated[list[Path] | None, typer.Option(help="folder that may be ingested (repeat)")] = None,
    host_name: Annotated[list[str] | None, typer.Option(help="host name to answer to (repeat)")] = None,
    rate: Annotated[int | None, typer.Option(help="requests a minute and caller, by default 600; 0: no limit")] = None,
    timeout: Annotated[float | None, typer.Option(help="seconds a request may take, by default 30")] = None,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="built-in name, folder or hub id")] = None,
) -> None:
    """Answer over HTTP; the description of the API is at /docs."""
    given = {
        "host": host, "port": port, "keys_file": keys_file, "folders": folder, "hosts": host_name, "rate": rate,
        "timeout_s": timeout,
    }  # fmt: skip
    flags = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(index=index, store=store, encoder=encoder, serve=flags or None)
    run_server(settings, without_keys=without_keys)


def key(
    name: Annotated[str, typer.Argument(help="what the log calls it")],
    scope: Annotated[list[Scope] | None, typer.Option(help="what it allows (repeat), by default read")] = None,
    file: Annotated[Path | None, typer.Option(help="key file to add it to; none: print the entry")] = None,
) -> None:
    """Make an API key: its secret goes to stdout, once; the server keeps a hash."""
    secret = new_secret()
    entry = as_toml(name, secret, scope or [Scope.READ])
    check_entry(entry)
    if file is None:
        say(f"put this into the file of --keys-file:\n\n{entry}")
    else:
        with file.expanduser().open("a", encoding="utf-8") as opened:
            opened.write(f"\n{entry}")
    print(secret)


def run_server(settings: Settings, *, without_keys: bool) -> None:
    """Serve until interrupted.

    Raises:
        SettingsError: The server could be reached from elsewhere and has no keys, or a package is missing.
    """
    try:
        import uvicorn

        from search.api.app import create_app
        from search.api.service import Service
    except ModuleNotFoundError as error:
        raise SettingsError(f"the server needs the package {error.name}; install it with {INSTALL}") from error
    options = settings.serve
    keys = load_keys(options.keys_file, options.keys)
    check_reachable(options.host, keys, without_keys=without_keys)
    share_heap()
    _log_to_stderr()
    say(f"listening on http://{options.host}:{options.port}, described at /docs; Ctrl-C stops it")
    uvicorn.run(
        create_app(Service(settings, keys=keys)), host=options.host, port=options.port, log_config=None,
        access_log=False, server_header=False, timeout_graceful_shutdown=30,
    )  # fmt: skip


def check_reachable(host: str, keys: KeyRing, *, without_keys: bool) -> None:
    """Refuse to stand open to the network by accident.

    Raises:
        SettingsError: The address is not this machine's own, and there are no keys.
    """
    if host not in _LOOPBACK and not keys and not without_keys:
        raise SettingsError(
            f"on {host} others can reach the server, and it has no API keys. Make one with `search key NAME --file "
            "keys.toml` and give --keys-file keys.toml (or PANLINGUA_SERVE_KEYS), or say --without-keys."
        )


def _log_to_stderr() -> None:
    """One JSON object a line from the API; other libraries' warnings as they are."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("search.api").setLevel(logging.INFO)
