"""Language balance and fair fusion, measured end to end on evaluation sets in BEIR form.

    python -m benchmarks.balance FOLDER [FOLDER ...]

Each folder holds corpus.jsonl(.gz) with `_id`, `lang`, `title`, `text`; queries.jsonl(.gz); qrels.tsv. It is ingested
by the indexer as any user's file would be, languages detected, and searched through the engine in every mode.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.records import describe_run, write_rows
from indexer.build import ingest
from indexer.pipeline import IngestOptions
from indexer.sources import ReadOptions
from search.encoder import load_encoder
from search.engine import Engine
from search.evaluation.metrics import average_precision, ndcg_at_k, own_language_share, recall_at_k
from search.results import Mode
from search.settings import load_settings

DEPTH = 100
SETTINGS: tuple[tuple[Mode, float], ...] = (
    (Mode.DENSE, 0.0), (Mode.DENSE, 0.5), (Mode.DENSE, 0.75), (Mode.DENSE, 1.0), (Mode.LEXICAL, 1.0),
    (Mode.HYBRID, 0.0), (Mode.HYBRID, 0.5), (Mode.HYBRID, 0.75), (Mode.HYBRID, 1.0),
)  # fmt: skip


@dataclass(frozen=True)
class Collection:
    """Documents' languages, queries (id, text, language) and relevant documents by query."""

    name: str
    corpus: Path
    languages: dict[str, str]
    queries: list[tuple[str, str, str]]
    qrels: dict[str, dict[str, float]]


def read_collection(folder: Path, limit: int | None) -> Collection:
    """Read a BEIR folder; at most `limit` queries, chosen at random."""
    corpus = next(path for path in (folder / "corpus.jsonl.gz", folder / "corpus.jsonl") if path.exists())
    languages = {row["_id"]: row["lang"] for row in _rows(corpus)}
    qrels: dict[str, dict[str, float]] = defaultdict(dict)
    with (folder / "qrels.tsv").open(encoding="utf-8") as file:
        for query, document, score in list(csv.reader(file, delimiter="\t"))[1:]:
            if float(score) > 0:
                qrels[query][document] = float(score)
    source = next(path for path in (folder / "queries.jsonl.gz", folder / "queries.jsonl") if path.exists())
    queries = [(row["_id"], row["text"], row["lang"]) for row in _rows(source) if row["_id"] in qrels]
    if limit and len(queries) > limit:  # not every n-th: files that cycle through their languages would lose some
        queries = random.Random(0).sample(queries, limit)
    return Collection(folder.name, corpus, languages, queries, qrels)


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def measure(engine: Engine, collection: Collection, mode: Mode, balance: float) -> dict[str, float]:
    """Mean metrics over the queries, pooled over all languages and within each query's own."""
    sums: dict[str, list[float]] = defaultdict(list)
    for query, text, lang in collection.queries:
        hits = engine.search(text, k=DEPTH, mode=mode, balance=balance, fold=False).hits
        ranked = [hit.document_id.split("#", 1)[1] for hit in hits]
        relevant = collection.qrels[query]
        own = {document: score for document, score in relevant.items() if collection.languages[document] == lang}
        sums["map@100"].append(average_precision(ranked, relevant))
        sums["recall@20"].append(recall_at_k(ranked, relevant, 20))
        sums["ndcg@10"].append(ndcg_at_k(ranked, relevant, 10))
        sums["own@10"].append(own_language_share([collection.languages[document] for document in ranked], lang))
        if own:
            same = [document for document in ranked if collection.languages[document] == lang]
            sums["within_ndcg@10"].append(ndcg_at_k(same, own, 10))
    return {name: sum(values) / len(values) for name, values in sums.items()}


def main() -> None:
    """Measure every folder and write results/balance.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--queries", type=int, default=600, help="at most so many of each collection")
    arguments = parser.parse_args()
    settings = load_settings()
    encoder = load_encoder(settings.encoder, cache_dir=settings.encoders_folder)
    rows = []
    for folder in arguments.folders:
        collection = read_collection(folder, arguments.queries)
        with tempfile.TemporaryDirectory() as temporary:
            target = load_settings(index=str(Path(temporary) / "index"))
            options = IngestOptions(read=ReadOptions(id_column="_id", title_column="title", text_columns=("text",)))
            ingest(collection.corpus, target, options=options, encoder=encoder)
            engine = Engine(target, encoder)
            for mode, balance in SETTINGS:
                row = {"collection": collection.name, "languages": len(set(collection.languages.values())),
                       "queries": len(collection.queries), "mode": str(mode), "balance": balance,
                       **measure(engine, collection, mode, balance)}  # fmt: skip
                print(json.dumps(row), flush=True)
                rows.append(row)
            engine.close()
    write_rows("balance", describe_run("python -m benchmarks.balance FOLDER..."), rows)


if __name__ == "__main__":
    main()
