"""Queries typed in Latin letters: found as typed against found when read in their own script, and what is read wrongly.

    python -m benchmarks.transliteration [ENCODER...] [--eval FOLDER...]

`transliterated_queries.tsv` holds bundled queries as people would type them without their keyboard, written by hand
and not by the romanisation that reads them. The bundled corpus is ingested and searched through the engine, with each
encoder; from the second on, rows have the paired difference of mAP to the first. With `--eval`, queries of sets in BEIR
form are romanised by the tables that training uses, and vectors alone compared: many queries, but nobody types so.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.code_switching import measure as measure_sets
from benchmarks.code_switching import read_sets
from benchmarks.records import ROOT, describe_run, write_rows
from indexer.build import ingest
from search.encoder import load_encoder
from search.engine import Engine
from search.evaluation.metrics import average_precision, recall_at_k
from search.evaluation.significance import paired_bootstrap
from search.settings import DEFAULT_ENCODER, load_settings
from search.text import script_counts
from search.words import IndexWords
from training.latin import to_latin

TYPED = Path(__file__).parent / "transliterated_queries.tsv"
DEPTH = 20
Query = Mapping[str, Any]


def measure(
    engine: Engine, queries: Sequence[Query], texts: Mapping[str, str]
) -> tuple[dict[str, dict[str, float]], list[float]]:
    """By language and for `all`: queries, hit rate and recall in the first ten, mAP of the first twenty; and its parts.

    The parts are the average precision of each query.
    """
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    precisions: list[float] = []
    for query in queries:
        ranked = [hit.document_id for hit in engine.search(texts[query["id"]], k=DEPTH).hits]
        recall = recall_at_k(ranked, query["relevant"], 10)
        precisions.append(average_precision(ranked, query["relevant"]))
        for group in (query["lang"], "all"):
            sums[group]["queries"] += 1
            sums[group]["hit@10"] += recall > 0
            sums[group]["recall@10"] += recall
            sums[group]["map"] += precisions[-1]
    means = {
        group: {name: value if name == "queries" else value / found["queries"] for name, value in found.items()}
        for group, found in sums.items()
    }
    return means, precisions


@contextmanager
def as_typed() -> Iterator[None]:
    """Searches that read nothing in another script."""
    with patch.object(IndexWords, "transliterate", lambda *_: None):
        yield


def read_wrongly(engine: Engine, queries: Sequence[Query]) -> dict[str, float]:
    """How many queries of languages in Latin letters, whole and cut to 1 to 4 words, are read in another script."""
    latin = [query["text"] for query in queries if set(script_counts(query["text"])) == {"Latn"}]
    rng, windows = random.Random(0), set()
    for text in latin:
        words = text.split()
        for length in range(1, min(4, len(words)) + 1):
            start = rng.randrange(len(words) - length + 1)
            windows.add(" ".join(words[start : start + length]))
    counts = {}
    for name, texts in (("whole", latin), ("windows", sorted(windows))):
        changed = [text for text in texts if engine.search(text, k=1).interpretation.rewritten]
        counts |= {name: len(texts), f"{name}_read": len(changed)}
        print(name, len(changed), "of", len(texts), changed[:20])
    return counts


def measure_encoder(name: str, first: dict[str, list[float]]) -> Iterator[dict[str, object]]:
    """Rows of an encoder; `first` keeps the average precisions of the first one, by how queries are asked."""
    lines = (ROOT / "corpus" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line) for line in lines]
    typed = dict(line.split("\t") for line in TYPED.read_text(encoding="utf-8").splitlines())
    chosen = [query for query in queries if query["id"] in typed]
    native = {query["id"]: query["text"] for query in chosen}
    encoder = load_encoder(name, cache_dir=load_settings().encoders_folder)
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(index=f"{folder}/index")
        ingest(ROOT / "corpus" / "documents", settings, encoder=encoder)
        engine = Engine(settings, encoder)
        for form, texts in (("own script", native), ("Latin, as typed", typed), ("Latin, read", typed)):
            started = time.perf_counter()
            with as_typed() if form == "Latin, as typed" else nullcontext():
                found, precisions = measure(engine, chosen, texts)
            milliseconds = round(1000 * (time.perf_counter() - started) / len(chosen))
            found["all"] |= _difference(first.setdefault(form, precisions), precisions)
            for lang, figures in found.items():
                yield {"encoder": encoder.name, "queries_as": form, "lang": lang, "ms": milliseconds, **figures}
            print(encoder.name, form, milliseconds, "ms", found["all"])
        yield {"encoder": encoder.name, "queries_as": "read wrongly", **read_wrongly(engine, queries)}
        engine.close()


def _difference(first: list[float], second: list[float]) -> dict[str, float]:
    """Of mAP to the first encoder's, with its 95 % interval; nothing for the first."""
    if first is second:
        return {}
    found = paired_bootstrap(first, second)
    return {"map_against_first": found.mean, "low": found.low, "high": found.high}


def main() -> None:
    """Measure, print and append to results/transliteration.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoders", nargs="*", default=[DEFAULT_ENCODER], help="names or folders; first the baseline")
    parser.add_argument("--eval", nargs="+", type=Path, default=[], help="evaluation sets in BEIR form, in their place")
    options = parser.parse_args()
    if options.eval:
        sets = read_sets(options.eval)
        rows = list(measure_sets(options.encoders, sets, lambda query: to_latin(query.text), name="romanised"))
    else:
        first: dict[str, list[float]] = {}
        rows = [row for name in options.encoders for row in measure_encoder(name, first)]
    command = f"python -m benchmarks.transliteration {' '.join(options.encoders)}"
    write_rows("transliteration", describe_run(command + (" --eval ..." if options.eval else "")), rows)


if __name__ == "__main__":
    main()
