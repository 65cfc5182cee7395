"""The engine: one question in, ranked passages in every language out. Command line, API, UI and evaluation call this.

query -> detect language -> encode -> balance -> retrieve dense + lexical -> fuse fairly -> best passage per document
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.balance import DEFAULT_BALANCE
from search.errors import EncoderMismatchError, IndexFormatError, QueryError
from search.fusion import fuse_ranks, keep_language_places
from search.language import COMMON_LANGUAGES, Detection, LanguageDetector, check_languages
from search.lexical import LEXICAL_VERSION, query_vector
from search.manifest import IndexManifest
from search.opening import OpenIndex, open_index
from search.records import Chunk, Filter, Match, ScoredPoint, SparseVector, Vectors
from search.settings import Settings, load_settings

if TYPE_CHECKING:
    from search.encoder import Encoder

MAX_QUERY_CHARS = 20_000
MAX_RESULTS = 1_000
CANDIDATES = 200
"""Chunks of each list that are ranked; four times as many, and again, while a search asks for more documents."""


class Mode(StrEnum):
    """How candidates are found."""

    HYBRID = "hybrid"
    DENSE = "dense"
    LEXICAL = "lexical"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a hit's score comes from: rank (from 1) and score in each list, None where the list does not hold it."""

    dense_rank: int | None
    dense_score: float | None
    lexical_rank: int | None
    lexical_score: float | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One document, by its best passage. `rank` counts from 1; `score` is higher-is-better within one search."""

    rank: int
    score: float
    chunk: Chunk
    explanation: Explanation | None = None

    @property
    def document_id(self) -> str:
        """Id of the document."""
        return self.chunk.document_id

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json` and the API."""
        c = self.chunk
        record: dict[str, Any] = {
            "rank": self.rank, "score": round(self.score, 6), "document_id": c.document_id, "chunk": c.number,
            "title": c.title, "headings": list(c.headings), "text": c.text, "lang": c.lang,
            "lang_confidence": round(c.lang_confidence, 4), "script": c.script, "source": c.source,
            "start": c.start, "end": c.end, "date": c.date, "metadata": dict(c.metadata),
        }  # fmt: skip
        if self.explanation is not None:
            e = self.explanation
            record["explanation"] = {name: getattr(e, name) for name in Explanation.__slots__}
        return record


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits of one query, with what was understood of it. `timings_ms` holds encode, retrieve and total."""

    query: str
    mode: Mode
    balance: float
    detection: Detection
    hits: list[Hit]
    timings_ms: dict[str, float] = field(default_factory=dict)


class Engine:
    """Searches one index with the encoder that built it; safe to share between threads.

    Open it once and keep it: the encoder is loaded with the first query that needs it, and a newer generation of the
    index is picked up by the next query after its ingest has finished.

    Args:
        settings: Where the index and the encoder are.
        encoder: An encoder already loaded; None loads the one of the settings.
    """

    def __init__(self, settings: Settings, encoder: Encoder | None = None) -> None:
        self.settings = settings
        self._encoder = encoder
        self._lock = threading.RLock()
        self._index: OpenIndex | None = None
        self._close_index: Callable[[], object] = lambda: None
        self._detector = LanguageDetector()

    @classmethod
    def open(cls, index: str | Path | None = None, *, encoder: Encoder | None = None, **settings: Any) -> Engine:
        """Open the index of that name or path, by default the one of the settings, and check that it is there.

        Raises:
            IndexNotFoundError: There is no index; the message names the command that makes one.
        """
        engine = cls(load_settings(index=None if index is None else str(index), **settings), encoder)
        engine.index()
        return engine

    def index(self) -> OpenIndex:
        """The newest published state of the index."""
        with self._lock:
            if self._index is None or self._index.is_outdated():
                newest = open_index(self.settings)
                _check_words(newest)
                # The one before closes when the last search that uses it, perhaps in another thread, lets go of it.
                self._close_index = weakref.finalize(newest, newest.close)
                self._index = newest
            return self._index

    def encoder(self) -> Encoder:
        """The encoder, loaded on first use and checked against the index.

        Raises:
            EncoderMismatchError: The index was built with another one.
        """
        with self._lock:
            if self._encoder is None:
                from search.encoder import load_encoder

                self._encoder = load_encoder(
                    self.settings.encoder,
                    backend=self.settings.backend,
                    threads=self.settings.threads,
                    cache_dir=self.settings.encoders_folder,
                )
            check_encoder(self.index().manifest, self._encoder)
            return self._encoder

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        offset: int = 0,
        mode: Mode | str = Mode.HYBRID,
        balance: float | None = None,
        filter: Filter | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Find the documents that answer `query`, whatever their language.

        Args:
            query: A question or keywords in any language; only the first 512 tokens count.
            k: Documents to return, 1 to 1000.
            offset: Documents to leave out at the top, for further pages.
            mode: hybrid, dense or lexical.
            balance: 0 (the encoder's preference for the query's language) to 1 (languages equal); None: the default.
            filter: Conditions on language, source, date or metadata.
            explain: Whether hits say where their score comes from.

        Returns:
            Hits by descending score, ties by ascending chunk id, one per document.

        Raises:
            QueryError: An argument is out of range, the query holds nothing to search for, or the filter names a
                language that there is not.
        """
        started = time.perf_counter()
        chosen, weight = _check(query, k, offset, mode, balance)
        index = self.index()
        check_languages(_languages_of(filter), among=index.languages)
        detection = self._detector.detect_query(query, among=COMMON_LANGUAGES.union(index.languages))
        sparse = query_vector(query) if chosen is not Mode.DENSE else None
        dense = None
        if chosen is not Mode.LEXICAL:
            vectors = self.encoder().encode_queries([query])
            dense = index.language_map.map_queries(vectors, balance=weight)[0]
        encoded = time.perf_counter()
        languages = dict(detection.probabilities)
        points = _best_per_document(lambda limit: _retrieve(index, dense, sparse, languages, limit, filter), offset + k)
        hits = _as_hits(points, offset, k, _explainer(index, dense, sparse, filter) if explain else None)
        finished = time.perf_counter()
        timings = {"encode": encoded - started, "retrieve": finished - encoded, "total": finished - started}
        rounded = {name: round(seconds * 1000, 3) for name, seconds in timings.items()}
        return SearchResult(query, chosen, weight, detection, hits, rounded)

    def load(self) -> None:
        """Load now what the first query would otherwise wait for: index, encoder, language models."""
        self.index()
        self.encoder()
        self._detector.detect_query("?")

    def close(self) -> None:
        """Release the index."""
        with self._lock:
            self._close_index()
            self._index = None


def check_encoder(manifest: IndexManifest, encoder: Encoder) -> None:
    """Raise EncoderMismatchError unless the index was built with this encoder."""
    if manifest.encoder_fingerprint != encoder.fingerprint:
        raise EncoderMismatchError(
            f"the index was built with the encoder {manifest.encoder} ({manifest.encoder_fingerprint}), not with "
            f"{encoder.name} ({encoder.fingerprint}). Use `--encoder {manifest.encoder}`, or build the index again "
            f"with `indexer ingest FOLDER --fresh --encoder {encoder.name}`."
        )


def _check_words(index: OpenIndex) -> None:
    if index.manifest.lexical_version != LEXICAL_VERSION:
        index.close()
        raise IndexFormatError(
            "the index is of another version of this program, which cut words by other rules "
            f"({index.manifest.lexical_version}, now {LEXICAL_VERSION}). Run `indexer ingest` on any of its folders to "
            "bring it up to date; nothing has to be encoded again."
        )


def _check(query: str, k: int, offset: int, mode: Mode | str, balance: float | None) -> tuple[Mode, float]:
    if not query.strip():
        raise QueryError("the query is empty; type a question or some words")
    if len(query) > MAX_QUERY_CHARS:
        raise QueryError(f"the query has {len(query)} characters; at most {MAX_QUERY_CHARS} are allowed")
    if not 1 <= k <= MAX_RESULTS or not 0 <= offset <= MAX_RESULTS:
        raise QueryError(f"k must be 1 to {MAX_RESULTS} and offset 0 to {MAX_RESULTS}, got k={k}, offset={offset}")
    weight = DEFAULT_BALANCE if balance is None else balance
    if not 0.0 <= weight <= 1.0:
        raise QueryError(f"balance must be between 0 and 1, got {weight}")
    try:
        return Mode(mode), weight
    except ValueError as error:
        raise QueryError(f"unknown mode {str(mode)!r}; choose one of {', '.join(Mode)}") from error


def _languages_of(filter: Filter | None) -> list[str]:
    conditions = filter.conditions if filter else ()
    return [str(value) for c in conditions if isinstance(c, Match) and c.key == "lang" for value in c.values]


def _retrieve(
    index: OpenIndex,
    dense: Vectors | None,
    sparse: SparseVector | None,
    query_languages: Mapping[str, float],
    limit: int,
    filter: Filter | None,
) -> list[ScoredPoint]:
    if dense is None and sparse is not None:
        return index.store.search_lexical(sparse, limit=limit, filter=filter)
    if dense is not None and (sparse is None or not len(sparse.indices)):
        return index.store.search_dense(dense, limit=limit, filter=filter)
    if dense is None or sparse is None:
        return []
    by_meaning = index.store.search_dense(dense, limit=limit, filter=filter)
    by_words = index.store.search_lexical(sparse, limit=limit, filter=filter)
    return keep_language_places(by_meaning, fuse_ranks(by_meaning, by_words, query_languages))[:limit]


def _best_per_document(retrieve: Callable[[int], list[ScoredPoint]], wanted: int) -> list[ScoredPoint]:
    """The best chunk of each of the first `wanted` documents; fetches more chunks until there are enough."""
    limit = CANDIDATES  # in fixed steps, so that the pages of one query do not overlap
    while True:
        points = retrieve(limit)
        best: dict[str, ScoredPoint] = {}
        for point in points:
            best.setdefault(point.chunk.document_id, point)
        if len(best) >= wanted or len(points) < limit:
            return list(best.values())[:wanted]
        limit *= 4


Explainer = Callable[[ScoredPoint], Explanation]


def _explainer(
    index: OpenIndex, dense: Vectors | None, sparse: SparseVector | None, filter: Filter | None
) -> Explainer:
    def ranks(points: list[ScoredPoint]) -> dict[str, tuple[int, float]]:
        return {point.chunk.id: (rank, point.score) for rank, point in enumerate(points, start=1)}

    limit = 4 * CANDIDATES
    by_dense = ranks(index.store.search_dense(dense, limit=limit, filter=filter)) if dense is not None else {}
    by_words = ranks(index.store.search_lexical(sparse, limit=limit, filter=filter)) if sparse is not None else {}

    def explain(point: ScoredPoint) -> Explanation:
        return Explanation(*by_dense.get(point.chunk.id, (None, None)), *by_words.get(point.chunk.id, (None, None)))

    return explain


def _as_hits(points: list[ScoredPoint], offset: int, k: int, explain: Explainer | None) -> list[Hit]:
    return [
        Hit(rank, point.score, point.chunk, explain(point) if explain else None)
        for rank, point in enumerate(points[offset : offset + k], start=offset + 1)
    ]
