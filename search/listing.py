"""Documents without a question: those that pass a filter, newest first."""

from __future__ import annotations

from collections.abc import Collection

from search.diversity import unknown_document
from search.interpretation import documents_holding
from search.records import Chunk, Filter, Match, ScoredPoint, point_id
from search.store.base import VectorStore

_BATCH = 500


def list_documents(store: VectorStore, filter: Filter | None, without: Collection[str] = ()) -> list[tuple[str, int]]:
    """Every document with a passage that passes: its id and the number of its first such passage.

    Newest first, those without a date last, ties by ascending id. Costs one pass over the passages.

    Args:
        store: The index's.
        filter: Conditions on passages.
        without: Words and phrases of which a document may hold none.
    """
    first: dict[str, int] = {}
    dates: dict[str, str] = {}
    for row in store.iter_fields(("document_id", "number", "date"), filter=filter):
        document, number = row["document_id"], int(row["number"])
        first[document] = min(number, first.get(document, number))
        dates[document] = row.get("date") or ""
    if without:
        ids = list(first)
        for start in range(0, len(ids), _BATCH):
            for document in documents_holding(store, without, ids[start : start + _BATCH]):
                del first[document]
    by_id = sorted(first)
    return [(document, first[document]) for document in sorted(by_id, key=lambda d: dates[d], reverse=True)]


def as_points(store: VectorStore, documents: list[tuple[str, int]], offset: int = 0) -> list[ScoredPoint]:
    """Listed documents as points, scored 1 / (60 + rank)."""
    found = store.retrieve([point_id(document, number) for document, number in documents])
    return [ScoredPoint(point.chunk, 1.0 / (60 + rank)) for rank, point in enumerate(found, start=offset + 1)]


def document_chunks(store: VectorStore, document_id: str) -> list[Chunk]:
    """A document's passages in order.

    Raises:
        QueryError: There is no such document.
    """
    own = Filter((Match("document_id", (document_id,)),))
    chunks = sorted((point.chunk for point in store.iter_points(filter=own)), key=lambda chunk: chunk.number)
    if not chunks:
        raise unknown_document(document_id)
    return chunks
