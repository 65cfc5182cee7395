"""Word, PowerPoint, Excel, EPUB and HTML: through markitdown and openpyxl."""

from __future__ import annotations

import io
import re
import warnings
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from indexer.documents import Heading
from indexer.extract.archive import first_text, open_archive, read_entry
from indexer.extract.dates import to_rfc3339
from indexer.extract.encoding import clean, declared_charset, decode
from indexer.extract.formats import MAX_TEXT_CHARS, Extracted
from indexer.extract.front_matter import front_matter, take_title
from indexer.extract.markdown import strip_markdown
from search.errors import SourceError
from search.records import MetadataField

if TYPE_CHECKING:
    from markitdown import DocumentConverter

_INLINE_TAGS = ["a", "abbr", "b", "code", "del", "em", "i", "kbd", "mark", "s", "samp", "strong", "sub", "sup", "u"]
_EPUB_FIELD = re.compile(r"^\*\*(Title|Authors|Language|Publisher|Date|Description|Identifier):\*\* (.*)$")
_EMBEDDED = re.compile(r"!\[([^\[\]\n]*)\]\([^()\n]*\)")
_META_DATE = re.compile(
    r"""<meta\s[^>]*(?:name|property)=["'](?:article:published_time|dc\.date|date|dcterms\.created)["'][^>]*>""", re.I
)
_HEAD_CHARS = 100_000
_CONTENT = re.compile(r"""content=["']([^"']+)["']""", re.I)


def read_html(path: Path, max_bytes: int) -> Extracted:
    """A web page: all of its text, scripts and styles left out; a front matter before it as metadata."""
    data = read_bounded(path, max_bytes)
    fields, source = front_matter(decode(data, declared=declared_charset(data)))
    found = read_html_text(source)
    title, date = take_title(fields, found.title), to_rfc3339(fields.pop("date", None))
    return replace(found, title=title, date=date or found.date, metadata={**found.metadata, **fields})


def read_html_text(source: str) -> Extracted:
    """HTML that is decoded already."""
    from markitdown.converters import HtmlConverter

    text, title = _convert(HtmlConverter(), io.BytesIO(source.encode("utf-8", "replace")), ".html")
    stripped, headings = strip_markdown(text, inline=False)
    first = next((heading.text for heading in headings if heading.level == 1), "")
    meta = _META_DATE.search(source[:_HEAD_CHARS])
    date = _CONTENT.search(meta[0]) if meta else None
    return Extracted(stripped, title or first, headings, to_rfc3339(date[1]) if date else None)


def read_docx(path: Path, max_bytes: int) -> Extracted:
    """A Word document."""
    from markitdown.converters import DocxConverter

    return _read_office(path, max_bytes, DocxConverter())  # type: ignore[no-untyped-call]  # its constructor has no annotations


def read_pptx(path: Path, max_bytes: int) -> Extracted:
    """A PowerPoint presentation, notes included."""
    from markitdown.converters import PptxConverter

    return _read_office(path, max_bytes, PptxConverter())  # type: ignore[no-untyped-call]  # as above


def read_xlsx(path: Path, max_bytes: int) -> Extracted:
    """An Excel workbook: one heading a sheet, one line a row.

    Read row by row with openpyxl, since markitdown goes through pandas, which writes `NaN` and `Unnamed: 0` into the
    text and turns whole numbers into fractions.
    """
    import openpyxl  # type: ignore[import-untyped]  # it ships no types

    title, date, metadata = _properties(path)
    data = io.BytesIO(read_bounded(path, max_bytes))
    lines: list[str] = []
    headings: list[Heading] = []
    length = 0
    workbook = openpyxl.load_workbook(data, read_only=True, data_only=True, keep_links=False)
    for sheet in workbook.worksheets:
        headings.append(Heading(length, 2, clean(sheet.title)))
        rows = (
            "; ".join(_cell(value) for value in row if value is not None) for row in sheet.iter_rows(values_only=True)
        )
        for line in (clean(sheet.title), *filter(None, map(clean, rows)), ""):
            lines.append(line)
            length += len(line) + 1
            if length > MAX_TEXT_CHARS:
                raise SourceError(f"holds more than {MAX_TEXT_CHARS:,} characters of text; split it")
    filled = any(line and line not in workbook.sheetnames for line in lines)
    return Extracted("\n".join(lines).rstrip("\n") if filled else "", title, tuple(headings), date, metadata)


def read_epub(path: Path, max_bytes: int) -> Extracted:
    """An e-book, chapters in reading order."""
    from markitdown.converters import EpubConverter

    with open_archive(path) as archive:
        if "META-INF/encryption.xml" in archive.namelist() and "META-INF/rights.xml" in archive.namelist():
            raise SourceError("password-protected")
    converter = EpubConverter()  # type: ignore[no-untyped-call]  # its constructor has no annotations
    text, title = _convert(converter, io.BytesIO(read_bounded(path, max_bytes)), ".epub")
    lines = text.split("\n")
    fields: dict[str, str] = {}
    while lines and (match := _EPUB_FIELD.match(lines[0])):
        fields[match[1]] = match[2].strip()
        del lines[0]
        while fields and match[1] == "Description" and lines and lines[0] and not _EPUB_FIELD.match(lines[0]):
            del lines[0]
    stripped, headings = strip_markdown("\n".join(lines), inline=False)
    metadata: dict[str, MetadataField] = {"author": fields["Authors"]} if fields.get("Authors") else {}
    return Extracted(stripped, title, headings, to_rfc3339(fields.get("Date")), metadata)


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The bytes of a file that is not larger than the limit."""
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise SourceError(f"holds more than the limit of {max_bytes / 1e6:.0f} MB; split it")
    return data


def _read_office(path: Path, max_bytes: int, converter: DocumentConverter) -> Extracted:
    title, date, metadata = _properties(path)
    text, _ = _convert(converter, io.BytesIO(read_bounded(path, max_bytes)), path.suffix.lower())
    stripped, headings = strip_markdown(text, inline=False)
    first = next((heading.text for heading in headings if heading.level == 1), "")
    return Extracted(stripped, title or first, headings, date, metadata)


def _properties(path: Path) -> tuple[str, str | None, dict[str, MetadataField]]:
    """Title, date and author of an Office document, once it has passed the checks of its archive."""
    with open_archive(path) as archive:
        core = read_entry(archive, "docProps/core.xml")
    author = first_text(core, "creator")
    return (
        first_text(core, "title"),
        to_rfc3339(first_text(core, "modified", "created")),
        {"author": author} if author else {},
    )


def _convert(converter: DocumentConverter, stream: io.BytesIO, extension: str) -> tuple[str, str]:
    from markitdown import StreamInfo

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = converter.convert(
            stream,
            StreamInfo(extension=extension, charset="utf-8"),
            strip=_INLINE_TAGS,
            escape_asterisks=False,
            escape_underscores=False,
            bullets="-",
        )
    text = clean(_EMBEDDED.sub(r"\1", result.markdown))
    return text, " ".join(clean(result.title or "").split())


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d" if value.time() == datetime.min.time() else "%Y-%m-%d %H:%M")
    if isinstance(value, float):
        return f"{value:.10g}"
    return " ".join(str(value).split())
