"""Translations from ingest to search: found, folded, shown, listed, and kept in step as documents come and go."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from typer.testing import CliRunner

from indexer import build, translations
from search import cli
from search.engine import Engine
from search.errors import IndexFormatError, QueryError
from search.fold import FAMILIES, FamiliesFile
from search.index import IndexFolder
from search.records import Filter, Match, Vectors
from search.results import Mode
from search.settings import Settings, load_settings

LANGUAGES = ("de", "en", "ja", "ar", "hi", "th", "he")
SUBJECTS = {
    "bread": (
        "Sauerteig braucht Zeit, Mehl und Wasser, dann geht der Teig langsam auf.",
        "Sourdough needs time, flour and water, then the dough rises slowly.",
        "パン種には時間と小麦粉と水が必要で、生地はゆっくりと膨らみます。",
        "يحتاج العجين المخمر إلى الوقت والدقيق والماء ثم يرتفع العجين ببطء.",
        "खमीर वाले आटे को समय, मैदा और पानी चाहिए, फिर आटा धीरे-धीरे फूलता है।",
        "แป้งเปรี้ยวต้องใช้เวลา แป้ง และน้ำ แล้วแป้งจะค่อยๆ ฟูขึ้น",
        "בצק מחמצת צריך זמן, קמח ומים, ואז הבצק תופח לאט.",
    ),
    "bicycle": (
        "Um einen Fahrradreifen zu flicken, muss man zuerst den Mantel abnehmen und das Loch suchen.",
        "To mend a bicycle tyre you first have to take off the cover and look for the hole.",
        "自転車のタイヤを直すには、まずカバーを外して穴を探さなければなりません。",
        "لإصلاح إطار الدراجة عليك أولا أن تنزع الغطاء وتبحث عن الثقب.",
        "साइकिल का टायर ठीक करने के लिए पहले ऊपर का टायर निकालकर छेद ढूँढना पड़ता है।",
        "การปะยางจักรยานต้องถอดยางนอกออกก่อนแล้วหารูรั่ว",
        "כדי לתקן צמיג של אופניים צריך קודם להסיר את הכיסוי ולחפש את החור.",
    ),
    "tea": (
        "Grüner Tee schmeckt bitter, wenn das Wasser kocht; achtzig Grad sind besser.",
        "Green tea tastes bitter when the water boils; eighty degrees are better.",
        "緑茶は沸騰したお湯では苦くなります。八十度のほうがよいでしょう。",
        "يصبح طعم الشاي الأخضر مرا عندما يغلي الماء والأفضل ثمانون درجة.",
        "पानी उबलता हो तो हरी चाय कड़वी लगती है, अस्सी डिग्री बेहतर है।",
        "ชาเขียวจะขมถ้าน้ำเดือด แปดสิบองศาจะดีกว่า",
        "תה ירוק נעשה מר כשהמים רותחים, שמונים מעלות עדיפות.",
    ),
    "moon": (
        "Der Mond zieht am Meer, deshalb steigt das Wasser zweimal am Tag.",
        "The moon pulls on the sea, and so the water rises twice a day.",
        "月が海を引っ張るので、水は一日に二回上がります。",
        "يجذب القمر البحر ولذلك يرتفع الماء مرتين في اليوم.",
        "चाँद समुद्र को खींचता है, इसलिए पानी दिन में दो बार चढ़ता है।",
        "ดวงจันทร์ดึงน้ำทะเล น้ำจึงขึ้นวันละสองครั้ง",
        "הירח מושך את הים, ולכן המים עולים פעמיים ביום.",
    ),
}
PHRASES = {phrase: name for name, phrases in SUBJECTS.items() for phrase in phrases}


class SubjectEncoder:
    """Knows what the phrases of SUBJECTS say: a text is the mean of its subjects, and a little of its own letters."""

    name, fingerprint, dimension, max_tokens, folder = "subjects", "subjects-1", 64, 512, None
    address = "subjects"

    def __init__(self) -> None:
        self.tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
        self.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\w{1,6}"), "isolated")
        self.encoded = 0

    def encode_documents(self, texts: list[str]) -> Vectors:
        self.encoded += len(texts)
        return self.encode_queries(texts)

    def encode_queries(self, texts: list[str]) -> Vectors:
        return np.stack([self._vector(text) for text in texts])

    def _vector(self, text: str) -> Vectors:
        names = [name for phrase, name in PHRASES.items() if phrase in text] or text.split()
        vector = 0.2 * _noise(text)
        for name in names:
            vector = vector + _noise(name)
        return np.asarray(vector / np.linalg.norm(vector), np.float32)


def _noise(name: str) -> Vectors:
    vector = np.random.default_rng(zlib.crc32(name.encode())).normal(size=64)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


@pytest.fixture
def encoder() -> SubjectEncoder:
    return SubjectEncoder()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return make_corpus(tmp_path / "corpus")


def make_corpus(root: Path) -> Path:
    """Every subject in every language, named so that no name tells what belongs together; tea lacks Thai and Hebrew."""
    root.mkdir()
    for name, phrases in SUBJECTS.items():
        for lang, phrase in zip(LANGUAGES, phrases, strict=True):
            if (name, lang) not in {("tea", "th"), ("tea", "he")}:
                write(root, name, lang, phrase)
    return root


def write(root: Path, name: str, lang: str, text: str) -> None:
    (root / document(name, lang)).write_text(text, encoding="utf-8")


def document(name: str, lang: str) -> str:
    return f"{zlib.crc32(f'{name} {lang}'.encode()):08x}.txt"


SUBJECT_OF = {document(name, lang): name for name in SUBJECTS for lang in LANGUAGES}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", index=str(tmp_path / "index"))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Over the whole corpus; for tests that change nothing."""
    root = tmp_path_factory.mktemp("shared")
    settings = load_settings(home=root / "home", index=str(root / "index"))
    ingest(make_corpus(root / "corpus"), settings, SubjectEncoder())
    opened = Engine(settings, SubjectEncoder())  # type: ignore[arg-type]
    yield opened
    opened.close()


def ingest(corpus: Path, settings: Settings, encoder: SubjectEncoder, **options: object) -> None:
    build.ingest(corpus, settings, encoder=encoder, **options)  # type: ignore[arg-type]


def groups(settings: Settings) -> set[frozenset[str]]:
    """The families of the current generation."""
    families = FamiliesFile(IndexFolder(settings.index_folder).current().path / FAMILIES)
    found = {frozenset(group.values()) for group in families.iter_groups()}
    families.close()
    return found


def expected(*, without: frozenset[tuple[str, str]] = frozenset()) -> set[frozenset[str]]:
    gone = without | {("tea", "th"), ("tea", "he")}
    return {frozenset(document(name, lang) for lang in LANGUAGES if (name, lang) not in gone) for name in SUBJECTS} - {
        frozenset()
    }


def test_one_hit_stands_for_every_language(engine: Engine) -> None:
    assert groups(engine.settings) == expected()
    result = engine.search(SUBJECTS["bread"][0], k=10)
    assert SUBJECT_OF[result.hits[0].document_id] == "bread"
    assert sorted(SUBJECT_OF[hit.document_id] for hit in result.hits) == sorted(SUBJECTS)
    first = result.hits[0]
    assert (first.chunk.lang, {chunk.lang for chunk in first.also_in}) == ("de", set(LANGUAGES) - {"de"})
    assert len({chunk.document_id for chunk in first.also_in}) == len(LANGUAGES) - 1
    assert [item["lang"] for item in first.as_json()["also_in"]] == [chunk.lang for chunk in first.also_in]
    apart = engine.search(SUBJECTS["bread"][0], k=50, fold=False)
    assert len(apart.hits) == len(SUBJECTS) * len(LANGUAGES) - 2
    assert not any(hit.also_in for hit in apart.hits)


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_query_s_language_is_shown_first(engine: Engine, lang: str, mode: Mode) -> None:
    hit = engine.search(SUBJECTS["moon"][LANGUAGES.index(lang)], k=1, mode=mode).hits[0]
    assert (hit.document_id, hit.chunk.lang) == (document("moon", lang), lang)


def test_the_reader_s_languages_decide_in_every_mode(engine: Engine) -> None:
    for mode in Mode:
        hits = engine.search(SUBJECTS["tea"][0], k=1, mode=mode, reader_languages=["th", "ja", "en"]).hits
        assert [hit.document_id for hit in hits] == [document("tea", "ja")]
        assert document("tea", "de") in {chunk.document_id for chunk in hits[0].also_in}


def test_pages_hold_every_family_once(engine: Engine) -> None:
    whole = [hit.document_id for hit in engine.search(SUBJECTS["tea"][4], k=4).hits]
    pages = [hit.document_id for at in range(4) for hit in engine.search(SUBJECTS["tea"][4], k=1, offset=at).hits]
    assert pages == whole
    assert len({SUBJECT_OF[name] for name in whole}) == 4
    assert engine.search(SUBJECTS["tea"][4], k=1, offset=4).hits == []
    ranks = [hit.rank for hit in engine.search(SUBJECTS["tea"][4], k=2, offset=2).hits]
    assert ranks == [3, 4]


def test_as_many_families_as_asked_for_although_each_fills_many_places(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.retrieval.CANDIDATES", 2)
    assert len(engine.search(SUBJECTS["bread"][0], k=3).hits) == 3


def test_a_filter_holds_for_what_is_shown_besides(engine: Engine) -> None:
    only = Filter((Match("lang", ("ja", "he")),))
    for hit in engine.search(SUBJECTS["bread"][0], k=10, filter=only).hits:
        assert {hit.chunk.lang, *(chunk.lang for chunk in hit.also_in)} <= {"ja", "he"}


def test_translations_and_gaps(engine: Engine) -> None:
    found = engine.translations(document("tea", "ja"))
    assert {t.lang: t.document_id for t in found} == {lang: document("tea", lang) for lang in ("de", "en", "ar", "hi")}
    assert all(t.shared == 1.0 for t in found)
    assert [gap.missing for gap in engine.gaps()] == [("he", "th")]
    assert {gap.missing for gap in engine.gaps(["en", "fr"])} == {("fr",)}
    with pytest.raises(QueryError, match="unknown language 'xq'"):
        engine.gaps(["xq"])
    with pytest.raises(QueryError, match="no document"):
        engine.translations("nope")


def test_families_follow_documents_that_come_change_and_go(
    corpus: Path, settings: Settings, encoder: SubjectEncoder, tmp_path: Path
) -> None:
    (corpus / document("bread", "th")).unlink()
    ingest(corpus, settings, encoder)
    gone = frozenset({("bread", "th")})
    assert groups(settings) == expected(without=gone)
    write(corpus, "bread", "th", SUBJECTS["bread"][5])
    ingest(corpus, settings, encoder)
    assert groups(settings) == expected()
    (corpus / document("moon", "ja")).write_text(
        "猫は窓辺で静かに眠っていて、犬は庭で骨を埋めています。", encoding="utf-8"
    )
    ingest(corpus, settings, encoder)
    build.remove(settings, [document("tea", "de"), document("moon", "en")])
    changed = groups(settings)
    assert frozenset({document("moon", "ja")}) in changed
    assert not any({document("tea", "de"), document("moon", "en")} & group for group in changed)
    fresh = load_settings(home=tmp_path / "home", index=str(tmp_path / "fresh"))
    for name in (document("tea", "de"), document("moon", "en")):
        (corpus / name).unlink()
    ingest(corpus, fresh, encoder)
    assert groups(fresh) == changed


def test_what_did_not_change_is_not_read_again(
    corpus: Path, settings: Settings, encoder: SubjectEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(corpus, settings, encoder)
    read: list[str] = []
    original = translations._ChunkVectors.read

    def watched(self: translations._ChunkVectors, names: list[str]) -> Iterator[object]:
        read.extend(names)
        return original(self, names)

    monkeypatch.setattr(translations._ChunkVectors, "read", watched)
    (corpus / "alone.txt").write_text("Die Katze schläft am Fenster, der Hund vergräbt Knochen.", encoding="utf-8")
    ingest(corpus, settings, encoder)
    assert set(read) == {"alone.txt"}
    assert groups(settings) == expected() | {frozenset({"alone.txt"})}


def test_the_store_s_search_finds_the_same_families(
    corpus: Path, settings: Settings, encoder: SubjectEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translations, "EXACT_DOCUMENTS", 3)
    monkeypatch.setattr(translations, "PAIRS_PER_SEARCH", 0)
    monkeypatch.setattr(translations, "nearest_in_blocks", lambda *arguments: pytest.fail("compares all with all"))
    held = [corpus / document(name, lang) for name, lang in (("bread", "he"), ("tea", "ar"), ("moon", "de"))]
    texts = [path.read_text(encoding="utf-8") for path in held]
    for path in held:
        path.unlink()
    ingest(corpus, settings, encoder)
    for path, text in zip(held, texts, strict=True):
        path.write_text(text, encoding="utf-8")
    ingest(corpus, settings, encoder)
    assert groups(settings) == expected()
    build.remove(settings, [document("tea", "hi")])
    assert groups(settings) == expected(without=frozenset({("tea", "hi")}))


def test_families_damaged_in_the_middle_are_found_anew(
    corpus: Path, settings: Settings, encoder: SubjectEncoder
) -> None:
    ingest(corpus, settings, encoder)
    path = IndexFolder(settings.index_folder).current().path / FAMILIES
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\x5a" * (len(data) - 8192) + data[-4096:])
    with pytest.raises(IndexFormatError, match="translations"):
        Engine(settings, encoder).search(SUBJECTS["bread"][0], k=5)  # type: ignore[arg-type]
    (corpus / "alone.txt").write_text("Die Katze schläft am Fenster, der Hund vergräbt Knochen.", encoding="utf-8")
    ingest(corpus, settings, encoder)
    assert groups(settings) == expected() | {frozenset({"alone.txt"})}


def test_an_index_of_before_is_searched_and_gets_its_families_from_the_next_ingest(
    corpus: Path, settings: Settings, encoder: SubjectEncoder
) -> None:
    ingest(corpus, settings, encoder)
    (IndexFolder(settings.index_folder).current().path / FAMILIES).unlink()
    engine = Engine(settings, encoder)  # type: ignore[arg-type]
    hits = engine.search(SUBJECTS["bread"][0], k=50).hits
    assert len(hits) == len(SUBJECTS) * len(LANGUAGES) - 2
    with pytest.raises(QueryError, match="indexer ingest"):
        engine.translations(document("bread", "de"))
    encoded = encoder.encoded
    ingest(corpus, settings, encoder)
    assert encoder.encoded == encoded
    assert len(engine.search(SUBJECTS["bread"][0], k=50).hits) == len(SUBJECTS)
    engine.close()


def test_damaged_families_are_named_and_mended(corpus: Path, settings: Settings, encoder: SubjectEncoder) -> None:
    ingest(corpus, settings, encoder)
    path = IndexFolder(settings.index_folder).current().path / FAMILIES
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(IndexFormatError, match="indexer ingest"):
        Engine(settings, encoder).index()  # type: ignore[arg-type]
    ingest(corpus, settings, encoder)
    assert groups(settings) == expected()


def test_a_kill_while_translations_are_sought_loses_nothing(
    corpus: Path, settings: Settings, encoder: SubjectEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(corpus, settings, encoder)
    (corpus / document("bread", "th")).unlink()
    with monkeypatch.context() as patch:
        patch.setattr(translations, "unite", lambda pairs, languages: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ingest(corpus, settings, encoder)
    assert groups(settings) == expected()
    ingest(corpus, settings, encoder)
    assert groups(settings) == expected(without=frozenset({("bread", "th")}))
    assert not list(IndexFolder(settings.index_folder).current().path.glob("*.new"))


def test_the_commands(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    run, index = CliRunner(), ["--index", str(engine.settings.index_folder)]
    said = run.invoke(cli.app, ["translations", document("tea", "ja"), *index])
    assert [line.split()[:2] for line in said.stdout.splitlines()] == [
        [lang, document("tea", lang)] for lang in ("ar", "de", "en", "hi")
    ]
    rows = run.invoke(cli.app, ["translations", document("tea", "ja"), "--json", *index]).stdout.splitlines()
    assert [json.loads(row)["lang"] for row in rows] == ["ar", "de", "en", "hi"]
    gaps = run.invoke(cli.app, ["gaps", *index])
    assert gaps.stdout.splitlines()[0].endswith("in ar, de, en, hi, ja; not in he, th")
    rows = run.invoke(cli.app, ["gaps", "--languages", "ja, he", "--json", *index]).stdout.splitlines()
    assert [json.loads(row)["missing"] for row in rows] == [["he"]]
    monkeypatch.setattr(Engine, "encoder", lambda *_: SubjectEncoder())
    lines = run.invoke(cli.app, ["query", SUBJECTS["tea"][0], "-k", "1", "--reader", "hi", *index]).stdout.splitlines()
    assert any(line.startswith("1. [hi]") and line.endswith(f"({document('tea', 'hi')})") for line in lines)
    assert {"de", "en", "ja", "ar"} == set(lines[-1].removeprefix("    also in ").split(", "))
    apart = run.invoke(cli.app, ["query", SUBJECTS["tea"][0], "-k", "20", "--no-fold", "--json", *index]).stdout
    assert len(apart.splitlines()) == 20
