"""What a search answers with."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from search.facets import Facets
from search.highlight import Highlight
from search.interpretation import Interpretation
from search.language import Detection
from search.records import Chunk

MAX_RESULTS = 1_000


class Mode(StrEnum):
    """How candidates are found."""

    HYBRID = "hybrid"
    DENSE = "dense"
    LEXICAL = "lexical"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a hit's score comes from: rank (from 1) and score in each list, None where the list does not hold it.

    The dense score is the passage's together with its document's (`search.retrieval`), the reranker's the one it
    ordered by, without what its language as a whole gained.
    """

    dense_rank: int | None
    dense_score: float | None
    lexical_rank: int | None
    lexical_score: float | None
    rerank_rank: int | None = None
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One document, by its best passage. `rank` counts from 1; `score` is higher-is-better within one search.

    With translations folded, it stands for all of them: `also_in` holds the passage of each other one, and score and
    explanation are those of whichever passage was ranked best.
    """

    rank: int
    score: float
    chunk: Chunk
    explanation: Explanation | None = None
    also_in: tuple[Chunk, ...] = ()
    highlights: tuple[Highlight, ...] = ()

    @property
    def document_id(self) -> str:
        """Id of the document."""
        return self.chunk.document_id

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json` and the API."""
        c = self.chunk
        record: dict[str, Any] = {
            "rank": self.rank, "score": round(self.score, 6), "document_id": c.document_id, "chunk": c.number,
            "title": c.title, "headings": list(c.headings), "text": c.text, "lang": c.lang,
            "lang_confidence": round(c.lang_confidence, 4), "script": c.script, "source": c.source,
            "start": c.start, "end": c.end, "date": c.date, "metadata": dict(c.metadata),
        }  # fmt: skip
        record["also_in"] = [
            {"document_id": other.document_id, "chunk": other.number, "lang": other.lang, "title": other.title}
            for other in self.also_in
        ]
        if self.highlights:
            record["highlights"] = [{"start": h.start, "end": h.end, "kind": str(h.kind)} for h in self.highlights]
        if self.explanation is not None:
            e = self.explanation
            record["explanation"] = {name: getattr(e, name) for name in Explanation.__slots__}
        return record


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits of one query, with what was understood of it. `timings_ms` holds encode, retrieve, rerank, highlight, total.

    Attributes:
        interpretation: The words that were searched for, and the conditions of the query's syntax.
        notes: What a person should know, such as a part of the query that was left out.
        facets: Documents per language, folder, year and metadata value, of all that were found and not only the hits.
        suggestion: The query as it may have been meant, where the index does not know its words but similar ones.
    """

    query: str
    mode: Mode
    balance: float
    detection: Detection
    hits: list[Hit]
    timings_ms: dict[str, float] = field(default_factory=dict)
    interpretation: Interpretation = field(default_factory=lambda: Interpretation(""))
    notes: tuple[str, ...] = ()
    facets: Facets = field(default_factory=dict)
    suggestion: str | None = None
