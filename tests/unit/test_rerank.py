"""Reranking: late interaction, cross-encoders, what language bias is taken off, and falling back."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import regex
from test_encoder import TEXTS, cache, save_tiny, tiny, tiny_folder  # noqa: F401  # fixtures

from indexer import build
from search import rerank as reranking
from search.encoder import Encoder, load_encoder
from search.encoder.encoding import TokenVectors
from search.engine import Engine
from search.errors import EncoderError, RerankerError
from search.lexical import tokenize
from search.records import Chunk, ScoredPoint, Vectors
from search.rerank import (
    CrossEncoderReranker,
    LateInteraction,
    MultiVectorReranker,
    Rerankers,
    TokenCache,
    add_documents,
    best_similarities,
    load_cross_encoder,
    load_reranker,
    rarity_weights,
    remove_language_bias,
    rerank,
)
from search.settings import Settings, load_settings
from search.text import whole_graphemes
from tests.conftest import FakeEncoder

SCRIPTS = {
    "de": "der hund schläft auf dem sofa",
    "ja": "犬 が ソファ で 眠る",
    "th": "สุนัข นอน บน โซฟา",
    "ar": "الكلب ينام على الأريكة",
    "he": "הכלב ישן על הספה",
    "hi": "कुत्ता सोफे पर सोता है",
}


class WordEncoder(FakeEncoder):
    """One vector for each word, equal for equal words: MaxSim counts the words of the query that a passage holds."""

    backend = None

    def encode_query_tokens(self, texts: list[str], *, max_tokens: int | None = None) -> list[TokenVectors]:
        return [self._tokens(text, max_tokens) for text in texts]

    def encode_document_tokens(self, texts: list[str], *, max_tokens: int | None = None) -> list[TokenVectors]:
        self.encoded += texts
        return self.encode_query_tokens(texts, max_tokens=max_tokens)

    def encode_queries(self, texts: list[str]) -> Vectors:
        means = np.stack([self._tokens(text, None).vectors.sum(axis=0) + 1e-3 for text in texts])
        return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True), np.float32)

    def _tokens(self, text: str, max_tokens: int | None) -> TokenVectors:
        words = list(regex.finditer(r"[\p{L}\p{M}\p{N}]+", text))[:max_tokens]
        ids = np.array([zlib.crc32(tokenize(word[0])[0].encode()) for word in words], np.int64)
        vectors = np.stack([np.random.default_rng(i).standard_normal(64) for i in ids]) if words else np.zeros((0, 64))
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        spans = np.array([word.span() for word in words], np.int64).reshape(-1, 2)
        return TokenVectors(np.asarray(unit, np.float32), ids, spans)


def point(number: int, text: str = "", lang: str = "de") -> ScoredPoint:
    return ScoredPoint(Chunk(f"d{number}", 0, text, lang=lang), 1.0 / (61 + number))


class Known:
    """A reranker whose scores are given."""

    name = "known"

    def __init__(self, *scores: float) -> None:
        self._scores = scores

    def score(self, query: str, chunks: list[Chunk]) -> np.ndarray:
        return np.array(self._scores, np.float32)


def test_best_similarities_by_hand() -> None:
    passages = [np.float32([[0.6, 0.8], [0.0, 1.0]]), np.zeros((0, 2), np.float32), np.eye(2, dtype=np.float16)]
    found = best_similarities(np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), passages)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, [[0.6, 1.0], [0.0, 0.0], [1.0, 1.0]], atol=1e-6)
    assert best_similarities(np.zeros((0, 2), np.float32), passages[:1]).shape == (1, 0)


def test_rare_tokens_weigh_more() -> None:
    weights = rarity_weights(np.array([1, 2, 3]), [np.array([1, 2]), np.array([1]), np.array([1])])
    expected = np.maximum(np.log([4 / 3.5, 4 / 1.5, 4 / 0.5]), 0.1)
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-6)


def test_language_bias_by_hand() -> None:
    scores, even = np.array([1, 1, 0, 0], np.float32), np.zeros(4, np.float32)
    found = remove_language_bias(scores, even, ["de", "de", "fr", "fr"], shrinkage=2)
    np.testing.assert_allclose(found, [0.75, 0.75, 0.25, 0.25], atol=1e-4)


def test_language_bias_is_not_what_a_language_is_worth() -> None:
    """Scores that the relevance explains stay; the order within a language always stays; one language has no bias."""
    relevance = np.array([0.9, 0.2, 0.8, 0.1], np.float32)
    languages = ["ja", "ja", "ar", "ar"]
    np.testing.assert_allclose(remove_language_bias(relevance * 2, relevance, languages), relevance * 2, atol=1e-4)
    biased = remove_language_bias(relevance * 2 + np.float32([0, 0, 3, 3]), relevance, languages, shrinkage=0.1)
    assert np.argsort(-biased).tolist() == [0, 2, 1, 3]
    assert remove_language_bias(relevance, relevance, ["ja"] * 4) is relevance


def test_unread_points_follow_and_scores_descend() -> None:
    points = [point(number) for number in range(4)]
    found = rerank("q", points, Known(0.1, 0.9), np.zeros(2, np.float32))
    assert [p.chunk.document_id for p in found.points] == ["d1", "d0", "d2", "d3"]
    assert sorted((p.score for p in found.points), reverse=True) == [p.score for p in found.points]
    assert found.by_chunk == {points[1].chunk.id: (1, pytest.approx(0.9)), points[0].chunk.id: (2, pytest.approx(0.1))}


def test_equal_scores_keep_the_order() -> None:
    points = [point(number) for number in range(5)]
    found = rerank("q", points, Known(*[0.5] * 5), np.zeros(5, np.float32))
    assert [p.chunk.id for p in found.points] == [p.chunk.id for p in points]


@pytest.mark.parametrize("lang", SCRIPTS)
def test_late_interaction_finds_the_words_in_every_script(lang: str) -> None:
    chunks = [Chunk(f"d{name}", 0, text, lang=name) for name, text in SCRIPTS.items()]
    scores = LateInteraction(TokenCache(WordEncoder())).score(SCRIPTS[lang], chunks)  # type: ignore[arg-type]
    assert chunks[int(scores.argmax())].lang == lang
    assert scores.max() == pytest.approx(1.0, abs=1e-3)


def test_late_interaction_reads_title_and_headings() -> None:
    plain, titled = Chunk("a", 0, "x y"), Chunk("b", 0, "x y", title="hund")
    scores = LateInteraction(TokenCache(WordEncoder())).score("hund", [plain, titled])  # type: ignore[arg-type]
    assert scores[1] > scores[0]


@pytest.mark.parametrize("query", ["", " ", "?!…", "👨‍👩‍👧"])
def test_a_query_without_tokens_changes_nothing(query: str) -> None:
    scores = LateInteraction(TokenCache(WordEncoder())).score(query, [Chunk("a", 0, "x"), Chunk("b", 0, "")])  # type: ignore[arg-type]
    assert scores.tolist() == [0.0, 0.0]


def test_passages_are_encoded_once_and_the_oldest_are_dropped() -> None:
    encoder = WordEncoder()
    tokens = TokenCache(encoder, most_bytes=2 * 3 * 64 * 2)  # type: ignore[arg-type]  # two texts of three words
    tokens.tokens_of(["a b c", "d e f", "a b c"])
    assert tokens.tokens_of(["a b c"])[0].vectors.dtype == np.float16
    assert encoder.encoded == ["a b c", "d e f"]
    tokens.tokens_of(["g h i"])
    tokens.tokens_of(["a b c"])
    assert encoder.encoded == ["a b c", "d e f", "g h i"]
    tokens.tokens_of(["d e f"])
    assert encoder.encoded[3:] == ["d e f"]
    assert len(tokens.tokens_of(["a b c"], max_tokens=2)[0].ids) == 2


def test_tokens_stand_for_their_characters(tiny: Encoder) -> None:  # noqa: F811
    for text, tokens in zip(TEXTS, tiny.encode_document_tokens(TEXTS), strict=True):
        whole = [whole_graphemes(text, int(start), int(end)) for start, end in tokens.spans]  # NFC eats an accent
        words = [text[start:end] for start, end in whole]
        assert words == text.split()[: len(words)]
        assert len(words) == min(len(text.split()), tiny.max_tokens - 4)  # [CLS] passage : … [SEP]
        np.testing.assert_allclose(np.linalg.norm(tokens.vectors, axis=1), 1, atol=1e-5)
    spaced = tiny.encode_query_tokens(["  \n hund \t 犬 ", " ", ""])
    assert spaced[0].spans.tolist() == [[4, 8], [11, 12]]
    assert [len(tokens.ids) for tokens in spaced[1:]] == [0, 0]
    assert tiny.encode_query_tokens([]) == []


def test_tokens_are_what_pooling_averages_over(tiny: Encoder) -> None:  # noqa: F811
    ids = np.array([[2, 4, 5, 3]], np.int64)
    pooled = tiny.backend.forward(ids, np.ones_like(ids))[0]
    tokens = tiny.backend.forward_tokens(ids, np.ones_like(ids))[0]  # type: ignore[attr-defined]
    mean = tokens.mean(axis=0)
    np.testing.assert_allclose(mean / np.linalg.norm(mean), pooled / np.linalg.norm(pooled), atol=1e-5)


def test_openvino_gives_the_same_tokens_as_torch(tiny: Encoder, tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("openvino")
    other = load_encoder(str(tiny_folder), backend="openvino-f32", device="cpu", cache_dir=tmp_path)
    for a, b in zip(tiny.encode_document_tokens(TEXTS), other.encode_document_tokens(TEXTS), strict=True):
        np.testing.assert_allclose(a.vectors, b.vectors, atol=2e-3)
        assert np.array_equal(a.spans, b.spans)


def test_an_encoder_without_tokens_says_so(tiny: Encoder) -> None:  # noqa: F811
    class PooledOnly:
        name, batch_tokens, length_step = "pooled", 64, 8

        def forward(self, token_ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
            return np.ones((len(token_ids), 32), np.float32)

    poor = Encoder(tiny.manifest, tokenizer=tiny.tokenizer, pad_id=0, backend=PooledOnly())
    with pytest.raises(EncoderError, match="--rerank none"):
        poor.encode_document_tokens(["a"])
    with pytest.raises(RerankerError, match="no late interaction"):
        LateInteraction(TokenCache(poor)).score("a", [Chunk("a", 0, "a")])


@pytest.fixture(scope="module")
def plain_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cross") / "tiny"
    save_tiny(folder)
    return folder.with_name("tiny-base")


@pytest.fixture(scope="module")
def cross_folder(plain_bert: Path) -> Path:
    """A random CrossEncoder whose last layer is fixed: every pair gets the logit 0.25."""
    import torch
    from sentence_transformers import CrossEncoder

    torch.manual_seed(0)
    model = CrossEncoder(str(plain_bert), local_files_only=True)
    with torch.no_grad():
        model[0].model.classifier.weight.zero_()
        model[0].model.classifier.bias.fill_(0.25)
    model.save_pretrained(str(plain_bert.with_name("cross")))
    return plain_bert.with_name("cross")


def test_a_cross_encoder_from_a_folder_gives_its_logits(cross_folder: Path) -> None:
    reranker = load_cross_encoder(str(cross_folder))
    scores = reranker.score("hund", [Chunk("a", 0, "hund 犬"), Chunk("b", 0, "كلب " * 200), Chunk("c", 0, "")])
    np.testing.assert_allclose(scores, 0.25, atol=1e-6)


def test_what_is_no_cross_encoder_is_refused(plain_bert: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    with pytest.raises(RerankerError, match="never trained"):
        load_cross_encoder(str(plain_bert))
    CrossEncoder(str(plain_bert), num_labels=3, local_files_only=True).save_pretrained(str(tmp_path / "three"))
    with pytest.raises(RerankerError, match="3 classes"):
        load_cross_encoder(str(tmp_path / "three"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(RerankerError, match="cannot be loaded"):
        load_cross_encoder(str(tmp_path / "empty"))
    with pytest.raises(RerankerError, match="cannot be loaded"):
        load_cross_encoder("nobody/has-this")
    with pytest.raises(RerankerError, match="hub id"):
        load_cross_encoder("lte")


class Tokens:
    """Stands in for a MultiVectorEncoder: two dimensions, a vector for each letter a or b."""

    def encode_query(self, texts: list[str], **_: object) -> list[np.ndarray]:
        return [np.array([[letter == "a", letter == "b"] for letter in text], np.float32) for text in texts]

    encode_document = encode_query


def test_a_multi_vector_encoder_scores_by_the_mean_of_the_best() -> None:
    chunks = [Chunk("1", 0, "ba"), Chunk("2", 0, "aa"), Chunk("3", 0, "")]
    reranker = MultiVectorReranker("mine", Tokens())
    assert reranker.score("ab", chunks).tolist() == [1.0, 0.5, 0.0]
    assert reranker.score("aab", chunks)[1] == pytest.approx(2 / 3)
    assert reranker.score("", chunks).tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(RerankerError, match="'mine' failed"):
        MultiVectorReranker("mine", None).score("a", chunks)


def test_a_damaged_multi_vector_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config_sentence_transformers.json").write_text('{"model_type": "MultiVectorEncoder"}', "utf-8")
    with pytest.raises(RerankerError, match="cannot be loaded"):
        load_reranker(str(tmp_path))


class Predicts:
    """Stands in for a CrossEncoder."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def predict(self, pairs: list[tuple[str, str]], **_: object) -> object:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer if self._answer is not None else [float(query in text) for query, text in pairs]


@pytest.mark.parametrize("answer", [[float("nan")] * 2, [[0.1, 0.9]] * 2, [0.5], RuntimeError("out of memory")])
def test_useless_scores_are_an_error(answer: object) -> None:
    with pytest.raises(RerankerError, match="odd"):
        CrossEncoderReranker("odd", Predicts(answer)).score("q", [Chunk("a", 0, "x"), Chunk("b", 0, "y")])


def test_a_failed_reranker_is_not_loaded_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def load(name: str) -> CrossEncoderReranker:
        tried.append(name)
        raise RerankerError("not here")

    monkeypatch.setattr(reranking, "load_cross_encoder", load)
    rerankers = Rerankers()
    for _ in range(3):
        with pytest.raises(RerankerError, match="not here"):
            rerankers.get("some/one", pytest.fail)
    assert tried == ["some/one"]
    monkeypatch.setattr(reranking, "_RETRY_S", 0.0)
    with pytest.raises(RerankerError):
        rerankers.get("some/one", pytest.fail)
    assert len(tried) == 2


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for lang, text in SCRIPTS.items():
        (corpus / f"{lang}.txt").write_text(text + ".", encoding="utf-8")
    for number in range(8):
        (corpus / f"other{number}.txt").write_text(f"nothing about animals, number {number}.", encoding="utf-8")
    settings = load_settings(index=str(tmp_path / "index"))
    build.ingest(corpus, settings, encoder=WordEncoder())  # type: ignore[arg-type]
    return settings


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = Engine(settings, WordEncoder())  # type: ignore[arg-type]
    yield engine
    engine.close()


@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
def test_search_reranks_and_explains(engine: Engine, mode: str) -> None:
    result = engine.search("nothing about the number 3", rerank="late", mode=mode, explain=True)
    assert result.notes == ()
    assert result.hits[0].document_id == "other3.txt"
    explained = [hit.explanation for hit in result.hits]
    assert [e.rerank_rank for e in explained if e] == list(range(1, len(explained) + 1))
    scores = [e.rerank_score for e in explained if e and e.rerank_score is not None]
    assert sorted(scores, reverse=True) == scores
    assert result.hits[0].as_json()["explanation"]["rerank_rank"] == 1
    plain = engine.search("nothing about the number 3", rerank="none", mode=mode, explain=True)
    assert plain.hits[0].explanation is not None
    assert plain.hits[0].explanation.rerank_rank is None


def test_a_cross_encoder_decides_the_order(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reranking, "load_cross_encoder", lambda name: CrossEncoderReranker(name, Predicts(None)))
    found = engine.search("sofa", rerank="some/one").hits
    assert found[0].document_id == "de.txt"
    assert [hit.rank for hit in found] == list(range(1, len(found) + 1))


def test_a_reranker_that_fails_is_left_out_and_said(engine: Engine, tmp_path: Path) -> None:
    plain = [hit.document_id for hit in engine.search("hund", rerank="none").hits]
    for name in ("lte", "nobody/has-this", str(tmp_path)):
        result = engine.search("hund", rerank=name)
        assert [hit.document_id for hit in result.hits] == plain
        assert len(result.notes) == 1
        assert "not reranked" in result.notes[0]


def test_pages_do_not_overlap(engine: Engine) -> None:
    whole = [hit.document_id for hit in engine.search("nothing about hund 犬", k=14, rerank="late").hits]
    pages = [
        hit.document_id
        for offset in range(0, 14, 4)
        for hit in engine.search("nothing about hund 犬", k=4, offset=offset, rerank="late").hits
    ]
    assert pages == whole
    assert len(set(whole)) == len(whole)


def test_documents_count_beside_their_passages() -> None:
    scores = np.array([1.0, 0.0], np.float32)
    assert add_documents(scores, np.array([0.2, 0.4], np.float32)) == pytest.approx([0.8, 0.2])
    assert add_documents(10 * scores, np.array([2, 4], np.float32)) == pytest.approx([8.0, 2.0])  # whatever the units


def test_a_document_that_is_not_known_changes_nothing() -> None:
    scores, nan = np.array([1.0, 0.0, 0.5], np.float32), np.nan
    assert add_documents(scores, np.array([nan, nan, nan], np.float32)) is scores
    assert add_documents(scores, np.array([0.3, 0.3, nan], np.float32)) is scores
    assert add_documents(scores, np.array([0.2, 0.4, nan], np.float32))[2] == 0.5
    equal = np.array([0.1] * 7 + [nan], np.float32)  # their deviation is not quite 0
    assert add_documents(np.arange(8, dtype=np.float32), equal) == pytest.approx(np.arange(8))
