"""The query syntax: what is read from what is typed, and what an index makes of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.engine import Engine
from search.interpretation import MAX_QUERY_CHARS, interpret, passages_holding
from search.query_syntax import Kind, dates_of, parse_query
from search.records import Filter, Match, Range
from search.settings import Settings, load_settings

DOCUMENTS = {
    "handbook/tea.md": "# Green tea\n\nPour hot water over the green tea\nand wait. State-of-the-art kettles help.",
    "handbook/kaffee.txt": "Die Straße zum Café: Kaffee wird mit heißem Wasser aufgegossen und dann gefiltert.",
    "notes/onsen.txt": "温泉の入り方。次の順番を守れば気持ちよく温\n泉を楽しめます。タオルは湯船に入れません。",
    "notes/chai.txt": "मसाला चाय बनाने के लिए पानी में अदरक और इलायची उबालें, फिर दूध डालें।",
    "notes/khubz.txt": "الخبز العربي يحتاج إلى الدقيق والماء والملح والخميرة ثم يترك ليرتاح ساعة.",
    "notes/thai.txt": "ชาไทยใส่นมข้นหวานและน้ำแข็ง ดื่มแล้วสดชื่นในวันที่อากาศร้อน",
    "notes/shalom.txt": 'צה"ל הודיע כי התה הירוק מוגש חם בכל הבסיסים בארץ ובחדרי האוכל.',
}


def kinds(query: str) -> list[tuple[str, str]]:
    return [(str(part.kind), part.text) for part in parse_query(query)]


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ('-draft "Grüner Tee" wie', [("without", "draft"), ("phrase", "Grüner Tee"), ("words", "wie")]),
        ("「温泉」の入り方", [("phrase", "温泉"), ("words", "の入り方")]),
        ("„foo” “a b” «c d»", [("phrase", "foo"), ("phrase", "a b"), ("phrase", "c d")]),
        ('-"zwei Worte" -हिन्दी −ไทย', [("without", "zwei Worte"), ("without", "हिन्दी"), ("without", "ไทย")]),
        ('צה"ל שלום', [("words", 'צה"ל שלום')]),
        ('"never closed', [("words", '"never closed')]),
        ("state-of-the-art a - b -5 tar -x --long", [("words", "state-of-the-art a - b -5 tar -x --long")]),
        ("http://a.b 12:30 C++ lang: de", [("words", "http://a.b 12:30 C++ lang: de")]),
        ("🍜 -👩‍👩‍👧", [("words", "🍜"), ("without", "👩‍👩‍👧")]),
        ("!!! … ??", []),
        ("", []),
    ],
)
def test_what_is_typed_is_cut_into_parts(query: str, parts: list[tuple[str, str]]) -> None:
    assert kinds(query) == parts


@pytest.mark.parametrize("query", ["lang:de", "lang：de", 'lang:"de"', "lang:「de」"])
def test_fields_take_colons_and_quotes_of_any_script(query: str) -> None:
    (part,) = parse_query(query)
    assert (part.kind, part.field, part.text, part.negate) == (Kind.FIELD, "lang", "de", False)
    assert parse_query("-" + query)[0].negate


@given(st.text(max_size=200))
def test_reading_never_fails_and_loses_no_letter(query: str) -> None:
    parts = parse_query(query)
    kept = "".join(part.typed for part in parts)
    letters = [c for c in query if c.isalpha()]
    assert [c for c in kept if c.isalpha()] == letters


def test_many_unclosed_marks_are_read_in_time() -> None:
    assert kinds("“" * 20_000 + "a")[-1][1].endswith("a")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("year", "2020", ("2020-01-01", "2020-12-31")),
        ("year", "2018..2020", ("2018-01-01", "2020-12-31")),
        ("year", "٢٠٢٠", ("2020-01-01", "2020-12-31")),
        ("after", "2020-02", ("2020-02-01", None)),
        ("before", "2020-03-01", (None, "2020-02-29")),
        ("until", "2020/02", (None, "2020-02-29")),
        ("date", "2020.5.1", ("2020-05-01", "2020-05-01")),
        ("year", "2020..2018", None),
        ("after", "2021-02-29", None),
        ("before", "0001", None),
        ("after", "gestern", None),
    ],
)
def test_dates(field: str, value: str, expected: tuple[str | None, str | None] | None) -> None:
    assert dates_of(field, value) == (None if expected is None else Range("date", *expected))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("syntax")
    for name, text in DOCUMENTS.items():
        (home / "docs" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "docs" / name).write_text(text, encoding="utf-8")
    records = [
        '{"id": "a", "text": "Ein Bericht über den Zug nach Wien und zurück.", "author": "Anna", "date": "2019-05-01"}',
        '{"id": "b", "text": "Noch ein Bericht über den Zug nach Graz.", "author": "Bernd", "date": "2021-07-09"}',
    ]
    (home / "docs" / "reports.jsonl").write_text("\n".join(records), encoding="utf-8")
    return load_settings(home=home, index=str(home / "index"))


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[Engine]:
    from indexer.build import ingest
    from tests.conftest import FakeEncoder

    encoder = FakeEncoder()
    ingest(settings.home / "docs", settings, encoder=encoder)
    engine = Engine(settings, encoder)
    yield engine
    engine.close()


def found(engine: Engine, query: str) -> set[str]:
    return {hit.document_id for hit in engine.search(query, k=20, fold=False).hits}


def test_conditions_hold(engine: Engine) -> None:
    assert found(engine, "tea source:handbook") == {"handbook/tea.md", "handbook/kaffee.txt"}
    assert found(engine, "source:KAFFEE wasser") == {"handbook/kaffee.txt"}
    assert found(engine, "bericht author:anna") == {"reports.jsonl#a"}
    assert found(engine, "bericht before:2020") == {"reports.jsonl#a"}
    assert found(engine, "bericht year:2021") == {"reports.jsonl#b"}
    assert found(engine, "title:green") == {"handbook/tea.md"}
    assert found(engine, "lang:ja lang:hi") == {"notes/onsen.txt", "notes/chai.txt"}
    assert found(engine, "lang:ja,hi") == {"notes/onsen.txt", "notes/chai.txt"}
    assert "notes/onsen.txt" not in found(engine, "-lang:ja tea")
    assert found(engine, "source:handbook source:chai") == {"handbook/tea.md", "handbook/kaffee.txt", "notes/chai.txt"}


@pytest.mark.parametrize(
    ("phrase", "document"),
    [
        ("green tea and wait", "handbook/tea.md"),
        ("state of the art", "handbook/tea.md"),
        ("STRASSE zum cafe", "handbook/kaffee.txt"),
        ("気持ちよく温泉を", "notes/onsen.txt"),
        ("अदरक और इलायची", "notes/chai.txt"),
        ("الدقيق والماء", "notes/khubz.txt"),
        ("ใส่นมข้นหวาน", "notes/thai.txt"),
        ("התה הירוק", "notes/shalom.txt"),
    ],
)
def test_phrases_in_every_script(engine: Engine, phrase: str, document: str) -> None:
    result = engine.search(f'"{phrase}"')
    assert [hit.document_id for hit in result.hits] == [document]
    assert result.interpretation.conditions == (f'"{phrase}"',)


def test_a_phrase_needs_its_words_in_order(engine: Engine) -> None:
    store = engine.index().store
    assert not passages_holding(store, "tea green")
    assert not passages_holding(store, "een tea")
    assert not passages_holding(store, "方り入")
    assert len(passages_holding(store, "green", in_title=True)) == 1
    result = engine.search('"tea green"')
    assert result.hits
    assert "no document holds" in result.notes[0]


@pytest.mark.parametrize(
    ("word", "document"),
    [
        ("kettles", "handbook/tea.md"),
        ("タオル", "notes/onsen.txt"),
        ("दूध", "notes/chai.txt"),
        ("ชาไทย", "notes/thai.txt"),
        ('"heißem Wasser"', "handbook/kaffee.txt"),
        ("والملح", "notes/khubz.txt"),
    ],
)
def test_excluded_words_in_every_script(engine: Engine, word: str, document: str) -> None:
    everything = found(engine, "tea")
    assert document in everything
    assert found(engine, f"tea -{word}") == everything - {document}
    assert document not in found(engine, f"-{word}")


def test_conditions_alone_list_documents_newest_first(engine: Engine) -> None:
    result = engine.search("bericht source:reports")
    assert len(result.hits) == 2
    listed = engine.search("source:reports.jsonl")
    assert [hit.document_id for hit in listed.hits] == ["reports.jsonl#b", "reports.jsonl#a"]
    assert [hit.rank for hit in engine.search("source:reports.jsonl", k=1, offset=1).hits] == [2]
    assert listed.facets["year"] == [("2021", 1), ("2019", 1)]


def test_what_makes_no_sense_is_words(engine: Engine) -> None:
    for query in ("lang:klingon tea", "after:gestern tea", "colour:red tea"):
        asked = interpret(query, engine.index())
        assert asked.filter is None
        assert asked.text == query
    assert "klingon" in interpret("lang:klingon tea", engine.index()).notes[0]
    assert interpret("lang:fi tea", engine.index()).notes == ("nothing in the index matches 'lang:fi'",)
    assert interpret("-lang:fi tea", engine.index()).notes == ()
    reversed_dates = "no date is both from 2023-01-01 on and until 2019-12-31"
    assert interpret("after:2023 before:2020 tea", engine.index()).notes == (reversed_dates,)
    since = Filter((Range("date", "2023-01-01T00:00:00Z", None),))
    assert interpret("before:2020", engine.index(), since).notes == (reversed_dates,)
    assert interpret("after:2020 before:2023 tea", engine.index()).notes == ()
    nothing = engine.search("source:nowhere tea")
    assert nothing.hits == []
    assert "source:nowhere" in nothing.notes[0]


def test_the_callers_filter_holds_as_well(engine: Engine) -> None:
    only = Filter((Match("lang", ("de",)),))
    result = engine.search('"Bericht über" author:Anna', filter=only)
    assert [hit.document_id for hit in result.hits] == ["reports.jsonl#a"]
    assert engine.search('"Bericht über" author:Anna', filter=Filter((Match("lang", ("ja",)),))).hits == []


def test_bad_queries_are_answered(engine: Engine) -> None:
    long = engine.search("tea " * 25_000)
    assert "100,000 characters" in long.notes[0]
    assert len(long.interpretation.text) <= MAX_QUERY_CHARS
    assert long.hits
    empty = engine.search("?!… 。")
    assert empty.hits == []
    assert "no word" in empty.notes[0]
    assert engine.search("🍜").hits
    assert engine.search("tea чай 茶 شاي chai\u202e\u200f\x00").hits
