"""Lexical vectors: one small tokenizer for every script, and BM25 term weights over it.

A word gives itself and, marked with `*`, its first 4 and first 6 letters, so that inflected forms meet without knowing
the language. Accents of Latin letters are left out, since many people do not type them; a word with the letters of
Vietnamese, where they tell most words apart, keeps them, and a document gives it without them besides. A run of a
script without spaces gives its pairs of characters and its single Han characters; a run of Hangul its pairs and its
first syllable, since particles are glued to Korean words. Tried in `results/lexical.md`.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from operator import add
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import regex

from search.records import SparseVector
from search.text import SPACELESS_SCRIPTS, normalize

LEXICAL_VERSION = 2
"""Of the terms: an index of another version has to be brought up to this one before it is searched."""

K1 = 1.2
B = 0.75
AVERAGE_LENGTH = 300
"""Terms of a chunk of about 1,000 Latin letters; constant, so that a vector never depends on the other chunks."""

PREFIX_LENGTHS = (4, 6)
_CACHED_RUNS = 400_000
_CACHED_RUN_LENGTH = 24

_Span: TypeAlias = tuple[int, int]


class Token(NamedTuple):
    """A term and the characters [start, end) of the original text it came from."""

    text: str
    start: int
    end: int


def _class_of(unicode_set: str) -> str:
    """Write a set of Unicode properties as plain ranges, which the standard library's faster engine can read."""
    assigned = "".join(map(chr, chain(range(0xD800), range(0xE000, 0x323B0), range(0xE0100, 0xE01F0))))
    runs: list[str] = regex.findall(unicode_set + "+", assigned, regex.V1)
    return "[" + "".join(f"\\U{ord(run[0]):08x}-\\U{ord(run[-1]):08x}" for run in runs) + "]"


_SPACELESS = "".join(rf"\p{{scx={script}}}" for script in sorted(SPACELESS_SCRIPTS - {"Jpan"} | {"Hang"}))
_PAIRED_SET = rf"[[{_SPACELESS}]&&[\p{{L}}\p{{M}}\p{{Nl}}\u2f00-\u2fd5]--[\u0300-\u036f]]"  # PDFs hold Kangxi radicals
_PAIRED = _class_of(_PAIRED_SET)
_LETTER = _class_of(rf"[[\p{{L}}\p{{M}}\p{{N}}]--{_PAIRED_SET}--[\u02bb\u02bc]]")  # letters that are typed as ' too
_INVISIBLE = r"[\u00ad\u034f\u061c\u180e\u200d-\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
_NON_JOINER = r"(?<![\u0600-\u077f\u08a0-\u08ff])\u200c"  # ends a part of a word in Persian, belongs to it in Indic
_SYMBOL = r"[\u2600-\u27bf\u3200-\u33ff\U0001f000-\U0001f3fa\U0001f400-\U0001faff]"  # emoji and squared words
_RUN = re.compile(
    rf"{_PAIRED}(?:[\u200b-\u200d\u2060]*{_PAIRED})*"
    rf"|{_LETTER}(?:{_LETTER}+|(?:{_INVISIBLE}|{_NON_JOINER})+(?={_LETTER}))*|{_SYMBOL}"
)
_IS_PAIRED = re.compile(_PAIRED)
_IS_SYMBOL = re.compile(_SYMBOL)
_GRAPHEME = regex.compile(r"\X")

_OPTIONAL = re.compile(  # Arabic and Hebrew vowels, tatweel, the dot of a folded İ, joiners, variation selectors
    r"[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"
    r"\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0307\u034f\u200b-\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]+"
)
_GREEK = {c: unicodedata.normalize("NFD", chr(c))[0] for c in chain(range(0x386, 0x3CF), range(0x1F00, 0x2000))}
_ARABIC = str.maketrans("أإآٱىیېئکةۀہؤ", "\u0627" * 4 + "\u064a" * 4 + "\u0643" + "\u0647" * 3 + "\u0648")
_SPELLINGS = _GREEK | _ARABIC | str.maketrans("ёı", "\u0435i")
_COMPOSED = ((c, unicodedata.normalize("NFD", chr(c))[0]) for c in chain(range(0xC0, 0x250), range(0x1E00, 0x1F00)))
_LATIN = {c: base for c, base in _COMPOSED if base.isascii()} | str.maketrans(
    {"ł": "l", "đ": "d", "ð": "d", "ø": "o", "ǿ": "o", "ħ": "h", "ŧ": "t", "œ": "oe", "æ": "ae", "ǽ": "ae", "ǣ": "ae"}
)
_LOOSE_ACCENT = re.compile(r"(?<=[a-z])[\u0300-\u036f]+")
_VIETNAMESE = re.compile("[ơư\u1ea0-\u1ef9]")
_ARABIC_PREFIXES = ("وال", "بال", "كال", "فال", "ال", "لل")


def iter_tokens(text: str) -> Iterator[Token]:
    """Tokens of `text` by ascending start; the prefixes of a word span all of it.

    Offsets are into `text` as given, whatever its normalisation.
    """
    for match in _RUN.finditer(text):
        run, offset, terms = match[0], match.start(), _terms(match[0])
        spans = _pair_spans(run) if _IS_PAIRED.match(run) else [(0, len(run))] * len(terms)
        for (start, end), term in sorted(zip(spans, terms, strict=True)):
            yield Token(term, offset + start, offset + end)


def iter_words(text: str) -> Iterator[Token]:
    """Words as they are compared with one another, by ascending start: of scripts without spaces, and of Hangul, each
    grapheme.

    Their sequence is what a phrase has to occur in, whatever the case, accents, width or line breaks.
    """
    for match in _RUN.finditer(text):
        run, offset = match[0], match.start()
        if not run.isascii() and _IS_PAIRED.match(run):
            for unit, (start, end) in zip(*_units(run), strict=True):
                yield Token(unit, offset + start, offset + end)
        elif word := _fold(run):
            yield Token(word, offset, match.end())


def tokenize(text: str) -> list[str]:
    """The terms of `text` with repetitions, run by run: those of a query, and of a document but for Vietnamese."""
    return [term for run in _RUN.findall(text) for term in _terms(run)]


def document_vector(text: str) -> SparseVector:
    """BM25 term-frequency weights of a chunk; the store multiplies them by the IDF.

    A term that occurs f times in a text of n terms weighs f (k1 + 1) / (f + k1 (1 - b + b n / AVERAGE_LENGTH)): 1 for
    a term that occurs once in a text of average length.

    Returns:
        Unique ascending uint32 indices (M,) and positive float32 values (M,); M is 0 for a text without words.

    Source: Robertson and Zaragoza (2009), The Probabilistic Relevance Framework: BM25 and Beyond, section 3.4.
    Differs: the average length is a constant, and terms are hashed to 32 bits.
    """
    indices, counts = _index_counts(text, _DOCUMENT_INDICES)
    norm = K1 * (1 - B + B * counts.sum() / AVERAGE_LENGTH)
    return SparseVector(indices, (counts * (K1 + 1) / (counts + norm)).astype(np.float32))


def query_vector(text: str) -> SparseVector:
    """Weight 1 for every distinct term of a query, so that a repeated word does not drown the others."""
    indices, _ = _index_counts(text, _QUERY_INDICES)
    return SparseVector(indices, np.ones(len(indices), dtype=np.float32))


def term_index(term: str) -> int:
    """Index of a term in a sparse vector: its CRC-32, the same on every machine and in every version.

    In a vocabulary of a million terms about 116 pairs share an index; their counts are then added up (measured: 20 of
    536,732 terms).
    """
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


def _index_counts(
    text: str, indices_of: Mapping[str, tuple[int, ...]]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float64]]:
    """Distinct term indices of `text`, ascending, and how often each occurs."""
    counts = Counter(chain.from_iterable(map(indices_of.__getitem__, _RUN.findall(text))))
    indices = np.fromiter(counts.keys(), dtype=np.uint32, count=len(counts))
    values = np.fromiter(counts.values(), dtype=np.float64, count=len(counts))
    order = np.argsort(indices)
    return indices[order], values[order]


class _RunIndices(dict[str, tuple[int, ...]]):
    """Term indices per run, kept for short runs until the cache is full. Threads may share it."""

    def __init__(self, terms_of: Callable[[str], list[str]]) -> None:
        super().__init__()
        self._terms_of = terms_of

    def __missing__(self, run: str) -> tuple[int, ...]:
        indices = tuple(map(term_index, self._terms_of(run)))
        if len(run) <= _CACHED_RUN_LENGTH and len(self) < _CACHED_RUNS:
            self[run] = indices
        return indices


def _document_terms(run: str) -> list[str]:
    """Terms of one run of a document: a word that keeps its accents can be found without them too."""
    terms = _terms(run)
    plain = "" if run.isascii() or not _VIETNAMESE.search(terms[0] if terms else "") else _without_accents(terms[0])
    return [*terms, *(term for term in _terms(plain) if term not in terms)] if plain else terms


def _terms(run: str) -> list[str]:
    """Terms of one run that `_RUN` matched."""
    if not run.isascii() and _IS_PAIRED.match(run):
        units, _ = _units(run)
        return [*map(add, units, units[1:]), *(units[i] for i in _single_positions(units))]
    if not run.isascii() and _IS_SYMBOL.match(run):
        plain = normalize(run)
        return [run] if plain == run else tokenize(plain)
    word = _fold(run)
    stem = _without_arabic_prefix(word)
    prefixes = [stem[:length] + "*" for length in PREFIX_LENGTHS if len(stem) >= length]
    if stem != word and not prefixes:
        prefixes = [stem + "*"]
    return [word, *prefixes] if word else []


def _pair_spans(run: str) -> list[_Span]:
    """Where in the run each of its `_terms` stands."""
    units, spans = _units(run)
    pairs = [(left[0], right[1]) for left, right in pairwise(spans)]
    return pairs + [spans[i] for i in _single_positions(units)]


def _units(run: str) -> tuple[Sequence[str], Sequence[_Span]]:
    """Normalised graphemes of a run, and their spans in it."""
    if run.isalpha() and min(run) >= "\u2e80" and unicodedata.is_normalized("NFKC", run):
        return run, [(i, i + 1) for i in range(len(run))]
    matches = [(_OPTIONAL.sub("", normalize(match[0])), match.span()) for match in _GRAPHEME.finditer(run)]
    return [unit for unit, _ in matches if unit], [span for unit, span in matches if unit]


def _single_positions(units: Sequence[str]) -> list[int]:
    """Units that are terms by themselves: a lone one, every Han character, the syllable a Hangul run begins with."""
    if len(units) == 1:
        return [0]
    han = [i for i, unit in enumerate(units) if "\u3400" <= unit < "\ua000" or unit >= "\U00020000"]
    return [0, *han] if units and "\uac00" <= units[0] < "\ud7a4" else han


def _fold(word: str) -> str:
    """A word without what writers leave out or vary: vowel marks, letter variants, shapes of digits."""
    if word.isascii():
        return word.lower()
    folded = normalize(word)
    folded = _OPTIONAL.sub("", folded).translate(_SPELLINGS)
    if not _VIETNAMESE.search(folded):
        folded = _without_accents(folded)
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in folded)


def _without_accents(word: str) -> str:
    return _LOOSE_ACCENT.sub("", word.translate(_LATIN))


def _without_arabic_prefix(word: str) -> str:
    """The word without the Arabic article and what is written onto it, where at least three letters remain."""
    if word.startswith(_ARABIC_PREFIXES):
        prefix = next(filter(word.startswith, _ARABIC_PREFIXES))
        return word[len(prefix) :] if len(word) >= len(prefix) + 3 else word
    return word


_QUERY_INDICES = _RunIndices(_terms)
_DOCUMENT_INDICES = _RunIndices(_document_terms)
