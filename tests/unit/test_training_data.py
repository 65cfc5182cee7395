"""Cleaning, splitting and limiting of training data, and the neutral teacher."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.errors import TrainingDataError
from training.data.cleaning import CleaningReport, canonical_text, clean, text_key, text_keys
from training.data.schema import BitextRow, NliRow, RetrievalRow, Row
from training.mixture import Batch
from training.neutral import SHRINKAGE, build_teacher, mean_direction, neutral_texts, remove_language_means
from training.prepare import build_evaluator, fraction, limit_rows, prepare
from training.recipe import Data, Objective, Recipe, Stream

LANGS = ("en", "ar", "hi", "zh")


def retrieval(query: str, positive: str, lang: str = "en", **rest: Any) -> RetrievalRow:
    return RetrievalRow(
        **{"dataset": "d", "query": query, "positive": positive, "lang_query": lang, "lang_doc": lang, **rest}
    )


def handbook(documents: int = 60) -> list[Row]:
    """Documents in four languages, and bitext of the same texts."""
    rows: list[Row] = [
        retrieval(f"title {number} {lang}", f"text of document {number} in {lang}", lang, doc_id=str(number))
        for number in range(documents)
        for lang in LANGS
    ]
    rows += [
        BitextRow(dataset="b", langs=LANGS, texts=tuple(f"text of document {number} in {lang}" for lang in LANGS))
        for number in range(documents)
    ]
    return rows


def write(folder: Path, rows: list[Row], name: str = "rows.jsonl") -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    lines = "".join(row.model_dump_json() + "\n" for row in rows)
    (folder / name).write_text(lines, "utf-8")
    return folder


def test_duplicates_are_dropped_whatever_their_case_width_and_spaces() -> None:
    report = CleaningReport()
    rows = [
        retrieval("Where is it?", "Here  it is"),
        retrieval("where is it?", "Here it is"),
        retrieval("Ｗhere is it?", "here it\u00a0is"),
        retrieval("Where is it?", "There it is"),
    ]
    assert list(clean(rows, frozenset(), report)) == [rows[0], rows[3]]
    assert report.as_dict() == {"d": {"read": 4, "duplicates": 2, "in_evaluation": 0}}


@pytest.mark.parametrize(
    ("held", "variant"),
    [
        ("Where is the library?", "  WHERE is\tthe\u00a0library? "),
        ("Où est la bibliothèque", "Ou\u0300 est la bibliothe\u0300que"),
        ("図書館はどこですか", "図書館はどこですか"),
        ("ガイドブック", "ｶﾞｲﾄﾞﾌﾞｯｸ"),
        ("पुस्तकालय कहाँ है", "पुस्तकालय  कहाँ है"),
        ("أين المكتبة اليوم", "أين المكتبة  اليوم"),
        ("Straße und Haus", "STRASSE und Haus"),
    ],
)
def test_texts_of_evaluation_sets_are_found_in_any_writing(tmp_path: Path, held: str, variant: str) -> None:
    with gzip.open(tmp_path / "test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"id": 3, "nested": {"passages": ["short", held]}}) + "\n")
    keys = text_keys(tmp_path)
    report = CleaningReport()
    rows = [
        retrieval("fine", "another text"),
        retrieval("a question", variant, dataset="e"),
        retrieval("q", "unlike any", dataset="e", negatives=(variant,)),
        NliRow(dataset="n", lang="en", anchor="unlike", positive="any other", negative=variant),
    ]
    assert list(clean(rows, keys, report)) == rows[:1]
    assert report.leaked == {"e": 2, "n": 1}
    assert report.as_dict()["d"]["in_evaluation"] == 0


def test_short_texts_are_no_leak(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "Paris"}\n{"text": "是的"}\n', "utf-8")
    rows = [retrieval("capital of France?", "Paris"), retrieval("对吗", "是的")]
    assert list(clean(rows, text_keys(tmp_path), CleaningReport())) == rows
    assert text_key("Paris") == b""
    assert len(text_key("Paris!")) == 12
    assert canonical_text("  Ｐａｒｉｓ\n") == "paris"


def test_an_evaluation_folder_without_texts_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=r"no \.jsonl or .jsonl.gz file to hold out"):
        text_keys(tmp_path)
    (tmp_path / "bad.jsonl").write_text("{", "utf-8")
    with pytest.raises(TrainingDataError, match=r"bad\.jsonl:1"):
        text_keys(tmp_path)


def test_no_row_of_training_holds_a_text_of_the_dev_split(tmp_path: Path) -> None:
    prepared = prepare(Data(dev_share=0.2), write(tmp_path, handbook()), held_out=None, seed=7)
    families = Counter(row.doc_id for row in prepared.dev)
    assert 4 <= len(families) <= 20
    assert set(families.values()) == {len(LANGS)}
    dev_texts = {row.positive for row in prepared.dev}
    trained = [text for row in prepared.rows["b"] if isinstance(row, BitextRow) for text in row.texts]
    assert dev_texts.isdisjoint(trained)
    assert len(prepared.rows["b"]) == 60 - len(families)
    assert len(prepared.rows["d"]) == (60 - len(families)) * len(LANGS)


def test_the_same_seed_prepares_the_same_and_another_does_not(tmp_path: Path) -> None:
    folder = write(tmp_path, handbook())
    first, again, other = (
        prepare(Data(dev_share=0.2, limit=20), folder, held_out=None, seed=seed) for seed in (7, 7, 8)
    )
    assert first == again
    assert first.fingerprint != other.fingerprint
    assert first.dev != other.dev


def test_limits_hold_for_each_file_and_language() -> None:
    kept = list(limit_rows(iter(handbook()), Data(limit=5), seed=7))
    counts = Counter(row.lang_query for row in kept if isinstance(row, RetrievalRow))
    assert sum(counts.values()) + sum(isinstance(row, BitextRow) for row in kept) == 5 * len(LANGS)
    assert len(list(limit_rows(iter(handbook()), Data(), seed=7))) == len(handbook())


def test_languages_leave_out_other_rows_and_shorten_bitext() -> None:
    kept = list(limit_rows(iter(handbook(10)), Data(languages=("en", "hi")), seed=7))
    assert {row.lang_query for row in kept if isinstance(row, RetrievalRow)} == {"en", "hi"}
    bitext = [row for row in kept if isinstance(row, BitextRow)]
    assert len(bitext) == 10
    assert all(row.langs == ("en", "hi") and len(row.texts) == 2 for row in bitext)
    alone = list(limit_rows(iter(handbook(10)), Data(languages=("en",)), seed=7))
    assert not [row for row in alone if isinstance(row, BitextRow)]


def test_the_fraction_is_even_and_depends_on_key_and_seed_alone() -> None:
    values = [fraction(f"文書 {number}", 7) for number in range(2000)]
    assert fraction("文書 1", 7) == values[1] != fraction("文書 1", 8)
    assert np.histogram(values, 4, (0, 1))[0].min() > 400
    assert 0 <= min(values) < max(values) < 1


def test_bad_rows_and_empty_data_stop_unless_the_recipe_says_otherwise(tmp_path: Path) -> None:
    folder = write(tmp_path, handbook(10))
    (folder / "bad.jsonl").write_text('{"task": "nli"}\n{"task": "nli"}\n', "utf-8")
    with pytest.raises(TrainingDataError, match=r"bad\.jsonl:1"):
        prepare(Data(), folder, held_out=None, seed=7)
    prepared = prepare(Data(skip_bad_rows=True), folder, held_out=None, seed=7)
    assert list(prepared.skipped.values()) == [2]
    assert prepare(Data(exclude=("bad*",)), folder, held_out=None, seed=7).skipped == {}
    with pytest.raises(TrainingDataError, match="no rows are left"):
        prepare(Data(exclude=("bad*",), languages=("fi",)), folder, held_out=None, seed=7)


def test_held_out_texts_are_left_out_of_training(tmp_path: Path) -> None:
    folder = write(tmp_path / "rows", handbook(10))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "t.jsonl").write_text('{"text": "Text of document 3 in hi"}\n', "utf-8")
    prepared = prepare(Data(dev_share=0), folder, held_out=tmp_path / "tests", seed=7)
    assert prepared.cleaning.leaked == {"d": 1, "b": 1}
    assert "text of document 3 in hi" not in {
        row.positive for row in prepared.rows["d"] if isinstance(row, RetrievalRow)
    }


def test_the_evaluator_takes_every_translation_for_right(tmp_path: Path) -> None:
    prepared = prepare(Data(dev_share=0.3), write(tmp_path, handbook()), held_out=None, seed=7)
    recipe = Recipe.model_validate(
        {"name": "r", "streams": [{"objective": "retrieval"}], "training": {"dev_queries": 8}}
    )
    evaluator = build_evaluator(prepared.dev, recipe)
    assert len(evaluator.queries) == 8
    assert {len(found) for found in evaluator.relevant_docs.values()} == {len(LANGS)}
    with pytest.raises(TrainingDataError, match="dev split is empty"):
        build_evaluator([], recipe)


def test_paragraphs_of_one_language_are_not_translations_of_each_other() -> None:
    dev = [retrieval(f"question {number}", f"paragraph {number}", doc_id="page") for number in range(6)]
    recipe = Recipe.model_validate({"name": "r", "streams": [{"objective": "retrieval"}]})
    evaluator = build_evaluator(dev, recipe)
    assert {len(found) for found in evaluator.relevant_docs.values()} == {1}
    assert len(evaluator.corpus) == 6


def test_the_teacher_loses_the_language_and_keeps_the_meaning() -> None:
    many = 30_000
    vectors = np.tile(np.array([[1, 0], [0, 1]], np.float32), (many, 1))
    vectors[0] = (1, 0.1)
    centred = remove_language_means(vectors, ["a", "b"] * many)
    assert centred.dtype == np.float32
    np.testing.assert_allclose(centred[0], (0, 1), atol=0.02)
    kept = remove_language_means(vectors, ["a", "b"] * many, kept_mean=0.25)
    np.testing.assert_allclose(kept[0], (0.486, 0.874), atol=0.02)


def test_means_of_few_texts_are_drawn_towards_the_mean_of_all() -> None:
    vectors = np.array([[2, 0]] * 30 + [[0, 2]] * 90, np.float32)
    centred = remove_language_means(vectors, ["few"] * 30 + ["many"] * 90)
    # overall (0.5, 1.5); mean of "few": (30 (2, 0) + 30 (0.5, 1.5)) / 60 = (1.25, 0.75); (2, 0) - that = (0.75, -0.75)
    assert SHRINKAGE == 30
    np.testing.assert_allclose(centred[0], np.array([1, -1]) / np.sqrt(2), atol=1e-6)
    np.testing.assert_array_equal(remove_language_means(np.ones((3, 4), np.float32), ["x"] * 3), np.zeros((3, 4)))


class TwoAxes:
    """Queries lie on the first axes, documents on the last."""

    def encode_queries(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return np.array([[len(text), 1, 0] for text in texts], np.float32)

    def encode_documents(self, texts: list[str]) -> np.ndarray[Any, Any]:
        return np.array([[0, 1, len(text)] for text in texts], np.float32)


def test_the_teacher_encodes_each_text_once_as_what_it_is() -> None:
    columns = ("text", "kind")
    batches = [
        Batch(0, columns, (("a", "query"), ("bbb", "query")), (("en", "en"), ("hi", "hi"))),
        Batch(1, ("anchor", "positive"), (("x", "y"),), (("en", "en"),)),
        Batch(0, columns, (("a", "document"), ("cc", "document")), (("en", "en"), ("zh", "zh"))),
        Batch(0, columns, (("a", "query"),), (("en", "en"),)),
    ]
    texts = neutral_texts(batches)
    assert texts == [("a", "query", "en"), ("bbb", "query", "hi"), ("a", "document", "en"), ("cc", "document", "zh")]
    teacher = build_teacher(texts, TwoAxes())  # type: ignore[arg-type]
    assert teacher.keys() == {(text, kind) for text, kind, _ in texts}
    np.testing.assert_allclose([np.linalg.norm(vector) for vector in teacher.values()], 1, atol=1e-6)
    assert teacher["a", "query"][2] == 0
    assert teacher["a", "document"][0] == 0


def test_the_teacher_encodes_both_texts_of_a_parallel_row() -> None:
    pairs = Batch(0, ("text", "translation", "kind"), (("a", "б", "document"), ("c", "a", "document")),
                  (("en", "ru"), ("de", "en")))  # fmt: skip
    assert neutral_texts([pairs]) == [("a", "document", "en"), ("б", "document", "ru"), ("c", "document", "de")]


def test_the_mean_direction_is_nearest_to_all() -> None:
    np.testing.assert_allclose(mean_direction(np.eye(2, dtype=np.float32)), [0.7071, 0.7071], atol=1e-4)
    np.testing.assert_allclose(mean_direction([np.array([0.6, 0.8], np.float32)]), [0.6, 0.8], atol=1e-6)
    assert not mean_direction([np.array([1, 0], np.float32), np.array([-1, 0], np.float32)]).any()
    rng = np.random.default_rng(0)
    vectors = [row / np.linalg.norm(row) for row in rng.normal(size=(3, 5)).astype(np.float32)]
    others = rng.normal(size=(500, 5))
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    best = sum(float(vector @ mean_direction(vectors)) for vector in vectors)
    assert best > (others @ np.sum(vectors, axis=0)).max()


@pytest.mark.parametrize(("kind", "prompt"), [("query", "query: "), ("document", "passage: ")])
def test_translations_are_laid_out_with_one_vector_and_their_prompt(kind: str, prompt: str) -> None:
    from training.run import lay_out

    recipe = Recipe(name="r", streams=(Stream(objective=Objective.PARALLEL),))
    batch = Batch(0, ("text", "translation", "kind"), (("狗", "dog", kind), ("猫", "cat", kind)), (("zh", "en"),) * 2)
    axes = np.eye(4, dtype=np.float32)
    teacher = {(text, kind): axis for text, axis in zip(("狗", "dog", "猫", "cat"), axes, strict=True)}
    planned = lay_out([batch], recipe, teacher)
    ((key, start, stop),) = planned.order
    rows = planned.datasets[key]
    assert (rows.column_names, start, stop) == (["text", "translation", "label"], 0, 2)
    np.testing.assert_allclose(rows["label"], np.array([axes[0] + axes[1], axes[2] + axes[3]]) / 2**0.5, atol=1e-6)
    assert planned.prompts[key] == {"text": prompt, "translation": prompt}
