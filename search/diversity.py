"""Hits that differ: maximal marginal relevance, and documents similar to one, both blind to the language."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.balance import LanguageMap
from search.errors import QueryError
from search.opening import OpenIndex
from search.records import Filter, Match, ScoredPoint, Vectors

POOL = 100
"""Documents at the top that are put in another order. The same for every page, so that pages do not overlap."""


def diversify(index: OpenIndex, points: Sequence[ScoredPoint], diversity: float) -> list[ScoredPoint]:
    """Order hits so that each is relevant and unlike those before it, whatever its language.

    The next hit is the one of the highest (1 - d) relevance - d similarity, where the similarity is the cosine to the
    nearest hit already taken, and the relevance falls evenly with the rank from 1 to 0.
    Worked: of a, a' (cosine 0.9 to a) and b (cosine 0.1 to a), best first, d = 0.5 takes a; then a' is worth
    0.5 * 0.5 - 0.5 * 0.9 = -0.2 and b 0.5 * 0 - 0.5 * 0.1 = -0.05: a, b, a'.

    Args:
        index: Where their vectors are; costs one read of 100 of them.
        points: Hits, best first, one per document; the first 100 are ordered.
        diversity: d, 0 (as they are) to 1 (only different).

    Returns:
        All points, the first as it was; scores descend, as 1 / (60 + rank).

    Source: Carbonell and Goldstein, 1998, "The use of MMR, diversity-based reranking for reordering documents and
    producing summaries". Differs: relevance by rank, since fused scores are no similarities.
    """
    if diversity == 0 or len(points) < 3:
        return list(points)
    pool = list(points[:POOL])
    stored = {p.chunk.id: p.dense for p in index.store.retrieve([p.chunk.id for p in pool], with_vectors=True)}
    gone = [point for point in pool if point.chunk.id not in stored]  # a server's may be replaced just now
    pool = [point for point in pool if point.chunk.id in stored]
    if len(pool) < 3:
        return list(points)
    vectors = neutral_vectors(index.language_map, np.stack([stored[p.chunk.id] for p in pool]))
    order = _marginal_order(vectors @ vectors.T, diversity)
    ordered = [*(pool[i] for i in order), *points[POOL:], *gone]
    return [ScoredPoint(point.chunk, 1.0 / (60 + rank)) for rank, point in enumerate(ordered, start=1)]


def neutral_vectors(language_map: LanguageMap, stored: Vectors) -> Vectors:
    """Language-neutral parts, of unit length, of stored vectors (B, D)."""
    neutral = stored - (stored @ language_map.basis.T) @ language_map.basis
    return np.asarray(neutral / np.maximum(np.linalg.norm(neutral, axis=1, keepdims=True), 1e-12), np.float32)


def document_vector(index: OpenIndex, document_id: str) -> Vectors:
    """What a document is about (D,): the mean of its passages' neutral parts, of unit length.

    Raises:
        QueryError: There is no such document.
    """
    own = Filter((Match("document_id", (document_id,)),))
    stored = [point.dense for point in index.store.iter_points(filter=own, with_vectors=True)]
    if not stored:
        raise unknown_document(document_id)
    mean = neutral_vectors(index.language_map, np.stack(stored)).mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def unknown_document(document_id: str) -> QueryError:
    """The error for an id that the index does not hold."""
    return QueryError(f"there is no document {document_id!r} in the index; `indexer status --files` lists its files")


def _marginal_order(similarities: Vectors, diversity: float) -> list[int]:
    """Rows of (N, N) cosines in the order of maximal marginal relevance, ties by rank."""
    count = len(similarities)
    relevance = 1.0 - np.arange(count) / (count - 1)
    order, nearest = [0], similarities[0].astype(np.float64)
    taken = np.zeros(count, bool)
    taken[0] = True
    while len(order) < count:
        worth = np.where(taken, -np.inf, (1 - diversity) * relevance - diversity * nearest)
        best = int(worth.argmax())
        order.append(best)
        taken[best] = True
        nearest = np.maximum(nearest, similarities[best])
    return order
