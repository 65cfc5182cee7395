"""The normaliser, scripts and graphemes."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.text import dominant_script, has_spaces_between_words, normalize, script_of, truncate_graphemes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("café", "cafe\u0301"),
        ("한국어", unicodedata.normalize("NFD", "한국어")),
        ("ＡＢＣ１", "abc1"),
        ("ﾊﾞﾝﾄﾞ", "バンド"),
        ("STRASSE", "Straße"),
        ("ΟΔΟΣ", "οδος"),
        ("hy\u00adphen\ufeff", "hyphen"),
        ("שָׁלוֹם", unicodedata.normalize("NFD", "שָׁלוֹם")),
        ("क़िताब", unicodedata.normalize("NFD", "क़िताब")),
    ],
)
def test_spellings_of_one_text_become_equal(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)


def test_joiners_accents_and_line_ends_are_kept() -> None:
    assert normalize("می\u200cخواهم") == "می\u200cخواهم"
    assert normalize("👩\u200d👧") == "👩\u200d👧"
    assert normalize("año\n\tcote\u0301\r\n") == "año\n\tcoté\r\n"


def test_control_characters_and_surrogates_are_removed() -> None:
    assert normalize("a\x00b\x1b\ud800c\u202e") == "abc"


@given(st.text())
def test_normalize_is_stable_and_always_encodable(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    once.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello", "Latn"),
        ("Привет, world of", "Latn"),
        ("Привет", "Cyrl"),
        ("日本語のテキスト", "Jpan"),
        ("カタカナ", "Jpan"),
        ("中文文本", "Hani"),
        ("한국어 漢字", "Kore"),
        ("ภาษาไทย", "Thai"),
        ("العربية", "Arab"),
        ("עברית", "Hebr"),
        ("हिन्दी", "Deva"),
        ("e\u0301", "Latn"),
        ("Python の for 文は list を繰り返す", "Jpan"),
        ("12 + 3 = 🦄!", "Zyyy"),
        ("", "Zyyy"),
    ],
)
def test_dominant_script(text: str, script: str) -> None:
    assert dominant_script(text) == script


def test_a_combining_accent_has_no_script_of_its_own() -> None:
    assert script_of("\u0301") == "Zyyy"


def test_scripts_without_spaces() -> None:
    assert [has_spaces_between_words(s) for s in ("Latn", "Kore", "Deva", "Jpan", "Hani", "Thai", "Khmr")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "limit", "cut"),
    [
        ("short", 5, "short"),
        ("abcdef", 4, "abc…"),
        ("cafe\u0301s", 5, "caf…"),
        ("👩\u200d👩\u200d👧b", 4, "…"),
        ("नमस्ते", 5, "नम…"),
        ("🇫🇷🇩🇪🇯🇵", 5, "🇫🇷🇩🇪…"),
    ],
)
def test_a_cut_never_falls_inside_a_grapheme(text: str, limit: int, cut: str) -> None:
    assert truncate_graphemes(text, limit, ellipsis="…") == cut
