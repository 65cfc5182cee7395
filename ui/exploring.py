"""The map as the Explore page draws it: which points, in which groups, and what is chosen on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import streamlit as st

from search.document_map import DocumentMap
from search.records import Vectors
from search.topics.records import Topic
from ui import jobs
from ui.corpus import index_options
from ui.languages import language_name
from ui.resources import Library
from ui.state import Request

MOST_POINTS = 100_000
"""Points that a browser draws fluently; of more, an even sample is drawn, which is as dense as all of them."""
MOST_GROUPS = 24
LIT = 10
_MARGIN = 0.06
_CUT_OFF = 0.001
_LARGEST_GAP = 0.06
_WIDTH_PX, _HEIGHT_PX, _NAME_PX, _CHARACTER_PX = 700, 600, 24, 7.5
_SEED = 0

Rows = npt.NDArray[np.int64]


class Colour(StrEnum):
    """What the colour of a point says."""

    TOPIC = "topic"
    LANGUAGE = "language"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Group:
    """Points of one colour: rows of the map. `place` numbers the colour, None for what is in no group."""

    key: str
    name: str
    place: int | None
    rows: Rows


@st.cache_resource(show_spinner=False, max_entries=2)
def load_map(_library: Library, state: str, made: float) -> DocumentMap:
    """The map of the index, without the empty room around what lies far out. `made` changes when the map does."""
    found = _library.engine.map()
    return replace(found, xy=without_gaps(found.xy))


def without_gaps(xy: Vectors) -> Vectors:
    """Points (N, 2) with every gap along either axis closed to a small share of what most points span.

    Order and shape of what lies together stay; how far apart islands lie says nothing on such a map.
    """
    if len(xy) < 2:
        return xy
    closed = np.empty_like(xy)
    for axis in range(xy.shape[1]):
        order = np.argsort(xy[:, axis], kind="stable")
        steps = np.diff(xy[order, axis])
        low, high = np.quantile(xy[:, axis], (0.05, 0.95))
        most = _LARGEST_GAP * max(float(high - low), 1e-6)
        closed[order, axis] = np.concatenate([[0.0], np.cumsum(np.minimum(steps, most))])
    return closed


def drawn_rows(count: int) -> Rows:
    """Rows to draw: all, or an even sample of them, the same every time."""
    if count <= MOST_POINTS:
        return np.arange(count)
    return np.sort(np.random.default_rng(_SEED).choice(count, MOST_POINTS, replace=False))


def groups(found: DocumentMap, rows: Rows, colour: Colour, languages: Sequence[str], *, reader: str) -> list[Group]:
    """The drawn points by colour, largest group first; what is beyond the largest 24 groups has none."""
    keys = [_key(found, int(row), colour) for row in rows]
    counts = Counter(key for key in keys if key)
    largest = sorted(counts, key=lambda key: (-counts[key], len(key), key))[:MOST_GROUPS]
    names = {key: _name(found, key, colour, reader) for key in largest}
    by_key: dict[str, list[int]] = {key: [] for key in largest}
    rest: list[int] = []
    for row, key in zip(rows, keys, strict=True):
        by_key.get(key, rest).append(int(row))
    made = [
        Group(key, names[key], languages.index(key) if colour is Colour.LANGUAGE and key in languages else place,
              np.array(by_key[key], np.int64))
        for place, key in enumerate(largest)
    ]  # fmt: skip
    return [*made, Group("", "", None, np.array(rest, np.int64))] if rest else made


def topic_centres(found: DocumentMap, topics: Sequence[Topic]) -> list[tuple[float, float]]:
    """Where on the map the names of topics go: the median of their points."""
    topic_of = np.array([-1 if topic is None else topic for topic in found.topic])
    centres = []
    for topic in topics:
        x, y = np.median(found.xy[topic_of == topic.id], axis=0)
        centres.append((float(x), float(y)))
    return centres


def view_of(found: DocumentMap) -> tuple[list[float], list[float]]:
    """What the map shows at first, (x from and to, y from and to): all but the very farthest of the points."""
    low, high = np.quantile(found.xy, _CUT_OFF, axis=0), np.quantile(found.xy, 1 - _CUT_OFF, axis=0)
    margin = _MARGIN * np.maximum(high - low, 1e-3)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return [left, right], [bottom, top]


def uncrowded(
    names: Sequence[tuple[str, float, float]], view: tuple[list[float], list[float]]
) -> list[tuple[str, float, float]]:
    """The names, (text, x, y), that can be read: in view, as a whole, and not over one that comes before."""
    (left, right), (bottom, top) = view
    scale = min(_WIDTH_PX / (right - left), _HEIGHT_PX / (top - bottom))
    placed: list[tuple[float, float, float]] = []
    kept = []
    for text, x, y in names:
        half = len(text) * _CHARACTER_PX / 2 / scale
        inside = min(max(x, left + half), right - half)
        clear = all(abs(y - b) > _NAME_PX / scale or abs(inside - a) > half + other for a, b, other in placed)
        if clear and left <= x <= right and bottom <= y <= top:
            placed.append((inside, y, half))
            kept.append((text, inside, y))
    return kept


def leaf_topics(found: DocumentMap) -> list[Topic]:
    """The topics that hold passages, largest first."""
    held = Counter(topic for topic in found.topic if topic is not None)
    leaves = [topic for topic in found.topics.topics if held[topic.id]]
    return sorted(leaves, key=lambda topic: (-held[topic.id], topic.id))


def lit_rows(library: Library, found: DocumentMap, request: Request) -> list[int]:
    """Rows of the passages that the reader's search finds, best first."""
    if not request.q:
        return []
    hits = library.engine.search(request.q, k=LIT, balance=request.balance, mode=request.mode, fold=False).hits
    row_of = {chunk_id: row for row, chunk_id in enumerate(found.chunk_ids)}
    return [row_of[hit.chunk.id] for hit in hits if hit.chunk.id in row_of]


def documents_at(found: DocumentMap, rows: Sequence[int]) -> list[tuple[str, str, str]]:
    """Id, title and language of the documents that passages belong to, those with most of them first."""
    counts = Counter(found.document_ids[row] for row in rows)
    first = {found.document_ids[row]: row for row in reversed(rows)}
    return [(id, found.titles[first[id]] or id, found.langs[first[id]]) for id, _ in counts.most_common()]


def years(found: DocumentMap) -> Counter[str]:
    """Documents per year; empty where few carry a date."""
    dated = {id: date[:4] for id, date in zip(found.document_ids, found.dates, strict=True) if date}
    return Counter(dated.values())


def start_map(library: Library) -> str:
    """Start `indexer map`; returns the job."""
    return jobs.start("map", "", "indexer.cli", ["map", "--json", *index_options(library.engine.settings)])


def _key(found: DocumentMap, row: int, colour: Colour) -> str:
    if colour is Colour.LANGUAGE:
        return found.langs[row]
    if colour is Colour.FOLDER:
        folder = str(PurePosixPath(found.document_ids[row].partition("#")[0]).parent)
        return "" if folder == "." else folder
    topic = found.topic[row]
    return "" if topic is None else str(topic)


def _name(found: DocumentMap, key: str, colour: Colour, reader: str) -> str:
    if colour is Colour.LANGUAGE:
        return language_name(key)
    if colour is Colour.FOLDER:
        return key
    return topic_name(found.topics.topics[int(key)], reader)


def topic_name(topic: Topic, reader: str) -> str:
    """What the topic is called in the reader's language, else in that of most of its passages."""
    label = next((label for label in topic.labels if label.lang == reader), topic.labels[0] if topic.labels else None)
    return label.text if label else topic.name
