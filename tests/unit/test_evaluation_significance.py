"""The paired bootstrap on cases whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from search.errors import EvaluationError
from search.evaluation.significance import paired_bootstrap


def test_the_interval_is_that_of_the_standard_error() -> None:
    rng = np.random.default_rng(1)
    first = rng.random(400)
    second = first + rng.normal(0.02, 0.1, 400)
    found = paired_bootstrap(first, second)
    differences = second - first
    error = differences.std() / math.sqrt(400)
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(differences.mean() + 1.96 * error, abs=0.1 * error)
    normal_p = math.erfc(abs(differences.mean()) / error / math.sqrt(2))
    assert found.p == pytest.approx(normal_p, rel=0.5, abs=0.001)
    assert found.count == 400
    assert paired_bootstrap(first, second) == found  # seeded


def test_hits_and_misses_are_drawn_from_the_same_distribution() -> None:
    """Few distinct values take the multinomial path."""
    second = np.array([1.0] * 60 + [0.0] * 940)
    found = paired_bootstrap(np.zeros(1000), second)
    error = math.sqrt(0.06 * 0.94 / 1000)
    assert found.mean == pytest.approx(0.06)
    assert (found.low, found.high) == pytest.approx((0.06 - 1.96 * error, 0.06 + 1.96 * error), abs=0.1 * error)
    assert found.is_significant
    assert found.p == pytest.approx(2 / 10_001)


def test_no_difference_is_not_significant() -> None:
    same = paired_bootstrap([0.2, 0.4, 0.9], [0.2, 0.4, 0.9])
    assert (same.mean, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    assert not same.is_significant
    rng = np.random.default_rng(2)
    noise = [paired_bootstrap(rng.random(50), rng.random(50), resamples=500) for _ in range(200)]
    assert sum(found.is_significant for found in noise) / 200 == pytest.approx(0.05, abs=0.045)


def test_strata_count_once_however_large() -> None:
    first = [0.0] * 10 + [0.0] * 1000
    second = [1.0] * 10 + [0.0] * 1000
    strata = ["small"] * 10 + ["large"] * 1000
    assert paired_bootstrap(first, second).mean == pytest.approx(10 / 1010)
    assert paired_bootstrap(first, second, strata=strata).mean == 0.5
    weighted = paired_bootstrap(first, second, strata=strata, weights={"small": 1.0, "large": 3.0})
    assert weighted.mean == 0.25
    assert (weighted.low, weighted.high) == (0.25, 0.25)  # nothing varies within either


def test_undefined_values_are_left_out() -> None:
    assert paired_bootstrap([math.nan, 0.5, 0.0], [1.0, 1.0, math.nan]).count == 1
    with pytest.raises(EvaluationError, match="there is none"):
        paired_bootstrap([math.nan], [1.0])
    with pytest.raises(EvaluationError, match="same units of both"):
        paired_bootstrap([0.1, 0.2], [0.1])
