"""Labels of topics: telling terms and the passage in the middle, in every language that a topic holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from search.records import UNDETERMINED, Chunk, Vectors
from search.text import has_spaces_between_words, truncate_graphemes
from search.topics.clustering import Labels
from search.topics.records import SEPARATOR, Label
from search.topics.terms import TextCounts, Vocabulary, telling_terms

TEXTS_PER_LABEL = 40
"""Texts of a topic in one language that are read for its terms: those nearest to its middle."""
_SPACED_CHARS, _SPACELESS_CHARS = 1_000, 400
_PASSAGE_CHARS = 200
_LEAST_SENTENCE_CHARS = 20

Members = dict[int, dict[str, list[int]]]
"""Rows of each topic by language, the row nearest to the middle first."""


def members_of(chunks: Sequence[Chunk], labels: Labels, similarities: Vectors) -> Members:
    """The rows of each topic by language, nearest to its centroid first."""
    members: Members = defaultdict(lambda: defaultdict(list))
    for row in np.lexsort((np.arange(len(labels)), -similarities)):
        if labels[row] >= 0:
            members[int(labels[row])][chunks[row].lang].append(int(row))
    return members


class Labeller:
    """Counts the words of every topic once, then labels topics and groups of them.

    Args:
        chunks: The sample that the topics were found on.
        members: Rows of each topic by language.
    """

    def __init__(self, chunks: Sequence[Chunk], members: Members) -> None:
        self._chunks, self._members = chunks, members
        self._vocabularies: dict[str, Vocabulary] = defaultdict(Vocabulary)
        self._counts: dict[tuple[int, str], TextCounts] = {}
        self._totals: dict[str, TextCounts] = defaultdict(TextCounts)
        for topic, by_language in members.items():
            for lang, rows in by_language.items():
                texts = [_beginning(chunks[row]) for row in rows[:TEXTS_PER_LABEL]]
                counts = self._vocabularies[lang].count(texts)
                self._counts[topic, lang] = counts
                self._totals[lang].add(counts)

    def label(self, topics: Sequence[int], languages: Mapping[str, int]) -> tuple[Label, ...]:
        """Labels of a group of topics in all its languages, most chunks first.

        Args:
            topics: One topic, or those below a parent, the largest first.
            languages: Chunks of the group by language, also those that are not in the sample.
        """
        order = sorted(languages, key=lambda lang: (lang == UNDETERMINED, -languages[lang], lang))
        labels = (self._label(topics, lang, languages[lang]) for lang in order)
        return tuple(label for label in labels if label is not None)

    def _label(self, topics: Sequence[int], lang: str, chunks: int) -> Label | None:
        own = TextCounts()
        for topic in topics:
            own.add(self._counts.get((topic, lang), TextCounts()))
        rows = [rows[0] for topic in topics if (rows := self._members[topic].get(lang))]
        if not rows:
            return None
        middle = self._chunks[rows[0]]
        terms = telling_terms(own, self._totals[lang], self._vocabularies[lang])
        return Label(lang, tuple(terms), _title(middle), _first_sentence(middle), middle.id, middle.document_id, chunks)


def language_warning(languages: Mapping[str, int], whole: Mapping[str, int], *, documents: int) -> str | None:
    """What to say where a topic is rather a language than a subject, None elsewhere.

    That is so where nearly all of the topic is in one language, which is much rarer in the whole, and where much of
    what is in this language is in this topic: a subject of which one language alone writes holds little of that.

    Args:
        languages: Chunks of the topic by language.
        whole: Chunks of everything that was clustered.
        documents: Documents of the topic; that a few of them are in one language says nothing.
    """
    chunks = sum(languages.values())
    lang = min(languages, key=lambda lang: (-languages[lang], lang))
    purity, expected = languages[lang] / chunks, whole[lang] / sum(whole.values())
    holds = languages[lang] / whole[lang]
    if documents < 5 or purity < 0.9 or expected > 0.5 or holds < 0.3:
        return None
    return (
        f"rather a language than a subject: {purity:.0%} of it is in {lang} (expected {expected:.0%}), and it holds "
        f"{holds:.0%} of all that is in {lang}"
    )


def _beginning(chunk: Chunk) -> str:
    limit = _SPACED_CHARS if has_spaces_between_words(chunk.script) else _SPACELESS_CHARS
    return f"{chunk.title}\n{chunk.text[:limit]}" if chunk.title else chunk.text[:limit]


def _title(chunk: Chunk) -> str:
    """Title and section, which tell parts of a long document apart; nothing where a file's name is all there is."""
    named = (*([] if chunk.is_named_by_file else [chunk.title]), *chunk.headings[-1:])
    return SEPARATOR.join(dict.fromkeys(" ".join(name.split()) for name in named if name))


def _first_sentence(chunk: Chunk) -> str:
    """The first sentence that says something; a title that the text begins with does not."""
    from sentencex import segment  # type: ignore[import-untyped]  # it ships no types

    text, names = " ".join(chunk.text.split()), (chunk.title, *chunk.headings[-1:])
    sentences = [sentence.strip() for sentence in segment(chunk.lang, text[: 10 * _PASSAGE_CHARS])]
    telling = [s for s in sentences if len(s) >= _LEAST_SENTENCE_CHARS and s not in names]
    return truncate_graphemes((telling or sentences or [text])[0], _PASSAGE_CHARS, ellipsis="…")
