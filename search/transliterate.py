"""Queries typed in Latin letters though their language has others: `kak zavarivat chay` is как заваривать чай.

A word is read as the likeliest sequence of known pieces of a script whose sounds it spells: words of the index, and
pieces of the encoder's tokenizer with their probabilities. That is a noisy channel: the tokenizer's unigram model is
the language model, the edit distance of loose spellings (`search.romanize`) the channel. The reading is believed when
it is likelier than the letters as they were typed, by the same model. Whoever calls has seen to it that the query is
in no language that is written in Latin letters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import regex
from rapidfuzz.distance import OSA

from search.pieces import Spelt
from search.romanize import loose, skeleton, writes_vowels
from search.text import has_spaces_between_words

LEAST_LETTERS = 5
MOST_WORDS = 40
DECISIVE = 10.0
"""How much the log-probability of a reading has to exceed that of the letters as typed: read wrongly are then 1.0 % of
1 to 4 words cut from queries in Latin letters, and none of the whole queries (results/transliteration.md)."""

_LONGEST_PIECE = 16
_PER_KEY = 60
_VOWEL_COST = 1.7
_LETTER_COST = 2.5
_LATIN_AMONG_OTHERS = 3.0
_AMBIGUITY = {"Hebr": 0.2}
"""Per letter, for scripts of which many words fit what is typed: consonants that stand for two sounds each."""
_PLAIN = regex.compile(r"[A-Za-zāēīōūĀĒĪŌŪ'’ʼ-]+")
"""Other accents are those of a language that is written in Latin letters."""
_WORD = regex.compile(r"[\p{L}\p{M}](?:[\p{L}\p{M}'’ʼ-]*[\p{L}\p{M}])?")

LatinScore = Callable[[str], float]
"""Log-probability of a word as it is typed."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A text in another script, and its log-probability."""

    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Transliteration:
    """What a query in Latin letters says in its language's own script (ISO 15924)."""

    text: str
    script: str


class ScriptReader:
    """Reads words in Latin letters as words of one script.

    Args:
        script: ISO 15924.
        entries: Words and pieces of words with their spellings and log-probabilities.
    """

    def __init__(self, script: str, entries: Iterable[Spelt]) -> None:
        self.script = script
        self.cost = _AMBIGUITY.get(script, 0.0)
        self._edit_cost = _LETTER_COST if writes_vowels(script) else _VOWEL_COST
        self._spaced = script == "Kore" or has_spaces_between_words(script)
        found: dict[tuple[str, bool], list[Spelt]] = defaultdict(list)
        for entry in entries:
            found[skeleton(entry.spelling, script), self._spaced and not entry.starts_word].append(entry)
        self._entries = {key: sorted(rows, key=lambda r: (-r.score, r.text))[:_PER_KEY] for key, rows in found.items()}

    def read(self, word: str) -> Reading | None:
        """The likeliest reading of a word of Latin letters; None where no sequence of pieces spells it.

        Source: the Viterbi algorithm over pieces, as in Kudo 2018, "Subword Regularization", section 3.1.
        Differs: a piece matches what sounds like it, at a price for each difference.
        """
        spelt = loose(word, self.script)
        best: list[Reading | None] = [Reading("", 0.0), *[None] * len(spelt)]
        for start in range(len(spelt)):
            before = best[start]
            for end in range(start + 1, min(len(spelt), start + _LONGEST_PIECE) + 1) if before else ():
                piece = self._likeliest(spelt[start:end], start > 0)
                known = best[end]
                if before and piece and (known is None or before.score + piece.score > known.score):
                    best[end] = Reading(before.text + piece.text, before.score + piece.score)
        return best[-1] if spelt else None

    def _likeliest(self, spelt: str, inside: bool) -> Reading | None:
        rows = self._entries.get((skeleton(spelt, self.script), self._spaced and inside), ())
        scored = [(row.score - self._edit_cost * OSA.distance(spelt, row.spelling), row.text) for row in rows]
        if not scored:
            return None
        score, text = max(scored)
        return Reading(text, score)


class Transliterator:
    """Reads queries in the scripts of one index.

    Args:
        spelt: By script, its words and pieces of words.
        latin_score: Log-probability of a word in Latin letters, by the same model as theirs.
    """

    def __init__(self, spelt: Mapping[str, Iterable[Spelt]], latin_score: LatinScore) -> None:
        self._readers = [ScriptReader(script, entries) for script, entries in sorted(spelt.items())]
        self._latin_score = latin_score

    def read(self, query: str) -> Transliteration | None:
        """The query in the script that it is likeliest meant in; None where it is likelier meant as it is typed.

        Costs a few milliseconds a word for each script of the index.

        Args:
            query: Words; only one whose letters are all Latin is read. A word that is likelier as it is typed, such as
                a name, stays.
        """
        words = _WORD.findall(query)[:MOST_WORDS]
        letters = sum(map(len, words))
        if letters < LEAST_LETTERS or not _PLAIN.fullmatch("".join(words)):
            return None
        typed = {word: self._latin_score(word) for word in words}
        readings = [
            (reader, {word: _kept_or_read(reader, word, score) for word, score in typed.items()})
            for reader in self._readers
        ]
        totals = [sum(read[word].score for word in words) - reader.cost * letters for reader, read in readings]
        best = max(range(len(totals)), key=totals.__getitem__, default=None)
        if best is None or totals[best] - sum(typed[word] for word in words) < DECISIVE:
            return None
        reader, read = readings[best]
        text = _WORD.sub(lambda match: read[match[0]].text if match[0] in read else match[0], query)
        return None if text == query else Transliteration(text, reader.script)


def _kept_or_read(reader: ScriptReader, word: str, typed: float) -> Reading:
    """A word as it is read, or as it is typed where that is likelier even in a text of the other script."""
    found = reader.read(word)
    if found is None or found.score < typed - _LATIN_AMONG_OTHERS:
        return Reading(word, typed - _LATIN_AMONG_OTHERS)
    return found
