"""An index on a server: its collections behind an alias, another encoder for it, and who notices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any

import pytest
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ResponseHandlingException

from indexer import build
from indexer.passages import WORK
from indexer.reindex import reindex, roll_back
from indexer.transfer import pull, push
from search.engine import Engine
from search.errors import EncoderMismatchError, IndexNotFoundError, PanlinguaError, SettingsError, StoreError
from search.opening import connect_index, load_own_encoder, name_own_encoder, open_index, server_folder
from search.settings import Settings
from search.store.server import ServerStore, collections_of, find_collection, read_metadata, write_metadata
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


@pytest.mark.parametrize("step", ["write_metadata", "_keep", "move_alias"])
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
    with closing(open_index(filled)) as opened:
        updated = opened.manifest.updated
    kept = server_folder(filled) / WORK / "started"
    kept.write_text(f"{find_collection(client_of(filled), NAME)} {updated} other-1", encoding="utf-8")
    assert reindex(filled, FailsAfter(0)).encoder == "other"
    assert len(collections(filled)) == 2
    assert roll_back(filled).encoder == "fake"
    assert answers(filled) == before


def test_a_reindex_that_was_cut_off_behind_the_switch_is_made_good_by_the_next_ingest(
    filled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("indexer.reindex_server._renew_side_files", kill)
        with pytest.raises(Killed):
            reindex(filled, OtherEncoder())
    assert ingest(filled, OtherEncoder()) == (0, len(FILES))
    new = answers(filled, OtherEncoder())
    pull(filled, replace=True)
    assert answers(filled.model_copy(update={"store": None}), OtherEncoder()) == new
    assert roll_back(filled).encoder == "fake"


@pytest.mark.parametrize("step", ["copy_side_files", "move_alias", "_keep"])
def test_a_roll_back_that_was_cut_off_is_made_again(
    filled: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(filled)
    reindex(filled, OtherEncoder())
    with monkeypatch.context() as patched:
        patched.setattr(f"indexer.reindex_server.{step}", kill)
        with pytest.raises(Killed):
            roll_back(filled)
    if step == "_keep":  # the old state is back by then
        assert answers(filled) == before
    else:
        assert ingest(filled, OtherEncoder()) == (0, len(FILES))
    assert roll_back(filled).encoder == "fake"
    assert answers(filled) == before
    assert ingest(filled) == (0, len(FILES))


def test_a_collection_that_changes_meanwhile_is_not_replaced(filled: Settings) -> None:
    client, name = connect_index(filled)

    class Disturbed(OtherEncoder):
        def encode_documents(self, texts: list[str]):  # type: ignore[no-untyped-def]
            write_metadata(client, name, {"roots": "[]"})  # as another machine's ingest does at its end
            return super().encode_documents(texts)

    before, known = answers(filled), collections(filled)
    with pytest.raises(StoreError, match="again"):
        reindex(filled, Disturbed())
    assert answers(filled) == before
    assert collections(filled) == known


def test_another_machine_goes_on_with_the_new_encoder(filled: Settings) -> None:
    elsewhere = filled.model_copy(update={"home": filled.home.parent / "elsewhere"})
    ingest(elsewhere)
    reindex(filled, OtherEncoder())
    assert name_own_encoder(elsewhere).encoder == "other"
    with pytest.raises(EncoderMismatchError):
        ingest(elsewhere)
    assert ingest(elsewhere, OtherEncoder()) == (0, len(FILES))
    with pytest.raises(IndexNotFoundError, match="the machine that ran"):
        roll_back(elsewhere)


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
    assert collections(filled) == [f"{NAME}@{int(known[-1][-1]) + 1}"]
    assert answers(filled) == before


@pytest.mark.parametrize("change", [reindex, lambda where, _encoder: push(where, replace=True)])
def test_a_collection_without_an_alias_is_an_index_too(
    server: Settings,
    change: Callable[[Settings, OtherEncoder], object],
) -> None:
    """As earlier versions made them."""
    push(server)
    client, name = connect_index(server)
    kept = ServerStore(client, f"{name}@1", FakeEncoder.dimension)
    points, metadata = list(kept.iter_points(with_vectors=True)), read_metadata(client, name)
    client.delete_collection(f"{name}@1")
    ServerStore(client, name, FakeEncoder.dimension).upsert(points)
    client.update_collection(name, metadata=metadata)
    before = answers(server)
    assert len(before) == len(answers(server.model_copy(update={"store": None})))
    change(server, OtherEncoder())
    assert find_collection(client, name) == f"{name}@1"
    with pytest.raises(IndexNotFoundError):
        roll_back(server)


def test_a_fresh_ingest_leaves_nothing_of_what_was_there(filled: Settings) -> None:
    reindex(filled, OtherEncoder())
    corpus = filled.home.parent / "corpus"
    build.ingest(corpus, filled, encoder=FakeEncoder(), fresh=True)  # type: ignore[arg-type]
    assert collections(filled) == [f"{NAME}@1"]
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
        assert "Check that the server runs" in message
        cut.left = -1
        with closing(open_index(server)) as opened:
            found = [point.chunk.document_id for point in opened.store.iter_points()]
        assert len(found) == len(set(found))
        assert set(FILES) & expected <= set(found)
    cut.left = -1
    assert calls > 5
    with closing(open_index(server)) as opened:
        assert {point.chunk.document_id for point in opened.store.iter_points()} == expected
        assert opened.manifest.documents == len(expected)
