"""The `ui` command as a process."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from test_browser import home_with, serve


def test_what_ends_the_command_ends_its_server(sample_index: Path, encoders: Path, tmp_path: Path) -> None:
    process, address = serve(home_with(encoders, tmp_path), sample_index, tmp_path)
    process.terminate()
    process.wait(timeout=60)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=5)
