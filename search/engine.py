"""The engine: one question in, ranked passages in every language out. Command line, API, UI and evaluation call this.

query -> detect language -> encode -> balance -> retrieve dense + lexical -> fuse fairly -> best passage per document
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.balance import DEFAULT_BALANCE
from search.diversity import POOL, diversify, document_vector
from search.document_map import MAP, DocumentMap, load_map
from search.errors import EncoderError, EncoderMismatchError, IndexFormatError, QueryError
from search.facets import Facets, count_chunks, count_index
from search.fold import (
    SURE_LANGUAGE,
    Families,
    FamiliesFile,
    Folded,
    Gap,
    Shown,
    Translation,
    fold_families,
    list_gaps,
    list_translations,
    show,
)
from search.highlight import mark_passages
from search.interpretation import Interpretation, documents_holding, interpret
from search.language import COMMON_LANGUAGES, Detection, LanguageDetector, canonical_language, check_languages
from search.lexical import LEXICAL_VERSION, query_vector
from search.listing import as_points, document_chunks, list_documents
from search.manifest import IndexManifest
from search.opening import OpenIndex, load_own_encoder, open_index
from search.records import UNDETERMINED, Chunk, Filter, Match, ScoredPoint, SparseVector, Vectors
from search.rerank import NONE, RERANKED, Reranked, Rerankers, default_reranker, read_again
from search.results import MAX_RESULTS, Hit, Mode, SearchResult
from search.retrieval import Explainer, Lists, best_per_document, explainer, retrieve
from search.settings import Settings, load_settings
from search.text import NO_SCRIPT
from search.topics import Topics
from search.topics.part import topics_of_filter, topics_of_query
from search.words import IndexWords

if TYPE_CHECKING:
    from search.encoder import Encoder


@dataclass(frozen=True, slots=True)
class _Question:
    """A query as the store is asked it."""

    detection: Detection
    dense: Vectors | None
    sparse: SparseVector | None
    rewritten: str = ""


class Engine:
    """Searches one index with the encoder that built it; safe to share between threads.

    Open it once and keep it: the encoder is loaded with the first query that needs it, and a newer generation of the
    index is picked up by the next query after its ingest has finished.

    Args:
        settings: Where the index and the encoder are.
        encoder: An encoder already loaded; None loads the one that the settings name, and where they name none the one
            that the index was built with, also after it was built anew with another.
        load: Loads that one; with it, an `encoder` that is given is only the first.
    """

    def __init__(
        self,
        settings: Settings,
        encoder: Encoder | None = None,
        *,
        load: Callable[[Settings, IndexManifest], Encoder] | None = None,
    ) -> None:
        self.settings = settings
        is_fixed = "encoder" in settings.model_fields_set or (encoder is not None and load is None)
        self._load_encoder = load or load_own_encoder
        self._follows_index = not is_fixed
        self._encoders = [encoder] if encoder is not None else []
        self._lock = threading.RLock()
        self._rerankers = Rerankers()
        self._loading = threading.Lock()
        self._index: OpenIndex | None = None
        self._close_index: Callable[[], object] = lambda: None
        self._detector = LanguageDetector()
        self._words: IndexWords | None = None
        self._counted: tuple[Callable[[], OpenIndex | None], Facets] = (lambda: None, {})

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

    def encoder(self, index: OpenIndex | None = None) -> Encoder:
        """The encoder, loaded on first use and checked against an index: by default its newest state.

        Raises:
            EncoderMismatchError: The index was built with another one.
        """
        with self._loading:  # not the index's lock: what needs no encoder is answered while it loads
            manifest = (index or self.index()).manifest
            held = {encoder.fingerprint: encoder for encoder in self._encoders}
            fitting = held.get(manifest.encoder_fingerprint)
            if fitting is None and (self._follows_index or not self._encoders):
                fitting = self._load_encoder(self.settings, manifest)
                # The one before stays for searches that still read the index as it was before it was built anew.
                self._encoders = [fitting, *self._encoders[:1]]
            fitting = fitting or self._encoders[0]
            check_encoder(manifest, fitting)
            return fitting

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
        lang: str | None = None,
        diversity: float = 0.0,
        fold: bool = True,
        reader_languages: Sequence[str] = (),
        rerank: str | None = None,
        highlight: bool = False,
    ) -> SearchResult:
        """Find the documents that answer `query`, whatever their language.

        Args:
            query: A question or keywords in any language, with the syntax of `search.query_syntax`; by meaning only
                the first 512 tokens count. Conditions alone list the documents that fulfil them, newest first.
            k: Documents to return, 1 to 1000.
            offset: Documents to leave out at the top, for further pages.
            mode: hybrid, dense or lexical.
            balance: 0 (the encoder's preference for the query's language) to 1 (languages equal); None: the default.
            filter: Conditions on language, source, date or metadata.
            explain: Whether hits say where their score comes from.
            lang: The query's language; None: detected.
            diversity: 0 to 1: how far a hit should differ from those before it.
            fold: Whether one hit stands for all translations of a document that were found at ingest.
            reader_languages: In which language such a hit is shown, first choice first; none: that of the query.
            rerank: Reads the best 50 documents' passages again: "late", the folder or hub id of a CrossEncoder, or the
                folder of a MultiVectorEncoder; or "none". None: late where the index holds token vectors. One that
                fails is left out, and `notes` say so.
            highlight: Whether hits mark why they are hits.

        Returns:
            Hits by descending score, ties by ascending chunk id, one per document or family of translations.

        Raises:
            QueryError: An argument is out of range, the query holds nothing to search for, or the filter names a
                language that there is not.
        """
        started = time.perf_counter()
        chosen, weight = _check(query, k, offset, mode, balance, diversity)
        index = self.index()
        check_languages([*_languages_of(filter), *([lang] if lang else [])], among=index.languages)
        asked = interpret(query, index, filter)
        if not asked.text:
            return _listing(index, query, asked, chosen, weight, offset, k, started)
        question = self._ask(asked, index, chosen, weight, lang)
        detection, dense, sparse, filter = question.detection, question.dense, question.sparse, asked.filter
        encoded = time.perf_counter()
        languages = dict(detection.probabilities)
        families = index.families if fold else FamiliesFile(None)
        rejected = partial(documents_holding, index.store, asked.without)
        reader, wanted, lists = rerank or default_reranker(index), offset + k, Lists()
        points = best_per_document(
            lambda limit: retrieve(index, dense, sparse, languages, limit, filter, lists),
            max(wanted, RERANKED if reader != NONE else 0, POOL if diversity else 0), rejected, families,
        )  # fmt: skip
        retrieved = time.perf_counter()
        reranked, unread = self._rerank(reader, asked.text, question, index, points, weight)
        points, reading = reranked.points, time.perf_counter() - retrieved
        facets = count_chunks(point.chunk for point in points)
        page = _folded(index, points, families, diversity)[offset : offset + k]
        readers = _readers(reader_languages, detection)
        shown = show(page, families, index.store, readers=readers, filter=filter, rejected=rejected)
        explain_point = explainer(lists, reranked) if explain else None
        hits, found = _as_hits(shown, offset, explain_point), time.perf_counter()
        suggestion = None if question.rewritten else self._index_words(index).suggest(query, asked.text, detection)
        timings = {"encode": encoded - started, "retrieve": found - encoded - reading, "rerank": reading,
                   "highlight": 0.0, "total": time.perf_counter() - started}  # fmt: skip
        rounded = {name: round(seconds * 1000, 3) for name, seconds in timings.items()}
        asked = _with_rewriting(asked, question.rewritten)
        notes = (*asked.notes, *unread)
        result = SearchResult(query, chosen, weight, detection, hits, rounded, asked, notes, facets, suggestion)
        return self.highlight(result) if highlight else result

    def highlight(self, result: SearchResult, first: int = 0, last: int | None = None) -> SearchResult:
        """The result with why its hits are hits marked, those from place `first` up to `last`; its times add up.

        Reading passages takes longer than finding them: who shows hits as they come marks the topmost first.
        """
        started, some, index = time.perf_counter(), slice(first, last), self.index()
        chunks = [hit.chunk for hit in result.hits[some]]
        if not chunks or not result.interpretation.text:
            return result
        marked, unmarked = mark_passages(
            result.interpretation.text, chunks, lambda: self._rerankers.token_cache(self.encoder(index)),
            index.language_map,
        )  # fmt: skip
        hits = list(result.hits)
        hits[some] = [replace(hit, highlights=found) for hit, found in zip(hits[some], marked, strict=True)]
        taken = (time.perf_counter() - started) * 1000
        timings = {
            name: round(ms + taken, 3) if name in ("highlight", "total") else ms
            for name, ms in result.timings_ms.items()
        }
        notes = tuple(dict.fromkeys((*result.notes, *unmarked)))
        return replace(result, hits=hits, timings_ms=timings, notes=notes)

    def _rerank(
        self, name: str, text: str, question: _Question, index: OpenIndex, points: list[ScoredPoint], balance: float
    ) -> tuple[Reranked, tuple[str, ...]]:
        """The points read again by the reranker of that name, and a note if it failed."""
        if name == NONE or not points:
            return Reranked(points, {}), ()
        dense = question.dense
        if dense is None:
            try:
                dense = index.language_map.map_queries(self.encoder(index).encode_queries([text]), balance=balance)[0]
            except EncoderError as error:  # words are found without one
                return Reranked(points, {}), (f"not reranked: {error}",)
        load = partial(self._rerankers.get, name, partial(self.encoder, index), index.tokens)
        return read_again(question.rewritten or text, points, load, index=index, dense=dense)

    def similar(self, document_id: str, *, k: int = 10) -> list[Hit]:
        """Documents about the same as one, in any language, by their passage nearest to the mean of its passages.

        Raises:
            QueryError: There is no such document, or k is out of range.
        """
        _check_page(k, 0)
        index = self.index()
        vector, others = document_vector(index, document_id), Filter((Match("document_id", (document_id,), True),))
        points = best_per_document(lambda limit: index.store.search_dense(vector, limit=limit, filter=others), k)
        return _as_hits([Shown(point.chunk, point) for point in points[:k]], 0, None)

    def facets(self, filter: Filter | None = None) -> Facets:
        """How many documents have which `lang`, `folder`, `year` and `metadata.NAME`, in the index or of a filter."""
        index = self.index()
        check_languages(_languages_of(filter), among=index.languages)
        if filter is not None:
            return count_index(index.store, filter)
        counted_of, counts = self._counted
        if counted_of() is not index:
            counts = count_index(index.store)
            self._counted = (weakref.ref(index), counts)
        return counts

    def document(self, document_id: str) -> list[Chunk]:
        """The passages of a document, in order.

        Raises:
            QueryError: There is no such document.
        """
        return document_chunks(self.index().store, document_id)

    def _ask(self, asked: Interpretation, index: OpenIndex, mode: Mode, balance: float, lang: str | None) -> _Question:
        """Encode the words of a query: as typed and, where that was in another script than its language's, in that."""
        words, spoken = self._index_words(index), self._detector.detect_query(asked.text)
        rewritten = words.transliterate(asked.text, spoken) or ""
        among = COMMON_LANGUAGES.union(index.languages)
        detection = self._detector.detect_query(rewritten or asked.text, among=among, likelier=index.languages)
        if lang:
            detection = Detection(lang, 1.0, detection.script, ((lang, 1.0),))
        dense, texts = None, [asked.text, rewritten] if rewritten else [asked.text]
        if mode is not Mode.LEXICAL:
            vectors = self.encoder(index).encode_queries(texts).mean(axis=0, keepdims=True)
            vectors /= np.linalg.norm(vectors)
            dense = index.language_map.map_queries(vectors, balance=balance)[0]
        sparse = query_vector("\n".join(texts)) if mode is not Mode.DENSE else None
        return _Question(detection, dense, sparse, rewritten)

    def _index_words(self, index: OpenIndex) -> IndexWords:
        """The words of the index, for spelling and other scripts."""
        with self._lock:
            if self._words is None or self._words.index is not index:
                self._words = IndexWords(index, self.settings, lambda: self.encoder(index).tokenizer)
            return self._words

    def translations(self, document_id: str) -> list[Translation]:
        """The documents that say the same as this one in other languages, by language.

        Raises:
            QueryError: The index does not hold the document.
        """
        index = self.index()
        return list_translations(index.families, index.store, document_id)

    def gaps(self, languages: Sequence[str] = ()) -> list[Gap]:
        """Documents that lack one of `languages`, by default of those that any translated document exists in.

        Raises:
            QueryError: A language is none.
        """
        index = self.index()
        check_languages([lang.partition("-")[0] for lang in languages], among=index.languages)
        return list_gaps(index.families, languages)

    def topics(
        self,
        *,
        filter: Filter | None = None,
        query: str | None = None,
        reader_languages: Sequence[str] = (),
        count: int | None = None,
    ) -> Topics:
        """What the index, the part of it that passes a filter, or what a query finds is about, whatever the languages.

        Args:
            filter: Conditions on language, source, date or metadata.
            query: A question or words, with the syntax of a search; the 500 passages nearest to it are looked at.
            reader_languages: Whose labels come first; none: the query's language, else that of most chunks of a topic.
            count: Topics wanted, 2 to 500; None: as many as are well apart.

        Raises:
            QueryError: Nothing passes the filter, there are too few chunks, or an argument is out of range.
        """
        index = self.index()
        check_languages(_languages_of(filter), among=index.languages)
        asked = interpret(query, index, filter) if query is not None else None
        if asked is None or not asked.text:
            chosen = asked.filter if asked else filter
            return topics_of_filter(index, chosen, count=count).for_reader(reader_languages)
        question = self._ask(asked, index, Mode.DENSE, DEFAULT_BALANCE, None)
        assert question.dense is not None
        found = topics_of_query(index, asked, question.dense, count=count)
        return found.for_reader(_readers(reader_languages, question.detection))

    def map(self) -> DocumentMap:
        """The chunks of the index in the plane, with their topics, as `indexer map` placed them.

        Raises:
            IndexNotFoundError: No map was made yet; the message names the command.
            IndexFormatError: It is damaged or of another version.
        """
        index = self.index()
        return load_map((index.folder or Path()) / MAP, index.manifest)

    def load(self) -> None:
        """Load now what the first query would otherwise wait for: index, encoder, language models, words."""
        self.index()
        self.encoder()
        self.search("an unheardofword? 何の話？", k=1)  # one that no index holds is looked up in all its words

    def close(self) -> None:
        """Release the index."""
        with self._lock:
            self._close_index()
            self._index = self._words = None


def check_encoder(manifest: IndexManifest, encoder: Encoder) -> None:
    """Raise EncoderMismatchError unless the index was built with this encoder."""
    if manifest.encoder_fingerprint != encoder.fingerprint:
        raise EncoderMismatchError(
            f"the index was built with the encoder {manifest.encoder} ({manifest.encoder_fingerprint}), not with "
            f"{encoder.address} ({encoder.fingerprint}). Use `--encoder {manifest.encoder}`, or build the index again "
            f"with `indexer ingest FOLDER --fresh --encoder {encoder.address}`."
        )


def _check_words(index: OpenIndex) -> None:
    if index.manifest.lexical_version != LEXICAL_VERSION:
        index.close()
        raise IndexFormatError(
            "the index is of another version of this program, which cut words by other rules "
            f"({index.manifest.lexical_version}, now {LEXICAL_VERSION}). Run `indexer ingest` on any of its folders to "
            "bring it up to date; nothing has to be encoded again."
        )


def _check(
    query: str, k: int, offset: int, mode: Mode | str, balance: float | None, diversity: float
) -> tuple[Mode, float]:
    if not query.strip():
        raise QueryError("the query is empty; type a question or some words")
    _check_page(k, offset)
    weight = DEFAULT_BALANCE if balance is None else balance
    for name, value in (("balance", weight), ("diversity", diversity)):
        if not 0.0 <= value <= 1.0:
            raise QueryError(f"{name} must be between 0 and 1, got {value}")
    try:
        return Mode(mode), weight
    except ValueError as error:
        raise QueryError(f"unknown mode {str(mode)!r}; choose one of {', '.join(Mode)}") from error


def _with_rewriting(asked: Interpretation, rewritten: str) -> Interpretation:
    if not rewritten:
        return asked
    note = f"no language in Latin letters was recognised; also searched for {rewritten!r}"
    return replace(asked, rewritten=rewritten, notes=(*asked.notes, note))


def _check_page(k: int, offset: int) -> None:
    if not 1 <= k <= MAX_RESULTS or not 0 <= offset <= MAX_RESULTS:
        raise QueryError(f"k must be 1 to {MAX_RESULTS} and offset 0 to {MAX_RESULTS}, got k={k}, offset={offset}")


def _listing(
    index: OpenIndex, query: str, asked: Interpretation, mode: Mode, balance: float, offset: int, k: int, started: float
) -> SearchResult:
    """The answer to a query without words: what its conditions let pass, newest first."""
    notes, documents = asked.notes, list[tuple[str, int]]()
    if asked.conditions:
        documents = list_documents(index.store, asked.filter, asked.without)
    else:
        notes = (*notes, "the query holds no word, number or symbol to search for")
    points = as_points(index.store, documents[offset : offset + k], offset)
    hits = [Hit(rank, point.score, point.chunk) for rank, point in enumerate(points, start=offset + 1)]
    facets = count_index(index.store, asked.filter) if documents and not asked.without else {}
    took = round((time.perf_counter() - started) * 1000, 3)
    detection = Detection(UNDETERMINED, 0.0, NO_SCRIPT)
    timings = {"encode": 0.0, "retrieve": took, "total": took}
    return SearchResult(query, mode, balance, detection, hits, timings, asked, notes, facets)


def _languages_of(filter: Filter | None) -> list[str]:
    conditions = filter.conditions if filter else ()
    return [str(value) for c in conditions if isinstance(c, Match) and c.key == "lang" for value in c.values]


def _folded(index: OpenIndex, points: Sequence[ScoredPoint], families: Families, diversity: float) -> list[Folded]:
    """Families in the order of their best passages, with the wanted diversity."""
    folded = fold_families(points, families.of(point.chunk.document_id for point in points))
    others = {item.best.chunk.id: item.others for item in folded}
    ordered = diversify(index, [item.best for item in folded], diversity)
    return [Folded(point, others[point.chunk.id]) for point in ordered]


def _readers(languages: Sequence[str], detection: Detection) -> tuple[str, ...]:
    """The languages that the reader is taken to prefer."""
    own = (detection.lang,) if detection.confidence >= SURE_LANGUAGE else ()
    return tuple(map(canonical_language, languages)) or own


def _as_hits(shown: Sequence[Shown], offset: int, explain: Explainer | None) -> list[Hit]:
    return [
        Hit(rank, item.best.score, item.chunk, explain(item.best) if explain else None, item.also_in)
        for rank, item in enumerate(shown, start=offset + 1)
    ]
