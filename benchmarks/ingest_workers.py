"""The jobs that `benchmarks.ingest_bench` measures, each run as a process of its own.

    python -m benchmarks.ingest_workers index-plain DOCUMENTS INDEX ENCODER
    python -m benchmarks.ingest_workers query-plain QUERIES INDEX ENCODER
    python -m benchmarks.ingest_workers query-ours QUERIES INDEX MODE [BALANCE]

The plain side is what one would write first: sentence-transformers with its defaults over pieces of 1000 characters,
and qdrant-client's local mode. The last line of stdout is a JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qdrant_client import QdrantClient
    from sentence_transformers import SentenceTransformer

PIECE_CHARS = 1000
UPSERT_PIECES = 256
COLLECTION = "documents"
TOP = 10
DEPTH = 100
WARM_UP = 5
QUERY_PROMPT, DOCUMENT_PROMPT = "query: ", "passage: "

Ranker = Callable[[str, int], list[str]]
"""From a query's text and a number to that many document ids, best first, without repeats."""


def read_text(path: Path) -> str:
    """The text of a corpus file: HTML through markitdown, anything else as it is."""
    if path.suffix != ".html":
        return path.read_text("utf-8")
    from markitdown import MarkItDown

    return str(MarkItDown(enable_plugins=False).convert_local(path).text_content)


def iter_texts(documents: Path) -> Iterator[tuple[str, str]]:
    """Document ids and texts below a folder."""
    for path in sorted(documents.rglob("*")):
        if path.is_file():
            yield path.relative_to(documents).as_posix(), read_text(path)


def cut(text: str) -> list[str]:
    """Pieces of 1000 characters, without those that hold only space."""
    pieces = (text[start : start + PIECE_CHARS] for start in range(0, len(text), PIECE_CHARS))
    return [piece for piece in pieces if piece.strip()]


def index_plain(documents: Path, index: Path, encoder: str) -> dict[str, object]:
    """Read, cut, encode and store everything."""
    from qdrant_client import QdrantClient, models
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(encoder)
    client = QdrantClient(path=str(index))
    vectors = models.VectorParams(size=_dimension(model), distance=models.Distance.COSINE)
    client.create_collection(COLLECTION, vectors_config=vectors)
    pieces: list[tuple[str, str]] = []
    for document, text in iter_texts(documents):
        pieces += [(document, piece) for piece in cut(text)]
    encoded = model.encode([piece for _, piece in pieces], prompt=DOCUMENT_PROMPT, show_progress_bar=False)
    for start in range(0, len(pieces), UPSERT_PIECES):
        batch = list(zip(range(start, start + UPSERT_PIECES), pieces[start:], encoded[start:], strict=False))
        points = [
            models.PointStruct(id=number, vector=vector.tolist(), payload={"document": document, "text": piece})
            for number, (document, piece), vector in batch
        ]
        client.upsert(COLLECTION, points)
    client.close()
    documents_read = len({document for document, _ in pieces})
    return {"documents": documents_read, "chunks": len(pieces)}


def _dimension(model: SentenceTransformer) -> int:
    dimension = model.get_embedding_dimension()
    if dimension is None:
        raise ValueError("the encoder does not say how long its vectors are; use a SentenceTransformer with pooling")
    return int(dimension)


def open_plain(index: Path, encoder: str) -> Ranker:
    """The plain side, ready for queries."""
    from qdrant_client import QdrantClient
    from sentence_transformers import SentenceTransformer

    model, client = SentenceTransformer(encoder), QdrantClient(path=str(index))

    def rank(text: str, count: int) -> list[str]:
        vector = model.encode(text, prompt=QUERY_PROMPT, show_progress_bar=False).tolist()
        return _best_documents(client, vector, count)

    return rank


def _best_documents(client: QdrantClient, vector: list[float], count: int) -> list[str]:
    """Documents by their best piece; more pieces are fetched until there are enough documents."""
    limit = 4 * count
    while True:
        points = client.query_points(COLLECTION, query=vector, limit=limit, with_payload=["document"]).points
        found = list(dict.fromkeys(str((point.payload or {})["document"]) for point in points))
        if len(found) >= count or len(points) < limit:
            return found[:count]
        limit *= 4


def open_ours(index: Path, mode: str, balance: float | None) -> Ranker:
    """This project's engine, ready for queries."""
    from search.engine import Engine

    engine = Engine.open(index)

    def rank(text: str, count: int) -> list[str]:
        return [hit.document_id for hit in engine.search(text, k=count, mode=mode, balance=balance, fold=False).hits]

    return rank


def answer(rank: Ranker, queries: Path) -> dict[str, object]:
    """Milliseconds of every query for its first ten documents, and (not timed) its first hundred."""
    texts = [json.loads(line)["text"] for line in queries.read_text("utf-8").splitlines()]
    for text in texts[:WARM_UP]:
        rank(text, TOP)
    milliseconds = []
    for text in texts:
        started = time.perf_counter()
        rank(text, TOP)
        milliseconds.append((time.perf_counter() - started) * 1000)
    return {"milliseconds": milliseconds, "rankings": [rank(text, DEPTH) for text in texts]}


def main(arguments: Sequence[str]) -> None:
    """Run one job."""
    job, first, index, *rest = arguments
    result: dict[str, Any]
    if job == "index-plain":
        result = index_plain(Path(first), Path(index), rest[0])
    elif job == "query-plain":
        result = answer(open_plain(Path(index), rest[0]), Path(first))
    else:
        balance = float(rest[1]) if len(rest) > 1 else None
        result = answer(open_ours(Path(index), rest[0], balance), Path(first))
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
