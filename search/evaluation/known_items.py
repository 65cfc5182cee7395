"""Queries made of one's own documents: part of a sentence has to find the document it is from, and its translations.

They are easier than what people ask, since the words are the document's own. What they show is the difference between
languages: one in which not even this is found is served badly.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from search.evaluation.questions import Question
from search.lexical import Token, iter_words
from search.opening import OpenIndex
from search.records import UNDETERMINED, Chunk, point_id
from search.text import has_spaces_between_words, script_of

PER_LANGUAGE = 30
"""Documents of each language that a query is made of."""
MOST_WORDS = 8
MOST_CHARACTERS = 16
"""Length of a query, in words and in characters of scripts without spaces."""
_LEAST_WORDS = 3
_TRIED_CHUNKS = 3


def make_questions(index: OpenIndex, *, per_language: int = PER_LANGUAGE, seed: int = 0) -> list[Question]:
    """Make known-item queries of a sample of documents of every language.

    A query is the stretch of a passage around its rarest words, without what stands in a title. The document it is from
    is relevant, and its translations as far as they were found at ingest.

    Args:
        index: Where the documents are; costs one pass over the ids and a read of some passages.
        per_language: Documents of each language at the most.
        seed: Of the sample; the same gives the same queries as long as the index does not change.

    Returns:
        By language and document id; none of languages whose documents have no stretch that is long enough.
    """
    sample = _sample(index, per_language, seed)
    chunks = {lang: _read(index, places) for lang, places in sample.items()}
    frequency = Counter(word for found in chunks.values() for chunk in found for word in _distinct(chunk.text))
    questions = []
    for lang, found in sorted(chunks.items()):
        asked: dict[str, Question] = {}
        for chunk in found:
            text = "" if chunk.document_id in asked else salient_part(chunk, frequency)
            if text:
                relevant = dict.fromkeys((chunk.document_id, *_translations(index, chunk.document_id)), 1.0)
                asked[chunk.document_id] = Question(chunk.id, text, lang, relevant)
        questions += list(asked.values())[:per_language]
    return questions


def salient_part(chunk: Chunk, frequency: Mapping[str, int]) -> str:
    """The stretch of a line of the passage, of 8 words or 16 characters, whose words are rarest; empty if none is long.

    Args:
        chunk: A passage.
        frequency: In how many passages a word is.
    """
    known = _distinct("\n".join((chunk.title, *chunk.headings)))
    best, rarest = "", 0.0
    for line in chunk.text.splitlines():
        tokens = list(iter_words(line))
        if not tokens or _distinct(line) <= known:
            continue
        spaced = has_spaces_between_words(script_of(line[tokens[0].start]))
        length = MOST_WORDS if spaced and not _is_hangul(tokens) else MOST_CHARACTERS
        for start in range(0, max(1, len(tokens) - length + 1)):
            part = tokens[start : start + length]
            rarity = sum(1.0 / (1 + frequency.get(token.text, 0)) for token in part)
            if len(part) >= (_LEAST_WORDS if length == MOST_WORDS else MOST_CHARACTERS // 2) and rarity > rarest:
                best, rarest = line[part[0].start : part[-1].end], rarity
    return " ".join(best.split())


def _sample(index: OpenIndex, per_language: int, seed: int) -> dict[str, list[tuple[str, int]]]:
    """Some passages of some documents of each language, the documents in random order."""
    places: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in index.store.iter_fields(("document_id", "number", "lang")):
        if row["lang"] != UNDETERMINED:
            places[row["lang"]][row["document_id"]].append(row["number"])
    rng = random.Random(seed)
    chosen: dict[str, list[tuple[str, int]]] = {}
    for lang, documents in sorted(places.items()):
        names = rng.sample(sorted(documents), min(len(documents), 2 * per_language))
        chosen[lang] = [(name, number) for name in names for number in sorted(documents[name])[:_TRIED_CHUNKS]]
    return chosen


def _read(index: OpenIndex, places: Sequence[tuple[str, int]]) -> list[Chunk]:
    return [point.chunk for point in index.store.retrieve([point_id(*place) for place in places])]


def _distinct(text: str) -> set[str]:
    return {token.text for token in iter_words(text)}


def _is_hangul(tokens: Iterable[Token]) -> bool:
    return script_of(next(iter(tokens)).text[0]) == "Hang"


def _translations(index: OpenIndex, document_id: str) -> list[str]:
    """Documents of the same family, as far as translations were looked for."""
    family = index.families.of([document_id]).get(document_id)
    members = index.families.members([family]).get(family, []) if family is not None else []
    return [member.document_id for member in members]
