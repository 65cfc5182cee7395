"""`indexer push` and `indexer pull`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from search.console import emit, say
from search.manifest import IndexManifest
from search.settings import load_settings
from search.text import counted

_SAY_EVERY = 20
IndexOption = Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")]
StoreOption = Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="in place of the index that is there")]
WaitOption = Annotated[float, typer.Option(help="seconds to wait while an ingest holds the index")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout")]


def push(
    store: StoreOption = None,
    index: IndexOption = None,
    replace: ReplaceOption = False,
    shards: Annotated[int | None, typer.Option(min=1, help="shards of the collection in a cluster")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, help="copies of each shard")] = None,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Copy the embedded index to a Qdrant server, without encoding again."""
    from indexer.transfer import push as send

    settings = load_settings(index=index, store=store)
    manifest = send(
        settings, replace=replace, shards=shards, replicas=replicas, wait_s=wait, progress=_progress(as_json)
    )
    _tell("pushed", manifest, as_json)


def pull(
    store: StoreOption = None,
    index: IndexOption = None,
    replace: ReplaceOption = False,
    wait: WaitOption = 0.0,
    as_json: JsonOption = False,
) -> None:
    """Copy an index from a Qdrant server to this machine, without encoding again."""
    from indexer.transfer import pull as fetch

    settings = load_settings(index=index, store=store)
    _tell("pulled", fetch(settings, replace=replace, wait_s=wait, progress=_progress(as_json)), as_json)


def _progress(as_json: bool) -> Callable[[int, int], None]:
    """Lines of JSON, or a line on stderr for every twentieth of the way."""
    told = 0

    def advance(done: int, total: int) -> None:
        nonlocal told
        if as_json:
            emit({"event": "progress", "chunks": done, "total_chunks": total})
        elif done * _SAY_EVERY // max(total, 1) > told:
            told = done * _SAY_EVERY // max(total, 1)
            say(f"{done} of {counted(total, 'chunk')}")

    return advance


def _tell(event: str, manifest: IndexManifest, as_json: bool) -> None:
    if as_json:
        emit({"event": event, "documents": manifest.documents, "chunks": manifest.chunks})
    else:
        print(f"{counted(manifest.documents, 'document')} in {counted(manifest.chunks, 'chunk')} {event}")
