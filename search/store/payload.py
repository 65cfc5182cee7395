"""Chunks as payloads and back, and the fields that can be filtered on: the same on every store."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

from search.errors import IndexFormatError, QueryError
from search.records import Chunk, Match, Point, Range

FOLDERS, FLAGS = "folders", "flags"
"""Fields that are only filtered by; see `to_payload`."""
KEYWORD_FIELDS = ("document_id", "lang", "script", "source", FOLDERS, FLAGS)
DATE_FIELDS = ("date",)
FAMILY = "family"
"""A note on a document, with its first chunk: `search.server_families`."""
POINT_ID = "id"
"""Key of a condition on the chunk ids themselves, which are no part of the payload."""
FILTER_FIELDS = (POINT_ID, *KEYWORD_FIELDS[:-1], *DATE_FIELDS, "title", "number", "lang_confidence")
_CHUNK_FIELDS = tuple(field.name for field in fields(Chunk))
MOST_METADATA_INDEXES = 64
"""Metadata columns that get a payload index; a filter on further ones reads every chunk (77 ms over 25,000)."""

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]+")
_EXACT_FLOAT = 2**53
_REST_OF_DAY = timedelta(days=1) - timedelta(microseconds=1)


class Bounds(NamedTuple):
    """A checked range: numbers, or with `dates` moments as RFC 3339 in UTC."""

    path: str
    dates: bool
    gte: Any
    lte: Any


def to_payload(chunk: Chunk) -> dict[str, Any]:
    """Plain values of a chunk, with two fields to filter by.

    `folders` holds every folder above the source; `flags` the truth values of the metadata as `name=true`, since Edge
    reads a bool in a condition as a number.
    """
    return {
        "document_id": chunk.document_id,
        "number": chunk.number,
        "text": chunk.text,
        "title": chunk.title,
        "headings": list(chunk.headings),
        "lang": chunk.lang,
        "lang_confidence": float(chunk.lang_confidence),
        "script": chunk.script,
        "source": chunk.source,
        FOLDERS: [str(folder) for folder in PurePosixPath(chunk.source).parents if str(folder) != "."],
        "start": chunk.start,
        "end": chunk.end,
        "date": chunk.date,
        "metadata": {name: list(v) if isinstance(v, tuple) else v for name, v in chunk.metadata.items()},
        FLAGS: [_flag(name, value) for name, value in chunk.metadata.items() if isinstance(value, bool)],
    }


def from_payload(payload: Mapping[str, Any]) -> Chunk:
    """The chunk that `to_payload` wrote.

    Raises:
        IndexFormatError: It was written by another program, or is damaged.
    """
    values = {name: payload[name] for name in _CHUNK_FIELDS if name in payload}
    try:
        values["headings"] = tuple(values["headings"])
        values["metadata"] = {n: tuple(v) if isinstance(v, list) else v for n, v in values["metadata"].items()}
        return Chunk(**values)
    except (KeyError, TypeError, AttributeError) as error:
        raise IndexFormatError(
            f"a passage of the index cannot be read ({type(error).__name__}: {error}): it is damaged, or another "
            "program wrote it. Restore a backup (`indexer restore`), or run `indexer ingest FOLDER --fresh`."
        ) from error


def equalities(condition: Match) -> list[tuple[str, str | int | float]]:
    """The (path, value) pairs of which one must hold; a float is compared by value, so that 3 and 3.0 are equal."""
    path, name = field_path(condition), condition.key.partition(".")[2]
    return [
        ("flags", _flag(name, value))
        if isinstance(value, bool)
        else (path, float(value) if isinstance(value, int) and abs(value) <= _EXACT_FLOAT else value)
        for value in condition.values
    ]


def chunk_ids(condition: Match) -> set[int | UUID | str]:
    """The ids of a condition on chunks.

    Raises:
        QueryError: There is none, or one is not the id of a chunk.
    """
    field_path(condition)
    try:
        return {str(UUID(str(value))) for value in condition.values}
    except ValueError as error:
        raise QueryError(f"the condition on {condition.key!r} needs ids of chunks, got {condition.values!r}") from error


def range_bounds(condition: Range) -> Bounds:
    """The checked bounds of a range. A last day without a time includes that day.

    Raises:
        QueryError: There is no such field or no bound, or a bound is neither a finite number nor a date.
    """
    path, bounds = field_path(condition), (condition.gte, condition.lte)
    if condition.key in DATE_FIELDS or any(isinstance(bound, str) for bound in bounds):
        return Bounds(path, True, _moment(condition, condition.gte), _moment(condition, condition.lte, last=True))
    for bound in bounds:
        if isinstance(bound, str | bool) or (bound is not None and not math.isfinite(bound)):
            raise QueryError(f"the range on {condition.key!r} needs finite numbers or dates, got {bound!r}")
    return Bounds(path, False, *bounds)


def metadata_indexes(points: Sequence[Point], known: set[str]) -> Iterator[tuple[str, bool]]:
    """Path of each metadata column without an index, and whether its first value is text; adds them to `known`.

    Truth values are in `flags`. Numbers are to be indexed as floats: an integer index would hide 3.5 from a range.
    """
    for point in points:
        for name, value in point.chunk.metadata.items():
            if isinstance(value, bool) or not _is_path(name) or len(known) >= MOST_METADATA_INDEXES:
                continue
            path = _metadata_path(name)
            if path not in known:
                known.add(path)
                yield path, isinstance(value, str | tuple)


def _moment(condition: Range, bound: float | str | None, *, last: bool = False) -> str | None:
    if bound is None:
        return None
    try:
        moment = datetime.fromisoformat(str(bound))
        if last and len(str(bound)) == len("2024-05-31"):
            moment += _REST_OF_DAY
        return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)).isoformat()
    except (ValueError, OverflowError) as error:
        wanted = "dates such as 2024-05-31 or 2024-05-31T12:00:00Z"
        raise QueryError(f"the range on {condition.key!r} needs {wanted}, got {bound!r}") from error


def _is_path(name: str) -> bool:
    return bool(name) and '"' not in name and "\\" not in name


def _metadata_path(name: str) -> str:
    return f"metadata.{name}" if _PLAIN_KEY.fullmatch(name) else f'metadata."{name}"'


def _flag(name: str, value: bool) -> str:
    return f"{name}={str(value).lower()}"


def field_path(condition: Match | Range) -> str:
    """The condition's key as a store's path.

    Raises:
        QueryError: There is no such field, or the range has no bound.
    """
    if isinstance(condition, Range) and condition.gte is None and condition.lte is None:
        raise QueryError(f"the range on {condition.key!r} needs a lower or an upper bound")
    if isinstance(condition, Match) and not condition.values:
        raise QueryError(f"the condition on {condition.key!r} needs at least one value")
    if condition.key in FILTER_FIELDS:
        return condition.key
    group, _, name = condition.key.partition(".")
    if group != "metadata" or not _is_path(name):
        raise QueryError(f"cannot filter on {condition.key!r}; use {', '.join(FILTER_FIELDS)} or metadata.NAME")
    return _metadata_path(name)
