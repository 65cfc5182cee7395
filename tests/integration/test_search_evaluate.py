"""`search evaluate`: on judged queries, on made-up ones, and what it says when something is missing."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from indexer.build import ingest
from search import evaluate_command
from search.engine import Engine
from search.errors import EvaluationError
from search.evaluation import known_items
from search.evaluation.comparison import (
    BASELINE,
    PairRow,
    by_language_pair,
    choose_settings,
    compare,
    document_languages,
    judge,
)
from search.evaluation.known_items import make_questions, salient_part
from search.evaluation.questions import Question, read_questions, resolve
from search.records import Chunk
from search.settings import Settings, load_settings
from tests.conftest import FakeEncoder

DOCUMENTS = {
    "tea.txt": "Green tea needs water of seventy degrees and two minutes of patience before you drink it.",
    "bread.txt": "A sourdough starter needs flour and water every day before baking bread at home again.",
    "tee.txt": "Grüner Tee braucht siebzig Grad heißes Wasser und zwei Minuten Geduld, bevor man ihn trinkt.",
    "brot.txt": "Ein Sauerteig braucht jeden Tag Mehl und Wasser, bevor man zu Hause wieder Brot backen kann.",
    "onsen.txt": "温泉の入り方。次の順番を守れば気持ちよく温泉を楽しめます。体を洗ってから湯船に入ります。",
    "thai.txt": "ชาไทยใส่นมข้นหวานและน้ำแข็ง ดื่มแล้วสดชื่นในวันที่อากาศร้อนมากและเหนื่อยจากการทำงาน",
    "khubz.txt": "الخبز العربي يحتاج إلى الدقيق والماء والملح والخميرة ثم يترك ليرتاح ساعة كاملة قبل الخبز.",
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("evaluate")
    (home / "docs").mkdir()
    for name, text in DOCUMENTS.items():
        (home / "docs" / name).write_text(text, encoding="utf-8")
    rows = [json.dumps({"id": f"t{i}", "text": f"Row {i} is about the topic number{i} only."}) for i in range(3)]
    (home / "docs" / "table.jsonl").write_text("\n".join(rows), encoding="utf-8")
    settings = load_settings(home=home, index=str(home / "index"))
    ingest(home / "docs", settings, encoder=FakeEncoder())
    return settings


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = Engine(settings, FakeEncoder())
    yield engine
    engine.close()


@pytest.fixture
def translated(monkeypatch: pytest.MonkeyPatch) -> None:
    """tea.txt and tee.txt are translations of one another, and nothing else is."""
    pair = ["tea.txt", "tee.txt"]
    monkeypatch.setattr(known_items, "_translations", lambda index, document: pair if document in pair else [])


@pytest.fixture
def untranslated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is a translation, whatever the stand-in encoder makes of it."""
    monkeypatch.setattr(known_items, "_translations", lambda index, document: [])


def test_a_made_up_query_is_of_the_documents_own_words(engine: Engine) -> None:
    questions = make_questions(engine.index(), per_language=10)
    assert questions == make_questions(engine.index(), per_language=10)
    by_document = {next(iter(question.relevant)): question for question in questions}
    assert set(by_document) >= set(DOCUMENTS)
    for name, question in by_document.items():
        if name in DOCUMENTS:
            assert question.text in DOCUMENTS[name]
            assert len(question.text) < len(DOCUMENTS[name])
            assert len(question.text.split()) <= 8


def test_the_rarest_stretch_is_taken_and_no_title() -> None:
    text = "A title\nthe the the the the the the the zebra quagga the okapi the the the the the the"
    found = salient_part(Chunk("d", 0, text, "A title"), {"the": 100})
    assert "zebra quagga the okapi" in found
    assert len(found.split()) == 8
    assert salient_part(Chunk("d", 0, "A title\nof two", "A title"), {}) == ""


def test_translations_are_relevant_too(engine: Engine, translated: None) -> None:
    questions = make_questions(engine.index(), per_language=10)
    tea = next(question for question in questions if question.lang == "en" and "tea.txt" in question.relevant)
    assert set(tea.relevant) == {"tea.txt", "tee.txt"}
    results = judge(engine, [tea], {BASELINE: {}})
    languages = document_languages(engine, [tea])
    assert languages == {"tea.txt": "en", "tee.txt": "de"}
    pairs = by_language_pair(results[BASELINE], languages)
    assert [(pair.query_lang, pair.document_lang, pair.judgements) for pair in pairs] == [
        ("en", "de", 1),
        ("en", "en", 1),
    ]


def test_settings_are_compared_with_the_default(engine: Engine) -> None:
    questions = make_questions(engine.index(), per_language=10)
    rows = compare(judge(engine, questions, choose_settings(["lexical", "dense"])))
    assert [row.name for row in rows] == ["default", "lexical", "dense"]
    assert rows[0].difference is None
    lexical = rows[1]
    assert lexical.means["recall@10"] == 1.0
    assert lexical.difference is not None
    assert lexical.difference.mean == pytest.approx(
        _mean_by_language(engine, questions, "lexical") - _mean_by_language(engine, questions, None), abs=1e-9
    )
    with pytest.raises(EvaluationError, match="hybird"):
        choose_settings(["hybird"])


def _mean_by_language(engine: Engine, questions: list[Question], mode: str | None) -> float:
    judged = judge(engine, questions, {"x": {"mode": mode} if mode else {}})["x"]
    groups: dict[str, list[float]] = {}
    for one in judged:
        groups.setdefault(one.lang, []).append(one.metrics["ndcg@10"])
    return sum(sum(values) / len(values) for values in groups.values()) / len(groups)


def test_judged_queries_are_read_in_every_form(tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(
        '{"id": "q1", "text": "tea", "lang": "en", "relevant": ["tea.txt"]}\n'
        '{"text": "brot", "relevant": {"brot.txt": 2, "tee.txt": 0}}\n',
        encoding="utf-8",
    )
    assert read_questions(own) == [
        Question("q1", "tea", "en", {"tea.txt": 1.0}),
        Question("2", "brot", "", {"brot.txt": 2.0}),
    ]
    beir = tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    with gzip.open(beir / "queries.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write('{"_id": "q1", "text": "tea"}\n')
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\tt1\t1\nq1\tt2\t0\n", encoding="utf-8")
    assert read_questions(beir) == [Question("q1", "tea", "", {"t1": 1.0})]
    found = resolve(read_questions(beir), ["table.jsonl#t1", "docs/tea.txt"])
    assert found.questions == [Question("q1", "tea", "", {"table.jsonl#t1": 1.0})]
    lost = resolve(
        [Question("q", "x", "", {"nope": 1.0, "tea.txt": 1.0}), Question("r", "y", "", {"no": 1.0})], ["a/tea.txt"]
    )
    assert [question.relevant for question in lost.questions] == [{"a/tea.txt": 1.0}]
    assert (lost.unjudged, lost.missing) == (1, ("nope", "no"))


@pytest.mark.parametrize(
    ("content", "message"),
    [('{"text": "x"}', "relevant"), ('{"text": "x", "relevant": 3}', "list"), ("{", "JSON"), ('{"q": 1}', "text")],
)
def test_broken_judgements_are_explained(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(EvaluationError, match=message):
        read_questions(path)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> typer.Typer:
    monkeypatch.setattr(evaluate_command, "Engine", lambda chosen: Engine(settings, FakeEncoder()))
    app = typer.Typer()
    app.command()(evaluate_command.evaluate)
    return app


def test_the_command_shows_tables(command: typer.Typer, untranslated: None) -> None:
    result = CliRunner().invoke(command, ["--per-language", "5", "--setting", "lexical", "--setting", "dense"])
    assert result.exit_code == 0, result.output
    assert "10 questions" in result.output
    assert "recall@10 in the language of the query: ar 1.00" in result.output
    assert "no translations are known" in result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert next(line for line in lines if line[:1] == ["lexical"])[1] == "1.000"


def test_the_command_gives_rows(command: typer.Typer, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(
        '{"id": "q1", "text": "patience water", "lang": "en", "relevant": ["tea.txt", "tee.txt", "gone.txt"]}\n'
        '{"id": "q2", "text": "number1", "lang": "en", "relevant": ["t1"]}\n'
        '{"id": "q3", "text": "nothing", "lang": "en", "relevant": ["gone.txt"]}\n',
        encoding="utf-8",
    )
    result = CliRunner().invoke(command, [str(own), "--setting", "lexical", "--json"])
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    assert {row["name"] for row in rows if row["row"] == "setting"} == {"default", "lexical"}
    lexical = next(row for row in rows if row["row"] == "query" and row["setting"] == "lexical" and row["id"] == "q1")
    assert lexical["found"] == {"tea.txt": True, "tee.txt": False}
    assert "1 question left out" in result.output
    assert {row["document_lang"] for row in rows if row["row"] == "languages"} == {"en", "de"}


def test_the_command_says_what_is_missing(command: typer.Typer, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"id": "q", "text": "x", "relevant": ["gone.txt"]}\n', encoding="utf-8")
    for arguments, message in (
        ([str(own)], "holds none of the relevant documents"),
        (["--qrels", str(own)], "--qrels needs the queries"),
        (["--setting", "hybird"], "unknown setting"),
    ):
        result = CliRunner().invoke(command, arguments)
        assert isinstance(result.exception, EvaluationError)
        assert message in str(result.exception)


def test_badly_served_pairs_stand_out() -> None:
    pairs = [
        PairRow("en", "en", 20, 0.9),
        PairRow("en", "th", 20, 0.4),
        PairRow("en", "ka", 3, 0.0),
        PairRow("de", "de", 20, 0.9),
    ]
    assert [pair.document_lang for pair in evaluate_command.badly_served(pairs)] == ["th"]
    assert evaluate_command.badly_served([]) == []
