"""The tools for agents, called over the protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client

from indexer import build
from search.engine import Engine
from search.mcp import MOST_CHARACTERS, create_server, join_chunks
from search.records import Chunk
from search.settings import load_settings
from tests.conftest import FakeEncoder

TEXTS = {
    "ja/温泉.txt": "温泉に入る前に体をよく洗いましょう。",
    "ar/شاي.txt": "يُشرب الشاي ساخنا مع النعناع.",
    "long.txt": "\n\n".join(f"Kapitel {n} handelt von Nummer {n * 7} und sonst nichts." for n in range(1500)),
}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    for name, text in TEXTS.items():
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text(text, encoding="utf-8")
    settings = load_settings(home=tmp_path / "home")
    build.ingest(tmp_path / "corpus", settings, encoder=FakeEncoder())  # type: ignore[arg-type]
    engine = Engine(settings, FakeEncoder())  # type: ignore[arg-type]
    yield engine
    engine.close()


def call(engine: Engine, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    async def run() -> list[Any]:
        async with Client(create_server(engine)) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return anyio.run(run)


def test_an_agent_finds_and_reads(engine: Engine) -> None:
    found, read, similar, described = call(
        engine,
        ("search", {"query": "温泉に入る", "k": 1}),
        ("read", {"document_id": "ar/شاي.txt"}),
        ("similar", {"document_id": "ar/شاي.txt", "k": 2}),
        ("describe", {}),
    )
    assert found.structured_content["hits"][0]["quotation"] == TEXTS["ja/温泉.txt"]
    assert found.structured_content["understood_as"] == "ja"
    assert (read.structured_content["quotation"], read.structured_content["next_start"]) == (TEXTS["ar/شاي.txt"], None)
    assert len(similar.structured_content["hits"]) == 2
    assert described.structured_content["documents"] == len(TEXTS)


def test_languages_narrow_the_search(engine: Engine) -> None:
    (found,) = call(engine, ("search", {"query": "Nummer", "languages": ["ar"]}))
    assert [hit["document_id"] for hit in found.structured_content["hits"]] == ["ar/شاي.txt"]


def test_a_long_document_is_read_in_parts_without_loss(engine: Engine) -> None:
    text, start = "", 0
    while True:
        (part,) = call(engine, ("read", {"document_id": "long.txt", "start": start}))
        content = part.structured_content
        assert len(content["quotation"]) < MOST_CHARACTERS + 5000
        text += "\n" + content["quotation"]
        if content["next_start"] is None:
            break
        start = content["next_start"]
    assert text.split() == TEXTS["long.txt"].split()


def test_what_cannot_be_answered_is_an_error_that_says_why(engine: Engine) -> None:
    unknown, language = call(
        engine, ("read", {"document_id": "none"}), ("search", {"query": "x", "languages": ["klingon"]})
    )
    assert (unknown.is_error, "none" in unknown.content[0].text) == (True, True)
    assert (language.is_error, "klingon" in language.content[0].text) == (True, True)


def test_every_tool_says_that_it_only_reads(engine: Engine) -> None:
    async def tools() -> Any:
        async with Client(create_server(engine)) as client:
            return (await client.list_tools()).tools

    listed = anyio.run(tools)
    assert {tool.name for tool in listed} == {"search", "read", "similar", "describe"}
    assert all(tool.annotations.read_only_hint for tool in listed)


def test_overlapping_passages_are_joined_once() -> None:
    text = "aaaa bbbb cccc dddd"
    chunks = [Chunk("d", n, text[a:b], start=a, end=b) for n, (a, b) in enumerate([(0, 9), (5, 14), (15, 19)])]
    assert join_chunks(chunks) == ("aaaa bbbb cccc\ndddd", None)
    assert join_chunks(chunks, 12) == ("cc\ndddd", None)
    assert join_chunks(chunks, 19) == ("", None)
