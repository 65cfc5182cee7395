"""Every format and every encoding gives back the sentences that were put in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import made_files as made
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.documents import Document
from indexer.extract.dates import to_rfc3339
from indexer.extract.encoding import clean, decode, detect_encoding
from indexer.extract.front_matter import front_matter
from indexer.extract.markdown import strip_markdown
from indexer.extract.pdf import join_lines
from indexer.sources import ReadOptions, SourceFile, iter_documents, iter_files

ENCODED = {
    "cp1251": ["Библиотека открыта каждый день, кроме воскресенья. Читатели могут взять домой пять книг.",
               "Бібліотека відкрита щодня, крім неділі. Її читачі можуть узяти додому п'ять книжок."],
    "koi8-r": ["Библиотека открыта каждый день, кроме воскресенья. Читатели могут взять домой пять книг."],
    "koi8-u": ["Бібліотека відкрита щодня, крім неділі. Її читачі можуть узяти додому п'ять книжок."],
    "cp866": ["Библиотека открыта каждый день, кроме воскресенья. Читатели могут взять домой пять книг."],
    "iso8859-5": ["Библиотека открыта каждый день, кроме воскресенья. Читатели могут взять домой пять книг."],
    "iso8859-2": ["Biblioteka jest otwarta codziennie. Czytelnicy mogą wypożyczyć pięć książek.",
                  "A könyvtár vasárnap kivételével minden nap nyitva van, őszi estéken is hűvös."],
    "cp1257": ["Bibliotēka ir atvērta katru dienu, izņemot svētdienu. Lasītāji var aizņemties piecas grāmatas.",
               "Biblioteka dirba kasdien, išskyrus sekmadienį. "
               "Skaitytojai gali paimti penkias knygas trims savaitėms, vėliau jų grąžinimą galima pratęsti."],
    "iso2022_jp": ["図書館は日曜日を除いて毎日開いています。利用者は三週間で五冊まで本を借りることができます。"],
    "cp1252": ["La bibliothèque est ouverte tous les jours. Les élèves peuvent emprunter cinq livres.",
               "Die Bücherei ist täglich geöffnet, außer sonntags. Für Schüler ist die Ausleihe frei.",
               "El niño leyó un artículo sobre la montaña. ¿Cuándo volverá mañana?", "Café fermé"],
    "cp1250": ["Knihovna je otevřena každý den kromě neděle. Čtenáři si mohou půjčit pět knih.",
               "Biblioteka jest otwarta codziennie. Czytelnicy mogą wypożyczyć pięć książek.",
               "A könyvtár vasárnap kivételével minden nap nyitva van, őszi estéken is hűvös.",
               "Biblioteca este deschisă în fiecare zi. Cititorii pot împrumuta cinci cărţi."],
    "cp1254": ["Kütüphane pazar günleri dışında her gün açıktır. Öğrenciler beş kitap ödünç alabilir."],
    "cp1253": ["Η βιβλιοθήκη είναι ανοιχτή κάθε μέρα εκτός από την Κυριακή. Οι αναγνώστες δανείζονται βιβλία."],
    "cp1255": ["הספרייה פתוחה בכל יום מלבד יום שבת. הקוראים יכולים לשאול חמישה ספרים לשלושה שבועות."],
    "cp1256": ["المكتبة مفتوحة كل يوم ما عدا يوم الجمعة. يستطيع القراء استعارة خمسة كتب لمدة ثلاثة أسابيع."],
    "iso8859-6": ["المكتبة مفتوحة كل يوم ما عدا يوم الجمعة. يستطيع القراء استعارة خمسة كتب لمدة ثلاثة أسابيع."],
    "tis-620": ["ห้องสมุดเปิดทุกวันยกเว้นวันอาทิตย์ ผู้อ่านสามารถยืมหนังสือได้ห้าเล่มเป็นเวลาสามสัปดาห์"],
    "shift_jis": ["図書館は日曜日を除いて毎日開いています。利用者は三週間で五冊まで本を借りることができます。"],
    "euc_jp": ["図書館は日曜日を除いて毎日開いています。利用者は三週間で五冊まで本を借りることができます。"],
    "gb18030": ["图书馆除星期日外每天开放。读者最多可以借五本书，借期三周。", "重庆市今天下雨"],
    "big5": ["圖書館除星期日外每天開放。讀者最多可以借五本書，借期三週。"],
    "euc_kr": ["도서관은 일요일을 제외하고 매일 문을 엽니다. 이용자는 삼 주 동안 책 다섯 권을 빌릴 수 있습니다."],
    "utf-8-sig": ["ภาษาไทย と 日本語 and हिन्दी"],
    "utf-16": ["पुस्तकालय हर दिन खुला रहता है।"],
    "utf-32": ["Ελληνικά 👩‍👩‍👧"],
    "utf-16-le": ["Plain English text here.",
                  "图书馆除星期日外每天开放。\n读者最多可以借五本书。", "도서관은 매일 문을 엽니다.",
                  "今日は良い天気ですね。",
                  "วันนี้อากาศดีมาก"],
    "utf-16-be": ["Plain English text here.", "图书馆除星期日外每天开放。\n读者最多可以借五本书。"],
}  # fmt: skip


def read(path: Path, options: ReadOptions | None = None) -> Document:
    options = options or ReadOptions()
    (file,) = iter_files(path, options=options)
    assert isinstance(file, SourceFile)
    (document,) = iter_documents(file, options)
    assert isinstance(document, Document), document
    return document


def assert_headings_fit(document: Document) -> None:
    assert document.headings
    for heading in document.headings:
        assert document.text.startswith(heading.text, heading.offset)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.docx", made.make_docx),
        ("a.pptx", made.make_pptx),
        ("a.xlsx", made.make_xlsx),
        ("a.odt", made.make_odt),
        ("a.epub", made.make_epub),
        ("a.html", made.make_html),
        ("a.rtf", made.make_rtf),
        ("a.eml", made.make_eml),
    ],
)
def test_all_scripts_come_through(tmp_path: Path, name: str, make: Callable[[Path, list[str]], Path]) -> None:
    document = read(make(tmp_path / name, made.ALL))
    assert [text for text in made.ALL if text not in document.text] == []
    assert document.id == document.source == name


def test_docx_has_title_date_headings_and_cells(tmp_path: Path) -> None:
    document = read(made.make_docx(tmp_path / "a.docx", ["Fett."], title="Der Titel"))
    assert (document.title, document.date) == ("Der Titel", "2024-05-01T08:00:00Z")
    assert document.text == "Überschrift 見出し\n\nFett.\n\nZelle 1; セル 2"
    assert_headings_fit(document)


def test_docx_without_a_title_takes_its_first_heading(tmp_path: Path) -> None:
    assert read(made.make_docx(tmp_path / "a.docx", ["x"])).title == "Überschrift 見出し"


def test_pptx_has_slides_and_notes(tmp_path: Path) -> None:
    document = read(made.make_pptx(tmp_path / "a.pptx", ["eins", "二"]))
    assert document.title == "Vortrag 講演"
    assert "Notiz für den Vortrag" in document.text
    assert "<!--" not in document.text
    assert [heading.text for heading in document.headings if heading.level == 1] == ["Slide 1", "Slide 2"]


def test_xlsx_rows_are_lines_without_fillers(tmp_path: Path) -> None:
    document = read(made.make_xlsx(tmp_path / "a.xlsx", ["eins", "二"]))
    assert document.text == "Первый лист\nnumber; sentence\n1; eins\n2; 二"
    assert_headings_fit(document)


def test_odt_structure(tmp_path: Path) -> None:
    document = read(made.make_odt(tmp_path / "a.odt", ["Erster Satz."]))
    assert document.text == "Überschrift 見出し\n\nErster Satz.\n\na  b\n\neins; 二"
    assert (document.title, document.date, document.headings[0].level) == ("Titel 題", "2024-05-01T08:00:00Z", 2)
    assert_headings_fit(document)


def test_epub_in_reading_order_with_its_metadata(tmp_path: Path) -> None:
    document = read(made.make_epub(tmp_path / "a.epub", ["Ein Satz."]))
    assert document.text == "Первая глава\n\nEin Satz.\n\nLast chapter\n\nThe end."
    assert (document.title, document.date) == ("Das Buch 本", "2023-02-03T00:00:00Z")
    assert document.metadata == {"author": "Müller"}
    assert_headings_fit(document)


def test_html_reads_as_text(tmp_path: Path) -> None:
    document = read(made.make_html(tmp_path / "a.htm", ["Ein *Satz* mit snake_case."]))
    assert document.text == "Überschrift\n\nEin *Satz* mit snake_case. ein_link\n\nName; Wert\n\na; 2"
    assert document.title == "Seite 頁"
    assert_headings_fit(document)


@pytest.mark.parametrize(
    ("charset", "sentence"),
    [("windows-1251", "Да."), ("shift_jis", "図書館です。"), ("gb2312", "图书馆"), ("iso-8859-1", "Café")],
)
def test_html_honours_its_charset(tmp_path: Path, charset: str, sentence: str) -> None:
    assert sentence in read(made.make_html(tmp_path / "a.html", [sentence], charset=charset)).text


def test_rtf_code_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.rtf"
    for page, text in ((1251, "Привет, мир"), (932, "図書館は毎日開いています"), (1252, "Grüße")):
        raw = "".join(f"\\'{byte:02x}" for byte in text.encode(f"cp{page}"))
        path.write_text(f"{{\\rtf1\\ansi\\ansicpg{page} {raw}}}", encoding="ascii")
        assert read(path).text == text
    assert read(made.make_rtf(path, ["x"])).title == "Ein Titel"


def test_eml_headers_and_html_body(tmp_path: Path) -> None:
    document = read(made.make_eml(tmp_path / "a.eml", ["Ein Satz."]))
    assert (document.title, document.date) == ("Grüße 挨拶", "2024-05-01T08:00:00Z")
    assert document.metadata == {"from": "Jörg <joerg@example.org>", "attachments": 1}
    assert read(made.make_eml(tmp_path / "b.eml", made.ALL, html=True)).text == "\n\n".join(made.ALL)


def test_eml_with_a_stateful_charset_and_one_with_none(tmp_path: Path) -> None:
    path = tmp_path / "a.eml"
    body = "図書館は毎日開いています。"
    head = b"Subject: =?iso-2022-jp?B?GyRCP14bKEI=?=\nContent-Type: text/plain; charset=iso-2022-jp\n\n"
    path.write_bytes(head + body.encode("iso-2022-jp"))
    assert (read(path).text, read(path).title) == (body, "図")
    path.write_bytes("Subject: без кодировки\n\nБиблиотека открыта каждый день.".encode("cp1251"))
    assert (read(path).text, read(path).title) == ("Библиотека открыта каждый день.", "без кодировки")


def test_pdf_text_title_and_date(tmp_path: Path) -> None:
    names = ("Latin, composed", "Cyrillic", "Greek", "Devanagari", "Chinese", "Japanese", "Korean")
    lines = [made.SENTENCES[name] for name in names]
    document = read(made.make_pdf(tmp_path / "a.pdf", lines))
    assert [line for line in lines if line not in document.text] == []
    assert (document.title, document.date) == ("The title", "2024-05-01T08:00:00Z")
    assert document.metadata == {"author": "An author"}


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="poppler's pdftotext is not installed")
def test_arabic_and_thai_pdf_go_through_pdftotext(tmp_path: Path) -> None:
    arabic = made.SENTENCES["Arabic"]
    assert arabic[:-1] in read(made.make_pdf(tmp_path / "a.pdf", [arabic[::-1]])).text
    thai = made.SENTENCES["Thai"]
    assert thai in read(made.make_pdf(tmp_path / "b.pdf", [thai])).text


def test_pdf_lines_are_joined_but_paragraphs_stay() -> None:
    text = "The library opens every day but\nSunday, and then it is not.\nShort one\nThe next goes on for a long\nway."
    assert join_lines(text) == (
        "The library opens every day but Sunday, and then it is not.\nShort one\nThe next goes on for a long way."
    )
    assert join_lines("図書館は日曜日を除いて毎\n日開いています。") == "図書館は日曜日を除いて毎日開いています。"


def test_markdown_file(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "---\ntitle: 'Der Titel'\ndate: 2024-05-01\nauthor: Ö\n---\n# Kopf *eins*\n\n"
        "Ein **fetter** [Link](http://x.org/a_b) und `code`.\n\n"
        "| a | b |\n|---|:-:|\n| 一 | 二 |\n\nUnter\n-----\n\n> Zitat\n\n"
        "```python\n# no heading\n"
        "```\n\n## 見出し ##\nsnake_case_name, 2 * 3 * 4, f\\_x <b>tag</b> &amp; 1 < 2\n",
        encoding="utf-8",
    )
    document = read(path)
    assert (document.title, document.date) == ("Der Titel", "2024-05-01T00:00:00Z")
    assert document.metadata == {"author": "Ö"}
    assert document.text == (
        "Kopf eins\n\nEin fetter Link und code.\n\na; b\n\n一; 二\n\nUnter\n\nZitat\n\n# no heading\n\n見出し\n"
        "snake_case_name, 2 * 3 * 4, f_x tag & 1 < 2"
    )
    assert [(heading.level, heading.text) for heading in document.headings] == [
        (1, "Kopf eins"),
        (2, "Unter"),
        (2, "見出し"),
    ]
    assert_headings_fit(document)


def test_front_matter_becomes_metadata() -> None:
    block = (
        "---\nTitle: Brot\nDate: 2024-05-01\ntags: [Brot, 'пекарня', 2024]\nkeywords:\n  - a\n  - b\nyear: 2023\n"
        "ratio: -0.5\nversion: '1.10'\ndraft: no\ndone: true\nlang: no\nat: 12:30\nzip: 01234\nempty:\nnothing: null\n"
        "summary: >\n  Zwei\n  Zeilen\nnested:\n  deep: 1\nمؤلف: سمير\n---\n\nText.\n"
    )
    fields, text = front_matter(block)
    assert text == "\nText.\n"
    assert fields == {
        "title": "Brot", "date": "2024-05-01", "tags": ("Brot", "пекарня", "2024"), "keywords": ("a", "b"),
        "year": 2023, "ratio": -0.5, "version": "1.10", "draft": "no", "done": True, "lang": "no", "at": "12:30",
        "zip": "01234", "summary": "Zwei Zeilen", "مؤلف": "سمير",
    }  # fmt: skip


def test_front_matter_that_people_write_though_yaml_refuses_it() -> None:
    fields, text = front_matter("---\ntitle: Brot: ein Rezept\n# note\n\nyear: 2023\nnote: [neu] x\n---\nText")
    assert (fields, text) == ({"title": "Brot: ein Rezept", "year": 2023, "note": "[neu] x"}, "Text")


@pytest.mark.parametrize(
    "text",
    [
        "---\nJust a paragraph between rules.\n---\nText",
        "---\n- a\n- list\n---\nText",
        "---\ntitle: x\n\tindented: with a tab\n---\nText",
        "---\na: *unknown\nb:\n  - {\n---\nText",
        "---\ntitle: no end\n\nText",
        " ---\ntitle: x\n---\nText",
        "---\na: " + "[" * 20_000 + "\n---\nText",
        "---\na: " + "{a: " * 10_000 + "\n---\nText",
        "---\n" + "key: value\n" * 10_000 + "---\nText",
    ],
)
def test_what_is_no_front_matter_stays_text(text: str) -> None:
    started = time.monotonic()
    assert front_matter(text) == ({}, text)
    assert time.monotonic() - started < 5


def test_hostile_front_matter_stays_small() -> None:
    aliases = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9) if i else 'x'}]\n" for i in range(40))
    fields, text = front_matter(f"---\n{aliases}e: !!python/object/apply:os.system [ls]\nbig: {'9' * 5000}\n---\nText")
    assert text == "Text"
    assert fields == {"l0": ("x",), "e": ("ls",), "big": "9" * 5000}


def test_front_matter_of_a_web_page(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "---\ntitle: Der Titel\ntags: [a, b]\ndate: 2024-05-01\n---\n"
        "<html><title>x</title><body><p>Text 字</p></body></html>",
        encoding="utf-8",
    )
    document = read(tmp_path / "a.html")
    assert (document.title, document.text, document.date) == ("Der Titel", "Text 字", "2024-05-01T00:00:00Z")
    assert document.metadata == {"tags": ("a", "b")}


@pytest.mark.parametrize(
    "text",
    ["<!--" * 250_000, "# a" + " " * 300_000 + "x", "|" + " " * 300_000 + "-x", "[a](" * 100_000, "*a " * 300_000],
)
def test_hostile_markdown_takes_linear_time(text: str) -> None:
    started = time.monotonic()
    strip_markdown(text)
    assert time.monotonic() - started < 5


@given(st.text(st.sampled_from("#*_-=|`>[]()!\\ \nab字é"), max_size=80))
def test_markdown_headings_always_point_at_their_text(text: str) -> None:
    stripped, headings = strip_markdown(text)
    assert all(stripped.startswith(heading.text, heading.offset) for heading in headings)
    assert [heading.offset for heading in headings] == sorted({heading.offset for heading in headings})


@pytest.mark.parametrize(("encoding", "text"), [(name, text) for name, texts in ENCODED.items() for text in texts])
def test_encodings(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text
    mixed = f"{text}\nHTML and ASCII words are mixed in here, too.\n{text}"
    assert decode(mixed.encode(encoding)) == mixed


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("cp1255", "היום מזג האוויר יפה"), ("euc_kr", "오늘은 날씨가 매우 좋습니다"),
     ("euc_jp", "吾輩は猫である。名前はまだ無い。"),
     ("cp1256", "الطقس جميل جدا اليوم"), ("big5", "今天天氣很好"), ("koi8-r", "Сегодня хорошая погода")],
)  # fmt: skip
def test_a_few_words_tell_the_encodings_of_scripts_apart(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_mostly_utf8_stays_utf8_with_replacements() -> None:
    data = ("Die Bücherei ist täglich geöffnet. " * 5).encode() + b"\xff stray"
    assert decode(data).startswith("Die Bücherei")
    assert decode(data).endswith("\ufffd stray")


def test_encoding_is_found_far_behind_an_ascii_head(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    tail = ENCODED["koi8-r"][0]
    path.write_bytes(b"Plain words only.\n" * 200_000 + tail.encode("koi8-r"))
    assert read(path).text.endswith(tail)


def test_a_character_on_a_block_border_survives(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    text = "a" * (1024 * 1024 - 1) + "字\r\n" + "b" * (1024 * 1024 - 6) + "\r\nend"
    path.write_bytes(text.encode())
    assert read(path).text == text.replace("\r\n", "\n")


@given(st.text(max_size=200))
def test_utf8_round_trip(text: str) -> None:
    wanted = clean(text.encode("utf-8", "replace").decode())
    if text.isprintable() and text and not text.isascii():
        assert detect_encoding(text.encode()).name == "utf-8"
        assert decode(text.encode()) == wanted


def test_a_stray_nul_is_removed() -> None:
    assert decode(b"Some words of plain text. " * 40 + b"\0" + b"More of it. " * 10).endswith(
        "text. " + "More of it. " * 10
    )


def test_clean_keeps_what_carries_meaning() -> None:
    kept = "tab\there\nZWNJ \u200c ZWJ \u200d RLM \u200f nbsp \u00a0 👩\u200d🚀"
    assert clean(kept) == kept
    assert clean("a\r\nb\rc\x0cd\u2028e\x00f\x07g\ud800h\ufeffi\x9fj") == "a\nb\nc\nd\nefghij"


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("2024-05-01", "2024-05-01T00:00:00Z"),
        ("2024-05-01T10:00:00+02:00", "2024-05-01T08:00:00Z"),
        ("2024-05-01 10:30", "2024-05-01T10:30:00Z"),
        ("Wed, 01 May 2024 10:00:00 +0200", "2024-05-01T08:00:00Z"),
        ("D:20240501100000+02'00'", "2024-05-01T08:00:00Z"),
        ("2024年5月1日", "2024-05-01T00:00:00Z"),
        ("1.5.2024", "2024-05-01T00:00:00Z"),
        ("May 1, 2024", "2024-05-01T00:00:00Z"),
        ("2024", "2024-01-01T00:00:00Z"),
        (2024, "2024-01-01T00:00:00Z"),
        (1714521600, "2024-05-01T00:00:00Z"),
        (1714521600000, "2024-05-01T00:00:00Z"),
        ("1714521600", "2024-05-01T00:00:00Z"),
        ("05/01/2024", None),
        ("2024-13-45", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (True, None),
        (float("nan"), None),
        (10**30, None),
    ],
)
def test_dates(value: object, wanted: str | None) -> None:
    assert to_rfc3339(value) == wanted
