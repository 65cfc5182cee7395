"""Metrics against hand-worked values and an independent library."""

from __future__ import annotations

import random

import pytest

from search.evaluation.metrics import (
    average_precision,
    ndcg_at_k,
    own_language_share,
    recall_at_k,
    reciprocal_rank,
)


def test_hand_worked_values() -> None:
    assert ndcg_at_k(["x", "a", "b"], {"a": 1, "b": 1}, 3) == pytest.approx(0.6934264)
    assert ndcg_at_k(["a", "b"], {"a": 2, "b": 1}, 1) == 1.0
    assert recall_at_k(["a", "x", "b"], {"a", "b"}, 2) == 0.5
    assert average_precision(["a", "x", "b"], {"a", "b"}) == pytest.approx(5 / 6)
    assert reciprocal_rank(["a", "b"], {"b"}) == 0.5
    assert own_language_share(["de", "en", "de", "fr"], "de", 4) == 0.5


def test_nothing_relevant_or_nothing_ranked_is_zero() -> None:
    assert ndcg_at_k(["a"], {}, 10) == recall_at_k(["a"], set(), 10) == average_precision(["a"], set()) == 0.0
    assert ndcg_at_k([], {"a": 1}, 10) == reciprocal_rank([], {"a"}) == own_language_share([], "de") == 0.0


def test_equal_to_ranx() -> None:
    ranx = pytest.importorskip("ranx")
    rng = random.Random(7)
    documents = [f"d{i}" for i in range(60)]
    qrels, runs = {}, {}
    for query in range(40):
        qrels[f"q{query}"] = {doc: rng.choice([1, 1, 2, 3]) for doc in rng.sample(documents, rng.randint(1, 8))}
        runs[f"q{query}"] = {doc: 60.0 - rank for rank, doc in enumerate(rng.sample(documents, 40))}
    reference = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(runs), ["ndcg@10", "recall@20", "map", "mrr"])
    ours = {"ndcg@10": 0.0, "recall@20": 0.0, "map": 0.0, "mrr": 0.0}
    for query, judged in qrels.items():
        ranked = sorted(runs[query], key=lambda doc: -runs[query][doc])
        ours["ndcg@10"] += ndcg_at_k(ranked, judged, 10) / len(qrels)
        ours["recall@20"] += recall_at_k(ranked, judged, 20) / len(qrels)
        ours["map"] += average_precision(ranked, judged) / len(qrels)
        ours["mrr"] += reciprocal_rank(ranked, judged) / len(qrels)
    assert ours == pytest.approx({name: float(value) for name, value in reference.items()}, abs=1e-9)
