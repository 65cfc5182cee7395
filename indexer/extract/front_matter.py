"""The block of YAML that a Markdown or HTML file may begin with."""

from __future__ import annotations

import re

import yaml  # type: ignore[import-untyped]  # it ships no types

from indexer.extract.metadata import metadata_field
from search.records import MetadataField

_MOST_CHARS = 64 * 1024
_MOST_LINE_CHARS = 1000
_BLOCK = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_PLAIN_LINE = re.compile(r"([\w.-]{1,40}):(?:[ \t]+(.*?))?[ \t]*|[ \t]*(?:#.*)?")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_FRACTION = re.compile(r"[-+]?[0-9]{1,18}\.[0-9]{1,18}")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None, "~": None, "": None}


def front_matter(text: str) -> tuple[dict[str, MetadataField], str]:
    """The fields of a front matter, keys in lower case, and the text after it.

    A field is a text, a number, a truth value or a list of texts; what is nested deeper is left out. A block that is
    no front matter stays in the text.

    Source: YAML 1.2, section 10.3 (core schema).
    Differs: `safe_load` follows YAML 1.1, which takes the language `no` for a truth value and 12:30 for a number.
    """
    match = _BLOCK.match(text[:_MOST_CHARS])
    fields = _parse(match[1]) if match else None
    if match is None or fields is None:
        return {}, text
    return fields, text[match.end() :]


def take_title(fields: dict[str, MetadataField], otherwise: str) -> str:
    """The title among the fields, which is no metadata then."""
    title = fields.pop("title", "")
    return otherwise if isinstance(title, tuple) else " ".join(str(title).split()) or otherwise


def _parse(block: str) -> dict[str, MetadataField] | None:
    try:
        root = yaml.compose(block, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return _parse_lines(block)
    if root is None:
        return {}
    if not isinstance(root, yaml.MappingNode):
        return None
    fields: dict[str, MetadataField] = {}
    for key, node in root.value:
        value = metadata_field(_value(node))
        if isinstance(key, yaml.ScalarNode) and key.value.strip() and value is not None:
            fields[" ".join(key.value.lower().split())] = value
    return fields


def _parse_lines(block: str) -> dict[str, MetadataField] | None:
    """What people write and YAML refuses, such as a colon within a title: lines of a key and a value, nothing else."""
    fields: dict[str, MetadataField] = {}
    for line in block.split("\n"):
        match = _PLAIN_LINE.fullmatch(line) if len(line) <= _MOST_LINE_CHARS else None
        if match is None:
            return None
        value = metadata_field(_scalar((match[2] or "").strip("\"'"))) if match[1] else None
        if value is not None:
            fields[match[1].lower()] = value
    return fields


def _value(node: yaml.Node) -> object:
    if isinstance(node, yaml.SequenceNode):
        return [item.value if isinstance(item, yaml.ScalarNode) else None for item in node.value]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node.value) if node.style is None else str(node.value).strip()
    return None


def _scalar(text: str) -> str | int | float | bool | None:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else text
