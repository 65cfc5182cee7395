"""What must not be trained on: rows twice over, and rows whose texts are in an evaluation set."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from search.errors import TrainingDataError
from search.text import normalize
from training.data.loading import iter_lines
from training.data.schema import Row, row_texts

MIN_LETTERS = 6
"""Shorter texts ("yes", "Paris") are no leak."""


@dataclass
class CleaningReport:
    """Rows read, and why some were dropped, by dataset."""

    read: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    leaked: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, dict[str, int]]:
        """Counts by dataset, for JSON."""
        return {
            name: {"read": count, "duplicates": self.duplicates[name], "in_evaluation": self.leaked[name]}
            for name, count in sorted(self.read.items())
        }


def clean(rows: Iterable[Row], held_out: frozenset[bytes], report: CleaningReport) -> Iterator[Row]:
    """Rows without duplicates and without any text that is held out.

    Args:
        rows: Rows of any tasks.
        held_out: Keys of the evaluation sets' texts (`text_keys`).
        report: Counts are added to it.
    """
    seen: set[bytes] = set()
    for row in rows:
        report.read[row.dataset] += 1
        texts = row_texts(row)
        identity = _digest("\0".join((row.task, *(canonical_text(text) for text in texts))))
        if identity in seen:
            report.duplicates[row.dataset] += 1
        elif any(key in held_out for key in map(text_key, texts) if key):
            report.leaked[row.dataset] += 1
        else:
            seen.add(identity)
            yield row


def canonical_text(text: str) -> str:
    """The text without differences of case, width, composition and spacing."""
    return " ".join(normalize(text).split())


def text_key(text: str) -> bytes:
    """Hash of the canonical text; empty for texts too short to be a leak."""
    folded = canonical_text(text)
    return _digest(folded) if len(folded) >= MIN_LETTERS else b""


def text_keys(folder: Path, *, progress: Callable[[Path], None] | None = None) -> frozenset[bytes]:
    """Keys of every text in the JSON lines files under an evaluation folder, whatever their fields are called.

    Raises:
        TrainingDataError: The folder holds no such file, or one cannot be read.
    """
    files = sorted(path for path in folder.rglob("*") if path.name.endswith((".jsonl", ".jsonl.gz")))
    if not files:
        raise TrainingDataError(f"{folder}: no .jsonl or .jsonl.gz file to hold out; check the folder's name.")
    keys: set[bytes] = set()
    for path in files:
        if progress:
            progress(path)
        for number, line in iter_lines(path):
            try:
                texts = list(_strings(json.loads(line.decode("utf-8-sig"))))
            except ValueError as error:
                raise TrainingDataError(f"{path}:{number}: not JSON in UTF-8 ({error}).") from error
            keys.update(key for text in texts if (key := text_key(text)))
    return frozenset(keys)


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
