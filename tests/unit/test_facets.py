"""Facets, similar documents, diversity and pages."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from indexer.build import ingest
from search.balance import LanguageMap
from search.diversity import diversify, neutral_vectors
from search.engine import Engine
from search.errors import QueryError
from search.facets import count_chunks
from search.opening import OpenIndex
from search.records import Chunk, Filter, Match, Point, ScoredPoint, SparseVector
from search.settings import load_settings
from search.store.edge import EdgeStore
from tests.conftest import FakeEncoder

LINES = [
    '{"id": "a", "text": "Grüner Tee wird mit siebzig Grad heißem Wasser aufgegossen.", "author": "Anna", "date": "2019-05-01", "tags": ["x", "y"], "done": true}',  # noqa: E501
    '{"id": "b", "text": "Schwarzer Tee wird mit kochendem Wasser aufgegossen.", "author": "Anna", "date": "2021-07-09", "tags": ["x"], "done": false}',  # noqa: E501
    '{"id": "c", "text": "初めての人でも、次の順番を守れば温泉を楽しめます。", "author": "花子", "date": "2021-01-01"}',
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    home = tmp_path_factory.mktemp("facets")
    (home / "docs" / "teas").mkdir(parents=True)
    (home / "docs" / "teas" / "tea.jsonl").write_text("\n".join(LINES), encoding="utf-8")
    for number in range(500):
        text = f"Note number {number} about water and tea, and word{number} besides."
        (home / "docs" / f"{number:03d}.txt").write_text(text, encoding="utf-8")
    settings, encoder = load_settings(home=home, index=str(home / "index")), FakeEncoder()
    ingest(home / "docs", settings, encoder=encoder)
    engine = Engine(settings, encoder)
    yield engine
    engine.close()


def test_documents_are_counted_by_field(engine: Engine) -> None:
    facets = engine.facets()
    assert dict(facets["lang"])["en"] == 500
    assert dict(facets["lang"])["ja"] == 1
    assert facets["folder"] == [("teas", 3)]
    assert facets["metadata.author"] == [("Anna", 2), ("花子", 1)]
    assert facets["metadata.tags"] == [("x", 2), ("y", 1)]
    assert facets["metadata.done"] == [("false", 1), ("true", 1)]
    years = dict(facets["year"])
    assert (years["2019"], years["2021"]) == (1, 2)


def test_a_filter_narrows_the_counts(engine: Engine) -> None:
    facets = engine.facets(Filter((Match("metadata.author", ("Anna",)),)))
    assert dict(facets["lang"]) == {"de": 2}
    assert facets["year"] == [("2021", 1), ("2019", 1)]
    assert engine.facets(Filter((Match("lang", ("fr",)),)))["lang"] == []


def test_what_a_query_found_is_counted(engine: Engine) -> None:
    result = engine.search("Tee aufgegossen author:Anna", k=1)
    assert len(result.hits) == 1
    assert dict(result.facets["metadata.author"]) == {"Anna": 2}


def test_a_document_counts_once_for_all_its_passages() -> None:
    chunks = [Chunk("d", n, "t", lang=lang, source="f/d.txt") for n, lang in enumerate(("de", "de", "fr"))]
    assert count_chunks(chunks) == {"lang": [("de", 1), ("fr", 1)], "folder": [("f", 1)], "year": []}


def test_a_document_is_given_whole(engine: Engine) -> None:
    (chunk,) = engine.document("teas/tea.jsonl#a")
    assert chunk.text.startswith("Grüner Tee")
    with pytest.raises(QueryError, match="indexer status --files"):
        engine.document("nope")


def test_similar_documents_share_their_words(engine: Engine) -> None:
    hits = engine.similar("teas/tea.jsonl#a", k=3)
    assert hits[0].document_id == "teas/tea.jsonl#b"
    assert [hit.rank for hit in hits] == [1, 2, 3]
    assert "teas/tea.jsonl#a" not in {hit.document_id for hit in hits}
    with pytest.raises(QueryError, match="nope"):
        engine.similar("nope")


@pytest.mark.parametrize("options", [{}, {"diversity": 0.5}, {"mode": "dense"}, {"mode": "lexical"}])
def test_pages_go_on_where_the_one_before_ended(engine: Engine, options: dict[str, object]) -> None:
    ask = "tea and water -word7"
    whole = [hit.document_id for hit in engine.search(ask, k=480, fold=False, **options).hits]  # type: ignore[arg-type]
    assert len(whole) == len(set(whole)) == 480
    assert "007.txt" not in whole
    paged = []
    for offset in range(0, 480, 96):
        page = engine.search(ask, k=96, offset=offset, fold=False, **options).hits  # type: ignore[arg-type]
        assert [hit.rank for hit in page] == list(range(offset + 1, offset + 97))
        paged += [hit.document_id for hit in page]
    assert paged == whole


def test_the_query_language_can_be_given(engine: Engine) -> None:
    assert engine.search("tea", lang="de").detection.lang == "de"
    with pytest.raises(QueryError, match="xq"):
        engine.search("tea", lang="xq")
    with pytest.raises(QueryError, match="diversity"):
        engine.search("tea", diversity=1.5)


def open_index(store: EdgeStore, basis: list[list[float]] | None = None) -> OpenIndex:
    rows = np.array(basis or np.zeros((0, 3)), np.float32).reshape(-1, 3)
    language_map = LanguageMap(np.zeros(3, np.float32), rows, np.zeros(3, np.float32))
    return OpenIndex(store, None, language_map, lambda: False, lambda: None)  # type: ignore[arg-type]


def test_diversity_takes_what_differs(tmp_path_factory: pytest.TempPathFactory) -> None:
    store = EdgeStore(tmp_path_factory.mktemp("mmr") / "shard", 3)
    empty = SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))
    near, far = np.sqrt(1 - 0.9**2), np.sqrt(1 - 0.1**2)
    vectors = {"a": (1.0, 0.0, 0.0), "a'": (0.9, near, 0.0), "b": (0.1, 0.0, far)}
    chunks = {name: Chunk(name, 0, name) for name in vectors}
    store.upsert([Point(chunks[name], np.array(vector, np.float32), empty) for name, vector in vectors.items()])
    points = [ScoredPoint(chunks[name], 1.0 - rank / 10) for rank, name in enumerate(vectors)]
    index = open_index(store)
    assert [point.chunk.text for point in diversify(index, points, 0.5)] == ["a", "b", "a'"]
    assert diversify(index, points, 0.0) == points
    assert [point.chunk.text for point in diversify(index, points, 0.2)] == ["a", "a'", "b"]
    scores = [point.score for point in diversify(index, points, 0.5)]
    assert scores == sorted(scores, reverse=True)
    store.close()


def test_neutral_vectors_leave_the_language_out() -> None:
    basis = np.array([[1, 0, 0]], np.float32)
    language_map = LanguageMap(np.zeros(3, np.float32), basis, np.zeros(3, np.float32))
    stored = np.array([[5, 3, 4], [-9, 0.3, 0.4]], np.float32)
    assert neutral_vectors(language_map, stored) == pytest.approx(np.array([[0, 0.6, 0.8]] * 2), abs=1e-6)
