"""What the commands make of settings and conditions before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from search.cli import build_filter
from search.errors import SettingsError, StoreError
from search.records import Filter, Match
from search.settings import default_home, load_settings
from search.store.server import connect


def test_a_broken_settings_file_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "panlingua.toml").write_text("index = [", encoding="utf-8")
    monkeypatch.setenv("PANLINGUA_HOME", str(tmp_path))
    with pytest.raises(SettingsError, match=r"panlingua\.toml"):
        load_settings()


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANLINGUA_HOME", "")
    assert load_settings().home == default_home()


def test_folders_are_absolute_and_indexes_of_one_name_keep_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PANLINGUA_HOME", "home")
    inside, near = load_settings(index="notes"), load_settings(index="./notes")
    assert inside.index_folder == tmp_path / "home" / "indexes" / "notes"
    assert near.index_folder == tmp_path / "notes"
    assert inside.index_label == "notes"
    labels = {inside.index_label, near.index_label, load_settings(index="./other/notes").index_label}
    assert len(labels) == 3
    assert near.index_label == load_settings(index=str(tmp_path / "notes")).index_label


def test_conditions_from_the_shell() -> None:
    where = ["price=3.5", "year=2005", "open=True", "name=x=y"]
    assert build_filter(lang=["zh-CN", "DE"], source=None, since=None, until=None, where=where) == Filter(
        (
            Match("lang", ("zh", "de")),
            Match("metadata.price", ("3.5", 3.5)),
            Match("metadata.year", ("2005", 2005)),
            Match("metadata.open", ("True", True)),
            Match("metadata.name", ("x=y",)),
        )
    )


@pytest.mark.parametrize("url", ["ftp://x", "http://localhost:abc"])
def test_what_is_no_url_of_a_server(url: str) -> None:
    with pytest.raises(StoreError, match="no URL"):
        connect(url)
