"""Questions made of held-out documents, in forms that training does not use.

    sentence     a telling sentence, taken out of its passage, has to find the document it was in, and its translations
    translation  a passage has to find the translations of its document; its own document does not compete

The inverse cloze task: Lee et al., 2019, "Latent Retrieval for Weakly Supervised Open Domain Question Answering",
section 4; here the sentence is always taken out, so that its words alone do not give the passage away.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil

from search.evaluation.questions import Question
from search.lexical import iter_words
from search.passages import iter_sentences, passage_text
from search.records import UNDETERMINED, Chunk
from search.text import has_spaces_between_words
from training.adapt.corpus import Corpus

WANTED = 300
MOST_PER_DOCUMENT = 5
_LEAST_SENTENCES = 3
_LENGTHS = {True: (5, 40), False: (10, 100)}
"""Fewest and most words of a sentence, or characters where the script has no spaces."""
_RAREST = 6


class Kind(StrEnum):
    """How a question was made."""

    SENTENCE = "sentence"
    TRANSLATION = "translation"
    GIVEN = "given"
    GIVEN_HELD_OUT = "given, about held-out documents"


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the work it is about, and what is changed for it.

    `left_out` is a document that does not compete; `cut` is the place in the corpus of the passage from which the
    sentence was taken (-1: none), and `rest` what is indexed of it without the sentence.
    """

    question: Question
    kind: Kind
    work: str
    left_out: str = ""
    cut: int = -1
    rest: str = ""


def ask(corpus: Corpus, held_out: Iterable[str]) -> list[Asked]:
    """Questions about held-out documents: of every document one or more sentences, and one passage if it is translated.

    Returns:
        By document and place in it; no passage gives two sentences.
    """
    held = frozenset(held_out)
    frequency = Counter(word for chunk in corpus.chunks for word in _words(chunk.text))
    places: dict[str, list[int]] = defaultdict(list)
    for place, chunk in enumerate(corpus.chunks):
        if chunk.document_id in held and chunk.lang != UNDETERMINED:
            places[chunk.document_id].append(place)
    each = min(MOST_PER_DOCUMENT, ceil(WANTED / max(1, len(places))))
    asked: list[Asked] = []
    for document, found in sorted(places.items()):
        sentences = [one for place in found if (one := _sentence(corpus, place, frequency))]
        asked += sentences[:: max(1, len(sentences) // each)][:each]
        asked += _translation(corpus, document, found)
    return asked


def given_questions(questions: Sequence[Question], corpus: Corpus, held_out: Iterable[str] = ()) -> list[Asked]:
    """Judged queries of the reader's own, with the works of their answers, and whether training saw none of these."""
    held = frozenset(held_out)
    asked = []
    for question in questions:
        kind = Kind.GIVEN_HELD_OUT if held.issuperset(question.relevant) else Kind.GIVEN
        work = " ".join(sorted({corpus.works[name] for name in question.relevant}))
        asked.append(Asked(question, kind, work))
    return asked


def _sentence(corpus: Corpus, place: int, frequency: Mapping[str, int]) -> Asked | None:
    chunk = corpus.chunks[place]
    found = list(iter_sentences(chunk.text, lang=chunk.lang, script=chunk.script))
    usable = [(start, end) for start, end in found if _is_usable(chunk.text[start:end], chunk)]
    if len(found) < _LEAST_SENTENCES or not usable:
        return None
    start, end = max(usable, key=lambda span: _rarity(chunk.text[span[0] : span[1]], frequency))
    left = replace(chunk, text=f"{chunk.text[:start].rstrip()} {chunk.text[end:].lstrip()}".strip())
    question = Question(chunk.id, " ".join(chunk.text[start:end].split()), chunk.lang, _answers(corpus, chunk))
    return Asked(question, Kind.SENTENCE, corpus.works[chunk.document_id], cut=place, rest=passage_text(left))


def _translation(corpus: Corpus, document: str, places: Sequence[int]) -> list[Asked]:
    """The longest passage that has a counterpart, as a question."""
    chunks = [corpus.chunks[place] for place in places]
    aligned = [chunk for chunk in chunks if corpus.place_key(chunk) != chunk.id]
    if not aligned:
        return []
    chunk = max(aligned, key=lambda one: (len(one.text), -one.number))
    relevant = {name: grade for name, grade in _answers(corpus, chunk).items() if name != document}
    question = Question(f"{chunk.id} translation", chunk.text, chunk.lang, relevant)
    return [Asked(question, Kind.TRANSLATION, corpus.works[document], left_out=document)] if relevant else []


def _answers(corpus: Corpus, chunk: Chunk) -> dict[str, float]:
    own = chunk.document_id
    return dict.fromkeys((own, *corpus.translations.get(corpus.works[own], ())), 1.0)


def _is_usable(sentence: str, chunk: Chunk) -> bool:
    spaced = has_spaces_between_words(chunk.script) and chunk.script != "Hang"
    least, most = _LENGTHS[spaced]
    size = len(sentence.split()) if spaced else sum(map(str.isalpha, sentence))
    return least <= size <= most and not _words(sentence) <= _words("\n".join((chunk.title, *chunk.headings)))


def _rarity(sentence: str, frequency: Mapping[str, int]) -> float:
    """How telling a sentence is: 1 / (1 + passages that have the word), summed over its rarest words."""
    return sum(sorted((1 / (1 + frequency.get(word, 0)) for word in _words(sentence)), reverse=True)[:_RAREST])


def _words(text: str) -> set[str]:
    return {token.text for token in iter_words(text)}
