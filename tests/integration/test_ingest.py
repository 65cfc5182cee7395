"""From files to hits and back: new, changed, gone, interrupted."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import build
from indexer.documents import Document, Skipped
from indexer.pipeline import IngestOptions, Summary
from indexer.sources import ReadOptions, SourceFile, iter_documents
from search.engine import Engine, Mode
from search.errors import EncoderMismatchError, IndexNotFoundError, QueryError, SourceError
from search.index import IndexFolder
from search.records import Filter, Match
from search.settings import Settings, load_settings
from tests.conftest import FakeEncoder

FILES = {
    "de/Brot.md": "# Brot backen\n\nSauerteig braucht Zeit, Mehl und Wasser, dann geht der Teig langsam auf.",
    "fr/vélo.txt": "Pour réparer une roue de vélo, il faut d'abord démonter le pneu et trouver le trou.",
    "ja/温泉.txt": "温泉に入る前に体をよく洗いましょう。タオルを湯船に入れてはいけません。",
    "ar/شاي.txt": "يُشرب الشاي ساخنا مع النعناع والسكر في أكواب صغيرة بعد الطعام.",
    "hi/चाय.txt": "चाय बनाने के लिए पानी उबालें, फिर दूध, अदरक और चीनी डालें।",
    "th/ข้าว.txt": "หุงข้าวให้นุ่มต้องล้างข้าวก่อนแล้วใส่น้ำให้พอดี",
    "en/tides.txt": "The tide rises twice a day because the moon pulls on the sea 🌊.",
}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", index=str(tmp_path / "index"))


def ingest(corpus: Path, settings: Settings, encoder: FakeEncoder, **options: object) -> Summary:
    return build.ingest(corpus, settings, encoder=encoder, **options)  # type: ignore[arg-type]


def found(settings: Settings, encoder: FakeEncoder, query: str, **options: object) -> list[str]:
    engine = Engine(settings, encoder)  # type: ignore[arg-type]
    try:
        return [hit.document_id for hit in engine.search(query, **options).hits]  # type: ignore[arg-type]
    finally:
        engine.close()


def test_every_file_is_found_by_its_own_words_in_every_mode(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    summary = ingest(corpus, settings, fake_encoder)
    assert (summary.documents, summary.skipped, summary.chunks) == (len(FILES), [], len(FILES))
    for name, text in FILES.items():
        words = text.splitlines()[-1][:30]
        for mode in Mode:
            assert found(settings, fake_encoder, words, mode=mode)[0] == name


def test_only_what_changed_is_read_again(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder)
    encoded = len(fake_encoder.encoded)
    again = ingest(corpus, settings, fake_encoder)
    assert (again.unchanged, again.read, again.documents) == (len(FILES), 0, 0)
    os.utime(corpus / "en/tides.txt", (1, 1))
    touched = ingest(corpus, settings, fake_encoder)
    assert (touched.unchanged, touched.read) == (len(FILES), 0)
    assert len(fake_encoder.encoded) == encoded
    (corpus / "en/tides.txt").write_text("Spring tides follow the full moon closely.", encoding="utf-8")
    (corpus / "ja/温泉.txt").unlink()
    (corpus / "es").mkdir()
    (corpus / "es/niño.txt").write_text("El niño juega con la pelota en el parque.", encoding="utf-8")
    changed = ingest(corpus, settings, fake_encoder)
    assert (changed.documents, changed.removed, changed.read, changed.unchanged) == (2, 1, 2, len(FILES) - 2)
    assert len(fake_encoder.encoded) == encoded + 2
    assert found(settings, fake_encoder, "Spring tides full moon", k=20)[0] == "en/tides.txt"
    everything = found(settings, fake_encoder, "niño", k=20, mode=Mode.DENSE)
    assert "ja/温泉.txt" not in everything
    assert len(everything) == len(set(everything)) == len(FILES)


def test_an_engine_that_is_open_sees_the_new_generation(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus, settings, fake_encoder)
    engine = Engine(settings, fake_encoder)  # type: ignore[arg-type]
    assert engine.search("pelota roja en el parque", k=1).hits[0].document_id in FILES
    (corpus / "es.txt").write_text("La pelota roja en el parque.", encoding="utf-8")
    ingest(corpus, settings, fake_encoder)
    assert engine.search("pelota roja en el parque", k=1).hits[0].document_id == "es.txt"
    engine.close()


def test_records_of_a_table_change_one_by_one(tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    table = tmp_path / "faq.jsonl"
    question = "Frage {0}: Wie oft soll man Pflanze {0} gießen?"
    rows = [{"key": f"k{i}", "body": question.format(i), "year": 2000 + i} for i in range(20)]

    def write() -> None:
        table.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")

    write()
    options = IngestOptions(read=ReadOptions(id_column="key", text_columns=("body",)))
    assert ingest(table, settings, fake_encoder, options=options).documents == 20
    rows[3]["body"] = "Kakteen brauchen im Winter fast kein Wasser."
    del rows[10]
    write()
    summary = ingest(table, settings, fake_encoder, options=options)
    assert (summary.documents, summary.removed) == (1, 1)
    assert found(settings, fake_encoder, "Kakteen im Winter")[0] == "faq.jsonl#k3"
    build.remove(settings, ["faq.jsonl#k3"])
    assert "faq.jsonl#k3" not in found(settings, fake_encoder, "Kakteen im Winter")
    assert ingest(table, settings, fake_encoder, options=options).documents == 1
    only = Filter((Match("metadata.year", (2005,)),))
    assert found(settings, fake_encoder, "Pflanze gießen", filter=only) == ["faq.jsonl#k5"]


def test_two_folders_share_an_index_without_clashing(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    for name, text in (("eins", "Der rote Apfel fällt."), ("zwei", "Die gelbe Birne hängt.")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "obst.txt").write_text(text, encoding="utf-8")
        ingest(tmp_path / name, settings, fake_encoder)
    assert set(found(settings, fake_encoder, "Apfel Birne")) == {"obst.txt", "zwei/obst.txt"}
    (tmp_path / "eins" / "obst.txt").unlink()
    (tmp_path / "eins" / "neu.txt").write_text("Neu ist die Pflaume.", encoding="utf-8")
    ingest(tmp_path / "eins", settings, fake_encoder)
    assert set(found(settings, fake_encoder, "Pflaume Birne")) == {"neu.txt", "zwei/obst.txt"}


def test_an_emptied_folder_removes_nothing(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder)
    for name in FILES:
        (corpus / name).unlink()
    with pytest.raises(SourceError, match="nothing was removed"):
        ingest(corpus, settings, fake_encoder)
    assert len(found(settings, fake_encoder, "Brot", k=20, mode=Mode.DENSE)) == len(FILES)


def test_a_file_that_breaks_keeps_its_earlier_version(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus, settings, fake_encoder)
    (corpus / "de/Brot.md").write_bytes(b"")
    summary = ingest(corpus, settings, fake_encoder)
    assert ["the version indexed before is kept" in item.reason for item in summary.skipped] == [True]
    assert found(settings, fake_encoder, "Sauerteig Mehl Wasser")[0] == "de/Brot.md"


def test_removing_by_id_and_folder(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder)
    with pytest.raises(SourceError, match="nope"):
        build.remove(settings, ["de/Brot.md", "nope"])
    assert not build.status(settings).interrupted
    assert build.remove(settings, ["de/Brot.md", "fr/"]) == ["de/Brot.md", "fr/vélo.txt"]
    assert build.status(settings).manifest.documents == len(FILES) - 2
    assert len(build.remove(settings, None)) == len(FILES) - 2
    assert found(settings, fake_encoder, "Brot") == []
    assert ingest(corpus, settings, fake_encoder).documents == len(FILES)


def test_status_and_dry_run(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    (corpus / "junk.bin").write_bytes(bytes(range(256)))
    dry = build.dry_run(corpus, IngestOptions(), settings)
    assert (dry.documents, len(dry.skipped)) == (len(FILES), 1)
    with pytest.raises(IndexNotFoundError):
        build.status(settings)
    ingest(corpus, settings, fake_encoder)
    state = build.status(settings)
    assert (state.manifest.documents, len(state.files)) == (len(FILES), len(FILES))
    assert set(state.manifest.languages) == {"de", "fr", "ja", "ar", "hi", "th", "en"}
    assert not state.interrupted
    (corpus / "de/Brot.md").write_text("Ein anderes Brot.", encoding="utf-8")
    again = build.dry_run(corpus, IngestOptions(), settings)
    assert (again.documents, again.unchanged) == (1, len(FILES) - 1)


def test_another_encoder_is_refused_with_the_way_out(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus, settings, fake_encoder)
    other = FakeEncoder()
    other.fingerprint = "fake-2"  # type: ignore[misc]
    with pytest.raises(EncoderMismatchError, match="--fresh"):
        found(settings, other, "Brot")
    with pytest.raises(EncoderMismatchError, match="--fresh"):
        ingest(corpus, settings, other)
    assert ingest(corpus, settings, other, fresh=True).documents == len(FILES)
    assert found(settings, other, "Sauerteig Mehl")[0] == "de/Brot.md"


def test_the_language_map_is_refined_and_old_vectors_follow(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus, settings, fake_encoder)
    first = build.status(settings).manifest
    for i in range(60):
        (corpus / f"fr/pain {i}.txt").write_text(f"Le pain numéro {i} est au levain de seigle et de blé.", "utf-8")
        (corpus / f"de/Brot {i}.txt").write_text(f"Brot Nummer {i} mit Sauerteig aus Roggen und Weizen.", "utf-8")
    ingest(corpus, settings, fake_encoder)
    second = build.status(settings).manifest
    assert first.map_fingerprint != second.map_fingerprint
    engine = Engine(settings, fake_encoder)  # type: ignore[arg-type]
    index = engine.index()
    for point in index.store.iter_points(with_vectors=True):
        from indexer.chunking import passage_text

        expected = index.language_map.map_documents(fake_encoder.encode_queries([passage_text(point.chunk)]))[0]
        assert point.dense == pytest.approx(expected, abs=1e-4)
    engine.close()


KILLED = """
    import os, sys, random, threading, time
    from pathlib import Path
    from indexer import build
    from search.settings import load_settings
    from tests.conftest import FakeEncoder
    import indexer.pipeline
    indexer.pipeline.BATCH_CHUNKS = 8
    class Slow(FakeEncoder):
        def encode_documents(self, texts):
            time.sleep(0.01)
            return super().encode_documents(texts)
    settings = load_settings(home=Path(sys.argv[2]), index=sys.argv[3])
    def progress(size, source):
        print(source, flush=True)
    build.ingest(Path(sys.argv[1]), settings, encoder=Slow(), progress=progress)
    print("finished", flush=True)
"""


def test_killed_at_any_moment_nothing_is_lost_or_doubled(tmp_path: Path, settings: Settings) -> None:
    corpus = tmp_path / "many"
    corpus.mkdir()
    for i in range(120):
        (corpus / f"{i:03d}.txt").write_text(f"Dokument {i} handelt von Thema{i} und wort{i * 7}.", encoding="utf-8")
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(corpus), str(settings.home), settings.index]
    rounds, delay, finished = 0, 0.05, False
    while not finished:
        rounds += 1
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        finished = "finished" in process.stdout.read()
        process.wait()
        delay += 0.07
        assert rounds < 60
    assert rounds > 2
    index = IndexFolder(settings.index_folder)
    assert index.current().manifest.documents == 120
    engine = Engine(settings, FakeEncoder())  # type: ignore[arg-type]
    documents = [point.chunk.document_id for point in engine.index().store.iter_points()]
    engine.close()
    assert sorted(documents) == sorted(f"{i:03d}.txt" for i in range(120))


def test_what_fails_for_a_moment_is_read_the_next_time(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(file: SourceFile, options: ReadOptions) -> Iterator[Document | Skipped]:
        if file.relative == "de/Brot.md":
            yield Skipped(file.relative, "the parser crashed", transient=True)
        else:
            yield from iter_documents(file, options)

    monkeypatch.setattr("indexer.pipeline.iter_documents", failing)
    assert [item.source for item in ingest(corpus, settings, fake_encoder).skipped] == ["de/Brot.md"]
    assert build.status(settings).skipped == [("de/Brot.md", "the parser crashed")]
    monkeypatch.undo()
    summary = ingest(corpus, settings, fake_encoder)
    assert (summary.documents, summary.read, summary.skipped) == (1, 1, [])
    assert build.status(settings).skipped == []


def test_chunks_are_no_longer_than_the_encoder_reads(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "lang.txt").write_text("Ein Satz über das Wetter. " * 200, encoding="utf-8")
    fake_encoder.max_tokens = 64  # type: ignore[misc]
    ingest(tmp_path / "lang.txt", settings, fake_encoder)
    assert "cut to 48 tokens" in caplog.text
    assert all(len(fake_encoder.tokenizer.encode(text)) <= 64 for text in fake_encoder.encoded)


def test_progress_adds_up_to_the_bytes_of_the_files(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text("\n".join(json.dumps({"id": i, "text": f"Satz {i} im Text."}) for i in range(50)), "utf-8")
    steps: list[int] = []
    ingest(table, settings, fake_encoder, progress=lambda size, _source: steps.append(size))
    assert len(steps) > 50
    assert sum(steps) == table.stat().st_size


def test_a_repeated_passage_is_encoded_once(tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    table = tmp_path / "t.jsonl"
    rows = [{"id": i, "text": f"Frage {i % 3} zum Garten im Herbst."} for i in range(700)]
    table.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert ingest(table, settings, fake_encoder).chunks == 700
    assert len(fake_encoder.encoded) == 3


@pytest.mark.parametrize("query", ["", "   ", "\n\t"])
def test_an_empty_query_is_explained(query: str, corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder)
    with pytest.raises(QueryError, match="empty"):
        found(settings, fake_encoder, query)


@pytest.mark.parametrize("query", ["?!…", "👩‍👩‍👧", "a" * 5000, "שלום hello мир", "\u202eevil\u202c", "ไทย", "\ud800x"])
def test_odd_queries_answer(query: str, corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder)
    assert len(found(settings, fake_encoder, query)) <= 10


@pytest.mark.parametrize("options", [{"k": 0}, {"balance": 1.5}, {"mode": "psychic"}, {"offset": -1}])
def test_wrong_options_are_explained(
    options: dict[str, object], corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus, settings, fake_encoder)
    with pytest.raises(QueryError):
        found(settings, fake_encoder, "Brot", **options)


def test_pages_do_not_overlap(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder)
    whole = found(settings, fake_encoder, "Wasser", k=7)
    first, second = (found(settings, fake_encoder, "Wasser", k=k, offset=o) for k, o in ((3, 0), (4, 3)))
    assert first + second == whole


def test_a_folder_named_like_one_inside_another_root_takes_nothing_from_it(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    for name, text in (("eins/obst", "Der rote Apfel fällt."), ("zwei/obst", "Die gelbe Birne hängt.")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.txt").write_text(text, encoding="utf-8")
    ingest(tmp_path / "eins", settings, fake_encoder)
    ingest(tmp_path / "zwei" / "obst", settings, fake_encoder)
    both = {"obst/a.txt", "obst2/a.txt"}
    assert set(found(settings, fake_encoder, "Apfel Birne")) == both
    assert ingest(tmp_path / "eins" / "obst", settings, fake_encoder).unchanged == 1
    assert set(found(settings, fake_encoder, "Apfel Birne")) == both
    (tmp_path / "eins" / "obst2").mkdir()
    (tmp_path / "eins" / "obst2" / "a.txt").write_text("Die blaue Pflaume reift.", encoding="utf-8")
    summary = ingest(tmp_path / "eins", settings, fake_encoder)
    assert [item.source for item in summary.skipped] == ["obst2/a.txt"]
    assert set(found(settings, fake_encoder, "Apfel Birne")) == both


def test_a_change_that_was_interrupted_and_undone_loses_nothing(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(corpus, settings, fake_encoder)
    path = corpus / "de/Brot.md"
    before = path.read_text(encoding="utf-8")
    path.write_text("Ganz anderer Inhalt.", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr(fake_encoder, "encode_documents", lambda texts: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ingest(corpus, settings, fake_encoder)
    path.write_text(before, encoding="utf-8")
    assert ingest(corpus, settings, fake_encoder).documents == 1
    assert "de/Brot.md" in found(settings, fake_encoder, "Sauerteig Mehl")


def test_a_table_that_breaks_off_keeps_the_records_behind(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    table = tmp_path / "t.jsonl.gz"
    lines = [json.dumps({"id": i, "text": f"Frage {i}: {os.urandom(8).hex()}"}) for i in range(400)]
    packed = gzip.compress("\n".join(lines).encode())
    table.write_bytes(packed)
    assert ingest(table, settings, fake_encoder).documents == 400
    table.write_bytes(packed[: len(packed) // 2])
    broken = ingest(table, settings, fake_encoder)
    assert broken.removed == 0
    assert "broken gzip file" in broken.skipped[-1].reason
    assert build.status(settings).manifest.documents == 400


def test_numbers_that_no_store_keeps_become_text(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"text": "Ein Satz.", "big": 123456789012345678901234567890, "far": 1e300}', encoding="utf-8")
    assert ingest(table, settings, fake_encoder).documents == 1


def test_a_search_under_way_keeps_the_index_it_began_with(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus, settings, fake_encoder)
    engine = Engine(settings, fake_encoder)  # type: ignore[arg-type]
    older = engine.index()
    (corpus / "es.txt").write_text("La pelota roja en el parque.", encoding="utf-8")
    ingest(corpus, settings, fake_encoder)
    assert engine.index() is not older
    assert older.store.count() == len(FILES)
    del older
    engine.close()
    engine.close()
    assert list((settings.index_folder / "readers").iterdir()) == []
