"""The fault harness: it passes on a few rounds, and notices what it is there to notice."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.faults import HashEncoder, Outcome, World, break_network, check, read_index, run_rounds
from indexer import build
from indexer.ledger import Ledger
from search.index import LEDGER, IndexFolder
from search.records import Filter, Match
from search.store.edge import EdgeStore


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path, random.Random(1))
    for n in range(12):
        world.write(f"文書 {n}.txt")
    build.ingest(world.corpus, world.settings, encoder=HashEncoder("hash-a"))  # type: ignore[arg-type]
    return world


@pytest.mark.slow
def test_a_few_rounds_find_no_problem(world: World) -> None:
    outcome = Outcome()
    run_rounds(world, 6, outcome, lambda line: None)
    assert outcome.problems == []
    assert sum(outcome.ends.values()) >= 6
    assert any(end == "killed" for _, end in outcome.ends)


def test_an_index_in_order_raises_no_problem(world: World) -> None:
    outcome = Outcome()
    assert check(world, dict(world.files), set(), outcome, "here") == world.files
    assert outcome.problems == []


def test_lost_documents_are_noticed(world: World) -> None:
    outcome, known = Outcome(), dict(world.files)
    build.remove(world.settings, ["文書 3.txt"])
    check(world, known, set(), outcome, "here")
    assert outcome.problems == ["here: lost ['文書 3.txt']"]
    check(world, known, {"文書 3.txt"}, outcome, "told")
    assert len(outcome.problems) == 1


def test_texts_that_no_file_had_are_noticed(world: World) -> None:
    outcome = Outcome()
    known = dict(world.files)
    world.versions["文書 3.txt"] = {"something else"}
    check(world, known, set(), outcome, "here")
    assert outcome.problems == ["here: no version of its file: ['文書 3.txt']"]


def test_a_ledger_out_of_step_is_noticed(world: World) -> None:
    ledger = Ledger(IndexFolder(world.settings.index_folder).current().path / LEDGER)
    ledger.drop_documents(["文書 5.txt"])
    ledger.close()
    with pytest.raises(ValueError, match="the ledger says"):
        read_index(world.settings)


def test_chunks_that_went_missing_are_noticed(world: World) -> None:
    generation = IndexFolder(world.settings.index_folder).current()
    store = EdgeStore(generation.path / "shard", generation.manifest.dimension)
    store.delete_documents(["文書 5.txt"])
    assert store.count(Filter((Match("document_id", ("文書 5.txt",)),))) == 0
    store.flush()
    store.close()
    with pytest.raises(ValueError, match="11 documents"):
        read_index(world.settings)


def test_a_server_that_is_gone_is_an_error_that_says_what_to_do(world: World) -> None:
    outcome = Outcome()
    break_network(outcome, world.folder)
    assert {end for _, end in outcome.ends} == {"error that says what to do"}
    assert len(outcome.ends) == 2
