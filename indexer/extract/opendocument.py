"""OpenDocument text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element

from indexer.documents import Heading
from indexer.extract.archive import first_text, open_archive, read_entry
from indexer.extract.dates import to_rfc3339
from indexer.extract.encoding import clean
from indexer.extract.formats import Extracted
from search.errors import SourceError
from search.records import MetadataField

_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_LEFT_OUT = {f"{_TEXT}tracked-changes", f"{_OFFICE}annotation", f"{_TEXT}table-of-content", f"{_TEXT}note-citation"}
_SPACES = {f"{_TEXT}tab": "\t", f"{_TEXT}line-break": "\n"}


def read_odt(path: Path, max_bytes: int) -> Extracted:
    """An OpenDocument text with its headings; comments and deleted text are left out."""
    with open_archive(path) as archive:
        if b"encryption-data" in (archive.read("META-INF/manifest.xml") if _has(archive.namelist()) else b""):
            raise SourceError("password-protected")
        content = read_entry(archive, "content.xml")
        meta = read_entry(archive, "meta.xml")
    body = content.find(f"{_OFFICE}body/{_OFFICE}text") if content is not None else None
    if body is None:
        raise SourceError("broken odt file, or not odt at all (it has no text body)")
    parts: list[str] = []
    headings: list[Heading] = []
    length = 0
    for level, line in _blocks(body):
        line = clean(line).strip()
        if not line:
            continue
        if level:
            headings.append(Heading(length, level, line))
        parts.append(line)
        length += len(line) + 2
    author = first_text(meta, "creator", "initial-creator")
    metadata: dict[str, MetadataField] = {"author": author} if author else {}
    title = first_text(meta, "title") or next((heading.text for heading in headings if heading.level == 1), "")
    return Extracted(
        "\n\n".join(parts), title, tuple(headings), to_rfc3339(first_text(meta, "date", "creation-date")), metadata
    )


def _has(names: list[str]) -> bool:
    return "META-INF/manifest.xml" in names


def _blocks(body: Element) -> Iterator[tuple[int, str]]:
    """Headings (with their level), paragraphs and table rows (level 0), without recursion."""
    stack = list(reversed(body))
    while stack:
        element = stack.pop()
        if element.tag in _LEFT_OUT:
            continue
        if element.tag == f"{_TEXT}h":
            level = element.get(f"{_TEXT}outline-level", "1")
            yield (int(level) if level.isdecimal() and int(level) else 1), _inline(element)
        elif element.tag == f"{_TEXT}p":
            yield 0, _inline(element)
        elif element.tag == f"{_TABLE}table-row":
            yield 0, "; ".join(filter(None, (_inline(cell).strip() for cell in element)))
        else:
            stack.extend(reversed(element))


def _inline(element: Element) -> str:
    pieces: list[str] = []
    stack: list[Element | str] = [element]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            pieces.append(item)
            continue
        after = item.tail or "" if item is not element else ""
        if item.tag in _LEFT_OUT:
            stack.append(after)
        elif item.tag == f"{_TEXT}s":
            pieces.append(" " * min(int(item.get(f"{_TEXT}c") or 1), 100))
            stack.append(after)
        else:
            pieces.append(_SPACES.get(item.tag, item.text or ""))
            stack.append(after)
            stack.extend(reversed(item))
            if item.tag == f"{_TEXT}p" and item is not element:
                pieces.insert(len(pieces) - 1, " ")
    return "".join(pieces)
