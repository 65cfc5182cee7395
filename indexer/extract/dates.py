"""Dates in the forms that documents carry them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime

_PDF = re.compile(r"^D:(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:Z|([+-])(\d\d)'?(\d\d)?)?")
_YEAR_FIRST = re.compile(r"^(\d{4})(?:\s*[-/.年]\s*(\d{1,2})(?:\s*[-/.月]\s*(\d{1,2})\s*日?)?)?\s*[年月]?$")
_DAY_FIRST = re.compile(r"^(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})$")
_NAMED = ("%d %B %Y", "%d %b %Y", "%B %d, %Y", "%b %d, %Y")
_EPOCH_MS_FROM = 100_000_000_000


def to_rfc3339(value: object) -> str | None:
    """A date as `2024-05-01T00:00:00Z`, or None where it cannot be told; a time without a zone counts as UTC."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        moment = _moment(value)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0") if moment else None
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def _moment(value: object) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, int | float):
        return _from_number(value)
    text = str(value).strip()[:100]
    if text.isdecimal() and len(text) in (10, 13):
        return _from_number(int(text))
    for parse in (_from_pattern, _from_iso, _from_mail, _from_names):
        moment = parse(text)
        if moment:
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None


def _from_number(value: float) -> datetime | None:
    if 1000 <= value <= 9999 and value == int(value):
        return datetime(int(value), 1, 1, tzinfo=UTC)
    if value < 100_000_000:
        return None
    return datetime.fromtimestamp(value / 1000 if value >= _EPOCH_MS_FROM else value, tz=UTC)


def _from_pattern(text: str) -> datetime | None:
    if match := _PDF.match(text):
        numbers = [
            int(part) if part else default for part, default in zip(match.groups()[:6], (0, 1, 1, 0, 0, 0), strict=True)
        ]
        moment = datetime(*numbers, tzinfo=UTC)  # type: ignore[arg-type, misc]  # six ints, not seen by mypy
        offset = timedelta(hours=int(match[8] or 0), minutes=int(match[9] or 0))
        return moment + offset if match[7] == "-" else moment - offset
    if match := _YEAR_FIRST.match(text):
        return datetime(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    if match := _DAY_FIRST.match(text):
        return datetime(int(match[3]), int(match[2]), int(match[1]))
    return None


def _from_iso(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text.removesuffix(" UTC"))
    except ValueError:
        return None


def _from_mail(text: str) -> datetime | None:
    try:
        return parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None


def _from_names(text: str) -> datetime | None:
    for pattern in _NAMED:
        try:
            return datetime.strptime(text, pattern)
        except ValueError:
            continue
    return None
