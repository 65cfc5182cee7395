"""The head that takes the language out of pooled vectors: made vectors whose language is an offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

from search.errors import TrainingDataError, TrainingError
from search.records import Vectors
from training.data.schema import BitextRow, RetrievalRow, Row
from training.head import HeadNetwork, HeadTexts, draw_texts, fit_head, ranking_loss
from training.neutral import remove_language_means
from training.recipe import Head

LANGS = ("ar", "hi", "ru", "zh")
SIZE, MEANINGS = 32, 160


@dataclass
class OffsetEncoder:
    """A text is "language number": its vector is the sum of both; those of documents lie a little apart."""

    dimension: int = SIZE
    draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(5))

    def __post_init__(self) -> None:
        self.meanings = self.draw.normal(size=(MEANINGS, SIZE))
        self.offsets = dict(zip(LANGS, 12 * np.linalg.qr(self.draw.normal(size=(SIZE, len(LANGS))))[0].T, strict=True))
        self.side = 0.1 * self.draw.normal(size=SIZE)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        pairs = [text.split() for text in texts]
        whole = np.array([self.meanings[int(number)] + self.offsets[lang] for lang, number in pairs]).reshape(-1, SIZE)
        return np.asarray(whole / np.linalg.norm(whole, axis=1, keepdims=True), np.float32)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        whole = self.encode_queries(texts) + self.side / 10
        return np.asarray(whole / np.linalg.norm(whole, axis=1, keepdims=True), np.float32)


def made_rows() -> dict[str, list[Row]]:
    families: list[Row] = [
        BitextRow(dataset="pairs", langs=LANGS, texts=tuple(f"{lang} {number}" for lang in LANGS))
        for number in range(MEANINGS // 2)
    ]
    answers: list[Row] = [
        RetrievalRow(
            dataset="answers", query=f"{lang} {number}", positive=f"{lang} {number}", lang_query=lang, lang_doc=lang
        )
        for number in range(MEANINGS // 2)
        for lang in LANGS
    ]
    return {"pairs": families, "answers": answers}


def nearest(vectors: Vectors, langs: Sequence[str], numbers: Sequence[int]) -> tuple[float, float]:
    """Shares of texts whose nearest other text is a translation, and is in their own language."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1)
    best = scores.argmax(axis=1)
    return (
        float(np.mean([numbers[i] == numbers[j] for i, j in enumerate(best)])),
        float(np.mean([langs[i] == langs[j] for i, j in enumerate(best)])),
    )


@pytest.mark.parametrize("losses", [{}, {"bitext": 0.0, "ranking": 0.0}, {"neutral": 0.0, "ranking": 0.0}])
def test_texts_that_the_head_never_saw_meet_their_translations(losses: dict[str, float]) -> None:
    encoder: Any = OffsetEncoder()
    head, final = fit_head(
        draw_texts(made_rows(), seed=1), encoder, Head(hidden=64, steps=300, **losses), kept_mean=0.25, seed=1
    )
    assert final.keys() == {"neutral", "bitext", "ranking"} - losses.keys()
    unseen = [(lang, number) for number in range(MEANINGS // 2, MEANINGS) for lang in LANGS]
    langs, numbers = zip(*unseen, strict=True)
    vectors = encoder.encode_queries([f"{lang} {number}" for lang, number in unseen])
    with torch.inference_mode():
        mapped = head(torch.from_numpy(vectors)).numpy()
    np.testing.assert_allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-5)
    assert nearest(vectors, langs, numbers)[1] > 0.95
    found, own = nearest(mapped, langs, numbers)
    assert found > 0.9
    assert own < 0.1


def test_the_ranking_loss_is_the_divergence_from_the_ranking_of_the_base() -> None:
    """Base cosines 0.02 and 0 give shares of e^2 to 1, 0.881 and 0.119; equal ones differ by 0.328 nats."""
    query, same, other = torch.eye(3).split(1)
    documents = torch.cat([0.02 * same + other, other])
    told = ranking_loss(same, documents, same, documents, torch.tensor(5.0), (3,))
    assert float(told) == pytest.approx(0, abs=1e-4)
    flat = ranking_loss(same, documents, query, documents, torch.tensor(5.0), (3,))
    assert float(flat) == pytest.approx(0.8808 * np.log(0.8808 / 0.5) + 0.1192 * np.log(0.1192 / 0.5), abs=1e-3)


def test_a_head_that_is_taught_rankings_stays_nearer_to_those_of_the_base() -> None:
    encoder: Any = OffsetEncoder()
    texts = draw_texts(made_rows(), seed=1)

    def divergence(ranking: float) -> float:
        options = Head(hidden=64, steps=300, neutral=0, ranking=ranking)
        head, _ = fit_head(texts, encoder, options, kept_mean=0.0, seed=1)
        names = [f"hi {number}" for number in range(MEANINGS // 2)]
        sides = [torch.from_numpy(side) for side in (encoder.encode_queries(names), encoder.encode_documents(names))]
        with torch.inference_mode():
            after = [head(side) for side in sides]
            found = [ranking_loss(*sides, *after, torch.tensor(scale), (SIZE,)) for scale in (0.5, 1, 2, 4)]
        return float(min(found))

    assert divergence(20.0) < 0.7 * divergence(0.0)


def test_a_head_is_repeatable_and_leaves_random_numbers_alone() -> None:
    encoder: Any = OffsetEncoder()
    texts = draw_texts(made_rows(), seed=1)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second = (
        fit_head(texts, encoder, Head(hidden=8, steps=5), kept_mean=0.0, dims=(32, 16), seed=2)[0] for _ in range(2)
    )
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_an_unfitted_head_changes_nothing() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(5, 16), dim=1)
    torch.testing.assert_close(HeadNetwork(16, 8)(vectors), vectors)


def test_what_is_drawn_is_even_between_languages_and_distinct() -> None:
    rows = made_rows()
    many: list[Row] = [
        RetrievalRow(dataset="many", query=f"zh {i}", positive=f"zh {i} x", lang_query="zh", lang_doc="zh")
        for i in range(3000)
    ]
    few: list[Row] = [
        RetrievalRow(dataset="many", query=f"hi {i}", positive=f"hi {i} x", lang_query="hi", lang_doc="hi")
        for i in range(100)
    ]
    long: list[Row] = [
        RetrievalRow(dataset="many", query="ar 1", positive="ar " * 1000, lang_query="ar", lang_doc="ar")
    ]
    found = draw_texts({**rows, "many": [*many, *few, *long]}, seed=1)
    for texts in (found.queries, found.documents):
        assert len(set(texts)) == len(texts)
    of_many = [lang for lang, text in found.documents if text.endswith(" x")]
    assert (of_many.count("zh"), of_many.count("hi")) == (300, 100)
    assert not [text for _, text in found.documents if len(text) > 1800]
    assert {len(family) for family in found.translations["pairs"]} == {len(LANGS)}
    assert [len(shown) for _, shown in found.rankings].count(MEANINGS // 2) == len(LANGS)


def test_one_language_has_no_language_to_take_out() -> None:
    rows: list[Row] = [RetrievalRow(dataset="a", query="q", positive="p", lang_query="ja", lang_doc="ja")]
    with pytest.raises(TrainingDataError, match="fewer than two languages"):
        draw_texts({"a": rows}, seed=1)
    assert HeadTexts().queries == []


@pytest.mark.parametrize("kind", ["pairs", "answers"])
def test_translations_alone_or_questions_alone_will_do(kind: str) -> None:
    encoder: Any = OffsetEncoder()
    texts = draw_texts({kind: made_rows()[kind]}, seed=1)
    _, losses = fit_head(texts, encoder, Head(hidden=8, steps=3), kept_mean=0.0, seed=1)
    assert losses.keys() == {"neutral", "bitext" if kind == "pairs" else "ranking"}


def test_nothing_to_learn_and_losses_that_are_no_numbers_are_errors() -> None:
    encoder: Any = OffsetEncoder()
    texts = draw_texts({"answers": made_rows()["answers"]}, seed=1)
    with pytest.raises(TrainingDataError, match="nothing to learn"):
        fit_head(texts, encoder, Head(hidden=8, steps=3, neutral=0, ranking=0), kept_mean=0.0, seed=1)
    with pytest.raises(TrainingError, match=r"no numbers.*head\.learning_rate"):
        fit_head(texts, encoder, Head(hidden=8, steps=30, learning_rate=1e30), kept_mean=0.0, seed=1)


def test_the_teacher_is_what_the_head_comes_near() -> None:
    encoder: Any = OffsetEncoder()
    texts = draw_texts(made_rows(), seed=1)
    head, losses = fit_head(texts, encoder, Head(hidden=64, steps=400, bitext=0, ranking=0), kept_mean=0.0, seed=1)
    vectors = encoder.encode_queries([text for _, text in texts.queries])
    wanted = remove_language_means(vectors, [lang for lang, _ in texts.queries])
    with torch.inference_mode():
        cosines = (head(torch.from_numpy(vectors)).numpy() * wanted).sum(axis=1)
    assert losses["neutral"] < 0.1
    assert cosines.mean() > 0.9 > (vectors * wanted).sum(axis=1).mean() + 0.1
