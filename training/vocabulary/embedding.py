"""Vectors for new pieces: made of those of the pieces that stood for them.

The vector of a new piece is the mean of the vectors of its parts, weighted by how many characters each stands for; a
part that is only the mark of a word's beginning does not count. A character that the encoder has never seen is drawn
from a normal distribution with the mean and deviation of all vectors: it means nothing until it is trained.

Source: Dobler and de Melo, 2023, "FOCUS: Effective Embedding Initialization for Monolingual Specialization of
Multilingual Models", section 3; Minixhofer et al., 2022, "WECHSEL", section 3: a new piece's vector is a weighted mean
of old pieces' vectors, and what is like none of them is drawn at random.
Differs: there the weights are similarities in static vectors of words, trained on the new language (FOCUS) or mapped
from another (WECHSEL), since their vocabulary is replaced. Here it is only added to, and what a piece was made of is
known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from search.records import Vectors
from training.vocabulary.coverage import SPACE
from training.vocabulary.learning import NewPiece
from training.vocabulary.unigram import Unigram


def initial_vectors(
    new: Sequence[NewPiece], unigram: Unigram, embeddings: npt.NDArray[Any], *, seed: int = 0
) -> Vectors:
    """Vectors (N, D) float32 of the new pieces, in their order.

    Worked: a piece of `ab` with vector (1, 0) and `c` with vector (0, 1) gets (2/3, 1/3).

    Args:
        new: The pieces.
        unigram: The old pieces.
        embeddings: Their vectors (V, D).
        seed: Draws what is made of nothing known.
    """
    table = np.asarray(embeddings, np.float32)
    mean, deviation = table.mean(axis=0), table.std(axis=0)
    rng = np.random.default_rng(seed)
    vectors = np.empty((len(new), table.shape[1]), np.float32)
    for row, piece in enumerate(new):
        weights = np.array([_weight(part, unigram) for part in piece.parts], np.float32)
        if weights.any():
            vectors[row] = weights @ table[list(piece.parts)] / weights.sum()
        else:
            vectors[row] = rng.normal(mean, deviation)
    return vectors


def _weight(part: int, unigram: Unigram) -> int:
    """Characters that an old piece stands for; the unknown one stands for nothing that is known."""
    return 0 if part == unigram.unknown else len(unigram.pieces[part].replace(SPACE, ""))
