"""Copying of index files, which are mostly holes: a copy that fills them would be twenty times as large."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

_BLOCK_BYTES = 4 * 2**20


def copy_tree(source: Path, target: Path, *, copy: Callable[[Path, Path], None] | None = None) -> None:
    """Copy a folder to a new or empty one, and stop at the first error, such as a full disk.

    Args:
        source: The folder to copy.
        target: Where to; made when it does not exist.
        copy: What is done to each file; None: `copy_sparse`.
    """
    target.mkdir(exist_ok=True)
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            copy_tree(entry, target / entry.name, copy=copy)
        else:
            (copy or copy_sparse)(entry, target / entry.name)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy the data of a file and leave its holes; shares the blocks where the file system can."""
    if not hasattr(os, "SEEK_DATA"):
        shutil.copyfile(source, target)
        return
    with source.open("rb") as reading, target.open("wb") as writing:
        size = os.fstat(reading.fileno()).st_size
        os.ftruncate(writing.fileno(), size)
        for start, end in _data_ranges(reading.fileno(), size):
            _copy_range(reading.fileno(), writing.fileno(), start, end)


def allocated_bytes(folder: Path) -> int:
    """Bytes that the files below `folder` take on the disk, holes left out."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def _data_ranges(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    in_kernel = hasattr(os, "copy_file_range")
    while start < end:
        if in_kernel:
            try:
                copied = os.copy_file_range(source, target, end - start, start, start)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                copied = 0
        else:
            copied = os.pwrite(target, os.pread(source, min(_BLOCK_BYTES, end - start), start), start)
        if copied == 0:
            if not in_kernel:
                return  # the file became shorter meanwhile
            in_kernel = False
        start += copied
