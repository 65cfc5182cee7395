"""Give an index another encoder: its passages are encoded again beside the index, which serves until all is done.

    INDEX/reindex/     vectors so far, of one generation and one encoder; a later run goes on with them
    INDEX/previous/    the generation before the last reindex (hard links, as far as it was not changed since)

The documents' files are not needed, since the passages are in the index. They stay cut as they are.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.build import keep_offsets
from indexer.chunking import passage_text
from indexer.ledger import Ledger
from indexer.translations import digests_of, update_families
from search.balance import LanguageMap, LanguageOffsets, LanguageSums, fit_language_map
from search.errors import IndexFormatError, IndexNotFoundError, SettingsError
from search.files import copy_tree
from search.fold import FAMILIES, vectors_origin
from search.index import LANGUAGE_MAP, LEDGER, MANIFEST, SHARD, Generation, IndexFolder, write_durably, writing
from search.manifest import IndexManifest, now, read_manifest
from search.opening import OpenIndex, open_index
from search.records import UNDETERMINED, Point, Vectors
from search.settings import Settings, version

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the passages that are encoded, and how many there are."""

_BATCH = 256
_FLOAT_BYTES = 4
_VECTORS, _STARTED = "vectors.f32", "started"
PREVIOUS, WORK = "previous", "reindex"
_REINDEX, _ROLL_BACK = "reindex", "roll back"


class PassageEncoder(Protocol):
    """What a reindex needs of an encoder."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def address(self) -> str:
        """What it can be loaded by again."""

    @property
    def fingerprint(self) -> str:
        """What tells it from others."""

    @property
    def dimension(self) -> int:
        """Length of its vectors."""

    @property
    def max_tokens(self) -> int:
        """How much of a passage it reads."""

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from."""

    def encode_documents(self, texts: list[str]) -> Vectors:
        """Unit vectors (B, D)."""


def reindex(
    settings: Settings,
    encoder: PassageEncoder,
    *,
    wait_s: float = 0.0,
    progress: Progress = lambda _done, _total: None,
) -> IndexManifest:
    """Encode an embedded index anew and make the outcome current; the state before is kept for `roll_back`.

    A run that was cut off is gone on with, as long as the index did not change meanwhile.

    Raises:
        SettingsError: The index is on a server, or has this encoder already.
        IndexBusyError: Another process writes to the index.
    """
    _require_embedded(settings)
    folder = IndexFolder(settings.index_folder)
    folder.current()
    with folder.write_lock(wait_s=wait_s), closing(open_index(settings)) as opened:
        generation = folder.current()
        if opened.manifest.encoder_fingerprint == encoder.fingerprint:
            raise SettingsError(f"the index has the encoder {encoder.name} already; name another with --encoder")
        _require_no_ingest(folder)
        work = _open_work(folder, generation, encoder)
        vectors = _encode(opened, encoder, work / _VECTORS, progress)
        building = folder.begin(fresh=True, corpus=_REINDEX)
        with writing(building):
            manifest = _build(building, generation, opened, encoder, vectors)
            aside = _set_aside(folder, generation)
        folder.publish(manifest)
        _keep(folder, aside)
        shutil.rmtree(work)
    return manifest


def roll_back(settings: Settings, *, wait_s: float = 0.0) -> IndexManifest:
    """Make the state before the last reindex current again; another roll-back undoes it.

    Raises:
        IndexNotFoundError: There is no earlier state.
        IndexBusyError: Another process writes to the index.
    """
    _require_embedded(settings)
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


def _require_embedded(settings: Settings) -> None:
    if settings.store:
        raise SettingsError(
            "an index on a server is not encoded again in place: `indexer pull` it, reindex it, and "
            "`indexer push --replace` it"
        )


def _open_work(folder: IndexFolder, generation: Generation, encoder: PassageEncoder) -> Path:
    """The folder of what is encoded so far; an earlier run's, if it was for the same generation and encoder."""
    work, key = folder.path / WORK, f"{generation.number} {encoder.fingerprint}"
    marker = work / _STARTED
    if not marker.exists() or marker.read_text(encoding="utf-8") != key:
        shutil.rmtree(work, ignore_errors=True)
        with writing(work):
            work.mkdir()
            write_durably(marker, key)
    return work


def _encode(opened: OpenIndex, encoder: PassageEncoder, path: Path, progress: Progress) -> Vectors:
    """Vectors (N, D) of all passages by ascending id, on disk; those that an earlier run wrote are kept."""
    row_bytes, total = encoder.dimension * _FLOAT_BYTES, opened.store.count()
    with writing(path), path.open("ab") as file:
        done = file.tell() // row_bytes
        file.truncate(done * row_bytes)
        for batch in _batches(islice(opened.store.iter_points(), done, None)):
            vectors = encoder.encode_documents([passage_text(point.chunk) for point in batch])
            file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
            file.flush()
            done += len(batch)
            progress(done, total)
        os.fsync(file.fileno())
    if done != total:
        raise IndexFormatError(f"{done} vectors of {total} passages in {path}; remove its folder and run it again")
    if not total:
        return np.empty((0, encoder.dimension), np.float32)
    return np.memmap(path, dtype="<f4", mode="r", shape=(total, encoder.dimension))


def _build(
    building: Path, generation: Generation, opened: OpenIndex, encoder: PassageEncoder, vectors: Vectors
) -> IndexManifest:
    """Write the files of the new generation."""
    from search.store.edge import EdgeStore

    language_map = _fit_map(opened, keep_offsets(encoder, building), vectors)
    language_map.save(building / LANGUAGE_MAP)
    shutil.copyfile(generation.path / LEDGER, building / LEDGER)
    chunks = len(vectors)
    with (
        closing(Ledger(building / LEDGER)) as ledger,
        closing(EdgeStore(building / SHARD, encoder.dimension)) as store,
    ):
        row = 0
        for batch in _batches(opened.store.iter_points(with_vectors=True)):
            dense = language_map.map_documents(np.asarray(vectors[row : row + len(batch)]))
            store.upsert([Point(p.chunk, d, p.sparse) for p, d in zip(batch, dense, strict=True)])
            row += len(batch)
        store.optimize()
        for key, value in _ledger_values(encoder, chunks).items():
            ledger.set_meta(key, value)
        update_families(
            building / FAMILIES, store=store, digests=digests_of(ledger), language_map=language_map,
            origin=vectors_origin(encoder.fingerprint, language_map.fingerprint),
        )  # fmt: skip
    changed = {
        "encoder": encoder.address, "encoder_fingerprint": encoder.fingerprint, "dimension": encoder.dimension,
        "map_fingerprint": language_map.fingerprint, "chunks_at_fit": chunks, "updated": now(),
        "panlingua_version": version(),
    }  # fmt: skip
    return opened.manifest.model_copy(update=changed)


def _ledger_values(encoder: PassageEncoder, chunks: int) -> dict[str, str]:
    return {
        "dimension": str(encoder.dimension), "encoder": encoder.address, "encoder_fingerprint": encoder.fingerprint,
        "chunks_at_fit": str(chunks),
    }  # fmt: skip


def _fit_map(opened: OpenIndex, offsets: LanguageOffsets | None, vectors: Vectors) -> LanguageMap:
    """The language map of the new vectors, as an ingest of all of them would fit it."""
    dimension, row = vectors.shape[1], 0
    sums = LanguageSums(dimension)
    for batch in _batches(opened.store.iter_points()):
        languages = [point.chunk.lang for point in batch]
        known = [n for n, lang in enumerate(languages) if lang != UNDETERMINED]
        sums.add([languages[n] for n in known], np.asarray(vectors[row : row + len(batch)])[known])
        row += len(batch)
    if offsets is None and not sums.counts:
        return LanguageMap.identity(dimension)
    return fit_language_map(offsets, sums)


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


def _batches(points: Iterator[Point]) -> Iterator[list[Point]]:
    while batch := list(islice(points, _BATCH)):
        yield batch
