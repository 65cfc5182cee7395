"""Give a server's index another encoder: another collection is filled beside it, and the alias is moved to it.

Searches go on with the old collection until then, and it is kept for a roll-back. Who ingests on another machine
meanwhile is noticed, or notices (`ServerStore.flush`), before anything is believed to be ingested that is not.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.build import require_merged
from indexer.family_notes import copy_notes, publish_families
from indexer.ledger import Ledger
from indexer.passages import (
    WORK,
    PassageEncoder,
    PassageVectors,
    Progress,
    encode_passages,
    fit_map,
    renewed,
    require_other_encoder,
    write_passages,
)
from indexer.side_files import ORIGIN, find_offsets, follow_collection
from indexer.translations import digests_of, update_families
from search.balance import LanguageMap
from search.errors import IndexNotFoundError, StoreError
from search.fold import FAMILIES, vectors_origin
from search.index import LEDGER, IndexFolder
from search.manifest import IndexManifest
from search.opening import OpenIndex, connect_index, open_index, read_server_metadata, server_folder, server_metadata
from search.settings import Settings
from search.store.server import (
    COPY,
    PURPOSE,
    ServerStore,
    add_like,
    collections_of,
    drop_others,
    epoch_of,
    find_collection,
    give_id,
    move_alias,
    read_metadata,
    wait_until_indexed,
    write_metadata,
)

if TYPE_CHECKING:
    from qdrant_client import QdrantClient


def reindex(settings: Settings, encoder: PassageEncoder, *, wait_s: float, progress: Progress) -> IndexManifest:
    """See `indexer.reindex.reindex`."""
    place = server_folder(settings)
    with _changing(settings, wait_s) as (client, name), closing(open_index(settings)) as opened:
        current, before = _store(opened).collection, set(collections_of(client, name).values())
        require_other_encoder(opened.manifest, encoder)
        vectors = PassageVectors(place / WORK, encoder)
        encode_passages(opened, vectors, progress)
        known = _begin_epoch(client, current)
        encode_passages(opened, vectors, progress)  # what has come since
        language_map = fit_map(opened, find_offsets(encoder), vectors, encoder.dimension)
        target = add_like(client, name, current, encoder.dimension)
        try:
            chunks = write_passages(opened, target, vectors, language_map)
            origin = vectors_origin(encoder.fingerprint, language_map.fingerprint)
            copy_notes(_store(opened), target, known, language_map, origin)
            wait_until_indexed(target)
            manifest = renewed(read_server_metadata(known, name)[0], encoder, language_map, chunks)
            stated = {**server_metadata(manifest, language_map), ORIGIN: [known["id"], epoch_of(known) - 1]}
            kept = {key: value for key, value in known.items() if key not in ("id", "epoch", "purpose")}
            same = target.count() == opened.store.count() == chunks and read_metadata(client, current) == known
            if not same or find_collection(client, name) != current:
                raise _changed(name)
            write_metadata(client, target.collection, {**kept, **stated})
        except BaseException:
            drop_others(client, name, [target.collection])
            raise
        move_alias(client, name, target.collection)
        drop_others(client, name, before - {current})
        _follow(place, target, encoder, manifest, language_map)
        shutil.rmtree(place / WORK, ignore_errors=True)
    return manifest


def roll_back(settings: Settings, *, wait_s: float) -> IndexManifest:
    """See `indexer.reindex.roll_back`."""
    with _changing(settings, wait_s) as (client, name):
        current = find_collection(client, name)
        others = {
            number: collection for number, collection in collections_of(client, name).items()
            if collection != current and _was_index(read_metadata(client, collection))
        }  # fmt: skip
        if not others:
            raise IndexNotFoundError(f"the server keeps no earlier state of {name!r}; `indexer reindex` makes one")
        earlier = others[max(others)]
        metadata = give_id(client, earlier)
        manifest, _ = read_server_metadata(metadata, name)
        move_alias(client, name, earlier)
        follow_collection(server_folder(settings), metadata, manifest)
    return manifest


@contextmanager
def _changing(settings: Settings, wait_s: float) -> Iterator[tuple[QdrantClient, str]]:
    """A client, and what the index is called; nobody on this machine changes it meanwhile."""
    with IndexFolder(settings.index_folder).write_lock(wait_s=wait_s):
        open_index(settings).close()  # says what is wrong where there is none
        require_merged(settings)
        client, name = connect_index(settings)
        with closing(client):
            yield client, name


def _store(opened: OpenIndex) -> ServerStore:
    assert isinstance(opened.store, ServerStore)
    return opened.store


def _begin_epoch(client: QdrantClient, collection: str) -> dict[str, Any]:
    """Have ingests of other machines stop that began before; returns what is kept with the collection then."""
    known = give_id(client, collection)
    if "manifest" not in known:
        raise _changed(collection)
    write_metadata(client, collection, {"epoch": epoch_of(known) + 1})
    return {**known, "epoch": epoch_of(known) + 1}


def _changed(name: str) -> StoreError:
    return StoreError(f"{name!r} was changed while it was encoded; run `indexer reindex` again")


def _was_index(metadata: dict[str, Any]) -> bool:
    return "manifest" in metadata and metadata.get(PURPOSE) != COPY


def _follow(
    place: Path, store: ServerStore, encoder: PassageEncoder, manifest: IndexManifest, language_map: LanguageMap
) -> None:
    """Bring what this machine keeps of the collection into step; others do so with their next ingest."""
    metadata = read_metadata(store.client, store.collection)
    follow_collection(place, metadata, manifest, find_offsets(encoder))
    if not (place / LEDGER).exists():
        return
    with closing(Ledger(place / LEDGER)) as ledger:
        update_families(
            place / FAMILIES, store=store, digests=digests_of(ledger), language_map=language_map,
            encoder_fingerprint=manifest.encoder_fingerprint,
        )  # fmt: skip
    origin = vectors_origin(manifest.encoder_fingerprint, manifest.map_fingerprint)
    publish_families(place / FAMILIES, store, origin=origin)
