"""An index on a server: its collections behind an alias, another encoder for it, and who notices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException

from indexer import build, shard_jobs
from indexer.chunking import passage_text
from indexer.passages import WORK, write_passages
from indexer.pipeline import Ingest
from indexer.reindex import reindex, roll_back
from indexer.shard_jobs import ingest_shard, merge_shards
from indexer.shards import Shard
from indexer.transfer import pull, push
from search.engine import Engine
from search.errors import (
    EncoderMismatchError,
    IndexNotFoundError,
    PanlinguaError,
    SettingsError,
    SourceError,
    StoreError,
)
from search.manifest import IndexManifest
from search.opening import OpenIndex, connect_index, load_own_encoder, name_own_encoder, open_index, server_folder
from search.records import Vectors
from search.settings import Settings
from search.store.server import ServerStore, collections_of, find_collection, read_metadata
from tests.conftest import FakeEncoder
from tests.integration.indexes import FILES, QUESTIONS, FailsAfter, Killed, OtherEncoder, answers, other

NAME = "panlingua-notes"


def client_of(server: Settings) -> QdrantClient:
    return connect_index(server)[0]


def collections(server: Settings) -> list[str]:
    return sorted(collections_of(client_of(server), NAME).values())


def ingest(where: Settings, encoder: FakeEncoder | None = None) -> tuple[int, int]:
    """Files read and unchanged."""
    summary = build.ingest(where.home.parent / "corpus", where, encoder=encoder or FakeEncoder())  # type: ignore[arg-type]
    return summary.read, summary.unchanged


def another_machine(where: Settings) -> Settings:
    """One that has ingested the same folder into the same index."""
    elsewhere = where.model_copy(update={"home": where.home.parent / "elsewhere"})
    ingest(elsewhere)
    return elsewhere


def documents(where: Settings) -> set[str]:
    with closing(open_index(where)) as opened:
        return {point.chunk.document_id for point in opened.store.iter_points()}


def open_manifest(where: Settings) -> IndexManifest:
    with closing(open_index(where)) as opened:
        return opened.manifest


def assert_own_vectors(where: Settings, encoder: FakeEncoder) -> None:
    """Every passage has the vector of its own text."""
    with closing(open_index(where)) as opened:
        points = list(opened.store.iter_points(with_vectors=True))
        expected = opened.language_map.map_documents(encoder.encode_documents([passage_text(p.chunk) for p in points]))
    np.testing.assert_allclose([point.dense for point in points], expected, atol=1e-5)


def kill(*_arguments: object, **_named: object) -> None:
    raise Killed


@pytest.fixture(params=["ingested", "pushed"])
def filled(server: Settings, request: pytest.FixtureRequest) -> Settings:
    ingest(server) if request.param == "ingested" else push(server)
    return server


def test_another_encoder_answers_as_if_it_had_ingested(filled: Settings) -> None:
    before = answers(filled)
    embedded = other(filled, "fresh").model_copy(update={"store": None})
    ingest(embedded, OtherEncoder())
    manifest = reindex(filled, OtherEncoder())
    assert (manifest.encoder, manifest.dimension, manifest.documents) == ("other", 48, len(FILES))
    assert answers(filled, OtherEncoder()) == answers(embedded, OtherEncoder())
    with pytest.raises(EncoderMismatchError, match="other"):
        answers(filled)
    with pytest.raises(SettingsError, match="already"):
        reindex(filled, OtherEncoder())
    assert ingest(filled, OtherEncoder()) == (0, len(FILES))
    assert roll_back(filled).encoder == "fake"
    assert answers(filled) == before
    assert roll_back(filled).encoder == "other"
    assert answers(filled, OtherEncoder()) == answers(embedded, OtherEncoder())
    assert len(collections(filled)) == 2
    assert not (server_folder(filled) / WORK).exists()


def test_the_old_collection_answers_until_the_new_one_is_complete(filled: Settings) -> None:
    engine = Engine(filled, FakeEncoder())  # type: ignore[arg-type]
    found: list[list[str]] = []

    class Watched(OtherEncoder):
        def encode_documents(self, texts: list[str]):  # type: ignore[no-untyped-def]
            found.append([hit.document_id for hit in engine.search(QUESTIONS[0]).hits])
            return super().encode_documents(texts)

    with closing(engine):
        before = [hit.document_id for hit in engine.search(QUESTIONS[0]).hits]
        with closing(open_index(filled)) as opened:
            reindex(filled, Watched())
            assert found == [before]
            assert opened.store.count() == opened.manifest.chunks  # what is open stays readable


def test_a_further_reindex_keeps_only_the_state_before_it(filled: Settings) -> None:
    for encoder in (OtherEncoder(), FakeEncoder(), OtherEncoder()):
        reindex(filled, encoder)
        assert len(collections(filled)) == 2
    assert roll_back(filled).encoder == "fake"


def test_what_was_ingested_since_is_read_again_after_a_roll_back(filled: Settings) -> None:
    before = answers(filled)
    corpus = filled.home.parent / "corpus"
    reindex(filled, OtherEncoder())
    changed = corpus / sorted(FILES)[0]
    changed.write_text("Moos wächst im Schatten.", encoding="utf-8")
    (corpus / "neu.txt").write_text("Farn wächst im Wald.", encoding="utf-8")
    assert ingest(filled, OtherEncoder()) == (2, len(FILES) - 1)
    roll_back(filled)
    assert answers(filled) == before
    assert ingest(filled) == (2, len(FILES) - 1)
    with closing(open_index(filled)) as opened:
        texts = [point.chunk.text for point in opened.store.iter_points()]
    assert {"Moos wächst im Schatten.", "Farn wächst im Wald."} <= set(texts)


@pytest.mark.parametrize("step", ["_begin_epoch", "write_passages", "move_alias"])
def test_a_reindex_that_was_cut_off_encodes_nothing_again(
    filled: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(filled)
    with monkeypatch.context() as patched:
        patched.setattr(f"indexer.reindex_server.{step}", kill)
        with pytest.raises(Killed):
            reindex(filled, OtherEncoder())
    assert answers(filled) == before
    assert ingest(filled) == (0, len(FILES))
    assert reindex(filled, FailsAfter(0)).encoder == "other"
    assert len(collections(filled)) == 2
    assert roll_back(filled).encoder == "fake"
    assert answers(filled) == before


def test_a_reindex_that_was_cut_off_behind_the_switch_is_made_good_by_the_next_ingest(
    filled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("indexer.reindex_server._follow", kill)
        with pytest.raises(Killed):
            reindex(filled, OtherEncoder())
    assert ingest(filled, OtherEncoder()) == (0, len(FILES))
    new = answers(filled, OtherEncoder())
    pull(filled, replace=True)
    assert answers(filled.model_copy(update={"store": None}), OtherEncoder()) == new
    assert roll_back(filled).encoder == "fake"


@pytest.mark.parametrize("step", ["move_alias", "follow_collection"])
def test_a_roll_back_that_was_cut_off(filled: Settings, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = answers(filled)
    reindex(filled, OtherEncoder())
    with monkeypatch.context() as patched:
        patched.setattr(f"indexer.reindex_server.{step}", kill)
        with pytest.raises(Killed):
            roll_back(filled)
    if step == "move_alias":
        assert ingest(filled, OtherEncoder()) == (0, len(FILES))
        assert roll_back(filled).encoder == "fake"
    assert ingest(filled) == (0, len(FILES))
    assert answers(filled) == before


def test_another_machine_goes_on_with_the_new_encoder(filled: Settings) -> None:
    elsewhere = another_machine(filled)
    reindex(filled, OtherEncoder())
    assert name_own_encoder(elsewhere).encoder == "other"
    with pytest.raises(EncoderMismatchError):
        ingest(elsewhere)
    assert ingest(elsewhere, OtherEncoder()) == (0, len(FILES))
    assert roll_back(elsewhere).encoder == "fake"
    assert ingest(elsewhere) == (0, len(FILES))
    assert ingest(filled) == (0, len(FILES))


def test_an_index_on_a_server_is_read_with_its_own_encoder_unless_one_is_named(
    filled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[str] = []
    monkeypatch.setattr("search.encoder.load_encoder", lambda name, **_options: loaded.append(name))
    load_own_encoder(filled)
    load_own_encoder(filled, fresh=True)
    load_own_encoder(Settings(**{**filled.model_dump(), "encoder": "named"}))
    load_own_encoder(other(filled, "none"))
    assert loaded == ["fake", filled.encoder, "named", filled.encoder]


def test_the_old_index_answers_until_a_push_is_complete(filled: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before, known = answers(filled), collections(filled)

    def fail(*_arguments: object) -> None:
        raise StoreError("the server is gone")

    with monkeypatch.context() as patched:
        patched.setattr(ServerStore, "upsert", fail)
        with pytest.raises(StoreError, match="gone"):
            push(filled, replace=True)
    assert answers(filled) == before
    assert collections(filled) == known
    push(filled, replace=True)
    assert collections(filled) == [f"{NAME}@{max(collections_of(client_of(filled), NAME))}"] != known
    assert answers(filled) == before


@pytest.mark.parametrize("change", [reindex, lambda where, _encoder: push(where, replace=True)])
def test_a_collection_without_an_alias_is_an_index_too(
    server: Settings,
    change: Callable[[Settings, OtherEncoder], object],
) -> None:
    """As earlier versions made them."""
    push(server)
    client, name = connect_index(server)
    found = find_collection(client, name) or ""
    points = list(ServerStore(client, found, FakeEncoder.dimension).iter_points(with_vectors=True))
    metadata = {key: value for key, value in read_metadata(client, name).items() if key in ("manifest", "language_map")}
    client.delete_collection(found)
    client.create_collection(
        name, {"dense": models.VectorParams(size=FakeEncoder.dimension, distance=models.Distance.DOT)},
        {"lexical": models.SparseVectorParams(modifier=models.Modifier.IDF)}, metadata=metadata,
    )  # fmt: skip
    ServerStore(client, name, FakeEncoder.dimension).upsert(points)
    before = answers(server)
    assert len(before) == len(answers(server.model_copy(update={"store": None})))
    change(server, OtherEncoder())
    assert find_collection(client, name) == f"{name}@2"
    with pytest.raises(IndexNotFoundError):
        roll_back(server)


def test_a_fresh_ingest_leaves_nothing_of_what_was_there(filled: Settings) -> None:
    reindex(filled, OtherEncoder())
    corpus = filled.home.parent / "corpus"
    build.ingest(corpus, filled, encoder=FakeEncoder(), fresh=True)  # type: ignore[arg-type]
    assert len(collections(filled)) == 1
    with pytest.raises(IndexNotFoundError):
        roll_back(filled)


def test_a_pull_after_a_reindex_brings_the_new_vectors(filled: Settings) -> None:
    reindex(filled, OtherEncoder())
    pull(filled, replace=True)
    embedded = filled.model_copy(update={"store": None})
    assert answers(embedded, OtherEncoder()) == answers(filled, OtherEncoder())


class Cut:
    """A client whose connection breaks with its `calls`-th call, before the server has it or after it was done."""

    def __init__(self, client: QdrantClient, done_first: bool) -> None:
        self.client, self.left, self.done_first = client, -1, done_first

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.client, name)
        return partial(self._call, found) if callable(found) and name != "close" else found

    def _call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self.left -= 1
        if self.left != 0:
            return method(*arguments, **named)
        if self.done_first:
            method(*arguments, **named)
        raise ResponseHandlingException(ConnectionError("connection reset by peer"))


DONE_BEFORE = {
    "ingest": (), "roll back": (), "push": (),
    "reindex": ("the index has the encoder other already; name another with --encoder",),
    "remove": (f"no document, file or folder {sorted(FILES)[0]!r} in the index; `indexer status --files` lists them",),
}  # fmt: skip
"""What a job says that did all of its work the last time, where the connection broke with the answer."""


def outcome_of(job: Callable[[], object]) -> str:
    """What went wrong."""
    try:
        job()
    except PanlinguaError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("done_first", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("job", ["ingest", "remove", "reindex", "roll back", "push"])
def test_a_connection_that_breaks_at_any_call_loses_and_doubles_nothing(
    server: Settings, job: str, done_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.pipeline.BATCH_CHUNKS", 2)
    push(server)
    corpus = server.home.parent / "corpus"
    gone, *kept = sorted(FILES)
    if job == "roll back":
        reindex(server, OtherEncoder())
    if job == "ingest":
        (corpus / gone).unlink()
        for number in range(5):
            (corpus / f"新{number}.txt").write_text(f"苔は日陰に{number}育つ。", encoding="utf-8")
        kept += [f"新{number}.txt" for number in range(5)]
    jobs: dict[str, Callable[[], object]] = {
        "ingest": lambda: build.ingest(corpus, server, encoder=FakeEncoder()),  # type: ignore[arg-type]
        "remove": lambda: build.remove(server, [gone]),
        "reindex": lambda: reindex(server, OtherEncoder()),
        "roll back": lambda: roll_back(server),
        "push": lambda: push(server, replace=True),
    }
    expected = {"ingest": set(kept), "remove": set(kept)}.get(job, set(FILES))
    cut = Cut(client_of(server), done_first)
    monkeypatch.setattr("search.store.server.connect", lambda *_arguments, **_options: cut)
    for calls in count(1):
        cut.left = calls
        message = outcome_of(jobs[job])
        if cut.left > 0 or message in DONE_BEFORE[job]:
            break
        cut.left = -1
        if not message:  # what was lost was an answer that can be done without
            assert job in ("reindex", "push")
            if job == "reindex":
                roll_back(server)
            continue
        assert "Check that the server runs" in message
        with closing(open_index(server)) as opened:
            found = [point.chunk.document_id for point in opened.store.iter_points()]
        assert len(found) == len(set(found))
        assert set(FILES) & expected <= set(found)
    cut.left = -1
    assert calls > 5
    with closing(open_index(server)) as opened:
        assert {point.chunk.document_id for point in opened.store.iter_points()} == expected
        assert opened.manifest.documents == len(expected)


def test_a_server_that_asks_for_patience_is_an_error_meant_for_people(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_named: object) -> None:
        raise ResourceExhaustedResponse("rate limit reached", 5)

    monkeypatch.setattr(client_of(server), "upsert", refuse)
    with pytest.raises(StoreError, match="rate limit reached"):
        ingest(server)


def test_an_ingest_across_the_reindex_of_another_machine_loses_nothing(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.pipeline.BATCH_CHUNKS", 2)
    ingest(server)
    elsewhere, corpus = another_machine(server), server.home.parent / "corpus"
    new = {f"нове{number}.txt" for number in range(6)}
    for name in new:
        (corpus / name).write_text(f"Мох росте в тіні {name}.", encoding="utf-8")
    switched: list[str] = []

    class During(FakeEncoder):
        def encode_documents(self, texts: list[str]) -> Vectors:
            if not switched:
                switched.append(reindex(server, OtherEncoder()).encoder)
            return super().encode_documents(texts)

    with pytest.raises(StoreError, match="another machine"):
        ingest(elsewhere, During())
    ingest(elsewhere, OtherEncoder())
    assert documents(server) == set(FILES) | new
    assert_own_vectors(server, OtherEncoder())


def test_what_another_machine_ingests_while_passages_are_encoded_is_in_the_new_collection(server: Settings) -> None:
    ingest(server)
    elsewhere, corpus = another_machine(server), server.home.parent / "corpus"
    gone, changed, *_ = sorted(FILES)

    class During(OtherEncoder):
        def encode_documents(self, texts: list[str]) -> Vectors:
            if (corpus / gone).exists():
                (corpus / gone).unlink()
                (corpus / changed).write_text("Moos wächst im Schatten.", encoding="utf-8")
                (corpus / "חדש.txt").write_text("טחב גדל בצל.", encoding="utf-8")
                ingest(elsewhere)
            return super().encode_documents(texts)

    manifest = reindex(server, During())
    assert documents(server) == {*FILES, "חדש.txt"} - {gone}
    assert manifest.documents == len(FILES)
    assert_own_vectors(server, OtherEncoder())
    assert ingest(elsewhere, OtherEncoder()) == (0, len(FILES))


def test_a_document_that_goes_while_the_copy_is_made_stops_it(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(server)
    before = documents(server)

    def disturbed(opened: OpenIndex, *arguments: Any) -> int:
        written = write_passages(opened, *arguments)
        opened.store.delete_documents([sorted(before)[0]])
        return written

    monkeypatch.setattr("indexer.reindex_server.write_passages", disturbed)
    with pytest.raises(StoreError, match="was changed while it was encoded"):
        reindex(server, OtherEncoder())
    assert len(collections(server)) == 1


def test_the_alias_of_another_machines_reindex_is_not_moved_back(server: Settings) -> None:
    class Third(OtherEncoder):
        name = address = "third"
        fingerprint = "third-1"

    ingest(server)
    elsewhere, corpus = another_machine(server), server.home.parent / "corpus"

    class During(OtherEncoder):
        def encode_documents(self, texts: list[str]) -> Vectors:
            if not (corpus / "新.txt").exists():
                reindex(elsewhere, Third())
                (corpus / "新.txt").write_text("苔は日陰に育つ。", encoding="utf-8")
                ingest(elsewhere, Third())
            return super().encode_documents(texts)

    with pytest.raises(StoreError, match="was changed while it was encoded"):
        reindex(server, During())
    assert documents(server) == {*FILES, "新.txt"}


def test_after_the_roll_back_of_another_machine_what_was_ingested_since_is_read_again(server: Settings) -> None:
    ingest(server)
    elsewhere, corpus = another_machine(server), server.home.parent / "corpus"
    reindex(server, OtherEncoder())
    (corpus / "새.txt").write_text("이끼는 그늘에서 자란다.", encoding="utf-8")
    assert ingest(elsewhere, OtherEncoder()) == (1, len(FILES))
    roll_back(server)
    assert ingest(elsewhere) == (1, len(FILES))
    assert documents(server) == {*FILES, "새.txt"}
    assert roll_back(elsewhere).encoder == "other"  # both collections hold it now
    assert ingest(elsewhere, OtherEncoder())[0] in (0, len(FILES) + 1)
    assert documents(server) == {*FILES, "새.txt"}


def test_a_reader_notices_a_push_of_the_same_index(server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    push(server)
    monkeypatch.setattr("search.opening._SERVER_POLL_S", 0.0)
    engine = Engine(server, FakeEncoder())  # type: ignore[arg-type]
    with closing(engine):
        before = engine.search(QUESTIONS[0]).hits
        push(server, replace=True)
        assert [hit.document_id for hit in engine.search(QUESTIONS[0]).hits] == [hit.document_id for hit in before]


def test_what_a_push_left_is_not_taken_for_an_index(server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("indexer.transfer.write_metadata", kill)
        patched.setattr("indexer.transfer.drop_others", lambda *_arguments: None)
        with pytest.raises(Killed):
            push(server)
    corpus = server.home.parent / "corpus"
    (corpus / sorted(FILES)[0]).unlink()
    ingest(server)
    assert documents(server) == set(sorted(FILES)[1:])
    push(server, replace=True)
    assert len(collections(server)) == 1


@pytest.mark.parametrize("name", ["no such document", sorted(FILES)[0]])
def test_a_removal_by_a_machine_that_did_not_ingest_counts_right(server: Settings, name: str) -> None:
    ingest(server)
    elsewhere = server.model_copy(update={"home": server.home.parent / "elsewhere"})
    known = read_metadata(*connect_index(server))
    try:
        removed = build.remove(elsewhere, [name])
    except SourceError:
        removed = []
    found = read_metadata(*connect_index(server))
    assert removed == ([name] if name in FILES else [])
    assert found["roots"] == known["roots"]
    with closing(open_index(server)) as opened:
        assert opened.manifest.documents == len(FILES) - len(removed)


def test_an_index_on_a_server_cannot_be_called_like_a_collection(server: Settings) -> None:
    with pytest.raises(SettingsError, match="cannot be called"):
        ingest(other(server, "notes@1"))


class Third(FakeEncoder):
    """Another space of the same length."""

    name = address = "third"
    fingerprint = "third-1"

    def encode_queries(self, texts: list[str]) -> Vectors:
        return np.roll(super().encode_queries(texts), 5, axis=1)


def test_a_roll_back_does_not_go_forward_to_what_is_being_made(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(server)
    elsewhere = another_machine(server)
    reindex(server, OtherEncoder())
    monkeypatch.setattr("indexer.reindex_server.wait_until_indexed", lambda _store: roll_back(elsewhere))
    with pytest.raises(StoreError, match="was changed"):
        reindex(server, Third())
    assert open_manifest(server).encoder == "fake"
    assert ingest(server) == ingest(elsewhere) == (0, len(FILES))
    assert_own_vectors(server, FakeEncoder())


def test_what_a_reindex_left_is_not_rolled_back_to(server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(server)
    reindex(server, OtherEncoder())
    with monkeypatch.context() as patched:
        patched.setattr("indexer.reindex_server.move_alias", kill)
        patched.setattr("indexer.reindex_server.drop_others", lambda *_arguments: None)
        with pytest.raises(Killed):
            reindex(server, Third())
    assert len(collections(server)) == 3
    assert roll_back(server).encoder == "fake"


def test_folders_keep_their_names_where_a_machine_lost_track(server: Settings) -> None:
    for name in ("A", "B"):
        folder = server.home.parent / name
        folder.mkdir()
        (folder / "x.txt").write_text(f"In {name} wächst Moos.", encoding="utf-8")
        (folder / f"{name}.txt").write_text(f"Nur in {name} wächst Farn.", encoding="utf-8")
        build.ingest(folder, server, encoder=FakeEncoder())  # type: ignore[arg-type]
    before = documents(server)
    elsewhere = server.model_copy(update={"home": server.home.parent / "elsewhere"})
    reindex(elsewhere, OtherEncoder())
    reindex(elsewhere, FakeEncoder())
    (server.home.parent / "B" / "B.txt").unlink()
    for name in ("B", "A"):
        build.ingest(server.home.parent / name, server, encoder=FakeEncoder())  # type: ignore[arg-type]
    assert documents(server) == before - {"B/B.txt"}


@pytest.mark.parametrize("step", ["before", "behind"])
def test_an_ingest_beside_a_fresh_one_of_another_machine(
    server: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.pipeline.BATCH_CHUNKS", 2)
    ingest(server)
    elsewhere, corpus = another_machine(server), server.home.parent / "corpus"
    for number in range(6):
        (corpus / f"новый{number}.txt").write_text(f"Мох растёт в тени {number}.", encoding="utf-8")
    done, delete = list[str](), ServerStore.delete_documents

    def disturbed(store: ServerStore, names: Sequence[str]) -> None:
        if step == "behind":
            delete(store, names)
        if not done:
            done.append("fresh")
            build.ingest(corpus, server, encoder=Third(), fresh=True)  # type: ignore[arg-type]
        if step == "before":
            delete(store, names)

    monkeypatch.setattr(ServerStore, "delete_documents", disturbed)
    with pytest.raises(StoreError):
        ingest(elsewhere)
    assert open_manifest(server).encoder == "third"
    assert_own_vectors(server, Third())
    assert documents(server) == {*FILES, *(f"новый{number}.txt" for number in range(6))}
    assert ingest(server, Third()) == (0, len(FILES) + 6)


def test_shards_are_not_merged_into_another_machines_fresh_index(server: Settings) -> None:
    corpus, elsewhere = server.home.parent / "corpus", server.model_copy(update={"home": server.home.parent / "else"})
    for number in range(2):
        ingest_shard(corpus, server, Shard(number, 2), encoder=FakeEncoder())  # type: ignore[arg-type]
    build.ingest(corpus, elsewhere, encoder=FakeEncoder(), fresh=True)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="run the shards again"):
        merge_shards(server)
    assert documents(elsewhere) == set(FILES)
    for number in range(2):
        ingest_shard(corpus, server, Shard(number, 2), encoder=FakeEncoder())  # type: ignore[arg-type]
    merge_shards(server)
    assert documents(elsewhere) == set(FILES)


def test_a_shard_that_begins_late_does_not_write_into_another_encoders_collection(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(server)
    corpus, elsewhere = server.home.parent / "corpus", another_machine(server)
    (corpus / "新.txt").write_text("苔は日陰に育つ。", encoding="utf-8")
    begin = shard_jobs.begin

    def late(*arguments: Any) -> Any:
        begun = begin(*arguments)
        reindex(elsewhere, Third())
        return begun

    monkeypatch.setattr("indexer.shard_jobs.begin", late)
    with pytest.raises(SettingsError, match="run the shards again"):
        ingest_shard(corpus, server, Shard(0, 1), encoder=FakeEncoder())  # type: ignore[arg-type]
    assert_own_vectors(server, Third())


def test_a_machine_that_is_killed_while_it_follows_goes_on(server: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(server)
    elsewhere = another_machine(server)
    reindex(server, OtherEncoder())
    with monkeypatch.context() as patched:
        patched.setattr("indexer.side_files._of_collection", kill)
        with pytest.raises(Killed):
            ingest(elsewhere, OtherEncoder())
    assert ingest(elsewhere, OtherEncoder()) == (0, len(FILES))
    roll_back(server)
    assert ingest(elsewhere) == (0, len(FILES))


def test_a_record_that_went_while_another_machine_switched_is_removed(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = server.home.parent / "corpus" / "f.jsonl"
    rows = ['{"id": "k1", "text": "Moos wächst im Schatten."}', '{"id": "k2", "text": "Farn wächst im Wald."}']
    table.write_text("\n".join(rows), encoding="utf-8")
    ingest(server)
    elsewhere, read, done = another_machine(server), Ingest._read_file, list[str]()

    def disturbed(job: Ingest, *arguments: Any) -> None:
        if not done:
            done.append(reindex(server, OtherEncoder()).encoder)
        read(job, *arguments)

    table.write_text(rows[0], encoding="utf-8")
    monkeypatch.setattr(Ingest, "_read_file", disturbed)
    with pytest.raises(StoreError, match="another machine"):
        ingest(elsewhere)
    ingest(elsewhere, OtherEncoder())
    assert documents(server) == {*FILES, "f.jsonl#k1"}


@pytest.mark.parametrize("step", ["move_alias", "copy_side_files"])
def test_a_push_that_is_killed_at_its_end_loses_nothing(
    server: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(server)
    corpus = server.home.parent / "corpus"
    pull(server, replace=True)
    (corpus / "新.txt").write_text("苔は日陰に育つ。", encoding="utf-8")
    ingest(server.model_copy(update={"store": None}))
    with monkeypatch.context() as patched:
        patched.setattr(f"indexer.transfer.{step}", kill)
        patched.setattr("indexer.transfer.drop_others", lambda *_arguments: None)
        with pytest.raises(Killed):
            push(server, replace=True)
    (corpus / sorted(FILES)[0]).unlink()
    ingest(server)
    assert documents(server) == {*FILES, "新.txt"} - {sorted(FILES)[0]}


def test_a_collection_that_was_an_index_is_not_taken_for_a_new_one(server: Settings) -> None:
    ingest(server)
    reindex(server, OtherEncoder())
    client_of(server).delete_collection(find_collection(client_of(server), NAME) or "")
    with pytest.raises(StoreError, match="--replace"):
        ingest(server, Third())
    build.ingest(server.home.parent / "corpus", server, encoder=Third(), fresh=True)  # type: ignore[arg-type]
    assert_own_vectors(server, Third())


def test_a_removal_on_a_server_leaves_an_unfinished_local_ingest_alone(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest(server)
    (server.home.parent / "corpus" / "新.txt").write_text("苔は日陰に育つ。", encoding="utf-8")
    with monkeypatch.context() as patched:
        patched.setattr("indexer.build.finish", kill)
        with pytest.raises(Killed):
            ingest(server.model_copy(update={"store": None}))
    assert build.remove(server, [sorted(FILES)[0]]) == [sorted(FILES)[0]]
    assert open_manifest(server).documents == len(FILES) - 1
