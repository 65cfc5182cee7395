"""Topics: clusters, hierarchy and outliers with known answers; terms in every script; labels, warnings, the map."""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from search.balance import LanguageMap
from search.document_map import DocumentMap, load_map, make_map, place, write_map
from search.errors import IndexFormatError, IndexNotFoundError, QueryError, SettingsError
from search.manifest import IndexManifest
from search.records import Chunk, Point, SparseVector, Vectors
from search.text import dominant_script
from search.topics import Topics, find_topics, labels
from search.topics import find as find_module
from search.topics.clustering import OUTLIER, cluster, usual_count
from search.topics.labels import language_warning
from search.topics.terms import TextCounts, Vocabulary, telling_terms

DIMENSION = 32
NO_WORDS = SparseVector(np.zeros(0, np.uint32), np.zeros(0, np.float32))

SUBJECTS = {
    "bread": {
        "en": "Knead the dough, let the bread rise and bake it in the oven",
        "de": "Den Teig kneten, das Brot gehen lassen und im Ofen backen",
        "ja": "生地をこねてパンを焼きます。パンは窯で焼きます",
        "ar": "اعجن العجين واترك الخبز حتى يختمر ثم اخبزه في الفرن",
        "hi": "आटा गूँधें, रोटी को फूलने दें और तंदूर में सेंकें",
        "th": "นวดแป้งแล้วอบขนมปังในเตาอบ ขนมปังหอมมาก",
        "he": "ללוש את הבצק, לתת ללחם לתפוח ולאפות בתנור",
    },
    "rain": {
        "en": "Heavy rain and thunder, the forecast warns of storms",
        "de": "Starker Regen und Donner, die Vorhersage warnt vor Sturm",
        "ja": "大雨と雷に注意。天気予報は嵐を伝えています",
        "ar": "أمطار غزيرة ورعد وتحذر النشرة من عواصف",
        "hi": "भारी बारिश और गरज, पूर्वानुमान तूफ़ान की चेतावनी देता है",
        "th": "ฝนตกหนักและฟ้าร้อง พยากรณ์อากาศเตือนพายุ",
        "he": "גשם כבד ורעמים, התחזית מזהירה מפני סופות",
    },
    "chess": {
        "en": "The rook and the bishop attack the king, checkmate follows",
        "de": "Turm und Läufer greifen den König an, Schachmatt folgt",
        "ja": "将棋の王手。飛車と角で王を攻めます",
        "ar": "القلعة والفيل يهاجمان الملك ثم كش مات في الشطرنج",
        "hi": "हाथी और ऊँट राजा पर हमला करते हैं, शतरंज में मात",
        "th": "เรือและโคนโจมตีขุน หมากรุกจบด้วยรุกจน",
        "he": "הצריח והרץ תוקפים את המלך, שחמט בא אחר כך",
    },
}
FILLERS = ["red", "blue", "green", "old", "new", "small", "grand", "quick"]


def directions(number: int, *, seed: int = 0) -> Vectors:
    """So many orthonormal vectors."""
    drawn = np.random.default_rng(seed).normal(size=(DIMENSION, number))
    return np.asarray(np.linalg.qr(drawn)[0].T, np.float32)


def blobs(sizes: list[int], *, noise: float = 0.05, seed: int = 0) -> tuple[Vectors, np.ndarray]:
    """Unit vectors around orthogonal directions, shuffled, and which of them each is near."""
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    vectors = directions(len(sizes))[truth] + noise * rng.normal(size=(len(truth), DIMENSION))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), truth


def points_of(copies: int = 6, *, languages: list[str] | None = None) -> list[Point]:
    """Texts of three subjects in seven languages, a vector per subject, in an order that says nothing."""
    rng, middles = np.random.default_rng(1), directions(len(SUBJECTS))
    points = []
    for subject, (name, texts) in enumerate(SUBJECTS.items()):
        for lang in languages or list(texts):
            for copy in range(copies):
                text = f"{texts[lang]} {FILLERS[copy % len(FILLERS)]}"
                vector = middles[subject] + 0.05 * rng.normal(size=DIMENSION)
                chunk = Chunk(f"{name}-{lang}-{copy}", 0, text, lang=lang, script=dominant_script(text))
                points.append(Point(chunk, np.asarray(vector / np.linalg.norm(vector), np.float32), NO_WORDS))
    random.Random(0).shuffle(points)
    return points


def find(points: list[Point], **options: int) -> Topics:
    return find_topics(points, LanguageMap.identity(DIMENSION), **options)


def subjects_of(found: Topics, points: list[Point]) -> list[list[str]]:
    """The subjects whose chunks each topic holds; few chunks are outliers."""
    held: dict[int, set[str]] = {}
    for point in points:
        topic = found.assigned[point.chunk.id]
        if topic is not None:
            held.setdefault(topic, set()).add(point.chunk.document_id.split("-")[0])
    assert found.outliers <= 0.05 * len(points)
    return sorted(map(sorted, held.values()))


ONE_EACH = [["bread"], ["chess"], ["rain"]]


class TestClustering:
    def test_finds_the_clusters_that_there_are(self) -> None:
        vectors, truth = blobs([40, 30, 20, 10])
        clustering = cluster(vectors, count=4)
        assert [set(truth[clustering.labels == number]) for number in range(4)] == [{0}, {1}, {2}, {3}]

    def test_many_vectors_go_through_cells_and_give_the_same_clusters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("search.topics.clustering.EXACT_VECTORS", 100)
        monkeypatch.setattr("search.topics.clustering.CELLS", 60)
        vectors, truth = blobs([400, 300, 200])
        clustering = cluster(vectors, count=3)
        assert [set(truth[clustering.labels == number]) for number in range(3)] == [{0}, {1}, {2}]

    def test_chooses_the_number_itself(self) -> None:
        vectors, truth = blobs([20] * 9, noise=0.02)
        clustering = cluster(vectors)
        kept = clustering.labels != OUTLIER
        pairs = set(zip(clustering.labels[kept].tolist(), truth[kept].tolist(), strict=True))
        assert len(pairs) == len(clustering.centroids) == 9

    def test_far_vectors_are_outliers(self) -> None:
        vectors, _ = blobs([100, 100], noise=0.03)
        strange = directions(6)[4:] * np.float32(1.0)
        labels = cluster(np.concatenate([vectors, strange]), count=2).labels
        assert labels[-2:].tolist() == [OUTLIER, OUTLIER]
        assert (labels[:-2] == OUTLIER).mean() < 0.05

    def test_is_the_same_in_every_run_and_assigns_as_it_clusters(self) -> None:
        vectors, _ = blobs([50, 40, 30])
        first, second = cluster(vectors, seed=3), cluster(vectors, seed=3)
        assert np.array_equal(first.labels, second.labels)
        kept = first.labels != OUTLIER
        assert np.array_equal(first.assign(vectors)[kept], first.labels[kept])

    def test_levels_are_nested(self) -> None:
        vectors, _ = blobs([12] * 30, noise=0.02)
        clustering = cluster(vectors, count=30)
        assert clustering.levels
        finest = clustering.levels[0]
        assert 2 <= len(set(finest.tolist())) < len(clustering.centroids)
        for coarser in clustering.levels[1:]:
            assert all(len(set(coarser[finest == group].tolist())) == 1 for group in set(finest.tolist()))

    @pytest.mark.parametrize(("vectors", "count"), [(20, 4), (100, 8), (300, 13), (20_000, 77)])
    def test_usual_count(self, vectors: int, count: int) -> None:
        assert usual_count(vectors) == count

    def test_equal_vectors_are_one_topic(self) -> None:
        clustering = cluster(np.tile(directions(1), (30, 1)))
        assert clustering.labels.tolist() == [0] * 30


class TestTerms:
    @staticmethod
    def terms(own: list[str], others: list[str]) -> list[str]:
        vocabulary = Vocabulary()
        counts, total = vocabulary.count(own), TextCounts()
        total.add(counts)
        total.add(vocabulary.count(others))
        return telling_terms(counts, total, vocabulary)

    @pytest.mark.parametrize("lang", ["en", "de", "ar", "hi", "he"])
    def test_words_of_the_subject_and_none_of_the_grammar(self, lang: str) -> None:
        own = [SUBJECTS["bread"][lang]] * 4
        others = [SUBJECTS["rain"][lang], SUBJECTS["chess"][lang]] * 4
        found = self.terms(own, others)
        shared = set(SUBJECTS["rain"][lang].split()) & set(SUBJECTS["bread"][lang].split())
        assert len(found) == 5
        assert all(term in own[0] for term in found)
        assert not shared & set(found)

    @pytest.mark.parametrize(
        ("lang", "own", "others", "word"),
        [
            ("ja", ["朝はパンを焼く", "昼もパンが好き", "このパンは甘い"], ["雨が降る", "空は青い"], "パン"),
            ("zh", ["去银行取钱", "这家银行很大", "中国银行关门"], ["今天下雨", "他在下棋"], "银行"),
            ("th", ["ซื้อขนมปังร้อน", "กินขนมปังเช้า", "อบขนมปังเอง"], ["ฝนตกหนักมาก", "ลมแรงจริง"], "ขนมปัง"),
            ("ko", ["선거가 끝났다", "선거를 치른다", "선거는 내일이다"], ["비가 온다", "바람이 분다"], "선거"),
        ],
    )  # fmt: skip
    def test_characters_are_joined_to_words(self, lang: str, own: list[str], others: list[str], word: str) -> None:
        found = self.terms(own, others)
        assert word in found, found
        assert not any(term != word and term in word for term in found), "a part of the word is listed beside it"

    def test_a_character_of_grammar_begins_and_ends_no_word(self) -> None:
        own = ["去银行的大门", "这家银行的窗口", "大银行的职员", "中国银行的经理"]
        others = [f"他的{word}在桌上的左边" for word in "书笔茶碗灯伞帽鞋花猫狗鸟鱼米面油盐糖酒菜"]
        others += [f"她的{word}是新的东西" for word in "车船门窗床桌椅柜笔墨"]
        found = self.terms(own, others)
        assert "银行" in found
        assert not any(term.startswith("的") or term.endswith("的") for term in found)

    def test_forms_of_one_word_are_listed_once(self) -> None:
        found = self.terms(["election elections vote", "elections election vote"] * 2, ["rain falls here"] * 4)
        assert sorted(found) in (["election", "vote"], ["elections", "vote"])

    def test_written_as_most_texts_write_it(self) -> None:
        found = self.terms(["Café Linux", "café Linux", "cafe\u0301 Linux"], ["rain"] * 3)
        assert set(found) == {"café", "Linux"}

    def test_too_few_texts_have_no_terms(self) -> None:
        assert self.terms(["bread oven", "bread oven"], ["rain"] * 5) == []

    def test_texts_without_words(self) -> None:
        assert self.terms(["", "12 34", "🙂‍↔️ … —"], ["rain"]) == []


class TestTopics:
    def test_one_subject_is_one_topic_in_all_languages(self) -> None:
        points = points_of()
        found = find(points, count=3)
        assert len(found.topics) == 3
        assert subjects_of(found, points) == ONE_EACH
        for topic in found.topics:
            assert topic.languages.keys() == SUBJECTS["bread"].keys()
            assert topic.chunks == topic.documents == sum(topic.languages.values())
            assert topic.warning is None

    def test_labels_are_in_every_language_the_readers_first(self) -> None:
        found = find(points_of(), count=3).for_reader(["hi", "xx", "ar"])
        for topic in found.topics:
            langs = [label.lang for label in topic.labels]
            assert langs[:2] == ["hi", "ar"]
            assert sorted(langs) == sorted(SUBJECTS["bread"])
            assert topic.name == topic.labels[0].text != ""
            for label in topic.labels:
                own = SUBJECTS[label.document_id.split("-")[0]][label.lang]
                assert all(term in own for term in label.terms), (label.lang, label.terms)

    def test_the_span_of_languages_is_taken_out(self) -> None:
        span = directions(4)[3:]
        points = [
            Point(p.chunk, p.dense + (4.0 if p.chunk.lang == "ja" else -4.0) * span[0], NO_WORDS) for p in points_of()
        ]
        zero = np.zeros(DIMENSION, np.float32)
        found = find_topics(points, LanguageMap(zero, span, zero), count=3)
        assert subjects_of(found, points) == ONE_EACH
        left = find_topics(points, LanguageMap.identity(DIMENSION), count=2)
        assert any(topic.warning and "in ja" in topic.warning for topic in left.topics)
        assert "may be a language" in " ".join(left.notes)

    def test_what_is_beyond_the_sample_is_assigned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(find_module, "SAMPLE", 60)
        monkeypatch.setattr(find_module, "_BATCH", 7)
        points = points_of()
        found = find(points, count=3)
        assert found.sampled == 60
        assert sum(topic.chunks for topic in found.topics) + found.outliers == len(found.assigned) == len(points)
        assert subjects_of(found, points) == ONE_EACH
        assert "60 chunks" in found.notes[0]

    def test_parents_hold_what_their_children_hold(self) -> None:
        vectors, truth = blobs([12] * 30, noise=0.02)
        points = [
            Point(Chunk(f"d{row}", 0, f"word{truth[row]}", lang="en"), vector, NO_WORDS)
            for row, vector in enumerate(vectors)
        ]
        found = find(points, count=30)
        parents = [topic for topic in found.topics if topic.children]
        assert parents
        for parent in parents:
            children = found.children(parent)
            assert parent.chunks == sum(child.chunks for child in children)
            assert all(child.parent == parent.id for child in children)
        assert sum(root.chunks for root in found.roots) + found.outliers == len(points)

    @pytest.mark.parametrize("number", [10, 20, 60])
    def test_small_parts(self, number: int) -> None:
        found = find(points_of()[:number])
        assert 1 <= len(found.topics) <= number // 2
        assert len(found.assigned) == number

    @pytest.mark.parametrize(
        ("points", "count", "message"),
        [([], None, "nothing to find topics in"), (points_of()[:9], None, "9 chunks are too few"),
         (points_of(), 1, "2 to 500, got 1"), (points_of(), 501, "got 501")],
    )  # fmt: skip
    def test_what_cannot_be_clustered_is_said(self, points: list[Point], count: int | None, message: str) -> None:
        with pytest.raises(QueryError, match=message):
            find_topics(points, LanguageMap.identity(DIMENSION), count=count)


class TestWarning:
    whole: ClassVar = {"en": 900, "sw": 100}

    def test_a_topic_that_is_a_language(self) -> None:
        warning = language_warning({"sw": 95, "en": 5}, self.whole, documents=50)
        assert warning is not None
        assert "95% of it is in sw (expected 10%)" in warning

    @pytest.mark.parametrize(
        ("languages", "documents"),
        [({"sw": 10}, 10), ({"en": 500}, 200), ({"sw": 60, "en": 40}, 60), ({"sw": 95}, 2)],
        ids=["a subject of one language", "the language of nearly all", "mixed", "few documents"],
    )
    def test_a_topic_that_is_none(self, languages: dict[str, int], documents: int) -> None:
        assert language_warning(languages, self.whole, documents=documents) is None


class TestMap:
    @pytest.fixture
    def manifest(self) -> IndexManifest:
        return IndexManifest(
            encoder="fake", encoder_fingerprint="f", dimension=DIMENSION, map_fingerprint="m", documents=1, chunks=1,
            languages={}, created="2026-01-01T00:00:00Z", updated="2026-01-01T00:00:00Z", panlingua_version="0",
        )  # fmt: skip

    @pytest.fixture
    def points(self) -> list[Point]:
        return points_of(2)

    def made(self, points: list[Point], manifest: IndexManifest, path: Path) -> DocumentMap:
        table, _ = make_map(points, manifest, LanguageMap.identity(DIMENSION))
        write_map(table, path)
        return load_map(path, manifest)

    def test_says_of_every_chunk_where_and_what_it_is(
        self, points: list[Point], manifest: IndexManifest, tmp_path: Path
    ) -> None:
        read = self.made(points, manifest, tmp_path / "map.parquet")
        assert read.chunk_ids == [point.chunk.id for point in points]
        assert read.document_ids == [point.chunk.document_id for point in points]
        assert read.langs == [point.chunk.lang for point in points]
        assert read.xy.shape == (len(points), 2)
        assert np.abs(read.xy).max() == pytest.approx(1.0)
        assert read.is_current
        assert read.topics == find(points)
        assert list(tmp_path.iterdir()) == [tmp_path / "map.parquet"]

    def test_what_is_alike_is_near(self, points: list[Point], manifest: IndexManifest, tmp_path: Path) -> None:
        read = self.made(points, manifest, tmp_path / "map.parquet")
        subjects = np.array([name.split("-")[0] for name in read.document_ids])
        distances = np.linalg.norm(read.xy[:, None] - read.xy[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        assert (subjects[distances.argmin(axis=1)] == subjects).all()

    def test_chunks_beyond_the_sample_lie_among_their_like(
        self, manifest: IndexManifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(find_module, "SAMPLE", 40)
        points = points_of()
        read = self.made(points, manifest, tmp_path / "map.parquet")
        subjects = np.array([name.split("-")[0] for name in read.document_ids])
        middles = {name: read.xy[:40][subjects[:40] == name].mean(axis=0) for name in SUBJECTS}
        nearest = [min(middles, key=lambda name: float(np.linalg.norm(middles[name] - xy))) for xy in read.xy[40:]]
        assert nearest == subjects[40:].tolist()

    def test_an_index_that_has_changed_is_noticed(
        self, points: list[Point], manifest: IndexManifest, tmp_path: Path
    ) -> None:
        self.made(points, manifest, tmp_path / "map.parquet")
        later = manifest.model_copy(update={"updated": "2026-01-02T00:00:00Z"})
        assert not load_map(tmp_path / "map.parquet", later).is_current

    def test_no_map_and_a_damaged_one_name_the_command(self, manifest: IndexManifest, tmp_path: Path) -> None:
        with pytest.raises(IndexNotFoundError, match="indexer map"):
            load_map(tmp_path / "map.parquet", manifest)
        (tmp_path / "map.parquet").write_bytes(b"PAR1 no more")
        with pytest.raises(IndexFormatError, match="indexer map"):
            load_map(tmp_path / "map.parquet", manifest)

    def test_a_missing_package_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pacmap", None)
        with pytest.raises(SettingsError, match=r"panlingua\[topics\]"):
            place(blobs([60])[0])


def test_a_part_of_a_long_document_is_named_by_its_section_and_not_by_a_file() -> None:
    chunks = [
        Chunk("a", 0, "…", title="Handbuch", headings=("Handbuch", "Netzwerk"), source="handbuch.md"),
        Chunk("a", 1, "…", title="手冊", headings=("手冊",), source="手冊.md"),
        Chunk("b", 2, "…", title="mein text 2", source="ordner/mein_text-2.txt"),
        Chunk("c", 0, "…", title="Über Tee", source="tee.txt"),
    ]
    assert [chunk.is_named_by_file for chunk in chunks] == [False, False, True, False]
    assert list(map(labels._title, chunks)) == ["Handbuch · Netzwerk", "手冊", "", "Über Tee"]
