"""What a vector store does, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from search.errors import QueryError, StoreError
from search.records import Chunk, Filter, Point, ScoredPoint, SparseVector, Vectors
from search.store.payload import from_payload

DENSE, LEXICAL = "dense", "lexical"
UPSERT_BATCH = 256
HNSW_M, HNSW_EF_CONSTRUCT, HNSW_EF = 16, 100, 128
OVERSAMPLING = 2.0
HNSW_FROM_POINTS = 20_000
"""Below so many points an exact scan is as fast as the graph, and exact."""

_MOST_TIES = 4096


class VectorStore(Protocol):
    """Chunks with a dense vector (dot product) and a lexical sparse vector (dot product weighted by the store's IDF).

    Scores are higher-is-better and those of exact search within float tolerance; ties break by ascending chunk id.
    Fusing the two lists is `search.fusion`'s: it needs both, and a store's own order of ties changes between calls.
    """

    @property
    def dimension(self) -> int:
        """Length D of the dense vectors."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points; one with the same chunk id is replaced.

        Raises:
            StoreError: A vector is not finite, has the wrong length or bad indices, or the store cannot be written.
        """

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """Remove every chunk of the given documents; unknown ids are ignored."""

    def search_dense(
        self, query: Vectors, *, limit: int, filter: Filter | None = None, exact: bool = False
    ) -> list[ScoredPoint]:
        """The `limit` chunks of the highest dot product with `query` (D,)."""

    def search_lexical(self, query: SparseVector, *, limit: int, filter: Filter | None = None) -> list[ScoredPoint]:
        """The `limit` chunks of the highest IDF-weighted dot product above 0; none for an empty query."""

    def held_terms(self, terms: Collection[int]) -> set[int]:
        """Those of some indices of lexical vectors that a chunk has."""

    def retrieve(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        """Points by chunk id in the order asked for, unknown ones left out; vectors of length 0 unless asked for."""

    def iter_points(self, *, filter: Filter | None = None, with_vectors: bool = False) -> Iterator[Point]:
        """Every point that matches, streamed by ascending id; vectors of length 0 unless asked for."""

    def iter_fields(self, fields: Sequence[str], *, filter: Filter | None = None) -> Iterator[Mapping[str, Any]]:
        """Only these fields of every chunk that matches, by ascending id: several times faster than whole points."""

    def count(self, filter: Filter | None = None) -> int:
        """Exact number of chunks that match."""

    def facet(self, key: str, *, filter: Filter | None = None, limit: int = 100) -> list[tuple[str, int]]:
        """Exact counts of the values of a keyword field, highest first, ties by value."""

    def flush(self) -> None:
        """Make everything written durable."""

    def optimize(self) -> None:
        """Build the search structures (HNSW, int8 copies). May take minutes; durable when it returns."""

    def release_memory(self) -> None:
        """Give back memory that earlier calls left behind. For the only user of a store; what is written stays."""

    def close(self) -> None:
        """Release the store; it cannot be used afterwards."""


def check_points(points: Sequence[Point], dimension: int) -> None:
    """Refuse what a store would accept silently and answer wrongly for."""
    for point in points:
        dense, sparse, where = point.dense, point.sparse, f"chunk {point.chunk.number} of {point.chunk.document_id!r}"
        if dense.shape != (dimension,):
            raise StoreError(f"{where}: the vector has shape {dense.shape}, the index holds vectors of ({dimension},)")
        if not np.isfinite(dense).all():
            raise StoreError(f"{where}: the vector holds NaN or infinity; check the encoder")
        if problem := _sparse_problem(sparse) or _payload_problem(point.chunk):
            raise StoreError(f"{where}: {problem}")


def check_query(query: Vectors, dimension: int) -> None:
    """Refuse a query vector of another length, or with NaN."""
    if query.shape != (dimension,) or not np.isfinite(query).all():
        raise QueryError(f"the query vector must be finite and of shape ({dimension},), got shape {query.shape}")


def check_sparse_query(query: SparseVector) -> None:
    """Refuse a lexical query that a store would reject or misread."""
    if problem := _sparse_problem(query):
        raise QueryError(f"not a lexical query: {problem}")


class Ranked(NamedTuple):
    """A hit as a store ranks it; `payload` is None where only the order was asked for."""

    id: str
    score: float
    payload: Mapping[str, Any] | None


def search_with_ties(
    search: Callable[[int, bool], list[Ranked]],
    fetch: Callable[[list[str]], Mapping[str, Mapping[str, Any]]],
    limit: int,
) -> list[ScoredPoint]:
    """The first `limit` hits by descending score and ascending id, also where equal scores straddle the limit.

    Stores return ties in any order; so one hit more is fetched, and many more while the last one still ties. Those come
    without payload: thousands of chunks can tie on a single word, and reading them all took 0.3 s.

    Args:
        search: Gives so many hits by descending score, with or without payload.
        fetch: Gives payloads by id.
        limit: How many hits to return.
    """
    if limit < 1:
        raise QueryError(f"the limit must be at least 1, got {limit}")
    wanted = limit + 1
    rows = search(wanted, True)
    while len(rows) == wanted < limit + _MOST_TIES and rows[-1].score == rows[limit - 1].score:
        wanted *= 4
        rows = search(wanted, False)
    best = sorted(rows, key=lambda row: (-row.score, row.id))[:limit]
    unread = [row.id for row in best if row.payload is None]
    read = fetch(unread) if unread else {}
    found = [(row.payload or read.get(row.id), row.score) for row in best]
    return [ScoredPoint(from_payload(payload), score) for payload, score in found if payload]


def facet_with_ties(key: str, count: Callable[[int], list[tuple[str, int]]], limit: int) -> list[tuple[str, int]]:
    """The first `limit` values by descending count and ascending value, also where equal counts straddle the limit."""
    if limit < 1:
        raise QueryError(f"the limit must be at least 1, got {limit}")
    wanted = limit + 1
    try:
        counts = count(wanted)
    except StoreError as error:
        if "for faceting" not in str(error):
            raise
        raise QueryError(f"values of {key!r} cannot be counted; those of fields that hold names or text can") from error
    while len(counts) == wanted and counts[-1][1] == counts[limit - 1][1]:
        wanted *= 4
        counts = count(wanted)
    held = [item for item in counts if item[1] > 0]  # a store may remember values whose points are deleted
    return sorted(held, key=lambda item: (-item[1], item[0]))[:limit]


def _sparse_problem(sparse: SparseVector) -> str | None:
    indices, values = sparse.indices, sparse.values
    if indices.shape != values.shape or (np.diff(indices.astype(np.int64)) <= 0).any():
        return "the indices of a sparse vector must be ascending, without repeats, and as many as its values"
    return None if np.isfinite(values).all() else "a sparse vector holds NaN or infinity"


def _payload_problem(chunk: Chunk) -> str | None:
    """What a store could not give back as it was."""
    texts = [chunk.document_id, chunk.text, chunk.title, chunk.source, *chunk.headings, *chunk.metadata]
    for value in chunk.metadata.values():
        texts += [item for item in (value if isinstance(value, tuple) else (value,)) if isinstance(item, str)]
    for text in texts:
        if not text.isascii() and not _is_encodable(text):
            return f"half a character (a lone surrogate) in {text[:40]!r}; remove it from the source"
    for name, value in chunk.metadata.items():
        if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
            continue
        if not isinstance(value, str | int | float):
            return (
                f"metadata {name!r} is {type(value).__name__}; text, lists of it, numbers and truth values can be kept"
            )
        if not isinstance(value, str) and not -(2**63) <= value < 2**63:
            return f"metadata {name!r} is {value}; numbers must be finite and fit into 64 bits"
    return None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
