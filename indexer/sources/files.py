"""Walk a folder: which files there are, in a stable order, and why some are left out."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from indexer.documents import Skipped
from indexer.extract import DOCUMENT_FORMATS
from indexer.extract.encoding import looks_binary
from search.errors import SourceError

TABLE_FORMATS = ("csv", "tsv", "jsonl", "ndjson", "json", "parquet")
PACKED_FORMATS = ("txt", "csv", "tsv", "jsonl", "ndjson")
SUPPORTED = (*DOCUMENT_FORMATS, *TABLE_FORMATS)
MEGABYTE = 1024 * 1024

_GLANCE_BYTES = 8192
_NO_TEXT_EXTENSIONS = (
    "3gp 7z aac aiff apk avi avif bin bmp bz2 cab class cr2 deb dll dmg dng exe flac flv gif gz heic heif ico img iso "
    "jar jpeg jpg jxl lz4 m4a m4v mkv mov mp3 mp4 mpeg mpg nef o obj ogg ogv opus otf pack png psd pyc qcow2 rar raw "
    "rpm so sqlite tar tgz tif tiff ttf vdi vmdk war wasm wav webm webp whl wma wmv woff woff2 xz zip zst"
)
_NO_TEXT = frozenset(_NO_TEXT_EXTENSIONS.split())
"""Extensions that are never text: not worth opening the file at every ingest."""
_MADE_BY_PROGRAMS = re.compile(
    r"(?:\.lock|\.lockfile|[-.]lock\.[a-z]+|^go\.sum|,v|~|\.min\.[a-z]+|^desktop\.ini|^thumbs\.db|\.(?:swp|swo|tmp|temp|"
    r"part|crdownload|bak|orig|rej|pid|map|svg|eps|ps|pem|key|crt|cer|csr))$",
    re.IGNORECASE,
)
"""Names of lock files, copies made while editing, drawings and keys: text that nobody looks for."""
_KEPT_BY_PROGRAMS = frozenset(("node_modules", "site-packages", "__pycache__", "CVS", "RCS", "SCCS", "_darcs"))
_MARKS_OF_PROGRAMS = ({"CACHEDIR.TAG"}, {"pyvenv.cfg"}, {"HEAD", "objects", "refs"})
"""What lies in a folder that a program keeps: caches, virtual environments, bare git repositories."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `relative` names it in the index: `/` separators, always printable."""

    path: Path
    relative: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read files. Column names apply to tables; where none is named, usual names are tried.

    `max_file_bytes` bounds what has to be held in memory: every format but csv, tsv, jsonl and parquet.
    """

    text_columns: tuple[str, ...] = ()
    title_column: str | None = None
    id_column: str | None = None
    date_column: str | None = None
    max_file_bytes: int = 256 * MEGABYTE
    timeout_s: float = 120


def format_of(name: str) -> tuple[str, bool] | None:
    """The format that a file name tells and whether it is gzip-packed, or None when it tells none that is supported."""
    stem, _, extension = name.lower().rpartition(".")
    if extension == "gz":
        packed = stem.rpartition(".")[2] if "." in stem else ""
        return (packed, True) if packed in PACKED_FORMATS else None
    return (extension, False) if stem and extension in SUPPORTED else None


def extension_of(name: str) -> str:
    """How to call the extension of a file name to people."""
    return "".join(Path(name).suffixes[-2:] if name.lower().endswith(".gz") else Path(name).suffix) or "no extension"


def iter_files(root: Path, *, options: ReadOptions) -> Iterator[SourceFile | Skipped]:
    """Yield the files below a folder, or the one file, sorted by name within each folder.

    Hidden files and folders are left out. A link is followed only to what would not be read under its own name. A file
    whose name tells no supported format is yielded when it begins like text.

    Raises:
        SourceError: `root` does not exist or cannot be looked into.
    """
    try:
        real = root.expanduser().resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise SourceError(
            f"{str(root)!r} cannot be opened: {_reason(error)}; give an existing folder or file"
        ) from error
    if stat.S_ISDIR(mode):
        if not os.access(real, os.R_OK | os.X_OK):
            raise SourceError(f"{str(root)!r} cannot be opened: no permission to read it; give a readable folder")
        yield from _Walk(real).folder(real, "")
    else:
        yield _source_file(real, printable(root.name or real.name))


@dataclass
class _Walk:
    root: Path
    linked: set[tuple[int, int]] = field(default_factory=set)

    def folder(self, path: Path, relative: str, *, by_program: bool = False) -> Iterator[SourceFile | Skipped]:
        try:
            with os.scandir(path) as entries:
                names = sorted(entry.name for entry in entries if not _hidden(entry.name))
        except OSError as error:
            yield Skipped(relative.rstrip("/") or ".", f"folder cannot be read: {_reason(error)}")
            return
        by_program |= path.name in _KEPT_BY_PROGRAMS or any(mark <= {*names} for mark in _MARKS_OF_PROGRAMS)
        for name in names:
            yield from self._entry(path / name, relative + printable(name), by_program)

    def _entry(self, path: Path, relative: str, by_program: bool) -> Iterator[SourceFile | Skipped]:
        try:
            if path.is_symlink():
                path = self._follow(path)
            is_folder = path.is_dir()
        except (OSError, RuntimeError, SourceError) as error:
            yield Skipped(relative, _reason(error))
            return
        if is_folder:
            yield from self.folder(path, relative + "/", by_program=by_program)
        else:
            yield _source_file(path, relative, by_program=by_program)

    def _follow(self, link: Path) -> Path:
        try:
            target = link.resolve(strict=True)
        except FileNotFoundError as error:
            raise SourceError("link to something that does not exist") from error
        except (OSError, RuntimeError) as error:
            raise SourceError("link loop") from error
        if link.is_relative_to(target):
            raise SourceError("link loop: it leads to a folder that it lies in")
        if not target.is_relative_to(self.root):
            raise SourceError(f"link out of the folder, to {printable(str(target))!r}; add that place by itself")
        inside = target.relative_to(self.root)
        if not any(_hidden(part) for part in inside.parts):
            raise SourceError(f"link to {printable(inside.as_posix())!r}, which is read under its own name")
        status = target.stat()
        if (status.st_dev, status.st_ino) in self.linked:
            raise SourceError(f"second link to {printable(inside.as_posix())!r}")
        self.linked.add((status.st_dev, status.st_ino))
        return target


def _source_file(path: Path, relative: str, *, by_program: bool = False) -> SourceFile | Skipped:
    known = format_of(relative) is not None
    if not known and (by_program or not _may_be_text(relative)):
        return Skipped(relative, _not_supported(relative))
    try:
        status = path.stat()
    except OSError as error:
        return Skipped(relative, f"cannot be read: {_reason(error)}")
    if not stat.S_ISREG(status.st_mode):
        return Skipped(relative, "not a regular file")
    if not os.access(path, os.R_OK):
        return Skipped(relative, "cannot be read: Permission denied")
    if not known:
        try:
            with path.open("rb") as file:
                head = file.read(_GLANCE_BYTES)
        except OSError as error:
            return Skipped(relative, f"cannot be read: {_reason(error)}")
        if looks_binary(head):
            return Skipped(relative, _not_supported(relative))
    return SourceFile(path, relative, status.st_size, status.st_mtime_ns)


def _may_be_text(name: str) -> bool:
    base = name.rpartition("/")[2]
    return base.lower().rpartition(".")[2] not in _NO_TEXT and not _MADE_BY_PROGRAMS.search(base)


def _not_supported(name: str) -> str:
    packed = ", ".join(f"{name}.gz" for name in PACKED_FORMATS)
    return f"format not supported: {extension_of(name)}; supported: {', '.join(SUPPORTED)}, {packed} and plain text"


def _hidden(name: str) -> bool:
    return name.startswith((".", "~$"))


def printable(name: str) -> str:
    """A file name with undecodable bytes and control characters written as `\\x..`."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(
        c if c.isprintable() or c in "\u200c\u200d\u00ad\u3000" or c > "\x9f" else f"\\x{ord(c):02x}" for c in text
    )


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
