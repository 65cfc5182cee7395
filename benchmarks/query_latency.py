"""Query to hits over a large index, against the obvious alternative in the same run.

    python -m benchmarks.query_latency CORPUS --queries FILE [--index FOLDER] [--alternative-chunks 20000]

CORPUS is ingested as any user's file would be (or an index that exists is used again). Ours is the whole engine:
detect, encode, balance, retrieve, fuse. The alternative is sentence-transformers' `encode` and qdrant-client's local
mode over the same chunks with their payload, cosine, top 10.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from benchmarks.records import describe_run, write_rows
from indexer.build import ingest
from search.encoder import load_encoder
from search.engine import Engine
from search.index import IndexFolder
from search.results import Mode
from search.settings import load_settings
from search.store.payload import to_payload

UPLOAD_BATCH = 1000


def read_queries(path: Path, count: int) -> list[str]:
    """The first `count` texts of a JSONL(.gz) file with `text`."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in islice(lines, count)]


def measure(ask: Callable[[str], object], queries: list[str]) -> dict[str, float]:
    """Milliseconds per query at the median and the 95th percentile, after a warm-up."""
    for query in queries[:10]:
        ask(query)
    taken = []
    for query in queries:
        started = time.perf_counter()
        ask(query)
        taken.append((time.perf_counter() - started) * 1000)
    return {"p50_ms": round(statistics.median(taken), 2), "p95_ms": round(statistics.quantiles(taken, n=20)[18], 2)}


def measure_ours(engine: Engine, queries: list[str]) -> Iterator[dict[str, object]]:
    """A row per mode."""
    engine.load()
    for mode in Mode:
        figures = measure(lambda query, mode=mode: engine.search(query, mode=mode), queries)  # type: ignore[misc]
        yield {"what": f"ours, {mode}", "chunks": engine.index().manifest.chunks, **figures}


def measure_alternative(engine: Engine, folder: Path, queries: list[str], most: int) -> dict[str, object]:
    """Upload the index's chunks to local mode and ask it."""
    from qdrant_client import QdrantClient, models
    from sentence_transformers import SentenceTransformer

    index = engine.index()
    model = SentenceTransformer(str(folder), device="cpu")
    client = QdrantClient(":memory:")
    size = models.VectorParams(size=index.store.dimension, distance=models.Distance.COSINE)
    client.create_collection("plain", vectors_config=size)
    points = islice(index.store.iter_points(with_vectors=True), most)
    count = 0
    while batch := list(islice(points, UPLOAD_BATCH)):
        made = [models.PointStruct(id=p.chunk.id, vector=p.dense.tolist(), payload=to_payload(p.chunk)) for p in batch]
        client.upsert("plain", made)
        count += len(batch)

    def ask(query: str) -> object:
        return client.query_points("plain", query=model.encode(f"query: {query}").tolist(), limit=10).points

    what = "sentence-transformers and qdrant-client local mode, dense"
    return {"what": what, "chunks": count, **measure(ask, queries)}


def main() -> None:
    """Measure and write results/query-latency.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--index", type=Path, default=None)
    parser.add_argument("--alternative-chunks", type=int, default=1_000_000)
    arguments = parser.parse_args()
    home = load_settings()
    encoder = load_encoder(home.encoder, cache_dir=home.encoders_folder)
    with tempfile.TemporaryDirectory() as temporary:
        settings = load_settings(index=str((arguments.index or Path(temporary) / "index").resolve()))
        if IndexFolder(settings.index_folder).current_number() is None:
            summary = ingest(arguments.corpus, settings, encoder=encoder)
            print(f"{summary.chunks} chunks in {summary.seconds:.0f} s", flush=True)
        engine = Engine(settings, encoder)
        queries = read_queries(arguments.queries, arguments.count)
        rows = list(measure_ours(engine, queries))
        encoders = home.encoders_folder
        folder = next(path.parent for path in sorted(encoders.rglob("modules.json")))
        rows.append(measure_alternative(engine, folder, queries, arguments.alternative_chunks))
        engine.close()
    for row in rows:
        row["against_alternative"] = round(rows[-1]["p50_ms"] / row["p50_ms"], 2)  # type: ignore[operator]
        print(json.dumps(row), flush=True)
    write_rows("query-latency", describe_run("python -m benchmarks.query_latency CORPUS --queries FILE"), rows)


if __name__ == "__main__":
    main()
