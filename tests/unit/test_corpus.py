"""The bundled corpus and its queries: sizes, and that every reference resolves."""

from __future__ import annotations

import csv
import json
import unicodedata
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from search.text import dominant_script

CORPUS = Path(__file__).parents[2] / "corpus"
DOCUMENTS = CORPUS / "documents"
ENCODINGS = ("utf-8", "cp932", "gb18030")
CHARSETS = {"ru/banya.html": "cp1251", "el/ηλιακός-θερμοσίφωνας.html": "cp1253", "de/phishing-bank.html": "iso-8859-15"}


class Text(HTMLParser):
    """What is between the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)


def decode(path: Path, name: str) -> str:
    data = path.read_bytes()
    for encoding in (CHARSETS[name],) if name in CHARSETS else ENCODINGS:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise AssertionError(f"{name} is in none of the encodings {ENCODINGS}")


def records(path: Path, name: str) -> dict[str, str]:
    """Text of each document in a file of a text format, by id; the text of a binary file is empty."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return {f"{name}#{row['id']}": f"{row['title']}\n{row['text']}" for row in rows}
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return {f"{name}#{number}": " ".join(row.values()) for number, row in enumerate(csv.DictReader(file), 1)}
    if path.suffix == ".html":
        parser = Text()
        parser.feed(decode(path, name))
        return {name: "".join(parser.parts)}
    return {name: decode(path, name) if path.suffix in (".txt", ".md") else ""}


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return sorted(path for path in DOCUMENTS.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def documents(files: list[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in files:
        found |= records(path, path.relative_to(DOCUMENTS).as_posix())
    return found


@pytest.fixture(scope="module")
def queries() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (CORPUS / "queries.jsonl").read_text(encoding="utf-8").splitlines()]


def language_of(document_id: str) -> str:
    return document_id.split("/", 1)[0]


def test_counts(documents: dict[str, str], queries: list[dict[str, Any]]) -> None:
    assert len(documents) >= 120
    assert len({language_of(name) for name in documents} - {"mixed", "news"}) >= 16
    assert len({dominant_script(text) for text in documents.values() if text}) >= 9
    assert len(queries) >= 80
    assert len({query["lang"] for query in queries}) >= 16


def test_formats(files: list[Path]) -> None:
    found = {path.suffix for path in files}
    assert found == {".txt", ".md", ".html", ".pdf", ".docx", ".epub", ".jsonl", ".csv"}


def test_size(files: list[Path]) -> None:
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert all(0 < path.stat().st_size < 100_000 for path in files)


def test_file_names_are_composed(files: list[Path]) -> None:
    names = [path.relative_to(DOCUMENTS).as_posix() for path in files]
    assert names == [unicodedata.normalize("NFC", name) for name in names]


def test_queries_are_well_formed(queries: list[dict[str, Any]]) -> None:
    assert len({query["id"] for query in queries}) == len(queries)
    assert len({query["text"] for query in queries}) == len(queries)
    for query in queries:
        assert set(query) - {"demo"} == {"id", "text", "lang", "relevant"}
        assert query["text"].strip() == query["text"] != ""
        assert unicodedata.is_normalized("NFC", query["text"]), query["id"]


def test_relevant_documents_exist(documents: dict[str, str], queries: list[dict[str, Any]]) -> None:
    for query in queries:
        assert query["relevant"], query["id"]
        assert len(set(query["relevant"])) == len(query["relevant"]), query["id"]
        assert set(query["relevant"]) <= documents.keys(), query["id"]


def test_every_document_is_asked_for(documents: dict[str, str], queries: list[dict[str, Any]]) -> None:
    assert documents.keys() == {name for query in queries for name in query["relevant"]}


def test_most_queries_are_cross_lingual(queries: list[dict[str, Any]]) -> None:
    crossing = [query for query in queries if query["lang"] not in map(language_of, query["relevant"])]
    assert len(crossing) >= 0.75 * len(queries)


def test_demo_queries(documents: dict[str, str], queries: list[dict[str, Any]]) -> None:
    demo = [query for query in queries if query.get("demo")]
    assert len(demo) == 3
    for query in demo:
        (answer,) = query["relevant"]
        assert dominant_script(query["text"]) != dominant_script(documents[answer])
