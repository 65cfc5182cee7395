"""Families of an index on a server, where every machine finds them: a note with the first chunk of each document.

    family.number   of its family; none for a document without translations
    family.lang     its language, Chinese and Serbian with their script
    family.places   places of its chunks in the pivot, int32 as base64
    family.mean     mean vector of its chunks, float16 as base64, and
    family.origin   what that depends on
    family.state    hash of the above: a note that is as it should be is not written again

Whoever ingests finds the translations among what it has ingested, keeps them in its own `families.sqlite` and writes
the notes; whoever searches reads them from the server.
"""

from __future__ import annotations

import hashlib
import threading
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from search.fold import FAMILIES_VERSION, Member, group_documents
from search.records import Vectors
from search.store.server import ServerStore

TRANSLATIONS = "translations"
"""Kept with a collection: by which version of the rules its translations were found."""
REMEMBERED_DOCUMENTS = 4096
"""Notes that are kept of a server's: 10 MB at 384 dimensions."""
Note = dict[str, Any]


def family_number(pivot: str) -> int:
    """The same on every machine, unlike a count; 63 bits, as many as a server's integers have above 0."""
    return int.from_bytes(hashlib.blake2b(pivot.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big") >> 1


def make_note(lang: str, pivot: str | None, places: bytes | None, mean: bytes | None, origin: str | None) -> Note:
    """What is written down of a document; `places` are int32, `mean` float16, both None where they are not known."""
    note = {
        "lang": lang,
        "number": None if pivot is None else family_number(pivot),
        "places": None if places is None else b64encode(places).decode(),
        "mean": None if mean is None else b64encode(mean).decode(),
        "origin": origin,
    }
    return {**note, "state": hashlib.blake2b(repr(sorted(note.items())).encode(), digest_size=12).hexdigest()}


def without_vector(note: Mapping[str, Any]) -> Note:
    """The note of a document whose chunks were encoded anew: its translations are the same, its mean is not known."""
    return {**note, "mean": None, "origin": None, "state": None}


class ServerFamilies:
    """The families of a server's index; see `search.fold.Families`.

    What was read of a document is kept: an index is opened again when it changes.

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
        return {document: note["number"] for document, note in notes.items() if note.get("number") is not None}

    def members(self, families: Collection[int]) -> dict[int, list[Member]]:
        """See Families."""
        found: dict[int, list[Member]] = defaultdict(list)
        if not families or not self.known:
            return {}
        rows = self._store.iter_notes(("lang", "number", "places"), families=sorted(families))
        for document, note in sorted(rows, key=lambda row: (row[1]["lang"], row[0])):
            places = np.frombuffer(b64decode(note["places"] or b""), np.int32)
            found[note["number"]].append(Member(document, note["lang"], note["number"], places))
        return dict(found)

    def score_documents(self, document_ids: Sequence[str], dense: Vectors) -> Vectors:
        """See Families."""
        scores = {
            document: float(np.frombuffer(b64decode(note["mean"]), np.float16).astype(np.float32) @ dense)
            for document, note in self._read(document_ids).items()
            if note.get("mean") and note.get("origin") == self._origin
        }
        return np.array([scores.get(document, np.nan) for document in document_ids], np.float32)

    def languages(self) -> list[str]:
        """See Families."""
        return sorted({note["lang"] for _, note in self._all() if note["number"] is not None})

    def iter_groups(self) -> Iterator[dict[str, str]]:
        """See Families."""
        rows = sorted((document, note["lang"], note["number"]) for document, note in self._all())
        return group_documents(rows)

    def close(self) -> None:
        """See Families; the store is not theirs."""

    def _all(self) -> Iterator[tuple[str, Note]]:
        return self._store.iter_notes(("lang", "number")) if self.known else iter(())

    def _read(self, document_ids: Iterable[str]) -> dict[str, Note]:
        wanted = set(document_ids) if self.known else set()
        with self._lock:
            found = {document: self._notes[document] for document in wanted if document in self._notes}
        missing = sorted(wanted - found.keys())
        if missing:
            read = self._store.read_notes(missing)
            found |= {document: read.get(document, {}) for document in missing}
            with self._lock:
                self._notes |= found
                for document in list(self._notes)[: max(0, len(self._notes) - REMEMBERED_DOCUMENTS)]:
                    del self._notes[document]
        return found


def are_known(metadata: Mapping[str, Any]) -> bool:
    """Whether the notes of a collection are by the rules of this version."""
    return metadata.get(TRANSLATIONS) == FAMILIES_VERSION
