"""Highlights: sentences, words by meaning, shared words; offsets, scripts, graphemes, terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import regex
from test_rerank import WordEncoder

from indexer import build
from search.balance import LanguageMap
from search.encoder import Encoder
from search.encoder.encoding import TokenVectors
from search.engine import Engine
from search.errors import EncoderError
from search.highlight import (
    Highlight,
    Highlighter,
    HighlightKind,
    mark_passages,
    nearest_spans,
    shared_terms,
    shared_words,
    whole_word,
    with_letters,
)
from search.passages import iter_sentences
from search.records import Chunk
from search.rerank import TokenCache
from search.settings import load_settings
from search.terminal import draw_passage
from search.text import whole_graphemes

FAMILY = "👨‍👩‍👧"
SENTENCE, WORD, MATCH = HighlightKind.SENTENCE, HighlightKind.WORD, HighlightKind.MATCH


def marked(query: str, text: str) -> list[str]:
    return [text[start:end] for start, end in shared_words(shared_terms(query), text)]


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("Wie reinige ich Kupfer?", "Kupfer; kupfer, KUPFER und Kupfers.", ["Kupfer", "kupfer", "KUPFER", "Kupfers"]),
        ("café", "Le cafe\u0301 ferme.", ["cafe\u0301"]),
        ("東京の地震", "昨日、東京の地震が強かった。", ["東京の地震"]),
        ("地震", "大地震が起きた。京都の地", ["地震"]),
        ("แผ่นดินไหว", "เกิดแผ่นดินไหวเมื่อวาน", ["แผ่นดินไหว"]),
        ("مدرسة", "ذهب إلى المَدْرَسَة أمس", []),
        ("المدرسة", "ذهب إلى المَدْرَسَة أمس", ["المَدْرَسَة"]),
        ("שלום", "אמר: שָׁלוֹם לכולם", ["שָׁלוֹם"]),
        ("किताब", "यह किताब अच्छी है", ["किताब"]),
        ("GPU memory", "The GPU has its memory.", ["GPU", "memory"]),
        ("what is the age of 42", "the age is 42", ["42"]),
        ("is it", "it is", ["it", "is"]),
        (FAMILY, f"a {FAMILY} b", [FAMILY]),
        ("?!", "what?!", []),
        ("", "x", []),
        ("x", "", []),
    ],
)  # fmt: skip
def test_shared_words(query: str, text: str, expected: list[str]) -> None:
    assert marked(query, text) == expected


@pytest.mark.parametrize(
    ("text", "inner", "expected"),
    [
        ("the librarian’s desk", "brar", "librarian’s"),
        ("eine Verbrennung!", "brenn", "Verbrennung"),
        ("في المكتبة الآن", "كت", "المكتبة"),
        ("בספרייה הגדולה", "ספר", "בספרייה"),
        ("पुस्तकालय में", "स्त", "पुस्तकालय"),
        ("図書館は休み", "書", "書"),
        ("ห้องสมุดปิด", "สมุ", "สมุ"),
        ("cafe\u0301", "caf", "cafe\u0301"),
        (f"a{FAMILY}b", "👩", FAMILY),
        ("นี้", "น", "นี้"),
    ],
)
def test_whole_words_and_graphemes(text: str, inner: str, expected: str) -> None:
    start = text.index(inner)
    first, last = whole_word(text, start, start + len(inner))
    assert text[first:last] == expected


def test_whole_graphemes_at_the_edges() -> None:
    assert whole_graphemes("cafe\u0301", 3, 4) == (3, 5)
    assert whole_graphemes("cafe\u0301", 4, 5) == (3, 5)
    assert whole_graphemes("abc", 0, 3) == (0, 3)
    assert whole_graphemes(FAMILY, 2, 3) == (0, len(FAMILY))


@pytest.mark.parametrize(
    ("text", "lang", "script", "count"),
    [
        ("Dr. Meier kam. Er ging z. B. um 8.30 Uhr.", "de", "Latn", 2),
        ("地震が起きた。机の下に入る。", "ja", "Jpan", 2),
        ("ครับ ไปไหน มาแล้ว", "th", "Thai", 3),
        ("ذهب. ثم عاد؟ نعم.", "ar", "Arab", 3),
        ("वह गया। वह आया।", "hi", "Deva", 2),
        ("# Title\nBody of it", "en", "Latn", 2),
        ("\ud800 odd. Next.", "en", "Latn", 2),
        ("   ", "en", "Latn", 0),
        ("", "und", "Zyyy", 0),
    ],
)
def test_sentences_cover_a_passage(text: str, lang: str, script: str, count: int) -> None:
    spans = list(iter_sentences(text, lang=lang, script=script))
    assert len(spans) == count
    assert "".join(text[start:end] for start, end in spans).replace(" ", "") == "".join(text.split())
    assert all(text[start:end] == text[start:end].strip() for start, end in spans)


def test_words_stand_out_by_hand() -> None:
    """Of four tokens the third answers the query's first; its second is equally near to all and marks nothing."""
    eye = np.eye(5, dtype=np.float32)
    spans = np.array([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]])
    sentence = TokenVectors(eye[[0, 1, 2, 3, 0, 1]], np.arange(6), spans)
    query = TokenVectors(np.stack([eye[2], eye[4]]), np.arange(2), spans[:2])
    assert nearest_spans(query, sentence) == [(4, 5)]
    assert nearest_spans(query, TokenVectors(eye[:1], np.arange(1), spans[:1])) == []


def test_punctuation_is_no_word() -> None:
    text = "犬 . 5 € —"
    spans = np.array([[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]])
    kept = with_letters(TokenVectors(np.eye(5, dtype=np.float32), np.arange(5), spans), text)
    assert [text[start:end] for start, end in kept.spans] == ["犬", "5", "€"]


PASSAGES = {
    "en": "The weather was fine. The quokka slept under a tree! Nobody saw it.",
    "ar": "كان الطقس جميلا. نام quokka تحت الشجرة. لم يره أحد.",
    "he": "מזג האוויר היה נעים. ה quokka ישן מתחת לעץ. איש לא ראה.",
    "ja": "天気は良かった。 quokka は木の下で眠った。 誰も見なかった。",
    "hi": "मौसम अच्छा था। quokka पेड़ के नीचे सोया। किसी ने नहीं देखा।",
}


@pytest.mark.parametrize("lang", PASSAGES)
def test_the_sentence_is_found_at_its_place_in_the_document(lang: str) -> None:
    text, shift = PASSAGES[lang], 1000
    chunk = Chunk("d", 0, text, lang=lang, start=shift, end=shift + len(text))
    cache = TokenCache(WordEncoder())  # type: ignore[arg-type]
    (found,) = Highlighter("quokka", cache, LanguageMap.identity(64)).mark([chunk])
    texts = {h.kind: text[h.start - shift : h.end - shift] for h in found}
    assert "quokka" in texts[SENTENCE]
    assert len(texts[SENTENCE]) < len(text) / 1.5
    assert texts[MATCH] == "quokka"
    assert list(found) == sorted(found)


def test_a_title_or_heading_is_marked_only_where_there_is_nothing_else() -> None:
    cache = TokenCache(WordEncoder())  # type: ignore[arg-type]
    marker = Highlighter("quokka", cache, LanguageMap.identity(64))
    title, body = "# Quokka quokka", "Das Tier quokka schläft am Tag unter einem Baum."
    below = Chunk("d", 0, f"{title}\n\n{body}", title="Quokka quokka", lang="de", end=len(title) + 2 + len(body))
    alone = Chunk("d", 1, title, headings=("Quokka quokka",), lang="de", end=len(title))
    marked = [
        next(chunk.text[h.start : h.end].strip() for h in found if h.kind is SENTENCE)
        for chunk, found in zip([below, alone], marker.mark([below, alone]), strict=True)
    ]
    assert marked == [body, title]


def test_odd_passages_are_marked_without_error() -> None:
    texts = ["", " \n ", "…?!", FAMILY * 50, "\u200f\u202e", "a" * 3000, "cafe\u0301 " * 300, "\ud800 x", '"' * 1500]
    chunks = [Chunk(f"d{n}", 0, text, start=7, end=7 + len(text)) for n, text in enumerate(texts)]
    cache = TokenCache(WordEncoder())  # type: ignore[arg-type]
    for query in ("cafe\u0301 x", "?", FAMILY, "\u202e"):
        for chunk, found in zip(chunks, Highlighter(query, cache, LanguageMap.identity(64)).mark(chunks), strict=True):
            borders = {0, *(match.end() for match in regex.finditer(r"\X", chunk.text))}
            for h in found:
                assert 7 <= h.start < h.end <= chunk.end
                assert {h.start - 7, h.end - 7} <= borders


def test_shared_words_are_marked_where_the_encoder_has_no_tokens() -> None:
    def cache() -> TokenCache:
        raise EncoderError("no tokens")

    (found,), notes = mark_passages("hund", [Chunk("d", 0, "Der Hund.")], cache, LanguageMap.identity(64))
    assert found == (Highlight(4, 8, MATCH),)
    assert "no tokens" in notes[0]


QUESTIONS = {
    "How long must a burn be cooled?": (
        "de",
        ["Der Sommer war schön.", " Eine Verbrennung kühlt man zwanzig Minuten mit Wasser.", " Danach ruft man an."],
    ),
    "Wie viele Monatsmieten Kaution?": (
        "ja",
        ["契約書をよく読みましょう。", "敷金は家賃三か月分までです。", "鍵は二本あります。"],
    ),
    "When does the museum open?": (
        "ar",
        ["يقع المبنى قرب النهر.", " يفتح المتحف أبوابه الساعة التاسعة.", " التصوير ممنوع."],
    ),
    "机の下に入る理由": (
        "he",
        ["הארוחה מוכנה.", " בזמן רעידת אדמה נכנסים מתחת לשולחן כדי להתגונן.", " החתול ישן."],
    ),
    "who feeds the cat?": ("th", ["ฝนตกหนัก", " คุณยายเป็นคนให้อาหารแมวทุกเช้า", " รถไฟมาสาย"]),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_built_in_encoder_finds_the_sentence_in_another_language(question: str, real_encoder: Encoder) -> None:
    from search.balance import fit_language_map, load_shipped_offsets
    from search.text import dominant_script

    lang, sentences = QUESTIONS[question]
    text = "".join(sentences)
    language_map = fit_language_map(load_shipped_offsets(real_encoder.fingerprint), None)
    chunk = Chunk("d", 0, text, lang=lang, script=dominant_script(text), end=len(text))
    (found,) = Highlighter(question, TokenCache(real_encoder), language_map).mark([chunk])
    (sentence,) = [h for h in found if h.kind is SENTENCE]
    assert text[sentence.start : sentence.end] == sentences[1].strip()
    assert all(sentence.start <= h.start and h.end <= sentence.end for h in found if h.kind is WORD)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    (tmp_path / "corpus").mkdir()
    for lang, text in PASSAGES.items():
        (tmp_path / "corpus" / f"{lang}.txt").write_text(f"\n\n{text}", encoding="utf-8")
    settings, encoder = load_settings(index=str(tmp_path / "index")), WordEncoder()
    build.ingest(tmp_path / "corpus", settings, encoder=encoder)  # type: ignore[arg-type]
    engine = Engine(settings, encoder)  # type: ignore[arg-type]
    yield engine
    engine.close()


def test_search_marks_the_hits_of_the_page_only_when_asked(engine: Engine) -> None:
    assert all(hit.highlights == () for hit in engine.search("quokka").hits)
    result = engine.search("quokka", k=3, highlight=True)
    assert len(result.hits) == 3
    for hit in result.hits:
        texts = [hit.chunk.text[h.start - hit.chunk.start : h.end - hit.chunk.start] for h in hit.highlights]
        assert "quokka" in texts
        assert hit.as_json()["highlights"][0].keys() == {"start", "end", "kind"}
    assert result.timings_ms["highlight"] > 0


def test_hits_are_marked_from_one_place_to_another(engine: Engine) -> None:
    plain, whole = engine.search("quokka", k=3), engine.search("quokka", k=3, highlight=True)
    first = engine.highlight(plain, 0, 1)
    assert [bool(hit.highlights) for hit in first.hits] == [True, False, False]
    assert first.timings_ms["total"] == pytest.approx(plain.timings_ms["total"] + first.timings_ms["highlight"])
    rest = engine.highlight(first, 1)
    assert rest.hits == whole.hits
    assert rest.timings_ms["highlight"] > first.timings_ms["highlight"]
    assert engine.highlight(rest, 3) is rest
    conditions = engine.search("lang:en")
    assert conditions.hits
    assert engine.highlight(conditions) is conditions  # there is nothing that they could be hits for


def test_a_passage_is_drawn_from_its_sentence_on() -> None:
    text = "One. " * 30 + "The cafe\u0301 is here. " + "Two. " * 60
    chunk = Chunk("d", 0, text, start=50, end=50 + len(text))
    highlights = (Highlight(50 + 150, 50 + 167, SENTENCE), Highlight(50 + 154, 50 + 158, MATCH))
    shown = draw_passage(chunk, highlights, width=60)
    plain = regex.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert plain.startswith("…The cafe\u0301 is here.")
    assert len(plain) <= 60
    assert plain.endswith("…")
    assert "\x1b[1m\x1b[4mcafe\u0301\x1b[0m" in shown


def test_a_passage_without_marks_has_no_escape_codes() -> None:
    chunk = Chunk("d", 0, "line one\nline \x1b[31mtwo " + "x" * 300)
    assert draw_passage(chunk, width=40) == "line one line  [31mtwo xxxxxxxxxxxxxxxx…"
