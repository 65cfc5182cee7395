"""What a query asks of this index: the words to search for, and the conditions that its syntax sets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from search.errors import QueryError
from search.language import canonical_language, supported_languages
from search.lexical import iter_words, term_index, tokenize
from search.opening import OpenIndex
from search.query_syntax import FIELD_NAMES, Kind, Part, dates_of, parse_query
from search.records import UNDETERMINED, Chunk, Filter, Match, MetadataValue, Range, SparseVector
from search.store.base import VectorStore
from search.text import normalize, truncate_graphemes

MAX_QUERY_CHARS = 20_000
_MOST_PASSAGES = 2_000
"""Passages with the words of a phrase that are looked at, those that hold most of them first."""
_MOST_VALUES = 10_000


@dataclass(frozen=True, slots=True)
class Interpretation:
    """A query as it is searched.

    Attributes:
        text: What is searched for by meaning and by words; empty when the query holds conditions only.
        filter: The caller's conditions and the query's, together.
        conditions: The query's conditions as they were understood, in its own syntax.
        without: Words and phrases of which a document may hold none.
        notes: What a person should know.
        rewritten: The text in the script of its language, where it was typed in Latin letters: searched for as well.
    """

    text: str
    filter: Filter | None = None
    conditions: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rewritten: str = ""


def interpret(query: str, index: OpenIndex, filter: Filter | None = None) -> Interpretation:
    """Read a query's syntax and look up in the index what it names.

    A condition that names nothing there is (a language, a date) is searched for as words, and so is a phrase that no
    passage holds; a note says so. A folder or title that does not exist finds nothing.

    Args:
        query: As typed; what is beyond 20,000 characters is left out, and a note says so.
        index: Where to search.
        filter: The caller's own conditions.
    """
    reading = _Reading(index, filter)
    if len(query) > MAX_QUERY_CHARS:
        reading.notes.append(f"the query has {len(query):,} characters; the first {MAX_QUERY_CHARS:,} were searched")
        query = truncate_graphemes(query, MAX_QUERY_CHARS)
    for part in parse_query(query):
        reading.take(part)
    return reading.result()


def documents_holding(store: VectorStore, phrases: Collection[str], document_ids: Collection[str]) -> set[str]:
    """Those of the given documents in which a passage holds one of the phrases; exact for words, however frequent."""
    holding: set[str] = set()
    for phrase in phrases:
        wanted, left, found = _sequence(phrase), set(document_ids) - holding, True
        while left and found:
            among = Filter((Match("document_id", tuple(sorted(left))),))
            chunks = _passages_with_words(store, phrase, among)
            new = {chunk.document_id for chunk in chunks if wanted in _sequence(*_parts(chunk))}
            holding |= new
            left -= new
            found = bool(new) and len(chunks) == _MOST_PASSAGES
    return holding


def passages_holding(
    store: VectorStore, phrase: str, *, filter: Filter | None = None, in_title: bool = False
) -> list[Chunk]:
    """Passages whose title, headings or text hold the words of `phrase` one after the other.

    Case, accents of Latin letters, width, punctuation and line breaks do not matter. At most 2,000 passages with its
    words are looked at, those of the highest lexical score: 0.2 s for a phrase of frequent words.
    """
    wanted, chunks = _sequence(phrase), _passages_with_words(store, phrase, filter)
    return [chunk for chunk in chunks if wanted in _sequence(*((chunk.title,) if in_title else _parts(chunk)))]


def _passages_with_words(store: VectorStore, phrase: str, filter: Filter | None) -> list[Chunk]:
    """The first passages by the words of a phrase as they are, without what their beginnings would find."""
    terms = {term_index(term) for term in tokenize(phrase) if not term.endswith("*")}
    indices = np.array(sorted(terms), np.uint32)
    query = SparseVector(indices, np.ones(len(indices), np.float32))
    return [point.chunk for point in store.search_lexical(query, limit=_MOST_PASSAGES, filter=filter)]


def readings(value: str) -> tuple[MetadataValue, ...]:
    """A typed value matches the text, and the number or truth value that it reads as."""
    found: list[MetadataValue] = [value]
    if value.lower() in ("true", "false"):
        found.append(value.lower() == "true")
    elif re.fullmatch(r"-?[0-9]{1,18}", value):
        found.append(int(value))
    elif re.fullmatch(r"-?[0-9]{0,18}\.[0-9]{1,18}", value):
        found.append(float(value))
    return tuple(found)


@dataclass
class _Reading:
    """Collects what the parts of one query ask for."""

    index: OpenIndex
    filter: Filter | None
    notes: list[str] = field(default_factory=list)
    _words: list[str] = field(default_factory=list)
    _phrases: list[str] = field(default_factory=list)
    _without: list[str] = field(default_factory=list)
    _shown: list[str] = field(default_factory=list)
    _values: dict[tuple[str, bool], list[MetadataValue]] = field(default_factory=lambda: defaultdict(list))
    _ranges: list[Range] = field(default_factory=list)

    def take(self, part: Part) -> None:
        """Count in one part of the query."""
        if part.kind is Kind.WITHOUT:
            self._without.append(part.text)
            self._shown.append(f"-{_shown_value(part.text)}")
        elif part.kind is Kind.FIELD and self._take_field(part):
            self._shown.append(f"{'-' * part.negate}{part.field.lower()}:{_shown_value(part.text)}")
        else:
            self._words.append(part.text if part.kind is not Kind.FIELD else part.typed)
            if part.kind is Kind.PHRASE:
                self._phrases.append(part.text)

    def result(self) -> Interpretation:
        """What all parts ask for together."""
        conditions: list[Match | Range] = [*(self.filter.conditions if self.filter else ()), *self._ranges]
        self._note_dates([item for item in conditions if isinstance(item, Range) and item.key == "date"])
        self._join_sources()
        for (key, negate), values in self._values.items():
            conditions.append(Match(key, tuple(dict.fromkeys(values)), negate))
        if self._phrases:
            conditions += self._phrase_conditions(Filter(tuple(conditions)))
        return Interpretation(
            " ".join(self._words),
            Filter(tuple(conditions)) if conditions else None,
            tuple(self._shown),
            tuple(self._without),
            tuple(self.notes),
        )

    def _note_dates(self, ranges: Sequence[Range]) -> None:
        """Say it where the conditions leave no day."""
        first = max((str(item.gte)[:10] for item in ranges if item.gte), default="")
        last = min((str(item.lte)[:10] for item in ranges if item.lte), default="")
        if first > last > "":
            self.notes.append(f"no date is both from {first} on and until {last}")

    def _take_field(self, part: Part) -> bool:
        """Whether the part sets a condition."""
        name = FIELD_NAMES.get(normalize(part.field), "")
        if name == "lang":
            return self._take_languages(part)
        if name == "source":
            return self._take_source(part)
        if name == "title":
            found = passages_holding(self.index.store, part.text, in_title=True)
            return self._match("document_id", (chunk.document_id for chunk in found), part)
        if name:
            return self._take_date(name, part)
        return self._take_metadata(part)

    def _take_languages(self, part: Part) -> bool:
        codes = [code for code in re.split(r"[,，、;|/]", part.text) if code.strip()]
        languages = [canonical_language(code) for code in codes]
        known = supported_languages().union(self.index.languages, (UNDETERMINED,))
        if unknown := [code for code, lang in zip(codes, languages, strict=True) if lang not in known]:
            held = ", ".join(self.index.languages)
            self.notes.append(f"{part.typed!r} was read as words: {unknown[0]!r} is no language code; here are {held}")
            return False
        if not part.negate and not set(languages) & set(self.index.languages):
            self.notes.append(f"nothing in the index matches {part.typed!r}")
        return self._match("lang", languages, part)

    def _take_source(self, part: Part) -> bool:
        value = normalize(part.text).strip("/")
        store = self.index.store
        folders = _paths_like(value, (name for name, _ in store.facet("folders", limit=_MOST_VALUES)))
        if folders:
            return self._match("folders", folders, part)
        files = _paths_like(value, (name for name, _ in store.facet("source", limit=_MOST_VALUES)))
        return self._match("source", files, part)

    def _take_date(self, name: str, part: Part) -> bool:
        span = dates_of(name, part.text)
        if span is None or part.negate:
            example = "2018..2020" if name == "year" else "2020-05-31"
            self.notes.append(f"{part.typed!r} was read as words: a date is written {name}:{example}")
            return False
        self._ranges.append(span)
        return True

    def _take_metadata(self, part: Part) -> bool:
        """A condition when the index has such a column and value, else words."""
        key, store = f"metadata.{part.field}", self.index.store
        try:
            texts = [value for value, _ in store.facet(key, limit=_MOST_VALUES)]
        except QueryError:
            texts = []
        values: list[MetadataValue] = [text for text in texts if normalize(text) == normalize(part.text)]
        read = readings(part.text)
        if not values and len(read) > 1 and store.count(Filter((Match(key, read),))):
            values = list(read)
        return bool(values) and self._match(key, values, part)

    def _match(self, key: str, values: Iterable[MetadataValue], part: Part) -> bool:
        found = list(values)
        if not found:
            self.notes.append(f"nothing in the index matches {part.typed!r}")
        if found or not part.negate:
            self._values[key, part.negate] += found or [_NOTHING]
        return True

    def _join_sources(self) -> None:
        """Conditions on folders and on files hold together; who names both means either."""
        if ("folders", False) in self._values and ("source", False) in self._values:
            folders = Filter((Match("folders", tuple(self._values.pop(("folders", False)))),))
            inside = self.index.store.facet("source", filter=folders, limit=_MOST_VALUES)
            self._values["source", False] += [name for name, _ in inside]

    def _phrase_conditions(self, among: Filter) -> list[Match]:
        """The passages that hold a phrase, of documents that hold all; none, and a note, where no document does."""
        by_phrase: list[dict[str, set[str]]] = []
        for phrase in self._phrases:
            chunks_of: dict[str, set[str]] = defaultdict(set)
            for chunk in passages_holding(self.index.store, phrase, filter=among):
                chunks_of[chunk.document_id].add(chunk.id)
            by_phrase.append(chunks_of)
        documents = set.intersection(*(set(chunks_of) for chunks_of in by_phrase))
        allowed = {chunk_id for chunks_of in by_phrase for document in documents for chunk_id in chunks_of[document]}
        if not allowed:
            quoted = " and ".join(f'"{phrase}"' for phrase in self._phrases)
            self.notes.append(f"no document holds {quoted}; the words were searched without the quotation marks")
            return []
        self._shown += [f'"{phrase}"' for phrase in self._phrases]
        return [Match("id", tuple(sorted(allowed)))]


_NOTHING = "\0"
"""A value that no field has."""


def _paths_like(value: str, paths: Iterable[str]) -> list[str]:
    """Paths that are `value`, else those whose last part is, else those whose last part contains it."""
    known = {path: normalize(path) for path in paths}
    for holds in (
        lambda path: path == value,
        lambda path: PurePosixPath(path).name == value or PurePosixPath(path).stem == value,
        lambda path: value in PurePosixPath(path).name,
    ):
        if found := sorted(path for path, plain in known.items() if holds(plain)):
            return found
    return []


def _sequence(*texts: str) -> str:
    """The words of some texts, such that it holds the sequence of another text exactly when that is a part of one."""
    return "".join("\0" + "\0".join(token.text for token in iter_words(text)) + "\0" for text in texts)


def _parts(chunk: Chunk) -> tuple[str, ...]:
    return chunk.title, *chunk.headings, chunk.text


def _shown_value(value: str) -> str:
    return f'"{value}"' if re.search(r"\s", value) else value
