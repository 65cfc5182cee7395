"""What topics are made of, and how they are written down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

SEPARATOR = " · "


@dataclass(frozen=True, slots=True)
class Label:
    """What a topic is called in one language.

    `terms` are words as its texts write them, the most telling first; `title` and `passage` are those of the chunk that
    stands in the middle of the topic, `chunks` counts the topic's chunks in this language.
    """

    lang: str
    terms: tuple[str, ...]
    title: str
    passage: str
    chunk_id: str
    document_id: str
    chunks: int

    @property
    def text(self) -> str:
        """The terms in one line; a title or passage where a language has too few texts for terms."""
        return SEPARATOR.join(self.terms) or self.title or self.passage


@dataclass(frozen=True, slots=True)
class Topic:
    """A group of chunks about one thing, in whatever languages; a parent is a group of topics.

    `parent` and `children` are ids of topics, `languages` counts chunks, most first. `labels` holds one label per
    language, the reader's first. `cohesion` is the mean cosine to the centre. `warning` says what to doubt.
    """

    id: int
    parent: int | None
    children: tuple[int, ...]
    chunks: int
    documents: int
    languages: Mapping[str, int]
    labels: tuple[Label, ...]
    cohesion: float
    warning: str | None = None

    @property
    def name(self) -> str:
        """Its label in the first language."""
        return self.labels[0].text if self.labels else f"topic {self.id}"

    def as_json(self) -> dict[str, Any]:
        """Plain values for `--json`, the API and the map's file."""
        labels = [{name: getattr(label, name) for name in Label.__slots__} for label in self.labels]
        own = {name: getattr(self, name) for name in Topic.__slots__}
        return own | {"name": self.name, "languages": dict(self.languages), "labels": labels}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Topic:
        """What `as_json` made."""
        labels = tuple(Label(**(label | {"terms": tuple(label["terms"])})) for label in record["labels"])
        values = {name: record[name] for name in cls.__slots__}
        return cls(**(values | {"children": tuple(record["children"]), "labels": labels}))


@dataclass(frozen=True, slots=True)
class Topics:
    """Topics of an index or of a part of it: those that hold chunks, largest first, then their parents.

    `assigned` maps the id of every chunk of the part to the topic that holds it, None for the outliers. `sampled` says
    how many chunks the clusters were found on; the others were assigned to them. `notes` are for the person who asks.
    """

    topics: tuple[Topic, ...]
    assigned: Mapping[str, int | None]
    languages: Mapping[str, int]
    sampled: int
    notes: tuple[str, ...] = ()

    @property
    def roots(self) -> tuple[Topic, ...]:
        """Topics without a parent, largest first."""
        return tuple(sorted((topic for topic in self.topics if topic.parent is None), key=_largest_first))

    @property
    def outliers(self) -> int:
        """Chunks that are in no topic."""
        return sum(topic is None for topic in self.assigned.values())

    def children(self, topic: Topic) -> tuple[Topic, ...]:
        """The topics below one, largest first."""
        return tuple(sorted((self.topics[child] for child in topic.children), key=_largest_first))

    def for_reader(self, languages: Sequence[str]) -> Topics:
        """The same topics with the labels in these languages first."""
        wanted = {lang: place for place, lang in enumerate(languages)}
        return replace(self, topics=tuple(
            replace(topic, labels=tuple(sorted(topic.labels, key=lambda label: wanted.get(label.lang, len(wanted)))))
            for topic in self.topics
        ))  # fmt: skip


def _largest_first(topic: Topic) -> tuple[int, int]:
    return -topic.chunks, topic.id
