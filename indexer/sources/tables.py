"""Tables: one document a record, read in bounded memory."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal

from indexer.documents import Document, Skipped
from indexer.extract.dates import to_rfc3339
from indexer.extract.encoding import clean, detect_stream, read_text
from indexer.extract.metadata import metadata_field
from indexer.extract.plain import open_bytes
from indexer.sources.column_names import DATE, ID, TEXT, TITLE, guess_columns
from indexer.sources.files import MEGABYTE, ReadOptions, SourceFile
from search.errors import SourceError
from search.records import MetadataField

STREAMED_FORMATS = ("csv", "tsv", "jsonl", "ndjson", "parquet")
MAX_LINE_CHARS = 64 * MEGABYTE
MAX_FIELD_CHARS = 16 * MEGABYTE
_PEEK_RECORDS = 100
_PARQUET_ROWS = 512
_CSV_LOCK = threading.Lock()

Row = tuple[int, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column plays which part."""

    text: tuple[str, ...]
    title: str | None
    id: str | None
    date: str | None

    @property
    def used(self) -> frozenset[str]:
        """The columns that do not become metadata."""
        return frozenset(filter(None, (*self.text, self.title, self.id, self.date)))


def iter_records(file: SourceFile, *, name: str, packed: bool, options: ReadOptions) -> Iterator[Document | Skipped]:
    """Yield a document for every record of a table; a record that cannot be read is `Skipped`, and the rest goes on.

    Raises:
        SourceError: The table as a whole cannot be read (on).
    """
    try:
        rows = _OPENERS[name](file, options)
        first = list(itertools.islice(rows, _PEEK_RECORDS))
        names = list(dict.fromkeys(key for row in first if isinstance(row, tuple) for key in row[1]))
        if not first:
            raise SourceError("empty")
        columns = choose_columns(names, [row[1] for row in first if isinstance(row, tuple)], options)
        yield from _documents(file, itertools.chain(first, rows), columns, explicit=bool(options.text_columns))
    except (EOFError, zlib.error) as error:
        raise SourceError(f"broken {'gzip' if packed else name} file ({error})") from error
    except RecursionError as error:
        raise SourceError("nested too deeply") from error


def choose_columns(names: list[str], sample: list[Mapping[str, object]], options: ReadOptions) -> Columns:
    """The columns asked for, and usual names for the rest.

    Raises:
        SourceError: A column that was asked for does not exist.
    """
    asked = (*options.text_columns, options.title_column, options.id_column, options.date_column)
    missing = [name for name in asked if name is not None and name not in names]
    if missing and names:
        raise SourceError(
            f"no column {', '.join(map(repr, missing))}; the columns are {', '.join(map(repr, names[:50]))}"
        )
    given = {
        part: tuple(filter(None, (column,)))
        for part, column in ((TITLE, options.title_column), (ID, options.id_column), (DATE, options.date_column))
    }
    guessed = guess_columns(names, sample, {**given, TEXT: options.text_columns})
    title, key, day = (next(iter(given[part]), guessed.get(part)) for part in (TITLE, ID, DATE))
    text = options.text_columns or ((guessed[TEXT],) if TEXT in guessed else ())
    if not text:
        strings = [name for name in names if any(isinstance(row.get(name), str) for row in sample)]
        text = tuple(name for name in strings if name not in (title, key, day)) or (
            (title,) if title in strings else ()
        )
        title = None if text == (title,) else title
    return Columns(text, title if title not in text else None, key, day)


def _documents(
    file: SourceFile, rows: Iterable[Row | Skipped], columns: Columns, *, explicit: bool
) -> Iterator[Document | Skipped]:
    keys = _Keys() if columns.id else None
    for item in rows:
        if isinstance(item, Skipped):
            yield item
            continue
        number, row = item
        key = keys.unique(_string(row.get(columns.id)), number) if keys and columns.id else str(number)
        text = "\n\n".join(filter(None, (_string(row.get(name)).strip() for name in columns.text)))
        if not text and not columns.text and not explicit:
            text = "\n\n".join(value.strip() for value in row.values() if isinstance(value, str) and value.strip())
        if not clean(text).strip():
            wanted = ", ".join(map(repr, columns.text)) or "any column"
            yield Skipped(f"{file.relative}#{key}", f"empty: no text in {wanted}")
            continue
        yield Document(
            id=f"{file.relative}#{key}",
            text=clean(text),
            source=file.relative,
            title=" ".join(clean(_string(row.get(columns.title))).split()) if columns.title else "",
            date=to_rfc3339(row.get(columns.date)) if columns.date else None,
            metadata=_metadata(row, columns),
        )


@dataclass
class _Keys:
    """Makes the keys of one file unique; only their hashes are kept."""

    seen: set[int] = field(default_factory=set)

    def unique(self, key: str, number: int) -> str:
        base = candidate = " ".join(clean(key).split()) or str(number)
        copies = itertools.count(2)
        while hash(candidate) in self.seen:
            candidate = f"{base}~{next(copies)}"
        self.seen.add(hash(candidate))
        return candidate


def _string(value: object) -> str:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(filter(None, map(_string, value)))
    return str(value) if isinstance(value, int | float | Decimal | date) else ""


def _metadata(row: Mapping[str, object], columns: Columns) -> dict[str, MetadataField]:
    fields = ((name, metadata_field(value)) for name, value in row.items() if name not in columns.used)
    return {clean(name): value for name, value in fields if value is not None}


def _lines(file: SourceFile, *, newline: str) -> io.TextIOWrapper:
    stream = open_bytes(file.path)
    encoding = detect_stream(stream)
    stream.read(encoding.skip)
    return io.TextIOWrapper(stream, encoding=encoding.name, errors="replace", newline=newline)


def _iter_csv(file: SourceFile, options: ReadOptions) -> Iterator[Row | Skipped]:
    with _lines(file, newline="") as lines:
        head = lines.readline(MEGABYTE)
        delimiter = max(",;\t|", key=_outside_quotes(head).count)
        bounded = itertools.chain([head], iter(lambda: lines.readline(MAX_FIELD_CHARS), ""))
        yield from _csv_rows(file, csv.reader(bounded, delimiter=delimiter))


def _iter_tsv(file: SourceFile, options: ReadOptions) -> Iterator[Row | Skipped]:
    """Tab-separated; a quotation mark is a character like any other, except around a whole cell."""
    with _lines(file, newline="") as lines:
        bounded = iter(lambda: lines.readline(MAX_FIELD_CHARS), "")
        yield from _csv_rows(file, ([_unquoted(cell) for cell in line.rstrip("\r\n").split("\t")] for line in bounded))


def _csv_rows(file: SourceFile, reader: Iterator[list[str]]) -> Iterator[Row | Skipped]:
    with _CSV_LOCK:
        csv.field_size_limit(max(csv.field_size_limit(), MAX_FIELD_CHARS))
    header: list[str] | None = None
    number = 0
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield Skipped(
                f"{file.relative}#{number}", f"row {number} cannot be read: {error}; is a quotation left open?"
            )
            continue
        if not any(map(str.strip, cells)):
            continue
        if header is None:
            header = _header(cells)
            continue
        number += 1
        extra = cells[len(header) :]
        if any(extra):
            yield Skipped(f"{file.relative}#{number}", f"row {number} has {len(cells)} cells, the header {len(header)}")
            continue
        yield number, dict(zip(header, cells, strict=False))


def _header(cells: list[str]) -> list[str]:
    names: list[str] = []
    for position, cell in enumerate(cells, 1):
        name = clean(cell).strip() or f"column{position}"
        names.append(name if name not in names else f"{name}_{position}")
    return names


def _outside_quotes(line: str) -> str:
    return "".join(line.split('"')[::2])


def _unquoted(cell: str) -> str:
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"'
    return cell[1:-1].replace('""', '"') if quoted else cell


def _iter_jsonl(file: SourceFile, options: ReadOptions) -> Iterator[Row | Skipped]:
    with _lines(file, newline="\n") as lines:
        for number in itertools.count(1):
            line = lines.readline(MAX_LINE_CHARS)
            if not line:
                return
            if len(line) == MAX_LINE_CHARS and not line.endswith("\n"):
                while line and not line.endswith("\n"):
                    line = lines.readline(MAX_LINE_CHARS)
                yield Skipped(
                    f"{file.relative}#{number}", f"line {number} is longer than {MAX_LINE_CHARS:,} characters"
                )
            elif line.strip():
                yield _json_row(file, number, line)


def _json_row(file: SourceFile, number: int, line: str) -> Row | Skipped:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        detail = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        return Skipped(f"{file.relative}#{number}", f"line {number} is no JSON ({detail})")
    return _object_row(file, number, value)


def _object_row(file: SourceFile, number: int, value: object) -> Row | Skipped:
    if isinstance(value, dict) and value:
        return number, value
    return Skipped(f"{file.relative}#{number}", f"record {number} is not an object with columns")


def _iter_json(file: SourceFile, options: ReadOptions) -> Iterator[Row | Skipped]:
    """A list of objects, an object that holds one, or a single object."""
    with open_bytes(file.path) as stream:
        text = read_text(stream, max_bytes=options.max_file_bytes)
    try:
        value = json.loads(text, strict=False)
    except ValueError as error:
        raise SourceError(f"broken json file ({error}); one object a line needs the extension .jsonl") from error
    del text
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list) and item and isinstance(item[0], dict)]
        value = lists[0] if len(lists) == 1 else [value]
    if not isinstance(value, list):
        raise SourceError("holds no list of objects")
    for number, item in enumerate(value, 1):
        yield _object_row(file, number, item)


def _iter_parquet(file: SourceFile, options: ReadOptions) -> Iterator[Row | Skipped]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(file.path) as table:
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        detail = " ".join(str(error).split())[:200]
        raise SourceError(f"broken parquet file after row {number} ({detail})") from error


_OPENERS = {
    "csv": _iter_csv,
    "tsv": _iter_tsv,
    "jsonl": _iter_jsonl,
    "ndjson": _iter_jsonl,
    "json": _iter_json,
    "parquet": _iter_parquet,
}
