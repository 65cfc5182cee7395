"""Manual pages, as mandoc renders them to HTML, to plain text in any script."""

from __future__ import annotations

import html.parser
import re
from collections.abc import Iterable, Mapping, Sequence

_DESCRIPTION = re.compile(r"^(?P<names>\S.*?)\s+[-‐–—―−]+\s+(?P<description>\S.*)$")
_CJK = "\u2e80-\u9fff\uf900-\ufaff\uff00-\uff60\U00020000-\U0003ffff"
_CJK_GAP = re.compile(f"(?<=[{_CJK}]) (?=[{_CJK}])")

Block = tuple[str, str]
"""Kind (h1, h2, p, dt, dd, pre, line) and text."""


class _Blocks(html.parser.HTMLParser):
    """Reads mandoc's HTML into blocks of text."""

    _BREAKS = frozenset(
        (
            "section",
            "h1",
            "h2",
            "h3",
            "p",
            "div",
            "dl",
            "dt",
            "dd",
            "ul",
            "ol",
            "li",
            "table",
            "tr",
            "pre",
            "br",
            "math",
        )
    )
    _KINDS: Mapping[str, str] = {"h1": "h1", "h2": "h2", "h3": "h2", "dt": "dt", "dd": "dd", "br": "line", "tr": "line"}

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[Block] = []
        self._text: list[str] = []
        self._kind = "p"
        self._in_pre = self._in_margin = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._BREAKS:
            self._flush(self._KINDS.get(tag, "p" if tag != "div" else self._kind))
        if tag == "td":
            self._text.append(" ")
        self._in_pre |= tag == "pre"
        self._in_margin |= tag == "table" and dict(attrs).get("class") in {"head", "foot"}

    def handle_endtag(self, tag: str) -> None:
        if tag in self._BREAKS:
            self._flush("p")
        self._in_pre &= tag != "pre"
        self._in_margin &= tag != "table"

    def handle_data(self, data: str) -> None:
        if not self._in_margin:
            self._text.append(data)

    def _flush(self, next_kind: str) -> None:
        raw = "".join(self._text)
        text = clean_lines(raw) if self._in_pre else clean_line(raw)
        if text:
            self.blocks.append(("pre" if self._in_pre else self._kind, text))
        self._text.clear()
        if text or next_kind != "p":
            self._kind = next_kind


def clean_line(text: str) -> str:
    """One line with single spaces, and none where the source broke a line between Chinese or Japanese characters."""
    return _CJK_GAP.sub("", " ".join(text.replace("\u200b", "").replace("\u00ad", "").split()))


def clean_lines(text: str) -> str:
    """Preformatted lines without trailing space and without empty lines around them."""
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def parse_blocks(markup: str) -> list[Block]:
    """Blocks of a page in mandoc's HTML, without its header and footer."""
    parser = _Blocks()
    parser.feed(markup)
    parser.close()
    return parser.blocks


def split_description(blocks: Sequence[Block]) -> tuple[str | None, list[Block]]:
    """The description of a page's first section (NAME), and the blocks without that section.

    Without a description that can be told from the names, None and all blocks.
    """
    heads = [number for number, (kind, _) in enumerate(blocks) if kind == "h1"]
    end = heads[1] if len(heads) > 1 else len(blocks)
    body = [text for kind, text in blocks[heads[0] + 1 : end] if kind != "h1"] if heads else []
    matches = [_DESCRIPTION.match(text) for text in body]
    if not matches or not matches[0]:
        return None, list(blocks)
    description = matches[0]["description"].rstrip(" .。") if len(body) == 1 else None
    return description, [*blocks[: heads[0]], *blocks[end:]]


def join_blocks(title: str, blocks: Iterable[Block]) -> str:
    """Plain text: an empty line between blocks, none between a term and its explanation."""
    lines, before = [title], ""
    for kind, text in blocks:
        close = kind in {"dd", "line"} or (kind == "dt" and before == "dt")
        lines.append(text if close else f"\n{text}")
        before = kind
    return "\n".join(lines) + "\n"
