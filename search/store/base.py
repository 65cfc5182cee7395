"""What a vector store does, whatever stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from search.errors import QueryError, StoreError
from search.records import Filter, Point, ScoredPoint, SparseVector, Vectors

DENSE, LEXICAL = "dense", "lexical"
UPSERT_BATCH = 256
HNSW_M, HNSW_EF_CONSTRUCT, HNSW_EF = 16, 100, 128
OVERSAMPLING = 2.0
HNSW_FROM_POINTS = 20_000
"""Below so many points an exact scan is as fast as the graph, and exact."""

_SPARE = 16
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

    def retrieve(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        """Points by chunk id in the order asked for, unknown ones left out; vectors of length 0 unless asked for."""

    def iter_points(self, *, filter: Filter | None = None, with_vectors: bool = False) -> Iterator[Point]:
        """Every point that matches, streamed by ascending id; vectors of length 0 unless asked for."""

    def count(self, filter: Filter | None = None) -> int:
        """Exact number of chunks that match."""

    def facet(self, key: str, *, filter: Filter | None = None, limit: int = 100) -> list[tuple[str, int]]:
        """Exact counts of the values of a keyword field, highest first, ties by value."""

    def flush(self) -> None:
        """Make everything written durable."""

    def optimize(self) -> None:
        """Build the search structures (HNSW, int8 copies). May take minutes; durable when it returns."""

    def close(self) -> None:
        """Release the store; it cannot be used afterwards."""


def check_points(points: Sequence[Point], dimension: int) -> None:
    """Refuse what a store would accept silently and answer wrongly for."""
    for point in points:
        dense, sparse, where = point.dense, point.sparse, f"chunk {point.chunk.number} of {point.chunk.document_id!r}"
        if dense.shape != (dimension,):
            raise StoreError(f"{where}: the vector has shape {dense.shape}, the index holds vectors of ({dimension},)")
        if not np.isfinite(dense).all() or not np.isfinite(sparse.values).all():
            raise StoreError(f"{where}: a vector holds NaN or infinity; check the encoder")
        if len(sparse.indices) != len(sparse.values) or (np.diff(sparse.indices.astype(np.int64)) <= 0).any():
            raise StoreError(f"{where}: the indices of a sparse vector must be ascending, without repeats")


def check_query(query: Vectors, dimension: int) -> None:
    """Refuse a query vector of another length, or with NaN."""
    if query.shape != (dimension,) or not np.isfinite(query).all():
        raise QueryError(f"the query vector must be finite and of shape ({dimension},), got shape {query.shape}")


def search_with_ties(search: Callable[[int], list[ScoredPoint]], limit: int) -> list[ScoredPoint]:
    """The first `limit` hits by descending score and ascending id, also where equal scores straddle the limit.

    Stores return ties in any order; so a few more are fetched, and more again while the last one still ties.
    """
    wanted = limit + _SPARE
    while True:
        found = sorted(search(wanted), key=lambda point: (-point.score, point.chunk.id))
        complete = len(found) < wanted or wanted >= limit + _MOST_TIES
        if complete or found[-1].score < found[limit - 1].score:
            return found[:limit]
        wanted *= 4
