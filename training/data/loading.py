"""Rows from local JSON lines and from hub datasets, each checked against its task."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search.errors import TrainingDataError
from training.data.schema import ROW_TYPES, TASK_NAMES, Row, Task

Columns = Mapping[str, str | tuple[str, ...]]
"""Name in the data by name in the row type; several names make a list (`negatives` from `negative_1`, `negative_2`)."""

NLI_LABELS = {"0": "positive", "entailment": "positive", "2": "negative", "contradiction": "negative"}


def iter_rows(path: Path, *, task: Task | None = None, columns: Columns | None = None) -> Iterator[Row]:
    """Rows of a JSON lines file (`.jsonl`, `.jsonl.gz`), in order.

    Args:
        path: The file.
        task: The task of rows that do not name one.
        columns: Name in the file by name in the row type, where they differ.

    Raises:
        TrainingDataError: The file cannot be read, is not UTF-8, or a row does not fit; names the line.
    """
    for number, line in iter_lines(path):
        yield parse_row(_decode(line, f"{path}:{number}"), f"{path}:{number}", task=task, columns=columns)


def iter_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a file, gzipped or not, that are not blank, with their numbers from 1.

    Raises:
        TrainingDataError: The file cannot be read.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            yield from ((number, line) for number, line in enumerate(file, start=1) if line.strip())
    except (OSError, EOFError, zlib.error) as error:
        hint = "is it complete, and gzipped if named .gz?"
        raise TrainingDataError(f"{path}: cannot be read ({error}); {hint}") from error


def iter_hub_rows(
    name: str, *, task: Task, config: str | None = None, split: str = "train", columns: Columns | None = None,
    defaults: Mapping[str, Any] | None = None, nli_pairs: bool = False,
) -> Iterator[Row]:  # fmt: skip
    """Rows of a dataset of the hub, streamed: `iter_hub_rows("owner/name", task=Task.RETRIEVAL)`.

    Args:
        name: Dataset id.
        task: What its rows are.
        config: Its configuration, often a language.
        split: Its split.
        columns: Name in the dataset by name in the row type, where they differ.
        defaults: Values for fields that the dataset lacks, such as `lang_query`.
        nli_pairs: Its rows are pairs with a label, to be joined first (`join_nli_pairs`).

    Raises:
        TrainingDataError: It cannot be loaded, or a row does not fit.
    """
    rows = _stream_hub(name, config, split)
    for number, raw in enumerate(join_nli_pairs(rows) if nli_pairs else rows, start=1):
        named = {"dataset": name, **(defaults or {}), **raw, "task": task}
        yield parse_row(named, f"{name}, row {number}", columns=columns)


def _stream_hub(name: str, config: str | None, split: str) -> Iterator[Mapping[str, Any]]:
    try:
        from datasets import load_dataset

        yield from load_dataset(name, config, split=split, streaming=True)
    except ImportError as error:
        raise TrainingDataError(
            f"dataset {name!r}: the package datasets is missing: pip install 'panlingua[training]'"
        ) from error
    except Exception as error:  # the hub client raises many kinds; all mean the same to the user
        raise TrainingDataError(
            f"dataset {name!r} (config {config}, split {split}) cannot be loaded: {error}. Check the id and the "
            f"network, or download it and give the file's path."
        ) from error


def join_nli_pairs(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Triplets of `premise`, entailed and contradicting `hypothesis`, from pairs with a `label` (XNLI).

    `group` is the place of the premise's first pair: the same for its translations in data that is parallel by row. A
    premise gives one triplet, as soon as both hypotheses have been seen.
    """
    open_premises: dict[str, dict[str, Any]] = defaultdict(dict)
    for place, row in enumerate(rows):
        if missing := {"premise", "hypothesis", "label"} - row.keys():
            raise TrainingDataError(f"row {place + 1}: no column {min(missing)!r}; it has {', '.join(sorted(row))}.")
        found = open_premises[row["premise"]]
        kind = NLI_LABELS.get(str(row["label"]))
        found.setdefault("group", str(place))
        if kind and found.keys() != {"group", "positive", "negative"}:
            found[kind] = row["hypothesis"]
            if found.keys() == {"group", "positive", "negative"}:
                yield {"anchor": row["premise"], **found}


def iter_good_rows(path: Path, skipped: Counter[str], *, task: Task | None = None) -> Iterator[Row]:
    """Rows of a JSON lines file; those that do not fit are counted in `skipped` by reason and passed over."""
    for _, line in iter_lines(path):
        try:
            row = parse_row(_decode(line, path.name), path.name, task=task)
        except TrainingDataError as error:
            skipped[str(error)] += 1
        else:
            yield row


def parse_row(raw: Mapping[str, Any], place: str, *, task: Task | None = None, columns: Columns | None = None) -> Row:
    """A row of the type of its task.

    Raises:
        TrainingDataError: The task is unknown, a field is missing or has a value that does not fit.
    """
    named = dict(raw)
    for field, wanted in (columns or {}).items():
        missing = sorted({wanted} - raw.keys() if isinstance(wanted, str) else set(wanted) - raw.keys())
        if missing:
            raise TrainingDataError(
                f"{place}: no column {missing[0]!r} for {field!r}; it has {', '.join(sorted(raw))}."
            )
        named[field] = raw[wanted] if isinstance(wanted, str) else [raw[name] for name in wanted]
    given = named.get("task")
    found = TASK_NAMES.get(str(given)) if given else task
    if found is None:
        known = ", ".join(sorted(TASK_NAMES))
        raise TrainingDataError(f"{place}: task {given!r} is not known. Known: {known}.")
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
        if not pattern or Path(pattern).is_absolute():
            raise TrainingDataError(f"{pattern!r} is no pattern of files below {root}; give one such as *.jsonl.gz.")
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
    except (ValueError, RecursionError) as error:
        raise TrainingDataError(f"{place}: not JSON ({error}).") from error
    if not isinstance(raw, dict):
        raise TrainingDataError(f"{place}: a JSON object is expected, not {type(raw).__name__}.")
    return raw
