"""Plain text and Markdown."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, cast

from indexer.extract.dates import to_rfc3339
from indexer.extract.encoding import read_text
from indexer.extract.formats import Extracted
from indexer.extract.front_matter import front_matter, take_title
from indexer.extract.markdown import strip_markdown
from search.errors import SourceError

ZIP_RATIO = 200
ZIP_FREE_BYTES = 50 * 1024 * 1024


def read_txt(path: Path, max_bytes: int) -> Extracted:
    """A text file, gzip-packed or not."""
    with open_bytes(path) as stream:
        return Extracted(read_text(stream, max_bytes=max_bytes))


def read_md(path: Path, max_bytes: int) -> Extracted:
    """A Markdown file: front matter, headings, and the text without its markup."""
    with open_bytes(path) as stream:
        fields, body = front_matter(read_text(stream, max_bytes=max_bytes))
    text, headings = strip_markdown(body)
    first = next((heading.text for heading in headings if heading.level == 1), "")
    title, date = take_title(fields, first), to_rfc3339(fields.pop("date", None))
    return Extracted(text, title, headings, date, fields)


def open_bytes(path: Path) -> BinaryIO:
    """The bytes of a file, unpacked when its name ends in `.gz`."""
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, _BoundedGzip(path))
    return path.open("rb")


class _BoundedGzip(gzip.GzipFile):
    """A gzip file that refuses to unpack out of all proportion."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._limit = max(ZIP_FREE_BYTES, ZIP_RATIO * path.stat().st_size)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self._check()
        return data

    def read1(self, size: int = -1) -> bytes:
        data = super().read1(size)
        self._check()
        return data

    def _check(self) -> None:
        if self.tell() > self._limit:
            raise SourceError(f"zip bomb: unpacks to more than {ZIP_RATIO} times its size")
