"""Names that are the same thing in every language: found in running text, and put into another language.

Names come from rows of bitext that hold nothing else, such as those of countries, languages and currencies. A text is
searched for names of its own language and, where that is written in Latin letters, for the English ones that it has no
other form of.

Source: Whitehouse, Christopoulou and Iacobacci, 2022, "EntityCS: Improving Zero-Shot Cross-lingual Transfer with
Entity-Centric Code Switching" (all names of a text go into one language, of those that have them all).
Differs: names are recognised by their letters, for want of links to Wikidata; texts are in any language, not in English
alone; languages are drawn by script first, so that every script counts equally.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatch
from typing import NamedTuple

import regex

from search.text import NO_SCRIPT, SPACELESS_SCRIPTS, dominant_script
from training.data.schema import BitextRow, Row

ENGLISH = "en"
MOST_WORDS = 5
LEAST_CHARACTERS = {"Hani": 2, "Kore": 2, "Jpan": 2} | dict.fromkeys(("Thai", "Laoo", "Khmr", "Mymr"), 6)
"""Of a name, by script: few where a character is a syllable, many where nothing shows where a word begins."""
LEAST_ELSEWHERE = 4
_ALTERNATIVES = regex.compile(r"\s*[;；؛]\s*")
_NO_NAME = regex.compile(r"[^\p{L}\p{M}\p{Cf}\s'’ʼ.・·-]")
_SMALL_WORDS = frozenset(("and", "of", "the"))
_WORD = regex.compile(r"\p{L}[\p{L}\p{M}]*")
_POINTS = dict.fromkeys([*range(0x64B, 0x653), 0x640])
"""Arabic marks that names are written with in lists, and without in texts."""
_SAMPLED = 4000
_WIDELY = 0.4
"""Share of the languages of the best known name: below it, Votic is a vote in French, and Shona "hear" in Bengali."""

_BEFORE = r"(?<![\w\p{M}]|[\w\p{M}][-./@:\\]|[/@\\$]|(?<=[\p{Ll}\p{M},] )\p{Lu}[\w\p{M}]* )"
_AFTER = r"(?![\w\p{M}]|[-./@:\\]\w| \p{Lu}\p{Ll})"
"""Words stand alone, in no file name, and are no part of a longer name."""
_PREFIXES = {"ar": "[وف]?[بلك]|[وف]", "he": "ו?[בלמהשכ]|ו", "am": "[የበለከ]", "ti": "[ንብ]"}
_PARTICLES = {"ko": "에서|으로|[은는이가을를의에와과도로만]"}
"""What is written together with a name and is no part of it."""
_SPACELESS_BEFORE = r"(?<![\p{LOE}\u17d2\u1039]|[\p{Katakana}ー](?=[\p{Katakana}ー]))"
_SPACELESS_AFTER = r"(?![\p{M}\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3]|(?<=[\p{Katakana}ー])[\p{Katakana}ー])"
"""No vowel of a syllable is left behind, and no katakana."""
_JAPANESE_BEFORE, _JAPANESE_AFTER = r"(?<!\p{Han}(?=\p{Han}))", r"(?!(?<=\p{Han})\p{Han})"


class Found(NamedTuple):
    """A name in a text: its characters [start, end), and its place in the list."""

    start: int
    end: int
    entry: int


class Names:
    """A list of names in many languages.

    Args:
        rows: A name each. Texts that are no names (too long or too short, with digits or brackets) are passed over; of
            alternatives ("Spanish; Castilian") the first is taken. Where a row has English, its words must begin with
            capitals: "Statue of Liberty" is a name, "key" is not, in whatever language.
        ordinary: By language, words in small letters that are ordinary ones (`count_ordinary`). A name that is spelt as
            one is left out in that language; if the language is English, in all.
    """

    def __init__(self, rows: Iterable[BitextRow], *, ordinary: Mapping[str, Collection[str]] | None = None) -> None:
        self._ordinary = ordinary or {}
        named = [_forms(row) for row in rows if _is_proper(row, self._ordinary.get(ENGLISH, ()))]
        self._forms = sorted(named, key=len, reverse=True)  # of two spelt alike, the one known in more languages
        self._matchers: dict[str, _Matcher] = {}

    def __len__(self) -> int:
        return len(self._forms)

    def find(self, text: str, lang: str) -> list[Found]:
        """Names in a text, from left to right, the longest where several begin; never a part of a word.

        A name has the case of the list, but may begin with a capital. Where a script has spaces between words, it must
        stand alone, but for prefixes in Arabic, Hebrew, Amharic and Tigrinya, and particles in Korean; inflected forms
        are not found. Costs 10 to 100 microseconds for 300 characters.

        Args:
            text: The text.
            lang: Its language (BCP-47).
        """
        base = base_language(lang)
        if base not in self._matchers:
            self._matchers[base] = _Matcher(self._names_of(base), base)
        return self._matchers[base].find(text)

    def switch(self, text: str, lang: str, *, into: Collection[str], rng: random.Random) -> str:
        """The text with all its names in one other language; as it is where no language has them all.

        Args:
            text: The text.
            lang: Its language (BCP-47).
            into: Languages that may be drawn; the text's own never is.
            rng: Draws a script of those that the languages write the name in, a language of that script, and of several
                forms one.
        """
        found = self.find(text, lang)
        shared = set.intersection(*(set(self._forms[name.entry]) for name in found)) if found else set()
        by_script: dict[str, list[str]] = defaultdict(list)
        for other in sorted(shared & {base_language(one) for one in into} - {base_language(lang)}):
            by_script[dominant_script(self._forms[found[0].entry][other][0])].append(other)
        if not by_script:
            return text
        other = rng.choice(by_script[rng.choice(sorted(by_script))])
        parts, end = [], 0
        for name in found:
            parts += [text[end : name.start], rng.choice(self._forms[name.entry][other])]
            end = name.end
        return "".join([*parts, text[end:]])

    def _names_of(self, lang: str) -> dict[str, int]:
        """Names in a language. Lists leave out forms that are as in English: a language in Latin letters has those."""
        names: dict[str, int] = {}
        for entry, forms in enumerate(self._forms):
            for name in forms.get(lang, ()):
                names.setdefault(name, entry)
        if _main_script(names) == "Latn":
            for entry, forms in enumerate(self._forms):
                for name in () if lang in forms else forms.get(ENGLISH, ()):
                    names.setdefault(name, entry)
        ordinary = self._ordinary.get(lang, ())
        return {name: entry for name, entry in names.items() if name.islower() or name.lower() not in ordinary}


class _Matcher:
    """Finds the names of one language, composed or decomposed."""

    def __init__(self, names: Mapping[str, int], lang: str) -> None:
        either = {name[:1].upper() + name[1:]: entry for name, entry in names.items()} | dict(names)
        self.entries = {unicodedata.normalize("NFD", name): entry for name, entry in either.items()} | either
        longest_first = sorted(self.entries, key=len, reverse=True)
        self.names = re.compile("|".join(map(re.escape, longest_first)))
        script = _main_script(names)
        before, after = _BEFORE, _AFTER
        if script in SPACELESS_SCRIPTS:
            before, after = _SPACELESS_BEFORE, _SPACELESS_AFTER
        if script == "Jpan":
            before, after = before + _JAPANESE_BEFORE, after + _JAPANESE_AFTER
        if lang in _PREFIXES:
            before = rf"{before}|(?<={before}(?:{_PREFIXES[lang]}))"
        if lang in _PARTICLES:
            after = rf"(?:{_PARTICLES[lang]})?{after}"
        self.before, self.after = regex.compile(before), regex.compile(after)

    def find(self, text: str) -> list[Found]:
        found: list[Found] = []
        place = 0
        while self.entries and (name := self.names.search(text, place)):
            start, end = name.span()
            if self.before.match(text, start) and self.after.match(text, end):
                found.append(Found(start, end, self.entries[name[0]]))
                place = end
            else:
                place = start + 1
        return found


def choose_names(rows: Mapping[str, Sequence[Row]], patterns: Sequence[str]) -> list[BitextRow]:
    """Bitext rows of the datasets that match any pattern, without those in few languages.

    What is little known is more often another word that is spelt alike.

    Args:
        rows: Rows by dataset.
        patterns: Names of datasets, with `*` for any characters.
    """
    found = [
        row
        for name, members in rows.items()
        if any(fnmatch(name, pattern) for pattern in patterns)
        for row in members
        if isinstance(row, BitextRow)
    ]
    most = max((len(set(row.langs)) for row in found), default=0)
    return [row for row in found if len(set(row.langs)) >= _WIDELY * most]


def count_ordinary(texts: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """By language, words that begin with a small letter more often than with a capital, in small letters.

    Costs about 20 microseconds a text, of which the first 4,000 of a language are read.

    Args:
        texts: Languages and texts.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    read: Counter[str] = Counter()
    for lang, text in texts:
        read[base_language(lang)] += 1
        if read[base_language(lang)] <= _SAMPLED:
            counts[base_language(lang)].update(_WORD.findall(text))
    return {
        lang: frozenset(word for word, n in words.items() if word.islower() and n > words[word.capitalize()])
        for lang, words in counts.items()
    }


def base_language(lang: str) -> str:
    """A language without script and region: `zh` of `zh-Hant`."""
    return lang.partition("-")[0]


def _main_script(names: Iterable[str]) -> str:
    """Script that most names are in; of Japanese, Japanese, though many names are in Han alone."""
    counts = Counter(map(dominant_script, names))
    if counts["Jpan"]:
        counts["Jpan"] += counts.pop("Hani", 0)
    return min(counts, key=lambda script: (-counts[script], script), default=NO_SCRIPT)


def _forms(row: BitextRow) -> dict[str, tuple[str, ...]]:
    """Ways to write the name, by language."""
    forms: dict[str, tuple[str, ...]] = {}
    for lang, text in zip(row.langs, row.texts, strict=True):
        name = _first(text)
        script = dominant_script(name)
        long_enough = len(name) >= LEAST_CHARACTERS.get(script, LEAST_ELSEWHERE)
        if long_enough and len(name.split()) <= MOST_WORDS and not _NO_NAME.search(name) and _is_in_one(name, script):
            forms[base_language(lang)] = tuple(dict.fromkeys((*forms.get(base_language(lang), ()), name)))
    return forms


def _first(text: str) -> str:
    return str(_ALTERNATIVES.split(unicodedata.normalize("NFC", text).translate(_POINTS))[0])


def _is_in_one(name: str, script: str) -> bool:
    """Whether all letters of a name are of one writing system."""
    return script == "Jpan" or {dominant_script(character) for character in name} <= {script, NO_SCRIPT}


def _is_proper(row: BitextRow, ordinary: Collection[str]) -> bool:
    english = [_first(text) for lang, text in zip(row.langs, row.texts, strict=True) if base_language(lang) == ENGLISH]
    return all(
        name.lower() not in ordinary and all(word[0].isupper() or word in _SMALL_WORDS for word in name.split())
        for name in english
    )
