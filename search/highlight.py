"""Why a passage is a hit, shown in the passage itself, whatever its language.

The sentence nearest to the query in the encoder's space, the words in it that stand nearest to words of the query, and
the words that query and passage share letter by letter. Offsets count characters of the document's text; nothing that
a reader sees as one character is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import regex

from search.balance import LanguageMap
from search.errors import EncoderError
from search.lexical import Token, iter_tokens
from search.passages import iter_sentences
from search.records import Chunk, Vectors
from search.rerank import TokenCache
from search.text import has_spaces_between_words, script_of, whole_graphemes

if TYPE_CHECKING:
    from search.encoder.encoding import TokenVectors

MOST_WORDS = 3
"""Words marked by meaning in a passage."""
LEAST_CONTRAST = 2.0
"""Standard deviations by which a token must be nearer to a query's token than the sentence's tokens are on average."""
_QUERY_TOKENS = 128
_SENTENCE_TOKENS = 128
_SHORT_WORD = 4
_BELOW = 10.0
"""More than any two cosines differ by."""

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}\u200c\u200d]+(?:['’][\p{L}\p{M}]+)*")

_READABLE = regex.compile(r"[\p{L}\p{N}\p{So}\p{Sc}]")

_Span = tuple[int, int]


class HighlightKind(StrEnum):
    """What a highlight shows."""

    SENTENCE = "sentence"
    WORD = "word"
    MATCH = "match"


@dataclass(frozen=True, slots=True, order=True)
class Highlight:
    """Characters [start, end) of the document's text, and why they are marked."""

    start: int
    end: int
    kind: HighlightKind


def mark_passages(
    query: str, chunks: Sequence[Chunk], cache: Callable[[], TokenCache], language_map: LanguageMap
) -> tuple[list[tuple[Highlight, ...]], tuple[str, ...]]:
    """Highlights of each chunk, and a note where the encoder could only leave shared words to be marked."""
    try:
        return Highlighter(query, cache(), language_map).mark(chunks), ()
    except EncoderError as error:
        marked = Highlighter(query, None, language_map).mark(chunks)
        return marked, (f"only words that passage and query share are marked: {error}",)


class Highlighter:
    """Marks the passages of one query.

    Args:
        query: What is searched for, without conditions.
        cache: Gives vectors of tokens; None marks shared words only.
        language_map: Of the index, so that sentence and query are compared by meaning and not by language.
    """

    def __init__(self, query: str, cache: TokenCache | None, language_map: LanguageMap) -> None:
        self._query = query
        self._cache = cache
        self._map = language_map
        self._terms = shared_terms(query)

    def mark(self, chunks: Sequence[Chunk]) -> list[tuple[Highlight, ...]]:
        """Highlights of each chunk by ascending start; one pass of the encoder over all their sentences.

        Raises:
            EncoderError: The encoder gives no vectors of tokens.
        """
        nearest = self._nearest(chunks) if self._cache is not None else [[] for _ in chunks]
        return [
            tuple(sorted({Highlight(chunk.start + start, chunk.start + end, kind) for start, end, kind in found}))
            for chunk, by_meaning in zip(chunks, nearest, strict=True)
            for found in [
                [*by_meaning, *((s, e, HighlightKind.MATCH) for s, e in shared_words(self._terms, chunk.text))]
            ]
        ]

    def _nearest(self, chunks: Sequence[Chunk]) -> list[list[tuple[int, int, HighlightKind]]]:
        """In each chunk's text, the nearest sentence and the nearest words in it."""
        assert self._cache is not None
        encoder = self._cache.encoder
        asked = with_letters(encoder.encode_query_tokens([self._query], max_tokens=_QUERY_TOKENS)[0], self._query)
        pooled = encoder.encode_queries([self._query])
        query = self._map.map_queries(pooled, balance=1.0)[0]
        spans = [list(iter_sentences(chunk.text, lang=chunk.lang, script=chunk.script)) for chunk in chunks]
        texts = [chunk.text[start:end] for chunk, found in zip(chunks, spans, strict=True) for start, end in found]
        names = [_is_name(chunk, span) for chunk, found in zip(chunks, spans, strict=True) for span in found]
        read = self._cache.tokens_of(texts, max_tokens=_SENTENCE_TOKENS)
        vectors = _means(read) if encoder.ends_in_pooling or not texts else encoder.encode_documents(texts)
        scores = self._map.map_documents(vectors) @ query if texts else np.zeros(0, np.float32)
        scores = np.where([len(tokens.ids) > 0 for tokens in read], scores, -np.inf)
        scores = np.where(names, scores - _BELOW, scores)  # a name is marked only where nothing else can be
        marked, first = [], 0
        for chunk, sentences in zip(chunks, spans, strict=True):
            own = slice(first, first + len(sentences))
            first = own.stop
            marked.append(_mark_nearest(chunk.text, sentences, read[own], scores[own], asked) if sentences else [])
        return marked


def _is_name(chunk: Chunk, span: _Span) -> bool:
    """Whether a sentence is the title or a heading of its text, which says what it is about and answers nothing."""
    return chunk.text[slice(*span)].strip("#* \r\n") in (chunk.title, *chunk.headings)


def _mark_nearest(
    text: str, sentences: Sequence[_Span], tokens: Sequence[TokenVectors], scores: Vectors, asked: TokenVectors
) -> list[tuple[int, int, HighlightKind]]:
    """The sentence of the highest language-neutral cosine, and the words in it nearest to tokens of the query."""
    best = int(scores.argmax())
    start, end = sentences[best]
    spans = nearest_spans(asked, with_letters(tokens[best], text[start:end]))
    words = [whole_word(text, start + first, start + last) for first, last in spans]
    return [(start, end, HighlightKind.SENTENCE), *((s, e, HighlightKind.WORD) for s, e in dict.fromkeys(words))]


def _means(sentences: Sequence[TokenVectors]) -> Vectors:
    """Means over the tokens of each sentence (N, D), at unit length; 0 without tokens.

    Sentences are encoded one by one: means over the tokens of a whole passage, where every token knows the others,
    pointed to the right sentence in 88 % of 107 cases against 100 % (results/rerank.md).
    """
    size = sentences[0].vectors.shape[1]
    none = np.zeros(size, np.float32)
    means = np.stack([t.vectors.astype(np.float32).mean(axis=0) if len(t.ids) else none for t in sentences])
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12), np.float32)


def with_letters(tokens: TokenVectors, text: str) -> TokenVectors:
    """The tokens that stand for a letter, digit or symbol of `text`, not for punctuation only."""
    kept = [row for row, (start, end) in enumerate(tokens.spans) if _READABLE.search(text, int(start), int(end))]
    return type(tokens)(tokens.vectors[kept], tokens.ids[kept], tokens.spans[kept])


def nearest_spans(query: TokenVectors, sentence: TokenVectors, *, most: int = MOST_WORDS) -> list[_Span]:
    """Spans of the sentence's tokens that best answer a token of the query, best first.

    A pair counts by how far its similarity stands out from those of the same query token to the whole sentence, in
    standard deviations; a function word is like everything and stands out from nothing.
    """
    if len(sentence.ids) < 2 or not len(query.ids):
        return []
    similar = query.vectors @ sentence.vectors.astype(np.float32).T
    contrast = (similar - similar.mean(axis=1, keepdims=True)) / np.maximum(similar.std(axis=1, keepdims=True), 1e-6)
    standing = contrast.max(axis=1)
    order = np.argsort(-standing, kind="stable")[:most]
    chosen = [int(contrast[row].argmax()) for row in order if standing[row] >= LEAST_CONTRAST]
    return [(int(sentence.spans[place][0]), int(sentence.spans[place][1])) for place in dict.fromkeys(chosen)]


def whole_word(text: str, start: int, end: int) -> _Span:
    """The word around [start, end) where words have spaces between them, else the span without cut graphemes."""
    if all(has_spaces_between_words(script_of(character)) for character in text[start:end]):
        first = max(0, start - 64)
        for match in _WORD.finditer(text, first, min(len(text), end + 64)):
            if match.start() < end and match.end() > start:
                if all(has_spaces_between_words(script_of(character)) for character in match[0]):
                    start, end = min(start, match.start()), max(end, match.end())
                break
    return whole_graphemes(text, start, end)


def shared_terms(query: str) -> frozenset[str]:
    """The lexical terms of a query that are worth marking.

    Words of fewer than four letters count when they are numbers, in capitals or all there is; single characters of a
    script without spaces when they are not part of a longer run.
    """
    tokens = list(iter_tokens(query))
    kept = [token for token in tokens if not _is_small(query, token, tokens)]
    return frozenset(token.text for token in kept or tokens)


def _is_small(query: str, token: Token, tokens: Sequence[Token]) -> bool:
    written = query[token.start : token.end]
    if token.text.endswith("*"):
        return len(token.text) <= _SHORT_WORD + 1  # the shorter of a word's two prefixes
    if has_spaces_between_words(script_of(written[0])):
        return len(written) < _SHORT_WORD and not written.isupper() and not any(map(str.isdigit, written))
    return any(t.start <= token.start and token.end <= t.end and t.end - t.start > len(written) for t in tokens)


def shared_words(terms: frozenset[str], text: str) -> Iterator[_Span]:
    """Spans of `text` that hold one of the terms, merged where they touch in a script without spaces."""
    start = end = -1
    for token in iter_tokens(text):
        if token.text not in terms:
            continue
        first, last = whole_graphemes(text, token.start, token.end)
        if first < end or (first == end and not has_spaces_between_words(script_of(text[first]))):
            end = max(end, last)
            continue
        if end > start:
            yield start, end
        start, end = first, last
    if end > start:
        yield start, end
