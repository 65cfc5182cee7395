"""Passages drawn for a terminal: the part worth reading, with what is marked in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import typer

from search.highlight import Highlight, HighlightKind
from search.records import Chunk
from search.text import grapheme_boundary, truncate_graphemes

_CONTROL = re.compile(r"[\s\x00-\x1f\x7f-\x9f]")


def draw_passage(chunk: Chunk, highlights: Sequence[Highlight] = (), *, width: int = 240) -> str:
    """At most `width` characters of a passage on one line, from the marked sentence on if there is one.

    The sentence is underlined; words in it that are near to the query's, and words shared with it, are bold. Offsets
    are those of the document; a passage without highlights comes without escape codes.
    """
    text = _CONTROL.sub(" ", chunk.text)
    start = next((h.start - chunk.start for h in highlights if h.kind is HighlightKind.SENTENCE), 0)
    if len(text) <= width:
        start = 0
    shown = truncate_graphemes(text[start:], width - (start > 0), ellipsis="…")
    lead = "…" if start > 0 else ""
    cut = len(shown) - 1 if shown.endswith("…") and not text[start:].startswith(shown) else len(shown)
    spans = [(max(0, h.start - chunk.start - start), min(cut, h.end - chunk.start - start), h.kind) for h in highlights]
    borders = sorted({0, cut, *(grapheme_boundary(shown, place) for a, b, _ in spans if a < b for place in (a, b))})
    parts = [lead]
    for first, last in pairwise(borders):
        kinds = {kind for a, b, kind in spans if a < last and first < b}
        parts.append(_styled(shown[first:last], kinds))
    return "".join(parts) + shown[cut:]


def _styled(text: str, kinds: set[HighlightKind]) -> str:
    if not kinds:
        return text
    return typer.style(text, bold=bool(kinds - {HighlightKind.SENTENCE}), underline=HighlightKind.SENTENCE in kinds)
