"""How far translations are each other's nearest neighbours."""

from __future__ import annotations

import numpy as np

from search.records import Vectors
from training.evaluation.bitext import similarity_matrix


def mexa(first: Vectors, second: Vectors) -> float:
    """Share of parallel sentences nearer to each other than either is to any other sentence of the other language.

    Stricter than accuracy in either direction: the diagonal must be the only maximum of its row and of its column.

    Worked: similarities [[0.9, 0.3], [0.95, 0.8]]: the first loses its column, the second its row: 0. With 0.2 for
    0.95 both hold: 1.

    Source: Kargaran et al., 2024, "MEXA: Multilingual Evaluation of English-Centric LLMs via Cross-Lingual Alignment",
    equation 1.
    Differs: of an encoder's sentence vectors, not of a layer of a language model.
    """
    similarities = similarity_matrix(first, second)
    own = similarities.diagonal().copy()
    np.fill_diagonal(similarities, -np.inf)
    rivals = np.maximum(similarities.max(axis=0), similarities.max(axis=1))
    return float((own > rivals).mean())
