"""A server that is killed, or cut off, in the middle of a job; and what the rounds of faults are there to notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.server_faults import (
    OPTIONS,
    WHAT_TO_DO,
    Outcome,
    ServerWorld,
    SubjectEncoder,
    ask,
    make_world,
    open_reader,
    require_exact,
    run_rounds,
)
from indexer import build
from indexer.reindex import reindex
from indexer.transfer import push
from search.errors import StoreError
from search.opening import connect_index, open_index
from search.records import Point
from search.store.server import ServerStore
from tests.integration import breaking


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[breaking.Killed]:
    with breaking.running(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def world(server: breaking.Killed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerWorld]:
    monkeypatch.setattr("indexer.pipeline.BATCH_CHUNKS", 8)
    monkeypatch.setattr("indexer.transfer.READERS_NOTICE_S", 0.0)
    monkeypatch.setattr("search.opening._SERVER_POLL_S", 0.0)
    world = make_world(tmp_path / "world", server.url, 1, 3)
    ingest(world)
    yield world
    server.cut()
    server.mend()
    client, _ = connect_index(world.settings)
    with closing(client):
        for found in client.get_collections().collections:
            client.delete_collection(found.name)


def ingest(world: ServerWorld) -> None:
    build.ingest(world.corpus, world.settings, options=OPTIONS, encoder=SubjectEncoder("hash-a"))  # type: ignore[arg-type]


def problems(world: ServerWorld, documents: dict[str, str]) -> list[str]:
    outcome = Outcome()
    require_exact(world, documents, outcome, "here")
    return outcome.problems


JOBS: dict[str, Callable[[ServerWorld], object]] = {
    "ingest": ingest,
    "reindex": lambda world: reindex(world.settings, SubjectEncoder("hash-b")),
    "push": lambda world: push(world.settings, replace=True),
}


@pytest.mark.parametrize(
    ("job", "step"),
    [
        ("ingest", "upsert"),
        ("ingest", "write_notes"),
        *(pytest.param(job, step, marks=pytest.mark.slow)
          for job in ("reindex", "push") for step in ("upsert", "write_notes")),
    ],
)  # fmt: skip
def test_a_server_that_is_killed_in_mid_job_loses_and_doubles_nothing(
    world: ServerWorld, server: breaking.Killed, job: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.change()
    if job == "push":
        build.ingest(world.corpus, world.embedded, options=OPTIONS, encoder=SubjectEncoder("hash-a"))  # type: ignore[arg-type]
    before = world.read()
    write, calls = getattr(ServerStore, step), list[int]()

    def killed_before(store: ServerStore, rows: Any) -> None:
        calls.append(len(rows))
        if len(calls) == (2 if (job, step) == ("ingest", "upsert") else 1):
            server.cut()
        write(store, rows)

    with closing(open_reader(world)) as reader:
        name, _ = min(before.items() & world.files.items())
        assert ask(reader, name) == "found"
        with monkeypatch.context() as patched:
            patched.setattr(ServerStore, step, killed_before)
            with pytest.raises(StoreError, match=WHAT_TO_DO):
                JOBS[job](world)
            assert ask(reader, name) == "error that says what to do"
        server.mend()
        assert ask(reader, name) == "found"
    now = world.read()
    assert now.items() >= before.items() & world.files.items()
    assert now == before or job == "ingest"
    JOBS[job](world)
    assert problems(world, before if job == "reindex" else world.files) == []


@pytest.mark.parametrize("kind", ["server", "wire"])
def test_an_ingest_goes_on_when_the_server_was_away_between_two_calls(
    world: ServerWorld, server: breaking.Killed, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = breaking.Wire(server.port) if kind == "wire" else server
    world.url = away.url
    ingest(world)
    world.change()
    upsert, cuts = ServerStore.upsert, list[int]()

    def away_before(store: ServerStore, points: Sequence[Point]) -> None:
        away.cut()
        away.mend()
        cuts.append(len(points))
        upsert(store, points)

    monkeypatch.setattr(ServerStore, "upsert", away_before)
    ingest(world)
    assert len(cuts) > 1
    assert problems(world, world.files) == []


def test_what_is_lost_or_doubled_or_of_another_is_noticed(world: ServerWorld) -> None:
    assert problems(world, world.files) == []
    first, *_, last = sorted(world.files)
    with closing(open_index(world.settings)) as opened:
        store = opened.store
        assert isinstance(store, ServerStore)
        points = [point for point in store.iter_points(with_vectors=True) if point.chunk.document_id == first]
        store.upsert(points)
        assert "translations" in problems(world, world.files)[0]  # the note went with the passage
        store.upsert([Point(point.chunk, -point.dense, point.sparse) for point in points])
        with pytest.raises(ValueError, match="the vector of another"):
            world.read()
        store.upsert(points)
        store.delete_documents([last])
        with pytest.raises(ValueError, match=f"passages of {last}"):
            world.read()


@pytest.mark.slow
def test_a_few_rounds_find_no_problem(world: ServerWorld, server: breaking.Killed) -> None:
    outcome = Outcome()
    run_rounds(world, server, 6, outcome, "killed")
    assert outcome.problems == []
    assert sum(outcome.ends.values()) == 6
