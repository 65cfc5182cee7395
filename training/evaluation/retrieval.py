"""Retrieval over documents of many languages: what is found, in which languages, and what the language costs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from search.evaluation.metrics import (
    average_precision,
    ndcg_at_k,
    own_language_share,
    recall_at_k,
    reciprocal_rank,
)
from search.records import Vectors
from search.text import dominant_script
from training.evaluation.sets import RetrievalSet

Rows: TypeAlias = npt.NDArray[np.int64]

DEPTH = 100
POOL_DEPTH = 10
SCORES_PER_BLOCK = 16_000_000
METRICS = (
    "ndcg@10", "map@100", "recall@20", "mrr", "own@10", "own_expected", "same_ndcg@10", "cross_ndcg@10",
)  # fmt: skip
"""For each query, over the pool of all languages, cut off at rank 100 where no other cut-off is named:

own@10         share of the first 10 in the query's own language
own_expected   share of the relevant documents in it: what own@10 would be without a preference
same_ndcg@10   nDCG@10 among the documents of the query's own language only
cross_ndcg@10  mean over every other language of nDCG@10 among the documents of that language only
"""


@dataclass(frozen=True, slots=True)
class RetrievalScores:
    """Metrics of every query, NaN where nothing could be relevant, and nDCG@10 from language to language.

    `matrix` (query languages, document languages) is the mean over queries of one language, each ranked against the
    documents of one language; NaN where no query has a relevant document there.
    """

    ids: tuple[str, ...]
    langs: tuple[str, ...]
    scripts: tuple[str, ...]
    values: Mapping[str, npt.NDArray[np.float64]]
    query_langs: tuple[str, ...]
    document_langs: tuple[str, ...]
    matrix: npt.NDArray[np.float64]


def search_exact(queries: Vectors, documents: Vectors, *, k: int) -> Rows:
    """The best `k` documents of each query by dot product, exactly.

    Costs Q x N x D multiplications and 64 MB besides the vectors.

    Args:
        queries: (Q, D).
        documents: (N, D), by ascending id, so that ties break by id.
        k: How many; all when there are fewer.

    Returns:
        Rows of `documents` (Q, min(k, N)), best first.
    """
    k = min(k, len(documents))
    found = np.empty((len(queries), k), np.int64)
    block = max(1, SCORES_PER_BLOCK // len(documents))
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ documents.T
        found[start : start + block] = top_rows(scores, k)
    return found


def top_rows(scores: Vectors, k: int) -> Rows:
    """Columns of the `k` highest of each row of `scores` (Q, N), best first; ties break by column."""
    count = scores.shape[1]
    k = min(k, count)
    if k == count:
        return np.argsort(-scores, axis=1, kind="stable")
    least = np.partition(scores, count - k, axis=1)[:, count - k]
    found = np.empty((len(scores), k), np.int64)
    for row, (values, bound) in enumerate(zip(scores, least, strict=True)):
        candidates = np.flatnonzero(values >= bound)
        found[row] = candidates[np.argsort(-values[candidates], kind="stable")[:k]]
    return found


def score_retrieval(evaluated: RetrievalSet, queries: Vectors, documents: Vectors) -> RetrievalScores:
    """Judge every query of a set, in the pool of all languages and in that of each.

    Args:
        evaluated: The set; both parts are by ascending id.
        queries: Vectors (Q, D) of its queries.
        documents: Vectors (N, D) of its documents.
    """
    pooled = search_exact(queries, documents, k=DEPTH)
    by_pool = _score_pools(evaluated, queries, documents)
    langs = [document.lang for document in evaluated.documents]
    values = {name: np.full(len(evaluated.queries), np.nan) for name in METRICS}
    for i, query in enumerate(evaluated.queries):
        judged = evaluated.qrels[query.id]
        ranked = [evaluated.documents[row].id for row in pooled[i]]
        values["ndcg@10"][i] = ndcg_at_k(ranked, judged, 10)
        values["map@100"][i] = average_precision(ranked, judged)
        values["recall@20"][i] = recall_at_k(ranked, judged, 20)
        values["mrr"][i] = reciprocal_rank(ranked, judged)
        values["own@10"][i] = own_language_share([langs[row] for row in pooled[i]], query.lang)
        values["same_ndcg@10"][i] = by_pool[i].get(query.lang, math.nan)
        values["cross_ndcg@10"][i] = _mean(score for lang, score in by_pool[i].items() if lang != query.lang)
    values["own_expected"] = _expected_shares(evaluated)
    query_langs, document_langs = sorted({query.lang for query in evaluated.queries}), sorted(set(langs))
    return RetrievalScores(
        ids=tuple(query.id for query in evaluated.queries),
        langs=tuple(query.lang for query in evaluated.queries),
        scripts=tuple(dominant_script(query.text) for query in evaluated.queries),
        values=values,
        query_langs=tuple(query_langs),
        document_langs=tuple(document_langs),
        matrix=_matrix(evaluated, by_pool, query_langs, document_langs),
    )


def _score_pools(evaluated: RetrievalSet, queries: Vectors, documents: Vectors) -> list[dict[str, float]]:
    """nDCG@10 of each query by document language, for the languages in which something is relevant to it."""
    columns: dict[str, list[int]] = defaultdict(list)
    for column, document in enumerate(evaluated.documents):
        columns[document.lang].append(column)
    lang_of = {document.id: document.lang for document in evaluated.documents}
    relevant = [_by_language(evaluated.qrels[query.id], lang_of) for query in evaluated.queries]
    scores: list[dict[str, float]] = [{} for _ in evaluated.queries]
    for lang, pool in sorted(columns.items()):
        asked = [i for i, judged in enumerate(relevant) if lang in judged]
        if not asked:
            continue
        found = search_exact(queries[asked], documents[pool], k=POOL_DEPTH)
        for i, rows in zip(asked, found, strict=True):
            ranked = [evaluated.documents[pool[row]].id for row in rows]
            scores[i][lang] = ndcg_at_k(ranked, relevant[i][lang], POOL_DEPTH)
    return scores


def _by_language(judged: Mapping[str, float], lang_of: Mapping[str, str]) -> dict[str, dict[str, float]]:
    grouped: dict[str, dict[str, float]] = defaultdict(dict)
    for document, grade in judged.items():
        grouped[lang_of[document]][document] = grade
    return dict(grouped)


def _expected_shares(evaluated: RetrievalSet) -> npt.NDArray[np.float64]:
    lang_of = {document.id: document.lang for document in evaluated.documents}
    return np.array(
        [_mean(float(lang_of[doc] == query.lang) for doc in evaluated.qrels[query.id]) for query in evaluated.queries]
    )


def _matrix(
    evaluated: RetrievalSet,
    by_pool: Sequence[Mapping[str, float]],
    query_langs: Sequence[str],
    document_langs: Sequence[str],
) -> npt.NDArray[np.float64]:
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for query, scores in zip(evaluated.queries, by_pool, strict=True):
        for lang, score in scores.items():
            cells[query.lang, lang].append(score)
    return np.array([[_mean(cells[own, other]) for other in document_langs] for own in query_langs])


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan
