"""A local Ray cluster does what one process does, also when a worker is killed in the middle."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from indexer import build
from indexer.pipeline import Summary
from indexer.ray_engine import ClusterError, ingest_with_ray
from indexer.shards import begun_splits
from search.encoder import Encoder
from search.errors import EncoderError
from search.opening import open_index, server_folder
from search.records import Point
from search.settings import Settings, load_settings
from tests.integration import qdrant_standin
from tests.integration.ray_encoders import SlowEncoder, load_fatal, load_in_driver_alone, load_slow

ray = pytest.importorskip("ray", reason="the extra `cluster` is not installed")

LANGUAGES = ("ar", "de", "fa", "he", "hi", "ja")
WORKERS = 2


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, object_store_memory=128 * 2**20,
        logging_level=logging.ERROR,
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture
def corpus(tmp_path: Path, repository: Path) -> Path:
    root = tmp_path / "corpus"
    for lang in LANGUAGES:
        shutil.copytree(repository / "corpus" / "documents" / lang, root / lang)
    (root / "notes.jsonl").write_text(
        "".join(f'{{"id": "{i}", "text": "Notiz {i}: 温泉 ภาษาไทย שלום 🌊"}}\n' for i in range(20)), "utf-8"
    )
    (root / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    return root


@pytest.fixture
def url() -> Iterator[str]:
    with qdrant_standin.running() as url:
        yield url


def settings_of(tmp_path: Path, index: str, store: str | None = None) -> Settings:
    return load_settings(home=tmp_path / "home", index=index, store=store)


def points_of(settings: Settings) -> dict[str, tuple[object, ...]]:
    """Everything that is stored of every chunk, vectors by their bytes."""
    opened = open_index(settings)
    try:
        return {point.chunk.id: as_bytes(point) for point in opened.store.iter_points(with_vectors=True)}
    finally:
        opened.close()


def as_bytes(point: Point) -> tuple[object, ...]:
    return point.chunk, point.dense.tobytes(), point.sparse.indices.tobytes(), point.sparse.values.tobytes()


def families_of(settings: Settings) -> list[tuple[str, ...]]:
    """Documents with the family that each is in, as numbers and pivots."""
    opened = open_index(settings)
    try:
        assert opened.folder is not None
        with closing(sqlite3.connect(opened.folder / "families.sqlite")) as db:
            return db.execute("SELECT id, digest, lang, family, pivot FROM documents ORDER BY id").fetchall()
    finally:
        opened.close()


def facts(summary: Summary) -> dict[str, object]:
    """All of a summary but the time, skipped files by name."""
    found = summary.as_json()
    del found["seconds"]
    return {**found, "skipped": sorted(found["skipped"], key=lambda item: item["source"])}  # type: ignore[call-overload]


class Killer:
    """A progress callback that kills the first worker when work has begun."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "indexer.ray_engine")
        self._caplog, self.killed, self.bytes = caplog, 0, 0

    def __call__(self, size: int, _source: str) -> None:
        self.bytes += size
        found = re.search(r"worker ready on .*, process (\d+)", self._caplog.text)
        if found and not self.killed:
            self.killed = int(found[1])
            os.kill(self.killed, signal.SIGKILL)


def test_a_server_is_filled_as_by_one_process_though_a_worker_is_killed(
    corpus: Path, tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    alone, spread = settings_of(tmp_path, "alone", url), settings_of(tmp_path, "spread", url)
    expected = build.ingest(corpus, alone, encoder=SlowEncoder())  # type: ignore[arg-type]
    killer = Killer(caplog)
    summary = ingest_with_ray(corpus, spread, workers=WORKERS, load=load_slow, progress=killer)
    assert "a worker was lost; shard" in caplog.text
    assert facts(summary) == facts(expected)
    assert killer.bytes == build.size_of(corpus)
    assert points_of(spread) == points_of(alone)
    assert families_of(spread) == families_of(alone)
    one, other = build.status(alone), build.status(spread)
    assert (other.files, other.skipped, other.roots) == (one.files, one.skipped, one.roots)
    assert other.manifest.languages == one.manifest.languages
    assert begun_splits(server_folder(spread)) == []
    again = build.ingest(corpus, spread, encoder=SlowEncoder())  # type: ignore[arg-type]
    assert (again.unchanged + len(again.skipped), again.documents, again.removed) == (expected.read, 0, 0)
    assert again.skipped == expected.skipped


def test_an_embedded_index_is_made_and_changed_as_by_one_process(corpus: Path, tmp_path: Path) -> None:
    alone, spread = settings_of(tmp_path, "alone"), settings_of(tmp_path, "spread")
    for _ in range(2):
        expected = build.ingest(corpus, alone, encoder=SlowEncoder())  # type: ignore[arg-type]
        assert facts(ingest_with_ray(corpus, spread, workers=WORKERS, load=load_slow)) == facts(expected)
        assert points_of(spread) == points_of(alone)
        assert families_of(spread) == families_of(alone)
        (corpus / "ja" / "新.txt").write_text("新しい文書です。🍵", encoding="utf-8")
        shutil.rmtree(corpus / "he", ignore_errors=True)  # the second round ends here
    one, other = build.status(alone).manifest, build.status(spread).manifest
    varying = {"created", "updated"}
    assert other.model_dump(exclude=varying) == one.model_dump(exclude=varying)


def test_vectors_of_the_real_encoder_are_those_of_one_process(
    corpus: Path, tmp_path: Path, real_encoder: Encoder
) -> None:
    """Though it meets them in other batches, with other threads, and the language map is fitted to them."""
    alone, spread = (load_settings(index=str(tmp_path / name)) for name in ("alone", "spread"))
    expected = build.ingest(corpus, alone, encoder=real_encoder)
    assert facts(ingest_with_ray(corpus, spread, workers=WORKERS)) == facts(expected)
    assert points_of(spread) == points_of(alone)


def test_a_shard_that_ends_every_worker_is_named(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.ray_engine.MOST_LOSSES", 2)
    settings = settings_of(tmp_path, "fatal")
    with pytest.raises(ClusterError, match=r"2 workers were lost over shard \d/8; .* run the same command again"):
        ingest_with_ray(corpus, settings, workers=1, load=load_fatal)
    summary = build.ingest(corpus, settings, encoder=SlowEncoder())  # type: ignore[arg-type]
    alone = settings_of(tmp_path, "alone")
    assert facts(summary) == facts(build.ingest(corpus, alone, encoder=SlowEncoder()))  # type: ignore[arg-type]
    assert points_of(settings) == points_of(alone)


def test_what_a_worker_cannot_do_is_said_in_its_own_words(corpus: Path, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "index")
    settings.home.mkdir()
    (settings.home / "driver").write_text(str(os.getpid()), "ascii")
    with pytest.raises(EncoderError, match=r"^the encoder is not on this machine; copy its folder$"):
        ingest_with_ray(corpus, settings, workers=1, load=load_in_driver_alone)
