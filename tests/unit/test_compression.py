"""The forms of vectors that are compared, on small ones."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import compression
from benchmarks.compression import Collection, Form, score
from search.evaluation.questions import Question

RNG = np.random.default_rng(0)
VECTORS = RNG.normal(size=(60, 16)).astype(np.float32)
QUERIES = RNG.normal(size=(7, 16)).astype(np.float32)


def test_int8_is_within_half_a_step_of_every_value() -> None:
    steps = np.abs(VECTORS).max(axis=0) / 127
    assert np.all(np.abs(compression._as_int8(VECTORS) - VECTORS) <= steps / 2 + 1e-6)


def test_all_components_give_the_same_scores_and_few_give_the_nearest() -> None:
    asked, kept = compression._components(QUERIES, VECTORS, 16)
    assert asked @ kept.T == pytest.approx(QUERIES @ VECTORS.T, abs=1e-4)
    flat = np.concatenate([VECTORS[:, :4], np.zeros((60, 12), np.float32)], axis=1)
    asked, kept = compression._components(QUERIES, flat, 4)
    assert kept.shape == (60, 4)
    assert asked @ kept.T == pytest.approx(QUERIES @ flat.T, abs=1e-4)


def test_cut_vectors_have_unit_length_and_signs_are_one_bit() -> None:
    assert np.linalg.norm(compression._cut(VECTORS, 4), axis=1) == pytest.approx(np.ones(60))
    assert set(compression._signs(VECTORS).ravel()) == {-1.0, 1.0}


def test_rescoring_looks_at_four_times_as_many_and_orders_them_by_the_fine_scores() -> None:
    coarse = np.arange(60, dtype=np.float32)[None]
    scores = compression._rescored(coarse, -coarse)(5)[0]
    assert np.flatnonzero(np.isfinite(scores)).tolist() == list(range(40, 60))
    assert int(scores.argmax()) == 40


def test_a_document_is_ranked_by_its_best_passage_and_small_languages_have_no_row() -> None:
    questions = tuple(Question(f"q{number}", "", "th", {"b": 1.0}) for number in range(5))
    other = Question("q5", "", "am", {"a": 1.0})
    collection = Collection("toy", ("",) * 3, ("th", "th", "am"), ("a", "a", "b"), (*questions, other))
    scores = np.array([[0.1, 0.5, 0.3]] * 5 + [[0.0, 0.9, 0.1]], np.float32)
    figures = score(collection, Form("toy", 4, lambda depth: scores))
    assert figures["th"] == {"queries": 5, "recall@10": 1.0, "ndcg@10": 0.6309, "map@100": 0.5}
    assert figures["all"]["queries"] == 6
    assert set(figures) == {"all", "th"}
