"""`indexer backup` and `indexer restore`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from search.console import emit
from search.settings import load_settings
from search.text import counted

IndexOption = Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout")]


def backup(
    target: Annotated[Path, typer.Argument(help="file to write, such as notes.tar.gz")],
    replace: Annotated[bool, typer.Option("--replace", help="write over a file that is there")] = False,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the whole index to one file, with checksums; searching and ingesting go on meanwhile."""
    from indexer.backup import backup as write_backup

    contents = write_backup(load_settings(index=index), target.expanduser(), replace=replace)
    size = target.expanduser().stat().st_size
    if as_json:
        emit({"event": "backup", "file": str(target), "bytes": size, "index": contents.index.model_dump()})
    else:
        held = f"{counted(contents.index.documents, 'document')} in {counted(contents.index.chunks, 'chunk')}"
        print(f"{target}: {held}, {size / 1e6:.1f} MB; the documents' files are not in it")


def restore(
    source: Annotated[Path, typer.Argument(help="file that `indexer backup` wrote")],
    replace: Annotated[bool, typer.Option("--replace", help="in place of the index that is there")] = False,
    check: Annotated[bool, typer.Option("--check", help="compare the checksums and change nothing")] = False,
    wait: Annotated[float, typer.Option(help="seconds to wait while another ingest holds the index")] = 0.0,
    index: IndexOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a backup the index again, after comparing its checksums."""
    from indexer.backup import restore as read_backup
    from indexer.backup import verify

    source, settings = source.expanduser(), load_settings(index=index)
    contents = verify(source) if check else read_backup(settings, source, replace=replace, wait_s=wait)
    if as_json:
        event = "checked" if check else "restored"
        emit({"event": event, "created": contents.created, "index": contents.index.model_dump()})
    else:
        held = f"{counted(contents.index.documents, 'document')} in {counted(contents.index.chunks, 'chunk')}"
        done = "every checksum is right" if check else "restored"
        print(f"{held}, of {contents.created}: {done}")
