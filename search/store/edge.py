"""Qdrant Edge: the embedded store, in process and on disk.

One process at a time may hold a shard open for writing (its write-ahead log is locked); `search.index` gives readers
views of their own. Calls hold the GIL while they run.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe

from search.errors import PanlinguaError, StoreError
from search.files import allocated_bytes, copy_sparse, copy_tree
from search.memory import trim_heap
from search.records import Chunk, Filter, Match, Point, Range, ScoredPoint, SparseVector, Vectors
from search.store.base import (
    DENSE,
    HNSW_EF,
    HNSW_EF_CONSTRUCT,
    HNSW_FROM_POINTS,
    HNSW_M,
    LEXICAL,
    OVERSAMPLING,
    UPSERT_BATCH,
    Ranked,
    check_points,
    check_query,
    check_sparse_query,
    facet_with_ties,
    search_with_ties,
)
from search.store.payload import (
    DATE_FIELDS,
    KEYWORD_FIELDS,
    POINT_ID,
    chunk_ids,
    equalities,
    field_path,
    from_payload,
    metadata_indexes,
    range_bounds,
    to_payload,
)

_SCROLL = 1000
_FLOAT_BYTES = 4
SEGMENT_POINTS = 25_000
"""After so many new points their segment is finished: one that is being filled, and finishing it, take 25 KB of memory
a point (measured), a finished one is files that are read as needed."""
_RESERVE_BYTES = 128 * 2**20
"""Free disk below which nothing is written: Edge writes through memory maps, where a full disk kills the process."""


class EdgeStore:
    """A shard on disk, opened for reading and writing.

    Args:
        path: The shard's folder; created when it does not exist or is empty.
        dimension: Length of the dense vectors.
        hnsw_from: From how many points on the graph and the int8 copies are built by `optimize`.
        segment_points: After how many new points `upsert` calls `optimize` by itself, so that the memory of a process
            that writes does not grow with the index.

    Raises:
        StoreError: The shard is held by another process, damaged, or of another dimension.
    """

    def __init__(
        self,
        path: Path,
        dimension: int,
        *,
        hnsw_from: int = HNSW_FROM_POINTS,
        segment_points: int = SEGMENT_POINTS,
    ) -> None:
        self.path = path
        self._dimension = dimension
        self._segment_points = max(hnsw_from, segment_points)
        self._options = _config(dimension, hnsw_from, self._segment_points)
        with _explained(f"cannot open the index at {path}"):
            if path.is_dir() and any(path.iterdir()):
                self._shard = qe.EdgeShard.load(str(path), self._options)
            else:
                path.mkdir(parents=True, exist_ok=True)
                _require_room(path)
                self._shard = qe.EdgeShard.create(str(path), self._options)
                self._create_field_indexes()
            info = self._shard.info()
        self._metadata_paths = {name for name in info.payload_schema if name.startswith("metadata.")}
        # A lexical vector counts as indexed at once, a dense one when its segment is finished.
        self._unfinished = max(0, 2 * info.points_count - info.indexed_vectors_count)

    @property
    def dimension(self) -> int:
        """Length D of the dense vectors."""
        return self._dimension

    def upsert(self, points: Sequence[Point]) -> None:
        """See VectorStore."""
        check_points(points, self._dimension)
        for path, is_text in metadata_indexes(points, self._metadata_paths):
            cold = qe.Memory.Cold
            kind = qe.KeywordIndexParams(memory=cold) if is_text else qe.FloatIndexParams(memory=cold)
            with _explained("cannot write to the index"):
                self._shard.update(qe.UpdateOperation.create_field_index(path, kind))
        for start in range(0, len(points), UPSERT_BATCH):
            batch = [_to_edge(point) for point in points[start : start + UPSERT_BATCH]]
            with _explained("cannot write to the index"):
                _require_room(self.path)
                self._shard.update(qe.UpdateOperation.upsert_points(batch))
            self._unfinished += len(batch)
            if self._unfinished >= self._segment_points:
                self.optimize()

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """See VectorStore."""
        if document_ids:
            chosen = qe.FieldCondition(key="document_id", match=qe.MatchAny(list(document_ids)))
            with _explained("cannot delete from the index"):
                self._shard.update(qe.UpdateOperation.delete_points_by_filter(qe.Filter(must=[chosen])))

    def search_dense(
        self, query: Vectors, *, limit: int, filter: Filter | None = None, exact: bool = False
    ) -> list[ScoredPoint]:
        """See VectorStore."""
        check_query(query, self._dimension)
        rescored = qe.QuantizationSearchParams(ignore=exact, rescore=True, oversampling=OVERSAMPLING)
        nearest = qe.Query.Nearest(query.tolist(), using=DENSE)

        def search(wanted: int, with_payload: bool) -> list[Ranked]:
            params = qe.SearchParams(hnsw_ef=max(HNSW_EF, wanted), exact=exact, quantization=rescored)
            return self._query(nearest, wanted, filter, params, with_payload)

        return search_with_ties(search, self._payloads, limit)

    def search_lexical(self, query: SparseVector, *, limit: int, filter: Filter | None = None) -> list[ScoredPoint]:
        """See VectorStore."""
        check_sparse_query(query)
        if not len(query.indices):
            return []
        nearest = qe.Query.Nearest(qe.SparseVector(query.indices.tolist(), query.values.tolist()), using=LEXICAL)

        def search(wanted: int, with_payload: bool) -> list[Ranked]:
            return self._query(nearest, wanted, filter, None, with_payload)

        return search_with_ties(search, self._payloads, limit)

    def held_terms(self, terms: Collection[int]) -> set[int]:
        """See VectorStore."""
        nearest = {term: qe.Query.Nearest(qe.SparseVector([term], [1.0]), using=LEXICAL) for term in terms}
        return {term for term, query in nearest.items() if self._query(query, 1, None, None, False)}

    def retrieve(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        """See VectorStore."""
        with _explained("cannot read from the index"):
            records = self._shard.retrieve(list(ids), True, with_vectors)
        found = {str(record.id): record for record in records}
        return [_from_edge(found[i]) for i in ids if i in found]

    def iter_points(self, *, filter: Filter | None = None, with_vectors: bool = False) -> Iterator[Point]:
        """See VectorStore."""
        offset: Any = None
        while True:
            request = qe.ScrollRequest(
                offset=offset, limit=_SCROLL, filter=_filter(filter), with_payload=True, with_vector=with_vectors
            )
            with _explained("cannot read from the index"):
                records, offset = self._shard.scroll(request)
            yield from map(_from_edge, records)
            if offset is None:
                return

    def iter_fields(self, fields: Sequence[str], *, filter: Filter | None = None) -> Iterator[Mapping[str, Any]]:
        """See VectorStore."""
        offset: Any = None
        chosen = qe.PayloadSelector.Include(list(fields))
        while True:
            request = qe.ScrollRequest(
                offset=offset, limit=_SCROLL, filter=_filter(filter), with_payload=chosen, with_vector=False
            )
            with _explained("cannot read from the index"):
                records, offset = self._shard.scroll(request)
            yield from (record.payload or {} for record in records)
            if offset is None:
                return

    def count(self, filter: Filter | None = None) -> int:
        """See VectorStore."""
        with _explained("cannot count in the index"):
            return self._shard.count(qe.CountRequest(exact=True, filter=_filter(filter)))

    def facet(self, key: str, *, filter: Filter | None = None, limit: int = 100) -> list[tuple[str, int]]:
        """See VectorStore."""
        path = field_path(Match(key, ("",)))

        def count(wanted: int) -> list[tuple[str, int]]:
            request = qe.FacetRequest(key=path, limit=wanted, exact=True, filter=_filter(filter))
            with _explained(f"cannot count the values of {key!r}"):
                return [(str(hit.value), int(hit.count)) for hit in self._shard.facet(request).hits]

        return facet_with_ties(key, count, limit)

    def flush(self) -> None:
        """See VectorStore."""
        with _explained("cannot make the index durable"):
            _require_room(self.path)
            self._shard.flush()

    def optimize(self) -> None:
        """See VectorStore."""
        with _explained("cannot optimise the index"):
            _require_room(self.path, allocated_bytes(self.path))
            self._shard.optimize()
            self._shard.flush()
        self._unfinished = 0
        self.release_memory()

    def release_memory(self) -> None:
        """See VectorStore. Edge has no call for it, so that the shard is opened again."""
        with _explained(f"cannot open the index at {self.path}"):
            self._shard.close()
            self._shard = qe.EdgeShard.load(str(self.path), self._options)
        trim_heap()

    def close(self) -> None:
        """See VectorStore."""
        self._shard.close()

    def _query(
        self, query: Any, limit: int, filter: Filter | None, params: qe.SearchParams | None, with_payload: bool
    ) -> list[Ranked]:
        request = qe.QueryRequest(
            limit=limit, query=query, filter=_filter(filter), with_payload=with_payload, params=params
        )
        with _explained("cannot search the index"):
            return [Ranked(str(hit.id), float(hit.score), hit.payload) for hit in self._shard.query(request)]

    def _payloads(self, ids: list[str]) -> Mapping[str, Mapping[str, Any]]:
        with _explained("cannot read from the index"):
            return {str(record.id): record.payload or {} for record in self._shard.retrieve(list(ids), True, False)}

    def _create_field_indexes(self) -> None:
        cold = qe.Memory.Cold
        kinds: dict[str, Any] = dict.fromkeys(KEYWORD_FIELDS, qe.KeywordIndexParams(memory=cold))
        kinds |= dict.fromkeys(DATE_FIELDS, qe.DatetimeIndexParams(memory=cold))
        for name, kind in kinds.items():
            self._shard.update(qe.UpdateOperation.create_field_index(name, kind))


def make_reader_view(shard: Path, view: Path) -> None:
    """A copy of a published shard that can be opened beside others: segments hard-linked, the log and settings its own.

    Readers never write to segments, so that linked files stay as they are; where the file system has no hard links,
    they are copied. The view goes on working when the shard it was made of is deleted.
    """

    copy_tree(shard / "segments", view / "segments", copy=_link)
    for entry in shard.iterdir():
        if entry.is_file():
            copy_sparse(entry, view / entry.name)
    if not shard.exists():  # it is renamed before it is removed, so that a view is of all of it or none
        raise FileNotFoundError(errno.ENOENT, "the generation was replaced meanwhile", str(shard))


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except FileNotFoundError:
        raise
    except OSError:
        copy_sparse(source, target)


def _config(dimension: int, hnsw_from: int, segment_points: int) -> qe.EdgeConfig:
    # Everything stays in mapped files, read as needed. Measured over 40,000 chunks in one segment, limit 100, on a
    # loaded machine: dense p50 5 to 7 ms, lexical 5 to 8 ms (pinned: 6 and 6), and 11 MB held instead of 85.
    cold = qe.Memory.Cold
    kilobytes = max(1, hnsw_from * dimension * _FLOAT_BYTES // 1024)
    dense = qe.EdgeVectorParams(
        size=dimension,
        distance=qe.Distance.Dot,
        quantization_config=qe.ScalarQuantizationConfig(type=qe.ScalarType.Int8, quantile=0.99, memory=cold),
        memory=cold,
    )
    return qe.EdgeConfig(
        vectors={DENSE: dense},
        sparse_vectors={LEXICAL: qe.EdgeSparseVectorParams(modifier=qe.Modifier.Idf, memory=cold)},
        hnsw_config=qe.HnswIndexConfig(
            m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT, full_scan_threshold=kilobytes, memory=cold
        ),
        optimizers=qe.EdgeOptimizersConfig(
            indexing_threshold=kilobytes,
            max_segment_size=segment_points * dimension * _FLOAT_BYTES // 1024,
        ),
        payload_memory=cold,
        id_tracker_memory=cold,
    )


def _to_edge(point: Point) -> qe.Point:
    """A chunk without words gets no lexical vector: stores differ in whether an empty one counts in the IDF."""
    vectors: dict[str, Any] = {DENSE: point.dense.tolist()}
    if len(point.sparse.indices):
        vectors[LEXICAL] = qe.SparseVector(point.sparse.indices.tolist(), point.sparse.values.tolist())
    return qe.Point(point.chunk.id, vectors, to_payload(point.chunk))


def _from_edge(record: Any) -> Point:
    chunk: Chunk = from_payload(record.payload)
    vectors = record.vector or {}
    sparse = vectors.get(LEXICAL)
    return Point(
        chunk,
        np.asarray(vectors.get(DENSE, ()), np.float32),
        SparseVector(
            np.asarray(sparse.indices if sparse else (), np.uint32),
            np.asarray(sparse.values if sparse else (), np.float32),
        ),
    )


def _filter(filter: Filter | None) -> qe.Filter | None:
    if filter is None or not filter.conditions:
        return None
    must: list[Any] = []
    must_not: list[Any] = []
    for condition in filter.conditions:
        if isinstance(condition, Range):
            bounds = range_bounds(condition)
            kind = qe.RangeDateTime if bounds.dates else qe.RangeFloat
            must.append(qe.FieldCondition(key=bounds.path, range=kind(gte=bounds.gte, lte=bounds.lte)))
            continue
        (must_not if condition.negate else must).append(_any_of(condition))
    return qe.Filter(must=must or None, must_not=must_not or None)


def _any_of(condition: Match) -> Any:
    if condition.key == POINT_ID:
        return qe.HasIdCondition(chunk_ids(condition))
    return qe.Filter(should=[_equals(path, value) for path, value in equalities(condition)])


def _equals(path: str, value: str | int | float) -> qe.FieldCondition:
    if isinstance(value, float):
        return qe.FieldCondition(key=path, range=qe.RangeFloat(gte=value, lte=value))
    return qe.FieldCondition(key=path, match=qe.MatchValue(value))


def _require_room(path: Path, needed_bytes: int = 0) -> None:
    free, wanted = shutil.disk_usage(path).free, needed_bytes + _RESERVE_BYTES
    if free < wanted:
        raise StoreError(
            f"the disk of {path} is nearly full: {free / 2**20:.0f} MB free, {wanted / 2**20:.0f} MB needed. "
            "Free some space and run the command again; nothing finished is lost."
        )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Edge raises bare exceptions; say what was being done, and what to do."""
    try:
        yield
    except PanlinguaError:
        raise
    except Exception as error:  # the library raises nothing more precise
        reason = str(error)
        if "WouldBlock" in reason:
            hint = "another process has it open for writing; wait for it to finish"
        elif "No space left" in reason:
            hint = "the disk is full; free some space and run the command again, nothing finished is lost"
        else:
            hint = "if it is damaged, `indexer ingest FOLDER --fresh` builds it again"
        raise StoreError(f"{what}: {reason}. {hint}") from error
