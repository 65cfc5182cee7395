"""What a machine keeps of an index on a server: the ledger of what it ingested, translations, language map and offsets.

    HOME/servers/KEY/            of the collection that the index is
    HOME/servers/KEY/previous/   of the one that it was before, for a roll-back
    HOME/servers/KEY/reindex/    vectors of a reindex that is under way
    HOME/servers/KEY/shards/     ledgers of shards that are not merged yet

Any machine may give the index another collection. A row of a ledger says "complete in the collection of this id, by
this epoch of it": it holds in a copy that was made in this epoch or a later one, and in no other collection.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from indexer.ledger import Ledger
from indexer.passages import PREVIOUS, WORK
from search.balance import OFFSETS_FILE, LanguageOffsets, load_offsets
from search.fold import FAMILIES
from search.index import LANGUAGE_MAP, LEDGER, OFFSETS, writing
from search.manifest import IndexManifest
from search.store.server import epoch_of

SHARDS = "shards"
"""Folder beside a ledger with the ledgers of shards that are not merged yet."""
ORIGIN = "made_from"
"""Kept with a collection: id and epoch of the one that it is a copy of."""
_ID, _EPOCH, _NONE = "collection", "epoch", "none"
_LOGS = ("-wal", "-shm")


class OffsetsEncoder(Protocol):
    """An encoder that may bring language offsets in its folder."""

    @property
    def fingerprint(self) -> str:
        """What tells it from others."""

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from."""


def find_offsets(encoder: OffsetsEncoder) -> LanguageOffsets | None:
    """The encoder's language offsets."""
    return load_offsets(encoder.fingerprint, encoder.folder and encoder.folder / OFFSETS_FILE)


def keep_offsets(encoder: OffsetsEncoder, path: Path) -> LanguageOffsets | None:
    """The encoder's language offsets, of which the index at `path` keeps a copy."""
    offsets = find_offsets(encoder)
    if offsets is not None:
        offsets.save(path / OFFSETS)
    return offsets


def remember_manifest(ledger: Ledger, manifest: IndexManifest) -> None:
    """Write down in a ledger what the index says of its vectors and words."""
    ledger.set_metas(_of_manifest(manifest))


def remember_collection(ledger: Ledger, metadata: Mapping[str, Any]) -> None:
    """Write down which collection the rows of a ledger are about, and its epoch; before rows are written to it."""
    ledger.set_metas(_of_collection(metadata))


def forget_collection(ledger: Ledger) -> None:
    """The rows of a ledger are about no collection any more, but about an embedded index."""
    ledger.set_metas({_ID: _NONE})


def is_of(ledger: Ledger, metadata: Mapping[str, Any]) -> bool:
    """Whether the rows of a ledger are about this collection."""
    return ledger.meta(_ID) == metadata.get("id")


def _of_manifest(manifest: IndexManifest) -> dict[str, str]:
    return {
        "dimension": str(manifest.dimension), "encoder": manifest.encoder,
        "chunks_at_fit": str(manifest.chunks_at_fit), "encoder_fingerprint": manifest.encoder_fingerprint,
        "lexical_version": str(manifest.lexical_version),
    }  # fmt: skip


def _of_collection(metadata: Mapping[str, Any]) -> dict[str, str]:
    return {_ID: str(metadata["id"]), _EPOCH: str(epoch_of(metadata))}


def forget_side_files(place: Path) -> None:
    """Remove all that was written down of an index that is gone."""
    for name in (LEDGER, *(f"{LEDGER}{log}" for log in _LOGS), FAMILIES, LANGUAGE_MAP, OFFSETS):
        (place / name).unlink(missing_ok=True)
    for folder in (SHARDS, PREVIOUS, WORK):
        shutil.rmtree(place / folder, ignore_errors=True)


def copy_side_files(source: Path, target: Path) -> None:
    """Ledger, translations, language map and offsets in place of those at `target`, each at once, the ledger last."""
    with writing(target):
        target.mkdir(parents=True, exist_ok=True)
        for name in (FAMILIES, LANGUAGE_MAP, OFFSETS, LEDGER):
            if not (source / name).exists():
                (target / name).unlink(missing_ok=True)
                continue
            shutil.copyfile(source / name, target / f"{name}.new")
            for log in _LOGS if name == LEDGER else ():  # one that a kill left would bring the old rows back
                (target / f"{name}{log}").unlink(missing_ok=True)
            (target / f"{name}.new").replace(target / name)


def follow_collection(
    place: Path, metadata: Mapping[str, Any], manifest: IndexManifest | None, offsets: LanguageOffsets | None = None
) -> None:
    """Make what is kept here that of the collection which is the index now, which another machine may have changed.

    What was ingested into the collection before it was copied counts as ingested, and after a roll-back what had been
    ingested before. Where neither is known, the next ingest reads every file again.

    Args:
        place: What is kept here of the index.
        metadata: The collection's.
        manifest: The index's; None: nothing was finished in it yet.
        offsets: Those of the manifest's encoder, where they are known.
    """
    path = place / LEDGER
    if not path.exists():
        return
    with closing(Ledger(path)) as ledger:  # closing folds the log of a run that was killed into the file
        if ledger.meta(_ID) is None:  # of a collection without an id, as earlier versions made them
            remember_collection(ledger, metadata)
        if is_of(ledger, metadata):
            return
        known, epoch = ledger.meta(_ID), int(ledger.meta(_EPOCH) or 0)
    shutil.rmtree(place / WORK, ignore_errors=True)
    made_from, at = metadata.get(ORIGIN) or (None, -1)
    previous = place / PREVIOUS / LEDGER
    if previous.exists() and _is_of(previous, metadata):
        aside = _set_aside(place)
        copy_side_files(place / PREVIOUS, place)
        _keep(place, aside)
        return
    is_copy = manifest is not None and known == made_from and epoch <= at
    _keep(place, _set_aside(place))
    for name in (FAMILIES, OFFSETS):
        (place / name).unlink(missing_ok=True)
    if offsets is not None:
        offsets.save(place / OFFSETS)
    with closing(Ledger(path)) as ledger:
        if not is_copy:
            ledger.read_all_again()
        ledger.set_metas({**(_of_manifest(manifest) if manifest else {}), **_of_collection(metadata)})


def _is_of(path: Path, metadata: Mapping[str, Any]) -> bool:
    with closing(Ledger(path)) as ledger:
        return is_of(ledger, metadata)


def _set_aside(place: Path) -> Path:
    aside = place / f"{PREVIOUS}.new"
    shutil.rmtree(aside, ignore_errors=True)
    copy_side_files(place, aside)
    return aside


def _keep(place: Path, aside: Path) -> None:
    shutil.rmtree(place / PREVIOUS, ignore_errors=True)
    aside.rename(place / PREVIOUS)
