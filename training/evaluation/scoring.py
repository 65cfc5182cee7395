"""One encoder on one set."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from search.records import Vectors
from training.evaluation.alignment import mexa
from training.evaluation.bitext import match_translations, mining_f1
from training.evaluation.labels import probe_accuracy, v_measure
from training.evaluation.pairs import pair_average_precision, pair_cosines, spearman
from training.evaluation.reranking import reranking_precisions
from training.evaluation.results import Figure, Kind, LanguageMatrix, SetResult, Units
from training.evaluation.retrieval import RetrievalScores, score_retrieval
from training.evaluation.sets import BitextSet, EvaluationSet, LabelledSet, PairSet, RerankingSet, RetrievalSet, StsSet
from training.evaluation.vectors import AffineEncoder, TextEncoder

Row = TypeVar("Row")
Key = TypeVar("Key", bound=Hashable)
Groups = dict[str, dict[str, Figure]]

LEAST_TEXTS = 10
"""A language with fewer labelled texts is not clustered."""
JUDGED_SPLITS = ("", "test")
"""Texts of the other splits train the probe."""
PIVOT = "en"


def score_set(encoder: TextEncoder, evaluated: EvaluationSet) -> SetResult:
    """Encode a set and judge the vectors.

    Retrieval and reranking use both prompts; everything else is symmetric and encodes both sides as queries.

    Source: Wang et al., 2024, "Multilingual E5 Text Embeddings" (the query prompt for symmetric tasks).
    """
    match evaluated:
        case RetrievalSet():
            return _score_retrieval(encoder, evaluated)
        case BitextSet():
            return _score_bitext(encoder, evaluated)
        case StsSet():
            return _score_sts(encoder, evaluated)
        case LabelledSet():
            return _score_labelled(encoder, evaluated)
        case PairSet():
            return _score_pairs(encoder, evaluated)
        case RerankingSet():
            return _score_reranking(encoder, evaluated)


def _score_retrieval(encoder: TextEncoder, evaluated: RetrievalSet) -> SetResult:
    texts = [document.text for document in evaluated.documents]
    if isinstance(encoder, AffineEncoder):
        encoder = encoder.for_documents(texts, [document.lang for document in evaluated.documents])
    queries = encoder.encode_queries([query.text for query in evaluated.queries])
    documents = encoder.encode_documents(texts)
    scores = score_retrieval(evaluated, queries, documents)
    notes = (f"{evaluated.unjudged} queries without a relevant document left out",) if evaluated.unjudged else ()
    return SetResult(
        name=evaluated.name,
        kind=Kind.RETRIEVAL,
        figures={name: _mean(values) for name, values in scores.values.items()},
        groups={"language": _means_by(scores, scores.langs), "script": _means_by(scores, scores.scripts)},
        units=Units(
            noun="queries",
            ids=scores.ids,
            strata=scores.langs,
            values={name: tuple(map(float, values)) for name, values in scores.values.items()},
        ),
        matrix=LanguageMatrix(
            query_langs=scores.query_langs,
            document_langs=scores.document_langs,
            values=tuple(tuple(map(float, row)) for row in scores.matrix),
        ),
        notes=notes,
    )


def _means_by(scores: RetrievalScores, keys: Sequence[str]) -> Groups:
    rows_of = _places(keys, lambda key: key)
    return {
        key: {name: _mean(values[rows]) for name, values in scores.values.items()} | {"queries": len(rows)}
        for key, rows in sorted(rows_of.items())
    }


def _score_bitext(encoder: TextEncoder, evaluated: BitextSet) -> SetResult:
    rows_of = _places(evaluated.rows, lambda row: row.pair)
    vectors = encoder.encode_queries([text for row in evaluated.rows for text in row.texts])
    names = ("f1", "accuracy", "accuracy_back")
    values = {name: np.full(len(evaluated.rows), np.nan) for name in names}
    groups: Groups = {}
    for pair, rows in rows_of.items():
        places = np.array(rows)
        first, second = vectors[2 * places], vectors[2 * places + 1]
        matching = match_translations(first, second)
        for name, found in zip(names, (matching.f1, matching.forward, matching.back), strict=True):
            values[name][places] = found
        groups[pair] = {name: _mean(values[name][places]) for name in names} | {
            "accuracy_mean": float((matching.forward + matching.back).mean() / 2),
            "mining_f1": mining_f1(first, second),
            "mexa": mexa(first, second),
            "pairs": len(rows),
        }
    return SetResult(
        name=evaluated.name,
        kind=Kind.BITEXT,
        figures=_group_means(groups, leave_out=("pairs",)),
        groups={"pair": groups},
        units=Units(
            noun="sentence pairs",
            ids=tuple(f"{row.pair} {place}" for place, row in enumerate(evaluated.rows)),
            strata=tuple(row.pair for row in evaluated.rows),
            averaged=True,
            values={name: tuple(map(float, found)) for name, found in values.items()},
        ),
    )


def _score_sts(encoder: TextEncoder, evaluated: StsSet) -> SetResult:
    cosines = pair_cosines(*_encode_sides(encoder, [(row.text_a, row.text_b) for row in evaluated.rows]))
    grades = np.array([row.score for row in evaluated.rows])
    groups: Groups = {}
    crossing = {row.group: row.langs[0] != row.langs[1] for row in evaluated.rows}
    for group, rows in _places(evaluated.rows, lambda row: row.group).items():
        groups[group] = {"spearman": spearman(cosines[rows], grades[rows]), "pairs": len(rows)}
    figures: dict[str, Figure] = {"spearman": _mean(row["spearman"] for row in groups.values())}
    for name, wanted in (("spearman_same", False), ("spearman_cross", True)):
        figures[name] = _mean(row["spearman"] for group, row in groups.items() if crossing[group] is wanted)
    return _grouped(evaluated.name, Kind.STS, figures, "group", groups, ("spearman",))


def _score_pairs(encoder: TextEncoder, evaluated: PairSet) -> SetResult:
    cosines = pair_cosines(*_encode_sides(encoder, [(row.text_a, row.text_b) for row in evaluated.rows]))
    entailed = np.array([row.entailed for row in evaluated.rows])
    groups: Groups = {}
    for group, rows in _places(evaluated.rows, lambda row: row.group).items():
        precision = pair_average_precision(cosines[rows], entailed[rows])
        groups[group] = {"ap": precision, "chance": float(entailed[rows].mean()), "pairs": len(rows)}
    figures = _group_means(groups, leave_out=("pairs",))
    return _grouped(evaluated.name, Kind.PAIRS, figures, "group", groups, ("ap",))


def _score_reranking(encoder: TextEncoder, evaluated: RerankingSet) -> SetResult:
    queries = encoder.encode_queries([row.query for row in evaluated.rows])
    documents = encoder.encode_documents([text for row in evaluated.rows for text in (*row.positives, *row.negatives)])
    ends = np.cumsum([len(part) for row in evaluated.rows for part in (row.positives, row.negatives)])
    parts = np.split(documents, ends[:-1])
    precisions = reranking_precisions(queries, parts[0::2], parts[1::2])
    langs = tuple(row.lang for row in evaluated.rows)
    groups: Groups = {
        lang: {"map": _mean(precisions[rows]), "queries": len(rows)}
        for lang, rows in sorted(_places(langs, lambda lang: lang).items())
    }
    return SetResult(
        name=evaluated.name,
        kind=Kind.RERANKING,
        figures={"map": _mean(precisions)},
        groups={"language": groups},
        units=Units(
            noun="queries",
            ids=tuple(f"{row.query} {place}" for place, row in enumerate(evaluated.rows)),
            strata=langs,
            values={"map": tuple(map(float, precisions))},
        ),
    )


def _score_labelled(encoder: TextEncoder, evaluated: LabelledSet) -> SetResult:
    vectors = encoder.encode_queries([row.text for row in evaluated.rows])
    judged = _places(evaluated.rows, lambda row: (row.lang, row.split in JUDGED_SPLITS))
    tests = {lang: rows for (lang, is_test), rows in judged.items() if is_test}
    trains = {lang: rows for (lang, is_test), rows in judged.items() if not is_test}
    labels = [row.label for row in evaluated.rows]
    groups: Groups = {}
    for lang, rows in sorted(tests.items()):
        names = [labels[row] for row in rows]
        if len(rows) < LEAST_TEXTS or len(set(names)) < 2:
            continue
        groups[lang] = {
            "v_measure": v_measure(vectors[rows], names),
            "probe": _probe(vectors, labels, trains.get(lang), rows),
            "probe_en": _probe(vectors, labels, trains.get(PIVOT), rows),
            "texts": len(rows),
        }
    left_out = sorted(set(tests) - set(groups))
    note = f"too few texts or labels, left out: {', '.join(left_out)}"
    figures = _group_means(groups, leave_out=("texts",))
    metrics = ("v_measure", "probe", "probe_en")
    return _grouped(
        evaluated.name, Kind.LABELLED, figures, "language", groups, metrics, notes=(note,) if left_out else ()
    )


def _probe(vectors: Vectors, labels: Sequence[str], train: Sequence[int] | None, test: Sequence[int]) -> float:
    if not train or len({labels[row] for row in train}) < 2:
        return math.nan
    known, asked = [labels[row] for row in train], [labels[row] for row in test]
    return probe_accuracy(vectors[train], known, vectors[test], asked)


def _encode_sides(encoder: TextEncoder, pairs: Sequence[tuple[str, str]]) -> tuple[Vectors, Vectors]:
    vectors = encoder.encode_queries([text for pair in pairs for text in pair])
    return vectors[0::2], vectors[1::2]


def _grouped(
    name: str,
    kind: Kind,
    figures: Mapping[str, Figure],
    by: str,
    groups: Groups,
    metrics: Sequence[str],
    notes: tuple[str, ...] = (),
) -> SetResult:
    """A result whose figures are means over groups, which are then what a paired test draws from."""
    values = {metric: tuple(row[metric] for row in groups.values()) for metric in metrics}
    units = Units(noun=f"{by}s", ids=tuple(groups), strata=("",) * len(groups), values=values)
    return SetResult(name=name, kind=kind, figures=dict(figures), groups={by: groups}, units=units, notes=notes)


def _group_means(groups: Groups, leave_out: Sequence[str]) -> dict[str, Figure]:
    metrics = [name for name in next(iter(groups.values()), {}) if name not in leave_out]
    return {name: _mean(row[name] for row in groups.values()) for name in metrics}


def _places(rows: Sequence[Row], key: Callable[[Row], Key]) -> dict[Key, list[int]]:
    places: dict[Key, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[key(row)].append(place)
    return dict(places)


def _mean(values: Iterable[Figure]) -> Figure:
    """Mean of the defined values; none without any."""
    defined = [float(value) for value in values if value is not None and not math.isnan(value)]
    return sum(defined) / len(defined) if defined else None
