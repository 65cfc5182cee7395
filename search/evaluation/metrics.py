"""Retrieval metrics, implemented once: every benchmark, report and test uses these.

All take `ranked`, document ids from best to worst without repeats, and judge one query. Averages are the caller's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import log2


def ndcg_at_k(ranked: Sequence[str], relevance: Mapping[str, float], k: int) -> float:
    """Normalised discounted cumulative gain of the first `k`, in [0, 1]; 0 when nothing is relevant.

    Worked: relevance {a: 1, b: 1}, ranked [x, a, b], k=3: (1/log2 3 + 1/log2 4) / (1 + 1/log2 3) = 0.6934.

    Source: Järvelin and Kekäläinen, 2002, "Cumulated gain-based evaluation of IR techniques" (linear gain).
    """
    gain = sum(relevance.get(doc, 0.0) / log2(rank + 2) for rank, doc in enumerate(ranked[:k]))
    best = sorted(relevance.values(), reverse=True)[:k]
    ideal = sum(value / log2(rank + 2) for rank, value in enumerate(best))
    return gain / ideal if ideal > 0 else 0.0


def recall_at_k(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """Share of the relevant documents found in the first `k`; 0 when nothing is relevant.

    Worked: relevant {a, b}, ranked [a, x, b], k=2: 1/2.
    """
    return len(set(ranked[:k]) & set(relevant)) / len(set(relevant)) if relevant else 0.0


def average_precision(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """Mean of the precisions at each relevant document; one not ranked counts 0. Its mean over queries is mAP.

    Worked: relevant {a, b}, ranked [a, x, b]: (1/1 + 2/3) / 2 = 0.8333.
    """
    wanted, found, total = set(relevant), 0, 0.0
    for rank, doc in enumerate(ranked, start=1):
        if doc in wanted:
            found += 1
            total += found / rank
    return total / len(wanted) if wanted else 0.0


def reciprocal_rank(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """1 / rank of the first relevant document; 0 when none is ranked. Its mean over queries is MRR.

    Worked: relevant {b}, ranked [a, b]: 1/2.
    """
    wanted = set(relevant)
    return next((1.0 / rank for rank, doc in enumerate(ranked, start=1) if doc in wanted), 0.0)


def own_language_share(ranked_langs: Sequence[str], query_lang: str, k: int = 10) -> float:
    """Language preference: share of the first `k` hits that are in the query's own language.

    An unbiased ranking holds about the share that the language has among the relevant documents.
    Worked: [de, en, de, fr], query de, k=4: 0.5.
    """
    top = ranked_langs[:k]
    return sum(lang == query_lang for lang in top) / len(top) if top else 0.0
