"""Passages that count with their whole document, worked out by hand."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from search.fold import FAMILIES_VERSION, FamiliesFile
from search.records import Chunk, ScoredPoint
from search.retrieval import DOCUMENT_WEIGHT, weigh_documents

QUERY = np.array([1.0, 0.0], np.float32)


@pytest.fixture
def families(tmp_path: Path) -> Iterator[FamiliesFile]:
    path = tmp_path / "families.sqlite"
    means: Mapping[str, tuple[float, float]] = {"about": (0.8, 0.6), "aside": (0.0, 1.0), "short": (0.75, 0.5)}
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('version', ?)", (str(FAMILIES_VERSION),))
        db.execute("CREATE TABLE signatures (id TEXT, vector BLOB)")
        rows = [(name, np.array(mean, np.float16).tobytes()) for name, mean in means.items()]
        db.executemany("INSERT INTO signatures VALUES (?, ?)", rows)
    db.close()
    found = FamiliesFile(path)
    yield found
    found.close()


def points(*scored: tuple[str, int, float]) -> list[ScoredPoint]:
    return [ScoredPoint(Chunk(document, number, "text"), score) for document, number, score in scored]


def told(found: list[ScoredPoint]) -> list[tuple[str, int]]:
    return [(point.chunk.document_id, point.chunk.number) for point in found]


def test_a_document_about_the_question_passes_one_that_mentions_it(families: FamiliesFile) -> None:
    found = weigh_documents(points(("aside", 3, 0.8), ("about", 1, 0.79), ("about", 0, 0.5)), QUERY, families)
    assert told(found) == [("about", 1), ("aside", 3), ("about", 0)]
    expected = [(score + DOCUMENT_WEIGHT * mean) / (1 + DOCUMENT_WEIGHT) for score, mean in
                ((0.79, 0.8), (0.8, 0.0), (0.5, 0.8))]  # fmt: skip
    assert [point.score for point in found] == pytest.approx(expected, abs=1e-3)


def test_a_passage_that_is_its_document_keeps_its_score_as_does_one_whose_document_is_not_known(
    families: FamiliesFile,
) -> None:
    found = weigh_documents(points(("new", 0, 0.9), ("short", 0, 0.75)), QUERY, families)
    assert [point.score for point in found] == pytest.approx([0.9, 0.75], abs=1e-3)


def test_without_means_nothing_changes(families: FamiliesFile) -> None:
    given = points(("newer", 0, 0.9), ("new", 0, 0.2))
    assert weigh_documents(given, QUERY, families) == given
    assert weigh_documents(given, QUERY, FamiliesFile(None)) == given
    assert weigh_documents([], QUERY, families) == []


@pytest.mark.parametrize(("origin", "known"), [("e1 m1", True), ("e2 m1", False)])
def test_means_of_another_encoder_or_map_are_not_used(
    families: FamiliesFile, tmp_path: Path, origin: str, known: bool
) -> None:
    with sqlite3.connect(tmp_path / "families.sqlite") as db:
        db.execute("INSERT INTO meta VALUES ('origin', ?)", (f"{FAMILIES_VERSION} e1 m1",))
    db.close()
    score = FamiliesFile(tmp_path / "families.sqlite", origin).score_documents(["about", "new"], QUERY)
    assert score == pytest.approx([0.8 if known else np.nan, np.nan], abs=1e-3, nan_ok=True)


def test_equal_scores_are_ordered_by_chunk_id(families: FamiliesFile) -> None:
    given = points(("short", 0, 0.6), ("short", 1, 0.6), ("short", 2, 0.6))
    found = weigh_documents(given, QUERY, families)
    assert [point.chunk.id for point in found] == sorted(point.chunk.id for point in given)
