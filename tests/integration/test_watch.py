"""Watching a folder: the index follows its files, and goes on after what fails."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer import build
from indexer.pipeline import Summary
from indexer.reindex import reindex
from indexer.watch_command import follow, watch_folder
from search.engine import Engine
from search.errors import StoreError
from search.settings import Settings, load_settings
from tests.conftest import FakeEncoder
from tests.integration.indexes import OtherEncoder

LONGEST_S = 60.0


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "茶.txt").write_text("緑茶は七十度の湯で淹れる。", encoding="utf-8")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def documents(settings: Settings) -> set[str]:
    engine = Engine(settings, FakeEncoder())  # type: ignore[arg-type]
    try:
        return {point.chunk.document_id for point in engine.index().store.iter_points()}
    finally:
        engine.close()


@pytest.mark.parametrize("poll", [False, True])
def test_the_index_follows_the_folder(corpus: Path, settings: Settings, poll: bool) -> None:
    told: queue.Queue[Summary] = queue.Queue()
    stop = threading.Event()
    changes = watch_folder(corpus, poll=poll, quiet_s=0.3, stop=stop)
    thread = threading.Thread(
        target=follow, args=(corpus, settings, FakeEncoder(), changes), kwargs={"tell": told.put}, daemon=True
    )
    thread.start()
    try:
        assert told.get(timeout=LONGEST_S).documents == 1
        while not told.empty() or documents(settings) != {"茶.txt", "شاي/نعناع.txt"}:
            # Written again until it is seen: the watcher may not be looking yet.
            (corpus / "شاي").mkdir(exist_ok=True)
            (corpus / "شاي" / "نعناع.txt").write_text("يُشرب الشاي ساخنا مع النعناع.", encoding="utf-8")
            assert told.get(timeout=LONGEST_S).documents <= 1
        (corpus / "茶.txt").unlink()
        assert told.get(timeout=LONGEST_S).removed == 1
        assert documents(settings) == {"شاي/نعناع.txt"}
    finally:
        stop.set()
        thread.join(LONGEST_S)
    assert not thread.is_alive()


def test_hidden_files_wake_nobody(corpus: Path) -> None:
    stop = threading.Event()
    seen: list[object] = []
    changes = watch_folder(corpus, poll=True, quiet_s=0.1, stop=stop)
    thread = threading.Thread(target=lambda: seen.extend(changes), daemon=True)
    thread.start()
    for n in range(10):
        (corpus / ".hidden").write_text(str(n), encoding="utf-8")
        (corpus / "~$lock.docx").write_text(str(n), encoding="utf-8")
        threading.Event().wait(0.1)
    (corpus / "seen.txt").write_text("x", encoding="utf-8")
    for _ in range(600):
        if seen:
            break
        threading.Event().wait(0.1)
    stop.set()
    thread.join(LONGEST_S)
    assert {Path(path).name for change in seen for _, path in change} == {"seen.txt"}  # type: ignore[attr-defined]


def test_an_ingest_that_fails_is_told_and_tried_again_with_the_next_change(
    corpus: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest, told = build.ingest, list[Summary]()

    def refuse(*_args: object, **_options: object) -> Summary:
        raise StoreError("the disk is full.")

    def changes() -> Iterator[object]:
        yield "first"
        monkeypatch.setattr("indexer.build.ingest", ingest)
        yield "second"

    monkeypatch.setattr("indexer.build.ingest", refuse)
    follow(corpus, settings, FakeEncoder(), changes(), tell=told.append)  # type: ignore[arg-type]
    assert [summary.documents for summary in told] == [1]
    assert capsys.readouterr().err.count("the disk is full. Watching goes on.") == 2


def test_an_index_that_was_encoded_anew_is_gone_on_with(
    corpus: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Summary] = []

    def changes() -> Iterator[object]:
        reindex(settings, OtherEncoder())
        (corpus / "чай.txt").write_text("Чёрный чай заваривают кипятком.", encoding="utf-8")
        yield "first"
        reindex(settings, FakeEncoder())  # which nobody can load here: an error, and watching goes on
        (corpus / "چای.txt").write_text("چای سبز را با آب داغ دم کنید.", encoding="utf-8")
        yield "second"

    monkeypatch.setattr("search.opening.load_own_encoder", lambda _settings: OtherEncoder())
    follow(corpus, settings, FakeEncoder(), changes(), tell=told.append)  # type: ignore[arg-type]
    assert [(summary.read, summary.unchanged) for summary in told] == [(1, 0), (1, 1)]
    assert "Watching goes on." in capsys.readouterr().err


def test_nothing_is_told_when_nothing_changed(corpus: Path, settings: Settings) -> None:
    told: list[Summary] = []
    follow(corpus, settings, FakeEncoder(), ["a", "b"], tell=told.append)  # type: ignore[arg-type]
    assert len(told) == 1
