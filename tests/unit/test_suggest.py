"""Did you mean: in every script with words, and only where something is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers

from indexer.build import ingest
from search.engine import Engine
from search.opening import open_index
from search.pieces import Spelt, load_pieces, pieces_path
from search.settings import Settings, load_settings
from search.suggest import Speller, replace_words, unknown_words, words_of
from search.vocabulary import (
    Vocabulary,
    Word,
    adopt_vocabulary,
    build_vocabulary,
    keep_vocabulary,
    vocabulary_path,
)
from tests.conftest import FakeEncoder

DOCUMENTS = {
    "starter.txt": "The sourdough starter needs flour and water every day before baking bread at home.",
    "starter2.txt": "A sourdough loaf: feed your starter, wait for bubbles, then knead the dough and bake it.",
    "закваска.txt": "Ржаная закваска для хлеба готова через пять дней, если её подкармливать каждый день.",
    "προζύμι.txt": "Το προζύμι θέλει αλεύρι και νερό κάθε μέρα πριν ψήσουμε το ψωμί στο φούρνο.",
    "samudra.txt": "समुद्र तट पर लाल झंडा लगा हो तो पानी में तैरना मना है और खतरनाक भी होता है।",
    "khubz.txt": "الخبز العربي يحتاج إلى الدقيق والماء والملح والخميرة ثم يترك ليرتاح ساعة كاملة.",
    "lechem.txt": "הלחם הביתי דורש קמח ומים ושמרים והתפחה ארוכה במקרר לפני האפייה בתנור חם מאוד.",
    "onchon.txt": "전세 보증금을 돌려받지 못하면 보증금이 위험하므로 계약 전에 등기부를 확인하세요.",
    "onsen.txt": "温泉の入り方。次の順番を守れば気持ちよく温泉を楽しめます。",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("suggest")
    (home / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (home / "docs" / name).write_text(text, encoding="utf-8")
    settings = load_settings(home=home, index=str(home / "index"))
    ingest(home / "docs", settings, encoder=FakeEncoder())
    return settings


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return Engine(settings, FakeEncoder())


@pytest.mark.parametrize(
    ("query", "meant"),
    [
        ("sourdough strater", "sourdough starter"),
        ("Sourdogh bread", "Sourdough bread"),
        ("закваска для хлбеа", "закваска для хлеба"),
        ("προζυμη και νερό", "προζύμι και νερό"),
        ("समद्र तट पर झंडा", "समुद्र तट पर झंडा"),
        ("الخبز العرببي", "الخبز العربي"),
        ("קמח ושמריום", "קמח ושמרים"),
        ("전세 보즘금", "전세 보증금"),
        ("lang:en sourdough strater -cake", "lang:en sourdough starter -cake"),
    ],
)
def test_a_misspelt_word_is_mended_in_every_script(engine: Engine, query: str, meant: str) -> None:
    assert engine.search(query).suggestion == meant


@pytest.mark.parametrize(
    "query",
    ["sourdough starter", "温泉の入り万", "ชาไทย", "전세 보증금", "xyzzy", "12345", "🍞", "cat", "starters", "προζυμι"],
)
def test_what_is_right_or_like_nothing_is_left(engine: Engine, query: str) -> None:
    assert engine.search(query).suggestion is None


def test_a_question_in_a_language_that_the_index_lacks_is_left(engine: Engine) -> None:
    assert engine.search("Jak często trzeba podlewać storczyki w zimie, żeby zakwitły?").suggestion is None


def test_unknown_words_are_those_that_no_passage_holds(engine: Engine) -> None:
    store = engine.index().store
    assert unknown_words(store, "sourdough Strater ΠΡΟΖΥΜΙ хлеба 温泉 보즘금") == ["Strater", "보즘금"]
    assert words_of("a b a 温泉 ไทย") == ["a", "b"]


def test_of_equally_near_words_the_frequent_one_of_the_language_is_meant() -> None:
    words = [Word("haus", 3, "de"), Word("maus", 9, "de"), Word("taus", 99, "fi")]
    speller = Speller(words, lambda word: word == "baus")
    assert speller.correct("laus") == "taus"
    assert speller.correct("laus", ("de",)) == "maus"
    assert speller.correct("baus") is None
    assert speller.correct("las") is None


def test_an_error_is_a_unit_of_the_script() -> None:
    speller = Speller([Word("한국어", 1, "ko"), Word("प्रतीक्षा", 1, "hi"), Word("starter", 1, "en")])
    assert speller.correct("한굳어") == "한국어"
    assert speller.correct("한강물") is None
    assert speller.correct("प्रतिक्षा") == "प्रतीक्षा"
    assert speller.correct("strater") == "starter"
    assert speller.correct("startter") == "starter"
    assert speller.correct("sxyrter") is None


@pytest.mark.parametrize(
    ("typed", "other"), [("أفعل", "تفعل"), ("يطلب", "اطلب"), ("יכתוב", "תכתוב"), ("breads", "bread"), ("хлеба", "хлеб")]
)
def test_another_form_of_a_word_is_no_error(typed: str, other: str) -> None:
    assert Speller([Word(other, 5, "und")]).correct(typed) is None


def test_words_are_replaced_as_typed() -> None:
    assert replace_words("Strater strater-kit astrater", {"Strater": "starter", "strater": "starter"}) == (
        "Starter starter-kit astrater"
    )


def test_a_vocabulary_is_kept_and_read_again(settings: Settings, tmp_path: Path) -> None:
    index = open_index(settings)
    built = build_vocabulary(index.store)
    path = vocabulary_path(tmp_path, index.manifest)
    keep_vocabulary(built, path)
    assert Vocabulary.load(path) == built
    assert {word.text for word in built.words} >= {"sourdough", "закваска", "समुद्र", "보증금"}
    assert next(word for word in built.words if word.text == "sourdough") == Word("sourdough", 2, "en")
    assert ("onsen", "温泉") in {(spelt.spelling, spelt.text) for spelt in built.spelt["Jpan"]}
    grown = index.manifest.model_copy(update={"updated": "2030-01-01T00:00:00Z"})
    assert adopt_vocabulary(vocabulary_path(tmp_path, grown))
    assert not path.exists()
    much = grown.model_copy(update={"chunks": grown.chunks * 2})
    assert not adopt_vocabulary(vocabulary_path(tmp_path, much))
    index.close()


def test_pieces_of_the_tokenizer_are_kept_once_for_all_indexes(tmp_path: Path) -> None:
    path = pieces_path(tmp_path, "abc")
    built = load_pieces(path, _unigram())
    assert built.latin == {"▁the": -3.0}
    assert built.spelt["Cyrl"] == [Spelt("hleb", "хлеб", -5.0, True), Spelt("u", "ў", -6.0, False)]
    assert built.among({"Cyrl": set("хлеба"), "Grek": set("α")}) == {"Cyrl": built.spelt["Cyrl"][:1], "Grek": []}
    load_pieces.cache_clear()
    kept = load_pieces(path, tokenizers.Tokenizer(tokenizers.models.BPE()))  # it is not asked
    assert kept == built
    for content in (b"", b"\x1f\x8bbroken", b"{}"):
        path.write_bytes(content)
        load_pieces.cache_clear()
        assert load_pieces(path, _unigram()) == built


def test_a_damaged_vocabulary_is_built_again(settings: Settings) -> None:
    engine = Engine(settings, FakeEncoder())
    path = vocabulary_path(settings.index_folder, engine.index().manifest)
    for content in (b"", b"\x1f\x8bbroken", b"{}"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        assert Engine(settings, FakeEncoder()).search("sourdough strater").suggestion == "sourdough starter"
    engine.close()


def test_a_large_index_is_read_behind(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for kept in (settings.index_folder / "words").glob("*"):
        kept.unlink()
    monkeypatch.setattr("search.words.BUILT_AT_ONCE", 1)
    engine = Engine(settings, FakeEncoder())
    first = engine.search("sourdough strater").suggestion
    assert engine._words is not None
    assert engine._words._building is not None
    engine._words._building.join(timeout=60)
    assert first in (None, "sourdough starter")
    assert engine.search("sourdough strater").suggestion == "sourdough starter"
    engine.close()


def test_an_ingest_reads_the_words_of_a_large_index(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from search.words import prepare_words

    folder = settings.index_folder / "words"
    for kept in folder.glob("*"):
        kept.unlink()
    prepare_words(settings)
    assert not list(folder.glob("*"))
    monkeypatch.setattr("search.words.BUILT_AT_ONCE", 1)
    prepare_words(settings)
    assert len(list(folder.glob("*.json.gz"))) == 1


def _unigram() -> tokenizers.Tokenizer:
    pieces = [("<unk>", 0.0), ("▁the", -3.0), ("▁хлеб", -5.0), ("ў", -6.0)]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram(pieces, unk_id=0))
    assert json.loads(tokenizer.to_str())["model"]["type"] == "Unigram"
    return tokenizer
