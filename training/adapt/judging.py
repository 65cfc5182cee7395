"""How well an encoder answers questions: documents ranked by their best passage, balanced as the search does it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from search.balance import DEFAULT_BALANCE, OFFSETS_FILE, LanguageMap, LanguageSums, fit_language_map, load_offsets
from search.evaluation.metrics import ndcg_at_k, recall_at_k
from search.evaluation.questions import Question
from search.records import UNDETERMINED, Vectors
from training.adapt.corpus import Corpus, indexed_texts
from training.adapt.questions import Asked, Kind
from training.evaluation.retrieval import top_rows

if TYPE_CHECKING:
    from search.encoder import Encoder
    from training.evaluation.sets import RetrievalSet

DEPTH = 100
_QUERIES_PER_BLOCK = 64
_TEXTS_PER_ROUND = 256
Figures = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """What is searched in: passages (N), the passages of a document next to each other.

    Attributes:
        texts: What is indexed of each passage.
        langs: Language of each passage.
        owners: Document of each passage.
        languages: Language of each document.
    """

    texts: Sequence[str]
    langs: Sequence[str]
    owners: Sequence[str]
    languages: Mapping[str, str]


@dataclass(frozen=True)
class Trial:
    """Questions about a pool. `known` are the first encoder's vectors (N, D) of the pool, where they are at hand."""

    name: str
    pool: Pool
    asked: Sequence[Asked]
    known: Vectors | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Scores:
    """Figures of each question (Q,), and nDCG@10 (Q,) among the documents of each language alone, NaN without any."""

    ndcg: Figures
    recall: Figures
    by_language: Mapping[str, Figures]


def pool_of(corpus: Corpus) -> Pool:
    """The passages of a corpus."""
    return Pool(
        indexed_texts(corpus), [chunk.lang for chunk in corpus.chunks], [chunk.document_id for chunk in corpus.chunks],
        corpus.languages,
    )  # fmt: skip


def trial_of_set(evaluated: RetrievalSet) -> Trial:
    """A set in BEIR form as a trial; its documents are passages of their own."""
    ids = [document.id for document in evaluated.documents]
    langs = [document.lang for document in evaluated.documents]
    pool = Pool([document.text for document in evaluated.documents], langs, ids, dict(zip(ids, langs, strict=True)))
    asked = [
        Asked(Question(query.id, query.text, query.lang, evaluated.qrels[query.id]), Kind.GIVEN, query.id)
        for query in evaluated.queries
    ]
    return Trial(evaluated.name, pool, asked)


def run_trial(trial: Trial, encoder: Encoder, *, known: Vectors | None = None) -> Scores:
    """Judge an encoder.

    Args:
        trial: The questions.
        encoder: What encodes queries and passages.
        known: Its vectors of the pool's passages (N, D); None: they are encoded now.
    """
    vectors = encode_pool(trial.pool, encoder) if known is None else known.copy()
    language_map = _fit(encoder, trial.pool.langs, vectors)
    cuts = {one.cut: one.rest for one in trial.asked if one.cut >= 0}
    if cuts:
        vectors[list(cuts)] = encoder.encode_documents(list(cuts.values()))
    queries = encoder.encode_queries([one.question.text for one in trial.asked])
    return _score(
        trial, language_map.map_queries(queries, balance=DEFAULT_BALANCE), language_map.map_documents(vectors)
    )


def encode_pool(pool: Pool, encoder: Encoder, progress: Callable[[int, int], None] | None = None) -> Vectors:
    """Unit vectors (N, D) of the passages; `progress` is called with how many are encoded, and of how many."""
    parts = []
    for start in range(0, len(pool.texts), _TEXTS_PER_ROUND):
        parts.append(encoder.encode_documents(pool.texts[start : start + _TEXTS_PER_ROUND]))
        if progress:
            progress(min(start + _TEXTS_PER_ROUND, len(pool.texts)), len(pool.texts))
    return np.concatenate(parts)


def _fit(encoder: Encoder, langs: Sequence[str], vectors: Vectors) -> LanguageMap:
    """The language map that an index of these passages would have."""
    prior = load_offsets(encoder.fingerprint, encoder.folder and encoder.folder / OFFSETS_FILE)
    sums = LanguageSums(encoder.dimension)
    places = [place for place, lang in enumerate(langs) if lang != UNDETERMINED]
    sums.add([langs[place] for place in places], vectors[places])
    return fit_language_map(prior, sums) if prior or sums.counts else LanguageMap.identity(encoder.dimension)


def _score(trial: Trial, queries: Vectors, passages: Vectors) -> Scores:
    documents = [owner for owner, _ in groupby(trial.pool.owners)]
    columns: dict[str, list[int]] = defaultdict(list)
    for column, document in enumerate(documents):
        columns[trial.pool.languages[document]].append(column)
    ndcg, recall = np.zeros(len(queries)), np.zeros(len(queries))
    by_language = {lang: np.full(len(queries), np.nan) for lang in sorted(columns)}
    for row, scores in _document_scores(trial, queries, passages, documents):
        judged = trial.asked[row].question.relevant
        ranked = [documents[column] for column in top_rows(scores[None], DEPTH)[0]]
        ndcg[row], recall[row] = ndcg_at_k(ranked, judged, 10), recall_at_k(ranked, judged, 10)
        for lang in {trial.pool.languages[name] for name in judged}:
            own = {name: grade for name, grade in judged.items() if trial.pool.languages[name] == lang}
            found = top_rows(scores[None, columns[lang]], 10)[0]
            by_language[lang][row] = ndcg_at_k([documents[columns[lang][place]] for place in found], own, 10)
    return Scores(ndcg, recall, by_language)


def _document_scores(
    trial: Trial, queries: Vectors, passages: Vectors, documents: Sequence[str]
) -> Iterator[tuple[int, Vectors]]:
    """Each question's number and the score (documents,) of every document: that of its best passage."""
    starts = np.flatnonzero([place == 0 or owner != trial.pool.owners[place - 1]
                             for place, owner in enumerate(trial.pool.owners)])  # fmt: skip
    columns = {document: column for column, document in enumerate(documents)}
    for first in range(0, len(queries), _QUERIES_PER_BLOCK):
        block = queries[first : first + _QUERIES_PER_BLOCK] @ passages.T
        for row, scores in enumerate(np.maximum.reduceat(block, starts, axis=1), start=first):
            if trial.asked[row].left_out:
                scores[columns[trial.asked[row].left_out]] = -np.inf
            yield row, scores
