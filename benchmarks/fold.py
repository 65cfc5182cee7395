"""How well translations are found in corpora that exist in several languages, and what folding them does to a search.

    python -m benchmarks.fold --work FOLDER [--debian DEBIAN] [--faq FAQ] [--udhr FILE] [--tatoeba FILE]

DEBIAN is what `python -m benchmarks.debian_corpus DEBIAN` built (a sample is taken), FAQ a set in BEIR form whose ids
are `language:entry`, FILE of `--udhr` JSON lines with `lang`, `variant`, `section` and `text`, of `--tatoeba` JSON
lines with `pair` and `texts`. The bundled corpus is always measured. Indexes are kept in FOLDER, so that a second run
ingests nothing. No name of a document is seen by what is measured; it is the truth. Writes rows to results/fold.jsonl.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.ingest_bench import choose_documents, group_of, language_of, read_queries
from benchmarks.records import ROOT, describe_run, write_rows
from indexer import build
from indexer.ledger import Ledger
from indexer.pairing import NEIGHBOURS, Neighbours, mutual_nearest, nearest_in_blocks
from indexer.translations import digests_of, update_families
from search.balance import fit_language_map, load_shipped_offsets
from search.diversity import neutral_vectors
from search.encoder import load_encoder
from search.engine import Engine
from search.fold import FAMILIES, FamiliesFile
from search.index import LEDGER, IndexFolder
from search.language import canonical_language
from search.opening import open_index
from search.records import Vectors
from search.settings import Settings, load_settings
from training.evaluation.bitext import match_translations, mining_f1

DEBIAN_DOCUMENTS = 600
UDHR_LANGUAGES = "ar bn de el en es fa fi fr he hi hu id it ja ka ko pl pt ru sw ta th tr uk vi zh ur"
TATOEBA_PAIRS = "deu cmn jpn ara hin tha heb swh kat kor"
SENTENCES = 200
QUERIES = 100
Row = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """Documents below a folder; `truth` gives what a document's translations share, and its language as labelled."""

    name: str
    documents: Path
    truth: Callable[[str], tuple[str, str]]


def judge_pairs(
    families: Sequence[Sequence[str]], detected: Mapping[str, str], truth: Callable[[str], tuple[str, str]]
) -> Row:
    """Precision and recall of pairs of documents in one family, against pairs that are translations.

    Counted are documents whose language was recognised as labelled: the others are mostly left untranslated.
    """
    counted = {
        name for name, lang in detected.items() if canonical_language(truth(name)[1]) == canonical_language(lang)
    }
    groups: dict[str, list[str]] = defaultdict(list)
    for name in counted:
        groups[truth(name)[0]].append(name)
    true = sum(detected[a] != detected[b] for group in groups.values() for a, b in combinations(group, 2))
    found = [(a, b) for family in families for a, b in combinations(family, 2) if {a, b} <= counted]
    right = sum(truth(a)[0] == truth(b)[0] for a, b in found)
    return {
        "documents": len(detected), "counted": len(counted), "families": len(families), "true pairs": true,
        "found pairs": len(found), "precision": round(right / max(len(found), 1), 4),
        "recall": round(right / max(true, 1), 4),
    }  # fmt: skip


def measure_families(corpus: Corpus, settings: Settings) -> Row:
    """Ingest a corpus unless it is, find its families from nothing, and judge them."""
    ingested = build.ingest(corpus.documents, settings)
    generation = IndexFolder(settings.index_folder).current().path
    path = settings.index_folder.parent / f"{corpus.name}.{FAMILIES}"
    path.unlink(missing_ok=True)
    with closing(open_index(settings)) as index, closing(Ledger(generation / LEDGER, read_only=True)) as ledger:
        wall, cpu = time.perf_counter(), time.process_time()
        digests = digests_of(ledger)
        update_families(
            path, store=index.store, digests=digests, language_map=index.language_map, encoder_fingerprint="bench"
        )
        took = {"wall_s": round(time.perf_counter() - wall, 1), "cpu_s": round(time.process_time() - cpu, 1)}
        chunks = index.manifest.chunks
    with closing(FamiliesFile(path)) as families:
        groups = list(families.iter_groups())
    detected = {name: lang for group in groups for lang, name in group.items()}
    judged = judge_pairs([list(g.values()) for g in groups if len(g) > 1], detected, corpus.truth)
    return {"measure": "families", "corpus": corpus.name, "chunks": chunks, **judged, **took,
            "ingest_s": round(ingested.seconds, 1) if ingested.documents else None}  # fmt: skip


def measure_bundled(settings: Settings) -> Row:
    """The bundled corpus has no translations, but topics told in several languages: how many of them are folded."""
    queries = [json.loads(line) for line in (ROOT / "corpus/queries.jsonl").read_text("utf-8").splitlines()]
    told = {frozenset(pair) for query in queries for pair in combinations(query["relevant"], 2)}
    row = measure_families(
        Corpus("bundled", ROOT / "corpus/documents", lambda name: (name, name.split("/")[0])), settings
    )
    with closing(FamiliesFile(settings.index_folder.parent / f"bundled.{FAMILIES}")) as families:
        found = [list(group.values()) for group in families.iter_groups() if len(group) > 1]
    pairs = [frozenset(pair) for family in found for pair in combinations(family, 2)]
    same = sum(pair in told for pair in pairs)
    return {**row, "pairs of one topic": same, "pairs of two topics": len(pairs) - same, "found": found}


def measure_search(corpus: Corpus, settings: Settings, queries: Sequence[tuple[str, str]]) -> Iterator[Row]:
    """What the first ten hits hold with and without folding; a query's answer is the group it is named after."""
    with closing(Engine(settings)) as engine:
        engine.load()
        for fold in (False, True):
            groups, found, own, times = [], [], [], []
            for text, group in queries:
                result = engine.search(text, k=10, fold=fold)
                hits = [corpus.truth(hit.document_id)[0] for hit in result.hits]
                groups.append(len(set(hits)))
                found.append(group in hits)
                own.append(fmean([hit.chunk.lang == result.detection.lang for hit in result.hits]))
                times.append(result.timings_ms["retrieve"])
            yield {
                "measure": "search", "corpus": corpus.name, "fold": fold, "queries": len(queries),
                "different answers in ten": round(fmean(groups), 2), "answer among ten": round(fmean(found), 4),
                "shown in the query's language": round(fmean(own), 4), "retrieve p50, ms": round(median(times), 1),
            }  # fmt: skip


def measure_bitext(file: Path, sentences: int) -> Iterator[Row]:
    """Mining of parallel sentences: the margin of the families against that of the evaluation, on the same vectors."""
    wanted = TATOEBA_PAIRS.split()
    rows: dict[str, list[list[str]]] = defaultdict(list)
    for record in read_lines(file):
        lang = record["pair"].split("-")[0]
        if lang in wanted and len(rows[lang]) < sentences:
            rows[lang].append(record["texts"])
    encoder = load_encoder()
    offsets = load_shipped_offsets(encoder.fingerprint)
    assert offsets is not None, "the built-in encoder comes with offsets"
    language_map = fit_language_map(offsets, None)
    for lang, texts in sorted(rows.items()):
        plain = [encoder.encode_documents([pair[side] for pair in texts]) for side in (0, 1)]
        first, second = (neutral_vectors(language_map, language_map.map_documents(vectors)) for vectors in plain)
        yield {
            "measure": "bitext", "pair": f"{lang}-eng", "sentences": len(texts),
            "accuracy": round(float(match_translations(first, second).forward.mean()), 4),
            "mining F1, evaluation": round(mining_f1(first, second), 4),
            "mining F1, families": round(family_mining_f1(first, second), 4),
            "mining F1, plain cosine space": round(family_mining_f1(*plain), 4),
        }  # fmt: skip


def family_mining_f1(first: Vectors, second: Vectors) -> float:
    """F1 of the mutual best by margin, at the threshold best for it; row i of both belong together."""
    count = len(first)
    languages = np.repeat(np.arange(2, dtype=np.int32), count)
    shape = (2, 2 * count, NEIGHBOURS)
    near = Neighbours(np.full(shape, -1, np.int32), np.zeros(shape, np.float32))
    nearest_in_blocks(np.concatenate([first, second]), languages, near)
    ranked = sorted(mutual_nearest(near, languages), key=lambda pair: -pair[2])
    right, best = 0, 0.0
    for accepted, (one, other, *_) in enumerate(ranked, 1):
        right += other - count == one
        best = max(best, 2 * right / (accepted + count))
    return best


def read_lines(path: Path) -> Iterator[Row]:
    """JSON lines, packed or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def write_table(path: Path, rows: Iterator[tuple[str, str]]) -> None:
    """A table of documents by id."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n" for name, text in rows)
    path.write_text("".join(lines), "utf-8")


def _entry(name: str) -> tuple[str, str]:
    lang, _, entry = name.partition("#")[2].partition(":")
    return entry, lang


def make_faq(folder: Path, work: Path) -> Corpus:
    """A set in BEIR form as a table."""
    rows = read_lines(folder / "corpus.jsonl.gz")
    write_table(work / "faq/faq.jsonl", ((row["_id"], row["text"]) for row in rows))
    return Corpus("faq", work / "faq/faq.jsonl", _entry)


def make_udhr(file: Path, work: Path) -> Corpus:
    """The articles of the declaration of human rights, one variant per language, as a table."""
    rows = [row for row in read_lines(file) if row["section"] > 0]
    lengths = Counter((row["lang"].split("-")[0], row["variant"]) for row in rows)
    chosen = {lang: min(v for (other, v), n in lengths.items() if other == lang and n >= 28)
              for lang in UDHR_LANGUAGES.split()}  # fmt: skip
    kept = ((row["lang"].split("-")[0], row) for row in rows)
    kept = ((lang, row) for lang, row in kept if chosen.get(lang) == row["variant"])
    write_table(work / "udhr/udhr.jsonl", ((f"{lang}:{row['section']}", row["text"]) for lang, row in kept))
    return Corpus("udhr", work / "udhr/udhr.jsonl", _entry)


def make_debian(folder: Path, work: Path) -> Corpus:
    """A sample of Debian's manual pages and books, in whole groups of translations."""
    documents, target = folder / "documents", work / "debian/documents"
    sizes = {
        path.relative_to(documents).as_posix(): path.stat().st_size for path in documents.rglob("*") if path.is_file()
    }
    for name in choose_documents(sizes, read_queries(folder / "queries.jsonl"), DEBIAN_DOCUMENTS, 0):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(documents / name, target / name)
    return Corpus("debian", target, lambda name: (group_of(name), language_of(name)))


def faq_queries(folder: Path, count: int) -> list[tuple[str, str]]:
    """Queries, drawn evenly, with the entry that answers them."""
    rows = list(read_lines(folder / "queries.jsonl.gz"))
    return [(row["text"], row["_id"].split(":", 2)[2]) for row in rows[:: max(1, len(rows) // count)]][:count]


def measure(options: argparse.Namespace) -> Iterator[Row]:
    """Every measurement for which there is data."""

    def settings(name: str) -> Settings:
        return load_settings(index=str(options.work.resolve() / name / "index"))

    yield measure_bundled(settings("bundled"))
    for make, source in ((make_faq, options.faq), (make_udhr, options.udhr), (make_debian, options.debian)):
        if source:
            corpus = make(source, options.work)
            yield measure_families(corpus, settings(corpus.name))
            if source is options.faq:
                yield from measure_search(corpus, settings("faq"), faq_queries(options.faq, QUERIES))
    if options.tatoeba:
        yield from measure_bitext(options.tatoeba, SENTENCES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; prints every row as JSON as soon as it is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps documents and indexes")
    for name in ("debian", "faq", "udhr", "tatoeba"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args(arguments)
    run, rows = describe_run("python -m benchmarks.fold"), []
    for row in measure(options):
        print(json.dumps(row, ensure_ascii=False), flush=True)
        rows.append(row)
    print(write_rows("fold", run, rows), file=sys.stderr)


if __name__ == "__main__":
    main()
