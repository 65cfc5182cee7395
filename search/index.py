"""The index on disk: a folder of generations, of which one is current.

    INDEX/current                  number of the current generation, swapped atomically
    INDEX/write.lock               held by the process that builds the next one
    INDEX/generations/000007/      shard/ manifest.json language_map.safetensors ledger.sqlite families.sqlite
    INDEX/building/                the next generation, unfinished; a later run goes on with it
    INDEX/readers/HOST-PID-RANDOM/ one reader's view of a shard (hard links), removed when it closes

A published generation is never written again. Searching never waits for an ingest, and a crash leaves the last
generation current.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from search.balance import LanguageMap
from search.errors import IndexBusyError, IndexFormatError, IndexNotFoundError, StoreError
from search.files import copy_tree
from search.manifest import IndexManifest, now, read_manifest
from search.readers import ReaderView, make_view

MANIFEST, LANGUAGE_MAP, LEDGER, SHARD = "manifest.json", "language_map.safetensors", "ledger.sqlite", "shard"
OFFSETS = "language_offsets.safetensors"
"""Offsets that the encoder brought; the map is refined from them."""
_STARTED = "started"
_ONCE = "once"
_POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Generation:
    """One published, immutable state of an index."""

    number: int
    path: Path

    @property
    def manifest(self) -> IndexManifest:
        """Its manifest, read from disk."""
        return read_manifest(self.path / MANIFEST)

    @property
    def language_map(self) -> LanguageMap:
        """Its language map, read from disk."""
        return LanguageMap.load(self.path / LANGUAGE_MAP)


class IndexFolder:
    """The generations below one folder, which need not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.building = path / "building"
        self._aside = path / "building.aside"
        self._pointer = path / "current"
        self._generations = path / "generations"
        self._readers = path / "readers"

    def current_number(self) -> int | None:
        """Number of the current generation, None when there is no index. Costs one read of a tiny file.

        Raises:
            IndexFormatError: The pointer file is damaged.
        """
        try:
            text = self._pointer.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return None
        if not text.isdigit():
            raise IndexFormatError(
                f"{self._pointer} is damaged: {text[:40]!r}. Write the number of the newest folder in "
                f"{self._generations} into it, or run `indexer ingest FOLDER --fresh`."
            )
        return int(text)

    def current(self) -> Generation:
        """The current generation.

        Raises:
            IndexNotFoundError: Nothing was ingested yet.
        """
        number = self.current_number()
        if number is None and self.building.exists():
            message = f"the first ingest into {self.path} is not finished; wait for it, or run `indexer ingest` again"
            raise IndexNotFoundError(f"{message} on the same folder to go on where it stopped")
        if number is None:
            raise IndexNotFoundError(f"there is no index at {self.path}; make one with `indexer ingest FOLDER`")
        return Generation(number, self._generations / f"{number:06d}")

    @contextmanager
    def write_lock(self, *, wait_s: float = 0.0) -> Iterator[None]:
        """Be the only process that builds this index.

        Raises:
            IndexBusyError: Another one is at it; the message says which. Raised after `wait_s` seconds.
            StoreError: The folder cannot be written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "write.lock").open("a+", encoding="utf-8")
        with file:
            _acquire(file, self.path, wait_s)
            with writing(self.path):
                file.truncate(0)
                holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
                os.write(file.fileno(), json.dumps(holder).encode())  # unbuffered: nothing is left for a full disk
            self._bring_back()
            if self.unfinished() is None:
                self.discard()
            self._adopt()
            try:
                yield
            finally:
                file.truncate(0)

    def begin(self, *, fresh: bool = False, corpus: str | None = "") -> Path:
        """The folder of the next generation: an unfinished one to go on with, else a copy of the current one.

        With `fresh` it is empty. An unfinished fresh one is continued for the same `corpus` only, since publishing it
        for another would drop documents; one with no `corpus` (None) never, as a change made in one go. Needs the write
        lock.
        """
        marker = self.building / _STARTED
        if self.building.exists() and (fresh or not _may_continue(marker, corpus)):
            shutil.rmtree(self.building)
        if not marker.exists():
            with writing(self.building):
                number = self.current_number()
                if number is None or fresh:
                    self.building.mkdir()
                else:
                    self._copy(self._generations / f"{number:06d}")
                    (self.building / MANIFEST).unlink()
                began = f"fresh {corpus}" if fresh else _ONCE if corpus is None else "copy"
                marker.write_text(began, encoding="utf-8", errors="surrogateescape")
        return self.building

    def _copy(self, generation: Path) -> None:
        try:
            copy_tree(generation, self.building)
        except BaseException:
            shutil.rmtree(self.building, ignore_errors=True)  # half a copy would only fill the disk
            raise

    def unfinished(self) -> str | None:
        """What an unfinished fresh generation is of, "" for one that goes on from the current; None: there is none."""
        marker = self.building / _STARTED
        if not self.building.exists():
            return None
        text = marker.read_text(encoding="utf-8", errors="surrogateescape") if marker.exists() else ""
        if text == _ONCE:
            return None
        return text.removeprefix("fresh ") if text.startswith("fresh ") else ""

    @contextmanager
    def beside_unfinished(self) -> Iterator[None]:
        """Within this, a change of the current generation can be published though another one is unfinished.

        That one is put aside and back again, by the next job where this process does not live to do it. Needs the
        write lock.
        """
        if self.unfinished() is not None:
            self.building.rename(self._aside)
        try:
            yield
        finally:
            self._bring_back()

    def _bring_back(self) -> None:
        """Put an unfinished generation that was put aside back in its place."""
        if self._aside.exists():
            self.discard()
            self._aside.rename(self.building)

    def discard(self) -> None:
        """Give up the unfinished generation. Needs the write lock."""
        shutil.rmtree(self.building, ignore_errors=True)

    def publish(self, manifest: IndexManifest) -> Generation:
        """Make the unfinished generation, whose files are all closed, the current one. Needs the write lock."""
        with writing(self.building):
            write_durably(self.building / MANIFEST, manifest.model_dump_json(indent=2))
            number = self._newest() + 1
            target = self._generations / f"{number:06d}"
            self._generations.mkdir(exist_ok=True)
            _sync_tree(self.building)
            self.building.rename(target)
            _sync_folder(self._generations)
            self._make_current(number)
        self._collect(number)
        return Generation(number, target)

    def _newest(self) -> int:
        return max([0, *(int(path.name) for path in self._generations.glob("[0-9]*"))])

    def _make_current(self, number: int) -> None:
        (self._generations / f"{number:06d}" / _STARTED).unlink(missing_ok=True)
        write_durably(self._pointer, str(number))

    def _adopt(self) -> None:
        """Finish a publication that a crash cut off between moving the generation and pointing to it."""
        newest = self._newest()
        if newest > (self.current_number() or 0):
            self._make_current(newest)

    def new_reader_view(self) -> ReaderView:
        """An empty folder for one reader's view of a shard; views of readers that are gone are removed first."""
        return make_view(self._readers)

    def _collect(self, current: int) -> None:
        """Remove older generations; readers hold links to the files that they need.

        Each is renamed first, so that a reader who is about to link its files takes all of them or notices.
        """
        for path in self._generations.glob("[0-9]*"):
            if int(path.name) != current:
                with suppress(OSError):
                    path.rename(path.with_name(f"old-{path.name}"))
        for path in self._generations.glob("old-*"):
            shutil.rmtree(path, ignore_errors=True)


def _may_continue(marker: Path, corpus: str | None) -> bool:
    """Whether the unfinished generation is whole, goes on, and is not a fresh one of another corpus."""
    try:
        text = marker.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return False
    return text != _ONCE and corpus is not None and (not text.startswith("fresh ") or text == f"fresh {corpus}")


def _acquire(file: TextIO, path: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                file.seek(0)
                raise IndexBusyError(
                    f"another process is writing to the index at {path}: {_holder(file.read())}. "
                    "Searching goes on meanwhile; try again later, or wait with `--wait SECONDS`."
                ) from error
            time.sleep(_POLL_S)


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "process unknown"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while writing below `path` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        hint = {
            errno.ENOSPC: "The disk is full: free some space and run the command again.",
            errno.EACCES: "You may not write there: choose another place with --index or PANLINGUA_HOME.",
            errno.EROFS: "The file system is read-only: choose another place with --index or PANLINGUA_HOME.",
            errno.ENOTDIR: "A file is in the way: choose another place with --index or PANLINGUA_HOME.",
        }.get(error.errno or 0, "The index is as it was before.")
        raise StoreError(f"cannot write the index at {path}: {error.strerror or error}. {hint}") from error


def write_durably(path: Path, text: str) -> None:
    """Write a small file so that a crash leaves the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # some file systems cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
