"""The `indexer` command: parse, call, print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indexer import backup_command, cluster_command, map_command, push_command, reindex_command, watch_command
from indexer.console import count_bar, describe, progress_bar, progress_lines, warning_if_empty
from search.console import emit, run, say
from search.errors import SettingsError
from search.settings import Settings, load_settings
from search.text import counted

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Fill and keep an index of your documents.")

IndexOption = Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")]
StoreOption = Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout")]


@app.command()
def ingest(
    corpus: Annotated[Path, typer.Argument(help="a folder, or one file")],
    fresh: Annotated[
        bool, typer.Option("--fresh", help="build the index anew, of this folder alone; the old one serves until then")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="read everything, write nothing")] = False,
    wait: Annotated[float, typer.Option(help="seconds to wait while another ingest holds the index")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=32, max=480, help="longest chunk")] = 256,
    overlap: Annotated[int, typer.Option(min=0, max=200, help="tokens shared by neighbouring chunks")] = 32,
    text_column: Annotated[list[str] | None, typer.Option(help="column of a table that holds text (repeat)")] = None,
    title_column: Annotated[str | None, typer.Option(help="column that holds the title")] = None,
    id_column: Annotated[str | None, typer.Option(help="column that identifies a record")] = None,
    date_column: Annotated[str | None, typer.Option(help="column that holds the date")] = None,
    index: IndexOption = None,
    store: StoreOption = None,
    encoder: Annotated[str | None, typer.Option(help="built-in name, folder or hub id")] = None,
    progress_json: Annotated[
        bool, typer.Option("--progress", help="with --json: lines of progress before the summary")
    ] = False,
    with_map: Annotated[
        bool | None,
        typer.Option("--map/--no-map", help="make the map anew afterwards; by default where there is a small one"),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="i/n: only this part of the files, into a server; then `indexer merge`")
    ] = None,
    engine: Annotated[
        cluster_command.IngestEngine, typer.Option(help="ray: spread over the workers of a Ray cluster")
    ] = cluster_command.IngestEngine.LOCAL,
    workers: Annotated[int | None, typer.Option(min=1, help="of --engine ray; by default by GPUs or cores")] = None,
    address: Annotated[
        str | None, typer.Option(help="of a running Ray cluster; by default one is started here")
    ] = None,
    late: Annotated[
        bool | None,
        typer.Option(
            "--late/--no-late",
            help="keep vectors of all tokens (28 KB a chunk, twice the time), so that every search is reranked; "
            "by default as before",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the index into step with a folder: read what is new or changed, remove what is gone."""
    from indexer import build, token_vectors
    from indexer.chunking import ChunkOptions
    from indexer.pipeline import IngestOptions
    from indexer.sources import ReadOptions

    read = ReadOptions(
        text_columns=tuple(text_column or ()), title_column=title_column, id_column=id_column, date_column=date_column
    )
    options = IngestOptions(read=read, chunk=ChunkOptions(max_tokens=max_tokens, overlap_tokens=overlap))
    spread = cluster_command.Spread(engine, workers, address, shard)
    spread.check(fresh=fresh, dry_run=dry_run, extras=bool(late or with_map))
    if dry_run:
        summary = build.dry_run(corpus, options, load_settings(index=index, store=store))
    else:
        settings = load_settings(index=index, store=store, encoder=encoder)
        with progress_bar(lambda: spread.size_of(corpus, settings), quiet=as_json) as bar:
            progress = progress_lines(spread.size_of(corpus, settings)) if as_json and progress_json else bar
            summary = spread.ingest(corpus, settings, options=options, fresh=fresh, wait_s=wait, progress=progress)
        if shard is None:
            with count_bar("token vectors", quiet=as_json) as counted_so_far:
                token_vectors.refresh_token_store(settings, wanted=late, progress=counted_so_far)
            map_command.refresh_map(settings, wanted=with_map)
    if as_json:
        emit(summary.as_json())
    else:
        print(describe(summary, dry_run=dry_run))
    if shard is None and (warning := warning_if_empty(summary, corpus)):
        say(warning)


@app.command()
def status(
    files: Annotated[bool, typer.Option("--files", help="list the files")] = False,
    skipped: Annotated[bool, typer.Option("--skipped", help="list what was skipped, with reasons")] = False,
    index: IndexOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what the index holds."""
    from indexer import build

    state = build.status(load_settings(index=index, store=store))
    if as_json:
        emit(state.as_json())
        return
    for line in state.lines():
        print(line)
    for source in state.files if files else ():
        print(source)
    for source, reason in state.skipped if skipped else ():
        print(f"{source}: {reason}")


@app.command()
def remove(
    names: Annotated[list[str] | None, typer.Argument(help="ids of documents, files, or folders ending in /")] = None,
    everything: Annotated[bool, typer.Option("--all", help="remove every document")] = False,
    wait: Annotated[float, typer.Option(help="seconds to wait while another ingest holds the index")] = 0.0,
    index: IndexOption = None,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove documents from the index; the files stay, and the next ingest of their folder adds them again."""
    from indexer import build, token_vectors

    if bool(names) == everything:
        raise SettingsError("name the documents, files or folders to remove, or give --all (not both)")
    settings: Settings = load_settings(index=index, store=store)
    removed = build.remove(settings, None if everything else names, wait_s=wait)
    token_vectors.forget_removed(settings)
    if as_json:
        emit({"event": "removed", "documents": removed})
    else:
        say("the files are still there: the next ingest of their folder adds them again") if removed else None
        print(f"{counted(len(removed), 'document')} removed")


app.command("map")(map_command.map_index)
app.command()(cluster_command.merge)
app.command()(backup_command.backup)
app.command()(backup_command.restore)
app.command()(push_command.push)
app.command()(push_command.pull)
app.command()(reindex_command.reindex)
app.command()(watch_command.watch)


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
