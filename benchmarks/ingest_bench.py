"""Ingest and search real documents, beside the obvious alternative on the same files, in one run.

    python -m benchmarks.debian_corpus OUT
    python -m benchmarks.ingest_bench --corpus OUT [--documents 600] [--full]

Ours: `indexer ingest` and `search.engine`. The alternative: sentence-transformers `encode` with defaults and
qdrant-client's local mode (benchmarks/ingest_workers.py), with the same encoder. Each job is a process of its own; its
peak memory is that of the whole process tree. Both sides see the same sample of the corpus; with `--full` ours also
ingests all of it. Writes results/ingest.jsonl and results/ingest.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

from benchmarks.ingest_workers import iter_texts
from benchmarks.processes import Job, folder_bytes, run_job
from benchmarks.records import RESULTS, describe_run, write_rows
from search.encoder.loading import resolve
from search.evaluation.metrics import average_precision, ndcg_at_k, own_language_share, recall_at_k
from search.settings import load_settings

MIN_TIMED_QUERIES = 200
SHARE_WITH_QUERIES = 2 / 3
VARIANTS = (("hybrid", 0.0), ("dense", None), ("dense", 0.0), ("lexical", None))
Row = dict[str, Any]


@dataclass(frozen=True)
class Query:
    """A query, its language, and the relevant documents."""

    text: str
    lang: str
    relevant: frozenset[str]


def language_of(document: str) -> str:
    """Language of a document of the corpus, from its id.

    >>> language_of("man/pt-BR/1/ls.txt")
    'pt-BR'
    """
    return document.split("/")[1]


def group_of(document: str) -> str:
    """What a document's translations share.

    >>> group_of("man/pt-BR/1/ls.txt")
    'man/1/ls.txt'
    """
    kind, _, rest = document.split("/", 2)
    return f"{kind}/{rest}"


def read_queries(path: Path) -> list[Query]:
    """Queries of a corpus."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [Query(row["text"], row["lang"], frozenset(row["relevant"])) for row in rows]


def choose_documents(sizes: Mapping[str, int], queries: Iterable[Query], documents: int, max_bytes: int) -> list[str]:
    """About `documents` ids, in whole groups of translations, two thirds of them from groups that have queries.

    Args:
        sizes: Bytes of every document by id.
        queries: The corpus's queries.
        documents: How many documents to choose.
        max_bytes: Stop before the chosen documents are larger than this; 0 for no limit.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for document in sizes:
        groups[group_of(document)].append(document)
    asked = {group_of(document) for query in queries for document in query.relevant}
    order = sorted(groups, key=lambda group: hashlib.blake2b(group.encode()).digest())
    chosen: list[str] = []
    total = 0
    for wanted, share in ((True, SHARE_WITH_QUERIES), (False, 1.0)):
        for group in order:
            size = sum(sizes[document] for document in groups[group])
            if len(chosen) >= documents * share:
                break
            if (group in asked) is wanted and (not max_bytes or total + size <= max_bytes):
                chosen += groups[group]
                total += size
    return sorted(chosen)


def answerable(queries: Iterable[Query], documents: Iterable[str]) -> list[Query]:
    """Queries that have relevant documents in at least two languages of the sample; the others are not relevant."""
    present = frozenset(documents)
    kept = (Query(query.text, query.lang, query.relevant & present) for query in queries)
    return [query for query in kept if len({language_of(document) for document in query.relevant}) >= 2]


def judge(queries: Sequence[Query], rankings: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean quality over all queries, all languages in one pool.

    `cross_ndcg@10` leaves the documents in the query's own language out of ranking and judgements.
    """
    values: dict[str, list[float]] = defaultdict(list)
    for query, ranked in zip(queries, rankings, strict=True):
        values["ndcg@10"].append(ndcg_at_k(ranked, dict.fromkeys(query.relevant, 1.0), 10))
        values["recall@20"].append(recall_at_k(ranked, query.relevant, 20))
        values["map"].append(average_precision(ranked, query.relevant))
        values["own_language@10"].append(own_language_share([language_of(hit) for hit in ranked], query.lang))
        foreign = [hit for hit in ranked if language_of(hit) != query.lang]
        others = {hit: 1.0 for hit in query.relevant if language_of(hit) != query.lang}
        values["cross_ndcg@10"].append(ndcg_at_k(foreign, others, 10))
    return {name: round(fmean(numbers), 4) for name, numbers in values.items()}


@dataclass
class Bench:
    """One run: a sample of documents with its queries, and the rows measured so far."""

    work: Path
    documents: Path
    ids: list[str]
    queries: list[Query]
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        repeats = -(-MIN_TIMED_QUERIES // len(self.queries))
        lines = [json.dumps({"text": query.text}, ensure_ascii=False) + "\n" for query in self.queries]
        self.query_file = self.work / "queries.jsonl"
        self.query_file.write_text("".join(lines * repeats), "utf-8")
        self.text_bytes = sum(len(text.encode("utf-8", "replace")) for _, text in iter_texts(self.documents))

    def measure(self, side: str, index: Path, ingest: Sequence[str], query: Sequence[str]) -> None:
        """Ingest, then answer all queries, each in a process of its own; adds a row."""
        say(f"{side}: ingest of {len(self.ids)} documents ...")
        built = run_job(ingest)
        say(f"{side}: ingest took {built.seconds:.0f} s; queries ...")
        chunks = int(built.result.get("chunks", 0))
        answered, quality = self._ask(query)
        row: Row = {
            "side": side, "documents": int(built.result.get("documents", len(self.ids))), "chunks": chunks,
            "text_mb": round(self.text_bytes / 1e6, 2), "ingest_s": round(built.seconds, 1),
            "text_mb_per_s": round(self.text_bytes / 1e6 / built.seconds, 4),
            "chunks_per_s": round(chunks / built.seconds, 2), "ingest_peak_mb": round(built.peak_bytes / 1e6),
            "query_peak_mb": round(answered.peak_bytes / 1e6), "index_mb": round(folder_bytes(index) / 1e6, 1),
            "skipped": len(built.result.get("skipped", ())), "languages": built.result.get("languages", {}),
        }  # fmt: skip
        self.rows.append(row | quality)

    def measure_quality(self, side: str, query: Sequence[str]) -> None:
        """Answer all queries with other options; adds a row."""
        self.rows.append({"side": side, "documents": len(self.ids), **self._ask(query)[1]})

    def _ask(self, command: Sequence[str]) -> tuple[Job, Row]:
        answered = run_job(command)
        times = quantiles(answered.result["milliseconds"], n=20)
        quality: Row = {
            "queries": len(self.queries), "timed_queries": len(answered.result["milliseconds"]),
            "query_p50_ms": round(times[9], 2), "query_p95_ms": round(times[18], 2),
        }  # fmt: skip
        return answered, quality | judge(self.queries, answered.result["rankings"][: len(self.queries)])

    def ours(self, side: str, *, variants: bool) -> None:
        """This project, with its defaults and (quality only) in its other modes."""
        index = self.work / "ours"
        query = [*_worker("query-ours"), str(self.query_file), str(index)]
        self.measure(
            side, index, [*_indexer(), str(self.documents), "--index", str(index), "--json"], [*query, "hybrid"]
        )
        for mode, balance in VARIANTS if variants else ():
            name = f"{side}: {mode}" + ("" if balance is None else f", balance {balance:g}")
            self.measure_quality(name, [*query, mode, *([] if balance is None else [str(balance)])])

    def plain(self, side: str, encoder: Path) -> None:
        """The alternative."""
        index = self.work / "plain"
        ingest = [*_worker("index-plain"), str(self.documents), str(index), str(encoder)]
        self.measure(side, index, ingest, [*_worker("query-plain"), str(self.query_file), str(index), str(encoder)])


def _worker(job: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.ingest_workers", job]


def _indexer() -> list[str]:
    return [sys.executable, "-m", "indexer.cli", "ingest"]


def link_documents(corpus: Path, ids: Iterable[str], folder: Path) -> None:
    """Copy the chosen documents into a folder of their own."""
    for document in ids:
        target = folder / document
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(corpus / document, target)


FIGURES = (
    ("documents", "documents", 0), ("chunks", "chunks", 0), ("text, MB", "text_mb", 0),
    ("ingest, s", "ingest_s", -1), ("text, MB/s", "text_mb_per_s", 1), ("chunks/s", "chunks_per_s", 1),
    ("peak memory of ingest, MB", "ingest_peak_mb", -1), ("peak memory of search, MB", "query_peak_mb", -1),
    ("index on disk, MB", "index_mb", -1), ("query p50, ms", "query_p50_ms", -1), ("query p95, ms", "query_p95_ms", -1),
    ("nDCG@10", "ndcg@10", 1), ("recall@20", "recall@20", 1), ("mAP, pooled languages", "map", 1),
    ("nDCG@10, other languages only", "cross_ndcg@10", 1), ("own language in top 10", "own_language@10", 0),
)  # fmt: skip
"""Label, key, and whether more (1) or less (-1) is better; 0: neither."""


def ratio(ours: float, plain: float, direction: int) -> str:
    """How many times better ours is.

    >>> ratio(2.0, 1.0, 1), ratio(2.0, 1.0, -1), ratio(5, 5, 0)
    ('2.00×', '0.50×', '')
    """
    if not direction or not ours or not plain:
        return ""
    return f"{ours / plain if direction > 0 else plain / ours:.2f}×"


def render_table(run: Mapping[str, str], rows: Sequence[Row]) -> str:
    """results/ingest.md: the sides as columns, the ratio, and the other modes."""
    sides = [row for row in rows if "ingest_s" in row]
    ours, plain = (
        next((r for r in sides if r["side"] == "ours"), {}),
        next((r for r in sides if r["side"] == "plain"), {}),
    )
    names = [row["side"] for row in sides]
    lines = [
        "# Real documents: Debian's translated manual pages and handbooks", "",
        f"`{run['command']}`, {run['date']}, commit {run['commit']}, {run['machine']}", "",
        "*plain*: sentence-transformers `encode` with defaults over pieces of 1000 characters, qdrant-client local "
        "mode, the same encoder. Ratios above 1 are in favour of *ours*. Relevant is a page in every language it "
        "exists in; its description, which is the query, is taken out of the pages.", "",
        f"| | {' | '.join(names)} | ours against plain |", "|---" * (len(names) + 2) + "|",
    ]  # fmt: skip
    for label, key, direction in FIGURES:
        cells = " | ".join(f"{row[key]:,}" if key in row else "" for row in sides)
        better = ratio(ours.get(key, 0), plain.get(key, 0), direction)
        lines.append(f"| {label} | {cells} | {better} |")
    quality = [(label, key) for label, key, _ in FIGURES if "@" in key or key in {"map", "query_p50_ms"}]
    lines += ["", f"| mode | {' | '.join(label for label, _ in quality)} |", "|---" * (len(quality) + 1) + "|"]
    lines += [f"| {row['side']} | {' | '.join(str(row[key]) for _, key in quality)} |" for row in rows]
    queries = ours.get("queries") or (rows[0]["queries"] if rows else 0)
    return "\n".join([*lines, "", f"{queries} queries, each over all languages of the sample."]) + "\n"


def say(message: str) -> None:
    """One line to stderr."""
    print(message, file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder that benchmarks.debian_corpus wrote")
    parser.add_argument("--documents", type=int, default=600, help="size of the sample (%(default)s)")
    parser.add_argument(
        "--chunks-limit", type=int, default=0, help="stop the sample at about so many chunks of 1 KB; 0: do not"
    )
    parser.add_argument("--full", action="store_true", help="also ingest the whole corpus with ours")
    parser.add_argument("--work", type=Path, help="keep documents and indexes there; none: a temporary folder")
    parser.add_argument("--only", choices=("ours", "plain"), help="run one side only")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write (%(default)s)")
    return parser.parse_args(arguments)


def command_of(options: argparse.Namespace) -> str:
    """The command to keep with the results, with the corpus's folder as OUT."""
    parts = ["python -m benchmarks.ingest_bench --corpus OUT --documents", str(options.documents)]
    parts += [f"--chunks-limit {options.chunks_limit}"] if options.chunks_limit else []
    parts += ["--full"] if options.full else []
    parts += [f"--only {options.only}"] if options.only else []
    return " ".join(parts)


def open_bench(corpus: Path, ids: list[str], queries: Sequence[Query], work: Path) -> Bench:
    """A bench over a copy of the chosen documents."""
    link_documents(corpus, ids, work / "documents")
    return Bench(work, work / "documents", ids, answerable(queries, ids))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the results."""
    options = parse(arguments)
    corpus = options.corpus / "documents"
    if not corpus.is_dir():
        say(
            f"error: no corpus in {options.corpus}; build it with `python -m benchmarks.debian_corpus {options.corpus}`"
        )
        return 1
    queries = read_queries(options.corpus / "queries.jsonl")
    sizes = {path.relative_to(corpus).as_posix(): path.stat().st_size for path in corpus.rglob("*") if path.is_file()}
    ids = choose_documents(sizes, queries, options.documents, options.chunks_limit * 1000)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="ingest-bench-") as temporary:
        work = (options.work or Path(temporary)).absolute()
        sample = open_bench(corpus, ids, queries, work / "sample")
        say(f"{len(sample.ids)} documents, {sample.text_bytes / 1e6:.1f} MB of text, {len(sample.queries)} queries")
        if options.only != "ours":
            sample.plain("plain", encoder_folder())
        if options.only != "plain":
            sample.ours("ours", variants=True)
        rows += sample.rows
        if options.full:
            everything = open_bench(corpus, sorted(sizes), queries, work / "full")
            everything.ours("ours, everything", variants=False)
            rows += everything.rows
    run = describe_run(command_of(options))
    write_rows("ingest", run, rows, folder=options.results)
    table = render_table(run, rows)
    (options.results / "ingest.md").write_text(table, "utf-8")
    print(table)
    return 0


def encoder_folder() -> Path:
    """Folder of the encoder that ours uses too, as an ordinary SentenceTransformer; made if it is not there yet."""
    settings = load_settings()
    return resolve(settings.encoder, settings.encoders_folder)[0]


if __name__ == "__main__":
    raise SystemExit(main())
