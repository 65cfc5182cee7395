"""Settings of a search side by side, and each pair of languages by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search.balance import DEFAULT_BALANCE
from search.engine import Engine
from search.errors import EvaluationError
from search.evaluation.metrics import average_precision, ndcg_at_k, own_language_share, recall_at_k, reciprocal_rank
from search.evaluation.questions import Question
from search.evaluation.significance import Difference, paired_bootstrap
from search.records import Filter, Match
from search.rerank import LATE, NONE
from search.results import Mode

DEPTH = 50
METRICS = ("recall@10", "ndcg@10", "mrr@10", "map@50", "own@10")
"""Of a query; own@10 is the share of the first ten hits that are in its language, which is neither good nor bad."""
JUDGED_BY = "ndcg@10"
BASELINE = "default"

SETTINGS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "dense": {"mode": Mode.DENSE},
    "lexical": {"mode": Mode.LEXICAL},
    "balance 0": {"balance": 0.0},
    "balance 1": {"balance": 1.0},
    "reranked": {"rerank": LATE},
    "not reranked": {"rerank": NONE},
}
"""Arguments of `Engine.search` by name. One that comes to the same as the default is left out."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One query under one setting: its metrics, and whether each relevant document is in the first ten."""

    question: Question
    lang: str
    metrics: Mapping[str, float]
    found: Mapping[str, bool]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class SettingRow:
    """Means over all queries of one setting, and its difference in nDCG@10 to the default (None: it is the default)."""

    name: str
    queries: int
    means: Mapping[str, float]
    median_ms: float
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class PairRow:
    """Share of the relevant documents in `document_lang` that queries in `query_lang` find among the first ten."""

    query_lang: str
    document_lang: str
    judgements: int
    recall: float


def choose_settings(names: Sequence[str] = (), *, reranker: str = NONE) -> dict[str, dict[str, Any]]:
    """The settings of these names, the default first; none: all that differ from it.

    `reranker` is the one that the index uses by default.

    Raises:
        EvaluationError: There is no setting of that name.
    """
    if unknown := [name for name in names if name not in SETTINGS]:
        raise EvaluationError(f"unknown setting {unknown[0]!r}; choose from {', '.join(SETTINGS)}")
    same = ({"balance": DEFAULT_BALANCE}, {"rerank": reranker})
    usual = [name for name, arguments in SETTINGS.items() if arguments not in same]
    return {name: SETTINGS[name] for name in dict.fromkeys((BASELINE, *(names or usual)))}


def judge(
    engine: Engine,
    questions: Sequence[Question],
    settings: Mapping[str, Mapping[str, Any]],
    progress: Callable[[str, int], None] = lambda name, done: None,
) -> dict[str, list[Judged]]:
    """Ask every question under every setting; translations are not folded, so that each document counts.

    The question's own language is used only to group the results: the engine detects it, as for anybody.
    """
    results: dict[str, list[Judged]] = {}
    for name, arguments in settings.items():
        judged: list[Judged] = []
        for question in questions:
            judged.append(_judge_one(engine, question, arguments))
            progress(name, len(judged))
        results[name] = judged
    return results


def compare(results: Mapping[str, Sequence[Judged]]) -> list[SettingRow]:
    """Means of each setting, and whether its nDCG@10 differs from the default's.

    The difference is a paired bootstrap over the queries, within each query language and then averaged over languages,
    so that one of many queries does not outweigh the others; the means are over all queries.
    """
    rows = []
    for name, judged in results.items():
        means = {metric: _mean([one.metrics[metric] for one in judged]) for metric in METRICS}
        times = sorted(one.milliseconds for one in judged)
        difference = None
        if name != BASELINE:
            base = [one.metrics[JUDGED_BY] for one in results[BASELINE]]
            own = [one.metrics[JUDGED_BY] for one in judged]
            difference = paired_bootstrap(base, own, strata=[one.lang for one in judged])
        rows.append(SettingRow(name, len(judged), means, times[len(times) // 2], difference))
    return rows


def by_language_pair(judged: Sequence[Judged], languages: Mapping[str, str]) -> list[PairRow]:
    """Recall@10 for every pair of query language and document language, by name.

    Args:
        judged: The queries of one setting.
        languages: Language of each relevant document.
    """
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in judged:
        for document, is_found in one.found.items():
            if document in languages:
                found[one.lang, languages[document]].append(float(is_found))
    return [PairRow(*pair, len(values), _mean(values)) for pair, values in sorted(found.items())]


def document_languages(engine: Engine, questions: Sequence[Question]) -> dict[str, str]:
    """The language of every relevant document: that of most of its passages."""
    wanted = sorted({document for question in questions for document in question.relevant})
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for start in range(0, len(wanted), 500):
        among = Filter((Match("document_id", tuple(wanted[start : start + 500])),))
        for row in engine.index().store.iter_fields(("document_id", "lang"), filter=among):
            counts[row["document_id"]][row["lang"]] += 1
    return {document: min(langs, key=lambda lang: (-langs[lang], lang)) for document, langs in counts.items()}


def _judge_one(engine: Engine, question: Question, arguments: Mapping[str, Any]) -> Judged:
    result = engine.search(question.text, k=DEPTH, fold=False, **arguments)
    ranked = [hit.document_id for hit in result.hits]
    lang = question.lang or result.detection.lang
    metrics = {
        "recall@10": recall_at_k(ranked, question.relevant, 10),
        "ndcg@10": ndcg_at_k(ranked, question.relevant, 10),
        "mrr@10": reciprocal_rank(ranked[:10], question.relevant),
        "map@50": average_precision(ranked, question.relevant),
        "own@10": own_language_share([hit.chunk.lang for hit in result.hits], lang),
    }
    first = set(ranked[:10])
    found = {document: document in first for document in question.relevant}
    return Judged(question, lang, metrics, found, result.timings_ms["total"])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
