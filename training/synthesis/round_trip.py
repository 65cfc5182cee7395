"""Keep the queries that find their own document again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from search.errors import SettingsError
from search.records import Vectors
from training.synthesis.documents import SourceDocument, SyntheticQuery

QUERIES_PER_BLOCK = 128


class RoundTripEncoder(Protocol):
    """What the filter needs of an encoder: vectors (B, D) of unit length."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is searched with."""

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is searched in."""


@dataclass(frozen=True, slots=True)
class RoundTripReport:
    """Queries kept and dropped by form and by language; `documents` is how many there were to choose from."""

    documents: int
    top: int
    kept_by_form: dict[str, int]
    dropped_by_form: dict[str, int]
    kept_by_lang: dict[str, int]
    dropped_by_lang: dict[str, int]

    @property
    def kept(self) -> int:
        """Queries kept."""
        return sum(self.kept_by_form.values())

    @property
    def dropped(self) -> int:
        """Queries dropped."""
        return sum(self.dropped_by_form.values())


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """The queries kept, in their order, and the counts."""

    kept: tuple[SyntheticQuery, ...]
    report: RoundTripReport


def filter_round_trip(
    queries: Sequence[SyntheticQuery], documents: Sequence[SourceDocument], encoder: RoundTripEncoder, *, top: int = 10
) -> RoundTrip:
    """Keep a query when fewer than `top` other documents score higher than the best passage of its own.

    Passages that share an id, such as those of a document and of its translations, count as one document. Costs Q x N
    x D multiplications. With `top` documents or fewer everything is kept.

    Args:
        queries: Queries whose documents are among `documents`.
        documents: Passages to choose from.
        encoder: Scores queries and passages.
        top: How many documents a reader looks at.

    Raises:
        SettingsError: `top` is less than 1.

    Source: Dai et al., 2023, "Promptagator: Few-shot dense retrieval from 8 examples", section 3.2 (round-trip
    consistency, K = 1); Alberti et al., 2019, "Synthetic QA corpora generation with roundtrip consistency".
    Differs: any encoder, K = 10, passages of one document count once.
    """
    if top < 1:
        raise SettingsError(f"top is {top}; give 1 or more.")
    ranks = _ranks(queries, documents, encoder)
    kept = [rank < top for rank in ranks]
    forms: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    langs: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for query, stays in zip(queries, kept, strict=True):
        forms[stays][query.form] += 1
        langs[stays][query.lang] += 1
    counts = (dict(sorted(counter.items())) for counter in (forms[True], forms[False], langs[True], langs[False]))
    report = RoundTripReport(len({document.id for document in documents}), top, *counts)
    return RoundTrip(tuple(query for query, stays in zip(queries, kept, strict=True) if stays), report)


def _ranks(
    queries: Sequence[SyntheticQuery], documents: Sequence[SourceDocument], encoder: RoundTripEncoder
) -> list[int]:
    """For each query, how many other documents score higher than its own."""
    if not queries:
        return []
    places = {name: place for place, name in enumerate(dict.fromkeys(document.id for document in documents))}
    owners = np.array([places[document.id] for document in documents])
    order = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[order], prepend=-1))
    vectors = encoder.encode_documents([document.passage for document in documents])[order]
    ranks: list[int] = []
    for first in range(0, len(queries), QUERIES_PER_BLOCK):
        block = queries[first : first + QUERIES_PER_BLOCK]
        scores = encoder.encode_queries([query.query for query in block]) @ vectors.T
        best = np.maximum.reduceat(scores, starts, axis=1)
        own = best[np.arange(len(block)), [places[query.document.id] for query in block]]
        ranks += [int(count) for count in (best > own[:, None]).sum(axis=1)]
    return ranks
