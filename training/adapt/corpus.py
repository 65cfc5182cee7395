"""The documents to adapt to: read, cut, encoded and paired with their translations by an ingest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from search.errors import TrainingDataError
from search.passages import passage_text
from search.records import UNDETERMINED, Chunk, Vectors
from search.settings import Settings, load_settings
from search.text import counted

if TYPE_CHECKING:
    from search.encoder import Encoder
    from search.opening import OpenIndex
    from training.adapt.options import Progress

LEAST_DOCUMENTS = 20
LEAST_IN_LANGUAGE = 3
"""A language counts from so many documents on."""
MOST_PASSAGES = 20_000
"""Of a larger corpus the first passages of every document are used: all of it is encoded again to be judged."""


def embedded_settings(index: Path, *, encoder: str | None = None) -> Settings:
    """Settings of an index of our own at a path, on this machine whatever server the user has set up."""
    return load_settings(index=str(index.absolute()), encoder=encoder).model_copy(update={"store": None})


@dataclass(frozen=True)
class Corpus:
    """Passages of documents.

    Attributes:
        chunks: Passages (N), by document and place in it.
        vectors: Unit vectors (N, D) of what is indexed of them, by the encoder to start from.
        works: The work of each document: the same for translations of one another.
        places: For documents with translations, the place of each passage in the work (-1: in this language only).
    """

    chunks: tuple[Chunk, ...]
    vectors: Vectors
    works: dict[str, str]
    places: dict[str, npt.NDArray[np.int32]]

    @cached_property
    def documents(self) -> list[str]:
        """Ids in the order of the passages."""
        return [document for document, _ in groupby(self.chunks, key=lambda chunk: chunk.document_id)]

    @cached_property
    def languages(self) -> dict[str, str]:
        """Language of each document: that of most of its letters."""
        letters: dict[str, Counter[str]] = defaultdict(Counter)
        for chunk in self.chunks:
            letters[chunk.document_id][chunk.lang] += len(chunk.text)
        return {document: min(found, key=lambda lang: (-found[lang], lang)) for document, found in letters.items()}

    @cached_property
    def translations(self) -> dict[str, list[str]]:
        """Documents of each work that has more than one."""
        found: dict[str, list[str]] = defaultdict(list)
        for document in self.documents:
            found[self.works[document]].append(document)
        return {work: documents for work, documents in found.items() if len(documents) > 1}

    def place_key(self, chunk: Chunk) -> str:
        """Key that a passage shares with its translations; its own id where it has none."""
        aligned = self.places.get(chunk.document_id)
        place = int(aligned[chunk.number]) if aligned is not None and chunk.number < len(aligned) else -1
        return f"{self.works[chunk.document_id]}:{place}" if place >= 0 else chunk.id

    def describe(self) -> dict[str, object]:
        """Counts for the report."""
        return {
            "documents": len(self.documents), "passages": len(self.chunks),
            "works_with_translations": len(self.translations),
            "languages": dict(Counter(self.languages.values()).most_common()),
        }  # fmt: skip


def read_corpus(folder: Path, settings: Settings, encoder: Encoder, progress: Progress) -> Corpus:
    """Ingest a folder into the index that the settings name, and hold its passages; a later call reads what is new.

    Raises:
        SourceError: The folder is not there or cannot be read.
        TrainingDataError: It holds no text.
    """
    from indexer.build import ingest, size_of
    from indexer.chunking import ChunkOptions
    from indexer.pipeline import IngestOptions
    from search.opening import open_index

    total, done = size_of(folder.expanduser()), 0

    def advance(size: int, source: str) -> None:
        nonlocal done
        done += size
        progress(f"reading {source}", min(done, total), total)

    # without overlap: a passage must not find its neighbour by the sentence that both hold
    summary = ingest(
        folder, settings, options=IngestOptions(chunk=ChunkOptions(overlap_tokens=0)), encoder=encoder, progress=advance
    )
    if summary.empty:
        reasons = "; ".join(f"{item.source}: {item.reason}" for item in summary.skipped[:3])
        raise TrainingDataError(f"{folder} holds no text{f' ({reasons})' if reasons else ''}; give another folder.")
    with closing(open_index(settings)) as opened:
        return hold_passages(opened)


def hold_passages(opened: OpenIndex, *, most: int = MOST_PASSAGES) -> Corpus:
    """The passages of an index with their vectors and works: of every document the first ones, `most` in all."""
    kept = _depth(Counter(row["document_id"] for row in opened.store.iter_fields(("document_id",))), most)
    points = [point for point in opened.store.iter_points(with_vectors=True) if point.chunk.number < kept]
    points.sort(key=lambda point: (point.chunk.document_id, point.chunk.number))
    documents = sorted({point.chunk.document_id for point in points})
    families = opened.families.of(documents)
    members = opened.families.members(set(families.values())) if families else {}
    return Corpus(
        tuple(point.chunk for point in points),
        opened.language_map.unmap_documents(np.stack([point.dense for point in points])),
        {name: f"family {families[name]}" if name in families else name for name in documents},
        {member.document_id: member.aligned for found in members.values() for member in found},
    )


def _depth(sizes: Counter[str], most: int) -> int:
    """How many passages of each document fit if every document gives at most so many; 1 or more."""
    ordered = np.sort(np.array(list(sizes.values())))
    before = np.concatenate([[0], np.cumsum(ordered)])
    for place, size in enumerate(ordered):
        if before[place] + size * (len(ordered) - place) > most:
            return max(1, int((most - before[place]) // (len(ordered) - place)))
    return int(ordered[-1])


def check_corpus(corpus: Corpus, folder: Path) -> None:
    """Refuse what nothing can be learnt or judged on.

    Raises:
        TrainingDataError: There are too few documents, or they are in one language.
    """
    if len(corpus.documents) < LEAST_DOCUMENTS:
        raise TrainingDataError(
            f"{folder} holds {counted(len(corpus.documents), 'document')} with text; at least {LEAST_DOCUMENTS} are "
            "needed to train on some and judge on others. The default encoder serves a small collection as it is."
        )
    counts = Counter(corpus.languages.values())
    known = [lang for lang, count in counts.items() if lang != UNDETERMINED and count >= LEAST_IN_LANGUAGE]
    if len(known) < 2:
        found = ", ".join(f"{lang} {count}" for lang, count in counts.most_common(5))
        raise TrainingDataError(
            f"{folder}: documents in one language only ({found}); adapting teaches search across languages and needs "
            f"{LEAST_IN_LANGUAGE} documents or more in each of at least two."
        )


class KnownPassages:
    """An encoder that looks up the vectors of passages that the index holds already.

    Args:
        encoder: Encodes everything else.
        texts: Texts (N) whose vectors (N, D) are known.
        vectors: Their vectors.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str], vectors: Vectors) -> None:
        self._encoder, self._vectors = encoder, vectors
        self._rows = {text: row for row, text in enumerate(texts)}

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (B, D)."""
        return self._encoder.encode_queries(texts)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (B, D)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        found = dict(zip(new, self._encoder.encode_documents(new), strict=True)) if new else {}
        return np.stack([found[text] if text in found else self._vectors[self._rows[text]] for text in texts])


def indexed_texts(corpus: Corpus) -> list[str]:
    """What is indexed of each passage (N): title and headings, then the text."""
    return [passage_text(chunk) for chunk in corpus.chunks]
