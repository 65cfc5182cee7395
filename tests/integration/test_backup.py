"""Backups, the way to a server and back, and another encoder: what comes back answers as before."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer import build
from indexer.backup import CONTENTS, backup, restore, verify
from indexer.passages import PREVIOUS, WORK
from indexer.reindex import reindex, roll_back
from indexer.transfer import pull, push
from search.engine import Engine
from search.errors import (
    EncoderMismatchError,
    IndexBusyError,
    IndexFormatError,
    IndexNotFoundError,
    SettingsError,
    StoreError,
)
from search.files import allocated_bytes
from search.index import IndexFolder
from search.opening import server_folder
from search.settings import Settings
from tests.conftest import FakeEncoder
from tests.integration.indexes import FILES, FailsAfter, Killed, OtherEncoder, answers, other


def add_file(settings: Settings, name: str, text: str) -> None:
    corpus = settings.home.parent / "corpus"
    (corpus / name).write_text(text, encoding="utf-8")
    build.ingest(corpus, settings, encoder=FakeEncoder())  # type: ignore[arg-type]


def test_a_restored_index_answers_as_the_one_that_was_backed_up(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "notes.tar.gz"
    contents = backup(settings, file)
    assert contents.index.documents == len(FILES)
    assert verify(file) == contents
    restore(other(settings, "copy"), file)
    assert answers(other(settings, "copy")) == answers(settings)
    again = build.ingest(tmp_path / "corpus", other(settings, "copy"), encoder=FakeEncoder())  # type: ignore[arg-type]
    assert (again.read, again.unchanged) == (0, len(FILES))
    taken = [allocated_bytes(IndexFolder(s.index_folder).current().path) for s in (settings, other(settings, "copy"))]
    assert taken[1] <= 1.5 * taken[0]  # holes are holes again; filled, it is twenty times as much


def test_a_backup_replaces_only_what_it_is_told_to(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "notes.tar.gz"
    backup(settings, file)
    before = answers(settings)
    with pytest.raises(SettingsError, match="--replace"):
        backup(settings, file)
    with pytest.raises(SettingsError, match="--replace"):
        restore(settings, file)
    add_file(settings, "neu.txt", "Moos wächst im Schatten.")
    assert answers(settings) != before
    engine = Engine(settings, FakeEncoder())  # type: ignore[arg-type]
    assert engine.search("Moos").hits[0].document_id == "neu.txt"
    restore(settings, file, replace=True)
    assert answers(settings) == before
    assert engine.search("Moos", k=20).hits[0].document_id != "neu.txt"
    engine.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_no_backup_where_there_is_no_index_or_no_room(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(IndexNotFoundError, match="indexer ingest"):
        backup(other(settings, "none"), tmp_path / "x.tar.gz")
    with pytest.raises(StoreError, match="cannot be written"):
        backup(settings, tmp_path / "no such folder" / "x.tar.gz")
    with pytest.raises(SettingsError, match="snapshots"):
        backup(settings.model_copy(update={"store": "http://localhost:6333"}), tmp_path / "x.tar.gz")
    with pytest.raises(IndexFormatError, match="cannot be read"):
        restore(other(settings, "copy"), tmp_path / "none.tar.gz")


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flip(data: bytes) -> bytes:
    """One bit changed that matters: where zeros are packed as "copy from before", most bits give the same zeros."""
    plain = gzip.decompress(data)
    for place in range(len(data) // 2, len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            if gzip.decompress(changed) != plain:
                return changed
        except (OSError, EOFError, zlib.error):
            return changed
    raise AssertionError("no bit matters")


def _without_end(data: bytes) -> bytes:
    return gzip.compress(gzip.decompress(data).partition(CONTENTS.encode())[0])


def _other_text(data: bytes) -> bytes:
    """A change that gzip and tar do not notice: bytes of a vector file."""
    plain = bytearray(gzip.decompress(data))
    place = plain.find("温泉".encode())
    plain[place : place + 3] = "冷".encode()
    return gzip.compress(bytes(plain))


@pytest.mark.parametrize(
    "damage", [_cut, _flip, _without_end, _other_text, lambda data: b"no backup", lambda data: b""]
)
def test_a_damaged_backup_is_not_restored(settings: Settings, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    file = tmp_path / "notes.tar.gz"
    backup(settings, file)
    file.write_bytes(damage(file.read_bytes()))
    before = answers(settings)
    with pytest.raises(IndexFormatError, match="damaged"):
        verify(file)
    for target in (settings, other(settings, "copy")):
        with pytest.raises(IndexFormatError, match="damaged"):
            restore(target, file, replace=True)
    assert answers(settings) == before
    assert IndexFolder(other(settings, "copy").index_folder).current_number() is None
    assert not IndexFolder(settings.index_folder).building.exists()


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside", "a\\b"])
def test_a_backup_that_was_made_to_write_elsewhere_is_refused(settings: Settings, tmp_path: Path, name: str) -> None:
    file = tmp_path / "evil.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = 4
        archive.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(IndexFormatError, match="no backup has"):
        restore(other(settings, "copy"), file)
    assert not list(tmp_path.rglob("outside*"))


def test_a_link_in_a_backup_is_refused(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "evil.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        member = tarfile.TarInfo("shard")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(member)
    with pytest.raises(IndexFormatError, match="no backup has"):
        restore(other(settings, "copy"), file)


def test_an_index_goes_to_a_server_and_back_without_encoding(settings: Settings, server: Settings) -> None:
    before = answers(settings)
    push(server)
    assert answers(server) == before
    with pytest.raises(SettingsError, match="--replace"):
        push(server)
    back = other(server, "notes").model_copy(update={"home": settings.home.parent / "elsewhere"})
    pull(back)  # another machine: no ledger there
    assert answers(back.model_copy(update={"store": None})) == before
    push(server, replace=True)
    assert answers(server) == before


def test_an_ingest_goes_on_where_a_push_and_a_pull_left_off(settings: Settings, server: Settings) -> None:
    corpus, encoder = settings.home.parent / "corpus", FakeEncoder()
    push(server)
    (corpus / "neu.txt").write_text("Moos wächst im Schatten.", encoding="utf-8")
    summary = build.ingest(corpus, server, encoder=encoder)  # type: ignore[arg-type]
    assert (summary.read, summary.unchanged, len(encoder.encoded)) == (1, len(FILES), 1)
    with pytest.raises(SettingsError, match="--replace"):
        pull(server)
    pull(server, replace=True)
    assert answers(settings) == answers(server)
    again = build.ingest(corpus, settings, encoder=encoder)  # type: ignore[arg-type]
    assert (again.read, again.unchanged) == (0, len(FILES) + 1)


def test_after_a_pull_without_ledger_the_next_ingest_reads_everything_and_drops_what_is_gone(
    settings: Settings, server: Settings
) -> None:
    push(server)
    (server_folder(server) / "ledger.sqlite").unlink()
    pull(server, replace=True)
    corpus = settings.home.parent / "corpus"
    (corpus / "ja/温泉.txt").unlink()
    summary = build.ingest(corpus, settings, encoder=FakeEncoder())  # type: ignore[arg-type]
    assert (summary.read, summary.removed) == (len(FILES) - 1, 1)
    assert {document for document, _ in answers(settings)} == set(FILES) - {"ja/温泉.txt"}


def test_a_server_must_be_named_and_have_the_index(settings: Settings, server: Settings) -> None:
    with pytest.raises(SettingsError, match="--store"):
        push(settings)
    with pytest.raises(SettingsError, match="--store"):
        pull(settings)
    with pytest.raises(IndexNotFoundError):
        pull(other(server, "none"))
    with pytest.raises(IndexNotFoundError):
        push(other(server, "none"))


def test_another_encoder_answers_as_if_it_had_ingested(settings: Settings, tmp_path: Path) -> None:
    fresh = other(settings, "fresh")
    build.ingest(tmp_path / "corpus", fresh, encoder=OtherEncoder())  # type: ignore[arg-type]
    before = answers(settings)
    manifest = reindex(settings, OtherEncoder())
    assert (manifest.encoder, manifest.dimension, manifest.documents) == ("other", 48, len(FILES))
    assert answers(settings, OtherEncoder()) == answers(fresh, OtherEncoder())
    with pytest.raises(EncoderMismatchError, match="other"):
        answers(settings)
    with pytest.raises(SettingsError, match="already"):
        reindex(settings, OtherEncoder())
    again = build.ingest(tmp_path / "corpus", settings, encoder=OtherEncoder())  # type: ignore[arg-type]
    assert (again.read, again.unchanged) == (0, len(FILES))
    assert roll_back(settings).encoder == "fake"
    assert answers(settings) == before
    assert roll_back(settings).encoder == "other"
    assert answers(settings, OtherEncoder()) == answers(fresh, OtherEncoder())


@pytest.mark.parametrize("step", ["update_families", "_set_aside", "_keep"])
def test_a_reindex_that_was_cut_off_after_encoding_encodes_nothing_again(
    settings: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_arguments: object, **_named: object) -> None:
        raise Killed

    before = answers(settings)
    with monkeypatch.context() as patched:
        patched.setattr(f"indexer.reindex.{step}", killed)
        with pytest.raises(Killed):
            reindex(settings, OtherEncoder())
    if step == "_keep":  # the new state was current by then
        assert {document for document, _ in answers(settings, OtherEncoder())} == set(FILES)
        return
    assert answers(settings) == before
    assert reindex(settings, FailsAfter(0)).encoder == "other"
    assert roll_back(settings).encoder == "fake"


def test_a_roll_back_that_was_cut_off_is_made_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_arguments: object) -> None:
        raise Killed

    before = answers(settings)
    reindex(settings, OtherEncoder())
    with monkeypatch.context() as patched:
        patched.setattr("indexer.reindex._set_aside", killed)
        with pytest.raises(Killed):
            roll_back(settings)
    assert roll_back(settings).encoder == "fake"
    assert answers(settings) == before


def test_a_reindex_that_was_cut_off_goes_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.passages.BATCH", 2)
    before = answers(settings)
    with pytest.raises(Killed):
        reindex(settings, FailsAfter(2))
    assert answers(settings) == before
    work = IndexFolder(settings.index_folder).path / WORK
    vectors = work / "vectors.f32"
    assert vectors.stat().st_size == 4 * 48 * 4
    with vectors.open("ab") as file:
        file.write(b"half a vector")
    encoder = OtherEncoder()
    reindex(settings, encoder)
    assert len(encoder.encoded) == len(FILES) - 4
    assert not work.exists()
    fresh = other(settings, "fresh")
    build.ingest(tmp_path / "corpus", fresh, encoder=OtherEncoder())  # type: ignore[arg-type]
    assert answers(settings, OtherEncoder()) == answers(fresh, OtherEncoder())


def test_a_reindex_goes_on_when_the_index_changed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.passages.BATCH", 2)
    with pytest.raises(Killed):
        reindex(settings, FailsAfter(2))
    add_file(settings, "neu.txt", "Moos wächst im Schatten.")
    encoder = OtherEncoder()
    assert reindex(settings, encoder).documents == len(FILES) + 1
    assert len(encoder.encoded) == len(FILES) + 1 - 4


def test_what_a_reindex_keeps_is_not_changed_by_later_ingests(settings: Settings) -> None:
    before = answers(settings)
    reindex(settings, OtherEncoder())
    corpus = settings.home.parent / "corpus"
    (corpus / "neu.txt").write_text("Moos wächst im Schatten.", encoding="utf-8")
    build.ingest(corpus, settings, encoder=OtherEncoder())  # type: ignore[arg-type]
    roll_back(settings)
    assert answers(settings) == before
    assert (IndexFolder(settings.index_folder).path / PREVIOUS).is_dir()


def test_nothing_to_roll_back_to_and_nobody_else_writing(settings: Settings) -> None:
    with pytest.raises(IndexNotFoundError, match="reindex"):
        roll_back(settings)
    with IndexFolder(settings.index_folder).write_lock(), pytest.raises(IndexBusyError, match=str(os.getpid())):
        reindex(settings, OtherEncoder())
