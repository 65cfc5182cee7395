"""The map: every chunk of an index as a point in the plane, near to what it is like, whatever its language.

It is made by `indexer map` together with the topics of the whole index and kept beside its shard in one Parquet file,
because drawing it takes longer than a person waits. The reader looks at it, and says whether it is of the index as it
is now.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.balance import LanguageMap
from search.errors import IndexFormatError, IndexNotFoundError, SettingsError
from search.index import writing
from search.manifest import IndexManifest, now
from search.records import Chunk, Point, Vectors
from search.topics.find import Sample, Visit, find_topics
from search.topics.records import Topic, Topics

if TYPE_CHECKING:
    import pyarrow as pa

MAP = "map.parquet"
MAP_VERSION = 1
NEIGHBOURS = 5
"""Chunks of the sample between which another chunk is placed."""
LEAST_POINTS = 50
"""Fewer chunks are placed by their two principal components: PaCMAP needs neighbours near and far."""
_COLUMNS = ("chunk_id", "document_id", "x", "y", "lang", "topic", "date", "title")


@dataclass(frozen=True, slots=True)
class DocumentMap:
    """Chunks (N) of an index in the plane.

    `xy` (N, 2) float32 is centred and reaches to 1; its axes mean nothing. `topic` holds the id of the topic in
    `topics`, None for outliers; `date` RFC 3339 or None. `is_current` is False where the index has changed since.
    """

    chunk_ids: list[str]
    document_ids: list[str]
    xy: Vectors
    langs: list[str]
    topic: list[int | None]
    dates: list[str | None]
    titles: list[str]
    topics: Topics
    made: str
    is_current: bool = True

    def __len__(self) -> int:
        return len(self.chunk_ids)


def make_map(
    points: Iterable[Point], manifest: IndexManifest, language_map: LanguageMap, *, seed: int = 0
) -> tuple[pa.Table, int]:
    """Find the topics of a whole index and place its chunks: the table that `write_map` keeps, and how many topics.

    20,000 chunks are placed by their neighbourhoods, all others between those of them that they are most like.

    Args:
        points: Every chunk with its vector, by ascending id.
        manifest: Of the index; says later whether the map is still of it.
        language_map: Of the index.
        seed: The same seed and index give the same map.

    Raises:
        SettingsError: The extra `topics` is not installed.
        QueryError: There are too few chunks.

    Source: Wang et al., 2021, "Understanding How Dimension Reduction Tools Work" (PaCMAP).
    """
    import pyarrow as pa

    places = _Places(seed)
    topics = find_topics(points, language_map, seed=seed, on_sample=places.start)
    xy = _framed(np.concatenate(places.xy))
    chunks = places.chunks
    columns = (
        [chunk.id for chunk in chunks], [chunk.document_id for chunk in chunks], xy[:, 0], xy[:, 1],
        [chunk.lang for chunk in chunks], pa.array([topics.assigned[chunk.id] for chunk in chunks], pa.int32()),
        pa.array([chunk.date for chunk in chunks], pa.string()), [chunk.title for chunk in chunks],
    )  # fmt: skip
    about = {
        "version": MAP_VERSION, "index_updated": manifest.updated, "made": now(), "sampled": topics.sampled,
        "languages": dict(topics.languages), "notes": list(topics.notes),
        "topics": [topic.as_json() for topic in topics.topics],
    }  # fmt: skip
    table = pa.table(dict(zip(_COLUMNS, columns, strict=True)))
    leaves = sum(not topic.children for topic in topics.topics)
    return table.replace_schema_metadata({"panlingua": json.dumps(about, ensure_ascii=False)}), leaves


def write_map(table: pa.Table, path: Path) -> None:
    """Write the table so that a crash or a full disk leaves the old map or none.

    Raises:
        StoreError: It cannot be written.
    """
    import pyarrow.parquet as pq

    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            pq.write_table(table, temporary, compression="zstd")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def load_map(path: Path, manifest: IndexManifest) -> DocumentMap:
    """Read what `write_map` wrote.

    Raises:
        IndexNotFoundError: There is no map yet.
        IndexFormatError: It is damaged or of another version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise IndexNotFoundError("there is no map of this index; make one with `indexer map`")
    try:
        table = pq.read_table(path)
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[b"panlingua"])
        if about["version"] != MAP_VERSION:
            raise KeyError(f"version {about['version']}, this program reads {MAP_VERSION}")
        columns = {name: table[name] for name in _COLUMNS}
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise IndexFormatError(f"the map {path} cannot be read ({error}); make it again with `indexer map`") from error
    lists = {name: column.to_pylist() for name, column in columns.items() if name not in ("x", "y")}
    xy = np.stack([columns[axis].to_numpy().astype(np.float32) for axis in ("x", "y")], axis=1)
    topics = Topics(
        tuple(map(Topic.from_json, about["topics"])),
        dict(zip(lists["chunk_id"], lists["topic"], strict=True)),
        about["languages"],
        about["sampled"],
        tuple(about["notes"]),
    )
    return DocumentMap(
        lists["chunk_id"], lists["document_id"], xy, lists["lang"], lists["topic"], lists["date"], lists["title"],
        topics, about["made"], is_current=about["index_updated"] == manifest.updated,
    )  # fmt: skip


class _Places:
    """Where chunks lie: those of the sample by PaCMAP, every later one between its nearest of the sample."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.chunks: list[Chunk] = []
        self.xy: list[Vectors] = []

    def start(self, sample: Sample) -> Visit:
        """Place the sample."""
        self._fitted = place(sample.vectors, seed=self._seed)
        self._nearest = _neighbours_in(sample.vectors)
        self.chunks += map(_without_text, sample.chunks)
        self.xy.append(self._fitted)
        return self.go_on

    def go_on(self, chunks: list[Chunk], vectors: Vectors) -> None:
        """Place a batch (B, D) after the sample."""
        rows, similarities = self._nearest(vectors)
        weights = np.maximum(similarities, 1e-3) ** 4
        weights /= weights.sum(axis=1, keepdims=True)
        self.chunks += map(_without_text, chunks)
        self.xy.append(np.einsum("bk,bkd->bd", weights, self._fitted[rows]).astype(np.float32))


def place(vectors: Vectors, *, seed: int = 0) -> Vectors:
    """Coordinates (N, 2) of unit vectors (N, D) that keep near what is near, and far what is far.

    Raises:
        SettingsError: The extra `topics` is not installed.
    """
    if len(vectors) < LEAST_POINTS:
        left, scales, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
        return np.asarray(left[:, :2] * scales[:2], np.float32)
    try:
        from pacmap import PaCMAP
    except ImportError as error:
        raise SettingsError(
            "the map needs the package pacmap; install it with `pip install panlingua[topics]`"
        ) from error
    return np.asarray(PaCMAP(n_components=2, random_state=seed).fit_transform(vectors), np.float32)


def _neighbours_in(vectors: Vectors) -> Callable[[Vectors], tuple[np.ndarray, Vectors]]:
    """A function that gives rows and cosines (B, NEIGHBOURS) of the nearest of `vectors` (N, D), by exact search."""

    def nearest(queries: Vectors) -> tuple[np.ndarray, Vectors]:
        similarities = queries @ vectors.T
        count = min(NEIGHBOURS, len(vectors))
        rows = np.argpartition(-similarities, count - 1, axis=1)[:, :count]
        return rows, np.take_along_axis(similarities, rows, axis=1)

    return nearest


def _framed(xy: Vectors) -> Vectors:
    """Centred on the median and scaled so that the farthest point has a coordinate of 1."""
    centred = xy - np.median(xy, axis=0)
    return np.asarray(centred / max(float(np.abs(centred).max()), 1e-12), np.float32)


def _without_text(chunk: Chunk) -> Chunk:
    """What the map keeps of a chunk: a million texts would not fit into memory."""
    return Chunk(chunk.document_id, chunk.number, "", title=chunk.title, lang=chunk.lang, date=chunk.date)
