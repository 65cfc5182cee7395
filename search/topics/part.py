"""The part of an index whose topics are asked for: all of it, what passes a filter, or what a query finds."""

from __future__ import annotations

from search.document_map import MAP, load_map
from search.errors import IndexFormatError, IndexNotFoundError
from search.interpretation import Interpretation, documents_holding
from search.opening import OpenIndex
from search.records import Filter, Vectors
from search.topics.find import find_topics
from search.topics.records import Topics

QUERY_CHUNKS = 500
"""Chunks nearest to a query that its topics are found in; no score tells where what it finds ends."""


def topics_of_filter(index: OpenIndex, filter: Filter | None, *, count: int | None = None) -> Topics:
    """Topics of the chunks that pass a filter; those of the whole index are read from its map where that is current."""
    if filter is None and count is None and (kept := _kept_topics(index)):
        return kept
    return find_topics(index.store.iter_points(filter=filter, with_vectors=True), index.language_map, count=count)


def topics_of_query(index: OpenIndex, asked: Interpretation, dense: Vectors, *, count: int | None = None) -> Topics:
    """Topics of the 500 chunks nearest to a query (D,) that fulfil its conditions."""
    found = index.store.search_dense(dense, limit=QUERY_CHUNKS, filter=asked.filter)
    documents = list(dict.fromkeys(point.chunk.document_id for point in found))
    rejected = documents_holding(index.store, asked.without, documents) if asked.without else set()
    ids = [point.chunk.id for point in found if point.chunk.document_id not in rejected]
    points = index.store.retrieve(sorted(ids), with_vectors=True)
    return find_topics(points, index.language_map, count=count)


def _kept_topics(index: OpenIndex) -> Topics | None:
    if index.folder is None:
        return None
    try:
        kept = load_map(index.folder / MAP, index.manifest)
    except (IndexNotFoundError, IndexFormatError):
        return None  # there are topics without a map
    return kept.topics if kept.is_current else None
