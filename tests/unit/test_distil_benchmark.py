"""The distillation benchmark: which layers, which part of an evaluation set, how speeds compare."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.distil import compare_speed, restrict_sets, spaced_layers
from benchmarks.layer_swap import ARMS
from training.evaluation.sets import RetrievalSet, load_set


@pytest.mark.parametrize(
    ("total", "count", "layers"),
    [(12, 6, [0, 2, 4, 7, 9, 11]), (12, 4, [0, 4, 7, 11]), (12, 2, [0, 11]), (12, 1, [0]), (4, 4, [0, 1, 2, 3])],
)
def test_layers_are_spaced_evenly_with_both_ends(total: int, count: int, layers: list[int]) -> None:
    assert spaced_layers(total, count) == layers


def write(folder: Path, langs: dict[str, str], qrels: list[tuple[str, str, int]]) -> None:
    folder.mkdir(parents=True)
    for name, letter in (("corpus", "d"), ("queries", "q")):
        rows = [{"_id": letter + key, "lang": lang, "text": f"{letter} {key}"} for key, lang in langs.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in qrels)]
    (folder / "qrels.tsv").write_text("\n".join(lines), "utf-8")


def test_sets_are_cut_down_to_languages(tmp_path: Path) -> None:
    qrels = [("q1", "d2", 1), ("q1", "d3", 2), ("q2", "d2", 0), ("q3", "d1", 1)]
    write(tmp_path / "data" / "mixed", {"1": "ja", "2": "zh", "3": "de"}, qrels)
    write(tmp_path / "data" / "other", {"1": "tr"}, [("q1", "d1", 1)])
    assert restrict_sets(tmp_path / "data", ["ja", "zh"], tmp_path / "cut") == ["mixed"]
    found = load_set(tmp_path / "cut" / "mixed")
    assert isinstance(found, RetrievalSet)
    assert [document.lang for document in found.documents] == ["ja", "zh"]
    assert found.qrels == {"q1": {"d2": 1}}
    assert not (tmp_path / "cut" / "other").exists()


def test_speeds_are_ratios_of_the_teachers() -> None:
    teacher = {"passages_per_second": 40.0, "query_ms_p50": 15.0}
    student = {"passages_per_second": 80.0, "query_ms_p50": 7.5}
    assert compare_speed({"teacher": teacher, "student": student}) == {"passages_ratio": 2.0, "query_ratio": 0.5}


def test_arms_of_the_swap_are_the_lowest_and_highest_layers() -> None:
    assert ARMS["lower 4"] == (0, 1, 2, 3)
    assert ARMS["upper 4"] == (8, 9, 10, 11)
    assert (ARMS["base"], len(ARMS["all layers"])) == ((), 12)
