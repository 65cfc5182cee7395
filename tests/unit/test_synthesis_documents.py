"""Reading documents, the round trip, and the command over both."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import search.encoder
from search.errors import SettingsError, TrainingDataError, TrainingError
from search.records import Vectors
from tests.conftest import FakeEncoder
from training.data.loading import iter_rows
from training.data.schema import RetrievalRow
from training.synthesis.documents import ReadCounts, SourceDocument, SyntheticQuery, iter_source_documents
from training.synthesis.round_trip import filter_round_trip
from training.synthesize_command import parse_forms, synthesize_command

TEXTS = {
    "ar": "القيادة في الرمال تحتاج إلى خفض ضغط الهواء في الإطارات قبل دخول الرمال.",
    "th": "หลังน้ำท่วมควรต้มน้ำก่อนดื่ม หรือใส่คลอรีนในน้ำแล้วรอสามสิบนาที",
    "ja": "温泉に入る前に体をよく洗います。タオルを湯の中に入れてはいけません。",
    "hi": "आम का अचार साल भर चले इसके लिए मर्तबान को धूप में अच्छी तरह सुखाइए।",
}


def read(path: Path) -> tuple[list[SourceDocument], ReadCounts]:
    counts = ReadCounts()
    return list(iter_source_documents(path, tokenizer=FakeEncoder().tokenizer, counts=counts)), counts


def test_a_folder_is_read_and_cut_like_for_the_index(tmp_path: Path) -> None:
    for lang, text in TEXTS.items():
        (tmp_path / f"{lang}.md").write_text(f"# Title {lang}\n\n{text}\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    documents, counts = read(tmp_path)
    assert [(found.id, found.lang) for found in documents] == [(f"{lang}.md", lang) for lang in sorted(TEXTS)]
    assert all(TEXTS[found.lang] in found.text for found in documents)
    assert documents[0].title == "Title ar"
    assert (counts.documents, counts.skipped) == (4, {"empty.txt": "empty"})


def test_rows_need_only_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    rows = [
        {"text": TEXTS["th"]},
        {"id": 7, "lang": "pt_BR", "title": " T ", "text": "um texto", "headings": ["A", "B"]},
    ]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n\n".join(json.dumps(row) for row in rows))
    documents, counts = read(path)
    assert (documents[0].id, documents[0].lang) == ("rows.jsonl.gz:1", "th")
    assert documents[1] == SourceDocument("7", "pt", "T", ("A", "B"), "um texto")
    assert counts.passages == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [("{", "not JSON"), ("[]", "needs `text`"), ('{"body": "x"}', "It has: body"), ('{"text": " "}', "needs `text`"),
     ('{"text": "x", "headings": "y"}', "list of strings")],
)  # fmt: skip
def test_a_broken_row_names_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "fine", "lang": "en"}\n' + line, encoding="utf-8")
    with pytest.raises(TrainingDataError, match=rf"rows\.jsonl:2.*{message}"):
        read(path)


def test_a_packed_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl.gz").write_text("{}", encoding="utf-8")
    with pytest.raises(TrainingDataError, match="gzipped"):
        read(tmp_path / "rows.jsonl.gz")


def test_a_passage_repeats_no_line() -> None:
    found = SourceDocument("1", "en", "Tea", ("Tea", "Brewing"), "Tea needs water.")
    assert found.passage == "Brewing\nTea needs water."


class LineEncoder:
    """A query and a passage that end in numbers x and y have the score -|x - y|, as a dot product would order them."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return np.array([[2 * float(text.split()[-1]), -1.0] for text in texts], np.float32)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        return np.array([[float(text.split()[-1]), float(text.split()[-1]) ** 2] for text in texts], np.float32)


def test_a_query_is_kept_when_its_document_is_among_the_first() -> None:
    documents = [SourceDocument(str(i), "en", "", (), f"text {i}") for i in range(20)]
    queries = [
        SyntheticQuery(f"q {at}", form, "en", documents[5], "") for at, form in ((5, "title"), (8, "title"), (9, "k"))
    ]
    kept = filter_round_trip(queries, documents, LineEncoder(), top=6)
    assert kept.kept == tuple(queries[:2])  # at 8: 8, 7, 9, 6 and 10 are nearer, 11 as near; at 9 there are 7 nearer
    assert (kept.report.kept_by_form, kept.report.dropped_by_form) == ({"title": 2}, {"k": 1})
    assert (kept.report.kept, kept.report.dropped, kept.report.documents) == (2, 1, 20)
    assert filter_round_trip(queries, documents, LineEncoder(), top=5).report.kept == 1


def test_a_translation_counts_as_the_document_and_passages_of_one_document_count_once() -> None:
    own = SourceDocument("own", "en", "", (), "text 50")
    translated = SourceDocument("own", "de", "", (), "Text 3")
    crowd = [SourceDocument("other", "en", "", (), f"text 1.{i}") for i in range(9)]
    query = SyntheticQuery("q 1", "title", "en", own)
    assert filter_round_trip([query], [own, *crowd, translated], LineEncoder(), top=2).report.kept == 1
    assert filter_round_trip([query], [own, *crowd, translated], LineEncoder(), top=1).report.kept == 0
    assert filter_round_trip([], [own], LineEncoder()).kept == ()
    with pytest.raises(SettingsError, match="top is 0"):
        filter_round_trip([query], [own], LineEncoder(), top=0)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(search.encoder, "load_encoder", lambda *_, **__: FakeEncoder())
    app = typer.Typer()
    app.command()(synthesize_command)
    return app


def test_the_command_writes_rows_that_training_reads(tmp_path: Path, command: typer.Typer) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    for lang, text in TEXTS.items():
        (folder / f"{lang}.txt").write_text(text, encoding="utf-8")
    out = tmp_path / "out" / "rows.jsonl.gz"
    result = CliRunner().invoke(command, [str(folder), "--out", str(out), "--per-document", "5", "--top", "1"])
    assert result.exit_code == 0, result.output
    rows = list(iter_rows(out))
    assert len(rows) > 4
    assert all(isinstance(row, RetrievalRow) and row.dataset == "synthetic" for row in rows)
    with gzip.open(out, "rt", encoding="utf-8") as file:
        assert all(json.loads(line)["form"] for line in file)
    assert "4 documents" in result.stderr
    assert f"{len(rows)} rows" in result.stderr
    assert result.stdout == ""


def test_the_command_may_leave_the_filter_out(tmp_path: Path, command: typer.Typer) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": TEXTS["ja"], "title": "温泉の入り方"}), encoding="utf-8")
    options = ["--no-filter", "--forms", "title, code_switched", "--query-langs", "ja,de", "--per-document", "2"]
    result = CliRunner().invoke(command, [str(path), "--out", str(tmp_path / "out.jsonl"), *options])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(row["form"], row["lang_query"], row["lang_doc"]) for row in rows} == {
        ("title", "ja", "ja"), ("code_switched", "de", "ja"),
    }  # fmt: skip
    assert "kept" not in result.stderr


def test_wrong_forms_and_empty_folders_are_said(tmp_path: Path, command: typer.Typer) -> None:
    with pytest.raises(SettingsError, match=r"known are title, heading"):
        parse_forms("title,poem")
    source = tmp_path / "documents"
    source.mkdir()
    (source / "empty.txt").touch()
    result = CliRunner().invoke(command, [str(source), "--out", str(source / "out.jsonl")])
    assert isinstance(result.exception, TrainingError)
    assert "is inside" in str(result.exception)
    result = CliRunner().invoke(command, [str(source), "--out", str(tmp_path / "out.jsonl")])
    assert isinstance(result.exception, TrainingDataError)
    assert "empty.txt: empty" in str(result.exception)
