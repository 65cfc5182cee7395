"""Whatever lies in a folder: a clear reason, and the rest goes on."""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import made_files as made
import pytest

from indexer import isolation
from indexer.documents import Document, Skipped
from indexer.sources import ReadOptions, SourceFile, iter_documents, iter_files

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000)


def reason(path: Path, options: ReadOptions | None = None) -> str:
    options = options or ReadOptions()
    (file,) = iter_files(path, options=options)
    assert isinstance(file, SourceFile)
    (item,) = iter_documents(file, options)
    assert isinstance(item, Skipped), item
    assert item.source == path.name
    return item.reason


@pytest.mark.parametrize(
    "extension", ["txt", "md", "html", "pdf", "docx", "odt", "csv", "jsonl", "json", "parquet", "eml"]
)
def test_empty(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    path.touch()
    assert reason(path) == "empty"


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.csv", "a.jsonl"])
def test_only_blanks(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(" \n\n\t\n")
    assert reason(tmp_path / name) == "empty"


@pytest.mark.parametrize(
    "data",
    [
        random.Random(0).randbytes(5000),
        b"\x89PNG\r\n\x1a\n" + b"x" * 100,
        b"%PDF-1.4 and so on",
        b"PK\x03\x04" + b"x" * 50,
        b"abc\x01\x02\x03" * 50,
        bytes(5000),
        b"text\x00with\x00nulls in odd places \x00\x00\x01" * 20,
    ],
)
def test_binary_junk_named_txt(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert reason(path) == "looks like binary data, not text"


@pytest.mark.parametrize("extension", ["pdf", "docx", "pptx", "xlsx", "odt", "epub", "rtf", "eml", "json", "parquet"])
def test_broken_files(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    path.write_bytes(b"This is something else entirely.\n" * 20)
    assert "broken" in reason(path)


@pytest.mark.parametrize("make", [made.make_docx, made.make_epub, made.make_odt, made.make_xlsx, made.make_pptx])
def test_files_cut_short(tmp_path: Path, make: Callable[[Path, list[str]], Path]) -> None:
    path = make(tmp_path / f"a.{make.__name__.removeprefix('make_')}", made.ALL)
    path.write_bytes(path.read_bytes()[:-400])
    assert "broken" in reason(path)


def test_a_damaged_zip_entry(tmp_path: Path) -> None:
    path = made.make_docx(tmp_path / "a.docx", made.ALL)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("word/document.xml").header_offset
    data = bytearray(path.read_bytes())
    data[start + 60 : start + 90] = bytes(30)
    path.write_bytes(data)
    assert "broken" in reason(path)


def test_a_zip_that_is_no_document(tmp_path: Path) -> None:
    for extension in ("docx", "pptx", "xlsx", "odt", "epub"):
        assert "broken" in reason(made.make_zip(tmp_path / f"a.{extension}", {"hello.txt": "hi"}))


def test_password_protected(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(OLE + "EncryptedPackage".encode("utf-16-le"))
    assert reason(path) == "password-protected"
    assert reason(made.make_pdf(tmp_path / "a.pdf", ["secret"], encrypted=True)) == "password-protected"
    manifest = {"META-INF/manifest.xml": "<m><encryption-data/></m>", "content.xml": b"\x93\x12"}
    assert reason(made.make_zip(tmp_path / "a.odt", manifest)) == "password-protected"


def test_an_old_office_file_under_a_new_name(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(OLE)
    assert reason(tmp_path / "a.docx") == "an Office file of before 2007; save it as docx, pptx or xlsx"


def test_zip_bombs(tmp_path: Path) -> None:
    path = made.make_docx(tmp_path / "a.docx", ["x"], extra={"word/media/zeros.xml": bytes(80_000_000)})
    assert reason(path).startswith("zip bomb: 0.")
    many: dict[str, str | bytes] = {f"{number}": "" for number in range(20_100)}
    assert reason(made.make_zip(tmp_path / "b.epub", many)).startswith("zip bomb: 20100 entries")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(bytes(b"a" * 80_000_000)))
    assert reason(tmp_path / "c.txt.gz") == "zip bomb: unpacks to more than 200 times its size"


def test_a_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    path = made.make_docx(tmp_path / "a.docx", ["x"], extra={"word/zeros.xml": bytes(90_000_000)})
    data = path.read_bytes()
    path.write_bytes(data.replace((90_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    assert "broken" in reason(path)


def test_entities_are_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>'
    assert reason(made.make_odt(tmp_path / "a.odt", ["x"], doctype=bomb)) == "unsafe XML: it declares entities"
    doctype = made.make_odt(tmp_path / "b.odt", ["x"], doctype="<!DOCTYPE x>")
    assert reason(doctype) == "unsafe XML: it declares a document type or entities"
    docx = made.make_docx(tmp_path / "a.docx", ["x"], extra={"docProps/app.xml": bomb})
    assert reason(docx) == "unsafe XML: it declares entities"


def test_broken_gzip(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "a.txt.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b'{"text": "x"}\n' * 1000)[:-20])
        assert "broken" in reason(tmp_path / name) or "cannot be read" in reason(tmp_path / name)


def test_a_pdf_without_text(tmp_path: Path) -> None:
    assert (
        reason(made.make_pdf(tmp_path / "a.pdf", [])) == "no text in it; is it a scan? Recognise its text (OCR) first"
    )


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a" * 3_000_000)
    options = ReadOptions(max_file_bytes=1024 * 1024)
    assert reason(path, options) == "3 MB, more than the limit of 1 MB; split it"
    packed = tmp_path / "b.txt.gz"
    packed.write_bytes(gzip.compress(b"a" * 3_000_000))
    assert reason(packed, options) == "holds more than the limit of 1 MB; split it"


def test_invalid_utf8_surrogates_and_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(
        "Grüße aus Köln, schöne Tage\x07 und\x1b Nächte für müde Füße".encode() + b"\xff\xed\xa0\x80\x00"[:4]
    )
    (file,) = iter_files(path, options=ReadOptions())
    assert isinstance(file, SourceFile)
    (document,) = iter_documents(file, ReadOptions())
    assert isinstance(document, Document)
    assert document.text.startswith("Grüße aus Köln, schöne Tage und Nächte für müde Füße\ufffd")
    document.text.encode()


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    for name in ("a.txt", "a.docx", "a.csv", "a.parquet"):
        (item,) = iter_documents(SourceFile(tmp_path / name, name, 10, 0), ReadOptions())
        assert isinstance(item, Skipped)
        assert "No such file" in item.reason


def test_deeply_nested_input(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)
    assert reason(tmp_path / "a.json") == "nested too deeply"
    (tmp_path / "a.html").write_text("<div>" * 20_000 + "Tief unten." + "</div>" * 20_000)
    (file,) = iter_files(tmp_path / "a.html", options=ReadOptions())
    assert isinstance(file, SourceFile)
    (document,) = iter_documents(file, ReadOptions())
    assert isinstance(document, Document)
    assert document.text == "Tief unten."


def parser_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> isolation.ParserProcess:
    """A parser process whose child runs `body` in place of the reader for rtf."""
    module = tmp_path / "sitecustomize.py"
    module.write_text(
        "import os, time\nimport indexer.extract.rich as rich\n"
        f"def read(path, max_bytes):\n    {body}\nrich.read_rtf = read\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return isolation.ParserProcess()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("time.sleep(60)", "took longer than 3 s"),
        ("os.abort()", "the parser crashed"),
        ("bytearray(64 * 1024**3)", "needs more memory to read than is allowed; split it"),
        ("raise RuntimeError('odd')", "broken rtf file, or not rtf at all (RuntimeError: odd)"),
    ],
)
def test_a_parser_that_fails_does_not_take_the_ingest_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str, message: str
) -> None:
    process = parser_of(monkeypatch, tmp_path, body)
    monkeypatch.setattr("indexer.sources.reading.parsers", process)
    started = time.monotonic()
    try:
        assert reason(made.make_rtf(tmp_path / "a.rtf", ["x"]), ReadOptions(timeout_s=3)) == message
        assert time.monotonic() - started < 10
        after = made.make_eml(tmp_path / "b.eml", ["Es geht weiter."])
        (item,) = iter_documents(SourceFile(after, "b.eml", 9, 0), ReadOptions())
        assert isinstance(item, Document)
        assert item.text == "Es geht weiter."
    finally:
        process.close()


def test_an_interrupt_passes_and_leaves_no_child_out_of_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process = isolation.ParserProcess()
    path = made.make_rtf(tmp_path / "a.rtf", ["Satz."])
    with monkeypatch.context() as patch:
        patch.setattr(isolation.json, "loads", lambda line: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            process.extract(path, name="rtf", max_bytes=10**6, timeout_s=30)
    assert process._child is None
    assert process.extract(path, name="rtf", max_bytes=10**6, timeout_s=30).text == "Satz."
    process.close()


def test_one_child_serves_many_files_and_ends_with_the_program(tmp_path: Path) -> None:
    made.make_rtf(tmp_path / "a.rtf", ["Satz."])
    program = (
        "from pathlib import Path; from indexer.isolation import parsers\n"
        "seen = set()\n"
        "for _ in range(3):\n"
        f"    parsers.extract(Path({str(tmp_path / 'a.rtf')!r}), name='rtf', max_bytes=10**6, timeout_s=30)\n"
        "    seen.add(parsers._child.pid)\n"
        "assert len(seen) == 1\n"
        "print(seen.pop())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_a_hundred_megabytes_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    piece = "Ein langer Satz ohne Ende, mit Ü und 字. ".encode()
    with path.open("wb") as file:
        for _ in range(100):
            file.write(piece * (1_000_000 // len(piece)))
    program = (
        "import re, sys; from pathlib import Path; from indexer.sources import *\n"
        "(f,) = iter_files(Path(sys.argv[1]), options=ReadOptions()); (d,) = iter_documents(f, ReadOptions())\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(len(d.text), re.search(r'VmHWM:\\s+(\\d+)', status)[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    characters, peak = map(int, done.stdout.split())
    assert characters == len(path.read_bytes().decode())
    assert peak * 1024 < 1e9
