"""From files to hits and back: new, changed, gone, interrupted."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from indexer import build
from indexer.console import describe, progress_bar, warning_if_empty
from indexer.documents import Document, Skipped
from indexer.ledger import Ledger
from indexer.pipeline import BATCH_CHUNKS, IngestOptions, Summary
from indexer.sources import ReadOptions, SourceFile, iter_documents
from search.balance import OFFSETS_FILE, LanguageOffsets, load_offsets
from search.cli import as_text, build_filter
from search.engine import Engine
from search.errors import (
    EncoderError,
    EncoderMismatchError,
    IndexFormatError,
    IndexNotFoundError,
    QueryError,
    SourceError,
)
from search.index import OFFSETS, IndexFolder
from search.lexical import document_vector
from search.opening import open_index
from search.records import Filter, Match, Vectors
from search.results import Mode
from search.settings import Settings, load_settings
from search.store.edge import EdgeStore
from tests.conftest import FakeEncoder
from tests.integration.indexes import FILES


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


def test_a_file_without_text_is_counted_once_and_can_be_forgotten(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    (corpus / "de/leer.txt").write_bytes(b"")
    assert len(ingest(corpus, settings, fake_encoder).skipped) == 1
    for again in (ingest(corpus, settings, fake_encoder), build.dry_run(corpus, IngestOptions(), settings)):
        assert (again.files, again.unchanged, len(again.skipped)) == (len(FILES) + 1, len(FILES), 1)
    (corpus / "de/leer.txt").unlink()
    assert build.remove(settings, ["de/leer.txt"]) == []
    assert build.status(settings).skipped == []
    for name in FILES:
        (corpus / name).unlink()
    with pytest.raises(SourceError, match=f"{len(FILES)} of its files are indexed; nothing was removed"):
        ingest(corpus, settings, fake_encoder)
    assert not build.status(settings).interrupted


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


def test_a_removal_that_was_cut_off_can_be_repeated(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(corpus, settings, fake_encoder)
    with monkeypatch.context() as patch:
        patch.setattr(IndexFolder, "publish", cut_off)
        with pytest.raises(KeyboardInterrupt):
            build.remove(settings, ["de/Brot.md"])
    assert not build.status(settings).interrupted
    assert found(settings, fake_encoder, "Sauerteig Mehl Wasser")[0] == "de/Brot.md"
    assert build.remove(settings, ["de/Brot.md"]) == ["de/Brot.md"]
    assert counted(settings) == len(FILES) - 1


def test_a_removal_during_an_unfinished_ingest_publishes_nothing_of_it(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(corpus, settings, fake_encoder)
    monkeypatch.setattr("indexer.pipeline.BATCH_CHUNKS", 1)
    for name, text in FILES.items():
        (corpus / name).write_text(f"{text} Neu.", encoding="utf-8")
    (corpus / "aa.txt").write_text("Ein Blatt, das noch niemand kennt.", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setattr("indexer.pipeline.Ingest._remove_vanished", cut_off)
        with pytest.raises(KeyboardInterrupt):
            ingest(corpus, settings, fake_encoder)
    encoded = len(fake_encoder.encoded)
    for attempt in range(2):  # the second is cut off when nothing is published yet
        with monkeypatch.context() as patch:
            if attempt:
                patch.setattr(IndexFolder, "publish", cut_off)
            with pytest.raises(KeyboardInterrupt) if attempt else nullcontext():
                build.remove(settings, [("en/tides.txt", "hi/चाय.txt")[attempt]])
        assert counted(settings) == len(FILES) - 1
        assert "Neu" not in "".join(texts_of(settings))
        assert build.status(settings).interrupted
    summary = ingest(corpus, settings, fake_encoder)
    assert summary.unchanged >= len(FILES) - 2
    assert len(fake_encoder.encoded) <= encoded + 2
    assert counted(settings) == len(FILES) + 1
    assert all("Neu" in text or "Blatt" in text for text in texts_of(settings))


def cut_off(*_: object, **__: object) -> None:
    """In place of a step of a job: the process is interrupted there."""
    raise KeyboardInterrupt


def texts_of(settings: Settings) -> list[str]:
    """Texts of all passages of the published index."""
    index = open_index(settings)
    try:
        return [point.chunk.text for point in index.store.iter_points()]
    finally:
        index.close()


def counted(settings: Settings) -> int:
    """Documents of the published index, after manifest, ledger and store were seen to agree."""
    generation, texts = IndexFolder(settings.index_folder).current(), texts_of(settings)
    with closing(Ledger(generation.path / "ledger.sqlite", read_only=True)) as ledger:
        assert (generation.manifest.documents, generation.manifest.chunks) == ledger.totals()
    assert len(texts) == generation.manifest.chunks
    return generation.manifest.documents


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


def test_words_that_another_version_cut_are_cut_again_without_encoding(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for module in ("indexer.build", "search.engine"):
            patch.setattr(f"{module}.LEXICAL_VERSION", 1)
        patch.setattr("indexer.pipeline.document_vector", lambda text: document_vector(text.replace("é", "x")))
        ingest(corpus, settings, fake_encoder)
        assert found(settings, fake_encoder, "velo reparer", mode=Mode.LEXICAL) == []
    with pytest.raises(IndexFormatError, match="Run `indexer ingest` on any of its folders"):
        found(settings, fake_encoder, "Brot")
    encoded = len(fake_encoder.encoded)
    assert ingest(corpus, settings, fake_encoder).unchanged == len(FILES)
    assert len(fake_encoder.encoded) == encoded
    assert found(settings, fake_encoder, "velo reparer", mode=Mode.LEXICAL) == ["fr/vélo.txt"]
    assert found(settings, fake_encoder, "Sauerteig Mehl")[0] == "de/Brot.md"


def test_a_server_collection_is_filled_in_place(
    corpus: Path, tmp_path: Path, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("search.store.server.connect", lambda _url, _key: client)
    settings = load_settings(home=tmp_path / "home", index="docs", store="http://localhost:6333")
    with monkeypatch.context() as patch:
        for module in ("indexer.build", "search.engine"):
            patch.setattr(f"{module}.LEXICAL_VERSION", 1)
        patch.setattr("indexer.pipeline.document_vector", lambda text: document_vector(text.replace("é", "x")))
        ingest(corpus, settings, fake_encoder)
        assert found(settings, fake_encoder, "velo reparer", mode=Mode.LEXICAL) == []
    with pytest.raises(IndexFormatError):
        found(settings, fake_encoder, "Brot")
    encoded = len(fake_encoder.encoded)
    assert ingest(corpus, settings, fake_encoder).unchanged == len(FILES)
    assert len(fake_encoder.encoded) == encoded
    assert found(settings, fake_encoder, "velo reparer", mode=Mode.LEXICAL) == ["fr/vélo.txt"]
    build.remove(settings, None)
    assert build.status(settings).manifest.languages == {}


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


def test_offsets_that_an_encoder_brings_stay_with_the_index(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    offsets = LanguageOffsets(
        ("de", "fr", "ja"), random.normal(size=64).astype(np.float32), random.normal(size=(3, 64)).astype(np.float32),
        np.zeros(64, np.float32),
    )  # fmt: skip
    plain = load_settings(index=str(tmp_path / "plain"))
    ingest(corpus, plain, fake_encoder)
    (tmp_path / "encoder" / OFFSETS_FILE.parent).mkdir(parents=True)
    offsets.save(tmp_path / "encoder" / OFFSETS_FILE)
    fake_encoder.folder = tmp_path / "encoder"  # type: ignore[assignment]
    ingest(corpus, settings, fake_encoder)
    first = build.status(settings).manifest
    assert first.map_fingerprint != build.status(plain).manifest.map_fingerprint
    shutil.rmtree(tmp_path / "encoder")
    for i in range(60):
        (corpus / f"fr/pain {i}.txt").write_text(f"Le pain numéro {i} est au levain de seigle et de blé.", "utf-8")
    ingest(corpus, settings, fake_encoder)
    generation = IndexFolder(settings.index_folder).current()
    assert generation.manifest.map_fingerprint != first.map_fingerprint, "refined"
    kept = load_offsets(fake_encoder.fingerprint, generation.path / OFFSETS)
    assert kept is not None
    assert kept.offsets == pytest.approx(offsets.offsets, abs=1e-2)


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
        said = process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        finished = "finished" in said + process.stdout.read()
        process.wait()
        delay *= 1.2
        assert rounds < 50
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


def write_records(table: Path, count: int) -> None:
    rows = [{"id": i, "text": f"Frage {i} zum Garten im Herbst."} for i in range(count)]
    table.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def test_the_next_documents_are_read_while_the_encoder_works(tmp_path: Path, settings: Settings) -> None:
    read: list[int] = []
    went_on = threading.Event()

    class Waiting(FakeEncoder):
        def encode_documents(self, texts: list[str]) -> Vectors:
            assert self.encoded or went_on.wait(60), "nothing was read while the first batch was encoded"
            return super().encode_documents(texts)

    def progress(size: int, _source: str) -> None:
        read.append(size)
        if len(read) > BATCH_CHUNKS + 10:
            went_on.set()

    write_records(tmp_path / "t.jsonl", 600)
    ingest(tmp_path / "t.jsonl", settings, Waiting(), progress=progress)
    assert counted(settings) == 600


def test_what_the_encoder_did_before_it_failed_is_kept(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    class Failing(FakeEncoder):
        def encode_documents(self, texts: list[str]) -> Vectors:
            if self.encoded:
                raise EncoderError("the encoder ran out of memory")
            return super().encode_documents(texts)

    write_records(tmp_path / "t.jsonl", 700)
    with pytest.raises(EncoderError, match="ran out of memory"):
        ingest(tmp_path / "t.jsonl", settings, Failing())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("encoding")]
    kept = BATCH_CHUNKS - 1  # whether its last document goes on was not known yet
    assert ingest(tmp_path / "t.jsonl", settings, fake_encoder).documents == 700 - kept
    assert counted(settings) == 700


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


@pytest.mark.parametrize(
    ("lang", "near"), [("zz", "zh"), ("deu", "de"), ("jp", "ja"), ("zh-CN", "zh"), ("klingon", "")]
)
def test_an_unknown_language_is_explained(
    lang: str, near: str, corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus, settings, fake_encoder)
    with pytest.raises(QueryError, match=f"unknown language '{lang}'.*{near}.*; the index holds .*hi") as error:
        found(settings, fake_encoder, "Brot", filter=Filter((Match("lang", (lang,)),)))
    assert str(error.value).count("?") == bool(near)
    for other in ("nl", "und"):
        assert found(settings, fake_encoder, "Brot", filter=Filter((Match("lang", (other,)),))) == []


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


def chunks_of(settings: Settings) -> list[tuple[str, int]]:
    engine = Engine(settings, FakeEncoder())  # type: ignore[arg-type]
    try:
        return sorted((point.chunk.document_id, point.chunk.number) for point in engine.index().store.iter_points())
    finally:
        engine.close()


def interrupted_ingest(corpus: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """An ingest that stops where it hurts most: chunks are in the store, no document is recorded."""
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "put_documents", lambda _ledger, rows: 1 / 0 if rows else None)
        with pytest.raises(ZeroDivisionError):
            build.ingest(corpus, settings, encoder=FakeEncoder())  # type: ignore[arg-type]


LONG = "Ein langer Satz über das Wetter im Herbst. " * 200


@pytest.mark.parametrize("after", ["Nur noch ein Satz.", None])
def test_chunks_of_an_interrupted_run_do_not_stay(
    after: str | None, corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in (False, True):
        (corpus / "long.txt").write_text(LONG + str(first), encoding="utf-8")
        interrupted_ingest(corpus, settings, monkeypatch)
        (corpus / "long.txt").unlink() if after is None else (corpus / "long.txt").write_text(after, encoding="utf-8")
        ingest(corpus, settings, fake_encoder)
        wanted = {(name, 0) for name in FILES} | ({("long.txt", 0)} if after else set())
        assert chunks_of(settings) == sorted(wanted)


def test_records_that_an_interrupted_run_wrote_and_that_are_gone_do_not_stay(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "t.jsonl"
    table.write_text('{"id": "a", "text": "Ein Satz."}\n{"id": "b", "text": "Noch einer."}\n', encoding="utf-8")
    interrupted_ingest(table, settings, monkeypatch)
    table.write_text('{"id": "b", "text": "Noch einer."}\n', encoding="utf-8")
    ingest(table, settings, fake_encoder)
    assert chunks_of(settings) == [("t.jsonl#b", 0)]


def test_old_chunks_are_removed_a_batch_at_a_time(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "t.jsonl"
    removed: list[int] = []
    delete = EdgeStore.delete_documents

    def counting(store: EdgeStore, ids: Sequence[str]) -> None:
        removed.append(len(ids))
        delete(store, ids)

    monkeypatch.setattr(EdgeStore, "delete_documents", counting)
    for version in (1, 2):
        rows = [{"id": i, "text": f"Frage {i} in der Fassung {version}."} for i in range(600)]
        table.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        removed.clear()
        assert ingest(table, settings, fake_encoder).documents == 600
        assert sum(removed) == 600
        assert len([size for size in removed if size]) <= 3
    assert build.status(settings).manifest.chunks == 600


def test_a_folder_above_one_that_was_ingested_reads_no_file_twice(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus / "de", settings, fake_encoder)
    above = ingest(corpus, settings, fake_encoder)
    assert (above.documents, above.unchanged) == (len(FILES) - 1, 1)
    names = {"Brot.md", *(f"corpus/{name}" for name in FILES if not name.startswith("de/"))}
    assert chunks_of(settings) == sorted((name, 0) for name in names)
    assert build.dry_run(corpus, IngestOptions(), settings).unchanged == len(FILES)
    assert ingest(corpus, settings, fake_encoder).unchanged == len(FILES)
    (corpus / "de" / "Käse.txt").write_text("Käse reift lange im Keller.", encoding="utf-8")
    (corpus / "de" / "Brot.md").unlink()
    changed = ingest(corpus, settings, fake_encoder)
    assert (changed.documents, changed.removed) == (1, 1)
    assert chunks_of(settings) == sorted((name, 0) for name in names - {"Brot.md"} | {"Käse.txt"})
    assert ingest(corpus / "de", settings, fake_encoder).unchanged == 1


def test_a_hidden_folder_that_was_ingested_by_itself_stays(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    (corpus / ".private").mkdir()
    (corpus / ".private" / "geheim.txt").write_text("Ein Geheimnis unter dem Teppich.", encoding="utf-8")
    ingest(corpus / ".private", settings, fake_encoder)
    assert ingest(corpus, settings, fake_encoder).removed == 0
    assert ("geheim.txt", 0) in chunks_of(settings)


def test_an_index_without_documents_has_no_languages(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    ingest(corpus, settings, fake_encoder)
    build.remove(settings, None)
    assert build.status(settings).manifest.languages == {}


def test_a_folder_without_documents_is_said_to_be_one(
    tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    root = tmp_path / "empty"
    root.mkdir()
    said = warning_if_empty(ingest(root, settings, fake_encoder), root) or ""
    assert said.startswith(f"warning: nothing to search in {root}: no files; formats read: txt, md")
    (root / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    (root / "blank.txt").write_text(" ", encoding="utf-8")
    for _ in range(2):
        summary = ingest(root, settings, fake_encoder)
        assert "2 files, none of them with text" in (warning_if_empty(summary, root) or "")
    (root / "t.jsonl").write_text('{"text": "Ein Satz."}\n{"text": \n', encoding="utf-8")
    for _ in range(2):
        summary = ingest(root, settings, fake_encoder)
        assert warning_if_empty(summary, root) is None
        assert len(summary.skipped) == 3


def test_files_read_as_text_are_counted(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    for name in ("README", "LICENSE", "server.log"):
        (corpus / name).write_text("Der Server wurde neu gestartet.", encoding="utf-8")
    summary = ingest(corpus, settings, fake_encoder)
    assert summary.as_text == {"no extension": 2, ".log": 1}
    assert "read as plain text, for want of a known format: 2 no extension, 1 .log" in describe(summary)
    assert build.dry_run(corpus, IngestOptions(), settings).unchanged == len(FILES) + 3


def test_one_is_not_written_as_many(tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    (tmp_path / "a.txt").write_text("Ein Satz über Brot.", encoding="utf-8")
    said = describe(ingest(tmp_path / "a.txt", settings, fake_encoder))
    assert said.startswith(
        "1 file: 1 read, 0 unchanged, 0 skipped; 1 document and 1 chunk written, 0 documents removed"
    )
    engine = Engine(settings, fake_encoder)  # type: ignore[arg-type]
    assert as_text(engine.search("Brot"))[0].startswith("1 hit for 'Brot'")
    engine.close()


def test_a_folder_is_walked_for_its_size_only_when_that_is_shown() -> None:
    with progress_bar(lambda: 1 // 0, quiet=True) as progress:
        progress(1, "a.txt")


def test_front_matter_can_be_filtered_by(tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    root = tmp_path / "notes"
    root.mkdir()
    (root / "a.md").write_text("---\ntags: [Brot, Hefe]\nversion: 1.5\nsource: Oma\n---\nTeig gehen lassen.", "utf-8")
    (root / "b.md").write_text("---\ntags: Hefe\nversion: 1.5.2\nlang: xx\n---\nTeig noch einmal kneten.", "utf-8")
    (root / "c.jsonl").write_text('{"id": 1, "text": "Teig backen.", "tags": ["Brot"]}', "utf-8")
    ingest(root, settings, fake_encoder)
    for where, names in {
        "tags=Brot": {"a.md", "c.jsonl#1"}, "tags=Hefe": {"a.md", "b.md"}, "version=1.5": {"a.md"},
        "version=1.5.2": {"b.md"}, "source=Oma": {"a.md"}, "lang=xx": {"b.md"},
    }.items():  # fmt: skip
        chosen = build_filter(lang=None, source=None, since=None, until=None, where=[where])
        assert set(found(settings, fake_encoder, "Teig", filter=chosen)) == names, where


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


def test_numbers_that_no_store_keeps_become_text(tmp_path: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
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
