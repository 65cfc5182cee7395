"""How `indexer ingest` spreads its work (`--shard`, `--engine ray`), and `indexer merge`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from indexer import map_command
from indexer.console import count_bar
from indexer.pipeline import IngestOptions, Progress, Summary
from search.console import emit
from search.errors import SettingsError
from search.settings import Settings, load_settings
from search.text import counted


class IngestEngine(StrEnum):
    """What does the work of an ingest."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True)
class Spread:
    """Which part of an ingest is done here, and by what."""

    engine: IngestEngine = IngestEngine.LOCAL
    workers: int | None = None
    address: str | None = None
    shard: str | None = None

    def check(self, *, fresh: bool, dry_run: bool, extras: bool) -> None:
        """Refuse options that do not go together.

        Args:
            fresh: Whether the index is to be built anew.
            dry_run: Whether nothing is to be written.
            extras: Whether a map or token vectors are asked for.

        Raises:
            SettingsError: Which ones, and what to do instead.
        """
        ray = self.engine is IngestEngine.RAY
        if not ray and (self.workers or self.address):
            raise SettingsError("--workers and --address are of a Ray cluster: give --engine ray")
        if ray and self.shard:
            raise SettingsError("give --shard or --engine ray: Ray makes shards by itself and merges them")
        if dry_run and (ray or self.shard):
            raise SettingsError("--dry-run looks at the whole folder, in this process; leave out --shard and --engine")
        if self.shard and fresh:
            raise SettingsError(
                "with --fresh every shard would drop what the others wrote. Ingest the shards into another index "
                "(--index NAME), or empty this one first with `indexer remove --all --store URL`"
            )
        if self.shard and extras:
            raise SettingsError(
                "a map and token vectors are made of the whole: give --map and --late to `indexer merge`"
            )

    def ingest(
        self,
        corpus: Path,
        settings: Settings,
        *,
        options: IngestOptions,
        fresh: bool,
        wait_s: float,
        progress: Progress,
    ) -> Summary:
        """Do it."""
        from indexer import build, ray_engine, shard_jobs, shards

        if self.shard:
            part = shards.parse_shard(self.shard)
            return shard_jobs.ingest_shard(corpus, settings, part, options=options, wait_s=wait_s, progress=progress)
        if self.engine is IngestEngine.RAY:
            return ray_engine.ingest_with_ray(
                corpus, settings, options=options, fresh=fresh, workers=self.workers, address=self.address,
                wait_s=wait_s, progress=progress,
            )  # fmt: skip
        return build.ingest(corpus, settings, options=options, fresh=fresh, wait_s=wait_s, progress=progress)

    def size_of(self, corpus: Path, settings: Settings) -> int:
        """Bytes of the files that `ingest` would look at."""
        from indexer import build, shard_jobs, shards

        if self.shard:
            return shard_jobs.size_of_shard(corpus, settings, shards.parse_shard(self.shard))
        return build.size_of(corpus)


def merge(
    shards: Annotated[
        int | None, typer.Option(min=1, help="into how many the ingest was split, where several splits are found")
    ] = None,
    wait: Annotated[float, typer.Option(help="seconds to wait while another ingest holds the index")] = 0.0,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    encoder: Annotated[str | None, typer.Option(help="built-in name, folder or hub id")] = None,
    with_map: Annotated[bool | None, typer.Option("--map/--no-map", help="as with `indexer ingest`")] = None,
    late: Annotated[bool | None, typer.Option("--late/--no-late", help="as with `indexer ingest`")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout")] = False,
) -> None:
    """Make one index of the shards that `indexer ingest --shard` wrote: find translations, publish it."""
    from indexer import shard_jobs, token_vectors
    from search.opening import load_own_encoder

    settings = load_settings(index=index, store=store, encoder=encoder)
    loaded = load_own_encoder(settings)
    manifest, merged = shard_jobs.merge_shards(settings, of=shards, wait_s=wait, encoder=loaded)
    with count_bar("token vectors", quiet=as_json) as counted_so_far:
        token_vectors.refresh_token_store(settings, wanted=late, progress=counted_so_far)
    map_command.refresh_map(settings, wanted=with_map)
    if as_json:
        emit({"event": "merged", "shards": merged, "documents": manifest.documents, "chunks": manifest.chunks})
    else:
        held = f"{counted(manifest.documents, 'document')} in {counted(manifest.chunks, 'chunk')}"
        print(f"{counted(merged, 'shard')} merged: {held}")
