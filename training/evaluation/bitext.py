"""Translations as nearest neighbours: matching and mining of parallel sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from search.errors import EvaluationError
from search.records import Vectors

Figures: TypeAlias = npt.NDArray[np.float64]
MARGIN_NEIGHBOURS = 4


@dataclass(frozen=True, slots=True)
class Matching:
    """How N sentences find their translations among N; the means over sentences are the figures.

    `forward` and `back` are 1 where the nearest neighbour is the translation, from first to second language and the
    other way. `f1` (N,) holds each sentence's part in the F1 of `forward`.
    """

    forward: Figures
    back: Figures
    f1: Figures


def match_translations(first: Vectors, second: Vectors) -> Matching:
    """Nearest neighbour by cosine, row i of `first` belonging to row i of `second`; ties break by row.

    F1 is that of MTEB's bitext mining: every row of `second` is a class of one sentence; a class whose row is the
    nearest of c sentences, the right one among them, has recall 1 and precision 1/c, so F1 2 / (c + 1).

    Worked: three sentences whose nearest rows are 0, 0, 2: accuracy 2/3, F1 (2/3 + 0 + 1) / 3 = 0.5556.

    Args:
        first: Unit vectors (N, D).
        second: Unit vectors (N, D).

    Source: Artetxe and Schwenk, 2019, "Massively Multilingual Sentence Embeddings for Zero-Shot Cross-Lingual Transfer
    and Beyond", section 4.4 (Tatoeba). Muennighoff et al., 2023, "MTEB", section 3.2 (F1).
    """
    similarities = similarity_matrix(first, second)
    own = np.arange(len(first))
    nearest = similarities.argmax(axis=1)
    forward = (nearest == own).astype(np.float64)
    back = (similarities.argmax(axis=0) == own).astype(np.float64)
    chosen = np.bincount(nearest, minlength=len(second))
    return Matching(forward, back, forward * 2.0 / (chosen + 1.0))


def mining_f1(first: Vectors, second: Vectors, *, k: int = MARGIN_NEIGHBOURS) -> float:
    """F1 of mining the N true pairs out of N x N by the ratio margin, at the threshold that is best for it.

    Candidates are the best of every sentence in both directions. They are accepted from the highest margin down while
    both sentences are still free. Unlike matching, this asks that margins of different sentences can be compared.

    Args:
        first: Unit vectors (N, D).
        second: Unit vectors (N, D); row i belongs to row i of `first`.
        k: Neighbours that the margin is relative to.

    Source: Artetxe and Schwenk, 2019, "Margin-based Parallel Corpus Mining with Multilingual Sentence Embeddings",
    section 3 (ratio margin, max. score), and section 4.1 (BUCC).
    Differs: every sentence has a translation; in BUCC few have.
    """
    margins = ratio_margins(similarity_matrix(first, second), k=k)
    count = len(margins)
    rows = np.concatenate([np.arange(count), margins.argmax(axis=0)])
    columns = np.concatenate([margins.argmax(axis=1), np.arange(count)])
    order = np.argsort(-margins[rows, columns], kind="stable")
    taken_rows, taken_columns = np.zeros(count, bool), np.zeros(count, bool)
    accepted = right = 0
    best = 0.0
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if taken_rows[row] or taken_columns[column]:
            continue
        taken_rows[row] = taken_columns[column] = True
        accepted += 1
        right += row == column
        best = max(best, 2.0 * right / (accepted + count))
    return best


def ratio_margins(similarities: Vectors, *, k: int = MARGIN_NEIGHBOURS) -> Vectors:
    """Cosine (N, M) over the mean cosine of both sentences with their `k` nearest neighbours on the other side.

    Worked: [[0.9, 0.3], [0.3, 0.5]], k=2: row means 0.6 and 0.4, column means the same; 0.9 / 0.6 = 1.5 for the first.

    Source: Artetxe and Schwenk, 2019, "Margin-based Parallel Corpus Mining", equation 2 with margin(a, b) = a / b.
    """
    rows, columns = min(k, similarities.shape[1]), min(k, similarities.shape[0])
    forward = np.partition(similarities, -rows, axis=1)[:, -rows:].mean(axis=1)
    back = np.partition(similarities, -columns, axis=0)[-columns:].mean(axis=0)
    around = np.maximum((forward[:, None] + back[None, :]) / 2.0, 1e-6)  # centred vectors can have none near them
    return np.asarray(similarities / around, np.float32)


def similarity_matrix(first: Vectors, second: Vectors) -> Vectors:
    """Cosines (N, N) of parallel sentences: unit vectors (N, D) each, the translations on the diagonal."""
    if first.shape != second.shape or not len(first):
        raise EvaluationError(
            f"parallel sentences need equal shapes and one row or more: {first.shape}, {second.shape}"
        )
    return np.asarray(first @ second.T, np.float32)
