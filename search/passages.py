"""What of a chunk is encoded, and the sentences it is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from search.records import UNDETERMINED, Chunk
from search.text import grapheme_boundary, has_spaces_between_words, truncate_graphemes

PREFIX_CHARS = 200
PHRASE_SCRIPTS_NOT = ("Hani", "Jpan", "Hira", "Kana", "Bopo", "Yiii")
"""Scripts without spaces between words that end sentences by a full stop; the others put a space between phrases."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_MARKUP = re.compile(r"^[\s#=*_~>\-]+|[\s#=*_~]+$")
_SPACES = re.compile(r"(?<=\s)(?=\S)")


def passage_prefix(chunk: Chunk) -> str:
    """Title and headings, one a line, cut to 200 characters, without what the text begins with anyway; may be empty."""
    seen = {_comparable(chunk.text.split("\n", 1)[0]), ""}
    prefix = []
    for line in (chunk.title, *chunk.headings):
        line = " ".join(line.split())
        if _comparable(line) not in seen:
            seen.add(_comparable(line))
            prefix.append(line)
    lines = truncate_graphemes("\n".join(prefix), PREFIX_CHARS).strip()
    return _SURROGATE.sub("\ufffd", f"{lines}\n") if lines else ""


def passage_text(chunk: Chunk) -> str:
    """What is encoded and indexed: the prefix, then the text."""
    return passage_prefix(chunk) + _SURROGATE.sub("\ufffd", chunk.text)


def iter_sentences(text: str, *, lang: str = UNDETERMINED, script: str = "Zyyy") -> Iterator[tuple[int, int]]:
    """Sentences of a passage, or its phrases where the script marks no sentences: [start, end) without outer spaces.

    For passages: the time is quadratic in hostile input (10 ms for 4,000 quotation marks). Never cuts a grapheme.
    """
    import sentencex  # type: ignore[import-untyped]  # it ships no types

    clean = _SURROGATE.sub("\ufffd", text)
    borders = {int(found["start_index"]) for found in sentencex.get_sentence_boundaries(lang, clean)} | {0, len(text)}
    borders |= {place + 1 for place, character in enumerate(text) if character == "\n"}
    if not has_spaces_between_words(script) and script not in PHRASE_SCRIPTS_NOT:
        borders |= {match.start() for match in _SPACES.finditer(text)}
    for start, end in pairwise(sorted({grapheme_boundary(text, border) for border in borders})):
        part = text[start:end]
        if part.strip():
            first = start + len(part) - len(part.lstrip())
            yield first, first + len(part.strip())


def _comparable(line: str) -> str:
    return " ".join(_MARKUP.sub("", line).casefold().split())
