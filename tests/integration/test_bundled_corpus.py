"""The bundled corpus in all its scripts, ingested and searched with the built-in encoder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer import build
from indexer.pipeline import Summary
from search.encoder import Encoder, load_encoder
from search.engine import Engine
from search.evaluation.metrics import average_precision, own_language_share, recall_at_k
from search.results import Mode
from search.settings import Settings, load_settings
from search.text import dominant_script

Queries = list[dict[str, Any]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(index=str(tmp_path_factory.mktemp("bundled") / "index"))


@pytest.fixture(scope="module")
def summary(settings: Settings, real_encoder: Encoder, repository: Path) -> Summary:
    return build.ingest(repository / "corpus" / "documents", settings, encoder=real_encoder)


@pytest.fixture(scope="module")
def engine(settings: Settings, summary: Summary, real_encoder: Encoder) -> Iterator[Engine]:
    assert summary.documents > 0
    engine = Engine(settings, real_encoder)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def queries(repository: Path) -> Queries:
    lines = (repository / "corpus" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def evaluate(engine: Engine, queries: Queries, **options: Any) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for query in queries:
        hits = engine.search(query["text"], k=20, fold=False, **options).hits
        ranked = [hit.document_id for hit in hits]
        sums["recall@10"] += recall_at_k(ranked, query["relevant"], 10)
        sums["map"] += average_precision(ranked, query["relevant"])
        sums["own@10"] += own_language_share([hit.chunk.lang for hit in hits], query["lang"])
    return {name: value / len(queries) for name, value in sums.items()}


def test_every_document_is_kept(summary: Summary) -> None:
    assert summary.skipped == []
    assert summary.documents >= 120


def test_languages_are_recognised(engine: Engine, repository: Path) -> None:
    right = total = 0
    for point in engine.index().store.iter_points():
        folder = point.chunk.source.split("/")[0]
        if folder not in ("mixed", "news"):
            total += 1
            right += point.chunk.lang == folder
    assert right / total >= 0.95


def test_queries_find_their_documents_across_languages(engine: Engine, queries: Queries) -> None:
    hybrid = evaluate(engine, queries)
    assert hybrid["recall@10"] >= 0.85
    assert hybrid["map"] >= 0.65


def test_every_script_is_served(engine: Engine, queries: Queries) -> None:
    by_script: dict[str, Queries] = defaultdict(list)
    for query in queries:
        by_script[dominant_script(query["text"])].append(query)
    assert len(by_script) >= 9
    for script, group in by_script.items():
        if len(group) >= 4:
            # Korean questions across languages are the encoder's weakest here: 4 of 7, docs/experiments.md.
            assert evaluate(engine, group)["recall@10"] >= (0.5 if script == "Kore" else 0.6), script


def test_balance_makes_room_for_other_languages_and_loses_little(engine: Engine, queries: Queries) -> None:
    """The encoder is trained to be neutral by itself: the map's gain is in room for other languages."""
    for mode in (Mode.DENSE, Mode.HYBRID):
        even, default, biased = (evaluate(engine, queries, mode=mode, balance=balance) for balance in (1.0, None, 0.0))
        assert even["own@10"] < default["own@10"] < biased["own@10"]
        assert default["map"] > biased["map"] - 0.015


def test_balance_finds_more_with_an_encoder_that_prefers_its_language(
    tmp_path: Path, queries: Queries, repository: Path
) -> None:
    plain = load_encoder("multilingual-e5-small")
    settings = load_settings(index=str(tmp_path / "index"), encoder=plain.name)
    build.ingest(repository / "corpus" / "documents", settings, encoder=plain)
    engine = Engine(settings, plain)
    fair, biased = (evaluate(engine, queries, balance=balance) for balance in (None, 0.0))
    engine.close()
    assert fair["own@10"] < biased["own@10"] - 0.2
    assert fair["map"] > biased["map"] + 0.1


def test_hits_quote_their_document(engine: Engine, queries: Queries, repository: Path) -> None:
    for query in queries[:40]:
        for hit in engine.search(query["text"], k=3, explain=True).hits:
            assert hit.chunk.end > hit.chunk.start
            assert hit.explanation is not None
            assert hit.explanation.dense_rank or hit.explanation.lexical_rank
            source = repository / "corpus" / "documents" / hit.chunk.source
            if source.suffix == ".txt" and source.parent.name != "ja":
                text = source.read_text(encoding="utf-8")
                assert hit.chunk.text.split("\n")[0] in text


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")


def test_the_commands_print_hits_and_json(settings: Settings, summary: Summary) -> None:
    question = "How do I behave at a Japanese hot spring bath as a first-time visitor?"
    arguments = ("search.cli", "query", question, "--index", settings.index, "-k", "3")
    shown = run(*arguments)
    assert shown.returncode == 0, shown.stderr
    assert "1. [ja]" in shown.stdout
    hits = [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]
    assert [hit["rank"] for hit in hits] == [1, 2, 3]
    assert hits[0]["lang"] == "ja"
    assert hits[0]["explanation"]["dense_rank"] == 1
    only = run(*arguments, "--json", "--lang", "fr")
    assert {json.loads(line)["lang"] for line in only.stdout.splitlines()} == {"fr"}
    state = json.loads(run("indexer.cli", "status", "--index", settings.index, "--json").stdout)
    assert state["documents"] == summary.documents


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search.cli", "query", "x", "--index", "./nowhere"), "indexer ingest FOLDER"),
        (("search.cli", "query", " ", "--index", "INDEX"), "empty"),
        (("search.cli", "query", "x", "--index", "INDEX", "--since", "gestern"), "YYYY-MM-DD"),
        (("search.cli", "query", "x", "--index", "INDEX", "--where", "colour"), "name=value"),
        (("indexer.cli", "ingest", "./no such folder"), "no such folder"),
        (("indexer.cli", "remove", "nope", "--index", "INDEX"), "nope"),
        (("indexer.cli", "remove", "--index", "INDEX"), "--all"),
    ],
)
def test_mistakes_are_one_line_with_a_way_out(
    arguments: tuple[str, ...], message: str, settings: Settings, summary: Summary
) -> None:
    assert summary.documents
    result = run(*(settings.index if argument == "INDEX" else argument for argument in arguments))
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
