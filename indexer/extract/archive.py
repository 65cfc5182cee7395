"""What to check of a zip-based document before a parser opens it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree

from search.errors import SourceError

MAX_ENTRIES = 20_000
MAX_TOTAL_BYTES = 500 * 1024 * 1024
MAX_RATIO = 200
FREE_BYTES = 50 * 1024 * 1024
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_MARKUP = (".xml", ".rels", ".opf", ".ncx", ".xhtml", ".html", ".htm")
_UNSAFE = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)
_ENTITY = re.compile(rb"<!\s*ENTITY", re.IGNORECASE)


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip-based document, after its size, its encryption and its markup have been checked.

    Raises:
        SourceError: It is encrypted, broken, or unpacks out of all proportion.
    """
    _refuse_ole(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_declared(archive, path.stat().st_size)
            _check_markup(archive)
            yield archive
    except zipfile.BadZipFile as error:
        raise SourceError(f"broken file: {error}") from error
    except RuntimeError as error:
        if "encrypted" in str(error) or "password" in str(error):
            raise SourceError("password-protected") from error
        raise


def _refuse_ole(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(8)
        if not head:
            raise SourceError("empty")
        if head != _OLE:
            return
        file.seek(0)
        encrypted = "EncryptedPackage".encode("utf-16-le") in file.read(64 * 1024 * 1024)
    raise SourceError(
        "password-protected" if encrypted else "an Office file of before 2007; save it as docx, pptx or xlsx"
    )


def _check_declared(archive: zipfile.ZipFile, packed_bytes: int) -> None:
    entries = archive.infolist()
    if len(entries) > MAX_ENTRIES:
        raise SourceError(f"zip bomb: {len(entries)} entries, more than {MAX_ENTRIES}")
    if any(entry.flag_bits & 1 for entry in entries):
        raise SourceError("password-protected")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_TOTAL_BYTES or (total > FREE_BYTES and total > MAX_RATIO * packed_bytes):
        raise SourceError(f"zip bomb: {packed_bytes / 1e6:.1f} MB that unpack to {total / 1e6:.0f} MB")


def _check_markup(archive: zipfile.ZipFile) -> None:
    """Unpack the markup once, counting, so that neither a false size nor an entity declaration reaches a parser."""
    total = 0
    for entry in archive.infolist():
        if not entry.filename.lower().endswith(_MARKUP):
            continue
        with archive.open(entry) as stream:
            tail = b""
            while block := stream.read(256 * 1024):
                total += len(block)
                if total > MAX_TOTAL_BYTES:
                    raise SourceError(f"zip bomb: unpacks to more than {MAX_TOTAL_BYTES / 1e6:.0f} MB")
                if _ENTITY.search(tail + block):
                    raise SourceError("unsafe XML: it declares entities")
                tail = block[-64:]


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse XML that declares neither a document type nor entities.

    Raises:
        SourceError: It does, or is not UTF-8.
    """
    if _UNSAFE.search(data) or b"\0" in data:
        raise SourceError("unsafe XML: it declares a document type or entities")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise SourceError(f"broken XML: {error}") from error


def read_entry(archive: zipfile.ZipFile, name: str) -> ElementTree.Element | None:
    """One XML part of a document, or None where there is none."""
    try:
        data = archive.read(name)
    except KeyError:
        return None
    return parse_xml(data)


def first_text(root: ElementTree.Element | None, *names: str) -> str:
    """The text of the first element with one of these local names."""
    for element in root.iter() if root is not None else ():
        if isinstance(element.tag, str) and element.tag.rpartition("}")[2] in names and (element.text or "").strip():
            return " ".join((element.text or "").split())
    return ""
