"""The small syntax of a query: `lang:de source:handbook "exact phrase" -word after:2020-01-01 year:2020 title:report`.

Reading it cannot fail. What is none of its forms, such as an unknown field, a date that is none or a lone quotation
mark, are words like any others. Colons and quotation marks may be those of other scripts: `lang：ja 「温泉」`.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import regex

from search.records import Range

_QUOTES = {"“": "”", "„": "“”‟", "«": "»", "»": "«", "「": "」", "『": "』", "‹": "›", "〝": "〞〟", "﹁": "﹂"}
_STRAIGHT = {'"': '"', "＂": "＂", "”": "”"}  # both ends alike, so that they open at the start of a word only
_FIELD = regex.compile(r"[\p{L}_][\p{L}\p{M}\p{N}_]*(?=[:：︓﹕][^\s/])")
_MINUS = "-−－﹣"
_WORD = regex.compile(r"[^\s“„«「『‹〝﹁]+|.", regex.DOTALL)
_LETTERS = regex.compile(r"[\p{L}\p{M}\p{N}\p{So}\p{Emoji_Presentation}]")
_LONGEST_PHRASE = 1_000
_YEARS = regex.compile(r"(\d{1,4})(?:\s?(?:\.\.|–|-|~|～)\s?(\d{1,4}))?")
_DATE = regex.compile(r"(\d{4})(?:[-/.](\d{1,2}))?(?:[-/.](\d{1,2}))?")


class Kind(StrEnum):
    """What a part of a query is."""

    WORDS = "words"
    PHRASE = "phrase"
    WITHOUT = "without"
    FIELD = "field"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a query: `text` without the marks of the syntax, `typed` with them.

    A FIELD has a `field` besides; with `negate` its condition must not hold.
    """

    kind: Kind
    text: str
    typed: str
    field: str = ""
    negate: bool = False


FIELD_NAMES = {
    "lang": "lang", "language": "lang",
    "source": "source", "file": "source", "folder": "source", "in": "source",
    "after": "after", "since": "after", "before": "before", "until": "until", "date": "date", "year": "year",
    "title": "title",
}  # fmt: skip
"""Names that can be typed, and the field that each means. Any other is the name of a metadata column, or words."""


def parse_query(query: str) -> list[Part]:
    """Cut a query into its parts, in the order typed; neighbouring words are one part.

    Worked: `-draft "Grüner Tee" lang:de wie` gives without `draft`, phrase `Grüner Tee`, field lang `de`, words `wie`.

    Args:
        query: Any text at all.

    Returns:
        Parts with at least a letter, digit or symbol each; whether a field's value makes sense is not looked at.
    """
    parts: list[Part] = []
    position = 0
    while position < len(query):
        if query[position].isspace():
            position += 1
            continue
        part, position = _part_at(query, position)
        if part.kind is Kind.WORDS and parts and parts[-1].kind is Kind.WORDS:
            joint = _gap(query, position, part)
            last = parts.pop()
            part = Part(Kind.WORDS, last.text + joint + part.text, last.typed + joint + part.typed)
        parts.append(part)
    return [part for part in parts if _LETTERS.search(part.text)]


def dates_of(field: str, value: str) -> Range | None:
    """The condition on `date` of after:, before:, until:, date: and year:; None when the value is no date.

    A date is a year, a month (2020-05) or a day; year: also takes 2018..2020. `after` includes the day named, `until`
    too, `before` does not.
    """
    if field == "year":
        match = _YEARS.fullmatch(value)
        years = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= years[0] <= years[1]:
            return None
        return Range("date", f"{years[0]:04d}-01-01", f"{years[1]:04d}-12-31")
    span = _days(value)
    if span is None:
        return None
    first, last = span
    if field == "before":
        return None if first == date.min else Range("date", None, (first - timedelta(days=1)).isoformat())
    return Range(
        "date",
        first.isoformat() if field in ("after", "date") else None,
        last.isoformat() if field in ("until", "date") else None,
    )


def _part_at(query: str, start: int) -> tuple[Part, int]:
    """The part that begins at `start`, and where the next one may begin."""
    at_word_start = start == 0 or query[start - 1].isspace() or not query[start - 1].isalnum()
    negate = query[start] in _MINUS and (start == 0 or query[start - 1].isspace()) and _is_glued(query, start)
    position = start + negate
    field = _FIELD.match(query, position) if at_word_start else None
    if field:
        position = field.end() + 1
    quoted = _quoted(query, position, at_word_start=at_word_start)
    if quoted:
        text, end = quoted
        kind = Kind.FIELD if field else Kind.WITHOUT if negate else Kind.PHRASE
    else:
        word = _WORD.match(query, position)
        end = word.end() if word else position
        text = query[position:end]
        kind = Kind.FIELD if field else Kind.WITHOUT if negate and _can_be_excluded(text) else Kind.WORDS
    typed = query[start:end]
    if kind is Kind.WORDS or not _LETTERS.search(text):
        return Part(Kind.WORDS, typed, typed), end
    return Part(kind, text.strip(), typed, field[0] if field else "", negate and bool(field)), end


def _is_glued(query: str, start: int) -> bool:
    """Whether something follows the character at `start` without a blank."""
    return start + 1 < len(query) and not query[start + 1].isspace()


def _gap(query: str, end: int, part: Part) -> str:
    """What stands between the words that end at `end` and those before: a blank unless they were written together."""
    before = end - len(part.typed) - 1
    return " " if before >= 0 and query[before].isspace() else ""


def _quoted(query: str, start: int, *, at_word_start: bool) -> tuple[str, int] | None:
    """Text between quotation marks that open at `start`, and where it ends; None where none open or close."""
    if start >= len(query):
        return None
    closing = _QUOTES.get(query[start], "") or (_STRAIGHT.get(query[start], "") if at_word_start else "")
    for end in range(start + 1, min(len(query), start + _LONGEST_PHRASE)) if closing else ():
        inside_a_word = query[end] in _STRAIGHT and query[end + 1 : end + 2].isalnum()  # as in Hebrew צה"ל
        if query[end] in closing and not inside_a_word:
            return query[start + 1 : end], end + 1
    return None


def _can_be_excluded(text: str) -> bool:
    """Whether a minus before `text` means "without": not before a number, nor before an option such as -x or --long."""
    if text[:1] in _MINUS or text[:1].isdigit():
        return False
    return len(text) > 1 or not text.isascii()


def _days(value: str) -> tuple[date, date] | None:
    """First and last day of a year, month or day."""
    match = _DATE.fullmatch(value)
    if not match:
        return None
    year, month, day = (int(part) if part else 0 for part in match.groups())
    try:
        first = date(year, month or 1, day or 1)
        last_month = month or 12
        return first, first if day else date(year, last_month, calendar.monthrange(year, last_month)[1])
    except ValueError:
        return None
