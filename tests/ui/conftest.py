"""The bundled corpus, ingested once for the tests of the application, as the application's own index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from search.encoder import Encoder
from search.settings import load_settings

pytest.importorskip("streamlit", reason="the application needs the extra `ui`")


@pytest.fixture(scope="session")
def sample_index(tmp_path_factory: pytest.TempPathFactory, encoders: Path, repository: Path) -> Path:
    """An index of the bundled corpus with its map, made by the command in a process of its own."""
    index = tmp_path_factory.mktemp("ui") / "index"
    corpus = str(repository / "corpus" / "documents")
    command = [sys.executable, "-m", "indexer.cli", "ingest", corpus, "--map", "--json", "--index", str(index)]
    subprocess.run(command, check=True, capture_output=True, cwd=repository)
    return index


@pytest.fixture(scope="session")
def encoders(real_encoder: Encoder) -> Path:
    """Where the built-in encoder is, unpacked."""
    return load_settings().encoders_folder


@pytest.fixture
def home(tmp_path: Path, encoders: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own for jobs, uploads and evaluations, with the encoders of the real one."""
    (tmp_path / "encoders").symlink_to(encoders)
    monkeypatch.setenv("PANLINGUA_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def on_sample(sample_index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The application's settings name the sample's index."""
    monkeypatch.setenv("PANLINGUA_INDEX", str(sample_index))
    return sample_index
