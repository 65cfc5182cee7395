"""Reranking: the best passages of a search read once more, against the query itself instead of two stored vectors.

`late` lets every token of the query look for its best partner among the tokens of a passage, with the encoder of the
index, or with one trained for it from a folder; a cross-encoder, of any maker, reads both texts together. All see the
language of a text as plain cosine does; so what a language gains or loses as a whole, against what the balanced first
stage says of the same passages, is taken off again. Measured in results/rerank.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from search.encoder.manifest import read_model_type
from search.errors import EncoderError, IndexFormatError, PanlinguaError, RerankerError
from search.passages import passage_text
from search.records import Chunk, ScoredPoint, Vectors
from search.token_store import StoredTokens, TokenStore, stored_passages

if TYPE_CHECKING:
    from search.encoder import Encoder
    from search.encoder.encoding import TokenVectors
    from search.opening import OpenIndex

logger = logging.getLogger(__name__)

NONE, LATE = "none", "late"
RERANKED = 50
"""Documents at the top that are read again, the same for every page, so that pages do not overlap."""
CACHE_BYTES = 256 * 2**20
LANGUAGE_SHRINKAGE = 8.0
"""Passages that a language needs among the candidates for half of its bias to be believed; of 1 to 16 the one that kept
the share of the query's language without losing precision (results/rerank.md)."""
DOCUMENT_WEIGHT = 0.4
"""Standard deviations of the reranker's scores that one of the documents' counts; measured in results/documents.md."""
RRF_K = 60
_NO_SPREAD = 1e-6
_QUERY_TOKENS = 128
_CROSS_BATCH = 16
_RETRY_S = 60.0


class Reranker(Protocol):
    """Says how well passages answer a query."""

    @property
    def name(self) -> str:
        """Name to ask for it by."""

    def score(self, query: str, chunks: Sequence[Chunk]) -> Vectors:
        """Scores (N,) float32 of the chunks, higher is better, comparable within one query."""


@dataclass(frozen=True, slots=True)
class Reranked:
    """Points in their new order, and rank (from 1) and score of each that was read again, by chunk id."""

    points: list[ScoredPoint]
    by_chunk: dict[str, tuple[int, float]]


def rerank(
    query: str,
    points: Sequence[ScoredPoint],
    reranker: Reranker,
    relevance: Vectors,
    *,
    documents: Vectors | None = None,
) -> Reranked:
    """Order the first points by the reranker and by their whole documents, without what it prefers in a language.

    Args:
        query: What is searched for.
        points: Hits of the first stage, best first, one per document.
        reranker: Reads the passages.
        relevance: What the balanced first stage says of the first N points (N,), higher is better; so many are read.
        documents: Scores of their whole documents (N,), NaN where one is not known; none: only passages count.

    Returns:
        All points, those that were not read in their order behind the others; scores are 1 / (60 + rank).

    Raises:
        RerankerError: The reranker failed.
    """
    read = list(points[: len(relevance)])
    raw = reranker.score(query, [point.chunk for point in read]) if read else np.zeros(0, np.float32)
    raw = raw if documents is None else add_documents(raw, documents)
    scores = remove_language_bias(raw, relevance, [point.chunk.lang for point in read])
    order = np.argsort(-scores, kind="stable")
    ordered = [*(read[place] for place in order), *points[len(read) :]]
    by_chunk = {read[place].chunk.id: (rank, float(scores[place])) for rank, place in enumerate(order, start=1)}
    return Reranked([ScoredPoint(p.chunk, 1.0 / (RRF_K + r)) for r, p in enumerate(ordered, start=1)], by_chunk)


def add_documents(scores: Vectors, documents: Vectors) -> Vectors:
    """Scores of passages with those of their documents, brought to the same spread, at DOCUMENT_WEIGHT.

    Worked: scores [1, 0] and documents [0.2, 0.4] give [1 - 0.4 * 0.5, 0 + 0.4 * 0.5] = [0.8, 0.2].

    Args:
        scores: Of the reranker (N,).
        documents: Of the documents (N,), NaN where one is not known, which changes nothing.
    """
    known = ~np.isnan(documents)
    if not known.any() or (spread := float(documents[known].std())) < _NO_SPREAD:
        return scores
    beside = np.where(known, documents - documents[known].mean(), 0.0)
    return np.asarray(scores + DOCUMENT_WEIGHT * scores.std() / spread * beside, np.float32)


def remove_language_bias(
    scores: Vectors, relevance: Vectors, languages: Sequence[str], *, shrinkage: float = LANGUAGE_SHRINKAGE
) -> Vectors:
    """Scores without what each language as a whole gains over its relevance.

    Fits score = a + b relevance + bias(language) by least squares, the biases held small by a ridge, and takes the
    biases off: a language stays where the first stage put it on average, whatever its passages are worth, and the
    order within a language is the reranker's.
    Worked: scores [1, 1, 0, 0], equal relevance, languages [de, de, fr, fr], shrinkage 2: biases +0.25 and -0.25, so
    [0.75, 0.75, 0.25, 0.25].

    Args:
        scores: Of the reranker (N,).
        relevance: Of the balanced first stage (N,).
        languages: Of the passages (N,).
        shrinkage: Pseudo-count of passages without bias.

    Returns:
        (N,) float32.
    """
    names = sorted(set(languages))
    if len(names) < 2:
        return scores
    place = {name: number for number, name in enumerate(names)}
    member = np.zeros((len(scores), len(names)))
    member[np.arange(len(scores)), [place[lang] for lang in languages]] = 1.0
    deviation = float(relevance.std()) or 1.0
    design = np.column_stack([np.ones(len(scores)), (relevance - relevance.mean()) / deviation, member])
    ridge = np.diag([1e-6, 1e-6, *[shrinkage] * len(names)])
    fitted = np.linalg.solve(design.T @ design + ridge, design.T @ scores.astype(np.float64))
    return np.asarray(scores - member @ fitted[2:], np.float32)


class TokenCache:
    """Vectors of tokens of passages read before, by their text; the least recently used go first. Threads share it.

    Kept in float16: a passage of 256 tokens and 384 dimensions takes 200 KB.
    """

    def __init__(self, encoder: Encoder, *, most_bytes: int = CACHE_BYTES) -> None:
        self.encoder = encoder
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, int | None], TokenVectors] = OrderedDict()
        self._lock = threading.Lock()

    def tokens_of(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[TokenVectors]:
        """The tokens of passages, in the order of `texts` and cut to `max_tokens`; `vectors` are float16.

        Raises:
            EncoderError: The encoder gives no vectors of tokens.
        """
        keys = [(text, max_tokens) for text in texts]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        missing = [key for key in dict.fromkeys(keys) if key not in found]
        if missing:
            made = self.encoder.encode_document_tokens([text for text, _ in missing], max_tokens=max_tokens)
            found.update(zip(missing, map(_halved, made), strict=True))
            with self._lock:
                for key in missing:
                    self._keep(key, found[key])
        return [found[key] for key in keys]

    def _keep(self, key: tuple[str, int | None], tokens: TokenVectors) -> None:
        if key not in self._kept:
            self._bytes += tokens.vectors.nbytes
            self._kept[key] = tokens
        while self._bytes > self._most_bytes and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.vectors.nbytes


def _as_float(vectors: Vectors) -> Vectors:
    return vectors.astype(np.float32)


def _halved(tokens: TokenVectors) -> TokenVectors:
    return type(tokens)(tokens.vectors.astype(np.float16), tokens.ids, tokens.spans)


class LateInteraction:
    """MaxSim over token vectors of the encoder that the index was built with, not trained for it.

    Vectors that the index holds are read, the others computed.

    score(q, d) = sum over tokens i of the query of w_i max over tokens j of the passage of cos(q_i, d_j), where
    w_i = log((N + 1) / (n_i + 1/2)) for a token that n_i of the N candidates hold, at least 0.1, and the w_i sum to 1.
    Prompt and special tokens take no part.

    Source: Khattab and Zaharia, 2020, "ColBERT", section 3.2; Louis et al., 2024, "ColBERT-XM".
    Differs: an encoder trained for pooling; tokens weigh by their rarity among the candidates.
    """

    name = LATE

    def __init__(self, cache: TokenCache, store: TokenStore | None = None) -> None:
        self._cache = cache
        self._store = store

    def score(self, query: str, chunks: Sequence[Chunk]) -> Vectors:
        """See Reranker."""
        texts = [passage_text(chunk) for chunk in chunks]
        try:
            asked = self._cache.encoder.encode_query_tokens([query], max_tokens=_QUERY_TOKENS)[0]
            stored = stored_passages(self._store, texts)
            unread = [text for text in texts if text not in stored]
            made = dict(zip(unread, self._cache.tokens_of(unread), strict=True))
        except EncoderError as error:
            raise RerankerError(f"no late interaction: {error}") from error
        if not len(asked.ids):
            return np.zeros(len(chunks), np.float32)
        projection = self._store.projection if stored and self._store is not None else None
        project = projection.apply if projection is not None else _as_float
        passages = [stored.get(text) or StoredTokens(project(made[text].vectors), made[text].ids) for text in texts]
        weights = rarity_weights(asked.ids, [passage.ids for passage in passages])
        query_vectors = project(asked.vectors)
        return np.asarray(best_similarities(query_vectors, [p.vectors for p in passages]) @ weights, np.float32)


def best_similarities(query: Vectors, passages: Sequence[Vectors]) -> Vectors:
    """The highest dot product of each of the query's tokens (L, D) with a token of each passage: (N, L) float32.

    Worked: query [[1, 0]] and passages [[0.6, 0.8], [0, 1]] and [[1, 0]] gives [[0.6], [1]]. A passage without tokens
    gives zeros.
    """
    best = np.zeros((len(passages), len(query)), np.float32)
    filled = [row for row, passage in enumerate(passages) if len(passage)]
    if filled and len(query):
        lengths = [len(passages[row]) for row in filled]
        tokens = np.concatenate([passages[row] for row in filled]).astype(np.float32)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        best[filled] = np.maximum.reduceat(tokens @ query.T, starts, axis=0)
    return best


def rarity_weights(query_ids: npt.NDArray[np.int64], passages_ids: Sequence[npt.NDArray[np.int64]]) -> Vectors:
    """Weights (L,) float32 of the query's tokens, summing to 1: the rarer among the passages, the higher."""
    holding = np.zeros(len(query_ids))
    for ids in passages_ids:
        holding += np.isin(query_ids, ids)
    weights = np.maximum(np.log((len(passages_ids) + 1) / (holding + 0.5)), 0.1)
    return np.asarray(weights / weights.sum(), np.float32)


class CrossEncoderReranker:
    """A sentence-transformers CrossEncoder that gives one score for a pair of texts."""

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model

    def score(self, query: str, chunks: Sequence[Chunk]) -> Vectors:
        """See Reranker. Costs one pass of the network over each pair; passages are cut at the model's limit."""
        from torch.nn import Identity

        pairs = [(query, passage_text(chunk)) for chunk in chunks]
        try:  # logits: a sigmoid would press the best scores together
            raw = self._model.predict(pairs, batch_size=_CROSS_BATCH, activation_fn=Identity(), show_progress_bar=False)
        except Exception as error:  # whatever torch and the tokenizer raise
            raise RerankerError(f"the reranker {self.name!r} failed ({type(error).__name__}: {error})") from error
        scores = np.asarray(raw, np.float32)
        if scores.shape != (len(chunks),) or not np.isfinite(scores).all():
            raise RerankerError(
                f"the reranker {self.name!r} gives values of shape {scores.shape}, some perhaps not finite, "
                f"where one number for each of {len(chunks)} passages is needed; choose a model for ranking"
            )
        return scores


class MultiVectorReranker:
    """Late interaction with a sentence-transformers MultiVectorEncoder, trained for it: every query token weighs alike.

    score(q, d) = mean over tokens i of the query of max over tokens j of the passage of cos(q_i, d_j), as the model's
    own prompts and mask have them.

    Source: Khattab and Zaharia, 2020, "ColBERT", section 3.2. Differs: the mean in place of the sum.
    """

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model

    def score(self, query: str, chunks: Sequence[Chunk]) -> Vectors:
        """See Reranker. Costs one pass of the network over each passage, cut at the model's limit; none is kept."""
        shared: dict[str, Any] = {"convert_to_numpy": True, "show_progress_bar": False}
        try:
            asked = self._model.encode_query([query], **shared)[0]
            passages = [passage_text(chunk) for chunk in chunks]
            read = self._model.encode_document(passages, batch_size=_CROSS_BATCH, **shared)
        except Exception as error:  # whatever torch and the tokenizer raise
            raise RerankerError(f"the reranker {self.name!r} failed ({type(error).__name__}: {error})") from error
        if not len(asked):
            return np.zeros(len(chunks), np.float32)
        return np.asarray(best_similarities(asked, read).mean(axis=1), np.float32)


def load_reranker(name_or_path: str) -> Reranker:
    """Load a CrossEncoder by folder or hub id, or a MultiVectorEncoder by its folder.

    Raises:
        RerankerError: As `load_cross_encoder`.
    """
    folder = Path(name_or_path).expanduser()
    if read_model_type(folder) != "MultiVectorEncoder":
        return load_cross_encoder(name_or_path)
    from search.encoder.backends import quiet_transformers

    try:
        from sentence_transformers import MultiVectorEncoder

        with quiet_transformers():
            model = MultiVectorEncoder(str(folder), local_files_only=True, model_kwargs={"dtype": "float32"})
    except Exception as error:  # the libraries below raise anything from KeyError to SafetensorError
        raise _not_loaded(name_or_path, error) from error
    return MultiVectorReranker(name_or_path, model)


def _not_loaded(name: str, error: Exception) -> RerankerError:
    reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return RerankerError(f"the reranker {name!r} cannot be loaded ({reason})")


def load_cross_encoder(name_or_path: str) -> CrossEncoderReranker:
    """Load a CrossEncoder from a folder, or from the hub if it is not cached yet; never runs code that it brings.

    Raises:
        RerankerError: It cannot be found or loaded, or was never trained to score pairs.
    """
    from search.encoder.backends import quiet_transformers
    from search.encoder.loading import HUB_ID

    path = Path(name_or_path).expanduser()
    if not path.is_dir() and not HUB_ID.fullmatch(name_or_path):
        raise RerankerError(
            f"no reranker {name_or_path!r}: give {NONE!r}, {LATE!r}, the folder of a CrossEncoder or a "
            "MultiVectorEncoder, or a CrossEncoder's hub id (owner/name)"
        )
    try:
        from sentence_transformers import CrossEncoder

        with quiet_transformers():
            local = path.is_dir() or _is_cached(name_or_path)
            source = str(path) if path.is_dir() else name_or_path
            model = CrossEncoder(source, local_files_only=local, trust_remote_code=False)
    except Exception as error:  # network, hub and loading errors share no base
        raise _not_loaded(name_or_path, error) from error
    _require_scoring_head(name_or_path, model)
    return CrossEncoderReranker(name_or_path, model)


def _is_cached(hub_id: str) -> bool:
    """Whether the hub's files are here; where they are not, whether the hub answers is found out within seconds."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    from search.encoder.loading import HUB_TIMEOUT_SECONDS

    try:
        return (Path(snapshot_download(hub_id, local_files_only=True)) / "config.json").is_file()
    except LocalEntryNotFoundError:
        HfApi().model_info(hub_id, timeout=HUB_TIMEOUT_SECONDS)
        return False


def _require_scoring_head(name: str, model: Any) -> None:
    """Refuse a model whose last layer is made up on loading, or that gives several classes."""
    built = getattr(getattr(model[0], "model", None), "config", None)
    has_head = len(model) > 1 and getattr(model[-1], "module_output_name", None) == "scores"  # as `training` makes them
    if not has_head and not any("For" in kind for kind in getattr(built, "architectures", None) or []):
        raise RerankerError(f"{name!r} is an encoder, never trained to score pairs; choose a CrossEncoder")
    if int(model.num_labels) != 1:
        raise RerankerError(f"{name!r} gives {model.num_labels} classes for a pair; choose a CrossEncoder for ranking")


def read_again(
    query: str,
    points: Sequence[ScoredPoint],
    load: Callable[[], Reranker],
    *,
    index: OpenIndex,
    dense: Vectors,
) -> tuple[Reranked, tuple[str, ...]]:
    """The points reranked; or, where the reranker fails, as they were with a note that says why.

    `dense` (D,) is the balanced query vector, of which each passage's relevance is taken.
    """
    try:
        reranker = load()
        ids = [point.chunk.id for point in points[:RERANKED]]
        stored = {point.chunk.id: point.dense for point in index.store.retrieve(ids, with_vectors=True)}
        # What a server's index held a moment ago may be replaced by now.
        there = [point for point in points[:RERANKED] if point.chunk.id in stored]
        relevance = np.array([stored[point.chunk.id] @ dense for point in there], np.float32)
        gone = [point for point in points[:RERANKED] if point.chunk.id not in stored]
        documents = index.families.score_documents([point.chunk.document_id for point in there], dense)
        return rerank(query, [*there, *points[RERANKED:], *gone], reranker, relevance, documents=documents), ()
    except (RerankerError, IndexFormatError) as error:
        return Reranked(list(points), {}), (f"not reranked: {error}",)


def default_reranker(index: OpenIndex) -> str:
    """What a search uses that names none: late interaction where the index holds token vectors, else none.

    It finds more in every set; but 50 passages that have to be encoded take a second on two cores, and stored ones a
    fraction of the 250 ms that a search may take (results/rerank.md).
    """
    try:
        return LATE if index.tokens is not None and index.tokens.is_complete else NONE
    except IndexFormatError as error:
        logger.warning("searching without token vectors: %s", error)
        return NONE


class Rerankers:
    """The rerankers of one engine, each loaded on first use; one that failed is tried again after a minute."""

    def __init__(self) -> None:
        self._loaded: dict[str, Reranker] = {}
        self._failed: dict[str, tuple[float, str]] = {}
        self._cache: TokenCache | None = None
        self._lock = threading.Lock()

    def token_cache(self, encoder: Encoder) -> TokenCache:
        """The one cache of token vectors, shared with highlighting."""
        with self._lock:
            if self._cache is None or self._cache.encoder is not encoder:
                self._cache = TokenCache(encoder)
            return self._cache

    def get(self, name: str, encoder: Callable[[], Encoder], store: TokenStore | None = None) -> Reranker:
        """The reranker of that name; `store` holds the index's token vectors.

        Raises:
            RerankerError: It cannot be loaded.
        """
        if name == LATE:
            return LateInteraction(self.token_cache(encoder()), store)
        with self._lock:
            if name not in self._loaded:
                failed_at, message = self._failed.get(name, (-_RETRY_S, ""))
                if time.monotonic() - failed_at < _RETRY_S:
                    raise RerankerError(message)
                try:
                    self._loaded[name] = load_reranker(name)
                except PanlinguaError as error:
                    self._failed[name] = (time.monotonic(), str(error))
                    raise
            return self._loaded[name]
