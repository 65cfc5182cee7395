"""The words that tell a passage from others, as they are written in it."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache

import regex

from search.lexical import iter_tokens, tokenize
from search.text import has_spaces_between_words, normalize, script_of
from training.synthesis.documents import SourceDocument

_GRAPHEME = regex.compile(r"\X")
_LETTERS = regex.compile(r"[\p{L}\p{M}]+")
_LONGEST = 12
_SHORTEST = {"Hani": 2}
_SHORTEST_ELSEWHERE = 3
_MIN_LETTERS = {"Hang": 2}
_MIN_LETTERS_ELSEWHERE = 4
_JAPANESE = regex.compile(  # no numbers with their counters
    r"[一二三四五六七八九十百千数今何][\p{Han}々]*+(*SKIP)(*FAIL)|[\p{Han}々]{2,8}|[\p{Katakana}ー]{3,12}"
)
_KOREAN_VERB = re.compile("(?:다|고|면|지만|도록|게|서|지|한|하는|되는|있는|없는|할|될)$")
_KOREAN_PARTICLE = re.compile(
    "(?<=..)(?:에서는|에서|에게|에는|으로|까지|부터|이나|은|는|이|가|을|를|에|의|로|와|과|도|만|나)$"
)
_NO_WORD = re.compile(  # Thai and Lao vowels that no word begins or ends with; Chinese words of grammar at either end
    "^[\u0e2f\u0e30\u0e32\u0e33\u0e45\u0e46\u0eb0\u0eb2\u0eb3]|[\u0e40-\u0e44\u0ec0-\u0ec4]$"
    "|^[的了是在和与或不也都就而及很要会可以有个把被着过地得这那你我他它们]"
    "|[的了是在和与或不也都就而及很要会可以有个把被着过地得这那你我他它]$"
)
_COMMON_SHARE = 0.4
_COMMON_FROM = 4


class Keywords:
    """Finds the terms of a passage with the highest tf-idf, over the passages of its language.

    In scripts without spaces, where nothing marks the words, a term is a string that recurs in the passage and is not
    part of a longer one that recurs as often; in Japanese it is a run of kanji or of katakana.

    Source: Salton and Buckley, 1988, "Term-weighting approaches in automatic text retrieval" (tf x idf).
    """

    def __init__(self, documents: Iterable[SourceDocument]) -> None:
        self._frequencies: dict[str, Counter[str]] = defaultdict(Counter)
        self._counts: Counter[str] = Counter()
        for document in documents:
            self._counts[document.lang] += 1
            self._frequencies[document.lang].update(set(tokenize(document.text)))

    def top(self, document: SourceDocument, count: int) -> list[str]:
        """Up to `count` terms, best first, ties by their place in the text; fewer in a short text."""
        weights: dict[str, float] = {}
        surfaces: dict[str, Counter[str]] = defaultdict(Counter)
        for term, surface, found in self._candidates(document):
            weights[term] = weights.get(term, 0.0) + found
            surfaces[term][surface] += 1
        weighed = {term: found * self._idf(term, document.lang) for term, found in weights.items()}
        ranked = sorted((term for term in weighed if weighed[term] > 0), key=lambda term: -weighed[term])
        chosen: list[str] = []
        for term in ranked:
            surface = surfaces[term].most_common(1)[0][0]
            if not any(_overlap(surface, other) for other in chosen):
                chosen.append(surface)
            if len(chosen) == count:
                break
        return chosen

    def _candidates(self, document: SourceDocument) -> Iterator[tuple[str, str, float]]:
        """Terms with how they are written, one an occurrence."""
        spaceless: list[str] = []
        for run in _LETTERS.findall(document.text):
            script = script_of(run[0])
            if not has_spaces_between_words(script):
                spaceless.append(run)
            elif len(run) >= _MIN_LETTERS.get(script, _MIN_LETTERS_ELSEWHERE):
                if script != "Hang":
                    yield _folded(run), run, 1.0
                elif not _KOREAN_VERB.search(run):
                    word = _KOREAN_PARTICLE.sub("", normalize(run))
                    yield word, word, 1.0
        japanese = (word for run in spaceless for word in _JAPANESE.findall(run))
        found = Counter(japanese) if document.lang == "ja" else _repeats(spaceless)
        for string, occurrences in found.items():
            yield string, string, occurrences * math.log2(len(_units(string)))

    def _idf(self, term: str, lang: str) -> float:
        """Log of how rare a term is; 0 for what stands in every second passage, where there are some."""
        total, frequencies = self._counts[lang], self._frequencies[lang]
        parts = [part for part in tokenize(term) if not part.endswith("*")] or [term]
        known = min(frequencies[part] for part in parts)
        if total >= _COMMON_FROM and known > _COMMON_SHARE * total:
            return 0.0
        script = script_of(term[0])
        length = 1.0 if script == "Hang" or not has_spaces_between_words(script) else math.log2(len(term))
        return length * math.log(1 + (total + 1) / (known + 0.5))


def _repeats(runs: Iterable[str]) -> dict[str, int]:
    """Strings that occur twice or more, without those inside a longer one as frequent."""
    counts: Counter[str] = Counter()
    for run in runs:
        units = _units(run)
        for size in range(_SHORTEST.get(script_of(run[0]), _SHORTEST_ELSEWHERE), _LONGEST + 1):
            counts.update("".join(units[i : i + size]) for i in range(len(units) - size + 1))
    found = {string: n for string, n in counts.items() if n > 1}
    inner: set[str] = set()
    for string, n in found.items():
        units = _units(string)
        for part in ("".join(units[1:]), "".join(units[:-1])):
            if found.get(part) == n:
                inner.add(part)
    return {string: n for string, n in found.items() if string not in inner and not _NO_WORD.search(string)}


@lru_cache(maxsize=100_000)
def _units(run: str) -> tuple[str, ...]:
    return tuple(_GRAPHEME.findall(run))


def _folded(run: str) -> str:
    """What the forms of a word that differ in case and marks have in common."""
    whole = (token.text for token in iter_tokens(run) if token.end - token.start == len(run))
    return next((text for text in whole if not text.endswith("*")), normalize(run))


def _overlap(surface: str, other: str) -> bool:
    """Whether two terms are forms of one word or parts of each other."""
    a, b = normalize(surface), normalize(other)
    script = script_of(surface[0])
    same = 2 if script == "Hang" or not has_spaces_between_words(script) else 5
    return a in b or b in a or (a[:same] == b[:same] and len(a) > same)
