"""Which words tell a topic from the others of its language, without a list of stop words in any.

A word that is as frequent everywhere says nothing; one that is frequent here says what this is about. Scripts without
spaces have no words to count, so that sequences of characters stand in for them: those which different characters come
before and after, as is so of words and not of their fragments.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from search.lexical import Token, iter_words
from search.text import SPACELESS_SCRIPTS, script_of

TERMS = 5
LEAST_TEXTS = 3
"""Texts that a topic needs in a language for terms in it."""
_LENGTHS = {"Hang": (2, 5), "Hani": (2, 6), "Hira": (3, 6), "Kana": (2, 10), "Bopo": (2, 6)}
_OTHER_LENGTHS = (3, 9)
_WORD_SCRIPTS = frozenset({"Hang", "Hani", "Hira", "Kana"})
_LONG_VOWEL = "ーｰ"
_LEADING_VOWELS = frozenset("เแโใไເແໂໃໄ")
"""Of Thai and Lao: written before the consonant that they are spoken after, so that no word ends in one."""
_MOST_OF_ONE_NEIGHBOUR = 0.6
_GRAMMAR_SHARE = 0.6
"""A character in more of all texts is one of grammar, such as 的: no word begins or ends with it."""
_LEAST_GRAMMAR_TEXTS = 30
_SAME_TEXTS = 0.6
"""A longer sequence takes the place of a part of it that it shares so many texts with."""
_SHARED_PREFIX = 5
_SMOOTHING = 0.5
_LEAST_LIFT = 3.0
"""Times that a term must be more frequent in the topic than elsewhere: few words of grammar are, in few texts."""


@dataclass
class TextCounts:
    """How many texts of one topic in one language hold which term."""

    texts: int = 0
    terms: Counter[str] = field(default_factory=Counter)

    def add(self, other: TextCounts) -> None:
        """Count in the texts of another topic."""
        self.texts += other.texts
        self.terms.update(other.terms)


class Vocabulary:
    """The candidate terms of one language: how they are written, and what stands around those without spaces."""

    def __init__(self) -> None:
        self._surfaces: dict[str, Counter[str]] = defaultdict(Counter)
        self._before: dict[str, Counter[str]] = defaultdict(Counter)
        self._after: dict[str, Counter[str]] = defaultdict(Counter)
        self._characters: Counter[str] = Counter()
        self._texts = 0

    def count(self, texts: Iterable[str]) -> TextCounts:
        """Count the terms of one topic's texts, each once a text."""
        counts = TextCounts()
        for text in texts:
            counts.texts += 1
            self._texts += 1
            self._characters.update(set(text))
            counts.terms.update(set(self._iter_terms(text)))
        return counts

    def surface(self, term: str) -> str:
        """The term as texts write it most often; of equals, the one without capitals."""
        forms = self._surfaces[term]
        return max(forms, key=lambda form: (forms[form], form))

    def is_joined(self, term: str) -> bool:
        """Whether the term is a sequence of characters of a script without spaces."""
        return term in self._before

    def is_whole(self, term: str) -> bool:
        """Whether a sequence of characters is likely a word: it stands between different ones, or at an edge.

        Source: Feng et al., 2004, "Accessor Variety Criteria for Chinese Word Extraction", section 2.
        Differs: bounds the share of the commonest neighbour, since a large corpus gives every fragment some variety.
        """
        if not self.is_joined(term):
            return True
        if self._is_grammar(term[0]) or self._is_grammar(term[-1]):
            return False
        return self._varies(self._before[term]) and self._varies(self._after[term])

    def _is_grammar(self, character: str) -> bool:
        return self._texts >= _LEAST_GRAMMAR_TEXTS and self._characters[character] > _GRAMMAR_SHARE * self._texts

    def _varies(self, neighbours: Counter[str]) -> bool:
        """Whether no one character stands mostly on this side, but for those of grammar, which stand beside words."""
        counts = (count for text, count in neighbours.items() if text and not self._is_grammar(text[0]))
        return max(counts, default=0) <= _MOST_OF_ONE_NEIGHBOUR * neighbours.total()

    def _iter_terms(self, text: str) -> Iterator[str]:
        for run in _iter_runs(text):
            if len(run) == 1 and not _is_joined(run[0].text):
                word = run[0]
                if len(word.text) > 1 and any(character.isalpha() for character in word.text):
                    self._surfaces[word.text][text[word.start : word.end]] += 1
                    yield word.text
            else:
                yield from self._iter_sequences(text, run)

    def _iter_sequences(self, text: str, run: Sequence[Token]) -> Iterator[str]:
        """Terms of a run without spaces; of Hangul those it begins with, since what follows are particles."""
        script = script_of(run[0].text[0])
        least, most = _LENGTHS.get(script, _OTHER_LENGTHS)
        cuts = [i for i in range(len(run) + 1) if i == 0 or run[i - 1].text not in _LEADING_VOWELS]
        for first in cuts[:1] if script == "Hang" else cuts:
            for last in (cut for cut in cuts if first + least <= cut <= first + most):
                term = "".join(token.text for token in run[first:last])
                self._surfaces[term][text[run[first].start : run[last - 1].end]] += 1
                self._before[term][run[first - 1].text if first else ""] += 1
                self._after[term][_next(run, last)] += 1
                yield term


def telling_terms(own: TextCounts, all_topics: TextCounts, vocabulary: Vocabulary, *, count: int = TERMS) -> list[str]:
    """The terms that tell a topic from the others of its language, the most telling first, as texts write them.

    A term in a share p of the topic's texts, a share r of the other texts and a share s of all weighs
    p log(p / r) log(1 / s): nothing for a word that is as frequent everywhere.

    Source: Grootendorst, 2022, "BERTopic", section 3.3 (class-based TF-IDF).
    Differs: counts texts, not occurrences, and compares with the other topics, so that words without meaning weigh
    nothing in any language.
    """
    if own.texts < LEAST_TEXTS:
        return []
    weights = _weights(own, all_topics)
    chosen: list[str] = []
    for term in sorted(weights, key=lambda term: (-weights[term], -len(term), term)):
        if len(chosen) == count:
            break
        if vocabulary.is_whole(term):
            term = _longest(term, own, vocabulary) if vocabulary.is_joined(term) else term
            if not any(_say_the_same(term, other) for other in chosen):
                chosen.append(term)
    return [vocabulary.surface(term) for term in chosen]


def _weights(own: TextCounts, all_topics: TextCounts) -> dict[str, float]:
    others = all_topics.texts - own.texts
    weights = {}
    for term, held in own.terms.items():
        here, everywhere = held / own.texts, all_topics.terms[term]
        elsewhere = (everywhere - held + _SMOOTHING) / (others + 2 * _SMOOTHING)
        if held > 1 and here >= _LEAST_LIFT * elsewhere:
            rarity = math.log((all_topics.texts + 1) / (everywhere + _SMOOTHING))
            weights[term] = here * math.log(here / elsewhere) * rarity
    return weights


def _longest(term: str, own: TextCounts, vocabulary: Vocabulary) -> str:
    """The longest word that most of the topic's texts with this term mean by it."""
    least = max(2.0, _SAME_TEXTS * own.terms[term])
    longer = [other for other, held in own.terms.items() if held >= least and term in other]
    return max((other for other in longer if vocabulary.is_whole(other)), key=lambda other: (len(other), other))


def _say_the_same(term: str, other: str) -> bool:
    """Whether two terms are forms of one word, or one holds the other."""
    return term in other or other in term or term[:_SHARED_PREFIX] == other[:_SHARED_PREFIX]


def _iter_runs(text: str) -> Iterator[list[Token]]:
    """Words one by one, and graphemes of a script without spaces in the runs that they stand in."""
    run: list[Token] = []
    for token in iter_words(text):
        joined = _is_joined(token.text)
        if run and not (joined and token.start == run[-1].end and _same_run(run[-1].text, token.text)):
            yield run
            run = []
        run.append(token)
        if not joined:
            yield run
            run = []
    if run:
        yield run


def _is_joined(grapheme: str) -> bool:
    script = script_of(grapheme[0])
    return script == "Hang" or script in SPACELESS_SCRIPTS or grapheme[0] in _LONG_VOWEL


def _same_run(left: str, right: str) -> bool:
    """Whether two graphemes may be of one word: Japanese words change the script seldom, their endings mostly."""
    scripts = {script_of(grapheme[0]) for grapheme in (left, right) if grapheme[0] not in _LONG_VOWEL}
    return len(scripts) < 2 or not scripts & _WORD_SCRIPTS


def _next(run: Sequence[Token], place: int) -> str:
    """What comes next in a run, empty at its end; a leading vowel with the consonant that it belongs to."""
    after = "".join(token.text for token in run[place : place + 2])
    return after if after[:1] in _LEADING_VOWELS else (run[place].text if place < len(run) else "")
