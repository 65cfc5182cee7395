"""Vectors for an evaluation: each distinct text encoded once, kept on disk if wanted, mapped if wanted."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from search.balance import (
    DEFAULT_BALANCE,
    LanguageMap,
    LanguageOffsets,
    LanguageSums,
    fit_language_map,
    load_shipped_offsets,
)
from search.encoder import Encoder
from search.errors import EvaluationError
from search.records import Vectors

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called with the encoder and side, how many of its texts are done, and how many there are."""

TEXTS_PER_STEP = 2048
KEPT_IN_MEMORY = 2


class TextEncoder(Protocol):
    """What can be evaluated: `search.encoder.Encoder`, a wrapper below, or a test's own."""

    @property
    def name(self) -> str:
        """How it is called in reports."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with anything that changes the vectors."""
        ...

    @property
    def dimension(self) -> int:
        """Length D of the vectors."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors (B, D); symmetric tasks use it for both sides."""
        ...

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Vectors (B, D) to be found by their dot product with a query."""
        ...


class CachedEncoder:
    """Encodes each distinct text of a call once, longest last, and remembers the last calls.

    Args:
        base: The encoder.
        folder: Where vectors are kept between runs as float32 .npy, one file for each call; none: memory only. The
            files are named by fingerprint, backend, prompt and a hash of the texts, so none can be mistaken for
            another; remove the folder to free the space (1.5 KB a text at 384 dimensions).
        progress: Called as encoding goes on.
    """

    def __init__(self, base: TextEncoder, folder: Path | None = None, progress: Progress | None = None) -> None:
        self.base = base
        self.name = base.name
        self.fingerprint = base.fingerprint
        self.dimension = base.dimension
        backend = f"-{base.backend.name}" if isinstance(base, Encoder) else ""
        self._folder = folder / f"{base.fingerprint}{backend}" if folder else None
        self._progress = progress
        self._recent: OrderedDict[str, Vectors] = OrderedDict()

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors (B, D) as the base encoder makes them for queries."""
        return self._encode("queries", self.base.encode_queries, texts)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Vectors (B, D) as the base encoder makes them for documents."""
        return self._encode("documents", self.base.encode_documents, texts)

    def _encode(self, side: str, encode: Callable[[list[str]], Vectors], texts: Sequence[str]) -> Vectors:
        distinct = sorted(set(texts), key=lambda text: (len(text), text))
        if not distinct:
            raise EvaluationError(f"{self.name}: no {side} to encode")
        key = f"{side}-{_content_hash(distinct)}"
        if key not in self._recent:
            self._recent[key] = self._load_or_encode(key, encode, distinct)
            while len(self._recent) > KEPT_IN_MEMORY:
                self._recent.popitem(last=False)
        self._recent.move_to_end(key)
        rows = {text: row for row, text in enumerate(distinct)}
        return self._recent[key][[rows[text] for text in texts]]

    def _load_or_encode(self, key: str, encode: Callable[[list[str]], Vectors], texts: list[str]) -> Vectors:
        path = self._folder / f"{key}.npy" if self._folder else None
        if path and path.is_file():
            try:
                vectors = np.load(path)
                if vectors.ndim == 2 and len(vectors) == len(texts):
                    return np.asarray(vectors, np.float32)
            except (OSError, ValueError) as error:
                logger.warning("%s: damaged (%s); encoding again", path, error)
        parts = []
        for start in range(0, len(texts), TEXTS_PER_STEP):
            parts.append(encode(texts[start : start + TEXTS_PER_STEP]))
            if self._progress:
                self._progress(f"{self.name} {key.split('-')[0]}", min(start + TEXTS_PER_STEP, len(texts)), len(texts))
        vectors = np.concatenate(parts)
        if path:
            _write(path, vectors)
        return np.asarray(vectors, np.float32)


class AffineEncoder:
    """An encoder with its language taken out: documents stored and queries mapped as the engine does it.

    The dot product of the two sides is then the score. Queries have unit length at balance 1, so that symmetric tasks,
    which use the query side twice, get cosines.

    Args:
        base: The encoder; give a `CachedEncoder` so that the plain one and this one share the work.
        language_map: Of an index, or from `as_engine`.
        balance: 0 (plain inner product of centred vectors) to 1 (language-neutral).
        refines: Whether `for_documents` fits the map to documents, from `offsets` if there are any.
        offsets: See `refines`.
    """

    def __init__(
        self,
        base: TextEncoder,
        language_map: LanguageMap,
        *,
        balance: float = DEFAULT_BALANCE,
        refines: bool = False,
        offsets: LanguageOffsets | None = None,
    ) -> None:
        self.base = base
        self.language_map = language_map
        self.balance = balance
        self.name = f"{base.name} + affine"
        self.fingerprint = f"{base.fingerprint}-{language_map.fingerprint}-{balance:g}"
        self.dimension = base.dimension
        self._offsets = offsets
        self._refines = refines

    @classmethod
    def as_engine(cls, base: TextEncoder, *, balance: float = DEFAULT_BALANCE) -> AffineEncoder:
        """With the map that an index with this encoder has: that of the shipped offsets, fitted to its documents.

        Without shipped offsets, a map can only be fitted to documents, so that nothing but retrieval changes.
        """
        offsets = load_shipped_offsets(base.fingerprint)
        if offsets is None:
            logger.warning(
                "%s: no language offsets are shipped for fingerprint %s; only retrieval is mapped. Measure them with: "
                "training offsets BITEXT --encoder %s --out search/offsets/%s.safetensors",
                *(base.name, base.fingerprint, base.name, base.fingerprint),
            )
        start = fit_language_map(offsets, None) if offsets else LanguageMap.identity(base.dimension)
        return cls(base, start, balance=balance, refines=True, offsets=offsets)

    def for_documents(self, texts: Sequence[str], languages: Sequence[str]) -> AffineEncoder:
        """With the map as an index of these documents would have fitted it; itself unless made by `as_engine`.

        Differs: the languages are the set's, where an index detects them.
        """
        if not self._refines:
            return self
        sums = LanguageSums(self.dimension)
        sums.add(languages, self.base.encode_documents(texts))
        return AffineEncoder(self.base, fit_language_map(self._offsets, sums), balance=self.balance)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Mapped query vectors (B, D)."""
        return self.language_map.map_queries(self.base.encode_queries(texts), balance=self.balance)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Document vectors (B, D) as an index stores them."""
        return self.language_map.map_documents(self.base.encode_documents(texts))


def _content_hash(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest.hexdigest()[:24]


def _write(path: Path, vectors: Vectors) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
        np.save(file, vectors)
    os.replace(file.name, path)  # noqa: PTH105
