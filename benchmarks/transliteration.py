"""Queries typed in Latin letters: found as typed against found when read in their own script, and what is read wrongly.

    python -m benchmarks.transliteration

`transliterated_queries.tsv` holds bundled queries as people would type them without their keyboard, written by hand
and not by the romanisation that reads them. The bundled corpus is ingested and searched through the engine.
"""

from __future__ import annotations

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

from benchmarks.records import ROOT, describe_run, write_rows
from indexer.build import ingest
from search.encoder import load_encoder
from search.engine import Engine
from search.evaluation.metrics import average_precision, recall_at_k
from search.settings import load_settings
from search.text import script_counts
from search.words import IndexWords

TYPED = Path(__file__).parent / "transliterated_queries.tsv"
DEPTH = 20
Query = Mapping[str, Any]


def measure(engine: Engine, queries: Sequence[Query], texts: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """By language and for `all`: queries, hit rate and recall in the first ten, mAP of the first twenty."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for query in queries:
        ranked = [hit.document_id for hit in engine.search(texts[query["id"]], k=DEPTH).hits]
        recall = recall_at_k(ranked, query["relevant"], 10)
        for group in (query["lang"], "all"):
            sums[group]["queries"] += 1
            sums[group]["hit@10"] += recall > 0
            sums[group]["recall@10"] += recall
            sums[group]["map"] += average_precision(ranked, query["relevant"])
    return {
        group: {name: value if name == "queries" else value / found["queries"] for name, value in found.items()}
        for group, found in sums.items()
    }


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


def main() -> None:
    """Measure, print and append to results/transliteration.jsonl."""
    lines = (ROOT / "corpus" / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    queries = [json.loads(line) for line in lines]
    typed = dict(line.split("\t") for line in TYPED.read_text(encoding="utf-8").splitlines())
    chosen = [query for query in queries if query["id"] in typed]
    encoder = load_encoder(cache_dir=load_settings().encoders_folder)
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(index=f"{folder}/index")
        ingest(ROOT / "corpus" / "documents", settings, encoder=encoder)
        engine = Engine(settings, encoder)
        rows: list[dict[str, object]] = []
        native = {query["id"]: query["text"] for query in chosen}
        for name, texts in (("own script", native), ("Latin, as typed", typed), ("Latin, read", typed)):
            started = time.perf_counter()
            with as_typed() if name == "Latin, as typed" else nullcontext():
                found = measure(engine, chosen, texts)
            seconds = (time.perf_counter() - started) / len(chosen)
            for lang, figures in found.items():
                rows.append({"queries_as": name, "lang": lang, "ms": round(1000 * seconds), **figures})
            print(name, round(1000 * seconds), "ms", found["all"])
        rows.append({"queries_as": "read wrongly", **read_wrongly(engine, queries)})
        engine.close()
    write_rows("transliteration", describe_run("python -m benchmarks.transliteration"), rows)


if __name__ == "__main__":
    main()
