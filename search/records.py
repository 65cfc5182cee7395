"""The records that flow from the indexer into a store and out again as hits."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Vectors: TypeAlias = npt.NDArray[np.float32]
MetadataValue: TypeAlias = str | int | float | bool
MetadataField: TypeAlias = MetadataValue | tuple[str, ...]
"""What a document can carry; a condition on a list holds when one of its texts fulfils it."""

POINT_NAMESPACE = uuid.UUID("6f0f3f5e-2b0a-5a7e-9d7c-70616e6c6e67")
UNDETERMINED = "und"


@dataclass(frozen=True, slots=True)
class Chunk:
    """The indexed unit: a passage of one document, in one language.

    `start` and `end` are offsets in characters into the document's extracted text; `text` is that slice.
    `lang` is BCP-47 (`und` when undetermined), `script` ISO 15924, `date` RFC 3339 or None.
    """

    document_id: str
    number: int
    text: str
    title: str = ""
    headings: tuple[str, ...] = ()
    lang: str = UNDETERMINED
    lang_confidence: float = 0.0
    script: str = "Zyyy"
    source: str = ""
    start: int = 0
    end: int = 0
    date: str | None = None
    metadata: Mapping[str, MetadataField] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Deterministic point id: the same document and chunk number always give the same UUID."""
        return point_id(self.document_id, self.number)

    @property
    def is_named_by_file(self) -> bool:
        """Whether the title is the name of the file, for want of one in the text."""
        title, stem = ("".join(filter(str.isalnum, text)) for text in (self.title, PurePosixPath(self.source).stem))
        return title == stem and self.title not in self.headings


@lru_cache(maxsize=16_384)  # a search asks for the ids of its candidates several times: a fifth of its time
def point_id(document_id: str, number: int) -> str:
    """UUID of a chunk, from its document id and number."""
    return str(uuid.uuid5(POINT_NAMESPACE, f"{number}\0{document_id}".encode("utf-8", "surrogatepass").hex()))


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A sparse vector: unique ascending uint32 `indices` (M,), and their float32 `values` (M,)."""

    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Point:
    """A chunk with its vectors: `dense` (D,) float32 and a lexical `sparse` vector."""

    chunk: Chunk
    dense: Vectors
    sparse: SparseVector


@dataclass(frozen=True, slots=True)
class ScoredPoint:
    """A retrieved chunk. `score` is higher-is-better; `dense` is filled only when vectors were asked for."""

    chunk: Chunk
    score: float
    dense: Vectors | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Condition: the field equals one of `values` (with `negate`, none of them)."""

    key: str
    values: tuple[MetadataValue, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Range:
    """Condition: the field lies within the closed range; a bound of None is open. Dates are RFC 3339 strings."""

    key: str
    gte: float | str | None = None
    lte: float | str | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """All conditions must hold.

    Keys: `lang`, `script`, `source`, `folders`, `date`, `document_id`, `metadata.NAME`, and `id` of a chunk.
    """

    conditions: tuple[Match | Range, ...] = ()
