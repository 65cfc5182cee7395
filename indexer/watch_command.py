"""`indexer watch`: keep the index in step with a folder while its files change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from indexer.console import describe
from indexer.pipeline import Summary
from search.console import emit, say
from search.errors import EncoderMismatchError, PanlinguaError, SettingsError, SourceError
from search.settings import Settings, load_settings

if TYPE_CHECKING:
    from search.encoder import Encoder

_WAIT_S = 3_600.0
_MOST_QUIET = 30
"""A folder that never comes to rest is read after so many times the quiet that is waited for."""


def watch(
    corpus: Annotated[Path, typer.Argument(help="a folder")],
    poll: Annotated[
        bool, typer.Option("--poll", help="look at the files in turn: for network and container mounts")
    ] = False,
    quiet: Annotated[float, typer.Option(min=0.1, help="seconds without a change before it is read")] = 2.0,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    encoder: Annotated[str | None, typer.Option(help="built-in name, folder or hub id")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per ingest")] = False,
) -> None:
    """Ingest a folder, and again whenever its files change, until interrupted."""
    from search.opening import load_own_encoder

    corpus = corpus.expanduser()
    if not corpus.is_dir():
        raise SourceError(f"{str(corpus)!r} is no folder; give an existing one")
    settings = load_settings(index=index, store=store, encoder=encoder)
    changes = watch_folder(corpus, poll=poll, quiet_s=quiet)
    loaded = load_own_encoder(settings)
    say(f"watching {corpus}; Ctrl-C stops it")

    def tell(summary: Summary) -> None:
        emit(summary.as_json()) if as_json else print(describe(summary), flush=True)

    follow(corpus, settings, loaded, changes, tell=tell)


def watch_folder(corpus: Path, *, poll: bool, quiet_s: float, stop: threading.Event | None = None) -> Iterable[object]:
    """Something whenever files of a folder were changed and then left alone for a while.

    Raises:
        SettingsError: The package for it is not installed.
    """
    try:
        from watchfiles import Change, watch
    except ModuleNotFoundError as error:
        raise SettingsError("watching needs the package watchfiles; pip install 'panlingua[watch]'") from error

    def wanted(_change: Change, path: str) -> bool:
        parts = Path(path).relative_to(root).parts if Path(path).is_relative_to(root) else ()
        return bool(parts) and not any(part.startswith((".", "~$")) for part in parts)  # the folder's own date is none

    root = corpus.resolve()
    return watch(
        root, watch_filter=wanted, debounce=int(quiet_s * 1000) * _MOST_QUIET, step=int(quiet_s * 1000),
        force_polling=poll or None, stop_event=stop, raise_interrupt=False, recursive=True,
    )  # fmt: skip


def follow(
    corpus: Path,
    settings: Settings,
    encoder: Encoder,
    changes: Iterable[object],
    *,
    tell: Callable[[Summary], None],
) -> None:
    """Ingest now and after every change. What fails is said, and tried again after the next one.

    Where the index was encoded anew meanwhile, it is gone on with its new encoder, unless the settings name one.
    """
    from search.opening import load_own_encoder

    for _ in chain([None], changes):
        try:
            try:
                summary = _ingest(corpus, settings, encoder)
            except EncoderMismatchError:
                encoder = load_own_encoder(settings)
                summary = _ingest(corpus, settings, encoder)
        except PanlinguaError as error:
            say(f"error: {error} Watching goes on.")
            continue
        if summary.documents or summary.removed or summary.read:
            tell(summary)


def _ingest(corpus: Path, settings: Settings, encoder: Encoder) -> Summary:
    from indexer import build, token_vectors

    summary = build.ingest(corpus, settings, encoder=encoder, wait_s=_WAIT_S)
    token_vectors.refresh_token_store(settings, wanted=None, encoder=encoder)
    return summary
