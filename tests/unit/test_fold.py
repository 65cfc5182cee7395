"""Families of translations: how they are found, worked out by hand, and how a search folds and shows them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer import pairing
from indexer.pairing import (
    NEIGHBOURS,
    Neighbours,
    align,
    fill_nearest,
    likelihood,
    mutual_nearest,
    names_in,
    nearest_in_blocks,
    order_similarity,
    share_of_names,
    text_length,
    unite,
    variety_of,
)
from search.errors import IndexFormatError, QueryError
from search.fold import (
    FAMILIES_VERSION,
    FamiliesFile,
    Folded,
    fold_families,
    has_families,
    list_gaps,
    list_translations,
    show,
)
from search.records import Chunk, Filter, Match, Point, ScoredPoint, SparseVector, Vectors

EMPTY = SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))


def unit(*rows: Sequence[float]) -> Vectors:
    vectors = np.array(rows, np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def neighbours_of(vectors: Vectors, languages: Sequence[int]) -> Neighbours:
    shape = (max(languages) + 1, len(languages), NEIGHBOURS)
    near = Neighbours(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
    nearest_in_blocks(vectors, np.array(languages, np.int32), near)
    return near


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Version 2.4 von dpkg", {"2.4", "dpkg", "version", "von"}),
        ("dpkg الإصدار ٢٫٤ سنة ٢٠٢٤", {"dpkg", "2", "4", "2024"}),
        ("संस्करण २०२४ के लिए", {"2024"}),
        ("ＤＰＫＧは２０２４年に", {"dpkg", "2024"}),
        ("รุ่น ๒๕๖๗ และ apt-get", {"2567", "apt-get"}),
        ("גרסה 12 של Debian.", {"12", "debian"}),
        ("温泉に入る 👨‍👩‍👧", set()),
        ("", set()),
    ],
)
def test_names_and_numbers_are_the_same_in_every_script(text: str, names: set[str]) -> None:
    assert names_in(text) == set().union(*(names_in(name) for name in names))
    assert len(names_in(text)) == len(names)


def test_share_of_names() -> None:
    five, nine = np.arange(5, dtype=np.uint32), np.arange(2, 11, dtype=np.uint32)
    assert share_of_names(five, nine) == pytest.approx(3 / 8)
    assert share_of_names(five[:0], nine) == 0.0


def test_length_counts_what_a_sign_says() -> None:
    assert text_length("abc def") == 7
    assert text_length("温泉") == pytest.approx(5.8)
    assert text_length("おゆ") == pytest.approx(3.0)
    assert text_length("한국") == pytest.approx(4.6)
    assert text_length("") == 0


def test_varieties_of_one_language() -> None:
    assert variety_of("zh", "Hani", "這個問題與網絡設備有關") == "zh-Hant"
    assert variety_of("zh", "Hani", "这个问题与网络设备有关") == "zh-Hans"
    assert (variety_of("sr", "Cyrl", "ово"), variety_of("sr", "Latn", "ovo")) == ("sr-Cyrl", "sr-Latn")
    assert variety_of("ja", "Jpan", "国の会") == "ja"


def test_margins_by_hand() -> None:
    """0.96 beside 0.6: means over 4 places with two documents are 0.39 and, through the floor, 0.3."""
    vectors = unit((1, 0, 0), (0, 0, 1), (0.96, 0.28, 0), (0.6, 0, 0.8))
    pairs = mutual_nearest(neighbours_of(vectors, [0, 0, 1, 1]), np.array([0, 0, 1, 1], np.int32))
    assert [(first, second) for first, second, *_ in pairs] == [(0, 2), (1, 3)]
    around = {0: (0.96 + 0.6) / 4, 1: 0.8 / 4, 2: 0.96 / 4, 3: (0.6 + 0.8) / 4}
    floor = {row: max(mean, pairing.LEAST_AROUND) for row, mean in around.items()}
    expected = [0.96 / ((floor[0] + floor[2]) / 2), 0.8 / ((floor[1] + floor[3]) / 2)]
    assert pairs.margin == pytest.approx(expected, abs=1e-3)
    assert pairs.agreement == pytest.approx([0, 0])  # there is no third language


def test_third_languages_agree_or_disagree() -> None:
    """Documents a and b in three languages; c is in the third only and no translation of anything."""
    vectors = unit((1, 0, 0), (0, 1, 0), (1, 0.1, 0), (0.1, 1, 0), (1, 0, 0.1), (0, 1, 0.1), (0, 0, 1))
    languages = np.array([0, 0, 1, 1, 2, 2, 2], np.int32)
    pairs = mutual_nearest(neighbours_of(vectors, languages.tolist()), languages)
    found = {(first, second): agreement for first, second, _, agreement in pairs}
    assert found.keys() == {(0, 2), (0, 4), (1, 3), (1, 5), (2, 4), (3, 5)}
    assert all(agreement == pytest.approx(2 / 3 - 0.5) for agreement in found.values())


def test_a_document_of_no_language_has_no_translations() -> None:
    vectors, languages = unit((1, 0), (1, 0.1), (1, 0.01)), [0, 1, -1]
    pairs = mutual_nearest(neighbours_of(vectors, languages), np.array(languages, np.int32))
    assert [(first, second) for first, second, *_ in pairs] == [(0, 1)]


def test_blocks_and_candidates_give_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(7)
    vectors = unit(*random.normal(size=(60, 8)))
    languages = np.array([row % 3 for row in range(60)], np.int32)
    whole = neighbours_of(vectors, languages.tolist())
    monkeypatch.setattr(pairing, "_BLOCK", 7)
    blocks = neighbours_of(vectors, languages.tolist())
    searched = Neighbours(np.full_like(whole.rows, -1), np.zeros_like(whole.similarity))
    for row in range(60):
        fill_nearest(vectors, languages, row, [r for r in range(60) if languages[r] != languages[row]], searched)
    for other in (blocks, searched):
        assert np.array_equal(whole.rows, other.rows)
        assert np.allclose(whole.similarity, other.similarity, atol=1e-6)


def test_order_by_hand() -> None:
    first = np.eye(2, dtype=np.float32)
    second = np.array([[0.9, 0.2], [0.1, 0.7]], np.float32)
    assert order_similarity(first, second) == pytest.approx(0.8)
    assert order_similarity(first[::-1], second) == pytest.approx(0.5)


def test_what_one_document_has_beyond_the_other_lowers_the_similarity() -> None:
    both = np.eye(6, dtype=np.float32)
    assert order_similarity(both, both) == pytest.approx(1.0)
    assert order_similarity(both, both[:3]) == pytest.approx(0.5)


def test_chunks_are_aligned_forward_and_what_is_missing_has_no_place() -> None:
    pivot = np.eye(5, dtype=np.float32)
    assert align(pivot[[0, 2, 4]], pivot).tolist() == [0, 2, 4]
    assert align(pivot[[1, 1, 3]], pivot).tolist() == [1, 1, 3]
    foreign = np.array([[0, 0, 0, 0, 0, 1]], np.float32)
    wider = np.pad(pivot, ((0, 0), (0, 1)))
    assert align(np.concatenate([wider[:1], foreign, wider[3:4]]), wider).tolist() == [0, -1, 3]
    assert align(pivot[:1], pivot[:1]).tolist() == [0]


def test_long_documents_are_aligned_by_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairing, "LONGEST", 10)
    topics = np.repeat(np.eye(10, dtype=np.float32), 10, axis=0)
    places = align(topics[::2], topics)
    assert len(places) == 50
    assert (np.abs(places - np.arange(50) * 2) < 10).all()
    assert order_similarity(topics, topics[::2]) == pytest.approx(1.0)


def test_a_translation_is_likelier_the_more_it_shares() -> None:
    base = likelihood(1.8, 0.6, 1.1, 0.3, 0.0)
    assert base > 0.5 > likelihood(1.1, 0.3, 1.0, 0.0, 0.0)
    assert likelihood(2.0, 0.6, 1.1, 0.3, 0.0) > base
    assert likelihood(1.8, 0.7, 1.1, 0.3, 0.0) > base
    assert likelihood(1.8, 0.6, 1.1, 0.4, 0.0) > base
    assert likelihood(1.8, 0.6, 1.1, 0.3, 0.4) > base
    assert likelihood(1.8, 0.6, 3.0, 0.3, 0.0) < base
    assert likelihood(1.8, 0.6, 1 / 1.1, 0.3, 0.0) == pytest.approx(base)


def test_conflicts_go_to_the_likelier_pair() -> None:
    """Rows 0 de, 1 fr, 2 fr, 3 ja: both French ones want the German one, and 1 fits better."""
    assert unite([(0, 1, 0.9), (0, 2, 0.8), (0, 3, 0.7), (1, 3, 0.7)], [0, 1, 1, 2]) == [[0, 1, 3]]


def test_one_wrong_link_joins_no_families() -> None:
    one = [(0, 1, 0.9), (0, 2, 0.9), (1, 2, 0.9)]
    other = [(3, 4, 0.9), (3, 5, 0.9), (4, 5, 0.9)]
    languages = [0, 1, 2, 3, 4, 5]
    assert unite([*one, *other, (2, 3, 0.6)], languages) == [[0, 1, 2], [3, 4, 5]]


@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.floats(0.5, 1.0)), max_size=40), st.randoms())
def test_families_are_disjoint_and_of_one_document_per_language(
    drawn: list[tuple[int, int, float]], random: object
) -> None:
    languages = [row % 4 for row in range(12)]
    pairs = [(min(a, b), max(a, b), p) for a, b, p in drawn if languages[a] != languages[b]]
    families = unite(pairs, languages)
    rows = [row for family in families for row in family]
    assert len(rows) == len(set(rows))
    assert all(len({languages[row] for row in family}) == len(family) > 1 for family in families)
    shuffled = list({(a, b): p for a, b, p in pairs}.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    unique = [(a, b, p) for (a, b), p in shuffled]
    assert unite(unique, languages) == unite(sorted(unique), languages)


DOCUMENTS = {
    "Brot.md": ("de", 1, "pain.txt", [0, 1, 2]),
    "pain.txt": ("fr", 1, "pain.txt", [0, 1, 2]),
    "パン.txt": ("ja", 1, "pain.txt", [0, 2]),
    "خبز.txt": ("ar", 1, "pain.txt", [0, -1, 2]),
    "麵包.txt": ("zh-Hant", 1, "pain.txt", [1]),
    "चाय.txt": ("hi", 2, "ชา.txt", [0]),
    "ชา.txt": ("th", 2, "ชา.txt", [0, 1]),
    "tides.txt": ("en", None, None, None),
}


@pytest.fixture
def families(tmp_path: Path) -> Iterator[FamiliesFile]:
    path = tmp_path / "families.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('version', ?)", (str(FAMILIES_VERSION),))
        db.execute("CREATE TABLE documents (id TEXT, lang TEXT, family INTEGER, pivot TEXT, aligned BLOB)")
        for name, (lang, family, pivot, places) in DOCUMENTS.items():
            blob = None if places is None else np.array(places, np.int32).tobytes()
            db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", (name, lang, family, pivot, blob))
    db.close()
    found = FamiliesFile(path)
    yield found
    found.close()


class FakeStore:
    """Holds the chunks of DOCUMENTS: as many as each has places, one of a document without."""

    def __init__(self) -> None:
        self.chunks = [
            Chunk(name, number, f"{name} {number}", title=f"Title of {name}", lang=lang.partition("-")[0], source=name)
            for name, (lang, _, _, places) in DOCUMENTS.items()
            for number in range(len(places or [0]))
        ]

    def retrieve(self, ids: Sequence[str], *, with_vectors: bool = False) -> list[Point]:
        by_id = {chunk.id: chunk for chunk in self.chunks}
        return [Point(by_id[i], np.zeros(0, np.float32), EMPTY) for i in ids if i in by_id]

    def iter_points(self, *, filter: Filter | None = None, with_vectors: bool = False) -> Iterable[Point]:
        for chunk in self.chunks:
            conditions = filter.conditions if filter else ()
            if all(isinstance(c, Match) and getattr(chunk, c.key) in c.values for c in conditions):
                yield Point(chunk, np.zeros(0, np.float32), EMPTY)

    def count(self, filter: Filter | None = None) -> int:
        return len(list(self.iter_points(filter=filter)))


def point(name: str, number: int = 0, score: float = 1.0) -> ScoredPoint:
    chunk = next(c for c in FakeStore().chunks if (c.document_id, c.number) == (name, number))
    return ScoredPoint(chunk, score)


def shown(
    families: FamiliesFile, *points: ScoredPoint, **options: object
) -> list[tuple[str, int, list[tuple[str, int]]]]:
    folded = fold_families(points, families.of(item.chunk.document_id for item in points))
    found = show(folded, families, FakeStore(), **options)  # type: ignore[arg-type]
    return [(s.chunk.document_id, s.chunk.number, [(c.document_id, c.number) for c in s.also_in]) for s in found]


def test_a_family_takes_the_place_of_its_best_passage() -> None:
    points = [point("Brot.md", 1, 0.9), point("pain.txt", 2, 0.8), point("ชา.txt", 1, 0.7), point("パン.txt", 0, 0.6)]
    family_of = {"Brot.md": 1, "pain.txt": 1, "パン.txt": 1, "ชา.txt": 2}
    assert fold_families(points, family_of) == [
        Folded(points[0], (points[1], points[3])),
        Folded(points[2]),
    ]
    assert [item.best for item in fold_families(points, {})] == points


def test_a_family_is_shown_with_the_counterparts_of_its_passage(families: FamiliesFile) -> None:
    assert shown(families, point("Brot.md", 2), point("tides.txt")) == [
        ("Brot.md", 2, [("خبز.txt", 2), ("pain.txt", 2), ("パン.txt", 1), ("麵包.txt", 0)]),
        ("tides.txt", 0, []),
    ]


def test_what_was_found_comes_before_its_counterparts(families: FamiliesFile) -> None:
    [(name, number, also)] = shown(families, point("Brot.md", 0), point("パン.txt", 1))
    assert (name, number) == ("Brot.md", 0)
    assert also == [("パン.txt", 1), ("خبز.txt", 0), ("pain.txt", 0), ("麵包.txt", 0)]


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        (("fr",), ("pain.txt", 2)),
        (("th", "ja"), ("パン.txt", 1)),
        (("ar", "fr"), ("خبز.txt", 2)),
        (("zh",), ("麵包.txt", 0)),
        (("de",), ("Brot.md", 2)),
        (("sw",), ("Brot.md", 2)),
        ((), ("Brot.md", 2)),
    ],
)
def test_the_first_language_of_the_reader_that_answers_is_shown(
    families: FamiliesFile, readers: tuple[str, ...], expected: tuple[str, int]
) -> None:
    [(name, number, also)] = shown(families, point("Brot.md", 2), readers=readers)
    assert (name, number) == expected
    everything = {(name, number), *also}
    assert len(everything) == 5
    assert len(also) == 4


def test_a_translation_that_lacks_the_passage_is_not_shown_first(families: FamiliesFile) -> None:
    [(name, _, also)] = shown(families, point("ชา.txt", 1), readers=("hi",))
    assert name == "चाय.txt"  # one chunk may hold two of the pivot's
    assert also == [("ชา.txt", 1)]
    [(name, number, also)] = shown(families, point("خبز.txt", 1), readers=("fr",))
    assert (name, number) == ("خبز.txt", 1)  # it has no counterpart anywhere: the others stand by, where they may
    assert dict(also) == {"Brot.md": 1, "pain.txt": 1, "パン.txt": 0, "麵包.txt": 0}


def test_nothing_is_shown_that_does_not_pass_the_filter(families: FamiliesFile) -> None:
    only = Filter((Match("lang", ("de", "ja")),))
    assert shown(families, point("Brot.md", 0), filter=only, readers=("fr",)) == [("Brot.md", 0, [("パン.txt", 0)])]
    rejected = {"rejected": lambda documents: {"pain.txt", "خبز.txt"} & set(documents)}
    [(_, _, also)] = shown(families, point("Brot.md", 0), **rejected)
    assert dict(also).keys() == {"パン.txt", "麵包.txt"}


def test_translations_of_a_document(families: FamiliesFile) -> None:
    store = FakeStore()
    found = list_translations(families, store, "Brot.md")  # type: ignore[arg-type]
    assert [(t.lang, t.document_id, t.shared) for t in found] == [
        ("ar", "خبز.txt", 0.6667), ("fr", "pain.txt", 1.0), ("ja", "パン.txt", 1.0), ("zh-Hant", "麵包.txt", 1.0),
    ]  # fmt: skip
    assert found[1].title == "Title of pain.txt"
    assert list_translations(families, store, "tides.txt") == []  # type: ignore[arg-type]
    with pytest.raises(QueryError, match=r"no document 'nope\.md'"):
        list_translations(families, store, "nope.md")  # type: ignore[arg-type]


def test_gaps_name_the_languages_that_are_missing(families: FamiliesFile) -> None:
    found = {tuple(gap.documents.values()): gap.missing for gap in list_gaps(families, ["de", "zh", "th"])}
    assert found == {
        ("خبز.txt", "Brot.md", "pain.txt", "パン.txt", "麵包.txt"): ("th",),
        ("चाय.txt", "ชา.txt"): ("de", "zh"),
        ("tides.txt",): ("de", "zh", "th"),
    }
    assert list_gaps(families, ["zh-Hans"])[0].missing == ("zh-Hans",)
    assert list_gaps(families)[0].missing == ("hi", "th")
    assert [len(gap.documents) for gap in list_gaps(families)] == [5, 2, 1]


def test_an_index_without_families_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "families.sqlite"
    for missing in (None, path):
        none = FamiliesFile(missing)
        assert (none.of(["a"]), none.members([1]), none.known) == ({}, {}, False)
        with pytest.raises(QueryError, match="indexer ingest"):
            list_gaps(none)
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE meta (key TEXT, value TEXT)")
        db.execute("INSERT INTO meta VALUES ('version', '0')")
    db.close()
    assert not has_families(path)
    assert FamiliesFile(path).of(["Brot.md"]) == {}


def test_a_damaged_file_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "families.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(IndexFormatError, match="`indexer ingest` on any"):
        FamiliesFile(path)
