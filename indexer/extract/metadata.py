"""Values of tables and front matters as metadata that every store can keep and filter by."""

from __future__ import annotations

import math
from datetime import date, time
from decimal import Decimal

from indexer.extract.dates import to_rfc3339
from indexer.extract.encoding import clean
from search.records import MetadataField

MOST_LABELS = 100
"""A longer list is content, such as the words of a text, and would be kept with every chunk."""
_LARGEST_NUMBER = 2**63


def metadata_field(value: object) -> MetadataField | None:
    """A value as metadata, None where it cannot be: what is nested, empty, or no number."""
    if isinstance(value, list | tuple):
        labels = tuple(clean(item) for item in value[: MOST_LABELS + 1] if isinstance(item, str) and item)
        return labels if labels and len(labels) == len(value) <= MOST_LABELS else None
    if isinstance(value, date | time):
        value = to_rfc3339(value) or value.isoformat()
    elif isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int | float) and not -_LARGEST_NUMBER <= value < _LARGEST_NUMBER:
        return str(value)  # stores keep 64 bits
    if isinstance(value, str):
        return clean(value) or None
    return value if isinstance(value, int | float) else None
