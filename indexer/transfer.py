"""An index from this machine to a Qdrant server and back, with the vectors that it has: nothing is encoded again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from indexer.build import forget_ledgers, remember_manifest
from indexer.ledger import UNFINISHED, DocumentRow, FileRow, Ledger
from indexer.translations import digests_of, update_families
from search.balance import LanguageMap
from search.errors import SettingsError, StoreError
from search.fold import FAMILIES, vectors_origin
from search.index import LANGUAGE_MAP, LEDGER, OFFSETS, SHARD, IndexFolder, writing
from search.manifest import IndexManifest
from search.opening import connect_index, open_index, server_folder, server_metadata
from search.records import Point
from search.settings import Settings
from search.store.base import VectorStore
from search.store.server import (
    ServerStore,
    collections_of,
    drop_collections,
    find_collection,
    move_alias,
    next_collection,
    write_metadata,
)

Progress = Callable[[int, int], None]
"""Called with the chunks that were copied, and how many there are."""

_BATCH = 1024


def push(
    settings: Settings,
    *,
    replace: bool = False,
    shards: int | None = None,
    replicas: int | None = None,
    wait_s: float = 0.0,
    progress: Progress = lambda _done, _total: None,
) -> IndexManifest:
    """Copy the embedded index of the settings to their server, where it becomes current in one step.

    The ledger goes along, into this machine's home folder, so that `indexer ingest --store` reads only what is new.

    Raises:
        SettingsError: No server is named, or it has this index already and `replace` is not given.
        StoreError: The server fails; what it had before is still there.
    """
    client, name = connect_index(settings)
    local = settings.model_copy(update={"store": None})
    folder = IndexFolder(local.index_folder)
    folder.current()
    with closing(client), folder.write_lock(wait_s=wait_s), closing(open_index(local)) as source:
        manifest, place = source.manifest, server_folder(settings)
        if find_collection(client, name) and not replace:
            raise SettingsError(f"the server has {name!r} already; give --replace to write over it")
        collection = next_collection(client, name)
        target = ServerStore(client, collection, manifest.dimension, shards=shards, replicas=replicas)
        try:
            _copy_points(source.store, target, manifest.chunks, progress)
            write_metadata(client, collection, server_metadata(manifest, source.language_map))
        except BaseException:
            drop_collections(client, [collection])
            raise
        forget_ledgers(settings)  # those of what was there, of which nothing is left in a moment
        move_alias(client, name, collection)
        copy_side_files(folder.current().path, place)
        drop_collections(client, set(collections_of(client, name).values()) - {collection})
    return manifest


def pull(
    settings: Settings,
    *,
    replace: bool = False,
    wait_s: float = 0.0,
    progress: Progress = lambda _done, _total: None,
) -> IndexManifest:
    """Copy the index of the settings' server to this machine, where it becomes current in one step.

    Where another machine fills the server's index, its ledger is not here: the next ingest then reads every file again.

    Raises:
        SettingsError: No server is named, or there is such an index here and `replace` is not given.
        IndexNotFoundError: The server has no such index.
        StoreError: The server fails, or its index was changed meanwhile.
    """
    connect_index(settings)[0].close()
    folder = IndexFolder(settings.index_folder)
    with folder.write_lock(wait_s=wait_s), closing(open_index(settings)) as source:
        if (folder.current_number() is not None or folder.building.exists()) and not replace:
            raise SettingsError(f"there is an index at {folder.path}; name another with --index, or give --replace")
        building = folder.begin(fresh=True, corpus=f"pull {settings.store}")
        try:
            with writing(building):
                _fill(building, source.store, source.manifest, source.language_map, server_folder(settings), progress)
            with closing(open_index(settings)) as after:
                changed = after.manifest != source.manifest
            if changed:
                raise StoreError("the index on the server was changed while it was copied; run `indexer pull` again")
        except BaseException:
            folder.discard()
            raise
        folder.publish(source.manifest)
    return source.manifest


def _copy_points(source: VectorStore, target: VectorStore, total: int, progress: Progress) -> None:
    done = 0
    for batch in _batches(source):
        target.upsert(batch)
        done += len(batch)
        progress(done, total)
        source.release_memory()
    if target.count() != total:
        raise StoreError(f"{target.count()} of {total} chunks arrived; run the command again")


def _batches(store: VectorStore) -> Iterator[list[Point]]:
    points = store.iter_points(with_vectors=True)
    while batch := list(islice(points, _BATCH)):
        yield batch


def copy_side_files(source: Path, target: Path) -> None:
    """Ledger, translations and language map, as whoever ingests into a server keeps them."""
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        for suffix in ("", "-wal", "-shm"):  # a log that a kill left would bring the old rows back
            (target / f"{LEDGER}{suffix}").unlink(missing_ok=True)
        for name in (LEDGER, FAMILIES, LANGUAGE_MAP, OFFSETS):
            (target / name).unlink(missing_ok=True)
            if (source / name).exists():
                shutil.copyfile(source / name, target / name)


def _fill(
    building: Path,
    source: VectorStore,
    manifest: IndexManifest,
    language_map: LanguageMap,
    kept: Path,
    progress: Progress,
) -> None:
    """Write the files of a generation: shard, map, ledger, translations."""
    from search.store.edge import EdgeStore

    language_map.save(building / LANGUAGE_MAP)
    in_step = _is_in_step(kept / LEDGER, manifest)
    if in_step:
        shutil.copyfile(kept / LEDGER, building / LEDGER)
        if (kept / OFFSETS).exists():
            shutil.copyfile(kept / OFFSETS, building / OFFSETS)
    with closing(EdgeStore(building / SHARD, manifest.dimension)) as target:
        _copy_points(source, target, manifest.chunks, progress)
        target.optimize()
        with closing(Ledger(building / LEDGER)) as ledger:
            if not in_step:
                _write_rows(ledger, target, manifest)
            if (kept / FAMILIES).exists():
                shutil.copyfile(kept / FAMILIES, building / FAMILIES)
            update_families(
                building / FAMILIES, store=target, digests=digests_of(ledger), language_map=language_map,
                origin=vectors_origin(manifest.encoder_fingerprint, language_map.fingerprint),
            )  # fmt: skip


def _is_in_step(path: Path, manifest: IndexManifest) -> bool:
    """Whether there is a ledger, and another machine did not change or encode the server's index since."""
    if not path.exists():
        return False
    with closing(Ledger(path)) as ledger:  # closing folds the log of an ingest that was killed into the file
        same_encoder = ledger.meta("encoder_fingerprint") == manifest.encoder_fingerprint
        return same_encoder and ledger.totals() == (manifest.documents, manifest.chunks)


def _write_rows(ledger: Ledger, store: VectorStore, manifest: IndexManifest) -> None:
    """A ledger from what the chunks say: documents that are complete, files that have to be read again."""
    remember_manifest(ledger, manifest)
    chunks: dict[str, int] = {}
    sources: dict[str, str] = {}
    for row in store.iter_fields(("document_id", "source")):
        document = str(row["document_id"])
        chunks[document] = chunks.get(document, 0) + 1
        sources[document] = str(row["source"])
    ledger.put_documents([DocumentRow(name, sources[name], "", chunks[name], 0) for name in sorted(chunks)])
    for source in sorted(set(sources.values())):
        ledger.put_file(FileRow(source, UNFINISHED, 0, "", ""))
