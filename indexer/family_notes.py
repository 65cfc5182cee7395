"""Translations of an index on a server: from the file where they were found to notes on its documents."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from indexer.translations import mean_vector, read_documents
from search.balance import LanguageMap
from search.errors import StoreError
from search.server_families import Note, are_known, make_note, new_mark, renew_note
from search.store.server import ServerStore, read_metadata, write_metadata

_BATCH = 512


def publish_families(path: Path, store: ServerStore, *, origin: str) -> None:
    """Write what `update_families` found to a server, where its note is missing or differs.

    The server is asked what it has, so that notes which were lost with their chunks, on whatever machine, come back.
    That is a read of every 512 documents, and 21 microseconds a document.

    Args:
        path: The file with the families.
        store: The collection that they were found in.
        origin: What its vectors depend on.

    Raises:
        StoreError: The server or the file cannot be read.
    """
    written = False
    store.index_notes()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            rows = _notes(db, origin)
            while batch := dict(islice(rows, _BATCH)):
                there = store.read_notes(list(batch), ("state",))
                new = {name: note for name, note in batch.items() if there.get(name, {}).get("state") != note["state"]}
                store.write_notes(new)
                written = written or bool(new)
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}. Run the ingest again.") from error
    if written or not are_known(read_metadata(store.client, store.collection)):
        write_metadata(store.client, store.collection, new_mark())


def copy_notes(
    source: ServerStore, target: ServerStore, known: Mapping[str, Any], language_map: LanguageMap, origin: str
) -> None:
    """Copy the notes of a collection, of which `known` is kept, to one with the same chunks in other vectors."""
    if not are_known(known):
        return
    target.index_notes()
    rows = source.iter_notes()
    while batch := dict(islice(rows, _BATCH)):
        read = read_documents(target, language_map, sorted(batch))
        means = {document: mean_vector(chunks, vectors) for document, chunks, vectors in read}
        target.write_notes({name: renew_note(note, means.get(name), origin) for name, note in batch.items()})


def _notes(db: sqlite3.Connection, origin: str) -> Iterator[tuple[str, Note]]:
    rows = db.execute(
        "SELECT id, lang, pivot, aligned, vector FROM documents LEFT JOIN signatures USING (id) ORDER BY id"
    )
    for document, lang, pivot, places, mean in rows:
        yield document, make_note(lang=lang, pivot=pivot, places=places, mean=mean, origin=origin)
