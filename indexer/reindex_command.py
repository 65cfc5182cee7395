"""`indexer reindex`."""

from __future__ import annotations

from typing import Annotated

import typer

from search.console import emit, say
from search.errors import SettingsError
from search.settings import load_settings
from search.text import counted


def reindex(
    encoder: Annotated[str | None, typer.Option(help="the new encoder: built-in name, folder or hub id")] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="go back to the state before the last reindex")] = False,
    wait: Annotated[float, typer.Option(help="seconds to wait while an ingest holds the index")] = 0.0,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Encode the passages of the index with another encoder; the index serves as it is until all is done."""
    from indexer.reindex import reindex as encode_again
    from indexer.reindex import roll_back
    from indexer.token_vectors import refresh_token_store
    from search.encoder import load_encoder

    if (encoder is None) != rollback:
        raise SettingsError("name the new encoder with --encoder, or give --rollback (not both)")
    settings = load_settings(index=index, store=store, encoder=encoder)
    if rollback:
        manifest = roll_back(settings, wait_s=wait)
    else:
        loaded = load_encoder(
            settings.encoder, backend=settings.backend, threads=settings.threads, cache_dir=settings.encoders_folder
        )

        def advance(done: int, total: int) -> None:
            if as_json:
                emit({"event": "progress", "chunks": done, "total_chunks": total})
            elif total:
                say(f"{done} of {counted(total, 'passage')} encoded")

        manifest = encode_again(settings, loaded, wait_s=wait, progress=advance)
        refresh_token_store(settings, wanted=None, encoder=loaded)
    if as_json:
        emit({"event": "reindexed", "encoder": manifest.encoder, "chunks": manifest.chunks})
        return
    print(f"{counted(manifest.chunks, 'chunk')}, encoder {manifest.encoder}")
    say("searches, ingests and watchers use it from now on; change PANLINGUA_ENCODER where it is set")
