"""Smaller vectors: what fewer dimensions, int8 and one bit a dimension cost, per language.

    python -m benchmarks.compression [FOLDER ...] [--cache FOLDER]

The bundled corpus and evaluation sets in BEIR form, by exact search over what an index would store: vectors with the
language taken out (`search.balance`), at the default balance. Documents are ranked by their best passage.

    first K dimensions  of the stored vectors, renormalised: what the encoder was trained for (Kusupati et al., 2022,
                        "Matryoshka Representation Learning")
    K components        principal components of the stored vectors, found on the documents searched
    int8                every dimension scaled by its largest value among the documents; queries in float
    binary              the sign of every dimension after removal of the documents' mean, on both sides
    binary documents    the same with the query in float
    ..., rescored       the best 4 k of binary by the float vectors, which lie on disk
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.records import ROOT, describe_run, write_rows
from search.encoder import load_encoder
from search.evaluation.metrics import average_precision, ndcg_at_k, recall_at_k
from search.evaluation.questions import Question, read_questions, resolve
from search.records import Vectors
from search.settings import load_settings
from training.evaluation.retrieval import top_rows
from training.evaluation.sets import RetrievalSet, load_set
from training.evaluation.vectors import AffineEncoder, CachedEncoder, TextEncoder
from training.synthesis.documents import ReadCounts, iter_source_documents

DEPTH, FIRST = 100, 10
OVERSAMPLING = 4
DIMENSIONS = (256, 128, 64)
LEAST_QUERIES = 5
"""A language with fewer queries has no row of its own."""
Scorer = Callable[[int], Vectors]
"""Scores (Q, N) of every passage, of which the first so many will be looked at."""


@dataclass(frozen=True)
class Collection:
    """Passages with their languages and documents, the passages of a document together, and judged queries."""

    name: str
    texts: tuple[str, ...]
    langs: tuple[str, ...]
    owners: tuple[str, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Form:
    """A way to store vectors: its name, bytes a passage in memory, and the scores that it gives."""

    name: str
    bytes_each: int
    scores: Scorer


def read_bundled(tokenizer_of: str) -> Collection:
    """The corpus of the repository, cut as for the index."""
    settings = load_settings()
    tokenizer = load_encoder(tokenizer_of, cache_dir=settings.encoders_folder).tokenizer
    found = sorted(
        iter_source_documents(ROOT / "corpus" / "documents", tokenizer=tokenizer, counts=ReadCounts()),
        key=lambda document: document.id,
    )
    questions = resolve(read_questions(ROOT / "corpus" / "queries.jsonl"), {document.id for document in found})
    return Collection(
        name="bundled corpus",
        texts=tuple(document.passage for document in found),
        langs=tuple(document.lang for document in found),
        owners=tuple(document.id for document in found),
        questions=tuple(questions.questions),
    )


def read_set(folder: Path, limit: int) -> Collection:
    """An evaluation set; its documents are passages of their own."""
    found = load_set(folder, limit)
    if not isinstance(found, RetrievalSet):
        raise SystemExit(f"{folder}: not a retrieval set")
    return Collection(
        name=found.name,
        texts=tuple(document.text for document in found.documents),
        langs=tuple(document.lang for document in found.documents),
        owners=tuple(document.id for document in found.documents),
        questions=tuple(Question(query.id, query.text, query.lang, found.qrels[query.id]) for query in found.queries),
    )


def map_sides(encoder: TextEncoder, collection: Collection) -> tuple[Vectors, Vectors]:
    """Queries (Q, D) and passages (N, D) as the engine would compare them."""
    mapped = AffineEncoder.as_engine(encoder).for_documents(collection.texts, collection.langs)
    queries = mapped.encode_queries([question.text for question in collection.questions])
    return queries, mapped.encode_documents(collection.texts)


def iter_forms(encoder: TextEncoder, collection: Collection) -> Iterator[Form]:
    """Every way to store the collection's vectors, the present one first."""
    queries, stored = map_sides(encoder, collection)
    yield Form(f"float32, {encoder.dimension}", 4 * encoder.dimension, _dot(queries, stored))
    for dimension in DIMENSIONS:
        yield Form(
            f"first {dimension} dimensions", 4 * dimension, _dot(queries[:, :dimension], _cut(stored, dimension))
        )
    for dimension in DIMENSIONS:
        asked, kept = _components(queries, stored, dimension)
        yield Form(f"{dimension} components", 4 * dimension, _dot(asked, kept))
        yield Form(f"{dimension} components, int8", dimension, _dot(asked, _as_int8(kept)))
    yield Form(f"int8, {encoder.dimension}", encoder.dimension, _dot(queries, _as_int8(stored)))
    centre = stored.mean(axis=0)
    signs, asked = _signs(stored - centre), _signs(queries - centre)
    yield Form("binary", encoder.dimension // 8, _dot(asked, signs))
    yield Form("binary documents", encoder.dimension // 8, _dot(queries, signs))
    for name, coarse in (("binary", asked @ signs.T), ("binary documents", queries @ signs.T)):
        yield Form(f"{name}, rescored", encoder.dimension // 8, _rescored(coarse, queries @ stored.T))


def _dot(queries: Vectors, stored: Vectors) -> Scorer:
    scores = np.asarray(queries @ stored.T, np.float32)
    return lambda depth: scores


def _rescored(coarse: Vectors, fine: Vectors) -> Scorer:
    """The best `OVERSAMPLING` x depth by the coarse scores, in the order of the fine ones."""

    def scores(depth: int) -> Vectors:
        rows = top_rows(coarse, OVERSAMPLING * depth)
        found = np.full_like(fine, -np.inf)
        np.put_along_axis(found, rows, np.take_along_axis(fine, rows, axis=1), axis=1)
        return found

    return scores


def _cut(vectors: Vectors, dimension: int) -> Vectors:
    """The first dimensions, of unit length again."""
    cut = vectors[:, :dimension]
    return np.asarray(cut / np.linalg.norm(cut, axis=1, keepdims=True), np.float32)


def _components(queries: Vectors, stored: Vectors, dimension: int) -> tuple[Vectors, Vectors]:
    """Both sides along the directions in which the stored vectors vary most."""
    _, _, directions = np.linalg.svd(stored, full_matrices=False)
    kept = directions[:dimension].T
    return queries @ kept, stored @ kept


def _as_int8(vectors: Vectors) -> Vectors:
    """Rounded to 255 steps a dimension, and back."""
    steps = np.abs(vectors).max(axis=0) / 127
    return np.asarray(np.round(vectors / steps) * steps, np.float32)


def _signs(vectors: Vectors) -> Vectors:
    return np.where(vectors > 0, 1, -1).astype(np.float32)


def score(collection: Collection, form: Form) -> dict[str, dict[str, float]]:
    """Figures by query language, and of all queries under `all`."""
    starts = [
        place for place, owner in enumerate(collection.owners) if place == 0 or owner != collection.owners[place - 1]
    ]
    documents = [collection.owners[start] for start in starts]
    shallow, deep = (np.maximum.reduceat(form.scores(depth), starts, axis=1) for depth in (FIRST, DEPTH))
    figures: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for row, question in enumerate(collection.questions):
        first = [documents[column] for column in top_rows(shallow[row][None], FIRST)[0]]
        ranked = [documents[column] for column in top_rows(deep[row][None], DEPTH)[0]]
        found = (recall_at_k(first, question.relevant, FIRST), ndcg_at_k(first, question.relevant, FIRST),
                 average_precision(ranked, question.relevant))  # fmt: skip
        figures["all"].append(found)
        figures[question.lang].append(found)
    return {lang: _means(rows) for lang, rows in figures.items() if lang == "all" or len(rows) >= LEAST_QUERIES}


def _means(rows: Sequence[tuple[float, float, float]]) -> dict[str, float]:
    values = np.mean(rows, axis=0).round(4).tolist()
    return {"queries": len(rows), **dict(zip(("recall@10", "ndcg@10", "map@100"), values, strict=True))}


def iter_rows(collection: Collection, encoder: TextEncoder) -> Iterator[dict[str, object]]:
    """A row for each form and query language."""
    for form in iter_forms(encoder, collection):
        figures: Mapping[str, Mapping[str, float]] = score(collection, form)
        print(f"{collection.name:18} {form.name:28} {form.bytes_each:5} {figures['all']}", flush=True)
        for lang, values in figures.items():
            yield {"collection": collection.name, "passages": len(collection.texts), "form": form.name,
                   "bytes": form.bytes_each, "lang": lang, **values}  # fmt: skip


def main() -> None:
    """Measure and append to results/compression.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="evaluation sets in BEIR form")
    parser.add_argument("--queries", type=int, default=400, help="at most so many of a set")
    parser.add_argument("--cache", type=Path, help="folder that keeps vectors between runs")
    arguments = parser.parse_args()
    settings = load_settings()
    loaded = load_encoder(settings.encoder, threads=settings.threads, cache_dir=settings.encoders_folder)
    encoder = CachedEncoder(loaded, arguments.cache)
    run = describe_run("python -m benchmarks.compression FOLDER...")
    collections = [
        read_bundled(settings.encoder),
        *(read_set(folder, arguments.queries) for folder in arguments.folders),
    ]
    for collection in collections:
        write_rows("compression", run, [{"encoder": loaded.name, **row} for row in iter_rows(collection, encoder)])


if __name__ == "__main__":
    main()
