"""The one Unicode normaliser, and what the rest asks about scripts and graphemes."""

from __future__ import annotations

import unicodedata
from collections import Counter
from functools import lru_cache

import regex
from fontTools import unicodedata as unicode_tables  # type: ignore[import-untyped]  # it ships no types

NO_SCRIPT = "Zyyy"
_SPACELESS = "Hani Hira Kana Jpan Bopo Yiii Tang Nshu Thai Laoo Khmr Mymr Lana Tale Talu Tavt Java Bali"
SPACELESS_SCRIPTS = frozenset(_SPACELESS.split())
"""Scripts that put no space between words (Tibetan is absent: it marks every syllable)."""

_JOINERS = "\u200c\u200d"  # they tell words apart in Persian, conjuncts in Indic scripts, and join emoji
_SAMPLE = 20_000
_CONTEXT_CHARS = 32  # around a place in a text, in which its grapheme is looked for
_KANA_SHARE = 0.05  # Japanese running text is never under 20 % kana; Chinese that quotes a word of it is under 5 %
_LETTERS_PER_SYLLABLE = 2  # so that Japanese about `for` and `list` is still Japanese
_GRAPHEME = regex.compile(r"\X")
_DROPPED = regex.compile(rf"[[\p{{Cc}}\p{{Cf}}\p{{Cs}}]--[{_JOINERS}\t\n\v\f\r\x1c-\x1f\x85]]+", regex.V1)


def normalize(text: str) -> str:
    """Compatibility-composed, case-folded `text`, without control characters, invisible marks and lone surrogates.

    Two strings that a reader would call the same become equal: composed and decomposed accents, full and half width,
    upper and lower case. The joiners U+200C and U+200D stay, because they carry meaning; so do accents, and line ends.

    Source: The Unicode Standard, section 3.13, NFKC_Casefold.
    Differs: keeps the joiners and variation selectors.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not folded.isascii():
        folded = unicodedata.normalize("NFKC", folded)
    return _DROPPED.sub("", folded) if not folded.isprintable() else folded


@lru_cache(maxsize=65_536)
def script_of(character: str) -> str:
    """ISO 15924 code of one character; `Zyyy` for what every script shares (digits, punctuation, combining accents)."""
    script = unicode_tables.script(character)
    return NO_SCRIPT if script in ("Zinh", "Zzzz") else script


def script_counts(text: str) -> Counter[str]:
    """Letters of `text` per script, `Zyyy` left out."""
    counts: Counter[str] = Counter()
    for character, count in Counter(text).items():
        script = script_of(character)
        if script != NO_SCRIPT and character.isalpha():
            counts[script] += count
    return counts


def dominant_script(text: str) -> str:
    """ISO 15924 code of the script that most letters of `text` are in.

    Costs one pass over the first 20,000 characters. Japanese is `Jpan` and Korean `Kore`, however much Han they mix in;
    Chinese is `Hani`; a text without letters is `Zyyy`. Han, kana and Hangul count twice. Ties break by code.
    """
    counts = script_counts(text[:_SAMPLE])
    kana = counts.pop("Hira", 0) + counts.pop("Kana", 0)
    han = counts.pop("Hani", 0) + counts.pop("Bopo", 0)
    hangul = counts.pop("Hang", 0)
    japanese = kana > _KANA_SHARE * (kana + han)
    korean = hangul > _KANA_SHARE * (hangul + han) and hangul > kana
    counts["Kore" if korean else "Jpan" if japanese else "Hani"] += _LETTERS_PER_SYLLABLE * (kana + han + hangul)
    best = min(counts, key=lambda script: (-counts[script], script))
    return best if counts[best] else NO_SCRIPT


def has_spaces_between_words(script: str) -> bool:
    """Whether words of the ISO 15924 `script` are separated by spaces."""
    return script not in SPACELESS_SCRIPTS


def truncate_graphemes(text: str, limit: int, *, ellipsis: str = "") -> str:
    """At most `limit` characters of `text`, never cut inside what a reader sees as one character.

    A cut text ends in `ellipsis`, which counts towards the limit.
    """
    if len(text) <= limit:
        return text
    end = 0
    for grapheme in _GRAPHEME.finditer(text):
        if grapheme.end() > limit - len(ellipsis):
            break
        end = grapheme.end()
    return text[:end].rstrip() + ellipsis


def grapheme_boundary(text: str, offset: int) -> int:
    """The first offset from `offset` on that is not inside what a reader sees as one character."""
    first = max(0, offset - _CONTEXT_CHARS)
    if offset <= 0 or offset >= len(text) or text[offset - 1 : offset + 1].isascii():
        return offset
    matches = _GRAPHEME.finditer(text, first, min(len(text), offset + 4 * _CONTEXT_CHARS))
    return next((match.end() for match in matches if match.end() >= offset), offset)


def whole_graphemes(text: str, start: int, end: int) -> tuple[int, int]:
    """The smallest span around [start, end) that cuts nothing a reader sees as one character.

    Worked: in "cafe" and a combining accent, (3, 4) is (3, 5).
    """
    while start > 0 and grapheme_boundary(text, start) != start:
        start -= 1
    return start, grapheme_boundary(text, end)


def counted(number: int, noun: str) -> str:
    """`1 hit`, `2 hits`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
