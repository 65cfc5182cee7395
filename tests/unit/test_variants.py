"""The comparison of dense, late-interaction and sparse encoders: scores and sizes worked by hand."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from benchmarks.variants import Variant, judge_tokens, judge_vectors, parse_variant, size


def test_whole_vectors_by_hand() -> None:
    documents = np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32)
    found = judge_vectors(np.array([[0, 1, 0]], np.float32), documents)
    np.testing.assert_allclose(found.scores, [[0, 0.8]])
    assert (found.active.tolist(), found.dimension) == ([1, 2], 3)


def test_token_vectors_by_hand() -> None:
    """Of different lengths; a short query counts as much as a long one; a token of zeros would be no partner."""
    queries = [np.eye(2, dtype=np.float32), np.array([[0, 1]], np.float32)]
    documents = [np.array([[1, 0], [0.6, 0.8]], np.float32), np.array([[-1, 0]], np.float32)]
    found = judge_tokens(queries, documents)
    np.testing.assert_allclose(found.scores, [[0.9, -0.5], [0.8, 0.0]], atol=1e-6)
    assert (found.active.tolist(), found.dimension) == ([3, 1], 2)


def test_sizes_by_hand() -> None:
    """Float16: 384 values are 768 bytes; of a sparse vector each value needs its place as well."""
    tokens = judge_tokens([np.eye(2, dtype=np.float32)], [np.ones((3, 2), np.float32), np.ones((1, 2), np.float32)])
    assert size("late", tokens) == {"dimension": 2, "active": 4.0, "bytes_per_passage": 8}
    coded = judge_vectors(np.ones((1, 5), np.float32), np.array([[1, 0, 0, 0, 1], [1, 0, 0, 0, 0]], np.float32))
    assert size("sparse", coded) == {"dimension": 5, "active": 1.5, "bytes_per_passage": 6}
    assert size("dense", judge_vectors(np.ones((1, 384)), np.ones((2, 384))))["bytes_per_passage"] == 768


def test_a_variant_is_a_kind_and_a_place() -> None:
    assert parse_variant("late=encoders/a=b") == Variant("late", "encoders/a=b")
    assert parse_variant("sparse=encoders/mine").name == "mine"
    for wrong in ("encoders/mine", "spars=encoders/mine", "dense="):
        with pytest.raises(argparse.ArgumentTypeError, match="dense=, late= or sparse="):
            parse_variant(wrong)
