"""Encode the passages of an index anew, whatever it is kept in; a run that was cut off is gone on with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.chunking import passage_text
from search.balance import LanguageMap, LanguageOffsets, LanguageSums, fit_language_map
from search.errors import IndexFormatError, SettingsError
from search.index import write_durably, writing
from search.manifest import IndexManifest, now
from search.opening import OpenIndex
from search.records import UNDETERMINED, Point, Vectors
from search.settings import version
from search.store.base import VectorStore

Progress = Callable[[int, int], None]
"""Called with the passages that are encoded, and how many there are."""

BATCH = 256
PREVIOUS, WORK = "previous", "reindex"
"""Folders beside an index: the state before its last reindex, and the vectors of one that is under way."""
_FLOAT_BYTES = 4
_VECTORS, _STARTED = "vectors.f32", "started"


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


def encode_passages(opened: OpenIndex, encoder: PassageEncoder, work: Path, state: str, progress: Progress) -> Vectors:
    """Unit vectors (N, D) of all passages by ascending id, on disk.

    Args:
        opened: The index.
        encoder: Another one than it has.
        work: Folder for the vectors; those that an earlier run wrote are kept.
        state: What the index holds now; vectors of another state are thrown away.
        progress: Told how far it is.

    Raises:
        SettingsError: The index has this encoder already.
        IndexFormatError: The passages changed meanwhile.
    """
    if opened.manifest.encoder_fingerprint == encoder.fingerprint:
        raise SettingsError(f"the index has the encoder {encoder.name} already; name another with --encoder")
    path, row_bytes, total = _open_work(work, f"{state} {encoder.fingerprint}"), encoder.dimension * _FLOAT_BYTES, 0
    total = opened.store.count()
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


def _open_work(work: Path, key: str) -> Path:
    """The file of what is encoded so far, empty unless an earlier run was for the same state and encoder."""
    marker = work / _STARTED
    if not marker.exists() or marker.read_text(encoding="utf-8") != key:
        shutil.rmtree(work, ignore_errors=True)
        with writing(work):
            work.mkdir(parents=True)
            write_durably(marker, key)
    return work / _VECTORS


def fit_map(opened: OpenIndex, offsets: LanguageOffsets | None, vectors: Vectors) -> LanguageMap:
    """The language map of new vectors (N, D), as an ingest of all of them would fit it."""
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


def write_passages(opened: OpenIndex, target: VectorStore, vectors: Vectors, language_map: LanguageMap) -> None:
    """Write every passage of an index to another store, with new vectors (N, D)."""
    row = 0
    for batch in _batches(opened.store.iter_points(with_vectors=True)):
        dense = language_map.map_documents(np.asarray(vectors[row : row + len(batch)]))
        target.upsert([Point(p.chunk, d, p.sparse) for p, d in zip(batch, dense, strict=True)])
        row += len(batch)


def renewed(manifest: IndexManifest, encoder: PassageEncoder, language_map: LanguageMap, chunks: int) -> IndexManifest:
    """The manifest of an index after its passages were encoded anew."""
    changed = {
        "encoder": encoder.address, "encoder_fingerprint": encoder.fingerprint, "dimension": encoder.dimension,
        "map_fingerprint": language_map.fingerprint, "chunks_at_fit": chunks, "updated": now(),
        "panlingua_version": version(),
    }  # fmt: skip
    return manifest.model_copy(update=changed)


def _batches(points: Iterator[Point]) -> Iterator[list[Point]]:
    while batch := list(islice(points, BATCH)):
        yield batch
