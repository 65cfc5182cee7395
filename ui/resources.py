"""What all sessions share: one engine for each index, and facts about the index that cost something to find.

Everything here is keyed by what it depends on, the index and its generation, and holds nothing of a session.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import streamlit as st

from search.engine import Engine
from search.errors import PanlinguaError
from search.facets import Facets
from search.index import IndexFolder
from search.records import Filter, Range
from search.settings import Settings, load_settings
from search.store.base import HNSW_FROM_POINTS

SAMPLE_INDEX = "demo"
"""Name of the index of the bundled corpus, used while there is no other."""
REPOSITORY = Path(__file__).parents[1]
SAMPLE_CORPUS = REPOSITORY / "corpus" / "documents"
SAMPLE_QUERIES = REPOSITORY / "corpus" / "queries.jsonl"
_EXAMPLES = 6
_LOOKED_AT = 400
_MOST_FILES = 100_000
EXACT_BELOW = HNSW_FROM_POINTS
"""Chunks below which every search compares with all of them."""


@dataclass(frozen=True, slots=True)
class Library:
    """The index that is searched. `is_sample`: it is that of the bundled corpus, for want of one of the user's own."""

    engine: Engine
    is_sample: bool

    @property
    def state(self) -> str:
        """What changes with every new generation of the index."""
        manifest = self.engine.index().manifest
        return f"{self.engine.settings.index_folder}|{self.engine.settings.store}|{manifest.updated}|{manifest.chunks}"


def open_library() -> Library:
    """The index of the settings, or that of the bundled corpus while there is none.

    Raises:
        IndexNotFoundError: There is neither.
    """
    settings = load_settings()
    is_sample = not settings.store and not has_index(settings) and has_index(load_settings(index=SAMPLE_INDEX))
    if is_sample:
        settings = load_settings(index=SAMPLE_INDEX)
    engine = _engine(str(settings.index_folder), settings.store)
    engine.index()
    _warm_up(engine.settings.index_folder, engine)
    return Library(engine, is_sample)


def has_index(settings: Settings) -> bool:
    """Whether the embedded index of the settings was published."""
    return IndexFolder(settings.index_folder).current_number() is not None


@st.cache_resource(show_spinner=False, max_entries=2)
def _engine(index: str, store: str | None) -> Engine:
    """One engine for the whole process; it notices newer generations, and other encoders, by itself."""
    return Engine(load_settings(index=index, store=store))


@st.cache_resource(show_spinner=False)
def _warm_up(index: Path, _engine: Engine) -> None:
    """Load encoder and language models in the background, so that the first page shows at once."""
    threading.Thread(target=_load, args=(_engine,), daemon=True, name="warm-up").start()


def _load(engine: Engine) -> None:
    with suppress(PanlinguaError):  # the first search says it
        engine.load()


@st.cache_data(show_spinner=False, max_entries=8)
def facets(_library: Library, state: str) -> Facets:
    """Documents of each language, folder and year in the whole index."""
    return _library.engine.facets()


@st.cache_data(show_spinner=False, max_entries=4)
def sources(_library: Library, state: str) -> list[tuple[str, int]]:
    """Files of the index with the number of their chunks, by name."""
    return sorted(_library.engine.index().store.facet("source", limit=_MOST_FILES))


@st.cache_data(show_spinner=False, max_entries=8)
def has_dates(_library: Library, state: str) -> bool:
    """Whether any document carries a date."""
    dated = Filter((Range("date", gte="0001-01-01T00:00:00Z"),))
    return _library.engine.index().store.count(dated) > 0


@st.cache_data(show_spinner=False, max_entries=8)
def example_queries(_library: Library, state: str, reader: str) -> list[tuple[str, str]]:
    """Queries to begin with, each with its language: those of the bundled corpus, else titles of the index."""
    found = _sample_queries() if _library.is_sample or _holds_sample(_library) else _titles(_library)
    own = [pair for pair in found if pair[0] == reader]
    others = [pair for pair in found if pair[0] != reader]
    return (own[:2] + others)[:_EXAMPLES]


def _holds_sample(library: Library) -> bool:
    return library.engine.settings.index_folder.name == SAMPLE_INDEX


def _sample_queries() -> list[tuple[str, str]]:
    if not SAMPLE_QUERIES.is_file():
        return []
    rows = [json.loads(line) for line in SAMPLE_QUERIES.read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: not row.get("demo", False))
    return _one_of_each_language([(str(row["lang"]), str(row["text"])) for row in rows])


def _titles(library: Library) -> list[tuple[str, str]]:
    chunks = [point.chunk for point in islice(library.engine.index().store.iter_points(), _LOOKED_AT)]
    titled = [chunk for chunk in chunks if 8 <= len(chunk.title) <= 80 and not chunk.is_named_by_file]
    return _one_of_each_language([(chunk.lang, chunk.title) for chunk in titled])


def _one_of_each_language(queries: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """One query of each language first, in the order given, then the others."""
    first: dict[str, tuple[str, str]] = {}
    for language, text in queries:
        first.setdefault(language, (language, text))
    rest = [pair for pair in dict.fromkeys(queries) if pair not in first.values()]
    return [*first.values(), *rest]
