"""Give a server's index another encoder: another collection is filled beside it, and the alias is moved to it.

    HOME/servers/KEY/reindex/     vectors so far, of one state of the collection and one encoder
    HOME/servers/KEY/previous/    which collection was the index before the last reindex, and its ledger at that time

Searches go on with the old collection until the alias is moved. Whoever searches or ingests on other machines notices
by the manifest, which is kept with the collection.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.build import keep_offsets, remember_manifest, require_merged
from indexer.ledger import Ledger
from indexer.passages import (
    PREVIOUS,
    WORK,
    PassageEncoder,
    Progress,
    encode_passages,
    fit_map,
    renewed,
    write_passages,
)
from indexer.transfer import copy_side_files
from indexer.translations import digests_of, update_families
from search.balance import LanguageMap
from search.errors import IndexNotFoundError, StoreError
from search.fold import FAMILIES, vectors_origin
from search.index import LANGUAGE_MAP, LEDGER, OFFSETS, IndexFolder, write_durably
from search.manifest import IndexManifest
from search.opening import connect_index, open_index, read_server_metadata, server_folder, server_metadata
from search.settings import Settings
from search.store.server import (
    ServerStore,
    collections_of,
    create_like,
    drop_collections,
    find_collection,
    move_alias,
    read_metadata,
    write_metadata,
)

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

_COLLECTION = "collection"


def reindex(settings: Settings, encoder: PassageEncoder, *, wait_s: float, progress: Progress) -> IndexManifest:
    """See `indexer.reindex.reindex`."""
    with _changing(settings, wait_s) as (client, name, current), closing(open_index(settings)) as opened:
        place, known = server_folder(settings), read_metadata(client, current)
        vectors = encode_passages(opened, encoder, place / WORK, f"{current} {opened.manifest.updated}", progress)
        language_map = fit_map(opened, keep_offsets(encoder, place / WORK), vectors)
        manifest = renewed(opened.manifest, encoder, language_map, len(vectors))
        target = create_like(client, name, current, encoder.dimension)
        try:
            write_passages(opened, target, vectors, language_map)
            if target.count() != opened.store.count() or read_metadata(client, current) != known:
                raise StoreError(f"{name!r} was changed while it was encoded; run `indexer reindex` again")
            write_metadata(client, target.collection, {**known, **server_metadata(manifest, language_map)})
        except BaseException:
            drop_collections(client, [target.collection])
            raise
        _keep(place, _set_aside(place, current))
        move_alias(client, name, target.collection)
        _renew_side_files(place, target, manifest, language_map)
        drop_collections(client, set(collections_of(client, name).values()) - {current, target.collection})
        shutil.rmtree(place / WORK)
    return manifest


def roll_back(settings: Settings, *, wait_s: float) -> IndexManifest:
    """See `indexer.reindex.roll_back`."""
    with _changing(settings, wait_s) as (client, name, current):
        place = server_folder(settings)
        aside, previous = _aside(place), place / PREVIOUS
        kept = _collection_of(previous)
        if kept == current and _collection_of(aside) is not None:
            _keep(place, aside)  # a roll-back was cut off when all but this was done
            return _manifest_of(client, current)
        if kept is None or kept == current or find_collection(client, kept) != kept:
            raise IndexNotFoundError(
                f"{place} keeps no earlier state of {name!r}; the machine that ran `indexer reindex` does, if any"
            )
        _set_aside(place, current)
        copy_side_files(previous, place)  # before the alias: files are read again rather than believed to be there
        move_alias(client, name, kept)
        _keep(place, aside)
        return _manifest_of(client, kept)


def _manifest_of(client: QdrantClient, collection: str) -> IndexManifest:
    return read_server_metadata(read_metadata(client, collection), collection)[0]


@contextmanager
def _changing(settings: Settings, wait_s: float) -> Iterator[tuple[QdrantClient, str, str]]:
    """A client, what the index is called, and its collection, which nobody on this machine changes meanwhile."""
    with IndexFolder(settings.index_folder).write_lock(wait_s=wait_s):
        open_index(settings).close()  # says what is wrong where there is none
        require_merged(settings)
        client, name = connect_index(settings)
        with closing(client):
            yield client, name, find_collection(client, name) or name


def _renew_side_files(place: Path, store: ServerStore, manifest: IndexManifest, language_map: LanguageMap) -> None:
    """Bring what this machine keeps of the collection into step; another one does so with its next ingest."""
    (place / OFFSETS).unlink(missing_ok=True)
    if (place / WORK / OFFSETS).exists():
        shutil.copyfile(place / WORK / OFFSETS, place / OFFSETS)
    language_map.save(place / LANGUAGE_MAP)
    if not (place / LEDGER).exists():
        return
    with closing(Ledger(place / LEDGER)) as ledger:
        remember_manifest(ledger, manifest)
        update_families(
            place / FAMILIES, store=store, digests=digests_of(ledger), language_map=language_map,
            origin=vectors_origin(manifest.encoder_fingerprint, language_map.fingerprint),
        )  # fmt: skip


def _set_aside(place: Path, collection: str) -> Path:
    """A copy of what is kept of a collection that is about to be followed by another."""
    aside = _aside(place)
    shutil.rmtree(aside, ignore_errors=True)
    if (place / LEDGER).exists():
        Ledger(place / LEDGER).close()  # folds in what a kill left in its log
    copy_side_files(place, aside)
    write_durably(aside / _COLLECTION, collection)
    return aside


def _keep(place: Path, aside: Path) -> None:
    shutil.rmtree(place / PREVIOUS, ignore_errors=True)
    aside.rename(place / PREVIOUS)


def _aside(place: Path) -> Path:
    return place / f"{PREVIOUS}.new"


def _collection_of(folder: Path) -> str | None:
    path = folder / _COLLECTION
    return path.read_text(encoding="utf-8") if path.exists() else None
