"""Which reader reads which format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from indexer.documents import Heading
from search.errors import SourceError
from search.records import MetadataField

MAX_TEXT_CHARS = 300_000_000


@dataclass(frozen=True, slots=True)
class Extracted:
    """What a reader found in one file."""

    text: str
    title: str = ""
    headings: tuple[Heading, ...] = ()
    date: str | None = None
    metadata: dict[str, MetadataField] = field(default_factory=dict)


_READERS = {
    "txt": "plain:read_txt",
    "md": "plain:read_md",
    "markdown": "plain:read_md",
    "html": "office:read_html",
    "htm": "office:read_html",
    "xhtml": "office:read_html",
    "pdf": "pdf:read_pdf",
    "docx": "office:read_docx",
    "pptx": "office:read_pptx",
    "xlsx": "office:read_xlsx",
    "odt": "opendocument:read_odt",
    "epub": "office:read_epub",
    "eml": "mail:read_eml",
    "rtf": "rich:read_rtf",
}
DOCUMENT_FORMATS = tuple(_READERS)
CHILD_FORMATS = tuple(name for name in _READERS if not _READERS[name].startswith("plain:"))
"""Formats whose parsers run in a process of their own."""


def extract(path: Path, *, name: str, max_bytes: int) -> Extracted:
    """Read one file of the format `name`.

    Raises:
        SourceError: The file cannot be read; the message is the reason to show. Whatever a parser raises becomes one.
    """
    module, _, function = _READERS[name].partition(":")
    reader: Callable[[Path, int], Extracted] = getattr(import_module(f"indexer.extract.{module}"), function)
    try:
        found = reader(path, max_bytes)
    except SourceError:
        raise
    except MemoryError as error:
        raise SourceError("needs more memory to read than is allowed; split it") from error
    except Exception as error:  # whatever a parser of foreign data may raise
        if isinstance(error, OSError) and error.errno:
            raise SourceError(f"cannot be read: {error.strerror}") from error
        detail = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SourceError(f"broken {name} file, or not {name} at all ({detail})") from error
    if not found.text.strip():
        raise SourceError(_EMPTY.get(name, "empty"))
    if len(found.text) > MAX_TEXT_CHARS:
        raise SourceError(f"holds more than {MAX_TEXT_CHARS:,} characters of text; split it")
    return found


_EMPTY = {"pdf": "no text in it; is it a scan? Recognise its text (OCR) first"}
