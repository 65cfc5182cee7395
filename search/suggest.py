"""Did you mean: words of a query that the index does not know, and the nearest words that it does."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import regex
from rapidfuzz import process
from rapidfuzz.distance import OSA

from search.lexical import term_index, tokenize
from search.store.base import VectorStore
from search.text import has_spaces_between_words, script_of
from search.vocabulary import Word

MOST_WORDS = 40
"""Words of a query that are looked at."""
_SHORT, _LONG = 4, 8
"""From so many letters on a word may hold one error, or two."""
_LEAST = {"Hang": 5, "Deva": 3, "Beng": 3, "Gujr": 3, "Guru": 3, "Orya": 3, "Taml": 3, "Telu": 3, "Knda": 3, "Mlym": 3}
"""Fewest units of a word: those of Hangul are the parts of syllables, of Indic scripts the syllables."""
_CANDIDATES = 50
_PRIVATE = 0xF0000
_PERSONS = frozenset("أاتينאתינ")
"""First letters of Arabic and Hebrew verbs that tell the person: I, you, he, we."""
_WORD = regex.compile(r"[\p{L}\p{M}\u200c\u200d]+")
_ACCENTS = regex.compile(r"\p{Mn}+")
_GRAPHEME = regex.compile(r"\X")


def words_of(text: str) -> list[str]:
    """Words of a query, as typed, each once; none of scripts without spaces, whose words nobody has marked."""
    words = dict.fromkeys(_WORD.findall(text))
    return [word for word in words if has_spaces_between_words(script_of(word[0]))][:MOST_WORDS]


def unknown_words(store: VectorStore, text: str) -> list[str]:
    """Those words of a query that no passage holds. Costs one lexical look-up a word, on a server all at once."""
    terms = [(word, {term_index(term) for term in tokenize(word) if not term.endswith("*")}) for word in words_of(text)]
    held = store.held_terms(set().union(*(own for _, own in terms)))
    return [word for word, own in terms if not own <= held]


@dataclass(frozen=True, slots=True)
class _Choices:
    """Words of one script, and the units of each, one character a unit."""

    words: list[Word]
    units: list[str]


class Speller:
    """Finds the words of an index that are nearest to a misspelt one.

    Units of the distance are what a writer puts down in one go: letters, of Latin and Greek without accents, of Hangul
    its parts, of Indic scripts whole syllables. One of them left out, put in, changed or swapped with the next is an
    error.

    Args:
        words: Of the index.
        is_word: Whether a word is right although the index does not hold it.
    """

    def __init__(self, words: Iterable[Word], is_word: Callable[[str], bool] = lambda word: False) -> None:
        self._codes: dict[str, str] = {}
        self._is_word = is_word
        scripts: dict[str, list[Word]] = defaultdict(list)
        for word in words:
            if len(word.text) > 1:
                scripts[script_of(word.text[0])].append(word)
        self._choices = {
            script: _Choices(found, [self._units(word.text) for word in found]) for script, found in scripts.items()
        }

    def correct(self, word: str, languages: Collection[str] | None = None) -> str | None:
        """The nearest word, of several the most frequent; None where none is near or the word is right.

        Costs about 10 ms for 100,000 words.

        Args:
            word: As typed.
            languages: Of words that may be meant; None for all.
        """
        typed = unicodedata.normalize("NFKC", word).lower()
        script = script_of(typed[0])
        choices, units = self._choices.get(script), self._units(typed)
        errors = 2 if len(units) >= _LONG else 1
        if choices is None or len(units) < _LEAST.get(script, _SHORT) or self._is_word(typed):
            return None
        near = process.extract(units, choices.units, scorer=OSA.distance, score_cutoff=errors, limit=_CANDIDATES)
        found = [(distance, choices.words[place]) for _, distance, place in near]
        allowed = [
            (distance, -candidate.passages, candidate.text)
            for distance, candidate in found
            if (languages is None or candidate.lang in languages) and not _is_inflected(typed, candidate.text)
        ]
        return min(allowed)[2] if allowed else None

    def _units(self, word: str) -> str:
        """The word with one character for each unit."""
        script = script_of(word[0])
        if script in ("Hang", "Latn", "Grek"):
            parts = unicodedata.normalize("NFD", word)
            return parts if script == "Hang" else _ACCENTS.sub("", parts)
        if word.isascii() or not any(unicodedata.category(character).startswith("M") for character in word):
            return word
        graphemes = _GRAPHEME.findall(word)
        return "".join(self._codes.setdefault(g, chr(_PRIVATE + len(self._codes))) for g in graphemes)


def replace_words(query: str, corrections: dict[str, str]) -> str:
    """The query with some of its words replaced, capitals as typed."""
    for typed, meant in corrections.items():
        shown = meant.capitalize() if typed[0].isupper() else meant
        query = re.sub(rf"(?<!\w){re.escape(typed)}(?!\w)", shown.replace("\\", r"\\"), query)
    return query


def _is_inflected(typed: str, known: str) -> bool:
    """Whether one is the other with an ending, or in another person: that is likelier than an error there."""
    persons = typed[1:] == known[1:] and {typed[0], known[0]} <= _PERSONS
    return typed.startswith(known) or known.startswith(typed) or persons
