"""Results as files: one row, or one JSON object, for each hit."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from search.results import Hit

COLUMNS = ("rank", "score", "title", "lang", "source", "document_id", "date", "start", "end", "text")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(hits: Sequence[Hit]) -> bytes:
    """A table that spreadsheets open: UTF-8 with its mark, text that begins like a formula kept text."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for hit in hits:
        row = hit.as_json()
        writer.writerow([_as_cell(row.get(name)) for name in COLUMNS])
    return text.getvalue().encode("utf-8-sig", "replace")


def as_jsonl(hits: Sequence[Hit]) -> bytes:
    """One JSON object per line, as the command line's `--json` gives it."""
    return "".join(json.dumps(hit.as_json(), ensure_ascii=False) + "\n" for hit in hits).encode("utf-8", "replace")


def _as_cell(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return "" if value is None else value
