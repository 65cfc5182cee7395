"""Text and questions from outside the corpus: to keep the encoder's general ability, and to see whether it was lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import TrainingDataError
from training.adapt.corpus import embedded_settings
from training.adapt.judging import Trial, pool_of, trial_of_set
from training.data.loading import iter_rows, parse_row
from training.data.schema import BitextRow, RetrievalRow, Row, row_texts
from training.prepare import fraction

if TYPE_CHECKING:
    from search.encoder import Encoder
    from training.adapt.options import Progress

GENERAL = "general"
MOST_ROWS = 2000
BUNDLED = Path("corpus/documents")
BUNDLED_QUERIES = Path("corpus/queries.jsonl")
GENERAL_QUERIES = 300
"""Queries of a set of `--general-eval` that are asked; all of its documents compete."""


def general_rows(paths: Sequence[Path], *, seed: int) -> list[RetrievalRow | BitextRow]:
    """Rows whose texts the encoder shall keep its vectors of, at most MOST_ROWS of them by hash.

    Without files, passages in 27 languages that come with the package: half of the bundled corpus.

    Raises:
        TrainingDataError: A file cannot be read, or holds no row of retrieval or bitext.
    """
    found = [row for path in paths for row in iter_rows(path)] if paths else list(_packaged())
    rows = [row for row in found if isinstance(row, RetrievalRow | BitextRow)]
    if not rows:
        raise TrainingDataError(
            f"{', '.join(map(str, paths))}: no row of retrieval or bitext; see docs/training.md or leave --general out."
        )
    rows.sort(key=lambda row: fraction(row_texts(row)[0], seed))
    return [row.model_copy(update={"dataset": GENERAL, "work": "", "doc_id": ""}) if isinstance(row, RetrievalRow)
            else row.model_copy(update={"dataset": GENERAL}) for row in rows[:MOST_ROWS]]  # fmt: skip


def _packaged() -> Iterator[Row]:
    file = files(__package__) / "general.jsonl.gz"
    for number, line in enumerate(gzip.decompress(file.read_bytes()).splitlines(), start=1):
        yield parse_row(json.loads(line), f"{file}:{number}")


def general_trials(
    paths: Sequence[Path], corpus: Path, work: Path, encoder: Encoder, progress: Progress
) -> list[Trial]:
    """Questions about other documents: the sets given, else the bundled corpus where this is a checkout.

    Of the bundled corpus, the questions about the half that the package does not hold as general text. Empty where
    there are neither, or the corpus to adapt to is the bundled one.

    Raises:
        EvaluationError: A set cannot be read.
        TrainingDataError: A folder holds a set of another kind.
    """
    if paths:
        return [trial for path in paths for trial in _sets(path)]
    if not BUNDLED_QUERIES.is_file() or corpus.expanduser().resolve().is_relative_to(BUNDLED.parent.resolve()):
        return []
    return [_bundled(work, encoder, progress)]


def check_sets(paths: Sequence[Path]) -> None:
    """See that there are sets in these folders, without reading them.

    Raises:
        EvaluationError: There is none in one of them.
    """
    from training.evaluation.sets import find_sets

    for path in paths:
        find_sets(path)


def _sets(path: Path) -> Iterator[Trial]:
    from training.evaluation.sets import RetrievalSet, find_sets, load_set

    for folder in find_sets(path):
        found = load_set(folder, GENERAL_QUERIES)
        if not isinstance(found, RetrievalSet):
            raise TrainingDataError(f"{folder}: not a retrieval set; --general-eval takes corpus, queries and qrels.")
        yield trial_of_set(found)


def _bundled(work: Path, encoder: Encoder, progress: Progress) -> Trial:
    from search.evaluation.questions import read_questions, resolve
    from training.adapt.corpus import read_corpus
    from training.adapt.questions import given_questions

    held = read_corpus(BUNDLED, embedded_settings(work / "general"), encoder, progress)
    questions = resolve(read_questions(BUNDLED_QUERIES), held.documents).questions
    trained = {row.doc_id for row in _packaged() if isinstance(row, RetrievalRow)}
    unseen = [question for question in questions if not trained & question.relevant.keys()]
    return Trial("bundled corpus", pool_of(held), given_questions(unseen, held), held.vectors)
