"""Chunks as payloads and back, and the fields that can be filtered on: the same on every store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from search.errors import QueryError
from search.records import Chunk, Match, Range

KEYWORD_FIELDS = ("document_id", "lang", "script", "source", "folders", "flags")
DATE_FIELDS = ("date",)
FILTER_FIELDS = (*KEYWORD_FIELDS[:-1], *DATE_FIELDS, "title", "number", "lang_confidence")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_]+")


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
        "folders": [str(folder) for folder in PurePosixPath(chunk.source).parents if str(folder) != "."],
        "start": chunk.start,
        "end": chunk.end,
        "date": chunk.date,
        "metadata": dict(chunk.metadata),
        "flags": [_flag(name, value) for name, value in chunk.metadata.items() if isinstance(value, bool)],
    }


def from_payload(payload: Mapping[str, Any]) -> Chunk:
    """The chunk that `to_payload` wrote."""
    values = {name: value for name, value in payload.items() if name not in ("folders", "flags")}
    values["headings"] = tuple(values["headings"])
    return Chunk(**values)


def equalities(condition: Match) -> list[tuple[str, str | int | float]]:
    """The (path, value) pairs of which one must hold."""
    path, name = field_path(condition), condition.key.partition(".")[2]
    return [("flags", _flag(name, value)) if isinstance(value, bool) else (path, value) for value in condition.values]


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
    if group != "metadata" or not name or '"' in name:
        raise QueryError(f"cannot filter on {condition.key!r}; use {', '.join(FILTER_FIELDS)} or metadata.NAME")
    return f"metadata.{name}" if _PLAIN_KEY.fullmatch(name) else f'metadata."{name}"'
