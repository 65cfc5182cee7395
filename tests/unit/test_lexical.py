"""The tokenizer and the BM25 term weights."""

import threading
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.lexical import AVERAGE_LENGTH, K1, B, document_vector, iter_tokens, query_vector, term_index, tokenize

SCRIPTS = [
    "Les élèves étudient", "東京の首都、バンド", "北京是中国的首都", "학교에서 물을", "น้ำดื่มสะอาด", "ភាសាខ្មែរ",
    "မြန်မာစာ", "والكتابُ العربيّ", "שָׁלוֹם עולם", "नमस्ते दुनिया", "Καλημέρα κόσμε",
    "İstanbul'da", "👩\u200d👩\u200d👧 🦄", "",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("The cats", ["the", "cats", "cats*"]),
        ("running", ["running", "runn*", "runnin*"]),
        ("l'eau d’or", ["l", "eau", "d", "or"]),
        ("snake_case-name 3.11", ["snake", "snak*", "case", "case*", "name", "name*", "3", "11"]),
        ("水", ["水"]),
        ("首都", ["首都", "首", "都"]),
        ("ひらがな", ["ひら", "らが", "がな"]),
        ("東京tower", ["東京", "東", "京", "tower", "towe*"]),
        ("물을", ["물을", "물"]),
        ("ไทย", ["ไท", "ทย"]),
        ("㍿", ["株式", "式会", "会社", "株", "式", "会", "社"]),
        ("I ❤ 🦄", ["i", "❤", "🦄"]),
        ("الكتاب", ["الكتاب", "كتاب*"]),
        ("می\u200cخواهم", ["مي", "خواهم", "خواه*"]),
        ("Zürich", ["zurich", "zuri*", "zurich*"]),
        ("l'Œuvre", ["l", "oeuvre", "oeuv*", "oeuvre*"]),
        ("Łódź smørbrød", ["lodz", "lodz*", "smorbrod", "smor*", "smorbr*"]),
        ("thường", ["thường", "thườ*", "thường*"]),
        ("й", ["й"]),
        (" \n\t.,!—_", []),
    ],
)
def test_terms(text: str, terms: list[str]) -> None:
    assert tokenize(text) == terms


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("cafe\u0301", "café"),
        ("cafe", "café"),
        ("kosullar", "koşullar"),
        ("a\u0301\u0300x", "ax"),
        ("ΑΘΗΝΑ", "Αθήνα"),
        ("ISPARTA istanbul", "Isparta İstanbul"),
        ("كتاب", "كِتَابٌ"),
        ("أحمد", "احمد"),
        ("کتابی", "كتابي"),
        ("שלום", "שָׁלוֹם"),
        ("1990", "١٩٩٠"),
        ("1990", "१९९०"),
        ("ёлка", "елка"),
        ("ｶﾞｽ", "ガス"),
        ("人口", "⼈口"),
        ("hyphen", "hy\u00adphen"),
        ("ക്\u200d", "ക്"),
    ],
)
def test_spellings_that_readers_take_for_the_same_meet(query: str, text: str) -> None:
    assert tokenize(query) == tokenize(text) != []


@pytest.mark.parametrize(("query", "text"), [("duong", "Đường"), ("pho Ha Noi", "phở Hà Nội"), ("omo", "ọmọ")])
def test_vietnamese_words_keep_their_accents_and_are_found_without(query: str, text: str) -> None:
    assert set(query_vector(query).indices) <= set(document_vector(text).indices)
    assert set(query_vector(text).indices) <= set(document_vector(text).indices)
    assert not set(query_vector(text).indices) <= set(document_vector(query).indices)


@pytest.mark.parametrize(
    ("query", "text"), [("kitap", "kitaplarımızdan"), ("학교", "학교에서"), ("水", "飲料水"), ("raamat", "raamatutes")]
)
def test_a_base_form_meets_its_inflected_form(query: str, text: str) -> None:
    assert set(tokenize(query)) & set(tokenize(text))


@pytest.mark.parametrize("text", SCRIPTS)
def test_composition_does_not_change_the_terms(text: str) -> None:
    assert tokenize(unicodedata.normalize("NFD", text)) == tokenize(unicodedata.normalize("NFC", text))


@pytest.mark.parametrize(
    "text", ["Ein Café, zwei Cafe\u0301s", "ﾊﾞﾝﾄﾞと8世紀の首都", "ภาษา\u200bไทย", "والكتابُ 👩\u200d👧", "학교에서 ㎏"]
)
def test_offsets_point_into_the_original_text(text: str) -> None:
    tokens = list(iter_tokens(text))
    assert sorted(token.text for token in tokens) == sorted(tokenize(text))
    for token in tokens:
        term = token.text.removesuffix("*")
        assert any(found.startswith(term) for found in tokenize(text[token.start : token.end]))
    assert [token.start for token in tokens] == sorted(token.start for token in tokens)


@given(st.text())
def test_every_text_gives_valid_vectors_and_spans(text: str) -> None:
    for vector in (document_vector(text), query_vector(text)):
        assert vector.indices.dtype == np.uint32
        assert vector.values.dtype == np.float32
        assert (np.diff(vector.indices.astype(np.int64)) > 0).all()
        assert (vector.values > 0).all()
        assert np.isfinite(vector.values).all()
    assert sorted(token.text for token in iter_tokens(text)) == sorted(tokenize(text))
    assert all(0 <= token.start < token.end <= len(text) for token in iter_tokens(text))


def test_weights_by_hand() -> None:
    vector = document_vector("a b a")
    weights = dict(zip(vector.indices.tolist(), vector.values.tolist(), strict=True))
    norm = K1 * (1 - B + B * 3 / AVERAGE_LENGTH)
    assert weights[term_index("a")] == pytest.approx(2 * (K1 + 1) / (2 + norm))
    assert weights[term_index("b")] == pytest.approx(1 * (K1 + 1) / (1 + norm))
    once_in_average = document_vector(" ".join(f"{i:03d}" for i in range(AVERAGE_LENGTH)))
    assert once_in_average.values == pytest.approx(1.0)


def test_a_query_counts_each_term_once() -> None:
    assert query_vector("go go stop").values.tolist() == [1.0] * 3  # go, stop, stop*
    assert len(query_vector("").indices) == len(document_vector("…").indices) == 0


def test_indices_never_change() -> None:
    assert [term_index(term) for term in ("a", "首都", "kita*")] == [3904355907, 3834171441, 2588629620]


def test_threads_agree() -> None:
    texts = [f"{text} {i}" for i in range(50) for text in SCRIPTS]
    expected = [document_vector(text).indices.tolist() for text in texts]
    found: list[bool] = []
    work = lambda: found.append([document_vector(text).indices.tolist() for text in texts] == expected)  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


def test_a_very_long_line_is_tokenised() -> None:
    assert len(tokenize("首" * 200_000)) == 399_999
    assert tokenize("a" * 1_000_000)[1:] == ["aaaa*", "aaaaaa*"]
