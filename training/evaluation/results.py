"""What an evaluation found, as data that is written, read again and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from search.errors import EvaluationError
from training.evaluation.mteb_tasks import MtebScore


def _defined(value: object) -> object:
    """NaN as none: JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


Figure = Annotated[float | None, BeforeValidator(_defined)]
"""A figure, or none where it is not defined."""


class Kind(StrEnum):
    """What a set asks of an encoder."""

    RETRIEVAL = "retrieval"
    BITEXT = "bitext"
    STS = "sts"
    LABELLED = "labelled"
    PAIRS = "pairs"
    RERANKING = "reranking"


MAIN_METRICS: Mapping[Kind, str] = {
    Kind.RETRIEVAL: "ndcg@10",
    Kind.BITEXT: "f1",
    Kind.STS: "spearman",
    Kind.LABELLED: "v_measure",
    Kind.PAIRS: "ap",
    Kind.RERANKING: "map",
}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Units(_Record):
    """Values of single queries, sentence pairs, languages or groups: what a paired test draws from.

    A figure is the mean over units of `values`, or, where `averaged`, the mean over `strata` of the means in each.
    """

    noun: str
    ids: tuple[str, ...]
    strata: tuple[str, ...]
    averaged: bool = False
    values: dict[str, tuple[Figure, ...]]


class LanguageMatrix(_Record):
    """nDCG@10 of queries in one language (rows) against the documents of one language (columns)."""

    query_langs: tuple[str, ...]
    document_langs: tuple[str, ...]
    values: tuple[tuple[Figure, ...], ...]


class SetResult(_Record):
    """Figures of one set: over all of it, and in `groups` by language, script, pair or group.

    `notes` say what was left out and why.
    """

    name: str
    kind: Kind
    figures: dict[str, Figure]
    groups: dict[str, dict[str, dict[str, Figure]]]
    units: Units
    matrix: LanguageMatrix | None = None
    notes: tuple[str, ...] = ()

    @property
    def main(self) -> str:
        """Name of the figure to compare encoders by."""
        return MAIN_METRICS[self.kind]

    def group_mean(self, by: str, metric: str) -> float | None:
        """Mean over the groups (each language counts once, however many queries it has); none without any."""
        values = [value for row in self.groups.get(by, {}).values() if (value := row.get(metric)) is not None]
        return sum(values) / len(values) if values else None


class Evaluation(_Record):
    """One encoder on a number of sets, each cut to `limit` where there is one, and on tasks of MTEB."""

    encoder: str
    fingerprint: str
    version: str
    limit: int | None
    results: tuple[SetResult, ...]
    mteb: tuple[MtebScore, ...] = ()

    def result(self, name: str) -> SetResult:
        """The result of one set.

        Raises:
            EvaluationError: It was not evaluated.
        """
        for found in self.results:
            if found.name == name:
                return found
        known = ", ".join(found.name for found in self.results)
        raise EvaluationError(f"{self.encoder} was not evaluated on {name!r}; it was on: {known}")


class _Evaluations(_Record):
    evaluations: tuple[Evaluation, ...]


def save_evaluations(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Write evaluations as one JSON file, for `load_evaluations`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_Evaluations(evaluations=tuple(evaluations)).model_dump_json() + "\n", encoding="utf-8")


def load_evaluations(path: Path) -> list[Evaluation]:
    """Read what `save_evaluations` wrote.

    Raises:
        EvaluationError: The file is missing or something else.
    """
    try:
        return list(_Evaluations.model_validate_json(path.read_text(encoding="utf-8")).evaluations)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        message = (
            f"{path}: no evaluation ({str(error).splitlines()[0]}). Make one: training evaluate ENCODER --out FOLDER"
        )
        raise EvaluationError(message) from error
