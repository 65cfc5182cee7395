"""Fair fusion on lists worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.fusion import fuse_ranks, keep_language_places
from search.records import Chunk, ScoredPoint


def points(*names: str) -> list[ScoredPoint]:
    """`de1` is chunk 1 in German."""
    return [ScoredPoint(Chunk(name, 0, name, lang=name[:2]), 1.0 / (1 + rank)) for rank, name in enumerate(names)]


def names(found: list[ScoredPoint]) -> list[str]:
    return [point.chunk.document_id for point in found]


@pytest.mark.parametrize(
    ("dense", "fused", "expected"),
    [
        ("de1 fr1 de2", "de2 de1 fr1", "de2 fr1 de1"),
        ("de1 fr1", "sw9 de1 fr1", "sw9 de1 fr1"),
        ("de1 fr1 ja1", "de1 sw9 fr1 ja1", "de1 sw9 fr1 ja1"),
        ("de1", "de2 de1 de3", "de2 de1 de3"),
        ("", "de1 fr1", "de1 fr1"),
        ("de1", "", ""),
    ],
)
def test_worked_examples(dense: str, fused: str, expected: str) -> None:
    assert names(keep_language_places(points(*dense.split()), points(*fused.split()))) == expected.split()


NAMES = [f"{lang}{n}" for lang in ("de", "fr", "ja") for n in range(6)]


@given(st.lists(st.sampled_from(NAMES), unique=True), st.randoms())
def test_languages_follow_the_dense_list_and_nothing_is_lost(dense: list[str], random: object) -> None:
    fused = list(dense)
    random.shuffle(fused)  # type: ignore[attr-defined]
    found = names(keep_language_places(points(*dense), points(*fused)))
    assert [name[:2] for name in found] == [name[:2] for name in dense]
    assert sorted(found) == sorted(dense)
    for lang in ("de", "fr", "ja"):
        assert [n for n in found if n.startswith(lang)] == [n for n in fused if n.startswith(lang)]


def test_words_weigh_by_the_match_of_languages() -> None:
    dense, lexical = points("de1", "de2", "fr1"), points("fr1", "de2")
    german = {point.chunk.document_id: point.score for point in fuse_ranks(dense, lexical, {"de": 1.0})}
    assert german == pytest.approx({"de1": 1 / 61, "de2": 1 / 62 + 1 / 62, "fr1": 1 / 63 + 0.1 / 61})
    french = {point.chunk.document_id: point.score for point in fuse_ranks(dense, lexical, {"fr": 0.5})}
    assert french == pytest.approx({"de1": 1 / 61, "de2": 1 / 62 + 0.1 / 62, "fr1": 1 / 63 + 0.55 / 61})


def test_equal_fused_scores_break_by_id() -> None:
    dense, lexical = points("de1", "de2"), points("de2", "de1")
    fused = fuse_ranks(dense, lexical, {"de": 1.0})
    assert [point.chunk.id for point in fused] == sorted(point.chunk.id for point in dense)
