"""Which documents are translations of one another: similarities, margins, order, and their union into families.

Works on arrays alone; `indexer/translations.py` reads them from an index and keeps the outcome.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from search.records import Vectors
from search.text import normalize

Rows: TypeAlias = npt.NDArray[np.int32]
Names: TypeAlias = npt.NDArray[np.uint32]

NEIGHBOURS = 4
"""Nearest documents of the other language that a margin is relative to; Artetxe and Schwenk (2019) use 4 as well."""
LEAST_AROUND = 0.3
"""Mean similarity of a neighbourhood counts as no less: where a language has a few documents about other things, all
are far away, and a margin over nothing would say that the least far one is a translation."""
ALIGNED = 0.4
"""Chunks of two translations that belong together are at least so similar; the rest has no counterpart."""
LONGEST = 1000
"""Chunks of a document up to which each is compared; of a longer one the means of runs of chunks are."""
LEAST_MARGIN = 1.0
"""Candidates of a smaller margin are not looked at further."""
LIKELY = 0.5
PLAUSIBLE_MARGIN = 1.2
"""From this margin on, the best document of a third language counts as evidence."""
_LIKELIHOOD = (-9.5, 2.5, 10.0, -1.0, 5.0, 4.0)
"""Weights of: 1, margin, order similarity, |log of the ratio of lengths|, names, agreement; see results/fold.md."""
_BLOCK = 2048
_CROSS_SHARE = 0.25
"""Two families are one when at least so many of the pairs between them are linked: one wrong link joins no others."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_./:@+-]*[a-z0-9])?")
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_LONG_SIGNS = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile("[\u3040-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7af]")
_ETHIOPIC = re.compile("[\u1200-\u139f]")
_LETTERS_PER_SIGN = ((_LONG_SIGNS, 2.9), (_KANA, 1.5), (_HANGUL, 2.3), (_ETHIOPIC, 1.4))
"""Letters of a translation into an alphabet per sign: English over other characters in TICO-19, Wesnoth and GIMP."""
_SIMPLIFIED = "这个们来时说国对为会发过还没后给学开关点问题无动经样种进运长间电话语让请读写网络软设备输参数"
_TRADITIONAL = "這個們來時說國對為會發過還沒後給學開關點問題無動經樣種進運長間電話語讓請讀寫網絡軟設備輸參數"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Candidates: rows of two documents (P,) each, first < second, their margins (P,) and `agreement` (P,)."""

    first: Rows
    second: Rows
    margin: Vectors
    agreement: Vectors

    def __iter__(self) -> Iterator[tuple[int, int, float, float]]:
        columns = (self.first, self.second, self.margin, self.agreement)
        return zip(*(column.tolist() for column in columns), strict=True)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """For every document (N) and language (L), its nearest documents of that language.

    `rows` (L, N, K) holds them best first, -1 where there are no more; `similarity` (L, N, K) is 0 there.
    """

    rows: Rows
    similarity: Vectors


def text_length(text: str) -> float:
    """Length of `text` in letters of an alphabet: a Chinese character says as much as 2.9 letters."""
    return len(text) + sum((letters - 1.0) * len(signs.findall(text)) for signs, letters in _LETTERS_PER_SIGN)


def variety_of(lang: str, script: str, text: str) -> str:
    """The language as families tell it apart: Chinese and Serbian by script, since one work exists in both.

    Worked: zh, Hani and 這個問題 give zh-Hant; sr and Cyrl give sr-Cyrl; all else is the language.
    """
    if lang == "zh":
        traditional, simplified = (sum(map(text.count, signs)) for signs in (_TRADITIONAL, _SIMPLIFIED))
        return "zh-Hant" if traditional > simplified else "zh-Hans"
    return f"sr-{script}" if lang == "sr" else lang


def names_in(text: str) -> set[int]:
    """Hashes of what a translation leaves as it is: numbers in any digits, and words in Latin letters.

    In a text in Latin letters most of them are ordinary words, of which its translations share few; what counts is how
    many of the shorter list are in the longer one.
    """
    folded = normalize(text)
    if not folded.isascii():
        folded = _FOREIGN_DIGIT.sub(lambda digit: str(int(digit[0])), folded)
    return {zlib.crc32(name.encode()) for name in _NAME.findall(folded)}


def share_of_names(first: Names, second: Names) -> float:
    """Names that both texts have over those of the text with fewer, in [0, 1]; few names count less.

    Worked: 3 of 5 names shared with a text of 9: 3 / (5 + 3) = 0.375.
    """
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (min(len(first), len(second)) + 3.0)


def nearest_in_blocks(
    vectors: npt.NDArray[np.floating[Any]], languages: npt.NDArray[np.int32], into: Neighbours
) -> None:
    """Fill `into` exactly: every document's nearest ones of every other language.

    Costs one product of all vectors with all others, in blocks of bounded memory: 90 million pairs of 384 dimensions a
    second on one core, so 10 seconds for 30,000 documents and 2 to 3 minutes for 120,000.

    Args:
        vectors: Unit vectors (N, D) in any float type.
        languages: Language (N,) of each document, from 0 to L - 1.
        into: Arrays to fill.
    """
    members = [np.flatnonzero(languages == lang) for lang in range(len(into.rows))]
    for lang, targets in enumerate(members):
        kept = min(into.rows.shape[2], len(targets))
        right = np.asarray(vectors[targets], np.float32).T
        others = np.flatnonzero(languages != lang)
        for start in range(0, len(others), _BLOCK):
            block = others[start : start + _BLOCK]
            similar = np.asarray(vectors[block], np.float32) @ right
            best = np.sort(np.argpartition(similar, -kept, axis=1)[:, -kept:], axis=1)
            chosen = np.take_along_axis(similar, best, axis=1)
            order = np.argsort(-chosen, axis=1, kind="stable")  # ties by row
            into.rows[lang, block, :kept] = targets[np.take_along_axis(best, order, axis=1)]
            into.similarity[lang, block, :kept] = np.take_along_axis(chosen, order, axis=1)


def fill_nearest(
    vectors: npt.NDArray[np.floating[Any]],
    languages: npt.NDArray[np.int32],
    row: int,
    candidates: Sequence[int],
    into: Neighbours,
) -> None:
    """Fill `into` for one document (`row`) from candidates in other languages."""
    similar = np.asarray(vectors[candidates], np.float32) @ np.asarray(vectors[row], np.float32)
    taken = [0] * len(into.rows)
    for place in np.argsort(-similar, kind="stable").tolist():
        lang = int(languages[candidates[place]])
        if taken[lang] < into.rows.shape[2]:
            into.rows[lang, row, taken[lang]] = candidates[place]
            into.similarity[lang, row, taken[lang]] = similar[place]
            taken[lang] += 1


def mutual_nearest(near: Neighbours, languages: npt.NDArray[np.int32]) -> Pairs:
    """Pairs of documents of two languages that are each other's best by ratio margin.

    Worked: similarity 0.8, mean of the 4 nearest 0.4 on one side and 0.6 on the other: margin 0.8 / 0.5 = 1.6.

    Args:
        near: Nearest documents of each; -1 throughout for documents that were not looked at.
        languages: Language (N,) of each document.

    Returns:
        Pairs by ascending first and second row, with how far the two agree on translations in third languages: where
        they have the same in a of n languages in which either has a plausible one, (a + 1) / (n + 2) - 0.5.

    Source: Artetxe and Schwenk, 2019, "Margin-based Parallel Corpus Mining with Multilingual Sentence Embeddings",
    equation 2 with margin(a, b) = a / b, and section 3.2 (intersection of both directions).
    Differs: neighbourhoods are of one language each, since the nearest documents in all languages are translations too;
    the margin is chosen among the nearest by cosine; the mean similarity of a neighbourhood is at least LEAST_AROUND.
    """
    around = near.similarity.sum(axis=2, dtype=np.float32) / near.similarity.shape[2]
    best, margins = _best_by_margin(near, languages, np.maximum(around, LEAST_AROUND))
    langs, rows = np.nonzero(best >= 0)
    others = best[langs, rows]
    mutual = (best[languages[rows], others] == rows) & (rows < others)
    first, second, margin = rows[mutual], others[mutual], margins[langs, rows][mutual]
    order = np.lexsort((second, first))
    first, second = first[order].astype(np.int32), second[order].astype(np.int32)
    parts = range(0, len(first), _BLOCK)
    agreed = [_agreement(best, margins, languages, first[at : at + _BLOCK], second[at : at + _BLOCK]) for at in parts]
    return Pairs(first, second, margin[order], np.concatenate([*agreed, np.zeros(0, np.float32)]))


def _agreement(
    best: Rows, margins: Vectors, languages: npt.NDArray[np.int32], first: Rows, second: Rows
) -> npt.NDArray[np.float32]:
    one, other, every = best[:, first], best[:, second], np.arange(len(first))
    asked = (one >= 0) & (other >= 0) & (np.maximum(margins[:, first], margins[:, second]) >= PLAUSIBLE_MARGIN)
    asked[languages[first], every] = asked[languages[second], every] = False
    same = ((one == other) & asked).sum(axis=0)
    return np.asarray((same + 1) / (asked.sum(axis=0) + 2) - 0.5, np.float32)


def _best_by_margin(
    near: Neighbours, languages: npt.NDArray[np.int32], around: Vectors
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Best document (L, N) of each language for each document, -1 for none, and its margin."""
    best, margins = np.full(around.shape, -1, np.int32), np.zeros(around.shape, np.float32)
    every = np.arange(around.shape[1])
    for lang in range(len(around)):
        rows = near.rows[lang]
        back = around[languages[every][:, None], rows]  # of the neighbour, among documents of this one's language
        margin = np.where(rows >= 0, near.similarity[lang] / ((around[lang][:, None] + back) / 2.0), -1.0)
        chosen = margin.argmax(axis=1)
        best[lang] = rows[every, chosen]
        margins[lang] = margin[every, chosen]
    return best, margins


def order_similarity(first: Vectors, second: Vectors) -> float:
    """How well two documents say the same in the same order: the worse direction of a monotone alignment, in [-1, 1].

    Each chunk of one document is matched with one of the other so that matches never go back and their mean similarity
    is highest. What a document has beyond the other, in length or in content, lowers it.

    Worked: similarities [[0.9, 0.1], [0.2, 0.7]] give (0.9 + 0.7) / 2 = 0.8. With the rows swapped, the content goes
    back: forward the best is (0.2 + 0.9) / 2 = 0.55, the other way (0.9 + 0.1) / 2 = 0.5, so 0.5.

    Args:
        first: Unit vectors (N, D) of the chunks in order.
        second: Unit vectors (M, D).
    """
    similar = _in_runs(first) @ _in_runs(second).T
    return min(_best_path(similar), _best_path(similar.T))


def _best_path(similar: Vectors) -> float:
    total = similar[0]
    for row in similar[1:]:
        total = np.maximum.accumulate(total) + row
    return float(total.max()) / len(similar)


def align(document: Vectors, pivot: Vectors) -> Rows:
    """The place in `pivot` (M, D) of each chunk (N,) of `document` (N, D), ascending; -1 where nothing corresponds."""
    short, long = _in_runs(document), _in_runs(pivot)
    similar = short @ long.T
    places = np.empty(len(short), np.int32)
    came_from = np.zeros(similar.shape, np.int32)
    total, every = similar[0], np.arange(len(long))
    for row in range(1, len(short)):
        reached = np.maximum.accumulate(total)
        came_from[row] = np.maximum.accumulate(np.where(total == reached, every, 0))
        total = reached + similar[row]
    places[-1] = total.argmax()
    for row in range(len(short) - 1, 0, -1):
        places[row - 1] = came_from[row, places[row]]
    sure = similar[np.arange(len(short)), places] >= ALIGNED
    runs = np.arange(len(document)) * len(short) // len(document)
    if len(long) < len(pivot):
        places = places * len(pivot) // len(long)
    return np.where(sure, places, -1)[runs].astype(np.int32)


def _in_runs(vectors: Vectors) -> Vectors:
    """At most LONGEST unit vectors: of a longer document, the means of runs of chunks."""
    if len(vectors) <= LONGEST:
        return vectors
    means = np.stack([part.mean(axis=0) for part in np.array_split(vectors, LONGEST)])
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-6), np.float32)


def likelihood(margin: float, order: float, length_ratio: float, names: float, agreement: float) -> float:
    """Probability that two documents are translations of one another.

    Args:
        margin: By `mutual_nearest`.
        agreement: By `mutual_nearest`, -0.5 to 0.5; 0 where there are two languages only.
        order: By `order_similarity`.
        length_ratio: Length of one over that of the other, by `text_length`.
        names: By `share_of_names`.
    """
    features = (1.0, margin, order, abs(float(np.log(max(length_ratio, 1e-6)))), names, agreement)
    return float(1.0 / (1.0 + np.exp(-np.dot(_LIKELIHOOD, features))))


def unite(pairs: Sequence[tuple[int, int, float]], languages: Sequence[int]) -> list[list[int]]:
    """Families of two documents or more, at most one per language, from likely pairs; the likeliest are joined first.

    Two families are joined only if a quarter of the pairs between them are linked, so that one wrong link does not make
    one family out of the translations of two documents.

    Args:
        pairs: Two rows and the likelihood of their being translations.
        languages: Language of each row.

    Returns:
        Rows of each family, ascending, families by their first row.
    """
    linked: dict[int, set[int]] = defaultdict(set)
    for first, second, _ in pairs:
        linked[first].add(second)
        linked[second].add(first)
    family = {row: [row] for row in linked}
    for first, second, _ in sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1])):
        one, other = family[first], family[second]
        if one is other or {languages[row] for row in one} & {languages[row] for row in other}:
            continue
        links = sum(len(linked[row].intersection(other)) for row in one)
        if links >= _CROSS_SHARE * len(one) * len(other):
            one.extend(other)
            for row in other:
                family[row] = one
    found = {id(rows): rows for rows in family.values() if len(rows) > 1}
    return sorted(sorted(rows) for rows in found.values())
