"""Which column of a table plays which part, by its name and, for names that could mean several things, its values."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence

from indexer.extract.dates import to_rfc3339

TEXT, TITLE, ID, DATE = "text", "title", "id", "date"
PARTS = (TITLE, ID, DATE, TEXT)
Sample = Sequence[Mapping[str, object]]

_USUAL = {
    TEXT: ("text", "content", "contents", "body", "passage", "answer", "document", "paragraph", "description",
           "abstract", "message", "article", "context"),
    TITLE: ("title", "question", "name", "subject", "heading", "headline"),
    ID: ("id", "_id", "doc_id", "docid", "key", "url"),
    DATE: ("date", "created", "published", "timestamp", "created_at", "published_at", "datetime", "updated"),
}  # fmt: skip
"""English names, which most tables use; of several the first is taken."""

_LOCAL_NAMES = {
    TEXT: """
        inhalt volltext | texte contenu | texto contenido | conteúdo | testo contenuto | tekst inhoud | treść |
        innehåll | indhold | innhold | teksti sisältö | sisu | tekstas turinys | teksts saturs | szöveg tartalom |
        obsah | besedilo vsebina | sadržaj | conținut | teksti përmbajtja | metin içerik | mətn | matn | văn_bản
        nội_dung | teks isi konten | kandungan | maandishi | κείμενο περιεχόμενο | текст содержание содержимое |
        зміст вміст | съдържание | садржај | мәтін | տեքստ | ტექსტი | טקסט תוכן | نص النص محتوى المحتوى | متن محتوا
        | مواد | पाठ सामग्री | मजकूर | পাঠ্য বিষয়বস্তু | உரை உள்ளடக்கம் | వచనం | ข้อความ เนื้อหา | ጽሑፍ | 正文 内容 文本 |
        內容 內文 本文 | テキスト 内容 | 본문 내용 텍스트
    """,
    TITLE: """
        titel überschrift | titre intitulé | título | titolo | tytuł | tittel overskrift | otsikko | pealkiri |
        antraštė pavadinimas | virsraksts nosaukums | cím | název titulek nadpis | názov | naslov | titlu | títol |
        titulli | başlık | başlıq | sarlavha | tiêu_đề | judul | tajuk | kichwa | τίτλος | заголовок название | назва |
        заглавие | наслов | тақырып | վերնագիր | სათაური | כותרת | عنوان العنوان | शीर्षक | শিরোনাম | தலைப்பு | శీర్షిక |
        ชื่อเรื่อง หัวข้อ | ርዕስ | 标题 题目 | 標題 題目 | タイトル 題名 件名 見出し | 제목
    """,
    ID: """
        kennung | identifiant | identificador | identificativo identificatore | identyfikator | identifierare |
        tunniste | azonosító | identifikátor | identifikator | identificator | kimlik | mã_số | αναγνωριστικό |
        идентификатор | ідентифікатор | מזהה | معرف المعرف | شناسه | 编号 | 編號 | 識別子 | 식별자
    """,
    DATE: """
        datum veröffentlicht | publié_le date_de_publication | fecha | data | dato | päivämäärä pvm | kuupäev | datums |
        dátum | dată | tarih | tarix | sana | ngày | tanggal | tarikh | tarehe | ημερομηνία | дата | датум | күні |
        ամսաթիվ | თარიღი | תאריך | تاريخ التاريخ | تاریخ | दिनांक तारीख | তারিখ | தேதி | తేదీ | วันที่ | ቀን |
        日期 | 日付 日時 | 날짜 일자
    """,
}
"""Other languages' names, `|` between languages and `_` for a space; Latin accents and case do not matter."""


_STROKES = str.maketrans("ıłđø", "ildo")


def fold_name(name: str) -> str:
    """A column name without case, accents and the kinds of space that people put between words."""
    plain = unicodedata.normalize("NFKD", name.strip().casefold()).translate(_STROKES)
    letters = "".join(c for c in plain if not "\u0300" <= c <= "\u036f")
    return "_".join(unicodedata.normalize("NFC", letters).replace("_", " ").replace("-", " ").split())


_LOCAL = {
    part: frozenset(fold_name(name) for name in names.replace("|", " ").split()) for part, names in _LOCAL_NAMES.items()
}


def guess_columns(names: Sequence[str], sample: Sample, given: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The column of each part that is not `given`, where the names tell: an English one, else one of another language.

    A name in another language has to be the only one for its part, and the values of `sample` have to look like it,
    since such words mean other things too: `data` is a date in Portuguese.
    """
    by_lower = {name.strip().lower(): name for name in reversed(names)}
    taken = {name for columns in given.values() for name in columns}
    found: dict[str, str] = {}
    for part in PARTS:
        if given.get(part):
            continue
        excluded = taken if part == TEXT else set()
        usual = (by_lower[name] for name in _USUAL[part] if name in by_lower and by_lower[name] not in excluded)
        name = next(usual, None) or _local(part, [name for name in names if name not in taken], sample)
        if name is not None:
            found[part] = name
            taken.add(name)
    return found


def _local(part: str, names: Sequence[str], sample: Sample) -> str | None:
    named = [name for name in names if fold_name(name) in _LOCAL[part]]
    values = [row[named[0]] for row in sample if row.get(named[0]) not in (None, "")] if len(named) == 1 else []
    return named[0] if values and _LOOKS[part](values) else None


def _are_ids(values: list[object]) -> bool:
    return all(isinstance(value, str | int) for value in values) and len(set(values)) == len(values)


def _are_dates(values: list[object]) -> bool:
    return sum(to_rfc3339(value) is not None for value in values) > len(values) / 2


def _are_texts(values: list[object]) -> bool:
    return any(isinstance(value, str | list) for value in values)


_LOOKS: dict[str, Callable[[list[object]], bool]] = {
    TEXT: _are_texts, TITLE: _are_texts, ID: _are_ids, DATE: _are_dates,
}  # fmt: skip
