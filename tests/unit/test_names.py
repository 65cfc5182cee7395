"""Names in running text: what is one, where it may stand, what it becomes in another language."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter
from collections.abc import Mapping

import pytest

from training.data.schema import BitextRow
from training.names import Names, choose_names, count_ordinary

FRANCE = {
    "en": "France", "de": "Frankreich", "ru": "Франция", "zh": "法国", "ja": "フランス", "ko": "프랑스", "ar": "فرنسا",
    "he": "צרפת", "hi": "फ़्रांस", "th": "ฝรั่งเศส", "am": "ፈረንሳይ", "el": "Γαλλία", "ka": "საფრანგეთი", "ta": "பிரான்ஸ்",
}  # fmt: skip
GUINEA = {"en": "Guinea", "zh": "几内亚", "th": "กินีเอก", "ja": "ギニア", "ru": "Гвинея"}
BISSAU = {"en": "Guinea-Bissau", "zh": "几内亚比绍", "th": "กินีเอกบิสเซา", "ja": "ギニアビサウ", "ru": "Гвинея-Бисау"}
JAPAN = {"en": "Japan", "zh": "日本", "ja": "日本", "ru": "Япония", "th": "ประเทศญี่ปุ่น", "el": "Ιαπωνία"}
SPANISH = {"en": "Spanish; Castilian", "ru": "испанский; кастильский", "zh": "西班牙语", "de": "Spanisch (Kastilisch)"}


def row(texts: Mapping[str, str]) -> BitextRow:
    return BitextRow(dataset="names", langs=tuple(texts), texts=tuple(texts.values()))


def names(*rows: Mapping[str, str]) -> Names:
    return Names(map(row, rows or (FRANCE, GUINEA, BISSAU, JAPAN, SPANISH)))


def found(text: str, lang: str, *rows: Mapping[str, str]) -> list[str]:
    return [text[name.start : name.end] for name in names(*rows).find(text, lang)]


@pytest.mark.parametrize(
    ("lang", "text", "expected"),
    [
        ("en", "the capital of France?", ["France"]), ("en", "Frances, Francey, AFrance, xFrance", []),
        ("en", "france", []), ("en", "FRANCE", []), ("en", "see www.a.org/France and /France/ or France.txt", []),
        ("en", "France's wine, (France) and “France”.", ["France"] * 3),
        ("en", "in Guinea-Bissau, and in Guinea", ["Guinea-Bissau", "Guinea"]),
        ("en", "the Papua New Guinea and the Guinea Papers", []), ("en", "In France.", ["France"]),
        ("ru", "Франция, Франции и Испанский язык", ["Франция", "Испанский"]), ("ru", "по-испанский", []),
        ("el", "στη Γαλλία;", ["Γαλλία"]), ("ka", "სად არის საფრანგეთი?", ["საფრანგეთი"]),
        ("hi", "फ़्रांस की राजधानी", ["फ़्रांस"]), ("hi", "फ़्रांसीसी", []), ("ta", "பிரான்ஸ் எங்கே?", ["பிரான்ஸ்"]),
        ("ar", "عاصمة فرنسا؟ لفرنسا وبفرنسا", ["فرنسا"] * 3), ("ar", "الفرنساوية", []),
        ("he", "בירת צרפת, ושל הצרפתים, ובצרפת", ["צרפת"] * 2), ("am", "የፈረንሳይ ዋና ከተማ", ["ፈረንሳይ"]),
        ("ko", "프랑스의 수도, 프랑스에서", ["프랑스"] * 2), ("ko", "프랑스어", []),
        ("zh", "法国的首都和几内亚比绍", ["法国", "几内亚比绍"]), ("zh-Hant", "法国", ["法国"]),
        ("ja", "フランスの首都と日本、", ["フランス", "日本"]), ("ja", "フランスパンと日本語とシンギニア", []),
        ("th", "เมืองหลวงของฝรั่งเศสคืออะไร", ["ฝรั่งเศส"]), ("th", "กินีเอกบิสเซา", ["กินีเอกบิสเซา"]),
        ("th", "กินีเอกะ", []), ("th", "เกินีเอก", []), ("xx", "France", []),
    ],
)  # fmt: skip
def test_a_name_stands_alone_in_every_script(lang: str, text: str, expected: list[str]) -> None:
    assert found(text, lang) == expected


def test_a_name_is_found_decomposed_too() -> None:
    turkey = {"en": "Turkey", "tr": "Türkiye", "vi": "Thổ Nhĩ Kỳ"}
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, "ở Thổ Nhĩ Kỳ.")
        assert found(text, "vi", turkey) == [unicodedata.normalize(form, "Thổ Nhĩ Kỳ")]


@pytest.mark.parametrize(
    ("lang", "texts"),
    [
        ("cs", {"en": "key", "cs": "klíč"}), ("zh", {"en": "Sign languages", "zh": "手语"}),
        ("zh", {"en": "Gold", "zh": "金"}), ("th", {"en": "Spain", "th": "สเปน"}), ("fa", {"en": "Oman", "fa": "عما"}),
        ("zh", {"en": "Bond Unit (E.U.A.-17)", "zh": "欧洲货币(E.U.A.-17)"}), ("fr", {"en": "Mon", "fr": "mon"}),
        ("cs", {"en": "One Two Three", "cs": "jedna dvě tři čtyři pět šest"}),
        ("ru", {"en": "Kannada", "ru": "КаннадаKannada"}),
    ],
)  # fmt: skip
def test_what_is_no_name_is_not_looked_for(lang: str, texts: Mapping[str, str]) -> None:
    assert found(f" {texts[lang]} ", lang, texts) == []


def test_of_alternatives_the_first_is_the_name() -> None:
    assert found("Spanish and Castilian", "en", SPANISH) == ["Spanish"]
    assert found("Spanisch", "de", SPANISH) == []  # its form has brackets
    assert names(SPANISH).switch("the Spanish language", "en", into={"ru"}, rng=random.Random(0)) == (
        "the испанский language"
    )


def test_a_language_in_latin_letters_has_the_english_names_that_its_list_leaves_out() -> None:
    cuba = {"en": "Cuba", "ru": "Куба"}
    assert found("nach Cuba.", "de", FRANCE, cuba) == ["Cuba"]
    assert found("nach France.", "de", FRANCE, cuba) == []
    assert found("в Cuba.", "ru", FRANCE, cuba) == []


def test_a_name_that_is_an_ordinary_word_is_left_out_there_and_of_english_everywhere() -> None:
    hindi, gold = {"en": "Hindi", "tl": "Hindi", "ru": "хинди"}, {"en": "Gold", "zh": "黄金", "de": "Gold"}
    texts = [("tl", "hindi ito, hindi iyon"), ("en", "Hindi and gold, gold"), ("tl", "Hindi")]
    listed = Names(map(row, (hindi, gold)), ordinary=count_ordinary(texts))
    assert len(listed) == 1
    assert not listed.find("Hindi alam", "tl")
    assert [name.entry for name in listed.find("in Hindi", "en")] == [0]
    assert not listed.find("买黄金", "zh")


def test_ordinary_words_are_those_written_small_more_often() -> None:
    texts = [("en", "the turkey, a turkey in Turkey"), ("en-GB", "Paris, paris The")]
    assert count_ordinary(texts)["en"] == {"turkey", "a", "in"}
    assert "the" not in count_ordinary(texts)["en"]


def test_names_in_few_languages_are_not_chosen() -> None:
    rows = [row(dict(zip(langs, langs, strict=True))) for langs in (["en", "de", "ru", "zh", "ja"], ["en", "de"])]
    assert choose_names({"a": rows, "b": [row({"en": "x1", "fr": "x2"})]}, ["a*"]) == rows
    assert choose_names({"a": [*rows, row({lang: lang for lang in ("aa", "bb", "cc", "dd", "ee", "ff")})]}, ["a"]) == [
        rows[0], row({lang: lang for lang in ("aa", "bb", "cc", "dd", "ee", "ff")})
    ]  # fmt: skip
    assert choose_names({"a": rows}, ["c"]) == []


def test_all_names_of_a_text_go_into_one_language_and_the_rest_stays() -> None:
    text = "Von France nach Japan (1 h)."
    for seed in range(20):
        switched = names().switch(text, "en", into={"ru", "zh", "ja", "ar", "en"}, rng=random.Random(seed))
        expected = {f"Von {FRANCE[lang]} nach {JAPAN[lang]} (1 h)." for lang in ("ru", "zh", "ja")}
        assert switched in expected  # Japan has no Arabic name here
    assert names().switch(text, "en", into={"ar", "en"}, rng=random.Random(0)) == text
    assert names().switch("no name", "en", into={"ru"}, rng=random.Random(0)) == "no name"


def test_every_script_is_drawn_as_often() -> None:
    listed = names({**FRANCE, "es": "Francia", "it": "Francia", "sv": "Frankrike", "nl": "Frankrijk"})
    rng = random.Random(0)
    drawn = Counter(
        listed.switch("France", "en", into={"de", "es", "it", "sv", "nl", "ru", "zh"}, rng=rng) for _ in range(900)
    )
    assert drawn["Франция"] == pytest.approx(300, abs=50)
    assert drawn["法国"] == pytest.approx(300, abs=50)
    assert drawn["Frankreich"] == pytest.approx(60, abs=30)
