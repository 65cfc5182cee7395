"""Names and directions of languages, and numbers and dates as their readers write them, from CLDR by way of Babel."""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Literal

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import format_decimal, format_percent

from search.records import UNDETERMINED

Direction = Literal["ltr", "rtl"]
_RIGHT_TO_LEFT_SCRIPTS = frozenset(
    {"Adlm", "Arab", "Hebr", "Mand", "Mend", "Nkoo", "Rohg", "Samr", "Syrc", "Thaa", "Yezi"}
)


@lru_cache(maxsize=512)
def language_name(code: str, *, reader: str | None = None) -> str:
    """Name of the language `code` in itself, or in the language of a `reader`; the code where CLDR has no name."""
    if code == UNDETERMINED:
        return "—"
    names = _locale(reader or code)
    name = names.languages.get(code.replace("-", "_")) if names else None
    if not name and not reader:
        return language_name(code, reader="en")
    return str(name[0].title() + name[1:]) if name else code


@lru_cache(maxsize=512)
def direction_of(code: str, script: str = "") -> Direction:
    """Writing direction, by the ISO 15924 `script` where it is known, else by the language."""
    if script and script not in ("Zyyy", "Zinh", "Zzzz"):
        return "rtl" if script in _RIGHT_TO_LEFT_SCRIPTS else "ltr"
    locale = _locale(code)
    return "rtl" if locale is not None and locale.text_direction == "rtl" else "ltr"


def number(value: float, reader: str) -> str:
    """A number with the separators of the reader's language."""
    return str(format_decimal(value, locale=_locale(reader) or Locale("en")))


def signed(value: float, reader: str) -> str:
    """A difference to one decimal place, with its sign.

    >>> signed(2.61, "de"), signed(-0.5, "en")
    ('+2,6', '-0.5')
    """
    return str(format_decimal(value, "+#,##0.0;-#,##0.0", locale=_locale(reader) or Locale("en")))


def percent(share: float, reader: str) -> str:
    """A share in [0, 1] as a percentage."""
    return str(format_percent(share, locale=_locale(reader) or Locale("en")))


def day(value: str | None, reader: str) -> str:
    """The day of an RFC 3339 time as the reader writes it; empty where there is none."""
    try:
        when = date.fromisoformat((value or "")[:10])
    except ValueError:
        return ""
    return str(format_date(when, "medium", locale=_locale(reader) or Locale("en")))


def size(count_bytes: int, reader: str) -> str:
    """Bytes as kB, MB or GB."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count_bytes >= factor:
            return f"{number(round(count_bytes / factor, 1), reader)} {unit}"
    return f"{number(round(count_bytes / 1e3), reader)} kB"


@lru_cache(maxsize=512)
def _locale(code: str) -> Locale | None:
    try:
        return Locale.parse(code, sep="-")
    except (UnknownLocaleError, ValueError):
        return None
