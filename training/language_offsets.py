"""Measure an encoder's language offsets on parallel text: the prior of `search.balance`.

The offset of a language is the mean difference between a text and its English translation, over rows that hold both:
subject, style and length cancel out, so that what remains is the language. Files count equally within a language. The
query shift is the mean difference between a query and its passage over retrieval rows, files counting equally.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from search.balance import LanguageOffsets
from search.encoder import Encoder
from search.errors import SourceError, TrainingDataError
from search.records import Vectors

PIVOT = "en"
LEAST_PAIRS = 60
"""A language with fewer is left out."""
Pairs = dict[str, list[tuple[str, str]]]


def read_pairs(path: Path, *, min_chars: int = 20, max_chars: int = 1500) -> Pairs:
    """Pairs (text, English text) by language from a bitext file of rows with `langs` and `texts`."""
    pairs: Pairs = defaultdict(list)
    for row in _iter_rows(path):
        texts = dict(zip(reversed(row["langs"]), reversed(row["texts"]), strict=True))
        pivot = texts.get(PIVOT, "")
        if not min_chars <= len(pivot) <= max_chars:
            continue
        for language, text in texts.items():
            if language != PIVOT and text and text != pivot and len(text) <= max_chars:
                pairs[language].append((text, pivot))
    return pairs


def sample_pairs(files: Iterable[Path], *, per_language: int, minimum: int = LEAST_PAIRS, seed: int = 0) -> Pairs:
    """Up to `per_language` pairs of each language, spread evenly over files; languages under `minimum` are left out."""
    rng = random.Random(seed)
    by_language: dict[str, list[list[tuple[str, str]]]] = defaultdict(list)
    for path in files:
        for language, pairs in read_pairs(path).items():
            rng.shuffle(pairs)
            by_language[language].append(pairs)
    chosen: Pairs = {}
    for language, sources in sorted(by_language.items()):
        turns = max(map(len, sources))
        merged = [source[turn] for turn in range(turns) for source in sources if turn < len(source)]
        if len(merged) >= minimum:
            chosen[language] = merged[:per_language]
    return chosen


def sample_questions(files: Iterable[Path], *, per_file: int, seed: int = 0) -> list[list[tuple[str, str]]]:
    """Up to `per_file` pairs (query, passage with its title) of each retrieval file."""
    rng = random.Random(seed)
    samples = []
    for path in files:
        rows = list(_iter_rows(path, needs=("query", "positive")))
        chosen = rng.sample(rows, min(per_file, len(rows)))
        samples.append(
            [(row["query"], f"{row.get('title') or ''}\n{row['positive']}".strip()[:1500]) for row in chosen]
        )
    return samples


def measure_offsets(encoder: Encoder, pairs: Pairs, questions: Sequence[Sequence[tuple[str, str]]]) -> LanguageOffsets:
    """Encode the pairs and average the differences; English is the pivot, its own difference 0 before centring.

    Raises:
        TrainingDataError: There are no pairs, or no rows in one of the files of questions.
    """
    if not pairs:
        raise TrainingDataError(
            f"no language has {LEAST_PAIRS} pairs with {PIVOT!r}: offsets are differences between translations; give "
            "more bitext."
        )
    texts = sorted({text for rows in pairs.values() for pair in rows for text in pair})
    row_of = {text: row for row, text in enumerate(texts)}
    vectors = encoder.encode_documents(texts)
    languages = [PIVOT, *sorted(pairs)]
    differences = [np.zeros(encoder.dimension)]
    for language in languages[1:]:
        own = vectors[[row_of[text] for text, _ in pairs[language]]]
        pivot = vectors[[row_of[text] for _, text in pairs[language]]]
        differences.append((own - pivot).mean(axis=0, dtype=np.float64))
    english = vectors[[row_of[text] for text in sorted({pivot for rows in pairs.values() for _, pivot in rows})]]
    centre = np.mean(differences, axis=0)
    mean = (english.mean(axis=0, dtype=np.float64) + centre).astype(np.float32)
    offsets = (np.stack(differences) - centre).astype(np.float32)
    return LanguageOffsets(tuple(languages), mean, offsets, measure_query_shift(encoder, questions))


def measure_query_shift(encoder: Encoder, questions: Sequence[Sequence[tuple[str, str]]]) -> Vectors:
    """Mean of (query vector - passage vector) (D,), files counting equally; zero without questions."""
    shifts = [np.zeros(encoder.dimension, np.float32)] if not questions else []
    for rows in questions:
        if not rows:
            raise TrainingDataError("a file of --questions has no rows; leave it out.")
        queries = encoder.encode_queries([query for query, _ in rows])
        passages = encoder.encode_documents([passage for _, passage in rows])
        shifts.append((queries - passages).mean(axis=0))
    return np.asarray(np.mean(shifts, axis=0), np.float32)


def _iter_rows(path: Path, *, needs: tuple[str, ...] = ("langs", "texts")) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise SourceError(f"{path}:{number}: not JSON ({error})") from error
            if not isinstance(row, dict) or any(name not in row for name in needs):
                held = sorted(row) if isinstance(row, dict) else type(row).__name__
                raise SourceError(f"{path}:{number}: a row needs {' and '.join(needs)}, got {held}")
            if not _are_texts([row[name] for name in needs]):
                raise SourceError(f"{path}:{number}: {' and '.join(needs)}: texts, or lists of as many texts, go there")
            yield row


def _are_texts(columns: Sequence[object]) -> bool:
    """Whether all are strings, or all lists of strings of one length."""
    if all(isinstance(column, str) for column in columns):
        return True
    lists = [column for column in columns if isinstance(column, list) and all(isinstance(text, str) for text in column)]
    return len(lists) == len(columns) and len(set(map(len, lists))) == 1
