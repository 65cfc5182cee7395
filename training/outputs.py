"""Where a command may write: nothing that is there is lost, nothing is written twice at once, no input is spoilt."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from search.errors import TrainingError

LOCK_FILE = ".lock"


def refuse_existing(out: Path) -> None:
    """Nothing is overwritten.

    Raises:
        TrainingError: `out` is there already.
    """
    if out.exists():
        raise TrainingError(f"{out} is there already; remove it, or take a new --out.")


def refuse_inside(out: Path, source: Path) -> None:
    """What is written is not read the next time.

    Raises:
        TrainingError: `out` is `source`, or lies in it.
    """
    if out.expanduser().resolve().is_relative_to(source.expanduser().resolve()):
        raise TrainingError(f"{out} is inside {source}, and would be read with it; take an --out elsewhere.")


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keep the folder, which is made if need be, to one process that writes into it.

    Raises:
        TrainingError: Another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(f"another process writes into {folder}; wait for it, or take a new --out.") from error
        yield
