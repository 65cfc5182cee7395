"""Translations in an index: found at the end of an ingest, kept beside it in `families.sqlite`.

What was read of a document (its mean vector, its length, its names) is kept, so that an ingest reads only the chunks of
what is new or changed and of the candidates for its translation. Everything is found again when the language map, the
encoder or the rules change.

    documents   id, digest in the ledger, language, chunks, length; family, pivot and places of its chunks in the pivot
    signatures  mean vector of the chunks (float16), hashes of names
    pairs       candidates, with what was measured of their texts

Memory: vectors and neighbours lie in unnamed files that the system pages in and out; the rest is the names of the
documents.
"""

from __future__ import annotations

import logging
import math
import shutil
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.ledger import Ledger
from indexer.pairing import (
    LEAST_MARGIN,
    LIKELY,
    NEIGHBOURS,
    Names,
    Neighbours,
    Pairs,
    align,
    fill_nearest,
    likelihood,
    mutual_nearest,
    names_in,
    nearest_in_blocks,
    order_similarity,
    share_of_names,
    text_length,
    unite,
    variety_of,
)
from search.balance import LanguageMap
from search.diversity import neutral_vectors
from search.errors import StoreError
from search.fold import FAMILIES_VERSION, vectors_origin
from search.records import UNDETERMINED, Chunk, Filter, Match, Vectors
from search.store.base import VectorStore

logger = logging.getLogger(__name__)

EXACT_DOCUMENTS = 30_000
"""Up to so many documents all are compared with all; beyond, candidates for few new ones come from searches."""
PAIRS_PER_SEARCH = 3_600_000
"""Pairs of documents that are compared in the time of the two searches for one: 90 million a second and core, and 20 ms
a search among 300,000 chunks. When many documents are new, comparing all with all is quicker."""
SEARCHED = 64
"""Chunks in other languages that each search for candidates looks at."""
_READ_DOCUMENTS = 64
_RELEASE_CHUNKS = 8192
"""After reading so many chunks of a store their pages are let go, as elsewhere in an ingest."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, lang TEXT NOT NULL, chunks INTEGER NOT NULL, length REAL NOT NULL,
    family INTEGER, pivot TEXT, aligned BLOB);
CREATE INDEX IF NOT EXISTS documents_family ON documents (family);
CREATE TABLE IF NOT EXISTS signatures (id TEXT PRIMARY KEY, vector BLOB NOT NULL, names BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS pairs (
    first TEXT NOT NULL, second TEXT NOT NULL, margin REAL NOT NULL, agreement REAL NOT NULL,
    order_similarity REAL NOT NULL, names REAL NOT NULL, PRIMARY KEY (first, second)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pairs_second ON pairs (second);
"""


@dataclass(frozen=True, slots=True)
class _Table:
    """Documents of a known language, by ascending id: `languages` (N,) are places in `names`, `vectors` are (N, D)."""

    ids: list[str]
    names: list[str]
    languages: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.float16]


def update_families(
    path: Path,
    *,
    store: VectorStore,
    digests: Mapping[str, str],
    language_map: LanguageMap,
    encoder_fingerprint: str,
) -> int:
    """Bring the families in `path` into step with an index; a kill leaves the file as it was.

    Up to EXACT_DOCUMENTS the outcome is the same as if all documents were new, whatever was known before.

    Args:
        path: The file, made when it is missing.
        store: The index's store, written and optimised.
        digests: Documents that are complete in the store, each with a digest that changes when its chunks do.
        language_map: The index's; when it or the encoder changes, everything is found anew.
        encoder_fingerprint: Of the index's encoder.

    Returns:
        The number of families.

    Raises:
        StoreError: The file cannot be written.
    """
    work, origin = path.with_name(f"{path.name}.new"), vectors_origin(encoder_fingerprint, language_map.fingerprint)

    def update(*, anew: bool) -> int:
        work.unlink(missing_ok=True)
        if path.is_file() and not anew:
            shutil.copyfile(path, work)
        with closing(_open(work, f"{FAMILIES_VERSION} {origin}")) as db, _Scratch(path.parent) as scratch:
            count = _Update(db, store, language_map, scratch).run(digests)
        work.replace(path)
        return count

    try:
        try:
            return update(anew=False)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            logger.warning("the translations beside the index are damaged (%s); they are found anew", error)
            return update(anew=True)
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreError(f"cannot write {path}: {error}. Free some disk space and run it again.") from error


def _open(path: Path, origin: str) -> sqlite3.Connection:
    try:
        return _prepare(sqlite3.connect(path, isolation_level=None), origin)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        logger.warning("the translations beside the index were damaged; they are found anew")
        path.unlink()
        return _prepare(sqlite3.connect(path, isolation_level=None), origin)


def _prepare(db: sqlite3.Connection, origin: str) -> sqlite3.Connection:
    row = db.execute("SELECT name FROM sqlite_master WHERE name='meta'").fetchone()
    known = row and db.execute("SELECT value FROM meta WHERE key='origin'").fetchone()
    if not known or known[0] != origin:
        for name in ("meta", "documents", "signatures", "pairs"):
            db.execute(f"DROP TABLE IF EXISTS {name}")
    db.executescript(_SCHEMA)
    db.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?), ('origin', ?)", (str(FAMILIES_VERSION), origin))
    return db


class _Scratch:
    """Unnamed files in the folder of the index for what may not fit into memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[Any] = []

    def __enter__(self) -> _Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def file(self) -> Any:
        """A new file, gone when it is closed."""
        self._files.append(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 - closed in __exit__
        return self._files[-1]

    def array(self, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
        """A new array of zeros."""
        return np.memmap(self.file(), dtype, "w+", shape=shape) if 0 not in shape else np.zeros(shape, dtype)


def read_documents(
    store: VectorStore, language_map: LanguageMap, document_ids: Sequence[str]
) -> Iterator[tuple[str, list[Chunk], Vectors]]:
    """Chunks of each document in order, and their neutral parts at unit length (chunks, D)."""
    touched = 0
    for start in range(0, len(document_ids), _READ_DOCUMENTS):
        wanted = Filter((Match("document_id", tuple(document_ids[start : start + _READ_DOCUMENTS])),))
        found: dict[str, list[tuple[Chunk, Vectors]]] = defaultdict(list)
        for point in store.iter_points(filter=wanted, with_vectors=True):
            found[point.chunk.document_id].append((point.chunk, point.dense))
        for document, rows in sorted(found.items()):
            rows.sort(key=lambda row: row[0].number)
            yield (
                document, [chunk for chunk, _ in rows],
                neutral_vectors(language_map, np.stack([dense for _, dense in rows])),
            )  # fmt: skip
        touched += sum(map(len, found.values()))
        if touched >= _RELEASE_CHUNKS:
            store.release_memory()
            touched = 0


def mean_vector(chunks: Sequence[Chunk], vectors: Vectors) -> bytes:
    """Mean of a document's neutral vectors (chunks, D) by the lengths of its chunks, at unit length, in float16."""
    mean = np.array([text_length(chunk.text) for chunk in chunks], np.float32) @ vectors
    return (mean / max(float(np.linalg.norm(mean)), 1e-6)).astype(np.float16).tobytes()


class _ChunkVectors:
    """Neutral chunk vectors of documents, read from the store once and kept in a file."""

    def __init__(self, store: VectorStore, language_map: LanguageMap, file: Any) -> None:
        self._store, self._map, self._file = store, language_map, file
        self._places: dict[str, tuple[int, int]] = {}
        self._end = 0

    def read(self, document_ids: Sequence[str]) -> Iterator[tuple[str, list[Chunk], Vectors]]:
        """See `read_documents`."""
        for document, chunks, vectors in read_documents(self._store, self._map, document_ids):
            self._keep(document, vectors)
            yield document, chunks, vectors

    def require(self, document_ids: Iterable[str]) -> None:
        """Read what was not read yet."""
        for _ in self.read(sorted(set(document_ids) - self._places.keys())):
            pass

    def __getitem__(self, document: str) -> Vectors:
        offset, count = self._places[document]
        self._file.seek(offset)
        size = self._store.dimension
        stored = np.frombuffer(self._file.read(count * size * 2), np.float16)
        return stored.reshape(count, size).astype(np.float32)

    def _keep(self, document: str, vectors: Vectors) -> None:
        self._file.seek(self._end)
        self._file.write(vectors.astype(np.float16).tobytes())
        self._places[document] = (self._end, len(vectors))
        self._end += vectors.size * 2


class _Update:
    """One update of a families file."""

    def __init__(
        self,
        db: sqlite3.Connection,
        store: VectorStore,
        language_map: LanguageMap,
        scratch: _Scratch,
    ) -> None:
        self._db, self._store, self._scratch = db, store, scratch
        self._chunks = _ChunkVectors(store, language_map, scratch.file())

    def run(self, digests: Mapping[str, str]) -> int:
        """See `update_families`."""
        self._db.execute("BEGIN")
        known = dict(self._db.execute("SELECT id, digest FROM documents"))
        changed = sorted(document for document, digest in digests.items() if known.get(document) != digest)
        gone = [document for document in known if digests.get(document) != known[document]]
        if changed or gone:
            self._forget(gone)
            self._read(changed, digests)
            table = self._load()
            near, looked = self._nearest(table, set(changed))
            self._weigh(table, mutual_nearest(near, table.languages), looked)
            self._write(self._unite(table), set(changed))
        count = self._db.execute("SELECT COUNT(DISTINCT family) FROM documents").fetchone()[0]
        self._db.execute("COMMIT")
        return int(count)

    def _forget(self, documents: Sequence[str]) -> None:
        rows = [(document,) for document in documents]
        for statement in (
            "DELETE FROM documents WHERE id=?", "DELETE FROM signatures WHERE id=?",
            "DELETE FROM pairs WHERE first=?", "DELETE FROM pairs WHERE second=?",
        ):  # fmt: skip
            self._db.executemany(statement, rows)

    def _read(self, documents: Sequence[str], digests: Mapping[str, str]) -> None:
        """Sign documents. The language of one in several is that of most of its letters."""
        for document, chunks, vectors in self._chunks.read(documents):
            lengths = np.array([text_length(chunk.text) for chunk in chunks], np.float32)
            by_language: dict[str, float] = defaultdict(float)
            for chunk, length in zip(chunks, lengths.tolist(), strict=True):
                by_language[variety_of(chunk.lang, chunk.script, chunk.text)] += length
            names = np.array(sorted(set().union(*(names_in(chunk.text) for chunk in chunks))), np.uint32)
            lang = max(sorted(by_language), key=by_language.__getitem__)
            row = (document, digests[document], lang, len(chunks), float(lengths.sum()))
            self._db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?, NULL, NULL, NULL)", row)
            signature = (document, mean_vector(chunks, vectors), names.tobytes())
            self._db.execute("INSERT INTO signatures VALUES (?, ?, ?)", signature)

    def _load(self) -> _Table:
        rows = self._db.execute("SELECT id, lang FROM documents WHERE lang<>? ORDER BY id", (UNDETERMINED,)).fetchall()
        names = sorted({lang for _, lang in rows})
        codes = {lang: code for code, lang in enumerate(names)}
        vectors = self._scratch.array((len(rows), self._store.dimension), np.float16)
        kept = self._db.execute(
            "SELECT vector FROM signatures JOIN documents USING (id) WHERE lang<>? ORDER BY id", (UNDETERMINED,)
        )
        for row, (vector,) in enumerate(kept):
            vectors[row] = np.frombuffer(vector, np.float16)
        languages = np.array([codes[lang] for _, lang in rows], np.int32)
        return _Table([document for document, _ in rows], names, languages, vectors)

    def _nearest(self, table: _Table, changed: Collection[str]) -> tuple[Neighbours, set[int] | None]:
        """Neighbours of the documents that were looked at, and which these are; None for all."""
        shape = (len(table.names), len(table.ids), NEIGHBOURS)
        near = Neighbours(self._scratch.array(shape, np.int32), self._scratch.array(shape, np.float32))
        near.rows[:] = -1
        if len(table.ids) > max(EXACT_DOCUMENTS, math.isqrt(PAIRS_PER_SEARCH * len(changed))):
            return near, self._search(table, near, changed)
        nearest_in_blocks(table.vectors, table.languages, near)
        return near, None

    def _search(self, table: _Table, near: Neighbours, changed: Collection[str]) -> set[int]:
        """Fill `near` for the changed documents and then for what was found near them; returns their rows."""
        row_of = {document: row for row, document in enumerate(table.ids)}
        looked: set[int] = set()
        waiting = {row_of[document] for document in changed if document in row_of}
        for _ in range(2):
            found: set[int] = set()
            for row in sorted(waiting):
                others = self._found_near(table, row, row_of)
                fill_nearest(table.vectors, table.languages, row, others, near)
                found.update(others)
            looked |= waiting
            waiting = found - looked
        return looked

    def _found_near(self, table: _Table, row: int, row_of: Mapping[str, int]) -> list[int]:
        """Documents in other languages that have a chunk near the mean of a document."""
        own = table.names[table.languages[row]].partition("-")[0]
        foreign = Filter((Match("lang", (own, UNDETERMINED), negate=True),))
        query = np.asarray(table.vectors[row], np.float32)
        points = self._store.search_dense(query, limit=SEARCHED, filter=foreign)
        found = {row_of[point.chunk.document_id] for point in points if point.chunk.document_id in row_of}
        return sorted(other for other in found if table.languages[other] != table.languages[row])

    def _weigh(self, table: _Table, pairs: Pairs, looked: set[int] | None) -> None:
        """Measure the candidates that are new, and forget the ones of before that no longer are."""
        measured: list[tuple[object, ...]] = []
        new: list[tuple[str, str, float, float]] = []
        for first, second, margin, agreement in pairs:
            one, other = table.ids[first], table.ids[second]
            row = self._db.execute("SELECT order_similarity, names FROM pairs WHERE first=? AND second=?", (one, other))
            if known := row.fetchone():
                measured.append((one, other, margin, agreement, *known))
            elif margin >= LEAST_MARGIN:
                new.append((one, other, margin, agreement))
        self._chunks.require({document for one, other, *_ in new for document in (one, other)})
        for one, other, margin, agreement in new:
            order = order_similarity(self._chunks[one], self._chunks[other])
            names = share_of_names(self._names(one), self._names(other))
            measured.append((one, other, margin, agreement, order, names))
        self._forget_pairs(table, looked)
        self._db.executemany("INSERT INTO pairs VALUES (?, ?, ?, ?, ?, ?)", measured)

    def _forget_pairs(self, table: _Table, looked: set[int] | None) -> None:
        if looked is None:
            self._db.execute("DELETE FROM pairs")
            return
        self._db.execute("CREATE TEMP TABLE looked (id TEXT PRIMARY KEY)")
        self._db.executemany("INSERT INTO looked VALUES (?)", ((table.ids[row],) for row in looked))
        self._db.execute("DELETE FROM pairs WHERE first IN looked AND second IN looked")
        self._db.execute("DROP TABLE looked")

    def _names(self, document: str) -> Names:
        (names,) = self._db.execute("SELECT names FROM signatures WHERE id=?", (document,)).fetchone()
        return np.frombuffer(names, np.uint32)

    def _unite(self, table: _Table) -> list[list[str]]:
        row_of = {document: row for row, document in enumerate(table.ids)}
        weighed = self._db.execute(
            "SELECT first, second, margin, order_similarity, one.length / other.length, names, agreement FROM pairs "
            "JOIN documents one ON one.id=first JOIN documents other ON other.id=second"
        )
        pairs = ((row_of[first], row_of[second], likelihood(*measured)) for first, second, *measured in weighed)
        likely = [pair for pair in pairs if pair[2] >= LIKELY]
        return [[table.ids[row] for row in rows] for rows in unite(likely, table.languages.tolist())]

    def _write(self, families: Sequence[Sequence[str]], changed: Collection[str]) -> None:
        """Record the families; chunks are aligned where a document or its pivot is new."""
        self._db.execute("UPDATE documents SET family=NULL")
        chunks, pivots = dict[str, int](), dict[str, str | None]()
        for document, count, pivot in self._db.execute("SELECT id, chunks, pivot FROM documents"):
            chunks[document], pivots[document] = count, pivot
        for number, documents in enumerate(families, 1):
            pivot = min(documents, key=lambda document: (-chunks[document], document))
            stale = [name for name in documents if pivot in changed or pivots[name] != pivot]
            self._chunks.require([*stale, pivot] if stale else [])
            for document in stale:
                places = align(self._chunks[document], self._chunks[pivot])
                self._db.execute(
                    "UPDATE documents SET pivot=?, aligned=? WHERE id=?", (pivot, places.tobytes(), document)
                )
            self._db.executemany("UPDATE documents SET family=? WHERE id=?", [(number, name) for name in documents])
        self._db.execute("UPDATE documents SET pivot=NULL, aligned=NULL WHERE family IS NULL")


def digests_of(ledger: Ledger) -> dict[str, str]:
    """Digest of every document that is complete in the store."""
    documents = (name for file in ledger.iter_files() for name in ledger.documents_of(file.source))
    return {row.id: row.digest for name in documents if (row := ledger.document(name))}
