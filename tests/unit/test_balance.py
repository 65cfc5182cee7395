"""The language map on vectors whose language part is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.balance import LanguageMap, LanguageOffsets, LanguageSums, fit_language_map
from search.errors import IndexFormatError
from search.records import Vectors

DIMENSION, LANGUAGES, SUBJECTS = 48, 5, 30


def unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def parallel_corpus(seed: int = 3) -> tuple[Vectors, list[str], np.ndarray]:
    """Every subject in every language: a common mean, a subject part, and a language part twice as strong."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=DIMENSION) * 1.5
    language = unit(rng.normal(size=(LANGUAGES, DIMENSION))) * 2
    subject = unit(rng.normal(size=(SUBJECTS, DIMENSION)))
    noise = rng.normal(size=(SUBJECTS, LANGUAGES, DIMENSION)) * 0.02
    vectors = mean + language[None, :, :] + subject[:, None, :] + noise
    labels = [f"l{i}" for _ in range(SUBJECTS) for i in range(LANGUAGES)]
    return unit(vectors.reshape(-1, DIMENSION)), labels, np.repeat(np.arange(SUBJECTS), LANGUAGES)


def fitted() -> tuple[LanguageMap, Vectors, list[str], np.ndarray]:
    vectors, labels, subjects = parallel_corpus()
    sums = LanguageSums(DIMENSION)
    sums.add(labels, vectors)
    return fit_language_map(None, sums, shrinkage=0.0), vectors, labels, subjects


def top(scores: np.ndarray, k: int = LANGUAGES) -> np.ndarray:
    return np.argsort(-scores, axis=1)[:, :k]


def test_full_balance_ranks_by_subject_and_none_by_language() -> None:
    language_map, vectors, labels, subjects = fitted()
    stored = language_map.map_documents(vectors)
    fair = top(language_map.map_queries(vectors, balance=1.0) @ stored.T)
    biased = top(language_map.map_queries(vectors, balance=0.0) @ stored.T)
    langs = np.array(labels)
    assert (subjects[fair] == subjects[:, None]).mean() > 0.99
    assert (langs[biased] == langs[:, None]).mean() > 0.95


def test_full_balance_scores_are_cosines_of_the_neutral_parts() -> None:
    language_map, vectors, _, _ = fitted()
    centred = vectors - language_map.mean
    neutral = unit(centred - centred @ language_map.basis.T @ language_map.basis)
    scores = language_map.map_queries(vectors, balance=1.0) @ language_map.map_documents(vectors).T
    np.testing.assert_allclose(scores, neutral @ neutral.T, atol=1e-5)


def test_a_stored_vector_gives_the_unit_vector_back() -> None:
    language_map, vectors, _, _ = fitted()
    np.testing.assert_allclose(language_map.unmap_documents(language_map.map_documents(vectors)), vectors, atol=1e-5)


def test_identity_scores_are_plain_cosines_at_every_balance() -> None:
    vectors, _, _ = parallel_corpus()
    language_map = LanguageMap.identity(DIMENSION)
    for balance in (0.0, 0.5, 1.0):
        scores = language_map.map_queries(vectors, balance=balance) @ language_map.map_documents(vectors).T
        np.testing.assert_allclose(scores, vectors @ vectors.T, atol=1e-6)


def test_the_query_shift_is_taken_off_queries_only() -> None:
    base = LanguageMap.identity(DIMENSION)
    shift = np.full(DIMENSION, 0.05, np.float32)
    shifted = LanguageMap(base.mean, base.basis, shift)
    vectors, _, _ = parallel_corpus()
    np.testing.assert_allclose(shifted.map_documents(vectors), base.map_documents(vectors))
    np.testing.assert_allclose(shifted.map_queries(vectors, balance=1.0), unit(vectors - shift), atol=1e-6)


def test_a_language_with_few_chunks_keeps_its_prior() -> None:
    vectors, labels, _ = parallel_corpus()
    truth = LanguageSums(DIMENSION)
    truth.add(labels, vectors)
    means = np.stack([truth.sums[f"l{i}"] / truth.counts[f"l{i}"] for i in range(LANGUAGES)])
    mean = means.mean(axis=0).astype(np.float32)
    names = tuple(f"l{i}" for i in range(LANGUAGES))
    prior = LanguageOffsets(names, mean, (means - mean).astype(np.float32), np.zeros(DIMENSION, np.float32))
    sparse = LanguageSums(DIMENSION)
    rest = np.array(labels) != "l0"
    sparse.add([label for label in labels if label != "l0"], vectors[rest])
    sparse.add(["l0"], -vectors[:1])
    shrunk, trusting = (fit_language_map(prior, sparse, shrinkage=s, rank=4) for s in (1000.0, 0.01))
    reference = fit_language_map(prior, None, rank=4)

    def agreement(language_map: LanguageMap) -> float:
        return float(np.linalg.norm(language_map.basis @ reference.basis.T) ** 2 / 4)

    assert agreement(shrunk) > 0.98 > agreement(trusting)


def test_one_language_alone_has_no_span() -> None:
    vectors, _, _ = parallel_corpus()
    sums = LanguageSums(DIMENSION)
    sums.add(["de"] * len(vectors), vectors)
    assert sums.counts == {"de": SUBJECTS * LANGUAGES}
    assert fit_language_map(None, sums).basis.shape == (0, DIMENSION)


def test_a_small_index_without_a_prior_keeps_plain_cosine() -> None:
    vectors, labels, _ = parallel_corpus()
    sums = LanguageSums(DIMENSION)
    sums.add(labels[:50], vectors[:50])
    assert fit_language_map(None, sums).fingerprint == LanguageMap.identity(DIMENSION).fingerprint


def test_files_round_trip_and_damage_is_explained(tmp_path: Path) -> None:
    language_map, _, _, _ = fitted()
    path = tmp_path / "map.safetensors"
    language_map.save(path)
    assert LanguageMap.load(path).fingerprint == language_map.fingerprint
    path.write_bytes(b"\x00" * 20)
    with pytest.raises(IndexFormatError, match="Ingest the corpus again"):
        LanguageMap.load(path)


def test_a_quarter_of_the_global_mean_stays() -> None:
    language_map, vectors, labels, _ = fitted()
    means = [vectors[np.array(labels) == lang].mean(axis=0) for lang in sorted(set(labels))]
    np.testing.assert_allclose(language_map.mean, 0.75 * np.mean(means, axis=0), atol=1e-5)


def test_a_vector_is_stored_as_the_same_bytes_whatever_is_beside_it() -> None:
    language_map, vectors, _, _ = fitted()
    vectors = np.ascontiguousarray(vectors, np.float32)
    together = language_map.map_documents(vectors)
    back = language_map.unmap_documents(together)
    for size in (1, 2, 3, 7, 64, 250):
        parts = [vectors[start : start + size] for start in range(0, len(vectors), size)]
        stored = [language_map.map_documents(part) for part in parts]
        assert np.array_equal(np.concatenate(stored), together)
        assert np.array_equal(np.concatenate([language_map.unmap_documents(part) for part in stored]), back)
