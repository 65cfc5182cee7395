"""Markdown to text: the marks go, the words and the offsets of the headings stay."""

from __future__ import annotations

import html
import re

from indexer.documents import Heading

_ATX = re.compile(r"^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-+)[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")
_RULE = re.compile(r"^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_TABLE_RULE = re.compile(r"^(?=[^|\n]*\||[ \t]*:-|[ \t]*-+:)[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?$")
_QUOTE = re.compile(r"^(?: {0,3}> ?)+")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]\n]{1,200}\]:[ \t]+\S+.*$")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_MARK_LINE_CHARS = 1000  # a longer line is neither heading nor rule, and would cost quadratic time to find out
_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9-]{0,20}(?:\s[^<>\n]{0,500})?/?>")
_IMAGE = re.compile(r"!\[([^\[\]\n]{0,1000})\](?:\([^()\n]{0,2000}\)|\[[^\[\]\n]{0,200}\])")
_LINK = re.compile(
    r"\[([^\[\]\n]{1,1000})\](?:\([^()\n]{0,2000}(?:\([^()\n]{0,500}\)[^()\n]{0,500})?\)|\[[^\[\]\n]{0,200}\])"
)
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^<>\s]{1,2000})>")
_CODE = re.compile(r"(?<!`)(`{1,3})(?!`)([^`\n]{1,2000})\1(?!`)")
_EMPHASIS = (
    re.compile(r"(?<![\\*])(\*{1,3})(?=[^\s*])([^*\n]{1,2000}?)(?<=[^\s*\\])\1(?!\*)"),
    re.compile(r"(?<![\w\\])(_{1,3})(?=[^\s_])([^_\n]{1,2000}?)(?<=[^\s_\\])\1(?!\w)"),
    re.compile(r"(?<!~)(~~)(?=\S)([^~\n]{1,2000}?)(?<=\S)~~(?!~)"),
)
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|<>~])")


def strip_markdown(text: str, *, inline: bool = True) -> tuple[str, tuple[Heading, ...]]:
    """Text without Markdown's marks, and its headings; `inline=False` leaves what is inside a line as it is."""
    lines: list[str] = []
    headings: list[Heading] = []
    length, fence = 0, ""

    def put(line: str) -> None:
        nonlocal length
        if line or (lines and lines[-1]):
            lines.append(line)
            length += len(line) + 1

    for line in _without_comments(text).split("\n"):
        mark = _FENCE.match(line)
        short = line.rstrip() if len(line) <= _MARK_LINE_CHARS else ""
        if mark and (not fence or (line.strip().startswith(fence) and not line.strip(" \t" + fence[0]))):
            fence = "" if fence else mark[1]
            continue
        if fence:
            put(line.rstrip())
        elif heading := _ATX.match(short):
            title = _inline(heading[2] or "", inline).strip()
            if title:
                headings.append(Heading(length, len(heading[1]), title))
                put(title)
        elif (
            (rule := _SETEXT.match(short))
            and inline
            and lines
            and lines[-1]
            and _may_be_heading(headings, length, lines[-1])
        ):
            headings.append(Heading(length - len(lines[-1]) - 1, 1 if rule[1][0] == "=" else 2, lines[-1]))
        elif _RULE.match(short) or _TABLE_RULE.match(short) or _REFERENCE.match(line):
            put("")
        else:
            put(_inline(_row(line), inline).rstrip())
    return "\n".join(lines).rstrip("\n"), tuple(headings)


def _without_comments(text: str) -> str:
    kept, position = [], 0
    while (start := text.find("<!--", position)) >= 0 and (end := text.find("-->", start)) >= 0:
        kept.append(text[position:start])
        position = end + 3
    return "".join((*kept, text[position:])) if kept else text


def _may_be_heading(headings: list[Heading], length: int, line: str) -> bool:
    start = length - len(line) - 1
    return len(line) <= 200 and not (headings and headings[-1].offset >= start)


def _row(line: str) -> str:
    """A table row as its cells, a quotation without its marks."""
    line = _QUOTE.sub("", line)
    stripped = line.strip()
    if len(stripped) > 1 and stripped.startswith("|") and stripped.endswith("|"):
        cells = (cell.strip().replace("\\|", "|") for cell in _CELL_BORDER.split(stripped[1:-1]))
        return "; ".join(cell for cell in cells if cell)
    return line


def _inline(line: str, wanted: bool) -> str:
    if not wanted or not line:
        return line
    line = _LINK.sub(r"\1", _IMAGE.sub(r"\1", _AUTOLINK.sub(r"\1", line)))
    line = _TAG.sub("", line)
    for pattern in _EMPHASIS:
        line = pattern.sub(r"\2", line)
    line = _ESCAPE.sub(r"\1", _CODE.sub(r"\2", line))
    return html.unescape(line) if "&" in line else line
