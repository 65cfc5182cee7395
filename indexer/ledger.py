"""The ledger: what the index holds of which file, so that an ingest reads only what is new or changed.

One SQLite file inside the generation it describes, copied and swapped with it. A document's row is written after its
chunks are durable in the store and dropped before they are replaced; so a row always means "complete in the store".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from search.errors import IndexFormatError, PanlinguaError, StoreError

SCHEMA_VERSION = 1
UNFINISHED = -1
"""Size of a file that is being read or has to be read again: what a kill leaves behind."""
_NOT_ITS_FAULT = (
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
)  # fmt: skip
SCHEMA = """
CREATE TABLE IF NOT EXISTS roots (path TEXT PRIMARY KEY, prefix TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS files (
    source TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, digest TEXT NOT NULL,
    options TEXT NOT NULL, skipped TEXT);
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, source TEXT NOT NULL, digest TEXT NOT NULL, chunks INTEGER NOT NULL, run INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS documents_source ON documents (source);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class FileRow:
    """State of one file: what it looked like when it was read, and why it was skipped, if it was."""

    source: str
    size: int
    mtime_ns: int
    digest: str
    options: str
    skipped: str | None = None


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """One document that is complete in the store. `run` is the ingest that saw it last."""

    id: str
    source: str
    digest: str
    chunks: int
    run: int


class Ledger:
    """Open or create the ledger at `path`; with `read_only`, that of a published generation, without touching it.

    Raises:
        IndexFormatError: The file is damaged or of another version.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self._read_only = read_only
        try:
            if read_only:
                uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
                self._db = sqlite3.connect(uri, uri=True, isolation_level=None)
            else:
                self._db = sqlite3.connect(path, isolation_level=None)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.executescript(SCHEMA)
            found = self.meta("schema")
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error
        if found is None:
            self.set_meta("schema", str(SCHEMA_VERSION))
        elif found != str(SCHEMA_VERSION):
            self._db.close()
            message = f"the ledger {path} has version {found}, this program reads {SCHEMA_VERSION}."
            raise IndexFormatError(f"{message} Run `indexer ingest FOLDER --fresh`.")

    def close(self) -> None:
        """Fold the write-ahead log into the file, so that the file alone is the ledger, and close it."""
        try:
            if not self._read_only:
                self._db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error
        finally:
            self._db.close()

    def meta(self, key: str) -> str | None:
        """A stored value, or None."""
        rows = self._read("SELECT value FROM meta WHERE key=?", (key,))
        return str(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Store a value."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def set_metas(self, values: Mapping[str, str]) -> None:
        """Store several values, all or none."""
        self._write_many("INSERT OR REPLACE INTO meta VALUES (?, ?)", list(values.items()))

    def read_all_again(self) -> None:
        """Have the next ingests read every file again, and remove what is left of those that are gone."""
        try:
            self._db.executescript(
                f"BEGIN IMMEDIATE; UPDATE files SET size={UNFINISHED}, digest=''; DELETE FROM documents; COMMIT"
            )
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def known_prefix(self, root: Path) -> str | None:
        """What the ids of an ingested root's documents begin with, or of a folder that was read as a part of one."""
        path = PurePosixPath(_text(str(root)))
        roots = sorted(self.roots(), key=lambda row: -len(row[0]))
        for above, prefix in roots:
            below = path.relative_to(above) if path.is_relative_to(above) else None
            name = "".join(f"{part}/" for part in below.parts) if below else ""
            if below is not None and (not name or prefix + name not in {other for _, other in roots}):
                return None if any(part.startswith(".") for part in below.parts) else prefix + name
        return None

    def prefix_of(self, root: Path) -> str:
        """What the ids of this root's documents begin with: nothing for the first root, `name/` for later ones."""
        known = self.known_prefix(root)
        if known is not None:
            return known
        taken = {prefix for (prefix,) in self._read("SELECT prefix FROM roots")}
        base = _text(root.name) or "root"
        candidates = (f"{base}{n if n > 1 else ''}/" for n in count(1))
        free = (name for name in candidates if name not in taken and next(self.iter_files(name), None) is None)
        prefix = next(free) if taken else ""
        self._write("INSERT INTO roots VALUES (?, ?)", (_text(str(root)), prefix))
        return prefix

    def roots(self) -> list[tuple[str, str]]:
        """The folders ingested so far, with the prefix of their ids."""
        return [(str(path), str(prefix)) for path, prefix in self._read("SELECT path, prefix FROM roots")]

    def file(self, source: str) -> FileRow | None:
        """State of a file, or None when it is new."""
        rows = self._read("SELECT * FROM files WHERE source=?", (_text(source),))
        return FileRow(*rows[0]) if rows else None

    def put_file(self, row: FileRow) -> None:
        """Record a file as dealt with."""
        values = (_text(row.source), row.size, row.mtime_ns, row.digest, row.options, row.skipped)
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", values)

    def drop_file(self, source: str) -> None:
        """Forget a file; its documents must have been dropped before."""
        self._write("DELETE FROM files WHERE source=?", (_text(source),))

    def iter_files(self, prefix: str = "") -> Iterator[FileRow]:
        """Files whose source begins with `prefix`, in order."""
        for row in self._read("SELECT * FROM files ORDER BY source"):
            if row[0].startswith(prefix):
                yield FileRow(*row)

    def document(self, document_id: str) -> DocumentRow | None:
        """State of a document, or None when it is not complete in the store."""
        rows = self._read("SELECT * FROM documents WHERE id=?", (_text(document_id),))
        return DocumentRow(*rows[0]) if rows else None

    def documents_of(self, source: str, *, before_run: int | None = None) -> list[str]:
        """Ids of a file's documents; with `before_run`, those not seen in that run."""
        run = -1 if before_run is None else before_run
        statement = "SELECT id FROM documents WHERE source=? AND (?=-1 OR run<>?) ORDER BY id"
        return [str(row[0]) for row in self._read(statement, (_text(source), run, run))]

    def put_documents(self, rows: list[DocumentRow]) -> None:
        """Record documents whose chunks are durable, all or none."""
        self._write_many(
            "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?)",
            [(_text(row.id), _text(row.source), row.digest, row.chunks, row.run) for row in rows],
        )

    def touch_document(self, document_id: str, run: int) -> None:
        """Mark an unchanged document as seen in this run."""
        self._write("UPDATE documents SET run=? WHERE id=?", (run, _text(document_id)))

    def drop_documents(self, document_ids: list[str]) -> None:
        """Forget documents, before their chunks are removed or replaced."""
        self._write_many("DELETE FROM documents WHERE id=?", [(_text(document_id),) for document_id in document_ids])

    def totals(self) -> tuple[int, int]:
        """Documents and chunks that are complete in the store."""
        ((documents, chunks),) = self._read("SELECT COUNT(*), COALESCE(SUM(chunks), 0) FROM documents")
        return int(documents), int(chunks)

    def skipped(self) -> list[tuple[str, str]]:
        """Files that were skipped, each with its reason."""
        rows = self._read("SELECT source, skipped FROM files WHERE skipped IS NOT NULL ORDER BY source")
        return [(str(source), str(reason)) for source, reason in rows]

    def _explained(self, error: sqlite3.Error) -> PanlinguaError:
        code = (getattr(error, "sqlite_errorcode", None) or sqlite3.SQLITE_ERROR) & 0xFF  # without its finer grades
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreError(f"the ledger {self.path} is in use by another process; run it again when that has ended")
        if code in _NOT_ITS_FAULT:
            return StoreError(
                f"cannot read or write the ledger {self.path}: {error}. Is there room on the disk, and may it be "
                "written? Then run it again."
            )
        return IndexFormatError(
            f"the ledger {self.path} is damaged ({error}). Run `indexer ingest FOLDER --fresh` to build it again."
        )

    def _read(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._db.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._explained(error) from error

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        self._write_many(statement, [values])

    def _write_many(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(statement, rows)
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise self._explained(error) from error


def _text(value: str) -> str:
    """File names that are not valid UTF-8 are stored by their bytes' escapes, as Python holds them."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
