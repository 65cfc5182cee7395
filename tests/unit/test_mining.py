"""Mining on texts whose scores are worked out by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from search.errors import SettingsError, TrainingDataError
from search.records import Vectors
from training.cli import app
from training.data.schema import RetrievalRow
from training.mine_command import mine_files, write_reports
from training.mining import CandidateSource, DropRule, MinedRow, MiningOptions, mine_negatives
from training.mining_bm25 import LexicalIndex

DENSE = (CandidateSource.DENSE,)


class AngleEncoder:
    """A text has the cosine to every query that stands after its last `=`; queries have cosine 1 to each other."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        return np.array([[1.0, 0.0]] * len(texts), np.float32).reshape(-1, 2)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        cosines = [float(text.split("=")[-1]) for text in texts]
        return np.array([[cosine, (1 - cosine**2) ** 0.5] for cosine in cosines], np.float32).reshape(-1, 2)


def row(query: str, positive: str, *, lang: str = "en", doc: str = "en", **fields: object) -> RetrievalRow:
    values = {"query": query, "positive": positive, "lang_query": lang, "lang_doc": doc, "dataset": "d", **fields}
    return RetrievalRow.model_validate(values)


def mine(rows: Sequence[RetrievalRow], **options: object) -> tuple[MinedRow, ...]:
    return mine_negatives(rows, AngleEncoder(), options=MiningOptions(sources=DENSE, **options)).rows  # type: ignore[arg-type]


def test_negatives_are_the_nearest_below_95_percent_of_the_positive() -> None:
    rows = [row("q", "own =0.8"), row("a", "near =0.77"), row("b", "edge =0.75"), row("c", "far =0.1")]
    mined = mine_negatives(rows, AngleEncoder(), options=MiningOptions(per_query=2, sources=DENSE))
    assert mined.rows[0].negatives == ("edge =0.75", "far =0.1")  # 0.77 > 0.76 = 95 % of 0.8
    assert mined.rows[0].mined == 2
    assert mined.report.dropped[DropRule.CLOSE] == 1 + 2 + 2 + 3  # per row: above its own 95 %
    assert mined.report.short == {0: 1, 1: 2}
    assert mined.report.gaps["min"] == pytest.approx(0.05, abs=1e-4)


def test_a_margin_replaces_the_share() -> None:
    rows = [row("q", "own =0.8"), row("a", "near =0.77"), row("b", "edge =0.75"), row("c", "far =0.1")]
    assert mine(rows, per_query=1, margin=0.02)[0].negatives == ("near =0.77",)
    assert mine(rows, per_query=1, margin=0.2)[0].negatives == ("far =0.1",)


@pytest.mark.parametrize(("positive", "ceiling"), [(0.8, 0.76), (-0.2, -0.21), (0.0, 0.0)])
def test_the_share_of_a_negative_cosine_lies_below_it(positive: float, ceiling: float) -> None:
    assert MiningOptions().ceiling(positive) == pytest.approx(ceiling)


def test_translations_of_the_answer_are_no_negatives() -> None:
    rows = [
        row("q", "own =0.9", doc_id="1"),
        row("w", "übersetzt =0.8", doc="de", doc_id="1"),
        row("x", "การแปล =0.7", doc="th", doc_id="1"),
        row("y", "other =0.5", doc_id="2"),
        row("z", "other set =0.4", doc_id="1", dataset="e"),
    ]
    mined = mine_negatives(rows, AngleEncoder(), options=MiningOptions(per_query=2, sources=DENSE))
    assert set(mined.rows[0].negatives) == {"other =0.5", "other set =0.4"}
    assert mined.report.dropped[DropRule.FAMILY] >= 3


def test_answers_of_an_identical_query_and_their_translations_are_no_negatives() -> None:
    rows = [
        row("Was ist das?", "one =0.9", doc_id="1"),
        row("was  ist das?", "two =0.5", doc_id="2"),
        row("x", "deux =0.5", doc="fr", doc_id="2"),
        row("y", "three =0.3", doc_id="3"),
    ]
    mined = mine_negatives(rows, AngleEncoder(), options=MiningOptions(per_query=1, sources=DENSE))
    assert mined.rows[0].negatives == ("three =0.3",)
    assert mined.report.queries == 3
    assert mined.report.dropped[DropRule.POSITIVE] == 2 + 1


def test_identical_texts_count_as_one_document_of_both_families() -> None:
    rows = [
        row("q", "café =0.9", doc_id="1"),
        row("w", "CAFE\u0301  =0.9", doc_id="2"),
        row("x", "koffie =0.8", doc="nl", doc_id="2"),
        row("y", "tea =0.2", doc_id="3"),
    ]
    mined = mine_negatives(rows, AngleEncoder(), options=MiningOptions(per_query=1, sources=DENSE))
    assert mined.report.merged == 1
    assert mined.report.documents == 3
    assert mined.rows[0].negatives == ("tea =0.2",)


def test_half_of_the_negatives_are_in_the_language_of_the_query_and_the_others_take_turns() -> None:
    rows = [row("سؤال", "جواب =0.99", lang="ar", doc="ja")]
    rows += [row(f"q{i}", f"عربي {i} =0.8{i}", lang="ar", doc="ar") for i in range(6)]
    rows += [row(f"e{i}", f"english {i} =0.7{i}") for i in range(6)]
    rows += [row("h", "हिन्दी =0.5", doc="hi"), row("j", "日本語 =0.3", doc="ja"), row("J", "温泉 =0.2", doc="ja")]
    first = mine(rows, per_query=8)[0].negatives
    assert first == (
        "عربي 5 =0.85", "日本語 =0.3", "عربي 4 =0.84", "english 5 =0.75",
        "عربي 3 =0.83", "हिन्दी =0.5", "عربي 2 =0.82", "温泉 =0.2",
    )  # fmt: skip
    only = mine(rows, per_query=4, same_language_share=1.0)[0].negatives
    assert all(text.startswith("عربي") for text in only)
    assert mine(rows, per_query=3, same_language_share=0.0)[0].negatives[0] == "日本語 =0.3"


def test_where_a_side_runs_short_the_other_fills_up() -> None:
    rows = [row("q", "own =0.99"), *(row(f"d{i}", f"deutsch {i} =0.{i}", doc="de") for i in range(1, 5))]
    assert len(mine(rows, per_query=4)[0].negatives) == 4
    rows = [row("q", "own =0.99"), *(row(f"e{i}", f"english {i} =0.{i}") for i in range(1, 5))]
    assert len(mine(rows, per_query=4)[0].negatives) == 4


def test_the_first_candidates_can_be_skipped() -> None:
    rows = [row("q", "own =0.99"), *(row(f"e{i}", f"english {i} =0.{i}") for i in range(1, 5))]
    assert mine(rows, per_query=1, skip_top=1)[0].negatives == ("english 3 =0.3",)


def test_given_negatives_stay_and_mined_ones_are_replaced() -> None:
    rows = [row("q", "own =0.9", negatives=("given =0.6",)), row("w", "old =0.2"), row("x", "new =0.5")]
    first = mine(rows, per_query=2)[0]
    assert (first.negatives, first.mined) == (("given =0.6", "new =0.5"), 1)
    again = mine([first, *rows[1:]], per_query=3)[0]
    assert (again.negatives, again.mined) == (("given =0.6", "new =0.5", "old =0.2"), 2)
    assert mine([first, *rows[1:]], per_query=1)[0].negatives == ("given =0.6",)
    other = mine([first, *rows[1:]], per_query=1)[1]
    assert other.mined == 0  # everything else is nearer than its own positive


def test_negatives_may_begin_with_their_title() -> None:
    rows = [row("q", "own =0.9"), row("w", "text =0.2", title="Title")]
    assert mine(rows, per_query=1, titles=True)[0].negatives == ("Title\ntext =0.2",)
    assert mine(rows, per_query=1)[0].negatives == ("text =0.2",)
    rows[1] = row("w", "TITLE text =0.2", title="Title")
    assert mine(rows, per_query=1, titles=True)[0].negatives == ("TITLE text =0.2",)


def test_too_few_documents_is_said_with_what_is_possible() -> None:
    rows = [row("q", "own =0.9", doc_id="1"), row("w", "eigen =0.8", doc_id="1"), row("x", "other =0.2", doc_id="2")]
    with pytest.raises(SettingsError, match=r"8 negatives.*3 distinct documents, at most 2 of them.*ask for 2"):
        mine(rows)
    assert mine([]) == ()


@pytest.mark.parametrize(
    "wrong", [{"per_query": 0}, {"max_share": 0.0}, {"margin": -1.0}, {"same_language_share": 2.0}, {"sources": ()}]
)
def test_options_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        MiningOptions(**wrong)  # type: ignore[arg-type]


def test_bm25_proposes_and_the_cosine_judges() -> None:
    rows = [
        row("温泉の入り方", "own =0.8", lang="ja", doc="ja"),
        row("x", "温泉 taboo =0.79", lang="ja", doc="ja"),
        row("y", "温泉 =0.4", lang="ja", doc="ja"),
        row("z", "金継ぎ =0.6", lang="ja", doc="ja"),
    ]
    options = MiningOptions(per_query=2, sources=(CandidateSource.BM25,))
    mined = mine_negatives(rows, AngleEncoder(), options=options)
    assert mined.rows[0].negatives == ("温泉 =0.4",)
    both = mine_negatives(rows, AngleEncoder(), options=MiningOptions(per_query=2))
    assert both.rows[0].negatives == ("金継ぎ =0.6", "温泉 =0.4")
    assert both.report.sources[CandidateSource.BM25] >= 1


@pytest.mark.parametrize(
    ("query", "document"),
    [
        ("الرمال", "القيادة في الرمال"),
        ("น้ำท่วม", "บ้านถูกน้ำท่วมเมื่อวาน"),
        ("मसाला", "मसाला चाय"),
        ("地震", "大地震が起きたら"),
    ],
)
def test_bm25_reads_every_script(query: str, document: str) -> None:
    scores = LexicalIndex(["nothing here", document, "!?"]).scores(query)
    assert scores.argmax() == 1
    assert scores[0] == scores[2] == 0
    assert LexicalIndex(["!?", "a"]).scores("").tolist() == [0, 0]


def test_the_sample_is_seeded() -> None:
    rows = [row(f"q{i}", f"text {i} ={0.9 - i / 100}") for i in range(30)]
    options = [MiningOptions(per_query=1, sample=3, seed=seed, max_share=1.0) for seed in (1, 1, 2)]
    first, same, other = (mine_negatives(rows, AngleEncoder(), options=o).report.sample for o in options)
    assert first == same != other
    assert len(first) == 3


def test_files_are_mined_apart_and_keep_what_they_say(tmp_path: Path) -> None:
    rows = [
        {"task": "retrieval", "query": f"q{i}", "positive": f"{name} =0.{i}", "lang_query": "th", "lang_doc": "th",
         "note": "ไทย"}
        for name in "ab" for i in range(1, 5)
    ]  # fmt: skip
    with gzip.open(tmp_path / "a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(json.dumps(r) for r in rows[:4]))
    nli = {"task": "nli", "lang": "en", "anchor": "a", "positive": "b", "negative": "c"}
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(r) for r in [nli, *rows[4:]]), encoding="utf-8")
    options = MiningOptions(per_query=2, sources=DENSE)
    paths = [tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl"]
    out = tmp_path / "new" / "out.jsonl.gz"
    reports = mine_files(paths, out, AngleEncoder(), options=options)
    with gzip.open(out, "rt", encoding="utf-8") as file:
        written = [json.loads(line) for line in file]
    assert written[4] == nli
    assert written[3]["note"] == "ไทย"
    assert written[3]["negatives"] == ["a =0.3", "a =0.2"]
    assert written[8]["negatives"] == ["b =0.3", "b =0.2"]
    write_reports(out, reports, options, encoder="angles")
    assert json.loads((out.parent / "out.json").read_text(encoding="utf-8"))["files"][str(paths[0])]["mined"] == 5
    assert "| th | th 5 |" in (out.parent / "out.md").read_text(encoding="utf-8")
    mine_files([out], out, AngleEncoder(), options=MiningOptions(per_query=1, sources=DENSE))
    with gzip.open(out, "rt", encoding="utf-8") as file:
        assert [json.loads(line).get("mined") for line in file][3] == 1
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.json", "out.jsonl.gz", "out.md"]


def test_a_broken_row_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"task": "retrieval", "query": "q"}\n', encoding="utf-8")
    with pytest.raises(TrainingDataError, match=r"a\.jsonl:1"):
        mine_files([path], tmp_path / "out.jsonl", AngleEncoder(), options=MiningOptions())
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(("out", "message"), [("rows.json", "ends in .jsonl"), ("data.jsonl", "report would be")])
def test_a_report_is_not_written_over_rows(tmp_path: Path, out: str, message: str) -> None:
    source = tmp_path / "data.json"
    source.write_text("{}\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["mine", str(source), "--out", str(tmp_path / out)])
    assert isinstance(result.exception, SettingsError)
    assert message in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    assert source.read_text("utf-8") == "{}\n"
