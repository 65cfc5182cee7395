"""Give an index another encoder: its passages are encoded again beside the index, which serves until all is done.

    INDEX/reindex/     vectors so far, of one encoder; a later run goes on with them
    INDEX/previous/    the generation before the last reindex (hard links, as far as it was not changed since)

A server's collection gets another beside it: `indexer.reindex_server`. The documents' files are not needed, since the
passages are in the index. They stay cut as they are.
"""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

from indexer import reindex_server
from indexer.ledger import Ledger
from indexer.passages import (
    PREVIOUS,
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
from indexer.side_files import keep_offsets, remember_manifest
from indexer.translations import digests_of, update_families
from search.errors import IndexNotFoundError, SettingsError
from search.files import copy_tree
from search.fold import FAMILIES
from search.index import LANGUAGE_MAP, LEDGER, MANIFEST, SHARD, Generation, IndexFolder, writing
from search.manifest import IndexManifest, read_manifest
from search.opening import OpenIndex, open_index
from search.settings import Settings

_REINDEX, _ROLL_BACK = "reindex", "roll back"


def reindex(
    settings: Settings,
    encoder: PassageEncoder,
    *,
    wait_s: float = 0.0,
    progress: Progress = lambda _done, _total: None,
) -> IndexManifest:
    """Encode an index anew and make the outcome current; the state before is kept for `roll_back`.

    A run that was cut off is gone on with.

    Raises:
        SettingsError: The index has this encoder already, or an ingest is not finished.
        IndexBusyError: Another process writes to the index.
        StoreError: The server fails, or its index was changed meanwhile.
    """
    if settings.store:
        return reindex_server.reindex(settings, encoder, wait_s=wait_s, progress=progress)
    folder = IndexFolder(settings.index_folder)
    folder.current()
    with folder.write_lock(wait_s=wait_s), closing(open_index(settings)) as opened:
        generation = folder.current()
        _require_no_ingest(folder)
        require_other_encoder(opened.manifest, encoder)
        vectors = PassageVectors(folder.path / WORK, encoder)
        encode_passages(opened, vectors, progress)
        building = folder.begin(fresh=True, corpus=_REINDEX)
        with writing(building):
            manifest = _build(building, generation, opened, encoder, vectors)
            aside = _set_aside(folder, generation)
        folder.publish(manifest)
        _keep(folder, aside)
        shutil.rmtree(folder.path / WORK)
    return manifest


def roll_back(settings: Settings, *, wait_s: float = 0.0) -> IndexManifest:
    """Make the state before the last reindex current again; another roll-back undoes it.

    Raises:
        IndexNotFoundError: There is no earlier state.
        IndexBusyError: Another process writes to the index.
    """
    if settings.store:
        return reindex_server.roll_back(settings, wait_s=wait_s)
    folder = IndexFolder(settings.index_folder)
    previous = folder.path / PREVIOUS
    if not (previous / MANIFEST).exists():
        raise IndexNotFoundError(f"{folder.path} keeps no earlier state; `indexer reindex` makes one")
    with folder.write_lock(wait_s=wait_s):
        _require_no_ingest(folder)
        manifest, generation = read_manifest(previous / MANIFEST), folder.current()
        building = folder.begin(fresh=True, corpus=_ROLL_BACK)
        with writing(building):
            copy_tree(previous, building, copy=os.link)
            (building / MANIFEST).unlink()
            aside = _set_aside(folder, generation)
        folder.publish(manifest)
        _keep(folder, aside)
    return manifest


def _build(
    building: Path, generation: Generation, opened: OpenIndex, encoder: PassageEncoder, vectors: PassageVectors
) -> IndexManifest:
    """Write the files of the new generation."""
    from search.store.edge import EdgeStore

    language_map = fit_map(opened, keep_offsets(encoder, building), vectors, encoder.dimension)
    language_map.save(building / LANGUAGE_MAP)
    manifest = renewed(opened.manifest, encoder, language_map, opened.manifest.chunks)
    shutil.copyfile(generation.path / LEDGER, building / LEDGER)
    with (
        closing(Ledger(building / LEDGER)) as ledger,
        closing(EdgeStore(building / SHARD, encoder.dimension)) as store,
    ):
        write_passages(opened, store, vectors, language_map)
        store.optimize()
        remember_manifest(ledger, manifest)
        update_families(
            building / FAMILIES, store=store, digests=digests_of(ledger), language_map=language_map,
            encoder_fingerprint=encoder.fingerprint,
        )  # fmt: skip
    return manifest


def _require_no_ingest(folder: IndexFolder) -> None:
    """Refuse to go on over an unfinished ingest; what a reindex or roll-back left can be made again."""
    left = folder.unfinished()
    if left in (_REINDEX, _ROLL_BACK):
        folder.discard()
    elif left is not None:
        raise SettingsError("an ingest is not finished; finish it first, with the same `indexer ingest` again")


def _set_aside(folder: IndexFolder, generation: Generation) -> Path:
    """A copy of the generation that is about to be followed by another."""
    aside = folder.path / f"{PREVIOUS}.new"
    shutil.rmtree(aside, ignore_errors=True)
    copy_tree(generation.path, aside, copy=os.link)
    return aside


def _keep(folder: IndexFolder, aside: Path) -> None:
    """Keep what was set aside in place of what was kept before, which a kill until now has left as it was."""
    previous = folder.path / PREVIOUS
    shutil.rmtree(previous, ignore_errors=True)
    aside.rename(previous)
