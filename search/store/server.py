"""A Qdrant server or cluster, through its own client."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from search.errors import PanlinguaError, StoreError
from search.records import Filter, Match, Point, Range, ScoredPoint, SparseVector, Vectors, point_id
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
    FAMILY,
    FLAGS,
    FOLDERS,
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

logger = logging.getLogger(__name__)

PURPOSE, INGEST, COPY = "purpose", "ingest", "copy"
"""Kept with a collection: whether it is one to ingest into, or is filled before it becomes the index."""
INDEXED_S = 3_600.0
_SCROLL = 1000
_FLOAT_BYTES = 4
_CHUNK = models.PayloadSelectorExclude(exclude=[FAMILY, FOLDERS, FLAGS])
"""What makes a chunk, of all that is kept with it."""


class ServerStore:
    """One collection of a Qdrant server.

    Args:
        client: A connected client.
        collection: Name of the collection.
        dimension: Length of the dense vectors.
        index: Where the store is written to: what the index is called. `flush` then makes sure that the collection
            still is this index and was not encoded anew meanwhile.

    Raises:
        StoreError: The server cannot be reached, has no such collection, or it is of another shape.
    """

    def __init__(self, client: QdrantClient, collection: str, dimension: int, *, index: str | None = None) -> None:
        self.client, self.collection, self._dimension = client, collection, dimension
        with self._explained("open"):
            found = client.get_collection(collection)
        sizes = found.config.params.vectors
        size = sizes[DENSE].size if isinstance(sizes, dict) and DENSE in sizes else None
        if size != dimension:
            raise StoreError(f"the collection {collection!r} holds vectors of length {size}, not {dimension}")
        self._metadata_paths = {name for name in found.payload_schema or {} if name.startswith("metadata.")}
        self._index = index
        self.metadata = dict(found.config.metadata or {})
        """What was kept with the collection when it was opened."""

    @property
    def dimension(self) -> int:
        """Length D of the dense vectors."""
        return self._dimension

    def upsert(self, points: Sequence[Point]) -> None:
        """See VectorStore."""
        check_points(points, self._dimension)
        for path, is_text in metadata_indexes(points, self._metadata_paths):
            kind = models.PayloadSchemaType.KEYWORD if is_text else models.PayloadSchemaType.FLOAT
            with self._explained("write to"):
                self.client.create_payload_index(self.collection, path, kind, wait=True)
        for start in range(0, len(points), UPSERT_BATCH):
            batch = [_to_server(point) for point in points[start : start + UPSERT_BATCH]]
            with self._explained("write to"):
                self.client.upsert(self.collection, batch, wait=True)

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """See VectorStore."""
        if document_ids:
            chosen = models.FieldCondition(key="document_id", match=models.MatchAny(any=list(document_ids)))
            with self._explained("delete from"):
                selector = models.FilterSelector(filter=models.Filter(must=[chosen]))
                self.client.delete(self.collection, selector, wait=True)

    def search_dense(
        self, query: Vectors, *, limit: int, filter: Filter | None = None, exact: bool = False
    ) -> list[ScoredPoint]:
        """See VectorStore."""
        check_query(query, self._dimension)
        rescored = models.QuantizationSearchParams(ignore=exact, rescore=True, oversampling=OVERSAMPLING)

        def search(wanted: int, with_payload: bool) -> list[Ranked]:
            params = models.SearchParams(hnsw_ef=max(HNSW_EF, wanted), exact=exact, quantization=rescored)
            return self._query(query.tolist(), DENSE, wanted, filter, params, with_payload)

        return search_with_ties(search, self._payloads, limit)

    def search_lexical(self, query: SparseVector, *, limit: int, filter: Filter | None = None) -> list[ScoredPoint]:
        """See VectorStore."""
        check_sparse_query(query)
        if not len(query.indices):
            return []
        vector = models.SparseVector(indices=query.indices.tolist(), values=query.values.tolist())

        def search(wanted: int, with_payload: bool) -> list[Ranked]:
            return self._query(vector, LEXICAL, wanted, filter, None, with_payload)

        return search_with_ties(search, self._payloads, limit)

    def held_terms(self, terms: Collection[int]) -> set[int]:
        """See VectorStore."""
        asked, held = sorted(terms), set[int]()
        for start in range(0, len(asked), UPSERT_BATCH):
            batch = asked[start : start + UPSERT_BATCH]
            requests = [
                models.QueryRequest(query=models.SparseVector(indices=[term], values=[1.0]), using=LEXICAL, limit=1)
                for term in batch
            ]
            with self._explained("search"):
                found = self.client.query_batch_points(self.collection, requests)
            held.update(term for term, answer in zip(batch, found, strict=True) if answer.points)
        return held

    def retrieve(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        """See VectorStore."""
        with self._explained("read"):
            records = self.client.retrieve(self.collection, list(ids), with_payload=_CHUNK, with_vectors=with_vectors)
        found = {str(record.id): record for record in records}
        return [_from_server(found[i]) for i in ids if i in found]

    def iter_points(self, *, filter: Filter | None = None, with_vectors: bool = False) -> Iterator[Point]:
        """See VectorStore."""
        offset: Any = None
        while True:
            with self._explained("read"):
                records, offset = self.client.scroll(
                    self.collection, _filter(filter), limit=_SCROLL, offset=offset, with_payload=_CHUNK,
                    with_vectors=with_vectors,
                )  # fmt: skip
            yield from map(_from_server, records)
            if offset is None:
                return

    def iter_fields(self, fields: Sequence[str], *, filter: Filter | None = None) -> Iterator[Mapping[str, Any]]:
        """See VectorStore."""
        offset: Any = None
        while True:
            with self._explained("read"):
                records, offset = self.client.scroll(
                    self.collection, _filter(filter), limit=_SCROLL, offset=offset, with_payload=list(fields)
                )
            yield from (record.payload or {} for record in records)
            if offset is None:
                return

    def count(self, filter: Filter | None = None) -> int:
        """See VectorStore."""
        with self._explained("count in"):
            return int(self.client.count(self.collection, _filter(filter), exact=True).count)

    def facet(self, key: str, *, filter: Filter | None = None, limit: int = 100) -> list[tuple[str, int]]:
        """See VectorStore."""
        path = field_path(Match(key, ("",)))

        def count(wanted: int) -> list[tuple[str, int]]:
            with self._explained("count the values of"):
                hits = self.client.facet(self.collection, path, _filter(filter), limit=wanted, exact=True).hits
            return [(str(hit.value), int(hit.count)) for hit in hits]

        return facet_with_ties(key, count, limit)

    def read_notes(self, document_ids: Sequence[str], parts: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """The notes on documents, or these parts of them; see `search.server_families`."""
        found: dict[str, dict[str, Any]] = {}
        document_of = {point_id(document, 0): document for document in document_ids}
        ids = list(document_of)
        for start in range(0, len(ids), _SCROLL):
            with self._explained("read"):
                records = self.client.retrieve(
                    self.collection, ids[start : start + _SCROLL], with_payload=_note_paths(parts)
                )
            found |= {document_of[str(record.id)]: (record.payload or {}).get(FAMILY) or {} for record in records}
        return found

    def iter_notes(
        self, parts: Sequence[str] = (), *, families: Sequence[int] = ()
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Documents with their notes, or these parts of them; of these families, or all."""
        there = models.Filter(must_not=[models.IsEmptyCondition(is_empty=models.PayloadField(key=f"{FAMILY}.lang"))])
        number = models.FieldCondition(key=f"{FAMILY}.number", match=models.MatchAny(any=list(families)))
        wanted = models.Filter(must=[number]) if families else there
        offset: Any = None
        while True:
            with self._explained("read"):
                records, offset = self.client.scroll(
                    self.collection, wanted, limit=_SCROLL, offset=offset,
                    with_payload=["document_id", *_note_paths(parts)],
                )  # fmt: skip
            for record in records:
                payload = record.payload or {}
                yield str(payload["document_id"]), payload[FAMILY]
            if offset is None:
                return

    def index_notes(self) -> None:
        """Have the server find notes by family and by language."""
        with self._explained("write to"):
            number = models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=False)
            for part, kind in (("number", number), ("lang", models.PayloadSchemaType.KEYWORD)):
                self.client.create_payload_index(self.collection, f"{FAMILY}.{part}", kind, wait=True)

    def note_languages(self) -> list[str]:
        """Languages of documents that have a family, sorted."""
        alone = models.IsEmptyCondition(is_empty=models.PayloadField(key=f"{FAMILY}.number"))
        with self._explained("count the values of"):
            hits = self.client.facet(
                self.collection, f"{FAMILY}.lang", models.Filter(must_not=[alone]), limit=_SCROLL, exact=True
            ).hits
        return sorted(str(hit.value) for hit in hits if hit.count)

    def write_notes(self, notes: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the notes on documents in place of those that there are; a document that is gone is passed over."""
        rows = list(notes.items())
        for start in range(0, len(rows), UPSERT_BATCH):
            operations: list[models.UpdateOperation] = [
                models.SetPayloadOperation(
                    set_payload=models.SetPayload(
                        payload={FAMILY: dict(note)},
                        filter=models.Filter(must=[models.HasIdCondition(has_id=[point_id(document, 0)])]),
                    )
                )
                for document, note in rows[start : start + UPSERT_BATCH]
            ]
            with self._explained("write to"):
                self.client.batch_update_points(self.collection, operations, wait=True)

    def flush(self) -> None:
        """See VectorStore. Every write waits until the server has it; here is made sure that it counts.

        Raises:
            StoreError: Another machine encoded the index anew, or replaced it.
        """
        if self._index is None:
            return
        current, metadata = find_collection(self.client, self._index), metadata_of(self.client, self.collection)
        state = [(found.get("id"), epoch_of(found)) for found in (metadata, self.metadata)]
        if current != self.collection or state[0] != state[1]:
            raise StoreError(f"another machine encodes {self._index!r} anew, or has done so; run this again afterwards")

    def optimize(self) -> None:
        """Nothing to do: the server optimises by itself, beside the searches."""

    def release_memory(self) -> None:
        """Nothing to do: the memory is the server's."""

    def close(self) -> None:
        """See VectorStore."""
        self.client.close()

    def _query(
        self,
        query: Any,
        using: str,
        limit: int,
        filter: Filter | None,
        params: models.SearchParams | None,
        with_payload: bool,
    ) -> list[Ranked]:
        with self._explained("search"):
            hits = self.client.query_points(
                self.collection,
                query=query,
                using=using,
                limit=limit,
                query_filter=_filter(filter),
                search_params=params,
                with_payload=_CHUNK if with_payload else False,
            ).points
        return [Ranked(str(hit.id), float(hit.score), hit.payload if with_payload else None) for hit in hits]

    def _payloads(self, ids: list[str]) -> Mapping[str, Mapping[str, Any]]:
        with self._explained("read"):
            records = self.client.retrieve(self.collection, ids, with_payload=_CHUNK)
        return {str(record.id): record.payload or {} for record in records}

    def _explained(self, verb: str) -> AbstractContextManager[None]:
        return _explained(verb, self.collection)


def connect(url: str, api_key: str | None = None, *, timeout_s: int = 60) -> QdrantClient:
    """A client for the server at `url`; whether it answers shows with the first call.

    Raises:
        StoreError: The URL is not one.
    """
    try:
        return QdrantClient(url=url, api_key=api_key, timeout=timeout_s, check_compatibility=False)
    except ValueError as error:
        raise StoreError(f"{url!r} is no URL of a Qdrant server; give one such as http://localhost:6333") from error


def find_collection(client: QdrantClient, name: str) -> str | None:
    """The collection that an index is in: the one that the alias `name` points at, or one of this very name.

    Returns:
        Its own name; None where there is none.
    """
    with _explained("look for", name):
        found = _aliases(client).get(name)
        return found or (name if client.collection_exists(name) else None)


def collections_of(client: QdrantClient, name: str) -> dict[int, str]:
    """All collections that were made for the index `name`, by their number."""
    with _explained("look for", name):
        found = [description.name for description in client.get_collections().collections]
    numbers = {collection: collection.removeprefix(f"{name}@") for collection in found}
    return {
        int(number): collection for collection, number in numbers.items()
        if number != collection and number.isdecimal()
    }  # fmt: skip


def open_collection(client: QdrantClient, name: str, dimension: int) -> ServerStore:
    """The collection of the index `name` to write to, made where there is none; several processes may do so at once."""
    found = find_collection(client, name)
    if found is None:
        found = f"{name}@1"
        with _explained("look for", found):
            there = client.collection_exists(found)
        if not (there or _create(client, found, dimension, {PURPOSE: INGEST})):
            there = True
        if there and ((kept := metadata_of(client, found)).get(PURPOSE) != INGEST or "manifest" in kept):
            raise StoreError(
                f"the server has {found!r}, but no index {name!r}: it was lost, or something else is under way. Push "
                "again with --replace, or give --fresh to remove what is there."
            )
        _create_field_indexes(client, found)
        move_alias(client, name, found)
    return ServerStore(client, found, dimension, index=name)


def add_collection(
    client: QdrantClient, name: str, dimension: int, *, shards: int | None = None, replicas: int | None = None
) -> ServerStore:
    """A further collection for the index `name`, which becomes that index by `move_alias`."""
    number = max(collections_of(client, name), default=1)  # the first is that of an ingest
    made = False
    while not made:
        number += 1
        made = _create(client, f"{name}@{number}", dimension, {PURPOSE: COPY}, shards=shards, replicas=replicas)
    _create_field_indexes(client, f"{name}@{number}")
    return ServerStore(client, f"{name}@{number}", dimension)


def add_like(client: QdrantClient, name: str, collection: str, dimension: int) -> ServerStore:
    """A further collection for the index `name`, in as many shards and copies as `collection` is."""
    with _explained("read", collection):
        found = client.get_collection(collection).config.params
    return add_collection(
        client, name, dimension, shards=found.shard_number or None, replicas=found.replication_factor or None
    )


def wait_until_indexed(store: ServerStore, *, limit_s: float = INDEXED_S) -> None:
    """Wait until the server has built what it searches a collection by, or it takes too long."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        with _explained("look at", store.collection):
            if store.client.get_collection(store.collection).status is not models.CollectionStatus.YELLOW:
                return
        time.sleep(1.0)
    logger.warning("the server still builds the graph of %s; searches are slow until it has", store.collection)


def move_alias(client: QdrantClient, name: str, collection: str) -> None:
    """Make `collection` the index `name`, in one step.

    A collection of this very name, which an earlier version made, is dropped first: an alias cannot be called so.
    """
    with _explained("switch to", collection):
        aliased = name in _aliases(client)
        if not aliased and client.collection_exists(name):
            client.delete_collection(name)
        made = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=collection, alias_name=name))
        gone = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
        client.update_collection_aliases([gone, made] if aliased else [made])
        client.update_collection(collection, metadata={PURPOSE: INGEST})


def drop_others(client: QdrantClient, name: str, collections: Iterable[str]) -> None:
    """Delete collections, but for the one that is the index `name` now."""
    current = find_collection(client, name)
    drop_collections(client, [collection for collection in collections if collection != current])


def give_id(client: QdrantClient, collection: str) -> dict[str, Any]:
    """What is kept with a collection, which gets an id where an earlier version made it without."""
    metadata = metadata_of(client, collection)
    if "id" in metadata:
        return metadata
    write_metadata(client, collection, {"id": uuid.uuid4().hex})
    return metadata_of(client, collection)


def renew_collection(client: QdrantClient, name: str, dimension: int) -> None:
    """Give the index `name` an empty collection in place of all that it has.

    Never one of the same name: another machine may still be writing to that.
    """
    before = {*collections_of(client, name).values(), find_collection(client, name) or name}
    move_alias(client, name, add_collection(client, name, dimension).collection)
    drop_others(client, name, before)


def drop_collections(client: QdrantClient, collections: Iterable[str]) -> None:
    """Delete collections with everything in them."""
    for collection in collections:
        with _explained("delete", collection):
            client.delete_collection(collection)


def epoch_of(metadata: Mapping[str, Any]) -> int:
    """How often a collection was copied to another encoder's; what is written in an epoch is in the copies after it."""
    return int(metadata.get("epoch", 0))


def read_metadata(client: QdrantClient, name: str) -> dict[str, Any]:
    """Plain values kept with the collection of the index `name`; none where there is no such collection."""
    collection = find_collection(client, name)
    return {} if collection is None else metadata_of(client, collection)


def write_metadata(client: QdrantClient, name: str, metadata: dict[str, Any]) -> None:
    """Keep plain values with the collection of the index `name`."""
    with _explained("write to", name):
        client.update_collection(find_collection(client, name) or name, metadata=metadata)


def _create(
    client: QdrantClient,
    collection: str,
    dimension: int,
    metadata: dict[str, Any],
    *,
    shards: int | None = None,
    replicas: int | None = None,
) -> bool:
    """Make a collection with an id of its own; False where another process was faster."""
    quantization = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    )
    kilobytes, identity = max(1, HNSW_FROM_POINTS * dimension * _FLOAT_BYTES // 1024), uuid.uuid4().hex
    with _explained("make", collection):
        try:
            client.create_collection(
                collection,
                vectors_config={
                    DENSE: models.VectorParams(
                        size=dimension, distance=models.Distance.DOT, quantization_config=quantization
                    )
                },
                sparse_vectors_config={LEXICAL: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                hnsw_config=models.HnswConfigDiff(
                    m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT, full_scan_threshold=kilobytes
                ),
                optimizers_config=models.OptimizersConfigDiff(indexing_threshold=kilobytes),
                shard_number=shards,
                replication_factor=replicas,
                metadata={"id": identity, **metadata},
            )
        except (ApiException, ValueError):
            if client.collection_exists(collection):
                return metadata_of(client, collection).get("id") == identity  # the answer may have been lost
            raise
    return True


def metadata_of(client: QdrantClient, collection: str) -> dict[str, Any]:
    """Plain values kept with a collection, by its own name."""
    with _explained("read", collection):
        return dict(client.get_collection(collection).config.metadata or {})


def _create_field_indexes(client: QdrantClient, collection: str) -> None:
    kinds = dict.fromkeys(KEYWORD_FIELDS, models.PayloadSchemaType.KEYWORD)
    kinds |= dict.fromkeys(DATE_FIELDS, models.PayloadSchemaType.DATETIME)
    with _explained("make", collection):
        for name, kind in kinds.items():
            client.create_payload_index(collection, name, kind, wait=True)


def _note_paths(parts: Sequence[str]) -> list[str]:
    return [f"{FAMILY}.{part}" for part in parts] or [FAMILY]


def _aliases(client: QdrantClient) -> dict[str, str]:
    return {str(alias.alias_name): str(alias.collection_name) for alias in client.get_aliases().aliases}


@contextmanager
def _explained(verb: str, collection: str) -> Iterator[None]:
    """Say which collection, and what to check."""
    try:
        yield
    except PanlinguaError:
        raise
    except (ApiException, QdrantException, OSError, ValueError, RuntimeError) as error:
        hint = "Check that the server runs, its URL and the API key (PANLINGUA_API_KEY)."
        message = f"cannot {verb} the collection {collection!r} of the Qdrant server: {error}. {hint}"
        raise StoreError(message) from error


def _to_server(point: Point) -> models.PointStruct:
    vectors: dict[str, Any] = {DENSE: point.dense.tolist()}
    if len(point.sparse.indices):
        indices, values = point.sparse.indices.tolist(), point.sparse.values.tolist()
        vectors[LEXICAL] = models.SparseVector(indices=indices, values=values)
    return models.PointStruct(id=point.chunk.id, vector=vectors, payload=to_payload(point.chunk))


def _from_server(record: Any) -> Point:
    vectors = record.vector or {}
    sparse = vectors.get(LEXICAL)
    indices, values = (sparse.indices, sparse.values) if sparse else ((), ())
    order = np.argsort(indices) if len(indices) else slice(None)
    return Point(
        from_payload(record.payload),
        np.asarray(vectors.get(DENSE, ()), np.float32),
        SparseVector(np.asarray(indices, np.uint32)[order], np.asarray(values, np.float32)[order]),
    )


def _filter(filter: Filter | None) -> models.Filter | None:
    if filter is None or not filter.conditions:
        return None
    must: list[models.Condition] = []
    must_not: list[models.Condition] = []
    for condition in filter.conditions:
        if isinstance(condition, Range):
            bounds = range_bounds(condition)
            kind: Any = models.DatetimeRange if bounds.dates else models.Range
            must.append(models.FieldCondition(key=bounds.path, range=kind(gte=bounds.gte, lte=bounds.lte)))
            continue
        (must_not if condition.negate else must).append(_any_of(condition))
    return models.Filter(must=must or None, must_not=must_not or None)


def _any_of(condition: Match) -> models.Condition:
    if condition.key == POINT_ID:
        return models.HasIdCondition(has_id=list(chunk_ids(condition)))
    return models.Filter(should=[_equals(path, value) for path, value in equalities(condition)])


def _equals(path: str, value: str | int | float) -> models.FieldCondition:
    if isinstance(value, float):
        return models.FieldCondition(key=path, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=path, match=models.MatchValue(value=value))
