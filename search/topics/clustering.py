"""Cluster language-neutral vectors into a hierarchy of topics with outliers.

Ward's tree over the vectors, or over small k-means cells where there are many, is cut where clusters are best apart;
the clusters are then refined by spherical k-means. It needs no compilation at run time, is the same in every run, and
gives the hierarchy for nothing. Compared with EVoC, HDBSCAN and k-means in `results/topics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from search.records import Vectors

Labels: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

OUTLIER = -1
EXACT_VECTORS = 4_000
"""Up to so many vectors the tree is over the vectors themselves: its cost grows with their square."""
CELLS = 1_500
REFINEMENTS = 5
OUTLIER_DEVIATIONS = 2.5
"""Robust standard deviations below the usual similarity of a cluster from which on a vector is an outlier."""
TOPICS_PER_PARENT = 5
MOST_ROOTS = 20
_CANDIDATES = 21
_BATCH = 8_192


@dataclass(frozen=True, slots=True)
class Clustering:
    """Clusters of N vectors: `centroids` (K, D) of unit length, largest cluster first, and the `levels` above them.

    `labels` (N,) holds the cluster of each vector or OUTLIER, `thresholds` (K,) the cosine to the centroid below which
    one is an outlier. Each of `levels` maps the K clusters to groups, (K,), the finest first; none where K is small.
    """

    centroids: Vectors
    labels: Labels
    thresholds: Vectors
    levels: tuple[Labels, ...]

    def assign(self, vectors: Vectors) -> Labels:
        """The cluster (B,) of each further unit vector (B, D), OUTLIER where none is near."""
        labels, similarities = _nearest(vectors, self.centroids)
        return np.where(similarities >= self.thresholds[labels], labels, OUTLIER)


def cluster(vectors: Vectors, *, count: int | None = None, seed: int = 0) -> Clustering:
    """Cluster unit vectors (N, D), N at least 2.

    Costs about a second for 4,000 vectors and some ten for 20,000; memory grows linearly.

    Args:
        vectors: Of unit length, with the language taken out.
        count: Clusters wanted; None: chosen by how well they are apart, more of them the more vectors there are.
        seed: Of the cells.

    Source: Ward, 1963, "Hierarchical Grouping to Optimize an Objective Function"; Dhillon and Modha, 2001, "Concept
    Decompositions for Large Sparse Text Data Using Clustering" (spherical k-means).
    Differs: the number of clusters is chosen by the simplified silhouette (Hruschka et al., 2004) with cosines.
    """
    cells = _cells(vectors, seed)
    tree = _tree(_means(vectors, cells))
    number = _best_count(vectors, cells, tree, count)
    groups = _cut(tree, number)[cells]
    centroids = _unit(_means(vectors, groups))
    for _ in range(REFINEMENTS):
        groups = _nearest(vectors, centroids)[0]
        centroids = _unit(_means(vectors, groups, like=centroids))
    labels, similarities = _nearest(vectors, centroids)
    thresholds = _outlier_thresholds(labels, similarities, len(centroids))
    labels = np.where(similarities >= thresholds[labels], labels, OUTLIER)
    order, labels = _largest_first(labels, len(centroids), least=least_members(len(vectors)))
    return Clustering(centroids[order], labels, thresholds[order], _levels(centroids[order]))


def least_members(vectors: int) -> int:
    """Members that a cluster needs among so many vectors; those of a smaller one are outliers."""
    return max(2, min(5, vectors // 20), vectors // 4_000)


def usual_count(vectors: int) -> int:
    """How many topics people can use in so many chunks: 3 in 20, 8 in 100, 13 in 300, 40 in 5,000, 75 in 20,000."""
    return max(2, round(1.2 * math.pow(vectors, 0.42)))


def _cells(vectors: Vectors, seed: int) -> Labels:
    """The leaf of the tree (N,) that each vector belongs to, numbered without gaps."""
    if len(vectors) <= EXACT_VECTORS:
        return np.arange(len(vectors))
    from sklearn.cluster import MiniBatchKMeans

    cells = MiniBatchKMeans(
        CELLS, init="random", n_init=1, batch_size=_BATCH, max_iter=15, random_state=seed, reassignment_ratio=0.0
    ).fit_predict(vectors)
    return np.unique(cells, return_inverse=True)[1]


def _tree(points: Vectors) -> Floats:
    from scipy.cluster.hierarchy import linkage

    return np.asarray(linkage(points.astype(np.float64), "ward"))


def _cut(tree: Floats, number: int) -> Labels:
    """The cluster of each leaf when the tree is cut into `number` clusters or, where merges tie, fewer."""
    from scipy.cluster.hierarchy import fcluster

    return np.unique(fcluster(tree, number, "maxclust"), return_inverse=True)[1].astype(np.int64)


def _best_count(vectors: Vectors, cells: Labels, tree: Floats, count: int | None) -> int:
    leaves: int = len(tree) + 1
    if count is not None:
        return min(count, leaves)
    usual = usual_count(len(vectors))
    candidates = sorted({min(leaves, max(2, int(usual * factor))) for factor in np.linspace(0.5, 1.5, _CANDIDATES)})
    rows = np.arange(len(vectors))[: 2 * EXACT_VECTORS]
    scores = [_silhouette(vectors[rows], _cut(tree, number)[cells[rows]]) for number in candidates]
    return candidates[int(np.argmax(scores))]


def _silhouette(vectors: Vectors, labels: Labels) -> float:
    """Mean of (distance to the next cluster - to the own) / the larger of the two, in [-1, 1], with 1 - cosine."""
    _, labels = np.unique(labels, return_inverse=True)
    if labels.max() == 0:
        return -1.0
    distances = 1.0 - vectors @ _unit(_means(vectors, labels)).T
    rows = np.arange(len(vectors))
    own = distances[rows, labels].copy()
    distances[rows, labels] = np.inf
    other = distances.min(axis=1)
    return float(np.mean((other - own) / np.maximum(np.maximum(own, other), 1e-9)))


def _means(vectors: Vectors, labels: Labels, *, like: Vectors | None = None) -> Vectors:
    """Mean of each cluster (K, D); with `like` (K, D), a cluster without members keeps its row of it."""
    from scipy.sparse import csr_matrix

    number = len(like) if like is not None else int(labels.max()) + 1
    ones = np.ones(len(labels), np.float32)
    sums = csr_matrix((ones, (labels, np.arange(len(labels)))), shape=(number, len(labels))) @ vectors
    counts = np.bincount(labels, minlength=number)[:, None]
    means = sums / np.maximum(counts, 1)
    return np.asarray(means if like is None else np.where(counts > 0, means, like), np.float32)


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)


def _nearest(vectors: Vectors, centroids: Vectors) -> tuple[Labels, Vectors]:
    """The nearest centroid of each vector, and the cosine to it."""
    labels = np.empty(len(vectors), np.int64)
    best = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _BATCH):
        part = slice(start, start + _BATCH)
        similarities = vectors[part] @ centroids.T
        labels[part], best[part] = similarities.argmax(axis=1), similarities.max(axis=1)
    return labels, best


def _outlier_thresholds(labels: Labels, similarities: Vectors, number: int) -> Vectors:
    """Median of each cluster minus some median absolute deviations, which outliers themselves hardly move.

    A cluster that is tighter than most is judged by their deviation: its own would make outliers of its rim.
    """
    middles = np.full(number, 1.0, np.float32)
    spreads = np.zeros(number, np.float32)
    for c in np.unique(labels):
        own = similarities[labels == c]
        middles[c] = np.median(own)
        spreads[c] = 1.4826 * np.median(np.abs(own - middles[c]))
    usual = float(np.median(spreads[np.unique(labels)]))
    return np.asarray(middles - OUTLIER_DEVIATIONS * np.maximum(np.maximum(spreads, usual), 1e-3), np.float32)


def _largest_first(labels: Labels, number: int, *, least: int) -> tuple[Labels, Labels]:
    """The clusters to keep, largest first, ties by number; and the labels renumbered, those of the others OUTLIER."""
    sizes = np.bincount(labels[labels >= 0], minlength=number)
    order = np.array([c for c in np.lexsort((np.arange(number), -sizes)) if sizes[c] >= least], np.int64)
    renumbered = np.full(number + 1, OUTLIER, np.int64)  # the last entry is where OUTLIER = -1 points
    renumbered[order] = np.arange(len(order))
    return order, renumbered[labels]


def _levels(centroids: Vectors) -> tuple[Labels, ...]:
    """Groups of clusters, and groups of those, until few enough stand side by side; nested, as cuts of one tree."""
    return tuple(_iter_levels(centroids))


def _iter_levels(centroids: Vectors) -> Iterator[Labels]:
    number = len(centroids)
    if number <= MOST_ROOTS:
        return
    tree = _tree(centroids)
    while number > MOST_ROOTS:
        number = max(2, round(number / TOPICS_PER_PARENT))
        yield _cut(tree, number)
