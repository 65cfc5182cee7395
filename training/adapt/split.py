"""Which documents are kept for judging: whole works, so that no translation of a held-out document is trained on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from search.errors import TrainingDataError
from search.records import Chunk
from training.adapt.corpus import Corpus
from training.data.cleaning import canonical_text
from training.prepare import fraction

MOST_HELD_OUT = 400
LEAST_WORKS = 5
"""Held-out works below which no interval means anything."""


def choose_held_out(corpus: Corpus, *, share: float, seed: int) -> frozenset[str]:
    """Documents to judge on: works by hash until they hold `share` of the documents, at most MOST_HELD_OUT of them.

    Raises:
        TrainingDataError: There are too few works for both sides.
    """
    members: dict[str, list[str]] = defaultdict(list)
    for document in corpus.documents:
        members[corpus.works[document]].append(document)
    wanted = min(share * len(corpus.documents), MOST_HELD_OUT)
    held: set[str] = set()
    chosen = 0
    for work in sorted(members, key=lambda name: (fraction(name, seed), name)):
        if len(held) + len(members[work]) > max(wanted, 1) and chosen >= LEAST_WORKS:
            continue
        if len(held) >= wanted and chosen >= LEAST_WORKS:
            break
        held.update(members[work])
        chosen += 1
    if len(members) < 3 * LEAST_WORKS:
        raise TrainingDataError(
            f"the {len(corpus.documents)} documents are translations of {len(members)} works; {3 * LEAST_WORKS} works "
            "or more are needed to train on some and judge on others."
        )
    return frozenset(held)


def training_chunks(corpus: Corpus, held_out: Iterable[str]) -> list[Chunk]:
    """Passages of the other documents, without those whose text stands in a held-out document too."""
    held = frozenset(held_out)
    seen = {canonical_text(chunk.text) for chunk in corpus.chunks if chunk.document_id in held}
    return [
        chunk for chunk in corpus.chunks if chunk.document_id not in held and canonical_text(chunk.text) not in seen
    ]
