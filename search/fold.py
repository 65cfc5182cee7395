"""Translations folded together: a hit stands for every document that says the same in another language.

Which documents are translations of one another is found at ingest (`indexer/translations.py`) and kept beside the index
in `families.sqlite`. A family has at most one document per language. Each of its documents knows where in the family's
*pivot*, its longest document, every chunk of its own belongs; two chunks of different documents that belong to the same
place are translations of one another. So the passage that a reader is shown in another language is known without
searching for it, in every mode.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from search.errors import IndexFormatError, QueryError
from search.records import Chunk, Filter, Match, ScoredPoint, Vectors, point_id
from search.store.base import VectorStore

FAMILIES = "families.sqlite"
FAMILIES_VERSION = 2
"""Of the file and of the rules: families of another version are left aside, and found anew by the next ingest."""
SURE_LANGUAGE = 0.5
"""From this confidence on, the language of a query is taken for the reader's."""
_BATCH = 500

Positions: TypeAlias = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Member:
    """A document of a family. `aligned` (chunks,) holds per chunk its place in the pivot, -1 where it has none."""

    document_id: str
    lang: str
    family: int
    aligned: Positions

    def chunk_at(self, place: int) -> int | None:
        """Number of the chunk that belongs to `place` or next to it, the first of several; None without one.

        Next to it, since chunks end elsewhere in every language: one in Chinese may hold two of the pivot's.
        """
        away = np.where(self.aligned >= 0, np.abs(self.aligned - place), 2)
        return int(away.argmin()) if place >= 0 and len(away) and away.min() <= 1 else None


@dataclass(frozen=True, slots=True)
class Translation:
    """A document that says the same as another, in another language."""

    document_id: str
    lang: str
    title: str
    shared: float
    """Share, 0 to 1, of its chunks that have a counterpart in the document asked about."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Documents that are translations of one another, or a single one, and the languages they lack."""

    documents: Mapping[str, str]
    """Document ids by language; Chinese and Serbian with their script, as in zh-Hant."""
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """A family among ranked passages: `best` ranks it, `others` are what was found of its other documents, in order."""

    best: ScoredPoint
    others: tuple[ScoredPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """What stands for a family: a passage to read, the best one, which ranks it, and one of each other document."""

    chunk: Chunk
    best: ScoredPoint
    also_in: tuple[Chunk, ...] = ()


def has_families(path: Path) -> bool:
    """Whether translations were looked for by the rules of this version."""
    try:
        families = FamiliesFile(path)
    except IndexFormatError:  # they will be found anew
        return False
    families.close()
    return families.known


def vectors_origin(encoder_fingerprint: str, map_fingerprint: str) -> str:
    """What the vectors of an index depend on; families are found anew when it changes."""
    return f"{encoder_fingerprint} {map_fingerprint}"


class Families(Protocol):
    """The families of one index, read as they are asked for; safe to share between threads."""

    @property
    def known(self) -> bool:
        """Whether translations were looked for when the index was built."""

    def of(self, document_ids: Iterable[str]) -> dict[str, int]:
        """Family by document, for those of the given documents that have one."""

    def members(self, families: Collection[int]) -> dict[int, list[Member]]:
        """Documents of each family, by language."""

    def score_documents(self, document_ids: Sequence[str], dense: Vectors) -> Vectors:
        """Dot products (N,) of the query (D,) with each document's mean, NaN where that is not known.

        The mean is that of its neutral passage vectors by their length, at unit length.
        """

    def languages(self) -> list[str]:
        """Languages of documents that have translations, sorted."""

    def iter_groups(self) -> Iterator[dict[str, str]]:
        """Document ids by language, of each family and then of each document without one, by ascending id."""

    def close(self) -> None:
        """Release what was opened for them."""


class FamiliesFile:
    """The families of an embedded index; see Families.

    Args:
        path: `families.sqlite`; one that is missing, or of another version, holds no families.
        origin: What the vectors of the index depend on; vectors of documents that were made of others are not given.

    Raises:
        IndexFormatError: The file is damaged.
    """

    def __init__(self, path: Path | None, origin: str | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._db = _open(path) if path is not None and path.is_file() else None
        self.known = self._db is not None
        made_of = self._query("SELECT value FROM meta WHERE key='origin'")
        self._has_vectors = origin is None or made_of == [(f"{FAMILIES_VERSION} {origin}",)]

    def of(self, document_ids: Iterable[str]) -> dict[str, int]:
        """See Families."""
        rows = self._select("SELECT id, family FROM documents WHERE family IS NOT NULL AND id IN", list(document_ids))
        return {str(document): int(family) for document, family in rows}

    def members(self, families: Collection[int]) -> dict[int, list[Member]]:
        """See Families."""
        rows = self._select("SELECT id, lang, family, aligned FROM documents WHERE family IN", sorted(families))
        found: dict[int, list[Member]] = defaultdict(list)
        for document, lang, family, aligned in sorted(rows, key=lambda row: (row[1], row[0])):
            found[int(family)].append(Member(document, lang, int(family), np.frombuffer(aligned, np.int32)))
        return dict(found)

    def score_documents(self, document_ids: Sequence[str], dense: Vectors) -> Vectors:
        """See Families."""
        wanted = sorted(set(document_ids)) if self._has_vectors else []
        rows = self._select("SELECT id, vector FROM signatures WHERE id IN", wanted)
        scores = {document: float(np.frombuffer(vector, np.float16).astype(np.float32) @ dense)
                  for document, vector in rows}  # fmt: skip
        return np.array([scores.get(document, np.nan) for document in document_ids], np.float32)

    def languages(self) -> list[str]:
        """See Families."""
        rows = self._query("SELECT DISTINCT lang FROM documents WHERE family IS NOT NULL ORDER BY lang")
        return [str(lang) for (lang,) in rows]

    def iter_groups(self) -> Iterator[dict[str, str]]:
        """See Families."""
        return group_documents(self._query("SELECT id, lang, family FROM documents ORDER BY id"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    def _select(self, statement: str, values: Sequence[str | int]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        for start in range(0, len(values), _BATCH):
            batch = values[start : start + _BATCH]
            rows += self._query(f"{statement} ({','.join('?' * len(batch))})", batch)
        return rows

    def _query(self, statement: str, values: Sequence[str | int] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return [] if self._db is None else self._db.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise _damaged(self._path, error) from error


def group_documents(rows: Iterable[tuple[str, str, int | None]]) -> Iterator[dict[str, str]]:
    """Document ids by language, of each family and then of each document without one, from (id, language, family)."""
    families: dict[int, dict[str, str]] = defaultdict(dict)
    alone: list[dict[str, str]] = []
    for document, lang, family in rows:
        if family is None or lang in families[family]:
            alone.append({lang: document})
        else:
            families[family][lang] = document
    yield from families.values()
    yield from alone


def _damaged(path: Path | None, error: sqlite3.Error) -> IndexFormatError:
    return IndexFormatError(
        f"the translations in {path} are damaged ({error}). `indexer ingest` on any of its folders finds them anew."
    )


def _open(path: Path) -> sqlite3.Connection | None:
    """The file, read once so that it is really open and stays readable when its folder is removed."""
    try:
        uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
        db = sqlite3.connect(uri, uri=True, check_same_thread=False)
        row = db.execute("SELECT value FROM meta WHERE key='version'").fetchone()
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error
    if row is None or row[0] != str(FAMILIES_VERSION):
        db.close()
        return None
    return db


def fold_families(points: Sequence[ScoredPoint], family_of: Mapping[str, int]) -> list[Folded]:
    """Put the passages of one family into one place, that of the best of them.

    Worked: [de1, fr1, ja7, en1] with de1, fr1 and en1 of one family gives [de1 (fr1, en1), ja7].

    Args:
        points: Passages, best first, one per document.
        family_of: Family by document; one without a family stands for itself.
    """
    places: dict[str | int, list[ScoredPoint]] = {}
    for point in points:
        document = point.chunk.document_id
        places.setdefault(family_of.get(document, document), []).append(point)
    return [Folded(found[0], tuple(found[1:])) for found in places.values()]


def show(
    folded: Sequence[Folded],
    families: Families,
    store: VectorStore,
    *,
    readers: Sequence[str] = (),
    filter: Filter | None = None,
    rejected: Callable[[list[str]], set[str]] = lambda documents: set(),
) -> list[Shown]:
    """Choose the passage to show of each family: the first of the reader's languages that answers, else the best one.

    A translation answers where it was found itself, or where it has a counterpart of the best passage. Costs a lookup
    of the families and one read of the passages that were not found.

    Args:
        folded: Families, best first.
        families: Those of the index that was searched.
        store: Its store.
        readers: Languages that the reader prefers, first one first.
        filter: That of the search; what does not pass it is not shown.
        rejected: Which of some documents the search leaves out for another reason.
    """
    family_of = families.of([item.best.chunk.document_id for item in folded])
    members = families.members(set(family_of.values()))
    counterparts = [
        _counterparts(item, members.get(family_of.get(item.best.chunk.document_id, -1), [])) for item in folded
    ]
    wanted = [point_id(document, number) for rows in counterparts for document, number, _ in rows]
    read = _read(store, wanted, filter) if wanted else {}
    if dropped := rejected(sorted({chunk.document_id for chunk in read.values()})):
        read = {chunk_id: chunk for chunk_id, chunk in read.items() if chunk.document_id not in dropped}
    return [_choose(item, rows, read, readers) for item, rows in zip(folded, counterparts, strict=True)]


def _counterparts(item: Folded, members: Sequence[Member]) -> list[tuple[str, int, bool]]:
    """Document, chunk and whether it answers, of each translation that was not found itself."""
    best = item.best.chunk
    found = {best.document_id, *(point.chunk.document_id for point in item.others)}
    own = next((member for member in members if member.document_id == best.document_id), None)
    if own is None or best.number >= len(own.aligned):
        return []
    place = int(own.aligned[best.number])
    rows = []
    for member in members:
        if member.document_id not in found:
            number = member.chunk_at(place)
            nearest = number if number is not None else _nearest(member, own, best.number)
            rows.append((member.document_id, nearest, number is not None))
    return rows


def _nearest(member: Member, own: Member, number: int) -> int:
    """The chunk as far into the document as `number` is into its own: for want of a counterpart."""
    return min(len(member.aligned) - 1, number * len(member.aligned) // len(own.aligned))


def _read(store: VectorStore, chunk_ids: Sequence[str], filter: Filter | None) -> dict[str, Chunk]:
    """Those of some chunks that pass a filter."""
    if filter is None:
        return {point.chunk.id: point.chunk for point in store.retrieve(chunk_ids)}
    narrowed = Filter((*filter.conditions, Match("id", tuple(chunk_ids))))
    return {point.chunk.id: point.chunk for point in store.iter_points(filter=narrowed)}


def _choose(
    item: Folded, rows: Sequence[tuple[str, int, bool]], read: Mapping[str, Chunk], readers: Sequence[str]
) -> Shown:
    unfound = [(read[chunk_id], answers) for document, number, answers in rows
               if (chunk_id := point_id(document, number)) in read]  # fmt: skip
    found = [item.best.chunk, *(point.chunk for point in item.others)]
    answering = [*found, *(chunk for chunk, answers in unfound if answers)]
    first = next((chunk for lang in readers for chunk in answering if chunk.lang == lang), item.best.chunk)
    others = [chunk for chunk in (*found, *(chunk for chunk, _ in unfound)) if chunk.id != first.id]
    return Shown(first, item.best, tuple(others))


def list_translations(families: Families, store: VectorStore, document_id: str) -> list[Translation]:
    """The translations of a document, by language; none when it has none.

    Raises:
        QueryError: The index does not hold the document, or its translations were not looked for.
    """
    _require_known(families)
    if not store.count(Filter((Match("document_id", (document_id,)),))):
        raise QueryError(f"there is no document {document_id!r} in the index; `indexer status --files` lists its files")
    family = families.of([document_id]).get(document_id)
    if family is None:
        return []
    members = families.members([family]).get(family, [])
    own = next((member for member in members if member.document_id == document_id), None)
    if own is None:  # an ingest is replacing it on the server
        return []
    titles = {
        point.chunk.document_id: point.chunk.title
        for point in store.retrieve([point_id(member.document_id, 0) for member in members])
    }
    return [
        Translation(member.document_id, member.lang, titles.get(member.document_id, ""), _shared(member, own))
        for member in members
        if member is not own
    ]


def _require_known(families: Families) -> None:
    if not families.known:
        raise QueryError(
            "translations were not looked for in this index. Run `indexer ingest` on any of its folders, which encodes "
            "nothing again."
        )


def _shared(member: Member, own: Member) -> float:
    held = (member.aligned >= 0) & np.isin(member.aligned, own.aligned)
    return round(float(held.mean()), 4) if len(held) else 0.0


def list_gaps(families: Families, languages: Sequence[str] = ()) -> list[Gap]:
    """Documents that lack one of `languages`, those with the most translations first; ties by id.

    Args:
        families: Those of the index.
        languages: Languages that every document should exist in; none: all that any translated document exists in.

    Raises:
        QueryError: Translations were not looked for in this index.
    """
    _require_known(families)
    wanted = tuple(dict.fromkeys(languages)) or tuple(families.languages())
    gaps = []
    for documents in families.iter_groups():
        missing = tuple(lang for lang in wanted if not any(f"{held}-".startswith(f"{lang}-") for held in documents))
        if missing:
            gaps.append(Gap(dict(sorted(documents.items())), missing))
    return sorted(gaps, key=lambda gap: (-len(gap.documents), sorted(gap.documents.values())))
