"""Vectors of passages' tokens on disk, so that late interaction reads a passage without encoding it.

Kept beside the generations of an index and not in them: rows are named by the passage they are of, so that they stay
right whatever generation is searched, and an ingest has only to add what is new.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search.errors import IndexFormatError
from search.records import Vectors

TOKEN_STORE = "tokens.sqlite"
PROJECTED = 192
"""Dimensions that are kept of a token's vector (results/rerank.md)."""
VERSION = 1
_SCALE = 127.0
_SELECTED = 500
_BUSY_S = 30.0


@dataclass(frozen=True, slots=True)
class StoredTokens:
    """The tokens of one passage: `vectors` (L, P) float32 as the projection gives them, `ids` (L,) of the tokenizer."""

    vectors: Vectors
    ids: npt.NDArray[np.int64]


def passage_key(text: str) -> bytes:
    """Name of a passage by its text, 16 bytes."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


@dataclass(frozen=True, slots=True)
class Projection:
    """Fewer dimensions for vectors of tokens: orthonormal `directions` (D, P), and the `mean` (P,) of what they give.

    Codes are of what differs from the mean: that is most of a token's vector, and would make the int8 steps coarse.
    """

    directions: Vectors
    mean: Vectors

    def apply(self, vectors: Vectors) -> Vectors:
        """Vectors (L, D) in fewer dimensions: (L, P) float32, their dot products nearly as they were."""
        return np.asarray(vectors.astype(np.float32) @ self.directions, np.float32)


def fit_projection(batches: Iterable[Vectors], dimension: int = PROJECTED) -> Projection:
    """The directions that keep most of the dot products between tokens, which come in batches (N, D).

    Without centring, since it is dot products and not variance that MaxSim needs.

    Raises:
        ValueError: There are no tokens.
    """
    moment: npt.NDArray[np.float64] | None = None
    for batch in batches:
        tokens = batch.astype(np.float64)
        if moment is None:
            moment, total, count = np.zeros((tokens.shape[1],) * 2), np.zeros(tokens.shape[1]), 0
        moment += tokens.T @ tokens
        total += tokens.sum(axis=0)
        count += len(tokens)
    if moment is None or not count:
        raise ValueError("no tokens to fit a projection to")
    _, vectors = np.linalg.eigh(moment)
    directions = np.ascontiguousarray(vectors[:, ::-1][:, :dimension], dtype=np.float32)
    return Projection(directions, np.asarray(total / count @ directions, np.float32))


def quantise(vectors: Vectors) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """int8 codes (L, P) and a scale for each token (L,): codes times scale gives the vectors back."""
    scales = (np.abs(vectors).max(axis=1, initial=0.0) / _SCALE).astype(np.float16)
    codes = np.rint(vectors / np.maximum(scales.astype(np.float32), 1e-7)[:, None])
    return np.clip(codes, -_SCALE, _SCALE).astype(np.int8), scales


class TokenStore:
    """Token vectors of the passages of one index and one encoder; safe to share between threads.

    Args:
        path: The file.
        encoder_fingerprint: Of the index's encoder; rows of another one do not count.
        write: Whether to make the file, or empty one of another encoder or version.

    Raises:
        IndexFormatError: The file is damaged.
    """

    def __init__(self, path: Path, encoder_fingerprint: str, *, write: bool = False) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._origin = f"{VERSION} {encoder_fingerprint}"
        self._db: sqlite3.Connection | None = None
        self._projection: Projection | None = None
        if write:
            self._db = self._make()

    def _make(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            db = self._connect("rwc")
            db.execute("PRAGMA secure_delete=ON")  # tokens are text: what is forgotten is gone
            with db:
                db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB)")
                db.execute(
                    "CREATE TABLE IF NOT EXISTS passages (key BLOB PRIMARY KEY, ids BLOB, scales BLOB, codes BLOB)"
                )
                if _origin_of(db) not in (None, self._origin):
                    db.execute("DELETE FROM passages")
                    db.execute("DELETE FROM meta")
                db.execute("INSERT OR REPLACE INTO meta VALUES ('origin', ?)", (self._origin,))
        return db

    def _opened(self) -> sqlite3.Connection | None:
        """The file, once it is there and of this encoder: it may be made while an index is searched."""
        with self._lock:
            if self._db is None and self.path.is_file():
                with self._explained():
                    db = self._connect("rw")  # so that what a kill left is rolled back; read-only where it has to be
                    if _origin_of(db) == self._origin:
                        self._db = db
                    else:
                        db.close()
            return self._db

    def _connect(self, mode: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(uri, uri=True, check_same_thread=False, timeout=_BUSY_S)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise IndexFormatError(
                f"{self.path} cannot be read ({error}). Delete it; `indexer ingest FOLDER --late` makes it again."
            ) from error

    @property
    def projection(self) -> Projection | None:
        """What the vectors were projected by; None while there is none."""
        if self._projection is None and (db := self._opened()) is not None:
            with self._lock, self._explained():
                known = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('directions', 'mean')"))
            if known:
                mean = np.frombuffer(known["mean"], np.float32)
                directions = np.frombuffer(known["directions"], np.float32).reshape(-1, len(mean))
                self._projection = Projection(directions, mean)
        return self._projection

    @property
    def is_complete(self) -> bool:
        """Whether an ingest has gone through the whole index since the file was made."""
        return self.meta("complete") is not None

    def meta(self, name: str) -> str | None:
        """What was noted by that name."""
        if (db := self._opened()) is None:
            return None
        with self._lock, self._explained():
            row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def set_meta(self, name: str, value: str) -> None:
        """Note something."""
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(name, value)])

    def set_projection(self, projection: Projection) -> None:
        """Fix the projection before anything is put; the first one stays."""
        values = [("directions", projection.directions.tobytes()), ("mean", projection.mean.tobytes())]
        self._write("INSERT OR IGNORE INTO meta VALUES (?, ?)", values)

    def missing(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of the keys that have no row, once each, in order."""
        known = {bytes(key) for (key,) in self._select("SELECT key FROM passages WHERE key IN", keys)}
        return [key for key in dict.fromkeys(keys) if key not in known]

    def put(self, rows: Iterable[tuple[bytes, Vectors, npt.NDArray[np.int64]]]) -> None:
        """Write passages durably: their key, the vectors (L, D) of their tokens, and the tokens' ids (L,)."""
        assert self.projection is not None
        made = []
        for key, vectors, ids in rows:
            codes, scales = quantise(self.projection.apply(vectors) - self.projection.mean)
            made.append((key, ids.astype(np.uint32).tobytes(), scales.tobytes(), codes.tobytes()))
        self._write("INSERT OR REPLACE INTO passages VALUES (?, ?, ?, ?)", made)

    def get(self, keys: Sequence[bytes]) -> dict[bytes, StoredTokens]:
        """The passages of these keys, as far as they are there."""
        found = self._select("SELECT key, ids, scales, codes FROM passages WHERE key IN", keys)
        return {bytes(row[0]): self._as_tokens(*row[1:]) for row in found}

    def _as_tokens(self, ids: bytes, scales: bytes, codes: bytes) -> StoredTokens:
        assert self.projection is not None
        by_token = np.frombuffer(codes, np.int8).reshape(-1, len(self.projection.mean))
        vectors = by_token * np.frombuffer(scales, np.float16).astype(np.float32)[:, None] + self.projection.mean
        return StoredTokens(vectors, np.frombuffer(ids, np.uint32).astype(np.int64))

    def count(self) -> int:
        """How many passages it holds."""
        if (db := self._opened()) is None:
            return 0
        with self._lock, self._explained():
            return int(db.execute("SELECT count(*) FROM passages").fetchone()[0])

    def keep_only(self, keys: set[bytes]) -> int:
        """Forget every other passage; returns how many."""
        db = self._opened()
        assert db is not None
        with self._lock, self._explained():
            gone = [(key,) for (key,) in db.execute("SELECT key FROM passages") if bytes(key) not in keys]
        self._write("DELETE FROM passages WHERE key = ?", gone)
        return len(gone)

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        assert self._db is not None, "opened for reading"
        with self._lock, self._explained(), self._db:
            self._db.executemany(statement, rows)

    def _select(self, statement: str, keys: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        if (db := self._opened()) is None:
            return []
        found: list[tuple[bytes, ...]] = []
        with self._lock, self._explained():
            for start in range(0, len(keys), _SELECTED):
                some = keys[start : start + _SELECTED]
                found += db.execute(f"{statement} ({','.join('?' * len(some))})", some).fetchall()
        return found

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None


def _origin_of(db: sqlite3.Connection) -> str | None:
    row = db.execute("SELECT value FROM meta WHERE name = 'origin'").fetchone()
    return str(row[0]) if row else None


def stored_passages(store: TokenStore | None, texts: Sequence[str]) -> Mapping[str, StoredTokens]:
    """What a store holds of passages, by their text; nothing where it was not made whole yet."""
    if store is None or store.projection is None or not store.is_complete:
        return {}
    keys = {passage_key(text): text for text in texts}
    return {keys[key]: tokens for key, tokens in store.get(list(keys)).items()}
