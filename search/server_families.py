"""Families of an index on a server, where every machine finds them: a note with the first chunk of each document.

    family.number   of its family; none for a document without translations
    family.lang     its language, Chinese and Serbian with their script
    family.places   places of its chunks in the pivot, int32 as base64
    family.mean     mean vector of its chunks, float16 as base64, and
    family.origin   what that depends on
    family.version  of the rules by which translations were found
    family.state    hash of the above, by which a note is known to be as it should be

Whoever ingests looks for translations among what it has ingested and keeps them in its own `families.sqlite`. It writes
a note where the server's is missing or differs. Whoever searches reads the notes.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from search.fold import FAMILIES_VERSION, Member, group_documents
from search.records import Vectors
from search.store.server import ServerStore

TRANSLATIONS = "translations"
"""Kept with a collection: the version of the rules by which its translations were found, and a mark that changes
whenever notes do."""
REMEMBERED_DOCUMENTS = 4096
"""Of so many documents what a search needs is kept in memory: 5 MB at 384 dimensions."""
_AT_ONCE = 500


class Note(TypedDict, total=False):
    """What is kept of a document, or some of it; see above."""

    lang: str
    number: int | None
    places: str | None
    mean: str | None
    origin: str
    version: int
    state: str


def family_number(pivot: str) -> int:
    """The same on every machine, unlike a count; 63 bits, as many as a server's integers have above 0."""
    return int.from_bytes(hashlib.blake2b(pivot.encode(), digest_size=8).digest(), "big") >> 1


def make_note(*, lang: str, pivot: str | None, places: bytes | None, mean: bytes | None, origin: str) -> Note:
    """The note on a document; `pivot` and `places` (int32) are None without translations, `mean` is float16."""
    coded = None if places is None else b64encode(places).decode()
    return renew_note({"lang": lang, "number": pivot and family_number(pivot), "places": coded}, mean, origin)


def renew_note(note: Mapping[str, Any], mean: bytes | None, origin: str) -> Note:
    """The note on a document whose vectors are others now: its translations are the same."""
    renewed = Note(
        lang=note["lang"], number=note["number"], places=note["places"],
        mean=None if mean is None else b64encode(mean).decode(), origin=origin, version=FAMILIES_VERSION,
    )  # fmt: skip
    state = hashlib.blake2b(repr(sorted(renewed.items())).encode(), digest_size=12).hexdigest()
    return Note(**renewed, state=state)


class ServerFamilies:
    """The families of a server's index; see `search.fold.Families`.

    What was read of a document is kept: an index is opened again when its notes change (`mark_of`).

    Args:
        store: The index's store.
        known: Whether its translations were looked for.
        origin: What its vectors depend on.
    """

    def __init__(self, store: ServerStore, *, known: bool, origin: str) -> None:
        self.known = known
        self._store, self._origin = store, origin
        self._lock = threading.Lock()
        self._notes: dict[str, Note] = {}

    def of(self, document_ids: Iterable[str]) -> dict[str, int]:
        """See Families."""
        notes = self._read(document_ids)
        return {document: number for document, note in notes.items() if (number := note.get("number")) is not None}

    def members(self, families: Collection[int]) -> dict[int, list[Member]]:
        """See Families."""
        found: dict[int, list[Member]] = defaultdict(list)
        wanted = sorted(families) if self.known else []
        for start in range(0, len(wanted), _AT_ONCE):
            parts = ("lang", "number", "places", "version")
            rows = self._store.iter_notes(parts, families=wanted[start : start + _AT_ONCE])
            for document, note in sorted(_current(rows), key=lambda row: (row[1]["lang"], row[0])):
                places = np.frombuffer(b64decode(note["places"] or b""), np.int32)
                found[note["number"]].append(Member(document, note["lang"], note["number"], places))
        return dict(found)

    def score_documents(self, document_ids: Sequence[str], dense: Vectors) -> Vectors:
        """See Families."""
        scores = {
            document: float(np.frombuffer(b64decode(mean), np.float16).astype(np.float32) @ dense)
            for document, note in self._read(document_ids).items()
            if (mean := note.get("mean")) and note.get("origin") == self._origin
        }
        return np.array([scores.get(document, np.nan) for document in document_ids], np.float32)

    def languages(self) -> list[str]:
        """See Families."""
        return self._store.note_languages() if self.known else []

    def iter_groups(self) -> Iterator[dict[str, str]]:
        """See Families."""
        rows = sorted((document, note["lang"], note.get("number")) for document, note in self._all())
        return group_documents(rows)

    def close(self) -> None:
        """See Families; the store is not theirs."""

    def _all(self) -> Iterator[tuple[str, Note]]:
        return _current(self._store.iter_notes(("lang", "number", "version"))) if self.known else iter(())

    def _read(self, document_ids: Iterable[str]) -> dict[str, Note]:
        wanted = set(document_ids) if self.known else set()
        with self._lock:
            found = {document: self._notes[document] for document in wanted if document in self._notes}
        missing = sorted(wanted - found.keys())
        if missing:
            read = dict(_current(self._store.read_notes(missing, ("number", "mean", "origin", "version")).items()))
            found |= {document: read.get(document, Note()) for document in missing}
            with self._lock:
                self._notes |= found
                for document in list(self._notes)[: max(0, len(self._notes) - REMEMBERED_DOCUMENTS)]:
                    del self._notes[document]
        return found


def _current(notes: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[tuple[str, Any]]:
    """Those by the rules of this version."""
    return ((document, note) for document, note in notes if note.get("version") == FAMILIES_VERSION)


def are_known(metadata: Mapping[str, Any]) -> bool:
    """Whether a collection's translations were looked for by the rules of this version."""
    return bool((metadata.get(TRANSLATIONS) or {}).get("version") == FAMILIES_VERSION)


def mark_of(metadata: Mapping[str, Any]) -> object:
    """What is another after notes of a collection were written."""
    return metadata.get(TRANSLATIONS)


def new_mark() -> dict[str, Any]:
    """To be kept with a collection after notes were written."""
    return {TRANSLATIONS: {"version": FAMILIES_VERSION, "mark": uuid.uuid4().hex}}
