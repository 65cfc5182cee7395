"""Walking folders, and tables as documents."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import made_files as made
import pytest

from indexer.documents import Document, Skipped
from indexer.sources import ReadOptions, SourceFile, iter_documents, iter_files
from search.errors import SourceError


def walk(root: Path) -> tuple[list[str], dict[str, str]]:
    items = list(iter_files(root, options=ReadOptions()))
    files = [item.relative for item in items if isinstance(item, SourceFile)]
    return files, {item.source: item.reason for item in items if isinstance(item, Skipped)}


def read_all(path: Path, options: ReadOptions | None = None) -> list[Document | Skipped]:
    options = options or ReadOptions()
    (file,) = iter_files(path, options=options)
    assert isinstance(file, SourceFile)
    return list(iter_documents(file, options))


def documents(path: Path, options: ReadOptions | None = None) -> list[Document]:
    found = read_all(path, options)
    assert [item for item in found if isinstance(item, Skipped)] == []
    return [item for item in found if isinstance(item, Document)]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_files_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.md", "a/b/c.html", ".hidden.txt", ".git/x.txt", "~$lock.docx", "A.TXT"):
        write(tmp_path / name, "x")
    assert walk(tmp_path) == (["A.TXT", "a/b/c.html", "a/z.md", "b.txt"], {})


def test_one_file_is_named_by_its_name(tmp_path: Path) -> None:
    path = write(tmp_path / "deep" / "文.txt", "x")
    (file,) = iter_files(path, options=ReadOptions())
    assert file == SourceFile(path, "文.txt", 1, path.stat().st_mtime_ns)


def test_the_walk_is_lazy(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"{number}" / "a.txt", "x")
    items = iter_files(tmp_path, options=ReadOptions())
    assert next(items) == SourceFile(tmp_path / "0/a.txt", "0/a.txt", 1, (tmp_path / "0/a.txt").stat().st_mtime_ns)
    write(tmp_path / "2" / "b.txt", "made meanwhile")
    assert [item.relative for item in items if isinstance(item, SourceFile)] == ["1/a.txt", "2/a.txt", "2/b.txt"]


@pytest.mark.parametrize(
    "name", ["Übersicht", "U\u0308bersicht", "目录", "ห้องสมุด", "مكتبة", "ספרייה", "पुस्तक", "👩\u200d🚀", "a b#c"]
)
def test_names_in_any_script(tmp_path: Path, name: str) -> None:
    write(tmp_path / name / f"{name}.txt", "x")
    assert walk(tmp_path) == ([f"{name}/{name}.txt"], {})
    (file,) = iter_files(tmp_path, options=ReadOptions())
    assert isinstance(file, SourceFile)
    (document,) = iter_documents(file, ReadOptions())
    assert isinstance(document, Document)
    assert document.id == f"{name}/{name}.txt"


def test_unprintable_names_are_spelt_out(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"caf\xe9\n.txt")  # noqa: PTH118 - Path takes no bytes
    with open(path, "wb") as file:  # noqa: PTH123 - as above
        file.write(b"text")
    files, _ = walk(tmp_path)
    assert files == ["caf\\xe9\\x0a.txt"]
    (file_found,) = iter_files(tmp_path, options=ReadOptions())
    assert isinstance(file_found, SourceFile)
    (document,) = iter_documents(file_found, ReadOptions())
    assert isinstance(document, Document)
    assert document.text == "text"


def test_links(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    write(root / "real" / "a.txt", "x")
    write(root / ".store" / "kept.txt", "y")
    write(outside / "secret.txt", "z")
    links = {
        "1-kept.txt": root / ".store/kept.txt",
        "2-again.txt": root / ".store/kept.txt",
        "3-file.txt": root / "real/a.txt",
        "4-folder": root / "real",
        "5-out": outside,
        "6-broken.txt": root / "nothing",
        "7-self": root / "7-self",
        "real/8-up": root,
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    files, skipped = walk(root)
    assert files == ["1-kept.txt", "real/a.txt"]
    assert skipped.keys() == links.keys() - {"1-kept.txt"}
    assert skipped["2-again.txt"] == "second link to '.store/kept.txt'"
    assert skipped["3-file.txt"] == "link to 'real/a.txt', which is read under its own name"
    assert skipped["4-folder"] == "link to 'real', which is read under its own name"
    assert skipped["5-out"].startswith("link out of the folder")
    assert skipped["6-broken.txt"] == "link to something that does not exist"
    assert skipped["7-self"] == "link loop"
    assert skipped["real/8-up"] == "link loop: it leads to a folder that it lies in"


def test_what_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "closed" / "a.txt", "x")
    write(tmp_path / "open" / "secret.txt", "x")
    write(tmp_path / "open" / "z.txt", "x")
    scandir, access = os.scandir, os.access

    def closed_scandir(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed_scandir)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "secret.txt" and access(path, mode))
    files, skipped = walk(tmp_path)
    assert files == ["open/z.txt"]
    assert skipped == {
        "closed": "folder cannot be read: Permission denied",
        "open/secret.txt": "cannot be read: Permission denied",
    }


def test_other_formats_and_special_files(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.md.gz", "c.tar.gz"):
        write(tmp_path / name, "x")
    (tmp_path / "program").write_bytes(b"\x7fELF" + bytes(100))
    (tmp_path / "table.dat").write_bytes(bytes(range(256)) * 40)
    os.mkfifo(tmp_path / "pipe")
    files, skipped = walk(tmp_path)
    assert files == []
    assert skipped["a.mp4"].startswith("format not supported: .mp4; supported: txt, md, markdown, html")
    assert skipped["b.md.gz"].startswith("format not supported: .md.gz; ")
    assert skipped["program"].startswith("format not supported: no extension; ")
    assert skipped["table.dat"].startswith("format not supported: .dat; ")
    assert skipped["pipe"] == "not a regular file"


@pytest.mark.parametrize(
    "name", ["README", "LICENSE", "Читайменя", "notes.2024", "lecture.rst", "server.log", "読書.org"]
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_text_under_any_name_is_read_as_text(tmp_path: Path, name: str, encoding: str) -> None:
    text = "Библиотека открыта каждый день.\n# kein Markdown"
    (tmp_path / name).write_bytes(text.encode(encoding))
    (document,) = documents(tmp_path / name)
    assert (document.id, document.text) == (name, text)


def test_text_that_programs_keep_is_left_out(tmp_path: Path) -> None:
    left_out = ["Cargo.lock", "pnpm-lock.yaml", "go.sum", "notes.txt~", "app.min.js", "CVS/Entries",
                "drawing.svg", "venv/lib/site.py", "cache/a/entry", "mirror.git/hooks/x.sample",
                "node_modules/a/index.js"]  # fmt: skip
    for name in left_out:
        write(tmp_path / name, "text")
    for name in (
        "venv/pyvenv.cfg",
        "cache/CACHEDIR.TAG",
        "mirror.git/HEAD",
        "mirror.git/objects/x",
        "mirror.git/refs/x",
    ):
        write(tmp_path / name, "text")
    write(tmp_path / "server_key", "-----BEGIN PRIVATE KEY-----\nMIIE\n")
    write(tmp_path / "node_modules/a/README.md", "read as before")
    write(tmp_path / "padlock", "text")
    files, skipped = walk(tmp_path)
    assert files == ["node_modules/a/README.md", "padlock"]
    assert skipped.keys() >= {*left_out, "server_key", "venv/pyvenv.cfg", "mirror.git/HEAD"}


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"'.*nowhere' cannot be opened: No such file.*; give an existing folder or file"
    ):
        list(iter_files(tmp_path / "nowhere", options=ReadOptions()))


def test_a_prefix_added_by_the_caller_names_the_documents(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id,text\nx,Hallo\n")
    (document,) = iter_documents(SourceFile(path, "notes:a.csv", 10, 0), ReadOptions())
    assert isinstance(document, Document)
    assert (document.id, document.source) == ("notes:a.csv#x", "notes:a.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_csv_guesses_separator_and_columns(tmp_path: Path, separator: str) -> None:
    rows = [("ID", "Title", "Text", "Published", "Year", "")]
    rows += [
        (f"k{n}", f"Titel {n}", f'"{text}, ""q""\nzweite Zeile"', "2024-05-01", "1999", "x")
        for n, text in enumerate(made.ALL)
    ]
    path = write(tmp_path / "a.csv", "\n".join(separator.join(row) for row in rows))
    found = documents(path)
    assert [document.text for document in found] == [f'{text}, "q"\nzweite Zeile' for text in made.ALL]
    first = found[0]
    assert (first.id, first.title, first.date) == ("a.csv#k0", "Titel 0", "2024-05-01T00:00:00Z")
    assert first.metadata == {"Year": "1999", "column6": "x"}


def test_csv_in_a_legacy_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("текст,text\nодин,Библиотека открыта каждый день кроме воскресенья\n".encode("cp1251"))
    (document,) = documents(path)
    assert document.text == "Библиотека открыта каждый день кроме воскресенья"
    assert document.metadata == {"текст": "один"}


def test_tsv_takes_quotation_marks_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tnote\n"Hi" he said\t"a ""b"""\n"unclosed\tx\n')
    assert [(item.text, item.metadata) for item in documents(path)] == [
        ('"Hi" he said', {"note": 'a "b"'}),
        ('"unclosed', {"note": "x"}),
    ]


def test_without_a_text_column_all_strings_are_joined(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"id": 7, "pregunta": "¿Qué?", "respuesta": "Esto.", "n": 3, "ok": true, "deep": {"a": 1}}\n',
    )
    (document,) = documents(path)
    assert (document.id, document.text) == ("a.jsonl#7", "¿Qué?\n\nEsto.")
    assert document.metadata == {"n": 3, "ok": True}


@pytest.mark.parametrize(
    "header",
    [
        "Kennung;TITEL;Inhalt;Datum", "identifiant;Intitulé;contenu;Date de publication",
        "Identificador;titulo;Texto;fecha",
        "identificador;Título;conteudo;Data", "identificativo;Titolo;testo;data", "identyfikator;Tytuł;tresc;data",
        "id;název;obsah;datum", "azonosító;Cím;szoveg;Dátum", "tunniste;otsikko;teksti;päivämäärä",
        "kimlik;BAŞLIK;metin;tarih", "Идентификатор;Заголовок;Содержание;Дата", "id;назва;зміст;дата",
        "编号;标题;正文;日期", "識別子;タイトル;本文;日付", "식별자;제목;본문;날짜", "المعرف;العنوان;النص;التاريخ",
        "شناسه;عنوان;متن;تاریخ", "id;शीर्षक;पाठ;दिनांक", "מזהה;כותרת;תוכן;תאריך", "id;หัวข้อ;เนื้อหา;วันที่",
        "id;tiêu đề;Nội dung;ngày", "id;judul;isi;tanggal", "id;Τίτλος;κειμενο;ημερομηνία", "id;শিরোনাম;বিষয়বস্তু;তারিখ",
    ],
)  # fmt: skip
def test_columns_are_known_by_their_names_in_many_languages(tmp_path: Path, header: str) -> None:
    path = write(
        tmp_path / "a.csv", f"{header};Ort\nk1;Kopf;Der Text 字.;2024-05-01;Bonn\nk2;Fuß;Noch einer.;2024-06-01;Ulm\n"
    )
    first, _ = documents(path)
    assert (first.id, first.title, first.text, first.date) == (
        "a.csv#k1", "Kopf", "Der Text 字.", "2024-05-01T00:00:00Z"
    )  # fmt: skip
    assert first.metadata == {"Ort": "Bonn"}


def test_column_names_that_could_mean_something_else_are_left_alone(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv", "data,Titel,titre,kennung,texte,contenu\nx1,eins,un,7,Erster,premier\nx2,zwei,deux,7,B,b\n"
    )
    first, _ = documents(path)
    assert (first.id, first.title, first.date, first.metadata) == ("a.csv#1", "", None, {})
    assert first.text == "x1\n\neins\n\nun\n\n7\n\nErster\n\npremier"


def test_english_names_come_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,Inhalt,title,Titel,date,Datum\na,b,c,d,2024-05-01,2023-05-01\n")
    (document,) = documents(path)
    assert (document.text, document.title, document.date) == ("a", "c", "2024-05-01T00:00:00Z")
    assert document.metadata == {"Inhalt": "b", "Titel": "d", "Datum": "2023-05-01"}


def test_named_columns_win(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"text": "no", "q": "Frage", "a": "Antwort", "t": "T", "k": "K", "d": "2024-05-01"}\n'
    )
    options = ReadOptions(text_columns=("q", "a"), title_column="t", id_column="k", date_column="d")
    (document,) = documents(path, options)
    assert (document.id, document.text, document.title) == ("a.jsonl#K", "Frage\n\nAntwort", "T")
    assert (document.date, document.metadata) == ("2024-05-01T00:00:00Z", {"text": "no"})


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_named_column_that_is_absent(tmp_path: Path, name: str) -> None:
    content = "id,body\n1,x\n" if name == "a.csv" else '{"id": 1, "body": "x"}\n'
    found = read_all(write(tmp_path / name, content), ReadOptions(text_columns=("texto",)))
    assert found == [Skipped(name, "no column 'texto'; the columns are 'id', 'body'")]


def test_repeated_and_missing_keys_stay_unique(tmp_path: Path) -> None:
    lines = [{"id": key, "text": f"t{number}"} for number, key in enumerate(["a", "a", "a~2", "a", None, "5"])]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)))
    assert [document.id for document in documents(path)] == [
        "a.jsonl#a", "a.jsonl#a~2", "a.jsonl#a~2~2", "a.jsonl#a~3", "a.jsonl#5", "a.jsonl#5~2",
    ]  # fmt: skip


def test_rows_are_numbered_without_an_id(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\neins\nzwei\n")
    assert [document.id for document in documents(path)] == ["a.csv#1", "a.csv#2"]


def test_bad_lines_do_not_stop_the_rest(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.ndjson",
        '{"text": "eins"}\n{"text": \n[1]\n\n{"text": ""}\n{"text": "zwei \\ud83d\\ude00 \\ud800"}\n',
    )
    found = read_all(path)
    assert [item.text for item in found if isinstance(item, Document)] == ["eins", "zwei 😀 "]
    reasons = [(item.source, item.reason) for item in found if isinstance(item, Skipped)]
    assert reasons[0][0] == "a.ndjson#2"
    assert reasons[0][1].startswith("line 2 is no JSON (Expecting value, column ")
    assert reasons[1:] == [
        ("a.ndjson#3", "record 3 is not an object with columns"),
        ("a.ndjson#5", "empty: no text in 'text'"),
    ]


def test_csv_rows_that_do_not_fit(tmp_path: Path) -> None:
    found = read_all(write(tmp_path / "a.csv", "text,b\neins,1,2\nzwei\ndrei,3\n"))
    assert found[0] == Skipped("a.csv#1", "row 1 has 3 cells, the header 2")
    assert [item.id for item in found[1:] if isinstance(item, Document)] == ["a.csv#2", "a.csv#3"]


@pytest.mark.parametrize(
    "value",
    [[{"text": "eins"}, {"text": "二"}], {"meta": {"n": 1}, "data": [{"text": "eins"}, {"text": "二"}]}],
)
def test_json_lists(tmp_path: Path, value: object) -> None:
    path = write(tmp_path / "a.json", json.dumps(value, ensure_ascii=False))
    assert [(item.id, item.text) for item in documents(path)] == [("a.json#1", "eins"), ("a.json#2", "二")]


def test_parquet_types(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "_id": [1, 2],
            "body": ["ข้อความ", "نص"],
            "created": [datetime(2024, 5, 1, 8, tzinfo=UTC), None],
            "day": [date(2024, 5, 2), None],
            "price": [Decimal("1.50"), None],
            "score": [0.5, float("nan")],
            "tags": [["a"], []],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    first, second = documents(tmp_path / "a.parquet")
    assert (first.id, first.text, first.date) == ("a.parquet#1", "ข้อความ", "2024-05-01T08:00:00Z")
    assert first.metadata == {"day": "2024-05-02T00:00:00Z", "price": 1.5, "score": 0.5, "tags": ("a",)}
    assert (second.id, second.text, second.date, second.metadata) == ("a.parquet#2", "نص", None, {})


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt.gz", "Grüße 字"), ("a.csv.gz", "text\nGrüße 字\n"), ("a.jsonl.gz", '{"text": "Grüße 字"}\n')],
)
def test_packed_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(content.encode()))
    assert [document.text for document in documents(tmp_path / name)] == ["Grüße 字"]


def test_tables_are_read_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    line = json.dumps({"text": "Satz für Satz. " * 60}) + "\n"
    path.write_text(line * 20_000)
    assert path.stat().st_size > 15_000_000
    tracemalloc.start()
    try:
        (file,) = iter_files(path, options=ReadOptions())
        assert isinstance(file, SourceFile)
        count = sum(1 for _ in iter_documents(file, ReadOptions()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 3_000_000
