"""Queries as they may look besides: with their names in another language, or in Latin letters.

Applied where batches are planned, so that a plan depends on the seed and on nothing else, and a run is resumed exactly.
A stream that asks for it takes queries to which it can be done and no others; other streams have the rest.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from search.errors import TrainingDataError
from training.data.schema import BitextRow, Row
from training.latin import is_latin, to_latin
from training.names import Names, base_language, choose_names, count_ordinary
from training.recipe import Objective, Stream

LangText = tuple[str, str]


class Augmentation(Protocol):
    """Another form of a query."""

    def fits(self, lang: str, text: str) -> bool:
        """Whether the query has another form."""

    def change(self, lang: str, text: str, *, other: str, rng: random.Random) -> str:
        """The other form of a query whose document is in the language `other`."""


class CodeSwitching:
    """Queries with their names in another language: entities are one across languages and scripts (`training.names`).

    Args:
        names: The names.
        into: Languages that they may be put into, but for those of the query and its document: where the document's is
            in the query, nothing has to be learnt.
        max_chars: Names behind so many characters do not count; 0: all do.
    """

    def __init__(self, names: Names, into: Iterable[str], *, max_chars: int = 0) -> None:
        self.names, self.into, self.max_chars = names, frozenset(map(base_language, into)), max_chars

    def fits(self, lang: str, text: str) -> bool:
        """Whether it holds a name."""
        return bool(self.names.find(text[: self.max_chars or None], lang))

    def change(self, lang: str, text: str, *, other: str, rng: random.Random) -> str:
        """The query with all its names in one third language."""
        return self.names.switch(text, lang, into=self.into - {base_language(other)}, rng=rng)


class Romanization:
    """Queries of other scripts in Latin letters: a text and its romanisation mean the same (`training.latin`).

    Source: Liu et al., 2024, "TransliCo: A Contrastive Learning Framework to Address the Script Barrier in Multilingual
    Pretrained Language Models" (transliteration contrastive modelling); Xhelili, Liu and Schütze, 2024,
    "Breaking the Script Barrier in Multilingual Pre-Trained Language Models with Transliteration-Based Post-Training
    Alignment".
    Differs: sentence vectors are contrasted as they are searched, without masked language modelling; anyascii and
    Sudachi spell the text, not Uroman; in streams of retrieval the romanised query meets its document.
    """

    def fits(self, lang: str, text: str) -> bool:
        """Whether it is in another script."""
        return not is_latin(text)

    def change(self, lang: str, text: str, *, other: str, rng: random.Random) -> str:
        """The query in Latin letters."""
        return to_latin(text)


def build_augmentation(
    number: int, stream: Stream, rows: Mapping[str, Sequence[Row]], texts: Iterable[LangText]
) -> Augmentation | None:
    """What a stream asks for; none where it asks for nothing.

    Args:
        number: Place of the stream.
        stream: The stream.
        rows: All rows by dataset, the names among them.
        texts: Languages and texts of the stream.

    Raises:
        TrainingDataError: There are no rows of names, or no other language to put them into.
    """
    if stream.romanize:
        return Romanization()
    if not stream.code_switch:
        return None
    named = choose_names(rows, stream.names)
    if not named:
        bitext = sorted(name for name, members in rows.items() if any(isinstance(row, BitextRow) for row in members))
        raise TrainingDataError(
            f"stream {number + 1} ({stream.objective}): no bitext for names {', '.join(stream.names)}; bitext read: "
            f"{', '.join(bitext) or 'none'}. Add the file to data.files, or change the stream's `names`."
        )
    known = list(texts)
    into = {base_language(lang) for lang, _ in known}
    needed = 3 if stream.cross_lingual == 1 or stream.objective is Objective.BITEXT else 2
    if len(into) < needed:
        raise TrainingDataError(
            f"stream {number + 1} ({stream.objective}): code_switch puts names into a language new to a pair, and "
            f"its texts are in {', '.join(sorted(into))} alone; {needed} are needed: bring more, or leave it out."
        )
    return CodeSwitching(Names(named, ordinary=count_ordinary(known)), into, max_chars=stream.max_chars)
