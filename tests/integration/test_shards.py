"""An ingest in shards ends as one of the whole folder does, whatever is repeated, moved, changed or broken off."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from indexer import build
from indexer.cli import app
from indexer.pipeline import Summary
from indexer.shard_jobs import ingest_shard, merge_shards, size_of_shard
from indexer.shards import Shard, ShardLedgers
from search.balance import LanguageOffsets
from search.errors import (
    EncoderMismatchError,
    IndexFormatError,
    IndexNotFoundError,
    PanlinguaError,
    SettingsError,
    SourceError,
)
from search.manifest import IndexManifest
from search.opening import connect_index, open_index, server_folder
from search.settings import Settings, load_settings
from search.store.server import collections_of, connect, drop_collections, open_collection
from tests.conftest import FakeEncoder
from tests.integration import qdrant_standin
from tests.integration.indexes import FILES

OF = 4


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    root = tmp_path / "corpus"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    for lang, text in (
        ("de", "Brot Nummer {} mit Sauerteig."),
        ("ko", "찻잎 {} 을 따뜻한 물에 넣습니다."),
        ("he", "לחם מספר {}."),
    ):
        (root / lang).mkdir(exist_ok=True)
        for number in range(6):
            (root / lang / f"{number}.txt").write_text(text.format(number), encoding="utf-8")
    (root / "faq.jsonl").write_text('{"id": "k1", "text": "Tee 茶"}\n{"id": "k2", "text": "चाय"}\n', "utf-8")
    (root / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    return root


@pytest.fixture
def url() -> Iterator[str]:
    with qdrant_standin.running() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path, url: str) -> Settings:
    return load_settings(home=tmp_path / "home", index="docs", store=url)


def elsewhere(settings: Settings, name: str = "elsewhere") -> Settings:
    """The same collection, from a machine with a home folder of its own."""
    return settings.model_copy(update={"home": settings.home.parent / name})


def ingest(corpus: Path, settings: Settings, encoder: FakeEncoder, shard: Shard) -> Summary:
    return ingest_shard(corpus, settings, shard, encoder=encoder)  # type: ignore[arg-type]


def all_shards(corpus: Path, settings: Settings, encoder: FakeEncoder, of: int = OF) -> list[Summary]:
    return [ingest(corpus, settings, encoder, Shard(number, of)) for number in range(of)]


def points_of(settings: Settings) -> dict[str, tuple[object, ...]]:
    """Everything that is stored of every chunk, vectors by their bytes."""
    opened = open_index(settings)
    try:
        return {
            p.chunk.id: (p.chunk, p.dense.tobytes(), p.sparse.indices.tobytes(), p.sparse.values.tobytes())
            for p in opened.store.iter_points(with_vectors=True)
        }
    finally:
        opened.close()


def whole(corpus: Path, settings: Settings, encoder: FakeEncoder) -> Settings:
    """The same folder in a collection that one process fills."""
    alone = settings.model_copy(update={"index": "whole", "home": settings.home.parent / "alone"})
    build.ingest(corpus, alone, encoder=encoder, fresh=True)  # type: ignore[arg-type]
    return alone


def assert_same(settings: Settings, alone: Settings) -> None:
    assert points_of(settings) == points_of(alone)
    ours, theirs = build.status(settings), build.status(alone)
    assert (ours.files, ours.roots, ours.skipped) == (theirs.files, theirs.roots, theirs.skipped)
    varying = {"created", "updated"}
    assert ours.manifest.model_dump(exclude=varying) == theirs.manifest.model_dump(exclude=varying)
    assert (server_folder(settings) / "families.sqlite").exists()


def test_shards_at_once_make_the_index_that_one_process_makes(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    with ThreadPoolExecutor(OF) as pool:
        runs = [pool.submit(ingest, corpus, settings, FakeEncoder(), Shard(number, OF)) for number in range(OF)]
        summaries = [run.result() for run in runs]
    assert sum(summary.files for summary in summaries) == len(FILES) + 18 + 2
    assert sum(len(summary.skipped) for summary in summaries) == 1
    assert sum(summary.documents > 0 for summary in summaries) > 1
    sizes = [size_of_shard(corpus, settings, Shard(number, OF)) for number in range(OF)]
    assert sum(sizes) == build.size_of(corpus)
    with pytest.raises(IndexNotFoundError):
        open_index(settings)
    manifest, merged = merge_shards(settings)
    assert (merged, manifest.documents) == (OF, len(FILES) + 18 + 2)
    assert_same(settings, whole(corpus, settings, fake_encoder))
    unchanged = build.ingest(corpus, settings, encoder=fake_encoder)  # type: ignore[arg-type]
    assert (unchanged.read, unchanged.documents, unchanged.removed) == (0, 0, 0)


def test_a_shard_may_be_repeated_and_moved(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    all_shards(corpus, settings, fake_encoder)
    encoded = len(fake_encoder.encoded)
    assert ingest(corpus, settings, fake_encoder, Shard(1, OF)).read == 0
    assert len(fake_encoder.encoded) == encoded
    shutil.rmtree(ShardLedgers(server_folder(settings), OF).place(Shard(1, OF)))
    assert ingest(corpus, settings, fake_encoder, Shard(1, OF)).read > 0
    merge_shards(settings)
    assert_same(settings, whole(corpus, settings, fake_encoder))


def change(corpus: Path) -> None:
    (corpus / "de/0.txt").write_text("Ein ganz anderer Text über Kuchen und 🍰.", encoding="utf-8")
    (corpus / "ja/新しい.txt").write_text("新しい文書です。温泉の話ではありません。", encoding="utf-8")
    (corpus / "faq.jsonl").write_text('{"id": "k2", "text": "चाय"}\n', "utf-8")
    for gone in ("ko/1.txt", "he/2.txt", "th/ข้าว.txt"):
        (corpus / gone).unlink()


def test_what_changed_is_brought_into_step_by_another_number_of_shards(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    all_shards(corpus, settings, fake_encoder)
    merge_shards(settings)
    change(corpus)
    summaries = all_shards(corpus, settings, fake_encoder, of=3)
    assert sum(summary.removed for summary in summaries) == 4
    assert sum(summary.documents for summary in summaries) == 2
    merge_shards(settings)
    assert_same(settings, whole(corpus, settings, fake_encoder))


def test_what_vanished_is_removed_though_no_ledger_is_left(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    all_shards(corpus, settings, fake_encoder)
    merge_shards(settings)
    change(corpus)
    there = elsewhere(settings)
    assert sum(summary.removed for summary in all_shards(corpus, there, fake_encoder, of=2)) == 0
    merge_shards(there)
    assert_same(there, whole(corpus, settings, fake_encoder))


def test_a_shard_that_was_broken_off_has_to_be_finished(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    class Broken(FakeEncoder):
        def encode_documents(self, texts: list[str]) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(SettingsError, match="there are no shards to merge"):
        merge_shards(settings)
    for number in (0, 2):
        ingest(corpus, settings, fake_encoder, Shard(number, OF))
    with pytest.raises(KeyboardInterrupt):
        ingest(corpus, settings, Broken(), Shard(1, OF))
    with pytest.raises(SettingsError, match=r"2 of 4 shards are not finished here: 1/4, 3/4\. .*--shard 1/4"):
        merge_shards(settings)
    for change_it in (
        lambda: build.ingest(corpus, settings, encoder=fake_encoder),  # type: ignore[arg-type]
        lambda: build.ingest(corpus, elsewhere(settings), encoder=fake_encoder),  # type: ignore[arg-type]
    ):
        with pytest.raises(SettingsError, match="indexer merge"):
            change_it()
    for number in (1, 3):
        ingest(corpus, settings, fake_encoder, Shard(number, OF))
    merge_shards(settings)
    assert_same(settings, whole(corpus, settings, fake_encoder))


def test_fresh_starts_over(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder, Shard(0, OF))
    build.ingest(corpus, settings, encoder=fake_encoder, fresh=True)  # type: ignore[arg-type]
    assert_same(settings, whole(corpus, settings, fake_encoder))


def test_two_splits_are_not_mixed_up(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder, Shard(0, 3))
    all_shards(corpus, settings, fake_encoder)
    with pytest.raises(SettingsError, match=r"splits into 3 and 4 shards: .*--shards"):
        merge_shards(settings)
    with pytest.raises(SettingsError, match=r"no ledgers of a split into 5 shards, but into 3, 4"):
        merge_shards(settings, of=5)
    merge_shards(settings, of=4)
    assert_same(settings, whole(corpus, settings, fake_encoder))


def test_a_collection_that_was_dropped_is_begun_anew(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    all_shards(corpus, settings, fake_encoder)
    merge_shards(settings)
    client = connect(settings.store or "")
    drop_collections(client, collections_of(client, "panlingua-docs").values())
    assert sum(summary.read for summary in all_shards(corpus, settings, fake_encoder)) == len(FILES) + 18 + 2
    merge_shards(settings)
    assert_same(settings, whole(corpus, settings, fake_encoder))


def test_documents_that_the_store_lost_are_read_again(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    all_shards(corpus, settings, fake_encoder)
    with closing(open_collection(*connect_index(settings), fake_encoder.dimension)) as store:
        store.delete_documents(["de/Brot.md"])
    merge_shards(settings)
    assert "1 document not whole in the collection" in caplog.text
    assert build.ingest(corpus, settings, encoder=fake_encoder).documents == 1  # type: ignore[arg-type]
    assert_same(settings, whole(corpus, settings, fake_encoder))


def test_all_shards_write_under_the_map_of_the_first(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(corpus, settings, fake_encoder, Shard(0, 2))
    random = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32) / 20
    offsets = LanguageOffsets(("de", "ja", "ar"), random[0], random[1:], np.zeros(64, np.float32))
    monkeypatch.setattr(build, "load_offsets", lambda *_: offsets)  # as if this machine came to another map
    ingest(corpus, settings, fake_encoder, Shard(1, 2))
    monkeypatch.undo()
    manifest, _ = merge_shards(settings)
    alone = whole(corpus, settings, fake_encoder)
    assert manifest.map_fingerprint == build.status(alone).manifest.map_fingerprint
    assert_same(settings, alone)


def test_a_further_folder_is_named_as_by_one_process(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    second = tmp_path / "second" / "de"  # also the name of a folder within the first
    shutil.copytree(corpus / "de", second)
    all_shards(corpus, settings, fake_encoder)
    merge_shards(settings)
    with pytest.raises(SettingsError, match="same path on every machine"):
        ingest(second, elsewhere(settings), fake_encoder, Shard(0, 2))
    all_shards(second, settings, fake_encoder, of=2)
    merge_shards(settings)
    alone = whole(corpus, settings, fake_encoder)
    build.ingest(second, alone, encoder=fake_encoder)  # type: ignore[arg-type]
    assert_same(settings, alone)
    assert "de2/0.txt" in build.status(settings).files


def test_a_machine_that_knows_one_folder_alone_leaves_the_others(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    shutil.copytree(corpus / "ja", second / "ja")
    for folder in (corpus, second):
        all_shards(folder, settings, fake_encoder, of=2)
        merge_shards(settings)
    before = points_of(settings)
    there = elsewhere(settings)
    (corpus / "ko/1.txt").unlink()
    for folder in (corpus, corpus / "ko"):
        all_shards(folder, there, fake_encoder, of=2)
        manifest, _ = merge_shards(there)
        after = points_of(there)
        assert set(before) - set(after) == {
            point for point, (chunk, *_) in before.items() if chunk.source == "ko/1.txt"
        }
        assert manifest.documents == len({chunk.document_id for chunk, *_ in after.values()})
    build.ingest(second, there, encoder=fake_encoder)  # type: ignore[arg-type]
    assert points_of(there) == after


def test_shards_of_two_folders_are_not_merged(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    ingest(corpus, settings, fake_encoder, Shard(0, 2))
    ingest(corpus / "de", settings, fake_encoder, Shard(1, 2))
    with pytest.raises(SettingsError, match="0/2 and 1/2 are not of the same folder"):
        merge_shards(settings)


def test_the_folder_has_to_be_at_the_same_path(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, tmp_path: Path
) -> None:
    ingest(corpus, settings, fake_encoder, Shard(0, 2))
    moved = shutil.copytree(corpus, tmp_path / "mounted")
    with pytest.raises(SettingsError, match=r"mounted is not in it\. Mount the documents at the same path"):
        ingest(moved, elsewhere(settings), fake_encoder, Shard(1, 2))


def test_another_encoder_and_older_words_are_refused(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(corpus, settings, fake_encoder, Shard(0, 2))
    other = FakeEncoder()
    other.fingerprint = "fake-2"  # type: ignore[misc]
    with pytest.raises(EncoderMismatchError):
        ingest(corpus, elsewhere(settings), other, Shard(1, 2))
    monkeypatch.setattr("indexer.shard_jobs.LEXICAL_VERSION", 99)
    with pytest.raises(IndexFormatError, match="once without --shard"):
        ingest(corpus, settings, fake_encoder, Shard(1, 2))


def test_a_folder_that_cannot_be_read_keeps_its_files_in_every_shard(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_shards(corpus, settings, fake_encoder)
    before = merge_shards(settings)[0].documents
    readable = os.scandir

    def scandir(path: object) -> object:
        if str(path).endswith("/ko"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return readable(path)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr("os.scandir", scandir)
        summaries = all_shards(corpus, settings, fake_encoder)
    assert sum(len(summary.skipped) for summary in summaries) == 2
    assert merge_shards(settings)[0].documents == before


def test_a_shard_may_lose_its_last_file_but_the_folder_not(
    corpus: Path, settings: Settings, fake_encoder: FakeEncoder
) -> None:
    all_shards(corpus, settings, fake_encoder)
    merge_shards(settings)
    for path in corpus.rglob("*.*"):
        if path.name != "tides.txt":
            path.unlink()
    all_shards(corpus, settings, fake_encoder)
    assert merge_shards(settings)[0].documents == 1
    (corpus / "en/tides.txt").unlink()
    shard = next(Shard(number, OF) for number in range(OF) if Shard(number, OF).owns("en/tides.txt"))
    with pytest.raises(SourceError, match="nothing was removed"):
        ingest(corpus, settings, fake_encoder, shard)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--shard", "0/2"), "--store URL"),
        (("--shard", "2/2", "--store", "http://localhost:9"), "the last of 2 is 1/2"),
        (("--shard", "0/2", "--fresh"), "every shard would drop"),
        (("--shard", "0/2", "--dry-run"), "--dry-run looks at the whole folder"),
        (("--shard", "0/2", "--engine", "ray"), "Ray makes shards by itself"),
        (("--shard", "0/2", "--late"), "indexer merge"),
        (("--workers", "2"), "--engine ray"),
        (("--address", "auto"), "--engine ray"),
        (("--engine", "ray", "--dry-run"), "leave out --shard and --engine"),
    ],
)
def test_options_that_do_not_go_together_are_explained(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], hint: str
) -> None:
    monkeypatch.setenv("PANLINGUA_HOME", str(tmp_path / "home"))
    result = CliRunner().invoke(app, ["ingest", str(corpus), *options])
    assert isinstance(result.exception, PanlinguaError)
    assert hint in str(result.exception)


def test_merging_needs_a_server(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--store URL"):
        merge_shards(load_settings(home=tmp_path))


def test_the_manifest_of_a_merge_counts_languages(corpus: Path, settings: Settings, fake_encoder: FakeEncoder) -> None:
    all_shards(corpus, settings, fake_encoder)
    manifest: IndexManifest = merge_shards(settings)[0]
    assert sum(manifest.languages.values()) == manifest.chunks
    assert {"de", "ko", "he", "ja", "th", "ar", "hi"} <= set(manifest.languages)
