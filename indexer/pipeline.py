"""Ingest: files to documents to chunks to vectors to a store, incrementally and safe against a kill at any moment.

Order of every batch: forget the document in the ledger, remove its old chunks, write the new ones, flush the store,
record the document. Whatever is killed in between is read again by the next run; nothing is doubled, because ids are
deterministic and a document without a row is removed before it is written. While a batch is encoded, in a thread of its
own, the one before is written and the next one is read.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import tokenizers

from indexer.chunking import ChunkOptions, Detector, chunk_document, passage_text
from indexer.documents import Document, Skipped
from indexer.ledger import UNFINISHED, DocumentRow, FileRow, Ledger
from indexer.roots import RootNames, folder_of, names_below
from indexer.sources import ReadOptions, SourceFile, iter_documents, iter_files
from indexer.sources.files import extension_of, format_of
from search.balance import LanguageMap
from search.errors import SourceError
from search.lexical import document_vector
from search.records import Chunk, Filter, Match, Point, Vectors
from search.store.base import VectorStore

BATCH_CHUNKS = 256
_VALUES_AT_ONCE = 500
REMOVING = "removing"
"""Kept in a ledger while a removal is not finished."""
REMEMBERED_PASSAGES = 10_000
"""Vectors kept so that repeated passages (licences, navigation) are seldom encoded again: 16 MB at 384 dimensions."""
logger = logging.getLogger(__name__)


class DocumentEncoder(Protocol):
    """What ingest needs of an encoder."""

    @property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """The encoder's tokenizer."""

    def encode_documents(self, texts: list[str]) -> Vectors:
        """Unit vectors (B, D)."""


class PointSink(Protocol):
    """What ingest needs of a store; see VectorStore."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points."""

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """Remove every chunk of these documents."""

    def iter_points(self, *, filter: Filter | None = None) -> Iterable[Point]:
        """Points that match."""

    def flush(self) -> None:
        """Make everything written durable."""


@dataclass
class Summary:
    """Counts of one ingest. Skipped files carry their reasons; `bytes` is what was read of new and changed files.

    `as_text` counts the files that were read as plain text for want of a known format, by extension. `empty` says that
    nothing that was looked at gave a document, neither now nor in an earlier run.
    """

    files: int = 0
    read: int = 0
    unchanged: int = 0
    documents: int = 0
    chunks: int = 0
    removed: int = 0
    bytes: int = 0
    seconds: float = 0.0
    languages: Counter[str] = field(default_factory=Counter)
    as_text: Counter[str] = field(default_factory=Counter)
    empty: bool = True
    skipped: list[Skipped] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        counts = {"languages": dict(self.languages.most_common()), "as_text": dict(self.as_text.most_common())}
        return {**asdict(self), **counts, "event": "summary"}

    def count_read(self, source: str, found: int) -> None:
        """Count a file that gave `found` documents, changed or not."""
        self.read += 1
        if found:
            self.empty = False
            if format_of(source) is None:
                self.as_text[extension_of(source)] += 1

    def count_unchanged(self, row: FileRow, ledger: Ledger) -> None:
        """Count a file that is as it was; if it was skipped, again so, with the reason."""
        if row.skipped is None:
            self.unchanged += 1
        else:
            self.skipped.append(Skipped(row.source, row.skipped))
        if self.empty:
            self.empty = not ledger.documents_of(row.source)


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """How to read and cut; kept with the index, so that a change of options reads the files again."""

    read: ReadOptions = field(default_factory=ReadOptions)
    chunk: ChunkOptions = field(default_factory=ChunkOptions)

    @property
    def fingerprint(self) -> str:
        """Identity of the options."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


Progress = Callable[[int, str], None]
"""Called with the bytes dealt with since the last call (negative: counted too early) and the file at hand."""


@dataclass
class _Batch:
    """What is written together: ids whose old chunks go, new chunks, and what is complete with them."""

    replaced: list[str] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    documents: dict[str, DocumentRow] = field(default_factory=dict)
    files: list[FileRow] = field(default_factory=list)
    vectors: Future[Vectors] | None = None


class Ingest:
    """One run over a corpus into one store and its ledger.

    Args:
        store: An open, writable store.
        ledger: The ledger of that store.
        encoder: Encodes passages.
        detector: Splits documents by language.
        language_map: Applied to every vector before it is stored.
        options: How to read and cut.
        progress: Told how far the run is.
        owns: Whether a file is this run's, by its source; the files of other shards are left alone.
    """

    def __init__(
        self,
        *,
        store: PointSink,
        ledger: Ledger,
        encoder: DocumentEncoder,
        detector: Detector,
        language_map: LanguageMap,
        options: IngestOptions,
        progress: Progress = lambda _bytes, _source: None,
        owns: Callable[[str], bool] = lambda _source: True,
    ) -> None:
        self.owns = owns
        self.store, self.ledger, self.encoder, self.detector = store, ledger, encoder, detector
        self.language_map, self.options, self.progress = language_map, options, progress
        self.summary = Summary()
        self._batch, self._encoding = _Batch(), _Batch()
        self._pool = ThreadPoolExecutor(1, "encoding")
        self._encoded: dict[bytes, Vectors] = {}
        self._run = int(ledger.meta("run") or 0) + 1
        ledger.set_meta("run", str(self._run))

    def run(self, root: Path, *, items: Iterable[SourceFile | Skipped] | None = None) -> Summary:
        """Bring the store into step with the files below `root` (a folder, or one file).

        Args:
            root: What to look at.
            items: All files below it, where they were listed before; None: they are listed now.

        Raises:
            SourceError: `root` does not exist, or holds no document any more although it did.
            StoreError: The store or the ledger cannot be written; what was reported done stays.
        """
        started = time.monotonic()
        try:
            self._read(root, items)
        finally:
            self._pool.shutdown(cancel_futures=True)
        self.store.flush()
        self.summary.seconds = time.monotonic() - started
        return self.summary

    def _read(self, root: Path, items: Iterable[SourceFile | Skipped] | None) -> None:
        if root.exists():
            self.ledger.prefix_of(folder_of(root))
        names = names_below(root, self.ledger)
        seen: set[str] = set()
        unreadable: set[str] = set()
        for item in iter_files(root, options=self.options.read) if items is None else items:
            if isinstance(item, Skipped):
                unreadable.add(item.source)  # also those of other shards: a folder may hold files of every one
                self._count_skipped(replace(item, source=names.source(item.source)))
                continue
            file = replace(item, relative=names.source(item.relative))
            if names.is_taken(item.relative):
                reason = "another ingested folder has the same name; rename one of them"
                self._count_skipped(Skipped(file.relative, reason))
                continue
            seen.add(file.relative)
            if self.owns(file.relative):
                self.summary.files += 1
                self._ingest_file(file)
                self.progress(file.size, file.relative)
        self._encode_batch()
        self._write()
        if root.is_dir():
            self._remove_vanished(root, names, seen, unreadable)

    def _count_skipped(self, item: Skipped) -> None:
        if self.owns(item.source):
            self.summary.files += 1
            self.summary.skipped.append(item)

    def _ingest_file(self, file: SourceFile) -> None:
        row = self.ledger.file(file.relative)
        known = row if row and row.options == self.options.fingerprint else None
        if known and (known.size, known.mtime_ns) == (file.size, file.mtime_ns):
            self.summary.count_unchanged(known, self.ledger)
            return
        try:
            digest = file_digest(file.path)
        except OSError as error:
            reason = f"cannot be read: {error.strerror or error}"
            self.summary.skipped.append(Skipped(file.relative, reason, transient=True))
            return
        new = FileRow(file.relative, file.size, file.mtime_ns, digest, self.options.fingerprint)
        if known and known.digest == digest:
            self.ledger.put_file(replace(new, skipped=known.skipped))
            self.summary.count_unchanged(known, self.ledger)
            return
        self._read_file(file, new)
        if row and row.size == UNFINISHED:
            self._remove_leftovers(file.relative)

    def _read_file(self, file: SourceFile, row: FileRow) -> None:
        skipped: list[Skipped] = []
        found = 0
        # Until it is read whole, its row fits no file: what a kill leaves half done is then read again or removed.
        unfinished = replace(row, size=UNFINISHED, digest="")
        self.ledger.put_file(unfinished)
        ahead = 0
        for item in iter_documents(file, self.options.read):
            if isinstance(item, Document):
                found += 1
                step = min(len(item.text), file.size - ahead)  # records of a table show as progress within the file
                ahead += step
                self.progress(step, file.relative)
                item = self._ingest_document(item) or item
            if isinstance(item, Skipped):
                skipped.append(item)
        self.progress(-ahead, file.relative)
        stale = self.ledger.documents_of(file.relative, before_run=self._run)
        broken_off = any(item.source == file.relative for item in skipped)
        if found and not broken_off:
            self._remove(stale)
        elif stale:
            skipped = [replace(item, reason=f"{item.reason}; the version indexed before is kept") for item in skipped]
        self.summary.count_read(file.relative, found)
        self.summary.bytes += file.size
        self.summary.skipped += skipped
        reasons = "; ".join(dict.fromkeys(item.reason for item in skipped[:5]))
        read_again = any(item.transient for item in skipped)
        self._batch.files.append(replace(unfinished if read_again else row, skipped=reasons or None))

    def _ingest_document(self, document: Document) -> Skipped | None:
        digest = document_digest(document, self.options)
        row = self.ledger.document(document.id)
        if self._is_unrecorded(document.id) or (row and row.run == self._run):
            return Skipped(document.id, "another document has the same id; make the ids unique")
        if row and row.digest == digest:
            self.ledger.touch_document(document.id, self._run)
            return None
        if row:
            self.ledger.drop_documents([document.id])
        self._batch.replaced.append(document.id)  # also a new one: an interrupted run may have written chunks of it
        count = 0
        for chunk in chunk_document(
            document, tokenizer=self.encoder.tokenizer, detector=self.detector, options=self.options.chunk
        ):
            count += 1
            self._batch.chunks.append(chunk)
            self.summary.languages[chunk.lang] += 1
            if len(self._batch.chunks) >= BATCH_CHUNKS:
                self._encode_batch()
        if count == 0:
            return Skipped(document.id, "no text to index")
        self.summary.documents += 1
        self.summary.chunks += count
        self._batch.documents[document.id] = DocumentRow(document.id, document.source, digest, count, self._run)
        return None

    def _is_unrecorded(self, document: str) -> bool:
        """Whether the document was read in this run and is still to be recorded."""
        return document in self._batch.documents or document in self._encoding.documents

    def _encode_batch(self) -> None:
        """Give what was read to the encoder, and write what it has done meanwhile."""
        batch, self._batch = self._batch, _Batch()
        if batch.chunks:
            batch.vectors = self._pool.submit(self._encode, [passage_text(chunk) for chunk in batch.chunks])
        self._write()
        self._encoding = batch

    def _write(self) -> None:
        """Make the encoded chunks durable, then record the documents and files that are complete by them."""
        batch = self._encoding
        self.store.delete_documents(batch.replaced)
        if batch.vectors:
            stored = self.language_map.map_documents(batch.vectors.result())
            self.store.upsert(
                [
                    Point(chunk, dense, document_vector(passage_text(chunk)))
                    for chunk, dense in zip(batch.chunks, stored, strict=True)
                ]
            )
        if batch.replaced or batch.vectors or batch.files:
            self.store.flush()
        self.ledger.put_documents(list(batch.documents.values()))
        for row in batch.files:
            self.ledger.put_file(row)
        self._encoding = _Batch()

    def _encode(self, texts: list[str]) -> Vectors:
        """Vectors (B, D) of passages; a passage that stood in an earlier batch is not encoded again."""
        digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
        unknown = {digest: text for digest, text in zip(digests, texts, strict=True) if digest not in self._encoded}
        if unknown:
            self._encoded.update(zip(unknown, self.encoder.encode_documents(list(unknown.values())), strict=True))
        vectors = np.stack([self._encoded[digest] for digest in digests])
        for digest in list(islice(self._encoded, max(0, len(self._encoded) - REMEMBERED_PASSAGES))):
            del self._encoded[digest]
        return vectors

    def _remove(self, document_ids: list[str]) -> None:
        if document_ids:
            self.ledger.drop_documents(document_ids)
            self.store.delete_documents(document_ids)
            self.summary.removed += len(document_ids)

    def _remove_vanished(self, root: Path, names: RootNames, seen: set[str], unreadable: set[str]) -> None:
        """Drop what is gone from the folder; what could not be read this time is kept."""
        folders = tuple(f"{name}/" for name in unreadable)
        gone = [
            row
            for relative, row in names.rows(self.ledger)
            if row.source not in seen and relative not in unreadable and not relative.startswith(folders)
        ]
        if not seen:
            _refuse_if_emptied(root, gone, self.ledger)
        for row in gone:
            mark_unfinished(self.ledger, row)
            self._remove(self.ledger.documents_of(row.source))
            if row.size == UNFINISHED:
                self._remove_leftovers(row.source)
        if gone:
            self.store.flush()
        for row in gone:
            self.ledger.drop_file(row.source)

    def _remove_leftovers(self, source: str) -> None:
        """Remove what an interrupted run wrote of documents that the file holds no more: no row knows of them."""
        recorded = {*self.ledger.documents_of(source), *self._batch.documents, *self._encoding.documents}
        points = self.store.iter_points(filter=Filter((Match("source", (source,)),)))
        self.store.delete_documents(sorted({point.chunk.document_id for point in points} - recorded))


def count_unchanged(root: Path, ledger: Ledger, options: IngestOptions) -> Summary | None:
    """The summary of an ingest that would find every file as it was, or None when there is something to do."""
    started = time.monotonic()
    names = names_below(root, ledger)
    if names.prefix is None:
        return None
    summary, sources = Summary(), set()
    for item in iter_files(root, options=options.read):
        summary.files += 1
        if isinstance(item, Skipped):
            summary.skipped.append(replace(item, source=names.source(item.source)))
            continue
        row = ledger.file(names.source(item.relative))
        expected = (item.size, item.mtime_ns, options.fingerprint)
        if row is None or (row.size, row.mtime_ns, row.options) != expected:
            return None
        sources.add(row.source)
        summary.count_unchanged(row, ledger)
    gone = [row for _, row in names.rows(ledger) if row.source not in sources] if root.is_dir() else []
    if not summary.files:
        _refuse_if_emptied(root, gone, ledger)
    if gone:
        return None
    summary.seconds = time.monotonic() - started
    return summary


def _refuse_if_emptied(root: Path, gone: Iterable[FileRow], ledger: Ledger) -> None:
    """Remove no document because a folder is empty: what it is on may not be mounted."""
    if held := sum(bool(ledger.documents_of(row.source)) for row in gone):
        raise SourceError(
            f"{root} holds no document any more, but {held} of its files are indexed; nothing was removed. "
            "If it should be empty, run `indexer remove --all`; otherwise check that the folder is mounted."
        )


def remove_documents(store: VectorStore, ledger: Ledger, names: list[str] | None) -> list[str]:
    """Remove documents by id, source or folder (ending in `/`), or all with None; returns the ids removed.

    Files of that name that gave no document are forgotten, with the reason.

    Raises:
        SourceError: A name matches nothing; nothing is removed then.
    """
    chosen: dict[str, str] = {}
    unread: set[str] = set()
    for name in [""] if names is None else names:
        matches = [row for row in ledger.iter_files(name) if row.source == name or name[-1:] in ("/", "")]
        found = {document: row.source for row in matches for document in ledger.documents_of(row.source)}
        found |= _of_document(name, store, ledger)
        found |= _in_store("source", [row.source for row in matches if row.size == UNFINISHED], store)
        skipped = {row.source for row in matches if row.skipped is not None}
        if not found and not skipped and names is not None:
            raise SourceError(f"no document, file or folder {name!r} in the index; `indexer status --files` lists them")
        chosen |= found
        unread |= skipped
    sources = unread.union(chosen.values())
    ledger.set_meta(REMOVING, "yes")
    for file in map(ledger.file, sources):
        if file is not None:
            mark_unfinished(ledger, file)
    ledger.drop_documents(list(chosen))
    store.delete_documents(list(chosen))
    store.flush()
    for source in sources:
        if not ledger.documents_of(source):
            ledger.drop_file(source)
    return list(chosen)


def mark_unfinished(ledger: Ledger, file: FileRow) -> None:
    """Have the next ingest read a file again, or remove what is left of it, whatever becomes of this run."""
    ledger.put_file(replace(file, size=UNFINISHED, digest=""))


def _of_document(name: str, store: VectorStore, ledger: Ledger) -> dict[str, str]:
    """The document of this id with its file, also one of which an interrupted removal left chunks only."""
    row = ledger.document(name)
    return {row.id: row.source} if row else _in_store("document_id", [name] if name else [], store)


def _in_store(field: str, values: Sequence[str], store: VectorStore) -> dict[str, str]:
    """Documents of which the store has chunks with one of the values in a field, with their files."""
    found: dict[str, str] = {}
    for start in range(0, len(values), _VALUES_AT_ONCE):
        filter = Filter((Match(field, tuple(values[start : start + _VALUES_AT_ONCE])),))
        for row in store.iter_fields(("document_id", "source"), filter=filter):
            found[str(row["document_id"])] = str(row["source"])
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def document_digest(document: Document, options: IngestOptions) -> str:
    """SHA-256 of everything that decides what a document's chunks look like."""
    parts = (document.text, document.title, document.headings, document.date, sorted(document.metadata.items()))
    return hashlib.sha256(repr((*parts, options.chunk)).encode("utf-8", "surrogatepass")).hexdigest()
