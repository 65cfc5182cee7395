"""An index from this machine to a Qdrant server and back, with the vectors that it has: nothing is encoded again."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from indexer.ledger import UNFINISHED, DocumentRow, FileRow, Ledger
from indexer.translations import digests_of, update_families
from search.balance import LanguageMap
from search.errors import SettingsError, StoreError
from search.fold import FAMILIES, vectors_origin
from search.index import LANGUAGE_MAP, LEDGER, OFFSETS, SHARD, IndexFolder, writing
from search.manifest import IndexManifest
from search.opening import collection_name, open_index, server_folder, server_metadata
from search.records import Point
from search.settings import Settings
from search.store.base import VectorStore
from search.store.server import ServerStore, collection_exists, connect, drop_collection, write_metadata

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
    """Copy the embedded index of the settings to their server; it can be searched there when all of it is there.

    The ledger goes along, into this machine's home folder, so that `indexer ingest --store` reads only what is new.

    Raises:
        SettingsError: No server is named, or it has this index already and `replace` is not given.
        StoreError: The server fails; run it again with `replace`.
    """
    url, name = _server_of(settings), collection_name(settings)
    local = settings.model_copy(update={"store": None})
    folder = IndexFolder(local.index_folder)
    folder.current()
    with folder.write_lock(wait_s=wait_s), closing(open_index(local)) as source:
        manifest, client = source.manifest, connect(url, settings.api_key)
        if collection_exists(client, name):
            if not replace:
                raise SettingsError(f"the server has {name!r} already; give --replace to write over it")
            drop_collection(client, name)
        with closing(ServerStore(client, name, manifest.dimension, shards=shards, replicas=replicas)) as target:
            _copy_points(source.store, target, manifest.chunks, progress)
            _copy_side_files(folder.current().path, server_folder(settings))
            write_metadata(client, name, server_metadata(manifest, source.language_map))
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
    _server_of(settings)
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


def _server_of(settings: Settings) -> str:
    if not settings.store:
        raise SettingsError("name the server with --store URL or PANLINGUA_STORE")
    return settings.store


def _copy_points(source: VectorStore, target: VectorStore, total: int, progress: Progress) -> None:
    done = 0
    for batch in _batches(source):
        target.upsert(batch)
        done += len(batch)
        progress(done, total)
        source.release_memory()
    if target.count() != total:
        raise StoreError(f"{target.count()} of {total} chunks arrived; run the command again with --replace")


def _batches(store: VectorStore) -> Iterator[list[Point]]:
    points = store.iter_points(with_vectors=True)
    while batch := list(islice(points, _BATCH)):
        yield batch


def _copy_side_files(source: Path, target: Path) -> None:
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
    if (kept / OFFSETS).exists():
        shutil.copyfile(kept / OFFSETS, building / OFFSETS)
    in_step = _is_in_step(kept / LEDGER, manifest)
    if in_step:
        shutil.copyfile(kept / LEDGER, building / LEDGER)
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
    """Whether there is a ledger, and another machine did not change the server's index since."""
    if not path.exists():
        return False
    with closing(Ledger(path)) as ledger:  # closing folds the log of an ingest that was killed into the file
        return ledger.totals() == (manifest.documents, manifest.chunks)


def _write_rows(ledger: Ledger, store: VectorStore, manifest: IndexManifest) -> None:
    """A ledger from what the chunks say: documents that are complete, files that have to be read again."""
    values = {
        "dimension": manifest.dimension, "encoder": manifest.encoder, "chunks_at_fit": manifest.chunks_at_fit,
        "encoder_fingerprint": manifest.encoder_fingerprint, "lexical_version": manifest.lexical_version,
    }  # fmt: skip
    for key, value in values.items():
        ledger.set_meta(key, str(value))
    chunks: dict[str, int] = {}
    sources: dict[str, str] = {}
    for row in store.iter_fields(("document_id", "source")):
        document = str(row["document_id"])
        chunks[document] = chunks.get(document, 0) + 1
        sources[document] = str(row["source"])
    ledger.put_documents([DocumentRow(name, sources[name], "", chunks[name], 0) for name in sorted(chunks)])
    for source in sorted(set(sources.values())):
        ledger.put_file(FileRow(source, UNFINISHED, 0, "", ""))
