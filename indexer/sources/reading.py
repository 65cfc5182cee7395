"""One file to its documents."""

from __future__ import annotations

from collections.abc import Iterator

from indexer.documents import Document, Skipped
from indexer.extract import CHILD_FORMATS, DOCUMENT_FORMATS, Extracted, extract
from indexer.isolation import parsers
from indexer.sources.files import MEGABYTE, ReadOptions, SourceFile, format_of
from indexer.sources.tables import STREAMED_FORMATS, iter_records
from search.errors import SourceError, TransientSourceError


def iter_documents(file: SourceFile, options: ReadOptions) -> Iterator[Document | Skipped]:
    """Yield the documents of one file: one for a text, one a record for a table.

    Whatever cannot be read comes out as `Skipped` with its reason; nothing of the file's content makes this raise.
    """
    name, packed = format_of(file.relative) or ("txt", False)
    if file.size == 0:
        yield Skipped(file.relative, "empty")
        return
    if file.size > options.max_file_bytes and name not in STREAMED_FORMATS:
        limit = f"{options.max_file_bytes / MEGABYTE:.0f} MB"
        yield Skipped(file.relative, f"{file.size / MEGABYTE:.0f} MB, more than the limit of {limit}; split it")
        return
    try:
        if name in DOCUMENT_FORMATS:
            yield _document(file, _extract(file, name, options))
        else:
            yield from iter_records(file, name=name, packed=packed, options=options)
    except SourceError as error:
        yield Skipped(file.relative, str(error), transient=isinstance(error, TransientSourceError))
    except OSError as error:
        yield Skipped(file.relative, f"cannot be read: {error.strerror or error}", transient=True)


def _extract(file: SourceFile, name: str, options: ReadOptions) -> Extracted:
    if name in CHILD_FORMATS:
        return parsers.extract(file.path, name=name, max_bytes=options.max_file_bytes, timeout_s=options.timeout_s)
    return extract(file.path, name=name, max_bytes=options.max_file_bytes)


def _document(file: SourceFile, found: Extracted) -> Document:
    return Document(
        id=file.relative,
        text=found.text,
        source=file.relative,
        title=found.title,
        headings=found.headings,
        date=found.date,
        metadata=found.metadata,
    )
