"""Whether the adapted encoder is better: before and after on the same questions, and what follows from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from search.evaluation.significance import Difference, paired_bootstrap
from training.adapt.judging import Figures, Scores, Trial
from training.adapt.questions import Asked, Kind

LEAST_UNITS = 2
SIGNIFICANCE = 0.05
LEAST_GAIN = 0.005
"""Of nDCG@10; with hundreds of questions a smaller one may be significant, and is not worth a new index."""
TOLERATED = 0.005
"""Mean loss of nDCG@10 on a set up to which a significant one does not decide."""


@dataclass(frozen=True)
class Row:
    """A figure before and after. `units` are works: questions about one work and its translations count as one."""

    name: str
    questions: int
    units: int
    before: float
    after: float
    recall_before: float
    recall_after: float
    difference: Difference | None


@dataclass(frozen=True)
class PairRow:
    """nDCG@10 of questions in one language among the documents of another alone."""

    query_lang: str
    document_lang: str
    questions: int
    before: float
    after: float


@dataclass(frozen=True)
class Comparison:
    """One trial before and after: over all, by kind of question, by language of the question, from language to
    language."""

    name: str
    overall: Row
    kinds: tuple[Row, ...]
    languages: tuple[Row, ...]
    pairs: tuple[PairRow, ...]


class Ground(StrEnum):
    """What a verdict rests on."""

    GAIN = "gain"
    NO_GAIN = "no_gain"
    SMALL_GAIN = "small_gain"
    TOO_FEW = "too_few"
    LOSS = "loss"
    LOSS_IN = "loss_in"
    UNMEASURED = "unmeasured"


SENTENCES = MappingProxyType({
    Ground.GAIN: "nDCG@10 on {trial} {points:+.1f} points ({low:+.1f} to {high:+.1f}), nothing lost",
    Ground.NO_GAIN: "no significant gain (nDCG@10 {points:+.1f} points ({low:+.1f} to {high:+.1f}))",
    Ground.SMALL_GAIN:
        "the gain is too small to be worth a new index (nDCG@10 {points:+.1f} points ({low:+.1f} to {high:+.1f}))",
    Ground.TOO_FEW: "no significant gain (too few works to tell)",
    Ground.LOSS: "{points:+.1f} points on {trial}",
    Ground.LOSS_IN: "{points:+.1f} points in {part} on {trial}",
    Ground.UNMEASURED: "general ability was not measured, give --general-eval",
})  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One ground, the trial that it was found on, and in which language or kind of question (empty: over all).

    `points` is the difference of nDCG@10 times 100, `low` and `high` its 95 % interval.
    """

    ground: Ground
    trial: str
    part: str = ""
    points: float = 0.0
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, ground: Ground, trial: str, difference: Difference, *, part: str = "") -> Finding:
        """A finding with its figures."""
        return cls(ground, trial, part, *(100 * value for value in (difference.mean, difference.low, difference.high)))


@dataclass(frozen=True)
class Verdict:
    """Whether to use the encoder, and what that rests on."""

    recommended: bool
    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """The findings in one English sentence."""
        return "; ".join(SENTENCES[found.ground].format(**asdict(found)) for found in self.findings)


def compare(trial: Trial, before: Scores, after: Scores) -> Comparison:
    """The trial's figures; differences by a paired bootstrap over works.

    Questions about one work are no independent evidence, so each work gives one value, the mean of its questions.
    """
    every = list(range(len(trial.asked)))

    def row(name: str, places: Sequence[int]) -> Row:
        return _row(name, places, trial.asked, before, after)

    kinds = _grouped(every, lambda place: str(trial.asked[place].kind))
    languages = _grouped(every, lambda place: trial.asked[place].question.lang or "und")
    return Comparison(
        trial.name, row("all", every), tuple(row(name, places) for name, places in kinds.items()),
        tuple(row(name, places) for name, places in languages.items()), tuple(_pairs(languages, before, after)),
    )  # fmt: skip


def decide(domain: Sequence[Comparison], general: Sequence[Comparison]) -> Verdict:
    """Recommend only what gains on the corpus, significantly and by LEAST_GAIN, and loses nowhere.

    The gain is that of the judged queries of the reader's own, where there are some, else of those made of documents.
    A loss counts in any trial; in a language or a kind of question when it is significant after Bonferroni's correction
    for the languages and kinds of its trial.
    """
    main = next((found for found in domain if _is_given(found)), domain[0])
    if lost := [loss for found in (*domain, *general) for loss in _losses(found)]:
        return Verdict(False, tuple(lost))
    gain = main.overall.difference
    if gain is None:
        return Verdict(False, (Finding(Ground.TOO_FEW, main.name),))
    if gain.low <= 0:
        return Verdict(False, (Finding.of(Ground.NO_GAIN, main.name, gain),))
    if gain.mean < LEAST_GAIN:
        return Verdict(False, (Finding.of(Ground.SMALL_GAIN, main.name, gain),))
    unmeasured = () if general else (Finding(Ground.UNMEASURED, main.name),)
    return Verdict(True, (Finding.of(Ground.GAIN, main.name, gain), *unmeasured))


def _losses(found: Comparison) -> list[Finding]:
    whole, lost = found.overall.difference, []
    if whole and whole.high < 0 and whole.mean < -TOLERATED:
        lost.append(Finding.of(Ground.LOSS, found.name, whole))
    kinds = found.kinds if len(found.kinds) > 1 else ()
    for row in (*kinds, *found.languages):
        tests = len(kinds) + len(found.languages)
        if row.difference and row.difference.mean < 0 and row.difference.p * tests < SIGNIFICANCE:
            lost.append(Finding.of(Ground.LOSS_IN, found.name, row.difference, part=row.name))
    return lost


def as_record(verdict: Verdict, domain: Sequence[Comparison], general: Sequence[Comparison]) -> dict[str, object]:
    """For JSON."""
    trials = {"domain": [asdict(found) for found in domain], "general": [asdict(found) for found in general]}
    return {**asdict(verdict), "reason": verdict.reason, **trials}


def _is_given(comparison: Comparison) -> bool:
    return any(row.name in (Kind.GIVEN, Kind.GIVEN_HELD_OUT) for row in comparison.kinds)


def _row(name: str, places: Sequence[int], asked: Sequence[Asked], before: Scores, after: Scores) -> Row:
    works = _grouped(places, lambda place: asked[place].work)
    old, new = (_means(scores.ndcg, works) for scores in (before, after))
    old_recall, new_recall = (_means(scores.recall, works) for scores in (before, after))
    difference = paired_bootstrap(old, new) if len(works) >= LEAST_UNITS else None
    return Row(
        name, len(places), len(works), float(old.mean()), float(new.mean()), float(old_recall.mean()),
        float(new_recall.mean()), difference,
    )  # fmt: skip


def _means(values: Figures, groups: Mapping[str, Sequence[int]]) -> Figures:
    return np.array([values[list(places)].mean() for places in groups.values()])


def _pairs(languages: Mapping[str, Sequence[int]], before: Scores, after: Scores) -> Iterable[PairRow]:
    for lang, places in languages.items():
        for document_lang, values in before.by_language.items():
            known = [place for place in places if not np.isnan(values[place])]
            if known:
                new = after.by_language[document_lang]
                yield PairRow(lang, document_lang, len(known), float(values[known].mean()), float(new[known].mean()))


def _grouped(places: Iterable[int], key: Callable[[int], str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for place in places:
        found[key(place)].append(place)
    return dict(sorted(found.items()))
