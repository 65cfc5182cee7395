"""Token vectors kept on disk: what comes back, what is encoded again, and what a search makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_rerank import WordEncoder, engine, settings  # noqa: F401  # fixtures

from indexer import build
from indexer.token_vectors import forget_removed, refresh_token_store, update_token_store
from search.engine import Engine
from search.errors import IndexFormatError
from search.opening import token_store_path
from search.passages import passage_text
from search.records import Vectors
from search.settings import Settings
from search.token_store import Projection, TokenStore, fit_projection, passage_key, quantise, stored_passages


def unit(rows: int, dimension: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_codes_give_the_vectors_back() -> None:
    vectors = unit(50, 96)
    codes, scales = quantise(vectors)
    assert codes.dtype == np.int8
    assert np.abs(codes * scales.astype(np.float32)[:, None] - vectors).max() < 0.003
    assert quantise(np.zeros((0, 4), np.float32))[0].shape == (0, 4)
    assert not quantise(np.zeros((1, 4), np.float32))[0].any()


def test_a_projection_keeps_the_products_it_can() -> None:
    tokens = unit(200, 8) @ np.diag([1, 1, 1, 1, 0, 0, 0, 0]).astype(np.float32)
    projection = fit_projection(np.split(tokens, 4), 4)
    assert projection.directions.shape == (8, 4)
    np.testing.assert_allclose(projection.directions.T @ projection.directions, np.eye(4), atol=1e-5)
    small = projection.apply(tokens)
    np.testing.assert_allclose(small @ small.T, tokens @ tokens.T, atol=1e-5)
    np.testing.assert_allclose(small.mean(axis=0), projection.mean, atol=1e-5)


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    store = TokenStore(tmp_path / "tokens.sqlite", "encoder-1", write=True)
    store.set_projection(Projection(np.eye(4, dtype=np.float32)[:, :3], np.array([0.5, 0, 0], np.float32)))
    return store


def test_passages_come_back_by_their_key(store: TokenStore) -> None:
    vectors, key = unit(5, 4), passage_key("犬 e\u0301 \ud800")
    store.put([(key, vectors, np.array([3, 1, 250_000, 1, 0])), (passage_key(""), vectors[:0], np.array([], np.int64))])
    found = store.get([key, passage_key(""), passage_key("unknown")])
    assert found.keys() == {key, passage_key("")}
    assert found[key].ids.tolist() == [3, 1, 250_000, 1, 0]
    np.testing.assert_allclose(found[key].vectors, vectors[:, :3], atol=0.01)
    assert found[passage_key("")].vectors.shape == (0, 3)


def test_what_is_missing_and_what_goes(store: TokenStore) -> None:
    keys = [passage_key(str(number)) for number in range(1200)]
    store.put((key, np.ones((1, 4), np.float32), np.zeros(1, np.int64)) for key in keys[:-2])
    assert store.missing([*keys, keys[-1]]) == keys[-2:]
    assert store.keep_only(set(keys[:3])) == 1195
    assert store.count() == 3


def test_a_store_that_is_not_whole_is_not_used(store: TokenStore) -> None:
    store.put([(passage_key("a"), np.ones((1, 4), np.float32), np.zeros(1, np.int64))])
    assert not stored_passages(store, ["a"])
    store.set_meta("complete", "now")
    assert stored_passages(store, ["a", "b"]).keys() == {"a"}


def test_another_encoders_vectors_do_not_count(store: TokenStore) -> None:
    store.put([(passage_key("a"), np.ones((1, 4), np.float32), np.zeros(1, np.int64))])
    store.set_meta("complete", "now")
    other = TokenStore(store.path, "encoder-2")
    assert not other.is_complete
    assert other.projection is None
    assert other.missing([passage_key("a")]) == [passage_key("a")]
    assert TokenStore(store.path, "encoder-2", write=True).count() == 0


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "tokens.sqlite").write_bytes(b"not a database, but long enough to be looked at" * 40)
    with pytest.raises(IndexFormatError, match="Delete it"):
        _ = TokenStore(tmp_path / "tokens.sqlite", "encoder-1").is_complete


KILLED = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("PRAGMA cache_size=1")
db.execute("BEGIN")
for number in range(300):
    db.execute("INSERT INTO passages VALUES (?, ?, ?, ?)", (str(number).encode(), b"x" * 4000, b"", b"x" * 40000))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_in_the_middle_of_writing_leaves_what_was_there(store: TokenStore) -> None:
    store.put([(passage_key("a"), np.ones((1, 4), np.float32), np.zeros(1, np.int64))])
    store.set_meta("complete", "now")
    store.close()
    subprocess.run([sys.executable, "-c", KILLED, str(store.path)], check=False)
    assert store.path.with_name(f"{store.path.name}-journal").exists(), "the kill came in the middle"
    reader = TokenStore(store.path, "encoder-1")
    assert stored_passages(reader, ["a"]).keys() == {"a"}
    assert reader.count() == 1


def test_a_search_goes_on_without_a_damaged_store(engine: Engine) -> None:  # noqa: F811
    update_token_store(engine.settings, WordEncoder())  # type: ignore[arg-type]
    token_store_path(engine.settings).write_bytes(b"no database at all" * 900)
    fresh = Engine(engine.settings, WordEncoder())  # type: ignore[arg-type]
    result = fresh.search("犬", explain=True)
    assert result.hits[0].explanation.rerank_rank is None  # type: ignore[union-attr]


def test_a_search_reads_stored_vectors(settings: Settings) -> None:  # noqa: F811
    encoder = WordEncoder()
    engine = Engine(settings, encoder)  # type: ignore[arg-type]  # noqa: F811
    query = "犬 schläft คน nothing"
    on_demand = engine.search(query, rerank="late", explain=True)
    assert engine.search(query, explain=True).hits[0].explanation.rerank_rank is None  # type: ignore[union-attr]

    assert update_token_store(settings, encoder) == 14  # type: ignore[arg-type]
    encoder.encoded.clear()
    engine = Engine(settings, encoder)  # type: ignore[arg-type]
    stored = engine.search(query, explain=True)
    assert encoder.encoded == [], "every passage's tokens are read, none encoded"
    assert stored.notes == ()
    assert [hit.document_id for hit in stored.hits] == [hit.document_id for hit in on_demand.hits]
    for one, other in zip(stored.hits, on_demand.hits, strict=True):
        assert one.explanation is not None
        assert other.explanation is not None
        assert one.explanation.rerank_score == pytest.approx(other.explanation.rerank_score, abs=0.02)


def test_an_open_engine_sees_vectors_that_are_made_meanwhile(engine: Engine) -> None:  # noqa: F811
    assert engine.search("犬", explain=True).hits[0].explanation.rerank_rank is None  # type: ignore[union-attr]
    update_token_store(engine.settings, WordEncoder())  # type: ignore[arg-type]
    assert engine.search("犬", explain=True).hits[0].explanation.rerank_rank == 1  # type: ignore[union-attr]


def test_only_new_passages_are_encoded_again(settings: Settings, tmp_path: Path) -> None:  # noqa: F811
    encoder = WordEncoder()
    update_token_store(settings, encoder)  # type: ignore[arg-type]
    (tmp_path / "corpus" / "ja.txt").write_text("猫 は 寝る。", encoding="utf-8")
    (tmp_path / "corpus" / "th.txt").unlink()
    build.ingest(tmp_path / "corpus", settings, encoder=encoder)  # type: ignore[arg-type]
    encoder.encoded.clear()
    assert update_token_store(settings, encoder) == 1  # type: ignore[arg-type]
    assert encoder.encoded == ["ja\n猫 は 寝る。"]
    store = TokenStore(token_store_path(settings), encoder.fingerprint)
    assert store.count() == 13
    index = Engine(settings, encoder).index()  # type: ignore[arg-type]
    texts = [passage_text(point.chunk) for point in index.store.iter_points()]
    assert stored_passages(store, texts).keys() == set(texts)


def test_what_is_removed_leaves_no_tokens(settings: Settings) -> None:  # noqa: F811
    update_token_store(settings, WordEncoder())  # type: ignore[arg-type]
    build.remove(settings, ["ja.txt"])
    forget_removed(settings)
    store = TokenStore(token_store_path(settings), WordEncoder().fingerprint)
    assert store.count() == 13
    assert store.is_complete
    assert refresh_token_store(settings, wanted=None) == 0, "they are of the index as it is"


def test_vectors_are_kept_only_where_they_are_wanted(settings: Settings) -> None:  # noqa: F811
    assert refresh_token_store(settings, wanted=None) == 0
    assert not token_store_path(settings).exists()
    update_token_store(settings, WordEncoder())  # type: ignore[arg-type]
    assert refresh_token_store(settings, wanted=None) == 0, "they are of the index as it is"
    refresh_token_store(settings, wanted=False)
    assert not token_store_path(settings).exists()
