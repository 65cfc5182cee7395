"""Folders that are built once and kept: whole or not there, whoever crashes or builds at the same time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from search.errors import EncoderError

ABANDONED_SECONDS = 3600


def build_once(target: Path, build: Callable[[Path], None], *, is_complete: Callable[[Path], bool]) -> None:
    """Make the folder `target` unless it is complete: `build` fills a temporary folder, which then gets the name.

    Of two processes at once, the second finds the work done. What a killed one left behind is removed after an hour.

    Raises:
        EncoderError: There is no room, or no right to write there.
    """
    if is_complete(target):
        return
    prefix = f".{target.name}-"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for left in target.parent.glob(f"{prefix}*"):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent, ignore_cleanup_errors=True) as scratch:
            work, replaced = Path(scratch) / "new", Path(scratch) / "old"
            work.mkdir()
            build(work)
            if not is_complete(target):
                with suppress(FileNotFoundError):
                    target.replace(replaced)
            _publish(work, target, is_complete)
    except OSError as error:
        raise EncoderError(
            f"cannot write the encoder to {target} ({error}). It needs about 250 MB: free some, "
            "or set PANLINGUA_HOME to a folder with room."
        ) from error


def _publish(work: Path, target: Path, is_complete: Callable[[Path], bool]) -> None:
    try:
        work.replace(target)
    except OSError:
        if not is_complete(target):
            raise
