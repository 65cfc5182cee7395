"""Rows from local JSON lines and from hub datasets, each checked against its task."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.errors import TrainingDataError
from training.data.schema import ROW_TYPES, TASK_NAMES, Row, Task


def iter_rows(path: Path, *, task: Task | None = None, columns: Mapping[str, str] | None = None) -> Iterator[Row]:
    """Rows of a JSON lines file (`.jsonl`, `.jsonl.gz`), in order.

    Args:
        path: The file.
        task: The task of rows that do not name one.
        columns: Name in the file by name in the row type, where they differ.

    Raises:
        TrainingDataError: The file cannot be read, is not UTF-8, or a row does not fit; names the line.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield parse_row(_decode(line, f"{path}:{number}"), f"{path}:{number}", task=task, columns=columns)
    except (OSError, EOFError) as error:
        raise TrainingDataError(f"{path}: cannot be read ({error}); is it complete, and gzipped if named .gz?") from error


def iter_hub_rows(
    name: str, *, task: Task, config: str | None = None, split: str = "train", columns: Mapping[str, str] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Iterator[Row]:  # fmt: skip
    """Rows of a dataset of the hub, streamed: `iter_hub_rows("owner/name", task=Task.RETRIEVAL)`.

    Args:
        name: Dataset id.
        task: What its rows are.
        config: Its configuration, often a language.
        split: Its split.
        columns: Name in the dataset by name in the row type, where they differ.
        defaults: Values for fields that the dataset lacks, such as `lang_query`.

    Raises:
        TrainingDataError: It cannot be loaded, or a row does not fit.
    """
    from datasets import load_dataset

    try:
        rows = load_dataset(name, config, split=split, streaming=True)
    except Exception as error:  # the hub client raises many kinds; all mean the same to the user
        raise TrainingDataError(
            f"dataset {name!r} (config {config}, split {split}) cannot be loaded: {error}. Check the id and the "
            f"network, or download it and give the file's path."
        ) from error
    for number, raw in enumerate(rows, start=1):
        place = f"{name}, row {number}"
        yield parse_row({"dataset": name, **(defaults or {}), **raw}, place, task=task, columns=columns)


def iter_good_rows(path: Path, skipped: Counter[str], *, task: Task | None = None) -> Iterator[Row]:
    """Rows of a JSON lines file; those that do not fit are counted in `skipped` by reason and passed over."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = parse_row(_decode(line, f"{path}:{number}"), f"{path}:{number}", task=task)
                except TrainingDataError as error:
                    skipped[str(error)] += 1
                else:
                    yield row


def parse_row(
    raw: Mapping[str, Any], place: str, *, task: Task | None = None, columns: Mapping[str, str] | None = None
) -> Row:
    """A row of the type of its task.

    Raises:
        TrainingDataError: The task is unknown, a field is missing or has a value that does not fit.
    """
    named = dict(raw)
    for field, column in (columns or {}).items():
        if column not in named:
            raise TrainingDataError(f"{place}: no column {column!r} for {field!r}; it has {', '.join(sorted(raw))}.")
        named[field] = named[column]
    found = TASK_NAMES.get(str(named.get("task", ""))) or task
    if found is None:
        known = ", ".join(sorted(TASK_NAMES))
        raise TrainingDataError(f"{place}: task {named.get('task')!r} is not known. Known: {known}.")
    try:
        return ROW_TYPES[found].model_validate({**named, "task": found})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'row'}: {p['msg']}" for p in error.errors()[:3])
        has = ", ".join(sorted(map(str, raw)))
        raise TrainingDataError(f"{place}: not a {found} row: {problems}. It has: {has}.") from error


def find_files(root: Path, patterns: Iterable[str]) -> list[Path]:
    """Files under `root` that match any of the patterns, sorted.

    Raises:
        TrainingDataError: A pattern matches nothing.
    """
    found: set[Path] = set()
    for pattern in patterns:
        matches = [path for path in root.glob(pattern) if path.is_file()]
        if not matches:
            raise TrainingDataError(f"{root}: no file matches {pattern!r}; give the data's folder with --data.")
        found.update(matches)
    return sorted(found)


def _decode(line: bytes, place: str) -> dict[str, Any]:
    try:
        raw = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise TrainingDataError(f"{place}: not UTF-8 ({error}); convert the file to UTF-8.") from error
    except ValueError as error:
        raise TrainingDataError(f"{place}: not JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise TrainingDataError(f"{place}: a JSON object is expected, not {type(raw).__name__}.")
    return raw
