"""What a command says when the system refuses it a file."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from search.console import run


def full(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def below_a_file(path: Path) -> None:
    path.write_text("", encoding="utf-8")
    (path / "below").mkdir()


def copies(path: Path) -> None:
    raise shutil.Error([("a", str(path), "no space"), ("b", "c", "no space")])


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (full, "/out: No space left on device; free some space, and run the command again\n"),
        (below_a_file, "/out/below: Not a directory\n"),
        (copies, "/out: no space\n"),
    ],
    ids=["full", "below a file", "copies"],
)
def test_an_error_of_a_file_is_one_line(
    act: Callable[[Path], None], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    app = typer.Typer()
    app.command()(lambda: act(tmp_path / "out"))
    monkeypatch.setattr("sys.argv", ["command"])
    with pytest.raises(SystemExit) as ended:
        run(app)
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith(said)
    assert error.count("\n") == 1
