"""Every store through one suite: ids and scores equal to exact search."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from search.errors import IndexFormatError, QueryError, StoreError
from search.records import Chunk, Filter, Match, Point, Range, ScoredPoint, SparseVector, Vectors
from search.store import edge
from search.store.base import UPSERT_BATCH, Ranked, VectorStore, search_with_ties
from search.store.edge import EdgeStore, make_reader_view
from search.store.payload import from_payload, to_payload
from search.store.server import ServerStore, connect, drop_collections, open_collection, read_metadata, write_metadata

DIMENSION, COUNT = 16, 300
LANGS = ("de", "fr", "ja", "ar", "und")
TEXTS = (
    "Straße café", "cafe\u0301 décomposé", "日本語の文", "ข้อความ ภาษาไทย", "نص عربي mixed",
    "हिन्दी पाठ", "👩‍👩‍👧 emoji", "x" * 5000,
)  # fmt: skip


def make_points(count: int = COUNT, seed: int = 0) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [make_point(i, rng) for i in range(count)]


def make_point(i: int, rng: np.random.Generator) -> Point:
    dense = rng.normal(size=DIMENSION)
    dense *= rng.uniform(1.0, 1.5) / np.linalg.norm(dense)
    indices = np.unique(rng.integers(0, 40, size=6)).astype(np.uint32)
    chunk = Chunk(
        document_id=f"ordner/文書 {i // 3}.txt",
        number=i % 3,
        text=TEXTS[i % len(TEXTS)],
        title="Título" if i % 2 else "",
        headings=("第一章", "B") if i % 3 else (),
        lang=LANGS[i % len(LANGS)],
        lang_confidence=0.25,
        script="Latn",
        source=f"ordner/unter {i % 2}/文書 {i // 3}.txt",
        start=i,
        end=i + 10,
        date=f"2024-{1 + i % 12:02d}-01T00:00:00Z" if i % 4 else None,
        metadata={
            "year": 2000 + i,
            "my key": f"v{i % 2}",
            "ratio": i / 4,
            "done": i % 2 == 0,
            "tags": ("all", f"t{i % 3}", "食べ物"),
        },
    )
    values = rng.uniform(0.5, 2, len(indices)).astype(np.float32)
    return Point(chunk, dense.astype(np.float32), SparseVector(indices, values))


@pytest.fixture(params=["edge", "memory", "server"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    if request.param == "edge":
        made: VectorStore = EdgeStore(tmp_path / "shard", DIMENSION)
    elif request.param == "memory":
        made = open_collection(QdrantClient(":memory:"), "test", DIMENSION)
    else:
        if not os.environ.get("QDRANT_URL"):
            pytest.skip("QDRANT_URL is not set: no Qdrant server to test against")
        client = connect(os.environ["QDRANT_URL"], os.environ.get("QDRANT_API_KEY"))
        made = open_collection(client, f"test-{uuid.uuid4().hex}", DIMENSION)
    yield made
    if request.param == "server" and isinstance(made, ServerStore):
        drop_collections(made.client, [made.collection])
    made.close()


def exact_dense(points: list[Point], query: Vectors, limit: int) -> list[tuple[str, float]]:
    scored = [(p.chunk.id, float(p.dense @ query)) for p in points]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:limit]


def exact_lexical(points: list[Point], query: SparseVector, limit: int) -> list[tuple[str, float]]:
    """IDF as Qdrant defines it: ln((N - n + 0.5) / (n + 0.5) + 1)."""
    frequency = {int(i): sum(i in p.sparse.indices for p in points) for i in query.indices}
    scored = []
    idf = {i: np.log((len(points) - n + 0.5) / (n + 0.5) + 1) for i, n in frequency.items()}
    for p in points:
        weights = dict(zip(p.sparse.indices.tolist(), p.sparse.values.tolist(), strict=True))
        score = sum(
            value * weights.get(int(i), 0.0) * idf[int(i)] for i, value in zip(query.indices, query.values, strict=True)
        )
        if any(int(i) in weights for i in query.indices):
            scored.append((p.chunk.id, float(score)))
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:limit]


def assert_same(found: list[ScoredPoint], expected: list[tuple[str, float]]) -> None:
    assert [p.chunk.id for p in found] == [chunk_id for chunk_id, _ in expected]
    assert [p.score for p in found] == pytest.approx([score for _, score in expected], abs=1e-4)


def sparse(*indices: int) -> SparseVector:
    return SparseVector(np.array(indices, np.uint32), np.ones(len(indices), np.float32))


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_dense_search_equals_exact_search(store: VectorStore, limit: int) -> None:
    points = make_points()
    store.upsert(points)
    query = np.random.default_rng(9).normal(size=DIMENSION).astype(np.float32)
    assert_same(store.search_dense(query, limit=limit), exact_dense(points, query, limit))
    assert_same(store.search_dense(query, limit=limit, exact=True), exact_dense(points, query, limit))


def test_terms_are_held_that_a_chunk_has(store: VectorStore) -> None:
    points = make_points()
    store.upsert(points)
    held = {int(index) for point in points for index in point.sparse.indices}
    assert store.held_terms(range(2 * UPSERT_BATCH)) == held
    assert store.held_terms([]) == set()
    store.delete_documents(sorted({point.chunk.document_id for point in points[3:]}))
    assert store.held_terms(held) == {int(i) for point in points[:3] for i in point.sparse.indices}


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_lexical_search_equals_exact_search(store: VectorStore, limit: int) -> None:
    points = make_points()
    store.upsert(points)
    query = sparse(3, 5, 39)
    assert_same(store.search_lexical(query, limit=limit), exact_lexical(points, query, limit))
    assert store.search_lexical(sparse(), limit=limit) == []
    assert store.search_lexical(sparse(4_000_000_000), limit=limit) == []


def test_ties_break_by_id_also_at_the_limit(store: VectorStore) -> None:
    rng = np.random.default_rng(1)
    base = make_point(0, rng)
    same = [Point(Chunk(f"d{i}", 0, "t"), base.dense, base.sparse) for i in range(90)]
    store.upsert(same)
    ids = sorted(p.chunk.id for p in same)
    for limit in (1, 10, 60, 90):
        assert [p.chunk.id for p in store.search_dense(base.dense, limit=limit)] == ids[:limit]
        found = store.search_lexical(sparse(int(base.sparse.indices[0])), limit=limit)
        assert [p.chunk.id for p in found] == ids[:limit]


CHUNKS = tuple(point.chunk.id for point in make_points(40)[::3])
FILTERS = {
    "language": (Filter((Match("lang", ("de", "ja")),)), lambda c: c.lang in ("de", "ja")),
    "not language": (Filter((Match("lang", ("de",), negate=True),)), lambda c: c.lang != "de"),
    "source": (
        Filter((Match("source", ("ordner/unter 0/文書 2.txt",)),)),
        lambda c: c.source == "ordner/unter 0/文書 2.txt",
    ),
    "folder": (Filter((Match("folders", ("ordner/unter 1",)),)), lambda c: "unter 1" in c.source),
    "text": (Filter((Match("metadata.my key", ("v1",)),)), lambda c: c.metadata["my key"] == "v1"),
    "integer": (Filter((Match("metadata.year", (2004, 2005)),)), lambda c: c.metadata["year"] in (2004, 2005)),
    "fraction": (Filter((Match("metadata.ratio", (0.5,)),)), lambda c: c.metadata["ratio"] == 0.5),
    "one of a list": (Filter((Match("metadata.tags", ("t1",)),)), lambda c: "t1" in c.metadata["tags"]),
    "none of a list": (
        Filter((Match("metadata.tags", ("t1", "t2"), negate=True),)),
        lambda c: "t0" in c.metadata["tags"],
    ),
    "truth": (Filter((Match("metadata.done", (True,)),)), lambda c: c.metadata["done"] is True),
    "range": (Filter((Range("metadata.year", 2010, 2020),)), lambda c: 2010 <= c.metadata["year"] <= 2020),
    "dates": (
        Filter((Range("date", "2024-03-01T00:00:00Z", "2024-05-01T00:00:00Z"),)),
        lambda c: c.date is not None and "2024-03" <= c.date < "2024-06",
    ),
    "chunks": (Filter((Match("id", CHUNKS),)), lambda c: c.id in CHUNKS),
    "other chunks": (
        Filter((Match("id", CHUNKS, negate=True), Match("lang", ("ar",)))),
        lambda c: c.id not in CHUNKS and c.lang == "ar",
    ),
    "both": (
        Filter((Match("lang", ("ar",)), Range("metadata.year", gte=2100))),
        lambda c: c.lang == "ar" and c.metadata["year"] >= 2100,
    ),
    "nothing": (Filter((Match("lang", ("xx",)),)), lambda c: False),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_hold_for_searching_counting_and_reading(store: VectorStore, name: str) -> None:
    points = make_points()
    store.upsert(points)
    chosen, holds = FILTERS[name]
    matching = [p for p in points if holds(p.chunk)]
    query = points[5].dense
    assert_same(store.search_dense(query, limit=50, filter=chosen), exact_dense(matching, query, 50))
    assert store.count(chosen) == len(matching)
    assert {p.chunk.id for p in store.iter_points(filter=chosen)} == {p.chunk.id for p in matching}


def test_fields_are_read_alone(store: VectorStore) -> None:
    points = make_points(30)
    store.upsert(points)
    chosen = Filter((Match("lang", ("ja",)),))
    read = list(store.iter_fields(("document_id", "metadata"), filter=chosen))
    expected = [p.chunk for p in sorted(points, key=lambda p: p.chunk.id) if p.chunk.lang == "ja"]
    assert [row["document_id"] for row in read] == [chunk.document_id for chunk in expected]
    assert [row["metadata"]["year"] for row in read] == [chunk.metadata["year"] for chunk in expected]
    assert {name for row in read for name in row} == {"document_id", "metadata"}


@pytest.mark.parametrize(
    "condition",
    [
        Match("id", ("x",)),
        Match("id", ()),
        Match("colour", ("red",)),
        Match("metadata.", ("x",)),
        Match("lang", ()),
        Range("date"),
    ],
)
def test_a_wrong_filter_is_explained(store: VectorStore, condition: Match | Range) -> None:
    with pytest.raises(QueryError):
        store.count(Filter((condition,)))


def test_chunks_come_back_as_they_went_in(store: VectorStore) -> None:
    points = make_points(20)
    store.upsert(points)
    wanted = [points[3].chunk.id, str(uuid.uuid4()), points[1].chunk.id]
    found = store.retrieve(wanted, with_vectors=True)
    assert [p.chunk for p in found] == [points[3].chunk, points[1].chunk]
    np.testing.assert_allclose(found[0].dense, points[3].dense, rtol=1e-6)
    np.testing.assert_array_equal(found[0].sparse.indices, points[3].sparse.indices)
    np.testing.assert_allclose(found[0].sparse.values, points[3].sparse.values, rtol=1e-6)
    assert len(store.retrieve(wanted)[0].dense) == 0


def test_reading_all_streams_every_point_once(store: VectorStore) -> None:
    points = make_points(2500)
    store.upsert(points)
    found = [p.chunk.id for p in store.iter_points(with_vectors=True)]
    assert sorted(found) == sorted(p.chunk.id for p in points)
    assert found == sorted(found)


def test_the_same_id_replaces_and_documents_are_deleted_whole(store: VectorStore) -> None:
    points = make_points(30)
    store.upsert(points)
    changed = Point(Chunk(points[0].chunk.document_id, 0, "neu"), points[9].dense, points[9].sparse)
    store.upsert([changed])
    assert store.count() == 30
    assert store.retrieve([changed.chunk.id])[0].chunk.text == "neu"
    store.delete_documents([points[0].chunk.document_id, "unknown"])
    store.delete_documents([])
    assert store.count() == 27


def test_facets_count_exactly(store: VectorStore) -> None:
    store.upsert(make_points(10))
    assert store.facet("lang") == [("ar", 2), ("de", 2), ("fr", 2), ("ja", 2), ("und", 2)]
    assert store.facet("lang", filter=Filter((Match("lang", ("de",)),))) == [("de", 2)]


def test_an_empty_store_answers(store: VectorStore) -> None:
    assert store.search_dense(np.ones(DIMENSION, np.float32), limit=5) == []
    assert store.search_lexical(sparse(1), limit=5) == []
    assert (store.count(), store.facet("lang"), list(store.iter_points()), store.retrieve([])) == (0, [], [], [])
    store.optimize()


@pytest.mark.parametrize("damage", ["nan", "length", "repeated index", "descending"])
def test_bad_vectors_are_refused_by_name(store: VectorStore, damage: str) -> None:
    point = make_points(1)[0]
    dense, vector = point.dense.copy(), point.sparse
    if damage == "nan":
        dense[2] = np.nan
    elif damage == "length":
        dense = dense[:-1]
    else:
        vector = sparse(1, 1) if damage == "repeated index" else sparse(2, 1)
    with pytest.raises(StoreError, match="chunk 0 of 'ordner"):
        store.upsert([Point(point.chunk, dense, vector)])
    with pytest.raises(QueryError):
        store.search_dense(np.ones(DIMENSION + 1, np.float32), limit=1)
    assert store.count() == 0


def test_the_graph_and_int8_copies_find_what_exact_search_finds(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(40, DIMENSION))
    points = make_points(4000)
    clustered = [
        Point(p.chunk, (centres[i % 40] + rng.normal(size=DIMENSION) * 0.4).astype(np.float32), p.sparse)
        for i, p in enumerate(points)
    ]
    store = EdgeStore(tmp_path / "shard", DIMENSION, hnsw_from=500)
    store.upsert(clustered)
    store.optimize()
    assert store._shard.info().indexed_vectors_count >= 4000
    hits = 0
    for _ in range(50):
        query = (centres[rng.integers(40)] + rng.normal(size=DIMENSION) * 0.4).astype(np.float32)
        found, exact = store.search_dense(query, limit=10), exact_dense(clustered, query, 10)
        hits += len({p.chunk.id for p in found} & {chunk_id for chunk_id, _ in exact})
    assert hits / 500 >= 0.97
    store.close()


def test_an_index_of_many_segments_answers_like_one(tmp_path: Path) -> None:
    points = make_points(1400)
    for count in (900, 1400):  # the second time, the last segment is gone on with
        with closing(EdgeStore(tmp_path / "shard", DIMENSION, hnsw_from=300, segment_points=300)) as store:
            for start in range(store.count(), count, 100):
                store.upsert(points[start : start + 100])
                assert store._unfinished < 300
            assert store._shard.info().segments_count == count // 300 + 1
            store.release_memory()
            for i in (3, 450, 899):
                exact = exact_dense(points[:count], points[i].dense, 10)
                assert_same(store.search_dense(points[i].dense, limit=10, exact=True), exact)
                words = points[i].sparse
                assert_same(store.search_lexical(words, limit=10), exact_lexical(points[:count], words, 10))
            found = [point.chunk.id for point in store.iter_points(with_vectors=True)]
            assert sorted(found) == sorted(point.chunk.id for point in points[:count])
    with closing(EdgeStore(tmp_path / "shard", DIMENSION, hnsw_from=300, segment_points=300)) as store:
        assert store._unfinished == 1400 % 300
        store.delete_documents([points[0].chunk.document_id])
        assert store.retrieve([points[0].chunk.id]) == []


def test_readers_share_a_shard_that_a_writer_copy_outlives(tmp_path: Path) -> None:
    points = make_points(100)
    writer = EdgeStore(tmp_path / "shard", DIMENSION)
    writer.upsert(points)
    writer.optimize()
    writer.close()
    views = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        make_reader_view(tmp_path / "shard", tmp_path / name)
        views.append(EdgeStore(tmp_path / name, DIMENSION))
    query = points[7].dense
    expected = exact_dense(points, query, 5)
    for view in views:
        assert_same(view.search_dense(query, limit=5), expected)
    reopened = EdgeStore(tmp_path / "shard", DIMENSION)
    reopened.close()
    for path in sorted((tmp_path / "shard").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    assert_same(views[0].search_dense(query, limit=5), expected)


def test_a_second_writer_is_told_that_the_shard_is_held(tmp_path: Path) -> None:
    first = EdgeStore(tmp_path / "shard", DIMENSION)
    with pytest.raises(StoreError, match="another process has it open"):
        EdgeStore(tmp_path / "shard", DIMENSION)
    first.close()


def test_a_server_that_does_not_answer_is_explained() -> None:
    with pytest.raises(StoreError, match="Check that the server runs"):
        open_collection(connect("http://127.0.0.1:9", timeout_s=1), "test", DIMENSION)


def test_server_metadata_round_trip_and_dimension_mismatch() -> None:
    client = QdrantClient(":memory:")
    open_collection(client, "test", DIMENSION)
    write_metadata(client, "test", {"manifest": "日本語"})
    assert read_metadata(client, "test")["manifest"] == "日本語"
    with pytest.raises(StoreError, match="length 16, not 8"):
        open_collection(client, "test", 8)


def test_a_collection_that_is_not_there_is_not_made_by_reading_it() -> None:
    client = QdrantClient(":memory:")
    with pytest.raises(StoreError, match="cannot open the collection 'test'"):
        ServerStore(client, "test", DIMENSION)
    assert client.get_collections().collections == []


def test_searching_for_ties_fetches_more_only_while_the_last_one_ties() -> None:
    chunks = {chunk.id: chunk for chunk in (Chunk(f"d{i}", 0, "") for i in range(200))}
    pool = [(chunk_id, 1.0 if i < 20 else 0.5) for i, chunk_id in enumerate(chunks)]
    asked: list[tuple[int, bool]] = []
    fetched: list[str] = []

    def search(wanted: int, with_payload: bool) -> list[Ranked]:
        asked.append((wanted, with_payload))
        return [Ranked(i, score, to_payload(chunks[i]) if with_payload else None) for i, score in pool[:wanted]]

    def fetch(ids: list[str]) -> dict[str, dict[str, object]]:
        fetched.extend(ids)
        return {chunk_id: to_payload(chunks[chunk_id]) for chunk_id in ids}

    found = search_with_ties(search, fetch, 5)
    assert [p.chunk.id for p in found] == sorted(chunk_id for chunk_id, _ in pool[:20])[:5] == fetched
    assert asked == [(6, True), (24, False)]


@pytest.mark.parametrize("limit", [1, 10])
def test_hundreds_of_equal_scores_come_by_ascending_id(store: VectorStore, limit: int) -> None:
    same = sparse(7)
    points = [Point(p.chunk, np.full(DIMENSION, 0.25, np.float32), same) for p in make_points(300)]
    store.upsert(points)
    expected = sorted(p.chunk.id for p in points)[:limit]
    assert [p.chunk.id for p in store.search_lexical(same, limit=limit)] == expected
    assert [p.chunk.id for p in store.search_dense(np.ones(DIMENSION, np.float32), limit=limit)] == expected


def test_a_chunk_without_words_does_not_count_in_the_idf(store: VectorStore) -> None:
    points = make_points(12)
    words = [sparse(1)] * 3 + [sparse(2)] * 5 + [sparse()] * 4
    store.upsert([Point(p.chunk, p.dense, vector) for p, vector in zip(points, words, strict=True)])
    with_words = 8
    idf = float(np.log((with_words - 3 + 0.5) / (3 + 0.5) + 1))
    assert [p.score for p in store.search_lexical(sparse(1), limit=10)] == pytest.approx([idf] * 3, abs=1e-5)
    assert len(store.retrieve([points[11].chunk.id], with_vectors=True)[0].sparse.indices) == 0


def chunk_with(number: int, **fields: object) -> Point:
    chunk = replace(Chunk("doc", number, "text"), **fields)  # type: ignore[arg-type]  # any field
    return Point(chunk, np.ones(DIMENSION, np.float32), sparse(1))


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        (Match("metadata.n", (3,)), [0, 1]),
        (Match("metadata.n", (3.0,)), [0, 1]),
        (Match("metadata.n", ("3",)), [3]),
        (Match("metadata.n", ("3", 3.5)), [2, 3]),
        (Match("metadata.n", (3,), negate=True), [2, 3, 4]),
        (Range("metadata.n", gte=3, lte=3.6), [0, 1, 2]),
        (Match("metadata.größe in 文", ("x",)), [4]),
        (Range("date", lte="2024-05-31"), [0, 1]),
        (Range("date", gte="2024-05-31T23:00:00Z", lte="2024-06-01T00:30:00Z"), [1]),
        (Range("date", gte="2024-06-01T01:00:00+00:30"), [2]),
    ],
)
def test_values_of_mixed_types_and_whole_days_match(
    store: VectorStore, condition: Match | Range, numbers: list[int]
) -> None:
    store.upsert(
        [
            chunk_with(0, metadata={"n": 3}, date="2024-05-31T00:00:00Z"),
            chunk_with(1, metadata={"n": 3.0}, date="2024-05-31T23:30:00Z"),
            chunk_with(2, metadata={"n": 3.5}, date="2024-06-01T12:00:00Z"),
            chunk_with(3, metadata={"n": "3"}),
            chunk_with(4, metadata={"größe in 文": "x"}),
        ]
    )
    assert sorted(p.chunk.number for p in store.iter_points(filter=Filter((condition,)))) == numbers


@pytest.mark.parametrize(
    "condition",
    [
        Range("date", gte="yesterday"),
        Range("date", gte=2024),
        Range("metadata.n", gte=float("nan")),
        Range("metadata.n", gte="soon"),
        Match("metadata.", ("x",)),
        Match('metadata.a"b', ("x",)),
        Match("metadata.a\\b", ("x",)),
    ],
)
def test_a_filter_that_means_nothing_is_refused(store: VectorStore, condition: Match | Range) -> None:
    with pytest.raises(QueryError):
        store.count(Filter((condition,)))
    with pytest.raises(QueryError):
        store.search_dense(np.ones(DIMENSION, np.float32), limit=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "half \ud83d of an emoji"},
        {"metadata": {"k": "\udcff"}},
        {"metadata": {"k": float("nan")}},
        {"metadata": {"k": 2**70}},
        {"metadata": {"k": ["a", "b"]}},
    ],
)
def test_what_a_store_could_not_give_back_is_refused_by_name(store: VectorStore, fields: dict[str, object]) -> None:
    with pytest.raises(StoreError, match="chunk 7 of 'doc'"):
        store.upsert([chunk_with(0), chunk_with(7, **fields)])
    assert store.count() == 0


def test_text_columns_can_be_counted_with_ties_by_value(store: VectorStore) -> None:
    store.upsert([chunk_with(i, metadata={"colour": "dbcaee"[i]}) for i in range(6)])
    assert store.facet("metadata.colour", limit=3) == [("e", 2), ("a", 1), ("b", 1)]


def test_numbers_cannot_be_counted_as_a_facet(tmp_path: Path) -> None:
    with closing(EdgeStore(tmp_path / "shard", DIMENSION)) as store:
        store.upsert([chunk_with(0, metadata={"n": 3})])
        for key in ("metadata.n", "metadata.unknown", "title"):
            with pytest.raises(QueryError, match="cannot be counted"):
                store.facet(key)


def test_a_nearly_full_disk_is_refused_before_edge_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(EdgeStore(tmp_path / "shard", DIMENSION)) as store:
        store.upsert(make_points(10))
        full = shutil._ntuple_diskusage(10**9, 10**9, 2**20)  # type: ignore[attr-defined]  # what disk_usage returns
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
        for write in (lambda: store.upsert(make_points(20)), store.flush, store.optimize):
            with pytest.raises(StoreError, match=r"nearly full: 1 MB free.*Free some space"):
                write()
        assert store.count() == 10


def test_a_view_of_a_shard_that_is_being_removed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EdgeStore(tmp_path / "shard", DIMENSION).close()
    (tmp_path / "view").mkdir()
    real = edge.copy_tree

    def replaced_meanwhile(*args: Path, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]  # passed on
        (tmp_path / "shard").rename(tmp_path / "old-shard")

    monkeypatch.setattr(edge, "copy_tree", replaced_meanwhile)
    with pytest.raises(FileNotFoundError):
        make_reader_view(tmp_path / "shard", tmp_path / "view")


def test_readers_leave_the_published_files_as_they_are(tmp_path: Path) -> None:
    points = make_points(200)
    with closing(EdgeStore(tmp_path / "shard", DIMENSION, hnsw_from=50)) as writer:
        writer.upsert(points)
        writer.optimize()

    def checksums() -> dict[str, str]:
        files = (path for path in (tmp_path / "shard").rglob("*") if path.is_file())
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = checksums()
    command = [sys.executable, "-c", READ, str(tmp_path / "shard")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    readers = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        readers.append(subprocess.Popen([*command, str(tmp_path / name)], stdout=subprocess.PIPE, env=environment))
    answers = [reader.communicate(timeout=60)[0].decode().strip() for reader in readers]
    expected = exact_dense(points, np.ones(DIMENSION, np.float32), 1)[0][0]
    assert answers == [expected, expected]
    assert checksums() == before


READ = """
import sys
from pathlib import Path
from typing import Any
import numpy as np
from search.store.edge import EdgeStore, make_reader_view
make_reader_view(Path(sys.argv[1]), Path(sys.argv[2]))
store = EdgeStore(Path(sys.argv[2]), 16)
found = [store.search_dense(np.ones(16, np.float32), limit=1)[0].chunk.id for _ in range(50)]
list(store.iter_points(with_vectors=True)), store.facet("lang")
store.close()
print(found[0])
"""


@pytest.mark.parametrize("damage", [{"headings": None}, {"text": ...}, {"metadata": [1]}])
def test_a_payload_that_is_no_chunk_says_what_to_do(damage: dict[str, Any]) -> None:
    payload = {name: value for name, value in (to_payload(Chunk("a", 0, "x")) | damage).items() if value is not ...}
    with pytest.raises(IndexFormatError, match="indexer restore"):
        from_payload(payload)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    chunk = Chunk("a", 0, "x", headings=("y",))
    assert from_payload({**to_payload(chunk), "later": {"is": "unknown"}}) == chunk
