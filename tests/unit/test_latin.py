"""Texts of other scripts in Latin letters, as people type them."""

from __future__ import annotations

import pytest

from training.latin import is_latin, to_latin


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("как заваривать чай", "kak zavarivat chay"), ("Θάλασσα", "thalassa"), ("საქართველო", "sakartvelo"),
        ("北京的饺子", "bei jing de jiao zi"), ("中文，测试（一）。", "zhong wen, ce shi (yi)."),
        ("नमक और पानी", "namak aur pani"), ("समुद्र तट", "samudr tat"), ("বাড়ি", "badi"), ("ಕನ್ನಡ", "kannada"),
        ("அம்மா", "amma"), ("తెలుగు", "telugu"), ("ภาษาไทย", "phasathaiy"), ("ເມືອງ", "meung"),
        ("كتاب السلام", "ktab alslam"), ("שלום", "slvm"), ("በኢትዮጵያ", "beityopya"), ("می‌تراشند", "mytrashnd"),
        ("ក\u200bខ", "k kh"),
        ("東京タワーの高さ", "toukyou tawa no taka sa"), ("行ってきょう", "itte kyou"),
        ("ジョンの写真", "jon no shashin"),
        ("프랑스의 수도", "peurangseuui sudo"), ("버려야 하나요", "beoryeoya hanayo"), ("삶은 국물", "salmeun gukmul"),
        ("Linux を使う？", "Linux o tsukau?"), ("Café में GIMP 2.10", "Café mem GIMP 2.10"),
        ("l'été, don't", "l'été, don't"),
        ("", ""), ("123 😀", "123 😀"),
    ],
)  # fmt: skip
def test_texts_are_spelt_as_they_are_typed(text: str, expected: str) -> None:
    assert to_latin(text) == expected


def test_nothing_of_another_script_is_left() -> None:
    for text in ("Привет мир", "שלום עולם", "中国人民", "မြန်မာ", "ខ្មែរ", "ދިވެހި", "བོད་", "日本語のテキスト"):
        assert not is_latin(text)
        assert is_latin(to_latin(text))
        assert to_latin(text).isascii()
    assert is_latin("déjà vu")
    assert is_latin("42")
