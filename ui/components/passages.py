"""Text of documents as HTML: right direction, right language, the parts that answer the query marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup

from search.records import Chunk
from search.text import truncate_graphemes
from ui.components.markup import tag
from ui.languages import direction_of

EXCERPT_CHARS = 380
_LEAD_CHARS = 110
_WORD_CHARS = 30
_EMPTY_LINES = re.compile(r"\s*\n\s*")


class Span(NamedTuple):
    """Characters [start, end) of a text to mark; `kind` is the mark's class: sentence, word or match."""

    start: int
    end: int
    kind: str


def marked(text: str, spans: Sequence[Span]) -> Markup:
    """`text` escaped, with its spans marked; a word within a marked sentence shows as the word."""
    edges = sorted({0, len(text), *(min(max(edge, 0), len(text)) for span in spans for edge in span[:2])})
    parts: list[str] = []
    for start, end in pairwise(edges):
        kinds = {span.kind for span in spans if span.start <= start and end <= span.end}
        kind = "sentence" if kinds == {"sentence"} else next(iter(sorted(kinds - {"sentence"})), None)
        parts.append(tag("mark", text[start:end], class_=kind) if kind else text[start:end])
    return Markup("").join(parts)


def excerpt(text: str, spans: Sequence[Span], *, after: int = 0, limit: int = EXCERPT_CHARS) -> Markup:
    """About `limit` characters of `text` around the first marked sentence, else from the beginning.

    Its first `after` characters, the title that stands above it already, are left out.
    """
    after = after if text[after:].strip() else 0
    focus = next((span.start for span in spans if span.kind == "sentence"), min((s.start for s in spans), default=0))
    start = _line_start(text, focus) if len(text) - after > limit else 0
    start = max(start, after)
    start += len(text[start:]) - len(text[start:].lstrip())
    lead = "… " if text[after:start].strip() else ""
    rest = text[start:].rstrip()
    shown = truncate_graphemes(rest, limit)
    if shown != rest:
        shown = shown[: _word_end(shown)].rstrip()
    within = [Span(max(span.start - start, 0), min(span.end - start, len(shown)), span.kind) for span in spans]
    written = marked(shown, [span for span in within if span.end > span.start])
    return Markup("{}{}{}").format(lead, _one_line_each(written), "" if shown == rest else " …")


def _word_end(shown: str) -> int:
    """Where to end a cut text: before the space nearest to its end, where there is one near."""
    found = max(shown.rfind(space) for space in " \t\n")
    return found if found > len(shown) - _WORD_CHARS else len(shown)


def _one_line_each(written: Markup) -> Markup:
    """Lines stay lines, without empty ones between them."""
    return Markup(_EMPTY_LINES.sub("\n", written))


def _line_start(text: str, focus: int) -> int:
    """Where to begin so that `focus` has something before it: after a sentence or a space, never within a grapheme."""
    earliest = max(focus - _LEAD_CHARS, 0)
    if earliest == 0:
        return 0
    for stops in ("\n。।.!?؟！？", " \t"):
        found = max(text.rfind(stop, earliest, focus) for stop in stops)
        if found >= 0:
            return found + 1
    return focus


def passage(chunk: Chunk, content: Markup, *, class_: str = "passage") -> Markup:
    """A paragraph in the language and direction of `chunk`."""
    return tag("p", content, class_=class_, lang=chunk.lang, dir=direction_of(chunk.lang, chunk.script))


def whole_text(chunks: Sequence[Chunk]) -> list[tuple[Chunk, str]]:
    """The text of a document from its chunks in order, what neighbours share given once."""
    parts, reached = [], 0
    for chunk in sorted(chunks, key=lambda item: item.number):
        fresh = chunk.text[max(reached - chunk.start, 0) :]
        if fresh.strip():
            parts.append((chunk, fresh))
        reached = max(reached, chunk.end)
    return parts
