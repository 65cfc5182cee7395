"""Evaluation sets from files: what is read, what is refused, what a limit keeps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from search.errors import EvaluationError
from training.evaluation.sets import (
    BitextSet,
    Candidates,
    LabelledSet,
    PairSet,
    RerankingSet,
    RetrievalSet,
    StsSet,
    find_sets,
    limit_set,
    load_set,
)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(text)
    else:
        path.write_text(text, encoding="utf-8")


def write_retrieval(folder: Path, *, qrels: str | None = None, suffix: str = ".jsonl") -> Path:
    corpus = [
        {"_id": "b", "lang": "en", "title": "Bread", "text": "Flour and water."},
        {"_id": "a", "lang": "en", "title": "Wine", "text": "Wine\nis made of grapes."},
    ]
    queries = [{"_id": "q2", "lang": "de", "text": "Brot"}, {"_id": "q1", "lang": "de", "text": "Wein"}]
    write_rows(folder / f"corpus{suffix}", corpus)
    write_rows(folder / f"queries{suffix}", queries)
    lines = "query-id\tcorpus-id\tscore\nq1\ta\t2\nq2\tb\t1\nq2\ta\t0\n" if qrels is None else qrels
    (folder / "qrels.tsv").write_text(lines, encoding="utf-8")
    return folder


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_retrieval_is_sorted_and_encoded_as_the_indexer_would(tmp_path: Path, suffix: str) -> None:
    loaded = load_set(write_retrieval(tmp_path / "wine", suffix=suffix))
    assert isinstance(loaded, RetrievalSet)
    assert loaded.name == "wine"
    assert [document.text for document in loaded.documents] == ["Wine\nis made of grapes.", "Bread\nFlour and water."]
    assert [query.id for query in loaded.queries] == ["q1", "q2"]
    assert loaded.qrels == {"q1": {"a": 2.0}, "q2": {"b": 1.0}}


def test_ids_and_texts_in_any_script_are_kept(tmp_path: Path) -> None:
    """Composed and decomposed ids stay two; a line separator or a direction mark ends no row."""
    texts = {
        "وثيقة-١": ("ar", "النبيذ مصنوع من العنب"),
        "दस्तावेज़-२": ("hi", "शराब अंगूर से बनती है"),
        "เอกสาร-๓": ("th", "ไวน์ทำจากองุ่น"),
        "文書-四": ("ja", "ワインは葡萄から作られる"),
        "caf\u00e9": ("fr", "Vin\u2028rouge \u200f👩\u200d🌾"),
        "cafe\u0301": ("fr", ""),
    }
    folder = tmp_path / "語"
    write_rows(folder / "corpus.jsonl", [{"_id": i, "lang": lang, "text": text} for i, (lang, text) in texts.items()])
    write_rows(
        folder / "queries.jsonl.gz", [{"_id": f"؟{i}", "lang": lang, "text": text} for i, (lang, text) in texts.items()]
    )
    lines = "".join(f"؟{i}\t{i}\t1\n" for i in texts)
    (folder / "qrels.tsv").write_text(lines, encoding="utf-8")  # without a header
    loaded = load_set(folder)
    assert isinstance(loaded, RetrievalSet)
    assert {document.id: (document.lang, document.text) for document in loaded.documents} == texts
    assert loaded.qrels == {f"؟{i}": {i: 1.0} for i in texts}
    assert [document.id for document in loaded.documents] == sorted(texts)


def test_other_kinds_by_file_name(tmp_path: Path) -> None:
    write_rows(tmp_path / "1/bitext.jsonl", [{"pair": "deu-eng", "langs": ["de", "en"], "texts": ["Hund", "dog"]}])
    write_rows(
        tmp_path / "2/sts.jsonl", [{"langs": ["ar", "en"], "text_a": "a", "text_b": "b", "score": 2, "track": "t"}]
    )
    rows = [
        {"lang": "zh", "variant": "zho_Hans", "title": "标题", "text": "正文", "label": 1, "split": "test"},
        {"lang": "zh", "variant": "zho_Hant", "text": "正文", "label": 1, "split": "train"},
        {"lang": "en", "variant": "eng_Latn", "text": "body", "label": "x", "group_id": 7},
    ]
    write_rows(tmp_path / "3/clustering.jsonl", rows)
    write_rows(tmp_path / "4/nli.jsonl", [{"lang": "ko", "text_a": "a", "text_b": "b", "label": "entailment"}])
    write_rows(
        tmp_path / "5/reranking.jsonl",
        [{"lang": "ja", "query": "湯", "positives": ["温泉"], "negatives": ["猫", "犬"]}],
    )
    (tmp_path / "notes").mkdir()
    assert [folder.name for folder in find_sets(tmp_path)] == ["1", "2", "3", "4", "5"]
    assert find_sets(tmp_path / "2") == [tmp_path / "2"]
    bitext, sts, labelled, pairs, reranking = (load_set(folder) for folder in find_sets(tmp_path))
    assert isinstance(bitext, BitextSet)
    assert (bitext.rows[0].pair, bitext.rows[0].texts) == ("deu-eng", ("Hund", "dog"))
    assert isinstance(sts, StsSet)
    assert (sts.rows[0].group, sts.rows[0].langs, sts.rows[0].score) == ("2 t", ("ar", "en"), 2.0)
    assert isinstance(labelled, LabelledSet)
    assert [row.lang for row in labelled.rows] == ["zh-Hans", "zh-Hant", "en"]
    assert [row.text for row in labelled.rows] == ["标题\n正文", "正文", "body"]
    assert [(row.label, row.split, row.key) for row in labelled.rows][2] == ("x", "", "7")
    assert isinstance(pairs, PairSet)
    assert pairs.rows[0].entailed
    assert isinstance(reranking, RerankingSet)
    assert reranking.rows == (Candidates("ja", "湯", ("温泉",), ("猫", "犬")),)


@pytest.mark.parametrize(
    ("column", "value"), [("positives", []), ("negatives", "猫"), ("negatives", [1])], ids=["none", "text", "number"]
)
def test_candidates_are_lists_of_texts(tmp_path: Path, column: str, value: object) -> None:
    row = {"lang": "ja", "query": "湯", "positives": ["温泉"], "negatives": ["猫"], column: value}
    write_rows(tmp_path / "set/reranking.jsonl", [row])
    with pytest.raises(EvaluationError, match=f"reranking.jsonl:1: {column} must be a list of one string or more"):
        load_set(tmp_path / "set")


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("query-id\tcorpus-id\tscore\nq9\ta\t1\n", r"qrels.tsv:2: unknown query id 'q9'"),
        ("query-id\tcorpus-id\tscore\nq1\tz\t1\n", r"qrels.tsv:2: unknown document id 'z'"),
        ("query-id\tcorpus-id\tscore\nq1\ta\n", r"qrels.tsv:2: expected id, id and a number"),
        ("query-id\tcorpus-id\tscore\nq1\ta\tnan\n", r"qrels.tsv:2: expected id, id and a number"),
        ("query-id\tcorpus-id\tscore\nq1\ta\t0\n", r"nothing is relevant to any query"),
    ],
)
def test_qrels_that_do_not_fit(tmp_path: Path, qrels: str, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        load_set(write_retrieval(tmp_path / "set", qrels=qrels))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"langs": ["de", "en"]}', r"bitext.jsonl:2: column 'texts' is missing; the row has langs"),
        ('{"langs": ["de", "en"], "texts": ["a"', r"bitext.jsonl:2: not a line of JSON"),
        ('["de"]', r"bitext.jsonl:2: expected a JSON object, got list"),
        ('{"langs": ["de"], "texts": ["a", "b"]}', r"bitext.jsonl:2: langs must be a list of two strings"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "set" / "bitext.jsonl"
    write_rows(path, [{"langs": ["de", "en"], "texts": ["a", "b"]}])
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        load_set(tmp_path / "set")


def test_folders_that_are_no_set(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no evaluation set here"):
        find_sets(tmp_path)
    with pytest.raises(EvaluationError, match="no evaluation set here"):
        find_sets(tmp_path / "missing")
    write_rows(tmp_path / "set/sts.jsonl", [])
    with pytest.raises(EvaluationError, match="the set is empty"):
        load_set(tmp_path / "set")
    write_rows(tmp_path / "set/nli.jsonl", [])
    with pytest.raises(EvaluationError, match="holds sts and nli"):
        load_set(tmp_path / "set")
    half = write_retrieval(tmp_path / "half")
    (half / "queries.jsonl").unlink()
    with pytest.raises(EvaluationError, match=r"queries.jsonl or queries.jsonl.gz is missing"):
        load_set(half)
    twice = write_retrieval(tmp_path / "twice")
    write_rows(twice / "queries.jsonl", [{"_id": "q1", "lang": "de", "text": "x"}] * 2)
    with pytest.raises(EvaluationError, match="id 'q1' occurs twice"):
        load_set(twice)
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/sts.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:20])
    with pytest.raises(EvaluationError, match="cannot be read"):
        load_set(tmp_path / "cut")


def test_a_limit_keeps_the_same_part_and_all_documents(tmp_path: Path) -> None:
    folder = write_retrieval(tmp_path / "set")
    small = load_set(folder, limit=1)
    assert isinstance(small, RetrievalSet)
    assert (len(small.documents), len(small.queries), len(small.qrels)) == (2, 1, 1)
    assert load_set(folder, limit=1) == small
    assert load_set(folder, limit=9) == load_set(folder)
    with pytest.raises(EvaluationError, match="limit must be 1 or more, got 0"):
        load_set(folder, limit=0)


def test_a_limit_counts_for_each_language_and_keeps_translations_together(tmp_path: Path) -> None:
    rows = [
        {"lang": lang, "text": f"{lang} {i}", "label": str(i % 2), "group_id": i, "split": split}
        for split, start in (("test", 0), ("train", 100))
        for lang in ("en", "sw")
        for i in range(start, start + 20)
    ]
    write_rows(tmp_path / "set/classification.jsonl", rows)
    whole = load_set(tmp_path / "set")
    kept = limit_set(whole, 5)
    assert isinstance(kept, LabelledSet)
    keys = {
        (lang, split): [row.key for row in kept.rows if (row.lang, row.split) == (lang, split)]
        for lang in ("en", "sw")
        for split in ("test", "train")
    }
    assert all(len(found) == 5 for found in keys.values())
    assert keys["en", "test"] == keys["sw", "test"]
    assert keys["en", "train"] == keys["sw", "train"]
    smaller = limit_set(whole, 3)
    assert isinstance(smaller, LabelledSet)
    assert set(smaller.rows) <= set(kept.rows)
