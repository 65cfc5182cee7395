"""Jobs on an index: ingest, remove, status.

An embedded index gets a new generation; a server's collection changes in place.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.chunking import ChunkOptions, passage_text
from indexer.documents import Skipped
from indexer.family_notes import publish_families
from indexer.ledger import FileRow, Ledger
from indexer.pipeline import REMOVING, Ingest, IngestOptions, Progress, Summary, count_unchanged, remove_documents
from indexer.roots import names_below
from indexer.side_files import (
    SHARDS,
    find_offsets,
    follow_collection,
    forget_side_files,
    keep_offsets,
    remember_collection,
    remember_manifest,
)
from indexer.sources import iter_documents, iter_files
from indexer.translations import digests_of, update_families
from search.balance import LanguageMap, LanguageSums, fit_language_map, load_offsets
from search.engine import check_encoder
from search.errors import EncoderMismatchError, IndexNotFoundError, SettingsError, SourceError, StoreError
from search.files import allocated_bytes
from search.fold import FAMILIES, has_families, vectors_origin
from search.index import LANGUAGE_MAP, LEDGER, OFFSETS, SHARD, IndexFolder
from search.lexical import LEXICAL_VERSION, document_vector
from search.manifest import IndexManifest, now
from search.memory import trim_heap
from search.opening import (
    BEGUN,
    collection_name,
    connect_index,
    load_own_encoder,
    open_index,
    read_server_metadata,
    server_folder,
    server_metadata,
)
from search.records import UNDETERMINED, Point, SparseVector
from search.settings import Settings, version
from search.store.base import UPSERT_BATCH, VectorStore
from search.store.server import (
    ServerStore,
    find_collection,
    give_id,
    open_collection,
    read_metadata,
    renew_collection,
    write_metadata,
)
from search.text import counted
from search.words import prepare_words

if TYPE_CHECKING:
    from search.encoder import Encoder

logger = logging.getLogger(__name__)

REFIT_GROWTH = 1.5
"""The language map is fitted again when the index has grown by this factor since the last time."""
READ_BATCH = 4 * UPSERT_BATCH
RELEASE_POINTS = 8 * READ_BATCH
"""After reading so many points their pages are let go; in the order of ids, nearly each is on pages of its own."""
ROOTS = "roots"
"""Kept with a server's collection: the ingested folders."""


@dataclass
class Workspace:
    """What a job writes to: an open store with its ledger, its map and the manifest it had (None when new)."""

    folder: Path
    store: VectorStore
    ledger: Ledger
    language_map: LanguageMap
    manifest: IndexManifest | None
    replace_map: Callable[[LanguageMap], None] | None = None

    def close(self) -> None:
        """Close the files; the store may have been replaced since."""
        self.ledger.close()
        self.store.close()


@dataclass(frozen=True)
class Status:
    """What an index holds."""

    where: str
    manifest: IndexManifest
    roots: list[tuple[str, str]]
    """Ingested folders, and what the ids of their documents begin with."""
    files: list[str]
    skipped: list[tuple[str, str]]
    interrupted: bool
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "event": "status", "index": self.where, **self.manifest.model_dump(),
            "roots": [path for path, _ in self.roots], "prefixes": [prefix for _, prefix in self.roots],
            "files": len(self.files), "skipped": [list(row) for row in self.skipped],
            "interrupted": self.interrupted, "bytes": self.bytes,
        }  # fmt: skip

    def lines(self) -> Iterator[str]:
        """For people."""
        m = self.manifest
        languages = ", ".join(f"{lang} {chunks}" for lang, chunks in sorted(m.languages.items(), key=lambda i: -i[1]))
        yield f"index      {self.where} ({self.bytes / 1e6:.1f} MB), updated {m.updated[:19]}Z"
        held = f"{m.documents} in {counted(m.chunks, 'chunk')} from {counted(len(self.files), 'file')}"
        yield f"documents  {held}, {len(self.skipped)} skipped"
        yield f"languages  {languages or 'none'}"
        yield f"encoder    {m.encoder} ({m.encoder_fingerprint}), {m.dimension} dimensions"
        yield f"folders    {', '.join(path for path, _ in self.roots) or 'none'}"
        if self.interrupted:
            yield "an ingest was interrupted; `indexer ingest` on the same folder goes on where it stopped"


def ingest(
    corpus: Path,
    settings: Settings,
    *,
    options: IngestOptions | None = None,
    fresh: bool = False,
    wait_s: float = 0.0,
    encoder: Encoder | None = None,
    progress: Progress = lambda _bytes, _source: None,
) -> Summary:
    """Bring an index into step with `corpus`; see `Ingest.run`. Publishes nothing when nothing changed.

    Raises:
        IndexBusyError: Another process writes to the index.
        EncoderMismatchError: The index was built with another encoder.
    """
    from search.language import LanguageDetector

    started = time.monotonic()
    options, corpus = options or IngestOptions(), corpus.expanduser()
    next(iter(iter_files(corpus, options=options.read)), None)  # a folder that is not there fails before anything else
    folder = IndexFolder(settings.index_folder)
    with folder.write_lock(wait_s=wait_s):
        used = encoder or load_own_encoder(settings, fresh=fresh)
        name, fingerprint, options = used.address, used.fingerprint, fit_chunks(options, used.max_tokens)
        if not fresh and (unchanged := count_if_unchanged(corpus, settings, folder, used, options)):
            return unchanged
        with open_workspace(settings, folder, used, fresh, str(corpus.resolve())) as space:
            summary = Ingest(
                store=space.store, ledger=space.ledger, encoder=used, detector=LanguageDetector(),
                language_map=space.language_map, options=options, progress=progress,
            ).run(corpus)  # fmt: skip
            del used  # unless it is the caller's, its 480 MB are free for what follows
            trim_heap()
            manifest = finish(space, name, fingerprint)
        if not settings.store:
            folder.publish(manifest)
    prepare_words(settings)
    summary.seconds = time.monotonic() - started
    return summary


def fit_chunks(options: IngestOptions, encoder_tokens: int) -> IngestOptions:
    """Chunks that the encoder reads whole, with room for its prompt, the title and the headings."""
    most = encoder_tokens * 3 // 4
    if options.chunk.max_tokens <= most:
        return options
    logger.warning("chunks are cut to %d tokens: the encoder reads %d with title and headings", most, encoder_tokens)
    return replace(options, chunk=ChunkOptions(most, min(options.chunk.overlap_tokens, most // 2)))


def count_if_unchanged(
    corpus: Path, settings: Settings, folder: IndexFolder, encoder: Encoder, options: IngestOptions
) -> Summary | None:
    """The summary when there is nothing to do: saves copying the current generation."""
    if settings.store or folder.unfinished() is not None or folder.current_number() is None:
        return None
    generation = folder.current()
    check_encoder(generation.manifest, encoder)
    if generation.manifest.lexical_version != LEXICAL_VERSION or not has_families(generation.path / FAMILIES):
        return None
    with closing(Ledger(generation.path / LEDGER, read_only=True)) as ledger:
        return count_unchanged(corpus, ledger, options)


def dry_run(corpus: Path, options: IngestOptions, settings: Settings) -> Summary:
    """Read what an ingest would read and count its documents, without an encoder and without writing."""
    summary, known = Summary(), _known_files(corpus, settings)
    for item in iter_files(corpus, options=options.read):
        summary.files += 1
        if isinstance(item, Skipped):
            summary.skipped.append(item)
            continue
        row = known.get(item.relative)
        if row and (row.size, row.mtime_ns, row.options) == (item.size, item.mtime_ns, options.fingerprint):
            if row.skipped is None:
                summary.unchanged += 1
                summary.empty = False
            else:
                summary.skipped.append(Skipped(item.relative, row.skipped))
            continue
        before = summary.documents
        for document in iter_documents(item, options.read):
            if isinstance(document, Skipped):
                summary.skipped.append(document)
            else:
                summary.documents += 1
        summary.count_read(item.relative, summary.documents - before)
        summary.bytes += item.size
    return summary


def _known_files(corpus: Path, settings: Settings) -> dict[str, FileRow]:
    """Rows of the ledger for the files below `corpus`, by their path relative to it."""
    try:
        folder = server_folder(settings) if settings.store else IndexFolder(settings.index_folder).current().path
    except IndexNotFoundError:
        return {}
    path = folder / LEDGER
    if not path.exists():
        return {}
    with closing(Ledger(path, read_only=True)) as ledger:
        names = names_below(corpus, ledger)
        return {relative: row for relative, row in names.rows(ledger) if names.source(relative) == row.source}


def size_of(corpus: Path) -> int:
    """Bytes of the files that an ingest would look at."""
    items = iter_files(corpus, options=IngestOptions().read)
    return sum(0 if isinstance(item, Skipped) else item.size for item in items)


def status(settings: Settings) -> Status:
    """What the index holds.

    Raises:
        IndexNotFoundError: There is none.
    """
    folder = IndexFolder(settings.index_folder)
    if settings.store:
        opened = open_index(settings)
        opened.close()
        manifest, where, place = opened.manifest, f"{collection_name(settings)} on {settings.store}", folder.path
        ledger_path = server_ledger(settings)
    else:
        generation = folder.current()
        manifest, where, place = generation.manifest, str(folder.path), generation.path
        ledger_path = generation.path / LEDGER
    if not ledger_path.exists() and settings.store:  # another machine fills this collection
        return Status(where, manifest, [], [], [], interrupted=False, bytes=0)
    with closing(Ledger(ledger_path, read_only=True)) as ledger:
        roots, skipped = ledger.roots(), ledger.skipped()
        files = [row.source for row in ledger.iter_files()]
    size = allocated_bytes(place)
    return Status(where, manifest, roots, files, skipped, folder.unfinished() is not None, size)


def remove(settings: Settings, names: list[str] | None, *, wait_s: float = 0.0) -> list[str]:
    """Remove documents by id, file or folder, or all of them with None; returns the ids removed.

    An ingest that was cut off can still be gone on with, and does not bring them back.

    Raises:
        IndexNotFoundError: There is no index.
        SourceError: A name matches nothing; nothing is removed.
    """
    folder = IndexFolder(settings.index_folder)
    with folder.write_lock(wait_s=wait_s):
        opened = open_index(settings)
        opened.close()
        if not settings.store and folder.unfinished() == "":
            with suppress(SourceError), open_workspace(settings, folder, None, False, "") as space:
                remove_documents(space.store, space.ledger, names)
        with folder.beside_unfinished():
            try:
                with open_workspace(settings, folder, None, False, None) as space:
                    known = opened.manifest
                    try:
                        removed = remove_documents(space.store, space.ledger, names)
                    except SourceError:
                        if settings.store and space.ledger.meta(REMOVING):  # one was cut off at its end
                            finish(space, known.encoder, known.encoder_fingerprint)
                        raise
                    manifest = finish(space, known.encoder, known.encoder_fingerprint)
            except SourceError:
                folder.discard()
                raise
            if not settings.store:
                folder.publish(manifest)
    return removed


@contextmanager
def open_workspace(
    settings: Settings, folder: IndexFolder, encoder: Encoder | None, fresh: bool, corpus: str | None
) -> Iterator[Workspace]:
    """What a job on the whole index writes to. Needs the write lock."""
    if not settings.store and (folder.building / SHARDS).exists():
        folder.discard()  # what shards wrote into it is in their ledgers only
    if settings.store and not fresh:
        require_merged(settings)
    space = open_server(settings, encoder, fresh) if settings.store else open_building(folder, encoder, fresh, corpus)
    del encoder  # it may go while the job still runs
    try:
        yield space
    finally:
        space.close()


def open_building(folder: IndexFolder, encoder: Encoder | None, fresh: bool, corpus: str | None) -> Workspace:
    """The next generation of an embedded index."""
    from search.store.edge import EdgeStore

    number = folder.current_number()
    manifest = None if number is None or fresh else folder.current().manifest
    if manifest is not None and encoder is not None:
        check_encoder(manifest, encoder)
    path = folder.begin(fresh=fresh, corpus=corpus)
    _finish_remap(path)
    ledger = Ledger(path / LEDGER)
    try:
        language_map = load_or_fit_map(path, ledger, encoder)
        store = EdgeStore(path / SHARD, int(ledger.meta("dimension") or 0))
    except BaseException:
        ledger.close()
        raise
    space = Workspace(path, store, ledger, language_map, manifest)
    space.replace_map = lambda new: _remap(space, new)
    if not _words_are_current(ledger):
        _remap(space, space.language_map)
    return space


def open_server(settings: Settings, encoder: Encoder | None, fresh: bool) -> Workspace:
    """A collection changes in place; its ledger is kept in the home folder of whoever ingests."""
    client, name = connect_index(settings)
    place = server_folder(settings)
    with ExitStack() as on_error:
        on_error.callback(client.close)
        if fresh and encoder is not None:
            renew_collection(client, name, encoder.dimension)
        collection = find_collection(client, name)
        if fresh or collection is None:
            forget_side_files(place)
        metadata = give_id(client, collection) if collection else {}
        manifest, language_map = read_server_metadata(metadata, name) if "manifest" in metadata else (None, None)
        if manifest is not None and encoder is not None:
            check_encoder(manifest, encoder)
        if collection is not None:
            follow_collection(place, metadata, manifest, find_offsets(encoder) if encoder else None)
        place.mkdir(parents=True, exist_ok=True)
        ledger = Ledger(place / LEDGER)
        on_error.callback(ledger.close)
        if manifest is not None and ledger.meta("encoder_fingerprint") != manifest.encoder_fingerprint:
            remember_manifest(ledger, manifest)
            if encoder is not None:
                keep_offsets(encoder, place)
        language_map = language_map or load_or_fit_map(place, ledger, encoder)
        store = open_collection(client, name, int(ledger.meta("dimension") or 0))
        if collection is not None and store.metadata.get("id") != metadata["id"]:
            raise StoreError(f"another machine has just given {name!r} another collection; run this again")
        remember_collection(ledger, store.metadata)
        space = Workspace(place, store, ledger, language_map, manifest)
        if not _words_are_current(ledger, manifest):
            for batch in _batches(store):
                notes = store.read_notes([point.chunk.document_id for point in batch if point.chunk.number == 0])
                store.upsert([replace(point, sparse=_words_of(point)) for point in batch])
                store.write_notes(notes)
            ledger.set_meta("lexical_version", str(LEXICAL_VERSION))
        on_error.pop_all()
    return space


def server_ledger(settings: Settings) -> Path:
    """Where whoever ingests into a server's collection keeps its ledger."""
    return server_folder(settings) / LEDGER


def require_merged(settings: Settings) -> None:
    """Refuse to change a collection while shards of it are under way.

    Raises:
        SettingsError: `indexer merge` has to come first.
    """
    client, name = connect_index(settings)
    with closing(client):
        metadata = read_metadata(client, name)
    if (server_folder(settings) / SHARDS).exists() or (BEGUN in metadata and "manifest" not in metadata):
        raise SettingsError(
            f"shards of {name!r} were ingested and not merged. Finish them and run `indexer merge --store URL`, "
            "or start over with `indexer ingest FOLDER --store URL --fresh`."
        )


def load_or_fit_map(path: Path, ledger: Ledger, encoder: Encoder | None) -> LanguageMap:
    """The map of an index that goes on, or the first one of a new index; remembers the encoder in the ledger."""
    known = ledger.meta("encoder_fingerprint")
    if known is None and encoder is not None:
        first = first_map(encoder, path)
        first.save(path / LANGUAGE_MAP)
        remember_encoder(ledger, encoder)
        return first
    if encoder is not None and known != encoder.fingerprint:
        raise EncoderMismatchError(
            f"an unfinished ingest used the encoder {ledger.meta('encoder')}, not {encoder.address}. "
            "Use that one again, or start over with --fresh."
        )
    return LanguageMap.load(path / LANGUAGE_MAP)


def first_map(encoder: Encoder, path: Path) -> LanguageMap:
    """The map of an index without chunks: that of the encoder's offsets, of which `path` keeps a copy."""
    offsets = keep_offsets(encoder, path)
    return fit_language_map(offsets, None) if offsets else LanguageMap.identity(encoder.dimension)


def remember_encoder(ledger: Ledger, encoder: Encoder) -> None:
    """Write down in a new ledger what the index is built with."""
    ledger.set_meta("lexical_version", str(LEXICAL_VERSION))
    ledger.set_meta("dimension", str(encoder.dimension))
    ledger.set_meta("encoder", encoder.address)
    ledger.set_meta("encoder_fingerprint", encoder.fingerprint)


def finish(space: Workspace, encoder_name: str, fingerprint: str) -> IndexManifest:
    """Refine the language map, build the search structures, find translations, write down what the index holds now."""
    chunks = space.store.count()
    fitted_at = int(space.ledger.meta("chunks_at_fit") or 0)
    if space.replace_map is not None and chunks and chunks >= REFIT_GROWTH * fitted_at:
        offsets = load_offsets(fingerprint, space.folder / OFFSETS)
        space.replace_map(fit_language_map(offsets, _language_sums(space)))
        space.ledger.set_meta("chunks_at_fit", str(chunks))
        fitted_at = chunks
    space.store.optimize()
    update_families(
        space.folder / FAMILIES,
        store=space.store,
        digests=digests_of(space.ledger),
        language_map=space.language_map,
        encoder_fingerprint=fingerprint,
    )
    if isinstance(space.store, ServerStore):
        origin = vectors_origin(fingerprint, space.language_map.fingerprint)
        publish_families(space.folder / FAMILIES, space.store, origin=origin)
    moment = now()
    manifest = IndexManifest(
        encoder=encoder_name,
        encoder_fingerprint=fingerprint,
        dimension=space.store.dimension,
        map_fingerprint=space.language_map.fingerprint,
        documents=_count_documents(space, chunks),
        chunks=chunks,
        languages=dict(space.store.facet("lang", limit=1000)),
        chunks_at_fit=fitted_at,
        lexical_version=LEXICAL_VERSION,
        created=space.manifest.created if space.manifest else moment,
        updated=moment,
        panlingua_version=version(),
    )
    if isinstance(space.store, ServerStore):
        space.store.flush()
        known = read_metadata(space.store.client, space.store.collection)
        roots = {**dict(json.loads(known.get(ROOTS, "[]"))), **dict(space.ledger.roots())}
        metadata = {**server_metadata(manifest, space.language_map), ROOTS: json.dumps(list(roots.items()))}
        write_metadata(space.store.client, space.store.collection, metadata)
    space.ledger.set_meta(REMOVING, "")
    return manifest


def _count_documents(space: Workspace, chunks: int) -> int:
    """As the ledger says, if it is about all of the index; others may write to a server's collection as well."""
    documents, known = space.ledger.totals()
    if known == chunks:
        return documents
    return len({row["document_id"] for row in space.store.iter_fields(("document_id",))})


def _words_are_current(ledger: Ledger, manifest: IndexManifest | None = None) -> bool:
    """Whether the words were cut as this version does; the manifest says it of a server, which others write to as well.

    An index of another version gets its words cut anew, without an encoder, by the next job that writes to it.
    """
    versions = {int(ledger.meta("lexical_version") or 1), *([manifest.lexical_version] if manifest else [])}
    return versions == {LEXICAL_VERSION}


def _words_of(point: Point) -> SparseVector:
    return document_vector(passage_text(point.chunk))


def _language_sums(space: Workspace) -> LanguageSums:
    sums = LanguageSums(space.store.dimension)
    for batch in _batches(space.store):
        known = [point for point in batch if point.chunk.lang != UNDETERMINED]
        if known:
            vectors = space.language_map.unmap_documents(np.stack([point.dense for point in known]))
            sums.add([point.chunk.lang for point in known], vectors)
    return sums


def _remap(space: Workspace, new: LanguageMap) -> None:
    """Rewrite the shard under another map, beside the old one, and swap; a kill leaves one or the other.

    The words are cut again where another version cut them.
    """
    from search.store.edge import EdgeStore

    current = _words_are_current(space.ledger)
    if new.fingerprint == space.language_map.fingerprint and current:
        return
    fresh = space.folder / "shard.new"
    target = EdgeStore(fresh, space.store.dimension)
    for batch in _batches(space.store):
        stored = new.map_documents(space.language_map.unmap_documents(np.stack([point.dense for point in batch])))
        words = [point.sparse if current else _words_of(point) for point in batch]
        target.upsert([Point(p.chunk, dense, w) for p, dense, w in zip(batch, stored, words, strict=True)])
    target.flush()
    target.close()
    new.save(space.folder / "language_map.new")
    (space.folder / "remap.complete").touch()
    space.store.close()
    _finish_remap(space.folder)
    space.store = EdgeStore(space.folder / SHARD, target.dimension)
    space.language_map = new
    space.ledger.set_meta("lexical_version", str(LEXICAL_VERSION))


def _finish_remap(path: Path) -> None:
    """Swap in a shard that was rewritten completely, or throw away one that was not."""
    marker, fresh, new_map = path / "remap.complete", path / "shard.new", path / "language_map.new"
    if marker.exists():
        if fresh.exists():
            shutil.rmtree(path / SHARD, ignore_errors=True)
            fresh.rename(path / SHARD)
        if new_map.exists():
            new_map.replace(path / LANGUAGE_MAP)
        marker.unlink()
    shutil.rmtree(fresh, ignore_errors=True)
    new_map.unlink(missing_ok=True)


def _batches(store: VectorStore) -> Iterator[list[Point]]:
    """All points with their vectors, in batches; memory for what was read is given back now and then."""
    batch: list[Point] = []
    for number, point in enumerate(store.iter_points(with_vectors=True), 1):
        batch.append(point)
        if len(batch) == READ_BATCH:
            yield batch
            batch = []
        if number % RELEASE_POINTS == 0:
            store.release_memory()
    if batch:
        yield batch
