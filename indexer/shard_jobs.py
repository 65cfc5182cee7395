"""Ingest a shard into a server's collection, and merge the shards when all are done.

All shards write under one language map, that of the collection: the first one puts it there. The collection is an index
that can be searched once they are merged.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.build import (
    ROOTS,
    Workspace,
    finish,
    first_map,
    fit_chunks,
    open_server,
    remember_encoder,
)
from indexer.documents import Skipped
from indexer.ledger import UNFINISHED, DocumentRow, FileRow, Ledger
from indexer.pipeline import Ingest, IngestOptions, PointSink, Progress, Summary
from indexer.roots import names_below
from indexer.shards import FINISHED, SCOPE, Scope, Shard, ShardLedgers, begun_splits, scope_of
from indexer.side_files import (
    SHARDS,
    find_offsets,
    follow_collection,
    forget_side_files,
    is_of,
    remember_collection,
)
from indexer.sources import SourceFile, iter_files
from search.balance import LanguageMap
from search.engine import check_encoder
from search.errors import IndexFormatError, IndexNotFoundError, SettingsError
from search.index import LANGUAGE_MAP, OFFSETS, IndexFolder
from search.lexical import LEXICAL_VERSION
from search.manifest import IndexManifest, now
from search.opening import BEGUN, connect_index, load_own_encoder, read_server_metadata, server_folder, server_metadata
from search.settings import Settings, version
from search.store.server import ServerStore, find_collection, give_id, open_collection, read_metadata, write_metadata
from search.text import counted
from search.words import prepare_words

if TYPE_CHECKING:
    from search.encoder import Encoder

logger = logging.getLogger(__name__)

BEGIN_WAIT_S = 60.0
"""Shards that start at the same moment wait for each other for as long, to look at the whole ledger in turn."""
_DELETED_AT_ONCE = 500


def ingest_shard(
    corpus: Path,
    settings: Settings,
    shard: Shard,
    *,
    options: IngestOptions | None = None,
    wait_s: float = 0.0,
    encoder: Encoder | None = None,
    progress: Progress = lambda _bytes, _source: None,
) -> Summary:
    """Bring a server's collection into step with the files of one shard; see `Ingest.run`.

    It can be repeated, and be done on any machine that has the folder at the same path. Nothing but this shard's files
    is read or removed.

    Raises:
        SettingsError: No server is named, or the collection is not fit to be continued like this.
        IndexBusyError: Another process ingests the same shard, or writes to the whole index.
        EncoderMismatchError: The collection was built with another encoder.
    """
    corpus = corpus.expanduser()
    next(iter(iter_files(corpus, options=(options or IngestOptions()).read)), None)  # a missing folder fails first
    require_server(settings)
    encoder = encoder or load_own_encoder(settings)
    ledgers = ShardLedgers(server_folder(settings), shard.of)
    with IndexFolder(settings.index_folder).write_lock(wait_s=max(wait_s, BEGIN_WAIT_S)):
        language_map = begin(settings, encoder, corpus, ledgers, [shard])
    with (
        IndexFolder(ledgers.place(shard)).write_lock(wait_s=wait_s),
        closing(Ledger(ledgers.path(shard))) as ledger,
        closing(open_collection(*connect_index(settings), encoder.dimension)) as store,
    ):
        return run_shard(
            shard, corpus, store=store, ledger=ledger, encoder=encoder, language_map=language_map,
            options=fit_chunks(options or IngestOptions(), encoder.max_tokens), progress=progress,
        )  # fmt: skip


def run_shard(
    shard: Shard,
    corpus: Path,
    *,
    store: PointSink,
    ledger: Ledger,
    encoder: Encoder,
    language_map: LanguageMap,
    options: IngestOptions,
    progress: Progress,
    items: Iterable[SourceFile | Skipped] | None = None,
) -> Summary:
    """Ingest the files of a shard and note in its ledger that it is finished. `items`: see `Ingest.run`."""
    from search.language import LanguageDetector

    ledger.set_meta(FINISHED, "")
    if isinstance(store, ServerStore):
        _require_of(ledger, store.metadata, shard)
        remember_collection(ledger, store.metadata)
    job = Ingest(
        store=store, ledger=ledger, encoder=encoder, detector=LanguageDetector(), language_map=language_map,
        options=options, progress=progress, owns=shard.owns,
    )  # fmt: skip
    summary = job.run(corpus, items=items)
    ledger.set_meta(SCOPE, scope_of(corpus, ledger).as_json())
    ledger.set_meta(FINISHED, language_map.fingerprint)
    return summary


def merge_shards(
    settings: Settings, *, of: int | None = None, wait_s: float = 0.0, encoder: Encoder | None = None
) -> tuple[IndexManifest, int]:
    """Make one index of the shards: one ledger, translations, the manifest. Returns it and how many shards there were.

    What no shard knows of, such as documents that vanished while a shard moved to another machine, is removed. Killed
    at any moment, it can be run again.

    Args:
        settings: Names the server; its home folder holds the shards' ledgers.
        of: Into how many shards it was split; None: as the ledgers say.
        wait_s: How long to wait while another process writes to the whole index.
        encoder: For the list of words that suggestions are made of; None: it is made by the first search.

    Raises:
        SettingsError: There is nothing to merge, or shards are missing; the message names them.
        IndexBusyError: A shard is still being ingested.
    """
    require_server(settings)
    folder = server_folder(settings)
    with ExitStack() as held:
        held.enter_context(IndexFolder(settings.index_folder).write_lock(wait_s=wait_s))
        ledgers = ShardLedgers(folder, _split_to_merge(folder, of))
        for split in begun_splits(folder):
            held.enter_context(ShardLedgers(folder, split).locks())
        manifest = finish_merge(settings, ledgers)
    if encoder is not None:
        prepare_words(settings)
    return manifest, len(ledgers.shards)


def finish_merge(settings: Settings, ledgers: ShardLedgers) -> IndexManifest:
    """What `merge_shards` does; needs the write lock of the index and of every shard."""
    if unfinished := ledgers.unfinished():
        names = ", ".join(map(str, unfinished[:8])) + (", ..." if len(unfinished) > 8 else "")
        raise SettingsError(
            f"{len(unfinished)} of {counted(len(ledgers.shards), 'shard')} are not finished here: {names}. Run them, "
            f"`indexer ingest FOLDER --store URL --shard {unfinished[0]}`, or copy what other machines have in "
            f"{ledgers.folder.parent} to this place."
        )
    client, name = connect_index(settings)
    with closing(client):
        metadata = read_metadata(client, name)
    _, language_map = _stated(metadata, name)
    if language_map is None:
        raise IndexNotFoundError(f"{settings.store} has no index {name!r} that shards began; run the shards again")
    if strange := [str(shard) for shard, found in ledgers.maps().items() if found != language_map.fingerprint]:
        raise SettingsError(
            f"the shards {', '.join(strange)} wrote under another language map than the collection has now: it was "
            f"made anew meanwhile. Remove their folders in {ledgers.folder} and ingest them again."
        )
    for shard in ledgers.shards:
        with closing(Ledger(ledgers.path(shard))) as ledger:
            _require_of(ledger, metadata, shard)
    scope = ledgers.scope()
    ledgers.merge()
    language_map.save(ledgers.whole.parent / LANGUAGE_MAP)
    kept_offsets = ledgers.place(ledgers.shards[0]) / OFFSETS
    if kept_offsets.exists():
        shutil.copyfile(kept_offsets, ledgers.whole.parent / OFFSETS)
    with closing(open_server(settings, None, False)) as space:
        reconcile(space, scope)
        manifest = finish(space, space.ledger.meta("encoder") or "", space.ledger.meta("encoder_fingerprint") or "")
    ledgers.discard()
    return manifest


def begin(
    settings: Settings, encoder: Encoder, corpus: Path, ledgers: ShardLedgers, shards: Sequence[Shard]
) -> LanguageMap:
    """Make ready for shards: the collection with its map, and their ledgers. Needs the write lock of the index.

    Returns:
        The map under which they have to write.
    """
    client, name = connect_index(settings)
    collection = find_collection(client, name)
    if collection is None:
        forget_side_files(server_folder(settings))
    metadata = give_id(client, collection) if collection else {}
    manifest, language_map = _stated(metadata, name)
    if manifest is not None:
        check_encoder(manifest, encoder)
        _require_current_words(manifest, name)
        follow_collection(server_folder(settings), metadata, manifest, find_offsets(encoder))
    for shard in shards:
        _drop_strange(ledgers.path(shard), metadata)
    roots = _known_roots(metadata, ledgers, name)
    found = ledgers.seed(shards, corpus, roots)
    with closing(open_collection(*connect_index(settings), encoder.dimension)) as store:
        made = store.metadata
    for shard in shards:
        with closing(Ledger(ledgers.path(shard))) as ledger:
            if ledger.meta("encoder_fingerprint") is None:
                remember_collection(ledger, made)
                remember_encoder(ledger, encoder)
            _require_of(ledger, made, shard)
    offered = language_map or first_map(encoder, ledgers.place(shards[0]))
    if language_map is None:
        write_metadata(client, name, _begun(encoder, offered))
        _, language_map = _stated(read_metadata(client, name), name)  # another machine may have been faster
    if found != roots:
        write_metadata(client, name, {ROOTS: json.dumps(found)})
    client.close()
    return language_map or offered


def _drop_strange(path: Path, metadata: Mapping[str, Any]) -> None:
    """Remove a shard's ledger whose rows are about another collection: it begins again with what the whole one says."""
    if not path.exists():
        return
    with closing(Ledger(path)) as ledger:
        strange = not is_of(ledger, metadata)
    if strange:
        path.unlink()


def _require_of(ledger: Ledger, metadata: Mapping[str, Any], shard: Shard) -> None:
    if not is_of(ledger, metadata):
        raise SettingsError(
            f"shard {shard} was ingested before another machine gave the index another collection; run the shards again"
        )


def reconcile(space: Workspace, scope: Scope) -> None:
    """Bring ledger and store into step after shards.

    Documents that no ledger knows of are removed where they are of the folder that was ingested, and entered into the
    ledger where they are of another. What is not whole in the store will be read again.
    """
    held: Counter[tuple[str, str]] = Counter()
    for row in space.store.iter_fields(("document_id", "source")):
        held[str(row["document_id"]), str(row["source"])] += 1
    known = _rows_of(space.ledger)
    strangers = [
        DocumentRow(name, source, "", chunks, 0) for (name, source), chunks in sorted(held.items()) if name not in known
    ]
    _remove(space, [row.id for row in strangers if scope.holds(row.source)])
    _enter(space.ledger, [row for row in strangers if not scope.holds(row.source)])
    _read_again(space.ledger, [row for name, row in known.items() if held[name, row.source] != row.chunks])


def _remove(space: Workspace, names: list[str]) -> None:
    for start in range(0, len(names), _DELETED_AT_ONCE):
        space.store.delete_documents(names[start : start + _DELETED_AT_ONCE])


def _enter(ledger: Ledger, rows: list[DocumentRow]) -> None:
    ledger.put_documents(rows)
    for source in sorted({row.source for row in rows}):
        if ledger.file(source) is None:
            ledger.put_file(FileRow(source, UNFINISHED, 0, "", ""))


def _read_again(ledger: Ledger, broken: list[DocumentRow]) -> None:
    if not broken:
        return
    logger.warning(
        "%s not whole in the collection, although a ledger says so; the next ingest of the folder reads them again",
        counted(len(broken), "document"),
    )
    ledger.drop_documents([row.id for row in broken])
    for source in sorted({row.source for row in broken}):
        if row := ledger.file(source):
            ledger.put_file(replace(row, size=UNFINISHED, digest=""))


def size_of_shard(corpus: Path, settings: Settings, shard: Shard) -> int:
    """Bytes of the files that a shard would look at."""
    ledgers = ShardLedgers(server_folder(settings), shard.of)
    path = next((path for path in (ledgers.path(shard), ledgers.whole) if path.exists()), None)
    name: Callable[[str], str] = str
    if path is not None:
        with closing(Ledger(path, read_only=True)) as ledger:
            name = names_below(corpus, ledger).source
    files = (item for item in iter_files(corpus, options=IngestOptions().read) if isinstance(item, SourceFile))
    return sum(file.size for file in files if shard.owns(name(file.relative)))


def require_server(settings: Settings) -> None:
    """Refuse to split an ingest into the embedded index, which one process at a time can write to."""
    if not settings.store:
        raise SettingsError("shards are written to a Qdrant server: name it with --store URL or PANLINGUA_STORE")


def _split_to_merge(folder: Path, of: int | None) -> int:
    splits = begun_splits(folder)
    if not splits:
        raise SettingsError(
            f"there are no shards to merge in {folder / SHARDS}; run `indexer ingest FOLDER --store URL --shard i/n` "
            "with this PANLINGUA_HOME, or copy what other machines have in theirs to this place"
        )
    if of is None and len(splits) > 1:
        found = " and ".join(map(str, splits))
        raise SettingsError(f"there are ledgers of splits into {found} shards: say which is complete with --shards")
    if of is not None and of not in splits:
        raise SettingsError(f"there are no ledgers of a split into {of} shards, but into {', '.join(map(str, splits))}")
    return of or splits[0]


def _known_roots(metadata: dict[str, Any], ledgers: ShardLedgers, name: str) -> list[tuple[str, str]] | None:
    if ROOTS in metadata:
        return [(str(path), str(prefix)) for path, prefix in json.loads(metadata[ROOTS])]
    if "manifest" in metadata and not ledgers.whole.exists():
        raise SettingsError(
            f"what the documents of {name!r} are called is known on the machine that ingested them: run the shards "
            "with its PANLINGUA_HOME"
        )
    return None


def _stated(metadata: dict[str, Any], name: str) -> tuple[IndexManifest | None, LanguageMap | None]:
    """Manifest and map of a collection, also of one whose shards are not merged yet."""
    manifest = metadata.get("manifest", metadata.get(BEGUN))
    return read_server_metadata({**metadata, "manifest": manifest}, name) if manifest else (None, None)


def _begun(encoder: Encoder, language_map: LanguageMap) -> dict[str, Any]:
    """What a new collection is given: all but the manifest, which makes an index of it."""
    moment = now()
    manifest = IndexManifest(
        encoder=encoder.address, encoder_fingerprint=encoder.fingerprint, dimension=encoder.dimension,
        map_fingerprint=language_map.fingerprint, documents=0, chunks=0, languages={}, lexical_version=LEXICAL_VERSION,
        created=moment, updated=moment, panlingua_version=version(),
    )  # fmt: skip
    stated = server_metadata(manifest, language_map)
    return {BEGUN: stated["manifest"], "language_map": stated["language_map"]}


def _require_current_words(manifest: IndexManifest, name: str) -> None:
    if manifest.lexical_version != LEXICAL_VERSION:
        raise IndexFormatError(
            f"the words of {name!r} were cut by another version of this program; run `indexer ingest FOLDER --store "
            "URL` once without --shard, on any of its folders"
        )


def _rows_of(ledger: Ledger) -> dict[str, DocumentRow]:
    names = (name for file in ledger.iter_files() for name in ledger.documents_of(file.source))
    return {row.id: row for name in names if (row := ledger.document(name))}
