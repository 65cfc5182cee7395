"""Figures of the evaluation suite against hand-worked values and independent libraries."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.errors import EvaluationError
from search.records import Vectors
from training.evaluation.alignment import mexa
from training.evaluation.bitext import match_translations, mining_f1, ratio_margins
from training.evaluation.labels import probe_accuracy, v_measure
from training.evaluation.pairs import pair_average_precision, pair_cosines, spearman
from training.evaluation.reranking import reranking_precisions
from training.evaluation.retrieval import score_retrieval, search_exact
from training.evaluation.sets import Document, Query, RetrievalSet


def unit_rows(rows: int, dimension: int, seed: int) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def pair_of_sides(similarities: list[list[float]]) -> tuple[Vectors, Vectors]:
    """Vectors whose dot products are `similarities`."""
    return np.array(similarities, np.float32), np.eye(len(similarities), dtype=np.float32)


def test_retrieval_is_equal_to_ranx() -> None:
    ranx = pytest.importorskip("ranx")
    rng = np.random.default_rng(5)
    documents = tuple(Document(f"d{i:03}", ("de", "en", "th")[i % 3], "") for i in range(150))
    queries = tuple(Query(f"q{i:02}", "de", "") for i in range(30))
    qrels = {
        query.id: {documents[row].id: float(rng.integers(1, 4)) for row in rng.choice(150, 6, replace=False)}
        for query in queries
    }
    vectors, asked = unit_rows(150, 16, 1), unit_rows(30, 16, 2)
    scores = score_retrieval(RetrievalSet("made", documents, queries, qrels), asked, vectors)
    run = {
        query.id: {documents[row].id: float(similarity[row]) for row in np.argsort(-similarity)[:100]}
        for query, similarity in zip(queries, asked @ vectors.T, strict=True)
    }
    graded = {query: {doc: int(grade) for doc, grade in judged.items()} for query, judged in qrels.items()}
    reference = ranx.evaluate(
        ranx.Qrels(graded), ranx.Run(run), ["ndcg@10", "map@100", "recall@20", "mrr"], return_mean=False
    )
    for name, values in reference.items():
        np.testing.assert_allclose(scores.values[name], values, atol=1e-9, err_msg=name)


def test_search_is_exact_and_ties_break_by_row() -> None:
    documents, queries = unit_rows(500, 8, 3), unit_rows(20, 8, 4)
    expected = np.argsort(-(queries @ documents.T), axis=1, kind="stable")
    np.testing.assert_array_equal(search_exact(queries, documents, k=40), expected[:, :40])
    np.testing.assert_array_equal(search_exact(queries, documents, k=900), expected)
    equal = np.ones((300, 1), np.float32)
    assert search_exact(equal[:1], equal, k=5).tolist() == [[0, 1, 2, 3, 4]]


def test_matching_of_translations() -> None:
    first, second = pair_of_sides([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1], [0.1, 0.2, 0.7]])
    matching = match_translations(first, second)
    assert matching.forward.tolist() == [1, 0, 1]
    assert matching.back.tolist() == [1, 1, 1]
    assert matching.f1.mean() == pytest.approx(5 / 9)


def test_matching_f1_is_the_weighted_f1_that_mteb_reports() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    first = unit_rows(80, 6, 5)
    second = first + 0.6 * unit_rows(80, 6, 6)
    second /= np.linalg.norm(second, axis=1, keepdims=True)
    nearest = (first @ second.T).argmax(axis=1)
    reference = metrics.f1_score(range(80), nearest, average="weighted", zero_division=0)
    matching = match_translations(first, second)
    assert 0.3 < matching.forward.mean() < 0.95
    assert matching.f1.mean() == pytest.approx(reference)


def test_ratio_margins_and_mining() -> None:
    margins = ratio_margins(np.array([[0.9, 0.3], [0.3, 0.5]], np.float32), k=2)
    np.testing.assert_allclose(margins, [[1.5, 0.6], [0.6, 1.25]], rtol=1e-6)
    assert mining_f1(*pair_of_sides([[0.9, 0.3], [0.3, 0.5]])) == 1.0
    # Both pairs are crossed, so the best that can be mined is nothing right.
    assert mining_f1(*pair_of_sides([[0.1, 0.9], [0.9, 0.1]])) == 0.0
    # The surest pair is right; the other two are crossed: 1 of 1 accepted, 2 * 1 / (1 + 3).
    crossed = [[0.9, 0.0, 0.0], [0.0, 0.1, 0.5], [0.0, 0.5, 0.1]]
    assert mining_f1(*pair_of_sides(crossed), k=1) == pytest.approx(0.5)


def test_mexa_needs_the_only_maximum_of_row_and_column() -> None:
    assert mexa(*pair_of_sides([[0.9, 0.3], [0.95, 0.8]])) == 0.0
    assert mexa(*pair_of_sides([[0.9, 0.3], [0.2, 0.8]])) == 1.0
    assert mexa(*pair_of_sides([[0.9, 0.9], [0.2, 0.95]])) == 0.5  # a tie is no maximum
    with pytest.raises(EvaluationError, match="equal shapes"):
        mexa(unit_rows(2, 4, 0), unit_rows(3, 4, 0))


def test_spearman_with_ties_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    cosines = np.array([0.1, 0.5, 0.4])
    assert spearman(cosines, np.array([1.0, 2.0, 3.0])) == pytest.approx(0.5)
    rng = np.random.default_rng(9)
    grades, similar = rng.integers(0, 6, 200).astype(float), rng.normal(size=200).round(1)
    assert spearman(similar, grades) == pytest.approx(stats.spearmanr(similar, grades).statistic)
    assert math.isnan(spearman(cosines, np.ones(3)))


def test_pair_average_precision_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    assert pair_average_precision(np.array([0.9, 0.8, 0.7]), np.array([True, False, True])) == pytest.approx(5 / 6)
    rng = np.random.default_rng(3)
    cosines, positive = rng.normal(size=300).round(1), rng.random(300) < 0.3
    assert pair_average_precision(cosines, positive) == pytest.approx(
        metrics.average_precision_score(positive, cosines)
    )
    assert math.isnan(pair_average_precision(np.array([0.5]), np.array([True])))


def test_cosines_of_pairs_do_not_depend_on_length() -> None:
    first, second = np.array([[2.0, 0], [1, 1]], np.float32), np.array([[5.0, 0], [1, 0]], np.float32)
    np.testing.assert_allclose(pair_cosines(first, second), [1.0, math.sqrt(0.5)], rtol=1e-6)


def test_reranking_precisions() -> None:
    query = np.array([[1.0, 0.0]], np.float32)
    positives, negatives = np.eye(2, dtype=np.float32), np.array([[0.6, 0.8]], np.float32)
    assert reranking_precisions(query, [positives], [negatives]) == pytest.approx([5 / 6])
    assert reranking_precisions(query, [positives[:1]], [positives[:1]]) == [0.5]  # a tie counts against the encoder
    assert reranking_precisions(query, [positives[:1]], [negatives[:0]]) == [1.0]
    with pytest.raises(EvaluationError, match="query 0 has no positives"):
        reranking_precisions(query, [positives[:0]], [negatives])


def test_clusters_and_probe_of_separate_classes() -> None:
    pytest.importorskip("sklearn")
    labels = [("news", "sport")[row % 2] for row in range(60)]
    vectors = np.array([[1, 0, 0] if label == "news" else [0, 1, 0] for label in labels], np.float32)
    vectors += 0.01 * unit_rows(60, 3, 7)
    assert v_measure(vectors, labels) == pytest.approx(1.0)
    assert probe_accuracy(vectors[:40], labels[:40], vectors[40:], labels[40:]) == 1.0
    noise = unit_rows(60, 3, 8)
    assert v_measure(noise, labels) < 0.3
    assert v_measure(noise, labels) == v_measure(noise, labels)  # seeded
