"""Readers' views of an index: one folder each below INDEX/readers, locked for as long as its reader lives.

The lock goes when the reader's process ends, however it ends, and is seen by every process and container on the machine
and, where the file system passes locks on, by other machines. Since not every file system does, a view made on another
machine has to be unused for a day as well before it is taken for one that a dead reader left.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from search.errors import StoreError

UNUSED_S = 24 * 3600.0
_USED_EVERY_S = 600.0
_LOCK = "reader.lock"
_MINE: set[Path] = set()
"""Views that this process holds: its number alone may be that of an earlier process, as in a restarted container."""


@dataclass
class ReaderView:
    """A folder for one reader's view of a shard, locked until it is closed."""

    path: Path
    _lock: TextIO = field(repr=False)
    _used: float = field(default_factory=time.monotonic, repr=False)

    def keep(self) -> None:
        """Show that the view is in use. Costs nothing but once in ten minutes; call it with every search."""
        if time.monotonic() - self._used >= _USED_EVERY_S:
            self._used = time.monotonic()
            with suppress(OSError):
                os.utime(self.path / _LOCK)

    def close(self) -> None:
        """Remove the view."""
        _MINE.discard(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def make_view(readers: Path) -> ReaderView:
    """A new folder below `readers`; views that dead readers left are removed first.

    Raises:
        StoreError: The folder cannot be written.
    """
    try:
        readers.mkdir(exist_ok=True)
        for view in readers.iterdir():
            if is_left_behind(view):
                shutil.rmtree(view, ignore_errors=True)
        path = readers / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        path.mkdir()
        lock = (path / _LOCK).open("w", encoding="ascii")
    except OSError as error:
        raise StoreError(f"cannot write to {readers}: {error.strerror}. Searching needs a little room beside "
                         "the index; make the folder writable, or copy the index.") from error  # fmt: skip
    with suppress(OSError):  # no locks here: views of this machine then go by the process number, others stay
        fcntl.flock(lock, fcntl.LOCK_EX)  # waits where another reader is just looking whether it is held
    _MINE.add(path)
    return ReaderView(path, lock)


def is_left_behind(view: Path) -> bool:
    """Whether the reader that made a view is certainly gone; nothing else may be removed."""
    host, _, number = view.name.rpartition("-")[0].rpartition("-")
    ended = host == socket.gethostname() and not _is_running(number)
    if view in _MINE:
        return False
    try:
        with (view / _LOCK).open("r+", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return ended or time.time() - os.fstat(lock.fileno()).st_mtime > UNUSED_S
    except BlockingIOError:
        return False
    except OSError:  # made before there were locks, or on a file system without them
        return ended


def _is_running(number: str) -> bool:
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError, OverflowError):
        return True
    return True
