"""Backups of an embedded index: one file with everything, and a checksum of every part of it.

The file is a gzip-packed tar: the files of one generation, and at its end `backup.json` with their sizes and SHA-256.
A backup that was cut off has no such end and is not restored. Searching and ingesting go on while a backup is made,
since a published generation never changes; a restored index becomes current in one step, like an ingest.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from search.errors import IndexFormatError, PanlinguaError, SettingsError, StoreError
from search.files import copy_tree
from search.index import MANIFEST, IndexFolder, writing
from search.manifest import IndexManifest, now, parse_manifest
from search.settings import Settings

FORMAT = "panlingua-backup-1"
CONTENTS = "backup.json"
_BLOCK_BYTES = 1 << 20
_HOLE_BYTES = 4096
_HOLE = bytes(_HOLE_BYTES)
_ATTEMPTS = 10
_MOST_CONTENTS_BYTES = 64 << 20
_FASTEST = 1
"""Vectors do not shrink; what does are the holes of the index's files, for which the fastest level is enough."""


class BackupFile(BaseModel):
    """One file of a backup."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    bytes: int
    sha256: str


class BackupContents(BaseModel):
    """What a backup holds, written after everything else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str
    created: str
    index: IndexManifest
    files: tuple[BackupFile, ...]


@dataclass
class _Counted:
    """A file that is read once, with its checksum; short reads and growth are errors of the file system."""

    file: IO[bytes]
    digest: hashlib._Hash
    size: int = 0

    def read(self, length: int = -1) -> bytes:
        part = self.file.read(length)
        self.digest.update(part)
        self.size += len(part)
        return part


def backup(settings: Settings, target: Path, *, replace: bool = False) -> BackupContents:
    """Write the current generation to the file `target`; it is there whole or not at all.

    Raises:
        IndexNotFoundError: There is no index.
        SettingsError: The index is on a server, or the file exists and is not to be replaced.
        StoreError: The file cannot be written.
    """
    _require_embedded(settings, "backed up")
    if target.exists() and not replace:
        raise SettingsError(f"{target} exists; name another file, or give --replace")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with _frozen(IndexFolder(settings.index_folder)) as folder:
            manifest = parse_manifest((folder / MANIFEST).read_text(encoding="utf-8"), str(folder))
            contents = _write(folder, manifest, temporary)
        temporary.replace(target)
    except PanlinguaError:  # some are errors of the system as well
        raise
    except OSError as error:
        message = f"the backup {target} cannot be written: {error.strerror or error}"
        raise StoreError(f"{message}. Look at the room and the rights there; the index is as it was.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return contents


def verify(source: Path) -> BackupContents:
    """Read a backup whole and compare every checksum, without writing anything.

    Raises:
        IndexFormatError: It is damaged, cut off, or no backup.
    """
    return _read(source, lambda _path: None)


def restore(settings: Settings, source: Path, *, replace: bool = False, wait_s: float = 0.0) -> BackupContents:
    """Make a backup the current state of an index; what was there before serves until then.

    Raises:
        SettingsError: The index is on a server, or exists and is not to be replaced.
        IndexFormatError: The backup is damaged; the index is as it was.
        IndexBusyError: Another process writes to the index.
    """
    _require_embedded(settings, "restored into")
    folder = IndexFolder(settings.index_folder)
    with folder.write_lock(wait_s=wait_s):
        if (folder.current_number() is not None or folder.building.exists()) and not replace:
            raise SettingsError(f"there is an index at {folder.path}; name another with --index, or give --replace")
        building = folder.begin(fresh=True, corpus=f"restore {source}")
        try:
            with writing(building):
                contents = _read(source, lambda path: building / path)
        except BaseException:
            folder.discard()
            raise
        folder.publish(contents.index)
    return contents


def _require_embedded(settings: Settings, done: str) -> None:
    if settings.store:
        raise SettingsError(
            f"an index on a server is not {done} by this command: use the server's snapshots, or `indexer pull` it "
            "into an embedded index first"
        )


@contextmanager
def _frozen(index: IndexFolder) -> Iterator[Path]:
    """A folder with hard links to the current generation, which stays whole while newer ones are published."""
    for attempt in range(_ATTEMPTS):
        generation, view = index.current(), index.new_reader_view()
        try:
            files = view.path / "generation"
            try:
                copy_tree(generation.path, files, copy=os.link)
            except FileNotFoundError:  # a newer one was published, or its map was drawn anew, just now
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue
            yield files
            return
        finally:
            view.close()


def _write(folder: Path, manifest: IndexManifest, target: Path) -> BackupContents:
    files: list[BackupFile] = []
    with (
        target.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_FASTEST) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            with path.open("rb") as file:
                counted = _Counted(file, hashlib.sha256())
                member = tarfile.TarInfo(name)
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, counted)
            files.append(BackupFile(path=name, bytes=counted.size, sha256=counted.digest.hexdigest()))
        contents = BackupContents(format=FORMAT, created=now(), index=manifest, files=tuple(files))
        text = contents.model_dump_json().encode()
        member = tarfile.TarInfo(CONTENTS)
        member.size = len(text)
        archive.addfile(member, BytesIO(text))
        archive.close()
        packed.close()
        raw.flush()
        os.fsync(raw.fileno())
    return contents


def _read(source: Path, place: Callable[[str], Path | None]) -> BackupContents:
    """Read a backup; files for which `place` gives a path are written there. The manifest is left to `publish`."""
    try:
        with gzip.open(source, "rb") as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
            found, contents = _read_members(archive, place)
            while packed.read(_BLOCK_BYTES):  # to the end, where gzip has a checksum of its own
                pass
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(source, str(error)) from error
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise IndexFormatError(f"the backup {source} cannot be read: {error.strerror}") from error
    if contents is None:
        raise _damaged(source, f"it has no {CONTENTS} at its end; it was cut off, or is no backup")
    _compare(source, found, contents)
    return contents


def _read_members(
    archive: tarfile.TarFile, place: Callable[[str], Path | None]
) -> tuple[list[BackupFile], BackupContents | None]:
    found: list[BackupFile] = []
    for member in archive:
        file = archive.extractfile(member) if member.isfile() else None
        if file is None or not _is_plain(member.name) or member.name in {item.path for item in found}:
            raise tarfile.TarError(f"an entry that no backup has: {member.name[:80]!r}")
        if member.name == CONTENTS:
            return found, _parse_contents(file.read(_MOST_CONTENTS_BYTES))
        counted = _Counted(file, hashlib.sha256())
        _copy(counted, place(member.name) if member.name != MANIFEST else None)
        found.append(BackupFile(path=member.name, bytes=counted.size, sha256=counted.digest.hexdigest()))
    return found, None


def _parse_contents(text: bytes) -> BackupContents:
    try:
        contents = BackupContents.model_validate_json(text)
    except ValidationError as error:
        raise tarfile.TarError(f"its {CONTENTS} is damaged: {error.error_count()} problems") from error
    if contents.format != FORMAT:
        raise IndexFormatError(f"the backup has the format {contents.format[:40]!r}, this program reads {FORMAT}")
    return contents


def _compare(source: Path, found: list[BackupFile], contents: BackupContents) -> None:
    listed, read = {item.path: item for item in contents.files}, {item.path: item for item in found}
    wrong = sorted(path for path in listed.keys() | read.keys() if listed.get(path) != read.get(path))
    if wrong:
        raise _damaged(source, f"other contents than when it was made: {', '.join(wrong[:5])}")
    parse_manifest(contents.index.model_dump_json(), str(source))


def _damaged(source: Path, why: str) -> IndexFormatError:
    return IndexFormatError(f"the backup {source} is damaged: {why}. Nothing was restored; use another copy of it.")


def _is_plain(name: str) -> bool:
    """Whether a name stays inside the folder that it is written to."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _copy(source: _Counted, target: Path | None) -> None:
    """Copy a file, zeros as holes; with None it is only read."""
    if target is None:
        while source.read(_BLOCK_BYTES):
            pass
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while part := source.read(_BLOCK_BYTES):
            for start in range(0, len(part), _HOLE_BYTES):
                block = part[start : start + _HOLE_BYTES]
                if block == _HOLE:
                    file.seek(_HOLE_BYTES, os.SEEK_CUR)
                else:
                    file.write(block)
        file.truncate(source.size)
