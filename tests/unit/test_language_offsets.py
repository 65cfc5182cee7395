"""Offsets measured on texts whose vectors are known."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from search.balance import LanguageOffsets
from search.errors import IndexFormatError, SourceError, TrainingDataError
from search.records import Vectors
from training.language_offsets import measure_offsets, read_pairs, sample_pairs, sample_questions

SHIFT = {"en": (0.0, 0.0), "de": (0.3, 0.0), "ja": (0.0, -0.6)}


class ShiftingEncoder:
    """A text `lang subject` has the subject's place, moved by its language; queries are moved by (1, 1) more."""

    dimension = 2

    def encode_documents(self, texts: list[str]) -> Vectors:
        rows = [np.add(SHIFT[text[:2]], (float(text.split()[1]), 1.0)) for text in texts]
        return np.array(rows, np.float32)

    def encode_queries(self, texts: list[str]) -> Vectors:
        return self.encode_documents(texts) + np.float32(1)


def text(lang: str, subject: int) -> str:
    return f"{lang} {subject} and some words to be long enough"


def write_bitext(path: Path, rows: int, langs: tuple[str, ...] = ("en", "de", "ja")) -> Path:
    lines = [json.dumps({"langs": langs, "texts": [text(lang, i) for lang in langs]}) for i in range(rows)]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    return path


def test_offsets_are_mean_differences_from_parallel_rows(tmp_path: Path) -> None:
    pairs = sample_pairs([write_bitext(tmp_path / "a.jsonl.gz", 80)], per_language=70)
    questions = [[(text("de", 1), text("de", 1)), (text("ja", 5), text("ja", 5))]]
    measured = measure_offsets(ShiftingEncoder(), pairs, questions)  # type: ignore[arg-type]
    assert measured.languages == ("en", "de", "ja")
    centre = np.mean(list(SHIFT.values()), axis=0)
    np.testing.assert_allclose(measured.offsets, np.array(list(SHIFT.values())) - centre, atol=1e-5)
    np.testing.assert_allclose(measured.query_shift, [1, 1], atol=1e-5)
    measured.save(tmp_path / "offsets.safetensors")
    again = type(measured).load(tmp_path / "offsets.safetensors")
    assert again.languages == measured.languages
    np.testing.assert_allclose(again.offsets, measured.offsets, atol=1e-3)


def test_files_take_turns_and_rare_languages_are_left_out(tmp_path: Path) -> None:
    first = write_bitext(tmp_path / "a.jsonl.gz", 200, ("en", "de"))
    second = write_bitext(tmp_path / "b.jsonl.gz", 30, ("en", "de", "ja"))
    pairs = sample_pairs([first, second], per_language=100, minimum=60)
    assert list(pairs) == ["de"]
    assert len(pairs["de"]) == 100
    assert len(read_pairs(second)["ja"]) == 30


def test_a_row_of_another_shape_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"langs": ["en"], "texts": ["x"]}\n{"query": "q"}\n', encoding="utf-8")
    with pytest.raises(SourceError, match=r"bad.jsonl:2: a row needs langs and texts"):
        read_pairs(path)
    with pytest.raises(SourceError, match="needs query and positive"):
        sample_questions([path], per_file=5)


def test_offsets_of_nothing_are_refused_and_never_read(tmp_path: Path) -> None:
    few = sample_pairs([write_bitext(tmp_path / "a.jsonl.gz", 20)], per_language=70)
    assert few == {}
    with pytest.raises(TrainingDataError, match="no language has 60 pairs"):
        measure_offsets(ShiftingEncoder(), few, [])  # type: ignore[arg-type]
    pairs = sample_pairs([write_bitext(tmp_path / "a.jsonl.gz", 80)], per_language=70)
    with pytest.raises(TrainingDataError, match="questions has no rows"):
        measure_offsets(ShiftingEncoder(), pairs, [[]])  # type: ignore[arg-type]
    nowhere = np.full(2, np.nan, np.float32)
    LanguageOffsets(("en",), nowhere, nowhere[None], nowhere).save(tmp_path / "nan.safetensors")
    with pytest.raises(IndexFormatError, match="not numbers"):
        LanguageOffsets.load(tmp_path / "nan.safetensors")


@pytest.mark.parametrize(
    "row",
    [
        "{",
        "[]",
        '{"langs": ["en", "de"], "texts": ["x"]}',
        '{"langs": ["en"], "texts": [1]}',
        '{"langs": 1, "texts": 2}',
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "bad.jsonl").write_text(f"\n{row}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"bad.jsonl:2: "):
        read_pairs(tmp_path / "bad.jsonl")
