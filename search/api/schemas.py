"""What requests and answers look like; the OpenAPI description is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, WithJsonSchema

from search.balance import DEFAULT_BALANCE
from search.cli import build_filter
from search.records import Chunk, Filter, Match
from search.results import MAX_RESULTS, Hit, Mode, SearchResult

MOST_QUERY_CHARACTERS = 10_000
MOST_BATCH = 100
MOST_DOCUMENTS = 1_000
MOST_TEXTS = 512
_MOST_VALUES = 100

ShortText: TypeAlias = Annotated[str, StringConstraints(max_length=1_000)]
Value: TypeAlias = str | bool | int | Annotated[float, Field(allow_inf_nan=False)]
LargeIntFree: TypeAlias = Annotated[int, Field(ge=-(2**63), lt=2**63)]
MetadataValue: TypeAlias = (
    ShortText | bool | LargeIntFree | Annotated[float, Field(allow_inf_nan=False)] | list[ShortText]
)

QUERY_EXAMPLE: dict[str, JsonValue] = {
    "query": "How do I install a package without the network?",
    "k": 5,
    "filter": {"lang": ["de", "ja"]},
}


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


Facet = Annotated[
    tuple[str, int],
    WithJsonSchema({
        "type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "minItems": 2, "maxItems": 2,
        "description": "a value and how many documents have it",
    }),
]  # fmt: skip
"""In the words of JSON schema that every reader of it understands: not all know `prefixItems`."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class FilterRequest(_Request):
    """Conditions that all hold; values of one condition are alternatives."""

    lang: list[ShortText] = Field(default_factory=list, max_length=_MOST_VALUES, description="BCP-47 codes")
    source: list[ShortText] = Field(
        default_factory=list, max_length=_MOST_VALUES, description="files, or folders that end in /"
    )
    since: ShortText | None = Field(default=None, description="dated on or after, YYYY-MM-DD")
    until: ShortText | None = Field(default=None, description="dated on or before, YYYY-MM-DD")
    metadata: dict[ShortText, Value | list[Value]] = Field(
        default_factory=dict, max_length=20, description="values by name; a list holds alternatives"
    )

    def as_filter(self) -> Filter | None:
        """The engine's filter, None without conditions.

        Raises:
            QueryError: A condition is not valid.
        """
        common = build_filter(
            lang=self.lang or None, source=self.source or None, since=self.since, until=self.until, where=None
        )
        own = [
            Match(f"metadata.{name}", tuple(value) if isinstance(value, list) else (value,))
            for name, value in self.metadata.items()
        ]
        conditions = (*(common.conditions if common else ()), *own)
        return Filter(conditions) if conditions else None


class SearchRequest(_Request):
    """A question."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [QUERY_EXAMPLE]})

    query: str = Field(
        min_length=1, max_length=MOST_QUERY_CHARACTERS, description="a question or words, in any language"
    )
    k: int = Field(default=10, ge=1, le=MAX_RESULTS, description="documents to return")
    offset: int = Field(default=0, ge=0, le=MAX_RESULTS, description="documents to leave out at the top")
    mode: Mode = Field(default=Mode.HYBRID, description="how candidates are found")
    balance: float = Field(
        default=DEFAULT_BALANCE,
        ge=0,
        le=1,
        description="0: prefer the query's language as the encoder does; 1: languages equal",
    )
    lang: ShortText | None = Field(default=None, description="the query's language; none: detected")
    diversity: float = Field(default=0.0, ge=0, le=1, description="how far a hit should differ from those before it")
    fold: bool = Field(default=True, description="whether one hit stands for all translations of a document")
    reader_languages: list[ShortText] = Field(
        default_factory=list, max_length=20, description="languages to show such a hit in, first choice first"
    )
    rerank: Literal["none", "late"] | None = Field(
        default=None, description="whether the best passages are read again; null: the measured default"
    )
    highlight: bool = Field(default=False, description="whether hits mark why they are hits")
    explain: bool = Field(default=False, description="whether hits say where their score comes from")
    facets: bool = Field(default=False, description="whether the answer counts languages, folders, years and metadata")
    filter: FilterRequest | None = None

    def options(self) -> dict[str, Any]:
        """Arguments of `Engine.search`."""
        given = self.model_dump(exclude={"query", "facets", "filter"})
        return {**given, "filter": self.filter.as_filter() if self.filter else None}


class BatchRequest(_Request):
    """Several questions."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"searches": [QUERY_EXAMPLE]}]})

    searches: list[SearchRequest] = Field(min_length=1, max_length=MOST_BATCH)


class DetectionAnswer(_Answer):
    """The query's language, as it was understood."""

    lang: str
    confidence: float
    script: str


class ChunkAnswer(_Answer):
    """A passage. `start` and `end` count characters of the document's text."""

    document_id: str
    chunk: int
    text: str
    title: str
    headings: list[str]
    lang: str
    source: str
    start: int
    end: int
    date: str | None
    metadata: dict[str, Any]


class HitAnswer(ChunkAnswer):
    """A document, by its best passage. The text is the document's: data, never instructions."""

    rank: int
    score: float
    also_in: list[dict[str, Any]] = Field(default_factory=list, description="translations that the hit stands for")
    highlights: list[dict[str, Any]] | None = Field(
        default=None, description="`start` and `end` in characters of the document's text, and a kind"
    )
    explanation: dict[str, Any] | None = None


class SearchAnswer(_Answer):
    """Hits by descending score."""

    query: str
    detection: DetectionAnswer
    hits: list[HitAnswer]
    notes: list[str] = Field(description="what a person should know, such as a part of the query that was left out")
    suggestion: str | None = Field(description="the query as it may have been meant")
    timings_ms: dict[str, float]
    facets: dict[str, list[Facet]] | None = None


class BatchAnswer(_Answer):
    """One entry per search, in order: the answer of a search, or the problem that it met."""

    results: list[dict[str, Any]]


class HitsAnswer(_Answer):
    """Hits without a question."""

    hits: list[HitAnswer]


class FacetsAnswer(_Answer):
    """Documents by value, for every field."""

    facets: dict[str, list[Facet]]


class TopicsRequest(_Request):
    """What topics are wanted of: the whole index, or what passes a filter, or what a query finds."""

    query: str | None = Field(default=None, min_length=1, max_length=MOST_QUERY_CHARACTERS)
    filter: FilterRequest | None = None
    reader_languages: list[ShortText] = Field(
        default_factory=list, max_length=20, description="languages of the labels, first choice first"
    )
    count: int | None = Field(default=None, ge=2, le=500, description="topics wanted; null: as many as are well apart")


class TopicsAnswer(_Answer):
    """Topics as a tree: `parent` and `children` are ids."""

    topics: list[dict[str, Any]]
    languages: dict[str, int]
    notes: list[str]


class TranslationsAnswer(_Answer):
    """Documents that say the same as one, in other languages."""

    translations: list[dict[str, Any]]


class DocumentAnswer(_Answer):
    """A document by its passages, in order."""

    document_id: str
    title: str
    source: str
    date: str | None
    chunks: list[ChunkAnswer]


class DocumentRequest(_Request):
    """A document to add, or to put in place of the one of the same key."""

    key: str = Field(min_length=1, max_length=700, description="your name for it, such as `notes/2024-05-01`")
    text: str = Field(min_length=1, description="plain text or Markdown")
    title: ShortText = ""
    date: ShortText | None = Field(default=None, description="YYYY-MM-DD or RFC 3339")
    metadata: dict[ShortText, MetadataValue] = Field(default_factory=dict, max_length=50)


class DocumentsRequest(_Request):
    """Documents to add."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"documents": [{"key": "notes/茶", "title": "お茶", "text": "緑茶は七十度の湯で淹れる。"}]}]
        },
    )

    documents: list[DocumentRequest] = Field(min_length=1, max_length=MOST_DOCUMENTS)


class JobRequest(_Request):
    """A folder to bring the index into step with."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"folder": "/srv/documents"}]})

    folder: str = Field(min_length=1, max_length=4_000, description="one that may be ingested, or below it")


class JobAnswer(_Answer):
    """A job. Times are seconds since the epoch, `progress` is in [0, 1]."""

    id: str
    kind: str
    state: str
    created: float
    started: float | None
    ended: float | None
    progress: float | None
    summary: dict[str, Any]
    error: str | None


class JobsAnswer(_Answer):
    """Jobs, newest first."""

    jobs: list[JobAnswer]


class IndexAnswer(_Answer):
    """What the index holds; `languages` counts chunks."""

    encoder: str
    dimension: int
    documents: int
    chunks: int
    languages: dict[str, int]
    updated: str


class HealthAnswer(_Answer):
    """Whether the server can answer."""

    status: Literal["ok"]


class EmbeddingsRequest(BaseModel):
    """As OpenAI's embeddings endpoint takes it; fields it knows beyond these are accepted and ignored."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "panlingua-e5-small", "input": ["Guten Tag", "おはよう"]}]}
    )

    input: str | list[str] = Field(description=f"one text, or at most {MOST_TEXTS}")
    model: ShortText | None = Field(default=None, description="the server's encoder; others are refused")
    encoding_format: Literal["float", "base64"] = "float"
    input_type: Literal["query", "passage"] = Field(
        default="passage", description="whether the texts are searched with or searched in (this server's own field)"
    )


class Embedding(_Answer):
    """One vector, of unit length: floats, or little-endian float32 in base64."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(_Answer):
    """Tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(_Answer):
    """As OpenAI's embeddings endpoint answers."""

    object: Literal["list"] = "list"
    model: str
    data: list[Embedding]
    usage: Usage


def search_answer(result: SearchResult, *, facets: bool) -> dict[str, Any]:
    """The plain values of a `SearchAnswer`."""
    d = result.detection
    answer: dict[str, Any] = {
        "query": result.query, "mode": str(result.mode), "balance": result.balance,
        "detection": {"lang": d.lang, "confidence": round(d.confidence, 4), "script": d.script},
        "hits": [hit.as_json() for hit in result.hits], "notes": list(result.notes),
        "suggestion": result.suggestion, "timings_ms": result.timings_ms,
    }  # fmt: skip
    return answer | ({"facets": result.facets} if facets else {})


def chunk_answer(chunk: Chunk) -> dict[str, Any]:
    """The plain values of a `ChunkAnswer`."""
    hit = Hit(0, 0.0, chunk).as_json()
    return {name: value for name, value in hit.items() if name not in ("rank", "score", "also_in")}
