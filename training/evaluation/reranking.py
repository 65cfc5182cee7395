"""Reranking: candidates of one query put in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from search.errors import EvaluationError
from search.evaluation.metrics import average_precision
from search.records import Vectors
from training.evaluation.retrieval import top_rows


def reranking_precisions(
    queries: Vectors, positives: Sequence[Vectors], negatives: Sequence[Vectors]
) -> npt.NDArray[np.float64]:
    """Average precision (Q,) of each query's own positives ranked among its own negatives, in [0, 1].

    A tie counts against the encoder: negatives come first.

    Worked: query (1, 0), positives (1, 0) and (0, 1), negative (0.6, 0.8): ranks 1 and 3, (1 + 2/3) / 2 = 0.8333.

    Args:
        queries: (Q, D).
        positives: For each query, (P, D) with P at least 1.
        negatives: For each query, (M, D), M may be 0.

    Raises:
        EvaluationError: There is no query, or one without positives.

    Source: Muennighoff et al., 2023, "MTEB", section 3.2 (reranking).
    """
    if not len(queries) or len(queries) != len(positives) or len(queries) != len(negatives):
        sizes = f"{len(queries)} queries, {len(positives)} positives, {len(negatives)} negatives"
        raise EvaluationError(f"reranking needs as many lists as queries, got {sizes}")
    found = np.empty(len(queries))
    for i, query in enumerate(queries):
        if not len(positives[i]):
            raise EvaluationError(f"reranking: query {i} has no positives; leave it out")
        candidates = np.concatenate([negatives[i].reshape(-1, len(query)), positives[i]])
        ranked = top_rows((candidates @ query)[None, :], len(candidates))[0]
        relevant = {str(row) for row in range(len(negatives[i]), len(candidates))}
        found[i] = average_precision([str(row) for row in ranked], relevant)
    return found
