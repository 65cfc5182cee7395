"""Pairs of texts judged by their cosine: graded similarity and entailment."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from search.errors import EvaluationError
from search.records import Vectors


def pair_cosines(first: Vectors, second: Vectors) -> npt.NDArray[np.float64]:
    """Cosine of row i of one side with row i of the other (N,)."""
    if first.shape != second.shape:
        raise EvaluationError(f"pairs need as many vectors on both sides: {first.shape}, {second.shape}")
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return np.asarray(np.einsum("ij,ij->i", first, second) / np.maximum(lengths, 1e-12), np.float64)


def spearman(cosines: npt.NDArray[np.float64], grades: npt.NDArray[np.float64]) -> float:
    """Rank correlation of cosines with people's grades, in [-1, 1]; NaN when either side is constant.

    Worked: cosines (0.1, 0.5, 0.4), grades (1, 2, 3): ranks (1, 3, 2) and (1, 2, 3), 1 - 6 * 2 / 24 = 0.5.

    Source: Reimers et al., 2016, "Task-Oriented Intrinsic Evaluation of Semantic Textual Similarity" (rank rather than
    linear correlation).
    """
    from scipy.stats import rankdata

    if len(grades) < 2 or np.ptp(grades) == 0 or np.ptp(cosines) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(cosines), rankdata(grades))[0, 1])


def pair_average_precision(cosines: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float:
    """Average precision of ranking pairs by cosine, in [0, 1]; NaN unless there are pairs of both kinds.

    Equal cosines are one step of the ranking. The share of positive pairs is what chance reaches.

    Worked: cosines (0.9, 0.8, 0.7), positive (yes, no, yes): (1 + 2/3) / 2 = 0.8333.

    Source: Muennighoff et al., 2023, "MTEB", section 3.2 (pair classification).
    """
    if positive.all() or not positive.any():
        return math.nan
    order = np.argsort(-cosines, kind="stable")
    found = np.cumsum(positive[order])
    last_of_step = np.append(np.flatnonzero(np.diff(cosines[order])), len(order) - 1)
    gained = np.diff(found[last_of_step], prepend=0)
    return float((gained * found[last_of_step] / (last_of_step + 1)).sum() / found[-1])
