"""Documents to chunks: cut at headings, at changes of language, and between sentences, under a limit of tokens.

Every step works on windows of bounded size, because the sentence splitters take quadratic time on hostile input
(measured: 6 s for 200,000 Chinese characters without punctuation, 4 s for as many quotation marks).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Protocol

import sentencex  # type: ignore[import-untyped]  # it ships no types
import tokenizers
from semantic_text_splitter import TextSplitter

from indexer.documents import Document, Heading
from search.errors import SettingsError
from search.language import LanguageSpan
from search.passages import PHRASE_SCRIPTS_NOT, passage_text
from search.records import Chunk
from search.text import grapheme_boundary, has_spaces_between_words

__all__ = ["ChunkOptions", "Detector", "chunk_document", "passage_text"]

WINDOW_CHARS = 200_000
_MIN_SECTION_TOKENS = 32
_MIN_TOKENS = 16
_SENTENCE_WINDOW_CHARS = 8_000  # sentencex: 22 MB/s, on quotation marks only 0.4 MB/s at this size
_WORD_WINDOW_CHARS = 2_000  # semantic-text-splitter: 5 to 14 MB/s at this size in scripts without spaces
_CHARS_PER_TOKEN = 4
_MAX_CHARS_PER_TOKEN = 16  # no chunk of 200,000 characters that the tokenizer drops
_TAIL = 1 / 3  # of a chunk, in which the end of a paragraph is a better end than the limit

_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_SPACES = re.compile(r"(?<=\s)(?=\S)")
_SEPARATORS = re.compile(r"[\s_.+~-]+")


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How to cut.

    Args:
        max_tokens: No chunk has more tokens of the encoder than this, special tokens not counted; 16 or more.
        overlap_tokens: Whole sentences of up to so many tokens are repeated at the start of the next chunk of a
            section; at most half of `max_tokens`, 0 for none.

    Raises:
        SettingsError: A value is out of range.
    """

    max_tokens: int = 256
    overlap_tokens: int = 32

    def __post_init__(self) -> None:
        if self.max_tokens < _MIN_TOKENS:
            raise SettingsError(f"max_tokens is {self.max_tokens}; give {_MIN_TOKENS} or more.")
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise SettingsError(
                f"overlap_tokens is {self.overlap_tokens}; give 0 to {self.max_tokens // 2}, half of max_tokens."
            )


class Detector(Protocol):
    """What chunking needs of a language detector."""

    def split(self, text: str) -> Sequence[LanguageSpan]:
        """Spans in order that cover `text`, each in one language."""


@dataclass(frozen=True, slots=True)
class _Atom:
    """What is never cut: a sentence or a part of a too long one, its characters [start, end) without outer spaces."""

    start: int
    end: int
    tokens: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """Atoms under one heading and in one language."""

    span: LanguageSpan
    atoms: list[_Atom]

    @property
    def tokens(self) -> int:
        return sum(atom.tokens for atom in self.atoms)


def chunk_document(
    document: Document, *, tokenizer: tokenizers.Tokenizer, detector: Detector, options: ChunkOptions
) -> Iterator[Chunk]:
    """Cut a document into chunks that each are in one language and under one heading.

    Sections of few tokens are joined with what follows in the same language. Every character that is no space is in
    some chunk; only a word that alone exceeds the limit is cut, and that between graphemes. Costs two passes of the
    tokenizer (about 1 MB a second and core), a window of 200,000 characters at a time.

    Args:
        document: The document; `Chunk.start` and `Chunk.end` are offsets into its text.
        tokenizer: The encoder's, without truncation.
        detector: Finds where the language changes.
        options: Limits.

    Yields:
        Chunks in the order of the document, numbered from 0.
    """
    title = _title(document)
    path = _HeadingPath(document.headings)
    number = 0
    for first, last in _windows(document.text, 0, len(document.text), WINDOW_CHARS):
        # The libraries refuse lone surrogates.
        window = _SURROGATE.sub("\ufffd", document.text[first:last])
        for start, end, span in _chunk_window(window, first, document.headings, tokenizer, detector, options):
            yield Chunk(
                document_id=document.id,
                number=number,
                text=document.text[first + start : first + end],
                title=title,
                headings=path.at(first + start),
                lang=span.lang,
                lang_confidence=span.confidence,
                script=span.script,
                source=document.source,
                start=first + start,
                end=first + end,
                date=document.date,
                metadata=document.metadata,
            )
            number += 1


def _title(document: Document) -> str:
    """The document's title, else its first heading, else the name of its file if that says something."""
    for title in (document.title, *(heading.text for heading in document.headings)):
        if title.strip():
            return " ".join(title.split())
    stem = _SEPARATORS.sub(" ", PurePosixPath(document.source).stem).strip()
    return stem if any(map(str.isalpha, stem)) else ""


class _HeadingPath:
    """The headings that enclose an offset; offsets are asked for in ascending order."""

    def __init__(self, headings: Sequence[Heading]) -> None:
        self._headings = headings
        self._next = 0
        self._open: list[Heading] = []

    def at(self, offset: int) -> tuple[str, ...]:
        while self._next < len(self._headings) and self._headings[self._next].offset <= offset:
            heading = self._headings[self._next]
            while self._open and self._open[-1].level >= heading.level:
                self._open.pop()
            self._open.append(heading)
            self._next += 1
        return tuple(heading.text for heading in self._open if heading.text)


def _windows(text: str, start: int, end: int, limit: int) -> Iterator[tuple[int, int]]:
    """Cover [start, end) by windows of at most 1.5 `limit`, cut at a paragraph, else line, sentence, word, grapheme."""
    while end - start > limit * 3 // 2:
        middle, latest = start + limit // 2, start + limit
        cut = text.rfind("\n\n", middle, latest) + 2
        if cut < middle:
            cut = text.rfind("\n", middle, latest) + 1
        if cut < middle:
            tail = max(middle, latest - _WORD_WINDOW_CHARS)
            cut = tail + _split_chars(_SURROGATE.sub("\ufffd", text[tail:latest]), (latest - tail) // 2)[-1][0]
        cut = grapheme_boundary(text, cut)
        yield start, cut
        start = cut
    if start < end:
        yield start, end


def _split_chars(text: str, capacity: int) -> list[tuple[int, int]]:
    """Cover a short text by parts of at most `capacity` characters, cut at the best places."""
    parts = TextSplitter(capacity, trim=False).chunk_indices(text)
    return [(start, start + len(part)) for start, part in parts]


def _chunk_window(
    window: str,
    offset: int,
    headings: Sequence[Heading],
    tokenizer: tokenizers.Tokenizer,
    detector: Detector,
    options: ChunkOptions,
) -> Iterator[tuple[int, int, LanguageSpan]]:
    """Chunks of a window that begins at `offset` of its document: offsets into the window, and the span they are in."""
    if not window.strip():
        return
    first = bisect_left(headings, offset, key=lambda heading: heading.offset)
    last = bisect_left(headings, offset + len(window), key=lambda heading: heading.offset)
    spans = _cut_spans(window, detector.split(window), [heading.offset - offset for heading in headings[first:last]])
    for piece in _join_small(_pieces(window, spans, tokenizer, options), min(_MIN_SECTION_TOKENS, options.max_tokens)):
        ranges = _pack(window, piece.atoms, options)
        for start, end in _fit(window, piece.atoms, ranges, tokenizer, options.max_tokens):
            yield start, end, piece.span


def _cut_spans(window: str, spans: Iterable[LanguageSpan], headings: Iterable[int]) -> list[LanguageSpan]:
    """The spans, cut at the headings too; all borders between graphemes."""
    borders = sorted({grapheme_boundary(window, border) for border in headings})
    cut: list[LanguageSpan] = []
    for span in spans:
        start, end = grapheme_boundary(window, span.start), grapheme_boundary(window, span.end)
        inner = borders[bisect_left(borders, start + 1) : bisect_left(borders, end)]
        cut += [
            LanguageSpan(first, last, span.lang, span.confidence, span.script)
            for first, last in pairwise([start, *inner, end])
            if first < last
        ]
    return cut


def _pieces(
    window: str, spans: list[LanguageSpan], tokenizer: tokenizers.Tokenizer, options: ChunkOptions
) -> list[_Piece]:
    """The sentences of every span, counted in one batch."""
    sentences = [_sentences(window, span, options) for span in spans]
    counts = iter(_count_tokens(window, [part for parts in sentences for part in parts], tokenizer))
    pieces = []
    for span, parts in zip(spans, sentences, strict=True):
        atoms = [
            atom
            for start, end in parts
            for atom in _divide(window, _Atom(start, end, next(counts)), tokenizer, options.max_tokens)
        ]
        if atoms:
            pieces.append(_Piece(span, atoms))
    return pieces


def _sentences(window: str, span: LanguageSpan, options: ChunkOptions) -> list[tuple[int, int]]:
    """Sentences of a span, or phrases between spaces where sentences have no mark; long ones already cut."""
    phrases = not has_spaces_between_words(span.script) and span.script not in PHRASE_SCRIPTS_NOT
    long = 2 * _CHARS_PER_TOKEN * options.max_tokens
    parts: list[tuple[int, int]] = []
    for start, end in _windows(window, span.start, span.end, _SENTENCE_WINDOW_CHARS):
        found = sentencex.get_sentence_boundaries(span.lang, window[start:end])
        borders = {start + int(boundary["start_index"]) for boundary in found} | {start, end}
        if phrases:
            borders |= {match.start() for match in _SPACES.finditer(window, start, end)}
        safe = sorted({grapheme_boundary(window, border) for border in borders})
        for first, last in pairwise(safe):
            short = last - first <= long
            parts += _trimmed(window, first, last) if short else _split_long(window, first, last, long // 2)
    return parts


def _trimmed(window: str, start: int, end: int) -> list[tuple[int, int]]:
    """[start, end) without outer spaces; nothing when nothing is left."""
    part = window[start:end]
    text = part.lstrip()
    start += len(part) - len(text)
    text = text.rstrip()
    return [(start, start + len(text))] if text else []


def _split_long(window: str, start: int, end: int, capacity: int) -> list[tuple[int, int]]:
    """Cut [start, end) at lines, sentences, words or graphemes into parts of at most `capacity` characters."""
    parts: list[tuple[int, int]] = []
    size = max(_WORD_WINDOW_CHARS, 3 * capacity)
    while start < end:
        found = _split_chars(window[start : min(end, start + size)], capacity)
        if start + size < end:
            found.pop()  # it may end inside a word; the next turn begins with it
        for first, last in found:
            parts += _trimmed(window, start + first, start + last)
        start += found[-1][1]
    return parts


def _divide(window: str, atom: _Atom, tokenizer: tokenizers.Tokenizer, max_tokens: int) -> list[_Atom]:
    """An atom, or what it must be cut into because it exceeds the limit."""
    length = atom.end - atom.start
    if atom.tokens <= max_tokens or length == 1:
        return [atom]
    capacity = max(1, min(length - 1, length * max_tokens * 9 // (atom.tokens * 10)))
    parts = _split_long(window, atom.start, atom.end, capacity)
    counts = _count_tokens(window, parts, tokenizer)
    return [
        divided
        for (start, end), tokens in zip(parts, counts, strict=True)
        for divided in _divide(window, _Atom(start, end, tokens), tokenizer, max_tokens)
    ]


def _count_tokens(window: str, parts: Sequence[tuple[int, int]], tokenizer: tokenizers.Tokenizer) -> list[int]:
    encodings = tokenizer.encode_batch_fast([window[start:end] for start, end in parts], add_special_tokens=False)
    return [len(encoding) for encoding in encodings]


def _join_small(pieces: Iterable[_Piece], least_tokens: int) -> list[_Piece]:
    """Join pieces of few tokens with the next one of their language, the last one with the one before it."""
    joined: list[_Piece] = []
    for piece in pieces:
        if joined and joined[-1].span.lang == piece.span.lang and joined[-1].tokens < least_tokens:
            joined[-1] = _Piece(joined[-1].span, joined[-1].atoms + piece.atoms)
        else:
            joined.append(piece)
    if len(joined) > 1 and joined[-1].tokens < least_tokens and joined[-1].span.lang == joined[-2].span.lang:
        last = joined.pop()
        joined[-1] = _Piece(joined[-1].span, joined[-1].atoms + last.atoms)
    return joined


def _pack(window: str, atoms: Sequence[_Atom], options: ChunkOptions) -> list[tuple[int, int]]:
    """Ranges of consecutive atoms, each under the limit as far as their token counts add up, with overlap."""
    max_chars = _MAX_CHARS_PER_TOKEN * options.max_tokens
    ranges: list[tuple[int, int]] = []
    left = sum(atom.tokens for atom in atoms)
    start = 0
    while True:
        # What needs two chunks is not cut into a full one and a crumb.
        limit = left * 3 // 5 if options.max_tokens < left <= options.max_tokens * 3 // 2 else options.max_tokens
        end, tokens = start + 1, atoms[start].tokens
        while end < len(atoms) and tokens + atoms[end].tokens <= limit:
            if atoms[end].end - atoms[start].start > max_chars:
                break
            tokens += atoms[end].tokens
            end += 1
        if end == len(atoms):
            return [*ranges, (start, end)]
        end = _paragraph_end(window, atoms, start, end, tokens)
        ranges.append((start, end))
        following = _overlap_start(atoms, start, end, options)
        left -= sum(atom.tokens for atom in atoms[start:following])
        start = following


def _paragraph_end(window: str, atoms: Sequence[_Atom], start: int, end: int, tokens: int) -> int:
    """The last end of a paragraph within the last third of the atoms [start, end), else `end`."""
    spare, last = tokens * _TAIL, end
    while last > start + 1 and spare >= 0:
        if _BLANK_LINE.search(window, atoms[last - 1].end, atoms[last].start):
            return last
        last -= 1
        spare -= atoms[last].tokens
    return end


def _overlap_start(atoms: Sequence[_Atom], start: int, end: int, options: ChunkOptions) -> int:
    """Where the chunk after the atoms [start, end) begins: as many of them again as the overlap holds."""
    room = min(options.overlap_tokens, options.max_tokens - atoms[end].tokens)
    following = end
    while following > start + 1 and atoms[following - 1].tokens <= room:
        following -= 1
        room -= atoms[following].tokens
    return following


def _fit(
    window: str,
    atoms: Sequence[_Atom],
    ranges: list[tuple[int, int]],
    tokenizer: tokenizers.Tokenizer,
    max_tokens: int,
) -> list[tuple[int, int]]:
    """Characters of each range of atoms, halved while it has too many tokens when tokenised as one text."""
    fitting: list[tuple[int, int]] = []
    while ranges:
        counts = _count_tokens(window, [(atoms[i].start, atoms[j - 1].end) for i, j in ranges if j - i > 1], tokenizer)
        counted = iter(counts)
        over = []
        for i, j in ranges:
            if j - i == 1 or next(counted) <= max_tokens:
                fitting.append((atoms[i].start, atoms[j - 1].end))
            else:
                over += [(i, (i + j) // 2), ((i + j) // 2, j)]
        ranges = over
    return sorted(fitting)
