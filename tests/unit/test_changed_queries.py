"""Benchmarks of queries that are asked in another form: which ones count, and what is compared."""

from __future__ import annotations

import pytest

from benchmarks.code_switching import Scores, changed_queries, describe, score
from tests.conftest import FakeEncoder
from training.evaluation.sets import Document, Query, RetrievalSet

SET = RetrievalSet(
    name="s",
    documents=(Document("a", "en", "red fox"), Document("b", "en", "blue whale"), Document("c", "en", "green snake")),
    queries=(Query("1", "en", "red fox"), Query("2", "en", "blue whale"), Query("3", "en", "green snake")),
    qrels={"1": {"a": 1.0}, "2": {"b": 1.0}, "3": {"c": 1.0}},
)
OTHER = {"1": "red whale blue whale", "2": "blue whale"}


def test_queries_that_stay_as_they_are_do_not_count(fake_encoder: FakeEncoder) -> None:
    pair = changed_queries(SET, lambda query: OTHER.get(query.id, query.text))
    assert pair is not None
    assert [[query.text for query in form.queries] for form in pair] == [["red fox"], ["red whale blue whale"]]
    assert score(fake_encoder, *pair) == Scores("s", [1.0], [pytest.approx(0.6309, abs=1e-4)])  # rank 2: 1 / log2(3)
    assert changed_queries(SET, lambda query: query.text) is None


def test_differences_are_to_the_queries_as_they_are_and_to_the_first_encoder() -> None:
    first, second = Scores("s", [1.0, 0.5], [0.5, 0.0]), Scores("s", [1.0, 0.5], [1.0, 0.5])
    assert describe(first, first, "f") == {
        "set": "s", "queries": 2, "form": "f", "as_is": 0.75, "changed": 0.25, "change": [-50.0, -50.0, -50.0]
    }  # fmt: skip
    row = describe(second, first, "f")
    assert (row["change"], row["as_is_against_first"]) == ([0.0] * 3, [0.0] * 3)
    assert row["changed_against_first"] == [50.0] * 3
