"""Fair hybrid ranking: words decide the order within a language, never how much room a language gets.

Rank fusion of a dense and a lexical list lifts documents in the query's own language, since only they share its words:
on a corpus in ten languages it undoes the language balance (mean average precision 0.44 dense, 0.31 fused; see
results/balance.md). So the sequence of languages is the dense ranking's, and each language's places are filled in the
order of the fused ranking.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence

from search.records import ScoredPoint

RRF_K = 60
SAME_LANGUAGE_WEIGHT = 1.0
OTHER_LANGUAGE_WEIGHT = 0.1
"""Weights of a lexical rank against 1 for a dense one: shared words tell much within a language and little across
languages, where they are names and numbers at best; measured in results/balance.md."""


def fuse_ranks(
    dense: Sequence[ScoredPoint], lexical: Sequence[ScoredPoint], query_languages: Mapping[str, float]
) -> list[ScoredPoint]:
    """Weighted reciprocal rank fusion; score = 1 / (60 + dense rank) + weight / (60 + lexical rank), ranks from 1.

    The weight goes from 0.1 to 1 with the probability that the query is in the document's language.
    Worked: dense [a, b], lexical [b], all in the query's language: b = 1/62 + 1/61 = 0.03252, a = 1/61 = 0.01639.

    Args:
        dense: Hits by meaning, best first.
        lexical: Hits by words, best first.
        query_languages: Probability of each language that the query may be in.

    Returns:
        The union of the lists by descending fused score, ties by ascending chunk id.

    Source: Cormack, Clarke and Buettcher, 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods". Differs: weights by language; and it is computed here, not in the store, because a store's order
    of equal scores changes between calls and with it the ranks.
    """
    scores: dict[str, float] = defaultdict(float)
    points: dict[str, ScoredPoint] = {}
    for rank, point in enumerate(dense, start=1):
        points[point.chunk.id] = point
        scores[point.chunk.id] += 1.0 / (RRF_K + rank)
    for rank, point in enumerate(lexical, start=1):
        points[point.chunk.id] = point
        same = query_languages.get(point.chunk.lang, 0.0)
        weight = OTHER_LANGUAGE_WEIGHT + (SAME_LANGUAGE_WEIGHT - OTHER_LANGUAGE_WEIGHT) * same
        scores[point.chunk.id] += weight / (RRF_K + rank)
    order = sorted(scores, key=lambda chunk_id: (-scores[chunk_id], chunk_id))
    return [ScoredPoint(points[chunk_id].chunk, scores[chunk_id]) for chunk_id in order]


def keep_language_places(dense: Sequence[ScoredPoint], fused: Sequence[ScoredPoint]) -> list[ScoredPoint]:
    """Order `fused` so that the languages follow one another as in `dense`.

    A language that `dense` does not hold keeps its rank in `fused`: an exact match in a language that the meaning did
    not find stays where the words put it. What is left over when `dense` ends follows in fused order.

    Worked: dense [de1, fr1, de2], fused [de2, de1, fr1] gives [de2, fr1, de1].

    Args:
        dense: Hits by meaning, best first.
        fused: Hits by meaning and words, best first; holds every hit of `dense` when it was made of at least as many.

    Returns:
        The points of `fused`, each once; a score is 1 / (60 + rank), since fused scores do not follow this order.
    """
    waiting: dict[str, deque[ScoredPoint]] = defaultdict(deque)
    for point in fused:
        waiting[point.chunk.lang].append(point)
    places: list[tuple[float, str]] = [(float(rank), point.chunk.lang) for rank, point in enumerate(dense)]
    found = {lang for _, lang in places}
    places += [(rank - 0.5, point.chunk.lang) for rank, point in enumerate(fused) if point.chunk.lang not in found]
    ordered = [waiting[lang].popleft() for _, lang in sorted(places) if waiting[lang]]
    taken = {point.chunk.id for point in ordered}
    ordered += [point for point in fused if point.chunk.id not in taken]
    return [ScoredPoint(point.chunk, 1.0 / (RRF_K + rank)) for rank, point in enumerate(ordered, start=1)]
