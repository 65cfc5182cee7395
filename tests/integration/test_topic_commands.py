"""From files to topics and the map, by the engine and by the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from indexer import build
from indexer.cli import app as indexer_app
from indexer.map_command import refresh_map, update_map
from search.cli import app as search_app
from search.engine import Engine
from search.errors import IndexNotFoundError, QueryError
from search.records import Filter, Match
from search.settings import Settings, load_settings
from tests.conftest import FakeEncoder

SENTENCES = {
    "bread": {
        "en": "Knead the dough with flour and yeast, then bake the bread in a hot oven until the crust is brown.",
        "de": "Den Teig mit Mehl und Hefe kneten, dann das Brot im heißen Ofen backen, bis die Kruste braun ist.",
        "ja": "小麦粉と酵母で生地をこねて、熱い窯でパンを焼き色がつくまで焼きます。",
        "ar": "اعجن العجين بالدقيق والخميرة ثم اخبز الخبز في فرن ساخن حتى تحمر القشرة.",
        "hi": "आटे में खमीर मिलाकर गूँधें, फिर रोटी को गरम तंदूर में भूरा होने तक सेंकें।",
        "th": "นวดแป้งกับยีสต์แล้วอบขนมปังในเตาร้อนจนเปลือกเป็นสีน้ำตาล",
    },
    "storm": {
        "en": "The weather forecast warns of thunder, heavy rain and strong wind along the coast tonight.",
        "de": "Die Wettervorhersage warnt vor Donner, starkem Regen und Sturm an der Küste in dieser Nacht.",
        "ja": "天気予報は今夜の海岸で雷と大雨と強い風に注意するよう伝えています。",
        "ar": "تحذر نشرة الطقس من رعد وأمطار غزيرة ورياح قوية على الساحل هذه الليلة.",
        "hi": "मौसम विभाग ने आज रात तट पर गरज, भारी बारिश और तेज़ हवा की चेतावनी दी है।",
        "th": "พยากรณ์อากาศเตือนว่าคืนนี้จะมีฟ้าร้อง ฝนตกหนัก และลมแรงตามชายฝั่ง",
    },
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    for subject, texts in SENTENCES.items():
        for lang, text in texts.items():
            for copy in range(3):
                path = root / lang / f"{subject}{copy}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{text} {'!' * (copy + 1)}", encoding="utf-8")
    return root


@pytest.fixture
def settings(tmp_path: Path, corpus: Path, fake_encoder: FakeEncoder) -> Settings:
    made = load_settings(home=tmp_path / "home", index=str(tmp_path / "index"))
    build.ingest(corpus, made, encoder=fake_encoder)
    return made


@pytest.fixture
def engine(settings: Settings, fake_encoder: FakeEncoder) -> Iterator[Engine]:
    engine = Engine(settings, fake_encoder)
    yield engine
    engine.close()


def command(app: object, *arguments: str) -> list[dict[str, object]]:
    result = CliRunner().invoke(app, [*arguments, "--json"])  # type: ignore[arg-type]
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_the_whole_index_and_a_part_of_it(engine: Engine) -> None:
    whole = engine.topics()
    assert len(whole.assigned) == 36
    assert sum(topic.chunks for topic in whole.roots) + whole.outliers == 36
    part = engine.topics(filter=Filter((Match("lang", ("ar", "hi", "th", "ja")),)), reader_languages=["th"])
    assert len(part.assigned) == 24
    assert set(part.languages) == {"ar", "hi", "th", "ja"}
    assert all(topic.labels[0].lang == "th" for topic in part.topics if "th" in topic.languages)


def test_what_a_query_finds(engine: Engine) -> None:
    found = engine.topics(query="rain and thunder lang:en,de", count=2)
    assert set(found.languages) == {"en", "de"}
    assert len(found.topics) == 2
    without = engine.topics(query="rain -flour", count=2)
    assert not any(label.passage.startswith("Knead") for topic in without.topics for label in topic.labels)


def test_what_cannot_be_answered_is_said(engine: Engine) -> None:
    with pytest.raises(QueryError, match="nothing to find topics in"):
        engine.topics(filter=Filter((Match("source", ("nowhere.txt",)),)))
    with pytest.raises(QueryError, match="6 chunks are too few"):
        engine.topics(filter=Filter((Match("lang", ("ja",)),)))
    with pytest.raises(IndexNotFoundError, match="indexer map"):
        engine.map()


def test_the_map_is_read_noticed_as_outdated_and_made_anew(
    settings: Settings, engine: Engine, corpus: Path, fake_encoder: FakeEncoder
) -> None:
    assert not refresh_map(settings, wanted=None), "an ingest makes no map where nobody asked for one"
    chunks, topics = update_map(settings)
    drawn = engine.map()
    assert len(drawn) == chunks == 36
    assert topics == sum(not topic.children for topic in drawn.topics.topics)
    assert drawn.is_current
    assert engine.topics() == drawn.topics
    documents = dict(zip(drawn.document_ids, drawn.langs, strict=True))
    assert documents["ja/bread0.txt"] == "ja"

    (corpus / "en" / "bread0.txt").unlink()
    build.ingest(corpus, settings, encoder=fake_encoder)
    assert not engine.map().is_current
    assert "en/bread0.txt" in engine.map().document_ids
    assert len(engine.topics().assigned) == 35, "topics are of the index as it is"
    assert not refresh_map(settings, wanted=False)
    assert refresh_map(settings, wanted=None)
    assert engine.map().is_current
    assert "en/bread0.txt" not in engine.map().document_ids
    assert not refresh_map(settings, wanted=None), "it is of the index as it is"


def test_the_commands(settings: Settings) -> None:
    index = str(settings.index_folder)
    (made,) = command(indexer_app, "map", "--index", index)
    assert (made["event"], made["chunks"]) == ("map", 36)
    topics = command(search_app, "topics", "--index", index, "--reader", "ar")
    assert len([topic for topic in topics if not topic["children"]]) == made["topics"]
    assert all("ar" not in topic["languages"] or topic["labels"][0]["lang"] == "ar" for topic in topics)  # type: ignore[operator,index]
    shown = CliRunner().invoke(search_app, ["topics", "--index", index, "--reader", "ja", "--lang", "ja,th"])
    assert shown.exit_code != 0, "one language an option"
    shown = CliRunner().invoke(search_app, ["topics", "--index", index, "--lang", "ja", "--lang", "th"])
    assert shown.exit_code == 0
    assert "12 chunks in 2 languages" in shown.stdout
