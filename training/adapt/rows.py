"""The rows of an adaptation, written where a training run reads them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import TrainingDataError
from training.adapt.corpus import Corpus, KnownPassages, indexed_texts
from training.adapt.general import GENERAL, general_rows
from training.adapt.options import AdaptOptions, Progress
from training.adapt.pairs import (
    CONTEXT,
    PER_PASSAGE,
    QUERIES,
    TRANSLATIONS,
    choose_queried,
    context_rows,
    query_rows,
    template_queries,
    translation_rows,
)
from training.adapt.split import training_chunks
from training.data.schema import BitextRow, RetrievalRow
from training.synthesis.documents import SourceDocument, SyntheticQuery

if TYPE_CHECKING:
    from search.encoder import Encoder

LEAST_WORKS = 4
"""Works that a kind of rows needs, for in-batch negatives."""


def write_rows(
    options: AdaptOptions, corpus: Corpus, held_out: Iterable[str], encoder: Encoder, folder: Path, progress: Progress
) -> dict[str, int]:
    """Write rows of all documents that are not held out, and general ones; returns how many by data set.

    Raises:
        TrainingDataError: The documents give no pairs.
    """
    chunks = training_chunks(corpus, held_out)
    folder.mkdir(parents=True, exist_ok=True)
    progress("making queries and finding hard negatives", 0, 3)
    kept = KnownPassages(encoder, indexed_texts(corpus), corpus.vectors)
    queried = choose_queried(corpus, chunks, seed=options.seed)
    counts = _write(folder, QUERIES, query_rows(corpus, queried, kept, partial(_queries, options)))
    progress("pairing neighbours and translations", 1, 3)
    counts |= _write(folder, CONTEXT, list(context_rows(corpus, chunks)))
    counts |= _write(folder, TRANSLATIONS, list(translation_rows(corpus, chunks)))
    if not counts:
        raise TrainingDataError(
            f"{options.corpus}: no pairs to learn from: titles, headings or passages of several sentences are needed."
        )
    progress("reading general text", 2, 3)
    return counts | _write(folder, GENERAL, general_rows(options.general, seed=options.seed))


def _queries(options: AdaptOptions, documents: Sequence[SourceDocument]) -> list[SyntheticQuery]:
    queries = template_queries(documents, seed=options.seed)
    if options.endpoint:
        from training.synthesize_command import ask_queries

        answers = options.work / "answers.jsonl"
        queries += ask_queries(
            documents, options.endpoint, answers, langs=(), per_document=PER_PASSAGE, seed=options.seed
        )
    return queries


def _write(folder: Path, name: str, rows: Sequence[RetrievalRow | BitextRow]) -> dict[str, int]:
    """Write a data set if its rows are of enough works; with one or two, wrong answers could not be told."""
    works = {row.work or row.doc_id or row.positive if isinstance(row, RetrievalRow) else row.group_id or row.texts
             for row in rows}  # fmt: skip
    if len(works) < LEAST_WORKS:
        return {}
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8", compresslevel=1) as file:
        file.writelines(json.dumps(row.model_dump(mode="json"), ensure_ascii=False) + "\n" for row in rows)
    return {name: len(rows)}
