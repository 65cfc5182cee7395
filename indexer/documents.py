"""What the sources yield: documents, and what was skipped and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from search.records import MetadataField


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading: `offset` in characters into the document's text, `level` from 1."""

    offset: int
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """A source file or one record of a table, as plain text.

    `id` is stable between runs: the file's path relative to the corpus root with `/` separators, and for a record
    `path#key`. `source` is that path without the key. `date` is RFC 3339 or None.
    """

    id: str
    text: str
    source: str
    title: str = ""
    headings: tuple[Heading, ...] = ()
    date: str | None = None
    metadata: Mapping[str, MetadataField] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file or record that was not read, with the reason to show; a `transient` one may be read the next time."""

    source: str
    reason: str
    transient: bool = False
