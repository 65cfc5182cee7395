"""Which parts may know which, and what a query must not load."""

from __future__ import annotations

import subprocess
import sys

import pytest


def modules_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("module", ["search.engine", "search.cli", "search.encoder", "indexer.cli", "training.cli"])
def test_importing_loads_no_heavy_library(module: str) -> None:
    heavy = {"torch", "transformers", "sentence_transformers", "markitdown", "openvino", "onnxruntime", "pyarrow"}
    assert not heavy & modules_after(f"import {module}")


def test_search_knows_neither_indexer_nor_training() -> None:
    loaded = {name.split(".")[0] for name in modules_after("import search.engine, search.cli")}
    assert not {"indexer", "training"} & loaded
