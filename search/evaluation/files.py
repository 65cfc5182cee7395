"""Rows of evaluation files, checked as they are read."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from search.errors import EvaluationError

TEXT_COLUMNS = frozenset(("_id", "lang", "text", "text_a", "text_b", "query"))
PAIR_COLUMNS = frozenset(("langs", "texts"))
LIST_COLUMNS = frozenset(("positives", "negatives"))


@overload
def find_rows(folder: Path, name: str) -> Path: ...
@overload
def find_rows(folder: Path, name: str, *, required: Literal[False]) -> Path | None: ...
def find_rows(folder: Path, name: str, *, required: bool = True) -> Path | None:
    """The file `name` in a folder, compressed or not."""
    for path in (folder / f"{name}.jsonl.gz", folder / f"{name}.jsonl"):
        if path.is_file():
            return path
    if required:
        raise EvaluationError(f"{folder}: {name}.jsonl or {name}.jsonl.gz is missing")
    return None


def iter_rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file, blank lines left out; every one has `columns`, of the right shape.

    Raises:
        EvaluationError: A line is no JSON object or lacks a column; the message has its number.
    """
    for number, line in _iter_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise EvaluationError(f"{path}:{number}: not a line of JSON ({error.msg}); mend or remove it") from error
        _check_row(f"{path}:{number}", row, columns)
        yield row


def iter_qrels(path: Path) -> Iterator[tuple[int, str, str, float]]:
    """Line number, query id, document id and grade of every line of a BEIR qrels file; a header is left out."""
    if not path.is_file():
        raise EvaluationError(f"{path}: missing; retrieval needs it: query-id, corpus-id and score, tab-separated")
    for number, line in _iter_lines(path):
        fields = line.rstrip("\r\n").split("\t")
        if fields == [""] or (number == 1 and fields[-1] == "score"):
            continue
        try:
            query, document, score = fields
            grade = float(score)
        except ValueError:
            grade = math.nan
        if not math.isfinite(grade):
            raise EvaluationError(f"{path}:{number}: expected id, id and a number between tabs: {line!r:.90}")
        yield number, query, document, grade


def _check_row(place: str, row: object, columns: Sequence[str]) -> None:
    if not isinstance(row, dict):
        raise EvaluationError(f"{place}: expected a JSON object, got {type(row).__name__}")
    missing = [name for name in columns if row.get(name) is None]
    if missing:
        raise EvaluationError(f"{place}: column {missing[0]!r} is missing; the row has {', '.join(map(str, row))}")
    for name in columns:
        value = row[name]
        if name in TEXT_COLUMNS and not isinstance(value, str):
            raise EvaluationError(f"{place}: {name} must be a string, got {value!r:.60}")
        if name in PAIR_COLUMNS and not _is_pair(value):
            raise EvaluationError(f"{place}: {name} must be a list of two strings, got {value!r:.60}")
        if name in LIST_COLUMNS and not _is_filled(value):
            raise EvaluationError(f"{place}: {name} must be a list of one string or more, got {value!r:.60}")
        if name == "score" and not _is_number(value):
            raise EvaluationError(f"{place}: score must be a number, got {value!r:.60}")


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _is_filled(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, str) for part in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _iter_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="\n") as lines:
            yield from enumerate(lines, start=1)
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise EvaluationError(f"{path}: cannot be read ({error}); fetch the file again") from error
