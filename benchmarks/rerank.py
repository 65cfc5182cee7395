"""Reranking, measured end to end: what each reranker gains in each language, and what it costs.

    python -m benchmarks.rerank [FOLDER ...] [--bundled] [--queries 150] [--rerankers none late] [--timed]
        [--stored 128 192] [--indexes FOLDER]

FOLDERs are evaluation sets in BEIR form as in `benchmarks.balance`; `--bundled` takes the corpus of this repository. An
index in `--indexes` is used again. Translations are not folded, so that every relevant document counts. Times are those
of reading 50 passages, or of marking ten hits, for ten queries: passages never read before, and asked again; by
the clock, and of processor time over all threads, which says more where the machine is busy. `--stored` measures late
interaction over token vectors kept with the index, in so many dimensions. A row per set and reranker goes to
results/rerank.jsonl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.balance import Collection, read_collection
from benchmarks.records import ROOT, describe_run, write_rows
from indexer.build import ingest
from indexer.pipeline import IngestOptions
from indexer.sources import ReadOptions
from indexer.token_vectors import update_token_store
from search.encoder import Encoder, load_encoder
from search.engine import Engine
from search.evaluation.metrics import average_precision, ndcg_at_k, own_language_share
from search.index import IndexFolder
from search.opening import token_store_path
from search.rerank import LATE, NONE
from search.settings import Settings, load_settings

DEPTH = 100
TIMED = 10


def read_bundled(limit: int) -> Collection:
    """The bundled corpus and its questions."""
    corpus = ROOT / "corpus" / "documents"
    lines = (ROOT / "corpus" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines][:limit]
    qrels = {row["id"]: dict.fromkeys(row["relevant"], 1.0) for row in rows}
    return Collection("bundled", corpus, {}, [(row["id"], row["text"], row["lang"]) for row in rows], qrels)


def open_collection(collection: Collection, indexes: Path, encoder: Encoder) -> Engine:
    """The collection's index, made when it is not there."""
    settings = load_settings(index=str((indexes / collection.name).resolve()))
    if IndexFolder(settings.index_folder).current_number() is None:
        columns = ReadOptions(id_column="_id", title_column="title", text_columns=("text",))
        read = ReadOptions() if collection.corpus.is_dir() else columns
        ingest(collection.corpus, settings, options=IngestOptions(read=read), encoder=encoder)
    return Engine(settings, encoder)


def measure(engine: Engine, collection: Collection, reranker: str) -> dict[str, object]:
    """Means over the queries, and their mAP and median milliseconds (of the whole search) by language."""
    sums: dict[str, list[float]] = defaultdict(list)
    by_language: dict[str, list[float]] = defaultdict(list)
    taken: dict[str, list[float]] = defaultdict(list)
    for query, text, lang in collection.queries:
        result = engine.search(text, k=DEPTH, rerank=reranker, fold=False)
        hits = result.hits
        taken[lang].append(result.timings_ms["total"])
        relevant = collection.qrels[query]
        ids = [hit.document_id for hit in hits]  # those of a set in one file begin with the file's name
        ranked = [found if found in relevant else found.split("#", 1)[-1] for found in ids]
        sums["map@100"].append(average_precision(ranked, relevant))
        sums["ndcg@10"].append(ndcg_at_k(ranked, relevant, 10))
        sums["own@10"].append(own_language_share([hit.chunk.lang for hit in hits], lang))
        by_language[lang].append(sums["map@100"][-1])
    row: dict[str, object] = {name: statistics.fmean(found) for name, found in sums.items()}
    row["map_by_language"] = {lang: statistics.fmean(found) for lang, found in sorted(by_language.items())}
    return row | {"ms_by_language": {lang: round(statistics.median(found), 1) for lang, found in sorted(taken.items())}}


def store_tokens(settings: Settings, encoder: Encoder, dimension: int | None) -> dict[str, object]:
    """Make the index hold token vectors of that many dimensions, or none; what they take."""
    path = token_store_path(settings)
    path.unlink(missing_ok=True)
    if dimension is None:
        return {}
    passages = update_token_store(settings, encoder, dimension=dimension)
    return {"stored_dimensions": dimension, "kilobytes_a_passage": round(path.stat().st_size / passages / 1000, 1)}


def measure_time(
    settings: Settings, encoder: Encoder, collection: Collection, reranker: str, stage: str
) -> dict[str, float]:
    """Median milliseconds that a stage (`rerank` or `highlight`) takes for a page, the first and the second time.

    A fresh engine for every query has read nothing before. Processor time is that of the whole search less that of the
    same one without the stage.
    """
    found: dict[str, list[float]] = defaultdict(list)
    for _, text, _ in collection.queries[:TIMED]:
        fresh = Engine(settings, encoder)
        fresh.search(text, fold=False, rerank=NONE)
        plain = _processor_ms(fresh, text, NONE, False)[1]
        for when in ("first", "again"):
            clock, processor = _processor_ms(fresh, text, reranker, stage == "highlight", stage)
            found[f"{stage}_{when}_ms"].append(clock)
            found[f"{stage}_{when}_processor_ms"].append(max(0.0, processor - plain))
        fresh.close()
    return {name: statistics.median(values) for name, values in found.items()}


def _processor_ms(
    engine: Engine, text: str, reranker: str, highlight: bool, stage: str = "total"
) -> tuple[float, float]:
    """Milliseconds of a stage by the clock, and of the whole search in processor time."""
    before = time.process_time()
    result = engine.search(text, fold=False, rerank=reranker, highlight=highlight)
    return result.timings_ms[stage], (time.process_time() - before) * 1000


def _flags(arguments: argparse.Namespace) -> list[str]:
    flags = ["--bundled"] if arguments.bundled else []
    flags += ["--queries", str(arguments.queries), "--rerankers", *arguments.rerankers]
    flags += ["--stored", *map(str, arguments.stored)] if arguments.stored else []
    return [*flags, "--timed"] if arguments.timed else flags


def main() -> None:
    """Measure every set and write results/rerank.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--bundled", action="store_true", help="the corpus of this repository too")
    parser.add_argument("--queries", type=int, default=150, help="at most so many of each set")
    parser.add_argument("--rerankers", nargs="+", default=[NONE, LATE])
    parser.add_argument("--stored", nargs="*", type=int, default=[], help="dimensions of stored token vectors")
    parser.add_argument("--timed", action="store_true", help="measure times too")
    parser.add_argument("--indexes", type=Path, default=None, help="folder of indexes to use again")
    arguments = parser.parse_args()
    settings = load_settings()
    encoder = load_encoder(settings.encoder, threads=settings.threads, cache_dir=settings.encoders_folder)
    collections = [read_bundled(arguments.queries)] if arguments.bundled else []
    collections += [read_collection(folder, arguments.queries) for folder in arguments.folders]
    run = describe_run(
        "python -m benchmarks.rerank " + " ".join(["FOLDER"] * len(arguments.folders) + _flags(arguments))
    )
    with tempfile.TemporaryDirectory() as temporary:
        for collection in collections:
            engine = open_collection(collection, arguments.indexes or Path(temporary), encoder)
            computed = [(reranker, None) for reranker in arguments.rerankers]
            for reranker, stored in [*computed, *((LATE, dimension) for dimension in arguments.stored)]:
                row = {"collection": collection.name, "queries": len(collection.queries), "reranker": reranker}
                row |= store_tokens(engine.settings, encoder, stored)
                engine.close()
                engine = Engine(engine.settings, encoder)  # one that was open would go on with the vectors of before
                stage = "highlight" if reranker == NONE else "rerank"
                row |= measure(engine, collection, reranker)
                row |= measure_time(engine.settings, encoder, collection, reranker, stage) if arguments.timed else {}
                print(json.dumps(row, ensure_ascii=False), flush=True)
                write_rows("rerank", run, [row])
            engine.close()


if __name__ == "__main__":
    main()
