"""Translations of an index on a server: from the file where they were found to notes on its documents."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from search.errors import StoreError
from search.fold import FAMILIES_VERSION
from search.server_families import TRANSLATIONS, Note, are_known, make_note, without_vector
from search.store.server import ServerStore, write_metadata

_BATCH = 512


def publish_families(path: Path, store: ServerStore, *, origin: str) -> int:
    """Write what `update_families` found to a server, where another note is or none; returns how many were written.

    The server is asked what it has, so that notes which were lost with their chunks, on whatever machine, come back.

    Args:
        path: The file with the families.
        store: The collection that they were found in.
        origin: What its vectors depend on.

    Raises:
        StoreError: The server or the file cannot be read.
    """
    written = 0
    store.index_notes()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            rows = _notes(db, origin)
            while batch := dict(islice(rows, _BATCH)):
                there = store.read_notes(list(batch), ("state",))
                new = {name: note for name, note in batch.items() if there.get(name, {}).get("state") != note["state"]}
                store.write_notes(new)
                written += len(new)
    except sqlite3.Error as error:
        raise StoreError(f"cannot read {path}: {error}. Run the ingest again.") from error
    write_metadata(store.client, store.collection, {TRANSLATIONS: FAMILIES_VERSION})
    return written


def copy_notes(source: ServerStore, target: ServerStore) -> None:
    """Copy the notes of a collection to one with the same chunks, whose vectors are others."""
    if not are_known(source.metadata):
        return
    target.index_notes()
    rows = source.iter_notes()
    while batch := {document: without_vector(note) for document, note in islice(rows, _BATCH)}:
        target.write_notes(batch)


def _notes(db: sqlite3.Connection, origin: str) -> Iterator[tuple[str, Note]]:
    rows = db.execute(
        "SELECT id, lang, pivot, aligned, vector FROM documents LEFT JOIN signatures USING (id) ORDER BY id"
    )
    for document, lang, pivot, places, mean in rows:
        yield document, make_note(lang, pivot, places, mean, origin)
