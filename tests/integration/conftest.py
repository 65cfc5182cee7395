"""An index, and a server for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from indexer import build
from search.settings import Settings, load_settings
from tests.conftest import FakeEncoder
from tests.integration.indexes import FILES


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with an index of the notes."""
    for name, text in FILES.items():
        path = tmp_path / "corpus" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    settings = load_settings(home=tmp_path / "home", index="notes")
    build.ingest(tmp_path / "corpus", settings, encoder=FakeEncoder())  # type: ignore[arg-type]
    return settings


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings with a server that lives in this process."""
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr("search.store.server.connect", lambda *_args, **_options: client)
    monkeypatch.setattr("indexer.transfer.READERS_NOTICE_S", 0.0)
    return settings.model_copy(update={"store": "http://server:6333"})
