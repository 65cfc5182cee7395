"""The reranking benchmark: which hits count as relevant."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.balance import Collection
from benchmarks.rerank import measure
from search.engine import Engine
from search.rerank import NONE


def engine_that_finds(*ids: str) -> Engine:
    hits = [SimpleNamespace(document_id=name, chunk=SimpleNamespace(lang="en")) for name in ids]
    result = SimpleNamespace(hits=hits, timings_ms={"total": 1.0})
    return cast(Engine, SimpleNamespace(search=lambda *_, **__: result))


@pytest.mark.parametrize(
    ("found", "relevant"),
    [("docs.jsonl#7", "7"), ("news/notices.jsonl#strike", "news/notices.jsonl#strike"), ("en/tea.md", "en/tea.md")],
    ids=["a set in one file", "a row of a corpus", "a file of a corpus"],
)
def test_relevant_documents_are_known_by_their_names(found: str, relevant: str) -> None:
    collection = Collection("made", Path(), {}, [("q", "a question", "en")], {"q": {relevant: 1.0}})
    row: dict[str, Any] = measure(engine_that_finds("other.md#1", found), collection, NONE)
    assert row["map@100"] == pytest.approx(0.5)
    assert row["own@10"] == 1.0
