"""Language balance: one affine map that takes the language out of a vector, with a knob at query time.

An encoder's vectors carry their language: plain cosine prefers passages in the query's own language. The span of the
language offsets (mean of a language minus the mean of all) holds that preference. With m, most of the global mean, and
the projection P onto that span, the index stores centred documents and a query chooses how much of the span it sees:

    document  z = (x - m) / |(I - P)(x - m)|
    query     q = (I - balance * P)(x - s - m) / |(I - P)(x - s - m)|        score = q . z

At balance 1 this is the cosine of the language-neutral parts; at 0 the centred inner product, language included.
Queries are encoded with another prompt than documents and are short: s is the mean shift that this makes, taken off
so that it does not favour whatever documents look like queries. Nothing has to be encoded or indexed again to move the
knob, and neither side needs a detected language.

Source: Yang et al., 2021, "A Simple and Effective Method To Eliminate the Self Language Bias in Multilingual
Representations" (LIR); Xie et al., 2022, "Discovering Low-rank Subspaces for Language-agnostic Multilingual
Representations" (LSAR). Differs: offsets are measured on parallel text, refined by shrinkage on the index's own
documents, and removed by a query-side factor rather than once and for all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.errors import IndexFormatError
from search.records import Vectors

DEFAULT_BALANCE = 0.75
"""Measured with the shipped encoder: near the best between languages and within one (results/balance.md)."""
DEFAULT_RANK = 32
SHRINKAGE = 50.0
"""Pseudo-count of chunks with which the prior of a language weighs against the index's own."""
LEAST_CHUNKS = 100
"""Without shipped offsets, an index with fewer chunks keeps plain cosine: its mean would be its subject matter."""
LEAST_LANGUAGE_CHUNKS = 20
"""A language without a shipped offset counts from so many chunks on."""
KEPT_MEAN = 0.25
"""Share of the mean of all languages that stays in every vector: it holds what makes a passage a good answer in any
language. Measured in docs/experiments.md."""
INDEXED_WEIGHT = 10.0
"""Weight in the span of a language that the index holds, against 1 for one it does not."""

SHIPPED_FOLDER = Path(__file__).parent / "offsets"
OFFSETS_FILE = Path("panlingua", "language_offsets.safetensors")
"""Where an encoder's folder holds its offsets: not among the weights, which are hashed and loaded."""


@dataclass(frozen=True, slots=True)
class LanguageOffsets:
    """Offsets of languages from their common mean: `mean` (D,), `offsets` (L, D), for `languages` (L).

    `query_shift` (D,) is the mean difference between a query and a passage that answers it.
    """

    languages: tuple[str, ...]
    mean: Vectors
    offsets: Vectors
    query_shift: Vectors

    def save(self, path: Path) -> None:
        """Write as safetensors, offsets in float16."""
        from safetensors.numpy import save_file

        path.parent.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, np.ndarray[Any, Any]] = {
            "mean": self.mean.astype(np.float32),
            "offsets": self.offsets.astype(np.float16),
            "query_shift": self.query_shift.astype(np.float32),
        }
        save_file(tensors, path, metadata={"languages": " ".join(self.languages)})

    @classmethod
    def load(cls, path: Path) -> LanguageOffsets:
        """Read what `save` wrote."""
        tensors, metadata = _read(path)
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise IndexFormatError(f"{path}: offsets that are not numbers; measure them with `training offsets`.")
        languages = tuple(metadata.get("languages", "").split())
        return cls(languages, tensors["mean"], tensors["offsets"].astype(np.float32), tensors["query_shift"])


class LanguageSums:
    """Count and sum of the unit vectors of each language: additive, so that an ingest can go on from the last one."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.counts: dict[str, int] = {}
        self.sums: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}

    def add(self, languages: Sequence[str], vectors: Vectors) -> None:
        """Count in `vectors` (B, D), unit length, one language each."""
        for language, vector in zip(languages, vectors, strict=True):
            if language in self.sums:
                self.sums[language] += vector
                self.counts[language] += 1
            else:
                self.sums[language] = vector.astype(np.float64)
                self.counts[language] = 1


@dataclass(frozen=True, slots=True)
class LanguageMap:
    """The affine map: `mean` (D,), an orthonormal `basis` (R, D) of the language span, and `query_shift` (D,)."""

    mean: Vectors
    basis: Vectors
    query_shift: Vectors

    @classmethod
    def identity(cls, dimension: int) -> LanguageMap:
        """No mean, no span: scores are cosines and the balance knob has no effect."""
        zero = np.zeros(dimension, np.float32)
        return cls(zero, np.zeros((0, dimension), np.float32), zero)

    @property
    def fingerprint(self) -> str:
        """Identity of the map: two indexes with the same one hold comparable vectors."""
        return hashlib.sha256(b"".join(a.tobytes() for a in (self.mean, self.basis, self.query_shift))).hexdigest()[:16]

    def map_documents(self, vectors: Vectors) -> Vectors:
        """Unit vectors (B, D) to what the index stores (B, D); the neutral part has unit length."""
        centred = vectors - self.mean
        return np.asarray(centred / self._neutral_norm(centred), np.float32)

    def map_queries(self, vectors: Vectors, *, balance: float) -> Vectors:
        """Unit vectors (B, D) to query vectors (B, D), for a balance in [0, 1]."""
        centred = vectors - self.query_shift - self.mean
        seen = centred - balance * (centred @ self.basis.T) @ self.basis
        return np.asarray(seen / self._neutral_norm(centred), np.float32)

    def unmap_documents(self, stored: Vectors) -> Vectors:
        """The unit vectors (B, D) from which `map_documents` made `stored`: needed when the map is refined.

        x = m + s z has unit length, so s is the positive root of |z|^2 s^2 + 2 (z.m) s + |m|^2 - 1 = 0 (|m| < 1).
        """
        z = stored.astype(np.float64)
        a = np.maximum((z * z).sum(axis=1), 1e-12)
        b = (z * self.mean).sum(axis=1)
        c = float(self.mean.astype(np.float64) @ self.mean) - 1.0
        scale = (-b + np.sqrt(np.maximum(b * b - a * c, 0.0))) / a
        vectors = self.mean + scale[:, None] * z
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)

    def _neutral_norm(self, centred: Vectors) -> Vectors:
        """Lengths (B, 1) of the parts outside the span, by Pythagoras.

        Sums along rows instead of a matrix product (`@`), whose last bits depend on how many rows there are: a vector
        is stored as the same bytes whatever was encoded beside it.
        """
        wide = centred.astype(np.float64)
        inside = np.einsum("bd,rd->br", wide, self.basis.astype(np.float64))
        squares = (wide * wide).sum(axis=1) - (inside * inside).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares, 1e-12))[:, None], np.float32)

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        from safetensors.numpy import save_file

        tensors = {"mean": self.mean, "basis": self.basis, "query_shift": self.query_shift}
        save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> LanguageMap:
        """Read what `save` wrote.

        Raises:
            IndexFormatError: The file is missing or damaged.
        """
        tensors, _ = _read(path)
        return cls(tensors["mean"], tensors["basis"], tensors["query_shift"])


def load_shipped_offsets(fingerprint: str) -> LanguageOffsets | None:
    """Offsets that come with the package for the encoder of this fingerprint, or None; measured on parallel text."""
    path = SHIPPED_FOLDER / f"{fingerprint}.safetensors"
    return LanguageOffsets.load(path) if path.is_file() else None


def load_offsets(fingerprint: str, *files: Path | None) -> LanguageOffsets | None:
    """Offsets of the encoder of this fingerprint: those that come with the package, or the first of `files` there is.

    An encoder that was trained further brings its own (`OFFSETS_FILE` in its folder); an index keeps a copy.
    """
    kept = next((path for path in files if path is not None and path.is_file()), None)
    return load_shipped_offsets(fingerprint) or (LanguageOffsets.load(kept) if kept else None)


def fit_language_map(
    prior: LanguageOffsets | None,
    observed: LanguageSums | None,
    *,
    rank: int = DEFAULT_RANK,
    shrinkage: float = SHRINKAGE,
) -> LanguageMap:
    """Fit the map from shipped offsets, from an index's own vectors, or from both.

    A language's mean in the index is shrunk towards (mean of the index's subject matter + the language's shipped
    offset), with the weight of `shrinkage` chunks, so that a language with few chunks, or whose documents are about
    something else than the rest, does not turn its subject into "language". The span is that of the largest `rank`
    singular vectors of all offsets.

    Args:
        prior: Offsets of many languages; None for an encoder without.
        observed: Counts and sums of the index's vectors; None or empty for a new index.
        rank: Dimensions of the span at the most; with fewer languages, one less than there are.
        shrinkage: Pseudo-count of the prior, in chunks.
    """
    if observed is None or not observed.counts:
        if prior is None:
            raise ValueError("fit_language_map needs shipped offsets or observed vectors")
        basis = _span(prior.offsets, np.ones(len(prior.offsets)), rank)
        return LanguageMap((1 - KEPT_MEAN) * prior.mean, basis, prior.query_shift)
    if prior is None and sum(observed.counts.values()) < LEAST_CHUNKS:
        return LanguageMap.identity(observed.dimension)
    offsets = dict(zip(prior.languages, prior.offsets, strict=True)) if prior else {}
    weights = dict.fromkeys(offsets, 1.0)
    mean = _subject_mean(observed, offsets, prior.mean if prior else None, shrinkage)
    for language, count in observed.counts.items():
        if language not in offsets and count < LEAST_LANGUAGE_CHUNKS:
            continue
        known = offsets.get(language, np.zeros(observed.dimension, np.float32))
        own = observed.sums[language] / count - mean
        offsets[language] = ((count * own + shrinkage * known) / (count + shrinkage)).astype(np.float32)
        weights[language] = INDEXED_WEIGHT
    rows = np.stack(list(offsets.values())) if offsets else np.zeros((1, observed.dimension), np.float32)
    basis = _span(rows, np.array([weights[language] for language in offsets] or [1.0]), rank)
    return LanguageMap((1 - KEPT_MEAN) * mean, basis, prior.query_shift if prior else np.zeros_like(mean))


def _subject_mean(
    observed: LanguageSums, offsets: Mapping[str, Vectors], prior_mean: Vectors | None, shrinkage: float
) -> Vectors:
    """Mean of the index's vectors with each language's known offset taken off, languages weighing equally."""
    means, weights = [], []
    for language, count in observed.counts.items():
        known = offsets.get(language, np.zeros(observed.dimension, np.float32))
        means.append(observed.sums[language] / count - known)
        weights.append(count / (count + shrinkage))
    if prior_mean is not None:
        means.append(prior_mean.astype(np.float64))
        weights.append(shrinkage / (sum(observed.counts.values()) + shrinkage))
    return np.asarray(np.average(np.stack(means), axis=0, weights=weights), np.float32)


def _span(offsets: Vectors, weights: np.ndarray, rank: int) -> Vectors:
    """Orthonormal basis (R, D) of the leading directions of the offsets (L, D), weighted by `weights` (L,)."""
    centred = (offsets - np.average(offsets, axis=0, weights=weights)) * np.sqrt(weights)[:, None]
    _, values, directions = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    kept = min(rank, len(offsets) - 1, int((values > 1e-6).sum()))
    return np.asarray(directions[: max(kept, 0)], np.float32)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        message = f"cannot read the language map {path}: {error}. Ingest the corpus again to rebuild it."
        raise IndexFormatError(message) from error
