"""Encoders on evaluation sets, and two such evaluations against each other."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from search.errors import EvaluationError
from search.evaluation.significance import RESAMPLES, Difference, paired_bootstrap
from search.settings import version
from training.evaluation.results import Evaluation, Kind, SetResult
from training.evaluation.scoring import score_set
from training.evaluation.sets import EvaluationSet, limit_set
from training.evaluation.vectors import CachedEncoder, Progress, TextEncoder

logger = logging.getLogger(__name__)

COMPARED = frozenset(
    ("ndcg@10", "map@100", "recall@20", "own@10", "same_ndcg@10", "cross_ndcg@10", "f1", "accuracy", "spearman",
     "v_measure", "probe_en", "ap", "map")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """A figure of two encoders. `difference` is none with a single unit: nothing can be said about chance."""

    set_name: str
    metric: str
    first: float
    second: float
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two encoders on the sets of both: every compared metric of each, and each kind's main metric over its sets."""

    first: str
    second: str
    metrics: tuple[MetricDifference, ...]
    overall: tuple[tuple[Kind, Difference], ...]

    def of(self, set_name: str, metric: str) -> MetricDifference | None:
        """The difference in one figure, where there is one."""
        return next((row for row in self.metrics if (row.set_name, row.metric) == (set_name, metric)), None)


def evaluate(
    encoder: TextEncoder,
    sets: Iterable[EvaluationSet],
    *,
    limit: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge an encoder on every set; each distinct text is encoded once for a prompt and set.

    Args:
        encoder: Anything with the verbs of `search.encoder.Encoder`.
        sets: From `load_set`; an iterator that loads them one by one saves memory.
        limit: Cuts the sets down as `limit_set` says; none: as they are.
        cache: Folder that keeps the vectors for the next run; none: nowhere.
        progress: Called while texts are encoded.
    """
    cached = CachedEncoder(encoder, cache, progress)
    return evaluate_variants([cached], sets, limit=limit)[0]


def evaluate_variants(
    encoders: Sequence[TextEncoder], sets: Iterable[EvaluationSet], *, limit: int | None = None
) -> list[Evaluation]:
    """Judge several encoders set by set, so that those which share a `CachedEncoder` share its vectors."""
    results: list[list[SetResult]] = [[] for _ in encoders]
    for evaluated in sets:
        part = evaluated if limit is None else limit_set(evaluated, limit)
        for encoder, found in zip(encoders, results, strict=True):
            found.append(score_set(encoder, part))
            logger.info("%s on %s: %s", encoder.name, part.name, found[-1].figures)
    return [
        Evaluation(
            encoder=encoder.name,
            fingerprint=encoder.fingerprint,
            version=version(),
            limit=limit,
            results=tuple(found),
        )
        for encoder, found in zip(encoders, results, strict=True)
    ]


def compare(first: Evaluation, second: Evaluation, *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """Paired tests of `second` against the baseline `first`, on the sets of both.

    Raises:
        EvaluationError: They share no set, or a set was cut down differently.
    """
    shared = [(result, second.result(result.name)) for result in first.results if _has(second, result.name)]
    if not shared:
        raise EvaluationError(f"{first.encoder} and {second.encoder} were evaluated on different sets; evaluate again")
    rows = []
    by_kind: dict[Kind, list[tuple[SetResult, SetResult]]] = defaultdict(list)
    for old, new in shared:
        if old.units.ids != new.units.ids:
            raise EvaluationError(
                f"{old.name}: {first.encoder} and {second.encoder} were judged on different {old.units.noun}. "
                "Evaluate both on the same files with the same --limit."
            )
        by_kind[old.kind].append((old, new))
        rows += [row for metric in old.units.values if (row := _compare_metric(old, new, metric, resamples, seed))]
    overall = tuple((kind, _compare_kind(pairs, resamples, seed)) for kind, pairs in by_kind.items() if len(pairs) > 1)
    return Comparison(first.encoder, second.encoder, tuple(rows), overall)


def _has(evaluation: Evaluation, name: str) -> bool:
    return any(result.name == name for result in evaluation.results)


def _compare_metric(old: SetResult, new: SetResult, metric: str, resamples: int, seed: int) -> MetricDifference | None:
    before, after = old.figures.get(metric), new.figures.get(metric)
    if metric not in COMPARED or before is None or after is None:
        return None
    a, b = _values(old, metric), _values(new, metric)
    if len(a) < 2:
        return MetricDifference(old.name, metric, before, after, None)
    strata = old.units.strata if old.units.averaged else None
    difference = paired_bootstrap(a, b, strata=strata, resamples=resamples, seed=seed)
    return MetricDifference(old.name, metric, before, after, difference)


def _compare_kind(pairs: Sequence[tuple[SetResult, SetResult]], resamples: int, seed: int) -> Difference:
    """The main metric with every set counting once."""
    first: list[float] = []
    second: list[float] = []
    strata: list[str] = []
    weights: dict[str, float] = {}
    for old, new in pairs:
        inner = old.units.strata if old.units.averaged else ("",) * len(old.units.ids)
        names = [f"{old.name} {name}" for name in inner]
        weights |= dict.fromkeys(names, 1.0 / max(1, len(set(names))))
        strata += names
        first += _values(old, old.main)
        second += _values(new, new.main)
    return paired_bootstrap(first, second, strata=strata, weights=weights, resamples=resamples, seed=seed)


def _values(result: SetResult, metric: str) -> list[float]:
    return [float("nan") if value is None else value for value in result.units.values[metric]]
