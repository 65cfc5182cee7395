"""Queries in Latin letters, read in the script of their language."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from search.pieces import Spelt
from search.romanize import loose, romanize, script_group, skeleton, split_japanese
from search.transliterate import DECISIVE, ScriptReader, Transliterator

WORDS = {
    "Cyrl": ["как", "заваривать", "чай", "хорошо", "ребёнок", "щука"],
    "Grek": ["θάλασσα", "ευχαριστώ", "ψωμί"],
    "Arab": ["كتاب", "مدرسة", "السلام", "نان"],
    "Hebr": ["שלום", "לחם", "ירושלים"],
    "Deva": ["पानी", "समुद्र", "कैसे", "झंडा"],
    "Jpan": ["温泉", "入り方", "おにぎり", "東京"],
    "Kore": ["한국어", "김치", "보증금"],
    "Hani": ["北京", "饺子"],
    "Geor": ["საქართველო", "პური"],
    "Armn": ["հաց"],
    "Taml": ["வேண்டும்", "தமிழ்"],
}


def entries(script: str) -> list[Spelt]:
    return [Spelt(spelling, word, -8.0, True) for word in WORDS[script] for spelling in romanize(word, script)]


@pytest.mark.parametrize(
    ("script", "typed", "meant"),
    [
        ("Cyrl", "zavarivat", "заваривать"), ("Cyrl", "khorosho", "хорошо"), ("Cyrl", "horosho", "хорошо"),
        ("Cyrl", "rebyonok", "ребёнок"), ("Grek", "thalassa", "θάλασσα"), ("Grek", "psomi", "ψωμί"),
        ("Arab", "kitab", "كتاب"), ("Arab", "madrasa", "مدرسة"), ("Arab", "al-salam", "السلام"),
        ("Arab", "naan", "نان"), ("Arab", "madrasat", "مدرسة"),
        ("Hebr", "shalom", "שלום"), ("Hebr", "lechem", "לחם"), ("Hebr", "yerushalayim", "ירושלים"),
        ("Deva", "paani", "पानी"), ("Deva", "samudra", "समुद्र"), ("Deva", "jhanda", "झंडा"),
        ("Jpan", "onsen", "温泉"), ("Jpan", "tokyo", "東京"), ("Jpan", "onigiri", "おにぎり"),
        ("Kore", "hangugeo", "한국어"), ("Kore", "kimchi", "김치"), ("Kore", "bojeunggeum", "보증금"),
        ("Hani", "beijing", "北京"), ("Hani", "jiaozi", "饺子"), ("Geor", "sakartvelo", "საქართველო"),
        ("Armn", "hats", "հաց"), ("Taml", "vendum", "வேண்டும்"),
    ],
)  # fmt: skip
def test_words_are_read_however_they_are_spelt(script: str, typed: str, meant: str) -> None:
    found = ScriptReader(script, entries(script)).read(typed)
    assert found is not None
    assert found.text == meant


def test_spellings_that_people_use_are_one() -> None:
    assert loose("Khorosho", "Cyrl") == loose("horosho", "Cyrl")
    assert loose("Tōkyō", "Jpan") != ""
    assert loose("toukyou", "Jpan") == loose("tokyo", "Jpan")
    assert loose("hanguk", "Kore") == loose("hankug", "Kore")
    assert skeleton("kitab", "Arab") == skeleton("ktb", "Arab") == "ktb"
    assert skeleton("kitab", "Cyrl") == "katab"


def test_a_word_may_be_put_together_of_pieces() -> None:
    pieces = [Spelt("za", "за", -5.0, True), Spelt("varivat", "варивать", -6.0, False), Spelt("za", "ЗА", -1.0, False)]
    found = ScriptReader("Cyrl", pieces).read("zavarivat")
    assert found is not None
    assert (found.text, found.score) == ("заваривать", -11.0)
    assert ScriptReader("Cyrl", pieces).read("qwrt") is None
    assert ScriptReader("Cyrl", pieces).read("") is None


def reader(latin: float = -20.0) -> Transliterator:
    return Transliterator({script: entries(script) for script in WORDS}, lambda word: latin)


def test_a_query_is_read_in_the_likeliest_script() -> None:
    found = reader().read("Kak zavarivat chay?")
    assert found is not None
    assert (found.text, found.script) == ("как заваривать чай?", "Cyrl")
    hindi = reader().read("samudra ka paani kaise")
    assert hindi is not None
    assert hindi.script == "Deva"
    assert hindi.text == "समुद्र ka पानी कैसे"  # of ka, nothing is known: it stays


def test_a_query_that_is_likelier_as_it_is_typed_is_not_read() -> None:
    assert reader(latin=-8.0).read("kak zavarivat chay") is None
    gain = (20.0 - 8.0) * 1
    assert (reader().read("onsen") is not None) == (gain >= DECISIVE)


@pytest.mark.parametrize(
    "query", ["", "a", "?!", "как заваривать чай", "samudra पानी", "dövme çay", "été à la mer", "温泉 onsen"]
)
def test_what_is_not_plain_latin_letters_is_not_read(query: str) -> None:
    assert reader().read(query) is None


def test_words_of_one_script_are_told_apart() -> None:
    words = ("温泉", "入り方", "キムチ", "한국어", "чай", "tea", "чayй", "ไทย", "12", "")
    assert [script_group(word) for word in words] == ["Hani", "Jpan", "Jpan", "Kore", "Cyrl", *[""] * 5]
    assert split_japanese("温泉の入り方とコーヒー、Tokyo 2020。") == ["温泉", "入", "方", "コーヒー"]


def test_readings_of_japanese_may_be_asked_for_in_several_threads() -> None:
    words = ["富士山", "東京都庁", "温泉", "カタカナ", "日本語の本"] * 200
    expected = [romanize(word, "Jpan") for word in words]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: [romanize(word, "Jpan") for word in words], range(8)))
    assert found == [expected] * 8
