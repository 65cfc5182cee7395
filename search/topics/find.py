"""Find the topics of an index or of a part of it, in one pass over its chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from search.balance import LanguageMap
from search.diversity import neutral_vectors
from search.errors import QueryError
from search.records import Chunk, Point, Vectors
from search.text import counted
from search.topics.clustering import OUTLIER, Clustering, Labels, cluster
from search.topics.labels import Labeller, Members, language_warning, members_of
from search.topics.records import Topic, Topics

SAMPLE = 20_000
"""Chunks that topics are found on. A store streams chunks by id, a hash: so its first chunks are a random sample."""
LEAST_CHUNKS = 10
MOST_TOPICS = 500
_BATCH = 2_048


@dataclass(frozen=True)
class Space:
    """The space that topics are found in: vectors without their language, from the middle of the part."""

    language_map: LanguageMap
    middle: Vectors

    def vectors(self, stored: Vectors) -> Vectors:
        """Unit vectors (B, D) of what the store holds (B, D)."""
        return _unit(neutral_vectors(self.language_map, stored) - self.middle)


@dataclass
class Sample:
    """The chunks (N) that topics are found on, with their unit vectors (N, D)."""

    chunks: list[Chunk]
    vectors: Vectors
    space: Space


@dataclass
class _Tally:
    """Chunks, documents and languages of every topic, of the sample and of what was assigned to it."""

    languages: list[Counter[str]]
    documents: list[set[str]]
    assigned: dict[str, int | None] = field(default_factory=dict)
    whole: Counter[str] = field(default_factory=Counter)

    def add(self, chunks: Iterable[Chunk], labels: Labels) -> None:
        for chunk, label in zip(chunks, labels.tolist(), strict=True):
            self.assigned[chunk.id] = None if label == OUTLIER else label
            self.whole[chunk.lang] += 1
            if label != OUTLIER:
                self.languages[label][chunk.lang] += 1
                self.documents[label].add(chunk.document_id)


Visit = Callable[[list[Chunk], Vectors], None]
"""Called with every batch of chunks after the sample, and their vectors."""


def find_topics(
    points: Iterable[Point],
    language_map: LanguageMap,
    *,
    count: int | None = None,
    seed: int = 0,
    on_sample: Callable[[Sample], Visit | None] = lambda sample: None,
) -> Topics:
    """Find what chunks are about, one topic for one subject whatever the languages.

    Args:
        points: Chunks with their stored vectors, in an order that has nothing to do with what they are about. The first
            20,000 are clustered, the others assigned as they come, so that memory hardly grows with them.
        language_map: Of the index; its span is taken out of the vectors.
        count: Topics wanted, 2 to 500; None: as many as are well apart.
        seed: The same seed and chunks give the same topics.
        on_sample: Called once with the sample; what it returns is called with every batch after it.

    Raises:
        QueryError: There are no chunks, too few, or `count` is out of range.
    """
    if count is not None and not 2 <= count <= MOST_TOPICS:
        raise QueryError(f"the number of topics must be 2 to {MOST_TOPICS}, got {count}")
    stream = iter(points)
    sample = _read_sample(stream, language_map)
    visit = on_sample(sample)
    clustering = cluster(sample.vectors, count=count, seed=seed)
    number = len(clustering.centroids)
    tally = _Tally([Counter() for _ in range(number)], [set() for _ in range(number)])
    tally.add(sample.chunks, clustering.labels)
    for chunks, vectors in _batches(stream, sample.space):
        tally.add(chunks, clustering.assign(vectors))
        if visit:
            visit(chunks, vectors)
    return _describe(sample, clustering, tally)


def _read_sample(stream: Iterator[Point], language_map: LanguageMap) -> Sample:
    chunks: list[Chunk] = []
    neutral: list[Vectors] = []
    for batch in _chunked(islice(stream, SAMPLE)):
        chunks += [point.chunk for point in batch]
        neutral.append(neutral_vectors(language_map, np.stack([point.dense for point in batch])))
    if not chunks:
        raise QueryError("there is nothing to find topics in: no chunk passes the filter, or the index is empty")
    if len(chunks) < LEAST_CHUNKS:
        raise QueryError(
            f"{counted(len(chunks), 'chunk')} are too few to find topics in; at least {LEAST_CHUNKS} are needed: take "
            "a wider filter or query"
        )
    vectors = np.concatenate(neutral)
    space = Space(language_map, vectors.mean(axis=0))
    return Sample(chunks, _unit(vectors - space.middle), space)


def _batches(stream: Iterator[Point], space: Space) -> Iterator[tuple[list[Chunk], Vectors]]:
    for batch in _chunked(stream):
        yield [point.chunk for point in batch], space.vectors(np.stack([point.dense for point in batch]))


def _chunked(stream: Iterator[Point]) -> Iterator[list[Point]]:
    while batch := list(islice(stream, _BATCH)):
        yield batch


def _describe(sample: Sample, clustering: Clustering, tally: _Tally) -> Topics:
    """Count, label and judge the topics and their parents."""
    similarities = np.einsum("nd,nd->n", sample.vectors, clustering.centroids[clustering.labels])
    members = members_of(sample.chunks, clustering.labels, similarities)
    labeller = Labeller(sample.chunks, members)
    groups, parents = _tree_of(clustering)
    topics = tuple(
        _topic(id, group, parents, tally, labeller, _cohesion(members, group, similarities))
        for id, group in enumerate(groups)
    )
    languages = dict(sorted(tally.whole.items(), key=lambda item: (-item[1], item[0])))
    return Topics(topics, tally.assigned, languages, len(sample.chunks), _notes(topics, tally, len(sample.chunks)))


def _tree_of(clustering: Clustering) -> tuple[list[list[int]], dict[int, int]]:
    """The clusters below every topic, clusters first, then their parents level by level; and the parent of each.

    A group of one is no parent: its only member takes its place.
    """
    groups = [[number] for number in range(len(clustering.centroids))]
    parents: dict[int, int] = {}
    standing = list(range(len(groups)))  # the topic that holds each cluster on the level below
    for level in clustering.levels:
        above = list(standing)
        for group in range(int(level.max()) + 1):
            clusters = np.flatnonzero(level == group).tolist()
            below = sorted({standing[number] for number in clusters})
            if len(below) < 2:
                continue
            groups.append(clusters)
            for topic in below:
                parents[topic] = len(groups) - 1
            for number in clusters:
                above[number] = len(groups) - 1
        standing = above
    return groups, parents


def _topic(
    id: int, group: list[int], parents: Mapping[int, int], tally: _Tally, labeller: Labeller, cohesion: float
) -> Topic:
    languages: Counter[str] = sum((tally.languages[number] for number in group), Counter())
    documents = set().union(*(tally.documents[number] for number in group))
    ordered = dict(sorted(languages.items(), key=lambda item: (-item[1], item[0])))
    return Topic(
        id=id,
        parent=parents.get(id),
        children=tuple(sorted(child for child, parent in parents.items() if parent == id)),
        chunks=sum(languages.values()),
        documents=len(documents),
        languages=ordered,
        labels=labeller.label(group, ordered),
        cohesion=cohesion,
        warning=language_warning(languages, tally.whole, documents=len(documents)),
    )


def _cohesion(members: Members, group: list[int], similarities: Vectors) -> float:
    rows = [row for number in group for of_language in members[number].values() for row in of_language]
    return round(float(np.mean(similarities[rows])), 4) if rows else 0.0


def _notes(topics: tuple[Topic, ...], tally: _Tally, sampled: int) -> tuple[str, ...]:
    notes = []
    if sampled < len(tally.assigned):
        notes.append(f"found on {sampled} chunks, the other {len(tally.assigned) - sampled} were assigned to them")
    if doubtful := sum(topic.warning is not None for topic in topics):
        notes.append(f"{counted(doubtful, 'topic')} may be a language rather than a subject")
    return tuple(notes)


def _unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)
