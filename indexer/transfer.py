"""An index from this machine to a Qdrant server and back, with the vectors that it has: nothing is encoded again."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from indexer.family_notes import publish_families
from indexer.ledger import UNFINISHED, DocumentRow, FileRow, Ledger
from indexer.side_files import (
    copy_side_files,
    forget_collection,
    forget_side_files,
    is_of,
    remember_collection,
    remember_manifest,
)
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
    add_collection,
    collections_of,
    drop_others,
    find_collection,
    move_alias,
    wait_until_indexed,
    write_metadata,
)

Progress = Callable[[int, int], None]
"""Called with the chunks that were copied, and how many there are."""

_BATCH = 1024
READERS_NOTICE_S = 3.0
"""Until what was there is dropped: readers look every other second whether they have the index."""


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
        before = set(collections_of(client, name).values())
        target = add_collection(client, name, manifest.dimension, shards=shards, replicas=replicas)
        try:
            _copy_points(source.store, target, manifest.chunks, progress)
            if source.families.known:
                origin = vectors_origin(manifest.encoder_fingerprint, manifest.map_fingerprint)
                publish_families(folder.current().path / FAMILIES, target, origin=origin)
            wait_until_indexed(target)
            aside = _pushed_files(folder.current().path, place, target)
            write_metadata(client, target.collection, server_metadata(manifest, source.language_map))
            move_alias(client, name, target.collection)
        except BaseException:
            drop_others(client, name, [target.collection])
            raise
        forget_side_files(place)
        copy_side_files(aside, place)
        shutil.rmtree(aside)
        if before:
            time.sleep(READERS_NOTICE_S)
        drop_others(client, name, before)
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


def _pushed_files(source: Path, place: Path, target: ServerStore) -> Path:
    """Ledger, translations and language map as they will be kept of the collection."""
    aside = place / "pushed"
    shutil.rmtree(aside, ignore_errors=True)
    copy_side_files(source, aside)
    with closing(Ledger(aside / LEDGER)) as ledger:
        remember_collection(ledger, target.metadata)
    return aside


def _batches(store: VectorStore) -> Iterator[list[Point]]:
    points = store.iter_points(with_vectors=True)
    while batch := list(islice(points, _BATCH)):
        yield batch


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
    in_step = _is_in_step(kept / LEDGER, source, manifest)
    if in_step:
        shutil.copyfile(kept / LEDGER, building / LEDGER)
        if (kept / OFFSETS).exists():
            shutil.copyfile(kept / OFFSETS, building / OFFSETS)
    with closing(EdgeStore(building / SHARD, manifest.dimension)) as target:
        _copy_points(source, target, manifest.chunks, progress)
        target.optimize()
        with closing(Ledger(building / LEDGER)) as ledger:
            forget_collection(ledger)
            if not in_step:
                _write_rows(ledger, target, manifest)
            if (kept / FAMILIES).exists():
                shutil.copyfile(kept / FAMILIES, building / FAMILIES)
            update_families(
                building / FAMILIES, store=target, digests=digests_of(ledger), language_map=language_map,
                encoder_fingerprint=manifest.encoder_fingerprint,
            )  # fmt: skip


def _is_in_step(path: Path, store: VectorStore, manifest: IndexManifest) -> bool:
    """Whether there is a ledger, and another machine did not change the server's index since."""
    if not path.exists():
        return False
    with closing(Ledger(path)) as ledger:  # closing folds the log of an ingest that was killed into the file
        same = isinstance(store, ServerStore) and is_of(ledger, store.metadata)
        return same and ledger.totals() == (manifest.documents, manifest.chunks)


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
