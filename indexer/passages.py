"""Encode the passages of an index anew, whatever it is kept in; a run that was cut off is gone on with."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np

from indexer.chunking import passage_text
from search.balance import LanguageMap, LanguageOffsets, LanguageSums, fit_language_map
from search.errors import SettingsError, StoreError
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
_FLOAT_BYTES, _KEY_BYTES = 4, 16
_VECTORS, _KEYS, _STARTED = "vectors.f32", "passages", "started"


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


class PassageVectors:
    """Vectors of passages by their text, in a folder that outlives the run; 100 bytes of memory each.

    Args:
        work: The folder; what an earlier run wrote there with the same encoder is kept.
        encoder: Makes them.
    """

    def __init__(self, work: Path, encoder: PassageEncoder) -> None:
        self._encoder, self._row_bytes = encoder, encoder.dimension * _FLOAT_BYTES
        marker = work / _STARTED
        if not marker.exists() or marker.read_text(encoding="utf-8") != encoder.fingerprint:
            shutil.rmtree(work, ignore_errors=True)
            with writing(work):
                work.mkdir(parents=True)
                write_durably(marker, encoder.fingerprint)
        self._vectors, self._keys = work / _VECTORS, work / _KEYS
        for path in (self._vectors, self._keys):
            path.touch()
        kept = self._keys.read_bytes()
        whole = min(len(kept) // _KEY_BYTES, self._vectors.stat().st_size // self._row_bytes)
        os.truncate(self._keys, whole * _KEY_BYTES)
        os.truncate(self._vectors, whole * self._row_bytes)
        self._row_of = {kept[row * _KEY_BYTES : (row + 1) * _KEY_BYTES]: row for row in range(whole)}

    def add(self, points: Sequence[Point]) -> None:
        """Encode the passages that are new."""
        texts = {_key(text): text for text in (passage_text(point.chunk) for point in points)}
        new = [key for key in texts if key not in self._row_of]
        if not new:
            return
        vectors = self._encoder.encode_documents([texts[key] for key in new])
        with writing(self._vectors), self._vectors.open("ab") as file, self._keys.open("ab") as keys:
            file.write(np.ascontiguousarray(vectors, dtype="<f4").tobytes())
            file.flush()
            keys.write(b"".join(new))
        for key in new:
            self._row_of[key] = len(self._row_of)

    def of(self, points: Sequence[Point]) -> Vectors:
        """Unit vectors (B, D) of passages.

        Raises:
            StoreError: One was never encoded.
        """
        rows = [self._row_of.get(_key(passage_text(point.chunk)), -1) for point in points]
        if -1 in rows:
            raise StoreError("the index was changed while it was encoded; run `indexer reindex` again")
        found = np.memmap(self._vectors, dtype="<f4", mode="r", shape=(len(self._row_of), self._encoder.dimension))
        return np.asarray(found[rows], np.float32)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def encode_passages(opened: OpenIndex, vectors: PassageVectors, progress: Progress) -> None:
    """Encode all passages of an index that are not encoded yet."""
    done, total = 0, opened.store.count()
    for batch in _batches(opened.store.iter_points()):
        vectors.add(batch)
        done += len(batch)
        progress(done, total)


def require_other_encoder(manifest: IndexManifest, encoder: PassageEncoder) -> None:
    """Refuse to do nothing.

    Raises:
        SettingsError: The index has this encoder already.
    """
    if manifest.encoder_fingerprint == encoder.fingerprint:
        raise SettingsError(f"the index has the encoder {encoder.name} already; name another with --encoder")


def fit_map(opened: OpenIndex, offsets: LanguageOffsets | None, vectors: PassageVectors, dimension: int) -> LanguageMap:
    """The language map of new vectors of length `dimension`, as an ingest of all passages would fit it."""
    sums = LanguageSums(dimension)
    for batch in _batches(opened.store.iter_points()):
        known = [point for point in batch if point.chunk.lang != UNDETERMINED]
        if known:
            sums.add([point.chunk.lang for point in known], vectors.of(known))
    if offsets is None and not sums.counts:
        return LanguageMap.identity(dimension)
    return fit_language_map(offsets, sums)


def write_passages(opened: OpenIndex, target: VectorStore, vectors: PassageVectors, language_map: LanguageMap) -> int:
    """Write every passage of an index to another store, with its new vector; returns how many there are."""
    written = 0
    for batch in _batches(opened.store.iter_points(with_vectors=True)):
        dense = language_map.map_documents(vectors.of(batch))
        target.upsert([Point(p.chunk, d, p.sparse) for p, d in zip(batch, dense, strict=True)])
        written += len(batch)
    return written


def renewed(manifest: IndexManifest, encoder: PassageEncoder, language_map: LanguageMap, chunks: int) -> IndexManifest:
    """The manifest of an index after its passages were encoded anew."""
    changed = {
        "encoder": encoder.address, "encoder_fingerprint": encoder.fingerprint, "dimension": encoder.dimension,
        "map_fingerprint": language_map.fingerprint, "chunks": chunks, "chunks_at_fit": chunks, "updated": now(),
        "panlingua_version": version(),
    }  # fmt: skip
    return manifest.model_copy(update=changed)


def _batches(points: Iterator[Point]) -> Iterator[list[Point]]:
    while batch := list(islice(points, BATCH)):
        yield batch
