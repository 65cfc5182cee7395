"""`indexer map`: find the topics of the whole index and place its chunks in the plane, for the engine to read."""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from typing import Annotated

import typer

from search.console import emit
from search.document_map import MAP, load_map, make_map, write_map
from search.errors import IndexBusyError, IndexFormatError, IndexNotFoundError, PanlinguaError
from search.index import IndexFolder, writing
from search.opening import open_index
from search.settings import Settings, load_settings
from search.text import counted
from search.topics.find import LEAST_CHUNKS

logger = logging.getLogger(__name__)

REFRESHED_CHUNKS = 20_000
"""An ingest makes a map anew by itself where there is one, up to so many chunks: half a minute on two cores."""


def map_index(
    wait: Annotated[float, typer.Option(help="seconds to wait while an ingest holds the index")] = 0.0,
    seed: Annotated[int, typer.Option(help="the same seed gives the same map")] = 0,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Find the topics of the index and draw its map; `search topics` and the UI read them."""
    started = time.monotonic()
    chunks, topics = update_map(load_settings(index=index, store=store), seed=seed, wait_s=wait)
    seconds = round(time.monotonic() - started, 1)
    if as_json:
        emit({"event": "map", "chunks": chunks, "topics": topics, "seconds": seconds})
    else:
        print(f"{counted(chunks, 'chunk')} placed in {counted(topics, 'topic')}; {seconds} s")


def update_map(settings: Settings, *, seed: int = 0, wait_s: float = 0.0) -> tuple[int, int]:
    """Make the map of an index and keep it beside the shard; returns how many chunks and topics it holds.

    Neither searches nor ingests have to wait while it is made.

    Raises:
        IndexBusyError: The index changed meanwhile, or another process writes to it for longer than `wait_s`.
        QueryError: There are too few chunks.
        SettingsError: The extra `topics` is not installed.
    """
    opened = open_index(settings)
    try:
        points = opened.store.iter_points(with_vectors=True)
        table, topics = make_map(points, opened.manifest, opened.language_map, seed=seed)
        folder = opened.folder
        assert folder is not None
        lock = nullcontext() if settings.store else IndexFolder(settings.index_folder).write_lock(wait_s=wait_s)
        with lock:
            if opened.is_outdated():
                raise IndexBusyError("the index was changed while its map was made; run `indexer map` again")
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_map(table, folder / MAP)
    finally:
        opened.close()
    return table.num_rows, topics


def refresh_map(settings: Settings, *, wanted: bool | None) -> bool:
    """After an ingest, make the map anew where that is wanted; returns whether it was made.

    Args:
        settings: Where the index is.
        wanted: Whether to; None: where there is one of an earlier state, and it is made fast.
    """
    if wanted:
        update_map(settings)
        return True
    if wanted is None and _is_outdated_and_small(settings):
        try:
            update_map(settings)
            return True
        except PanlinguaError as error:  # the ingest itself has succeeded
            logger.warning("the map was not made anew: %s", error)
    return False


def _is_outdated_and_small(settings: Settings) -> bool:
    opened = open_index(settings)
    opened.close()
    if opened.folder is None or not LEAST_CHUNKS <= opened.manifest.chunks <= REFRESHED_CHUNKS:
        return False
    try:
        return not load_map(opened.folder / MAP, opened.manifest).is_current
    except (IndexNotFoundError, IndexFormatError):
        return False
