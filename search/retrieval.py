"""From a query's vectors to the best chunk of each document."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from search.fold import Families
from search.fusion import fuse_ranks, keep_language_places
from search.opening import OpenIndex
from search.records import Filter, ScoredPoint, SparseVector, Vectors
from search.rerank import Reranked
from search.results import Explanation

Explainer = Callable[[ScoredPoint], Explanation]

CANDIDATES = 200
"""Chunks of each list that are ranked; four times as many, and again, while a search asks for more documents."""

DOCUMENT_WEIGHT = 0.2
"""What the whole document counts against 1 for its passage; measured in results/documents.md."""


@dataclass
class Lists:
    """The longest lists that a search has ranked so far: by meaning and by words."""

    by_meaning: list[ScoredPoint] = field(default_factory=list)
    by_words: list[ScoredPoint] = field(default_factory=list)


def retrieve(
    index: OpenIndex,
    dense: Vectors | None,
    sparse: SparseVector | None,
    query_languages: Mapping[str, float],
    limit: int,
    filter: Filter | None,
    lists: Lists,
) -> list[ScoredPoint]:
    """Up to `limit` chunks, best first: by meaning, by words or, where the query has both, fused fairly.

    `lists` gets what was ranked by each.
    """
    if dense is not None:
        found = index.store.search_dense(dense, limit=limit, filter=filter)
        lists.by_meaning = weigh_documents(found, dense, index.families)
    if sparse is not None and len(sparse.indices):
        lists.by_words = index.store.search_lexical(sparse, limit=limit, filter=filter)
    elif dense is not None:
        return lists.by_meaning
    if dense is None:
        return lists.by_words
    return keep_language_places(lists.by_meaning, fuse_ranks(lists.by_meaning, lists.by_words, query_languages))[:limit]


def weigh_documents(points: Sequence[ScoredPoint], dense: Vectors, families: Families) -> list[ScoredPoint]:
    """Passages ordered by (s + w d) / (1 + w): the score of the passage and that of the mean of its document.

    A passage of a document whose mean is not known keeps its score, as does, at balance 1, one that is its whole
    document. Means have no language: of what a balance below 1 leaves of it, the passage's share stays.

    Args:
        points: Passages by their own score.
        dense: The query's vector (D,), mapped.
        families: Where the means of documents are kept.

    Returns:
        The same passages by descending score, ties by ascending chunk id.
    """
    documents = families.score_documents([point.chunk.document_id for point in points], dense)
    weighed = [
        point if math.isnan(whole)
        else replace(point, score=(point.score + DOCUMENT_WEIGHT * whole) / (1 + DOCUMENT_WEIGHT))
        for point, whole in zip(points, documents.tolist(), strict=True)
    ]  # fmt: skip
    return sorted(weighed, key=lambda point: (-point.score, point.chunk.id))


def best_per_document(
    retrieve: Callable[[int], list[ScoredPoint]],
    wanted: int,
    rejected: Callable[[list[str]], set[str]] = lambda found: set(),
    families: Families | None = None,
) -> list[ScoredPoint]:
    """The best chunk of each document, of `wanted` families or more; fetches more chunks until there are enough.

    A document without translations counts as a family.

    What a longer list finds is put after what the shorter one found, so that every page of a query goes on where the
    one before ended, although the ranks within a longer list are others.
    """
    limit = CANDIDATES
    best: dict[str, ScoredPoint] = {}
    dropped: set[str] = set()
    while True:
        points = retrieve(limit)
        known = best.keys() | dropped
        for point in points:
            best.setdefault(point.chunk.document_id, point)
        dropped |= rejected([document for document in best if document not in known])
        best = {document: point for document, point in best.items() if document not in dropped}
        family_of = families.of(best) if families else {}
        if len({family_of.get(document, document) for document in best}) >= wanted or len(points) < limit:
            return list(best.values())
        limit *= 4


def explainer(lists: Lists, reranked: Reranked) -> Explainer:
    """What tells where a point stands in each list that made the result."""

    def ranks(points: list[ScoredPoint]) -> dict[str, tuple[int, float]]:
        return {point.chunk.id: (rank, point.score) for rank, point in enumerate(points, start=1)}

    by_dense, by_words = ranks(lists.by_meaning), ranks(lists.by_words)

    def explain(point: ScoredPoint) -> Explanation:
        (dense_at, meaning), (words_at, words), (read_at, reading) = (
            ranked.get(point.chunk.id, (None, None)) for ranked in (by_dense, by_words, reranked.by_chunk)
        )
        return Explanation(dense_at, meaning, words_at, words, read_at, reading)

    return explain
