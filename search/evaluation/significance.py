"""Whether one encoder or setting is better than another, or the queries happened to suit it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search.errors import EvaluationError

RESAMPLES = 10_000
CONFIDENCE = 0.95
DRAWS_PER_BLOCK = 4_000_000

Figures = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of (second - first), its 95 % confidence interval and two-sided p, from `count` units."""

    mean: float
    low: float
    high: float
    p: float
    count: int

    @property
    def is_significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    first: Sequence[float] | Figures,
    second: Sequence[float] | Figures,
    *,
    strata: Sequence[str] | None = None,
    weights: Mapping[str, float] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Bootstrap the mean difference of two encoders over the same queries.

    With `strata`, queries are drawn within each and the strata's means averaged, so that a large set or language does
    not outweigh the others. Units where either value is NaN are left out. A stratum of one unit adds no variance.

    Args:
        first: A metric of the baseline for each unit (N,).
        second: The same of the other encoder.
        strata: What each unit belongs to: its set, language or pair; none: one stratum.
        weights: Of the strata in the mean; none: equal.
        resamples: Draws; 10,000 give p to about two digits at 0.05.
        seed: Of the draws.

    Returns:
        The difference; positive when `second` is better.

    Raises:
        EvaluationError: The lengths differ or no unit has both values.

    Source: Efron and Tibshirani, 1993, "An Introduction to the Bootstrap", chapters 13 and 16; Sakai, 2006,
    "Evaluating evaluation metrics based on the bootstrap" (paired, over topics).
    Differs: p is twice the smaller share of resampled means on one side of 0, with one added to both counts.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1 or (strata is not None and len(strata) != len(a)):
        raise EvaluationError(f"a paired test needs the same units of both encoders, got {a.shape} and {b.shape}")
    differences = b - a
    kept = ~np.isnan(differences)
    if not kept.any():
        raise EvaluationError("a paired test needs a unit with a value of both encoders; there is none")
    groups = _by_stratum(differences, kept, strata)
    shares = [1.0 if weights is None else weights[name] for name in groups]
    rng = np.random.default_rng(seed)
    means = np.average([_resampled_means(group, resamples, rng) for group in groups.values()], axis=0, weights=shares)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return Difference(
        mean=float(np.average([group.mean() for group in groups.values()], weights=shares)),
        low=float(low),
        high=float(high),
        p=min(1.0, 2.0 * (tail + 1) / (resamples + 1)),
        count=int(kept.sum()),
    )


def _by_stratum(differences: Figures, kept: npt.NDArray[np.bool_], strata: Sequence[str] | None) -> dict[str, Figures]:
    places: dict[str, list[int]] = defaultdict(list)
    for place in np.flatnonzero(kept).tolist():
        places["" if strata is None else strata[place]].append(place)
    return {name: differences[rows] for name, rows in sorted(places.items())}


def _resampled_means(values: Figures, resamples: int, rng: np.random.Generator) -> Figures:
    """Means (R,) of as many values drawn with replacement."""
    distinct, counts = np.unique(values, return_counts=True)
    if len(distinct) * 8 < len(values):  # hits and misses: draw how often each value occurs, not which unit
        drawn = rng.multinomial(len(values), counts / len(values), size=resamples)
        return np.asarray(drawn @ distinct / len(values), np.float64)
    means = np.empty(resamples)
    block = max(1, DRAWS_PER_BLOCK // len(values))
    for start in range(0, resamples, block):
        rows = rng.integers(0, len(values), (min(block, resamples - start), len(values)))
        means[start : start + block] = values[rows].mean(axis=1)
    return means
