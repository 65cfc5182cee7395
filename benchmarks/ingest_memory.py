"""Peak memory of `indexer ingest` on one large JSONL file, which must not grow with the corpus.

    python -m benchmarks.ingest_memory --mb 200 [--texts FOLDER] [--random-vectors] [--work FOLDER [--resume]]

The file holds records of 1 to 3 KB made of the texts in FOLDER or of the bundled corpus. Where those have less text
than wanted they are repeated with another title, so that every passage differs. Once a second the memory of the process
tree is sampled and written to WORK/memory.csv; `anonymous` is what the programs hold, the rest of `pss` are mapped
files, which the system may drop. With `--random-vectors` the network is left out, which is quicker and shows
everything else. With `--resume` a run that was broken off in WORK goes on, and its samples count too. Writes
results/ingest-memory.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import numpy as np

from benchmarks.processes import Memory, tree_memory
from benchmarks.records import RESULTS, ROOT, describe_run, write_rows
from indexer.documents import Skipped
from indexer.sources import ReadOptions, iter_documents, iter_files
from search.records import Vectors

LEAST_CHARS, MOST_BYTES, LEAST_BYTES = 80, 3000, 1000
SAMPLES_PER_LEDGER_LOOK = 10
MEGABYTE = 1_000_000
TEXTS = ROOT / "corpus" / "documents"
PHASES = 10
Sample = tuple[float, int, Memory]
"""Seconds since the start, documents in the ledger, memory of the process tree."""


def iter_texts(file: Path) -> Iterator[str]:
    """Long strings of the objects in a JSONL(.gz) file, or the text of a document of any other kind."""
    if ".jsonl" in file.suffixes[-2:]:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for line in lines:
                yield from (value for value in json.loads(line).values() if _is_text(value))
        return
    for item in iter_files(file, options=ReadOptions()):
        if not isinstance(item, Skipped):
            yield from (found.text for found in iter_documents(item, ReadOptions()) if not isinstance(found, Skipped))


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) >= LEAST_CHARS


def iter_bodies(texts: Iterator[str], rng: random.Random) -> Iterator[str]:
    """Neighbouring texts joined, and long ones cut, to 1 to 3 KB."""
    body, wanted = "", rng.randint(LEAST_BYTES, MOST_BYTES)
    for text in texts:
        body = f"{body}\n\n{text}" if body else text
        while len(data := body.encode("utf-8", "ignore")) >= wanted:
            yield data[:wanted].decode("utf-8", "ignore")
            body, wanted = data[wanted:].decode("utf-8", "ignore").strip(), rng.randint(LEAST_BYTES, MOST_BYTES)


def collect_bodies(folder: Path, rng: random.Random) -> list[str]:
    """All bodies of the files of a folder, mixed."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    bodies = [body for file in files for body in iter_bodies(iter_texts(file), rng)]
    rng.shuffle(bodies)
    return bodies


def write_corpus(path: Path, bodies: Sequence[str], size_bytes: int) -> int:
    """Write records until the file has `size_bytes`; returns how many."""
    written = 0
    with path.open("wb") as file:
        for number in count():
            if written >= size_bytes:
                return number
            body = bodies[number % len(bodies)]
            record = {"id": f"r{number}", "title": f"{body[:30].strip()} {number}", "text": body}
            written += file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
    raise AssertionError


class RandomBackend:
    """Stands in for the network: every text gets a random vector near one of 1,000 centres."""

    name, batch_tokens, length_step = "random", 4096, 8

    def __init__(self, dimension: int) -> None:
        self._rng = np.random.default_rng(0)
        self._centres = self._rng.standard_normal((1000, dimension), np.float32)

    def forward(self, token_ids: Vectors, mask: Vectors) -> Vectors:
        """Vectors (B, D)."""
        noise = self._rng.standard_normal((len(token_ids), self._centres.shape[1]), np.float32)
        return np.asarray(self._centres[self._rng.integers(0, 1000, len(token_ids))] + noise, np.float32)


def ingest_random(corpus: Path, index: Path) -> None:
    """What `indexer ingest` does, without the network."""
    from indexer.build import ingest
    from search.encoder.encoding import Encoder
    from search.encoder.loading import load_tokenizer, resolve
    from search.settings import load_settings

    settings = load_settings(index=str(index))
    folder, manifest = resolve(settings.encoder, settings.encoders_folder)
    tokenizer, pad_id = load_tokenizer(folder)
    encoder = Encoder(manifest, tokenizer=tokenizer, pad_id=pad_id, backend=RandomBackend(manifest.dimension))
    print(json.dumps(ingest(corpus, settings, encoder=encoder).as_json()))


def count_documents(index: Path) -> int:
    """Documents that the unfinished generation holds, 0 before it exists."""
    with suppress(sqlite3.Error):
        uri = f"file:{index / 'building' / 'ledger.sqlite'}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=0.1)) as ledger:
            return int(ledger.execute("SELECT COUNT(*) FROM documents").fetchone()[0])
    return 0


def read_samples(path: Path) -> list[Sample]:
    """Samples that an earlier run left in its CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        _, *rows = csv.reader(file)
    return [(float(row[0]), int(row[1]), Memory(*(int(value) * MEGABYTE for value in row[2:]))) for row in rows]


def watch(process: subprocess.Popen[str], index: Path, path: Path, earlier: Sequence[Sample] = ()) -> list[Sample]:
    """Sample a process tree once a second until it ends, onto the end of a CSV file; `earlier` is what it holds."""
    samples = list(earlier)
    documents = samples[-1][1] if samples else 0
    started = time.monotonic() - (samples[-1][0] if samples else 0)
    with path.open("a" if samples else "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        if not samples:
            rows.writerow(("seconds", "documents", *(f"{name}_mb" for name in Memory._fields)))
        while process.poll() is None:
            if len(samples) % SAMPLES_PER_LEDGER_LOOK == 0:
                documents = max(documents, count_documents(index))
            memory = tree_memory(process.pid)
            samples.append((round(time.monotonic() - started, 1), documents, memory))
            rows.writerow((*samples[-1][:2], *(round(value / MEGABYTE) for value in memory)))
            file.flush()
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)
    return samples


def summarise(samples: Sequence[Sample], records: int) -> dict[str, object]:
    """Peaks over the whole run, and within every tenth of the documents and the finish."""
    return {
        **_peaks([memory for _, _, memory in samples]),
        "curve": [
            {"documents": f"{tenth * 10} %" if tenth < PHASES else "finish", **_peaks(memories)}
            for tenth in range(PHASES + 1)
            if (memories := [memory for _, done, memory in samples if done * PHASES // records == tenth])
        ],
    }


def _peaks(memories: Sequence[Memory]) -> dict[str, int]:
    fields = Memory._fields
    return {f"{name}_mb": round(max(getattr(m, name) for m in memories) / MEGABYTE) for name in fields}


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate, ingest, sample, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mb", type=float, default=200, help="size of the file (%(default)s)")
    parser.add_argument("--texts", type=Path, default=TEXTS, help="where the texts come from")
    parser.add_argument("--random-vectors", action="store_true", help="leave the network out")
    parser.add_argument("--work", type=Path, help="keep corpus, index and samples there; none: a temporary folder")
    parser.add_argument("--resume", action="store_true", help="go on with the run that was broken off in --work")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write (%(default)s)")
    options = parser.parse_args(arguments)
    if options.resume and not options.work:
        parser.error("--resume needs the --work folder of the run that was broken off")
    with tempfile.TemporaryDirectory(prefix="ingest-memory-") as temporary:
        work: Path = (options.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        corpus, index = work / "corpus.jsonl", work / "index"
        if options.resume:
            earlier = read_samples(work / "memory.csv")
            with corpus.open("rb") as file:
                records = sum(1 for _ in file)
        else:
            earlier = []
            bodies = collect_bodies(options.texts, random.Random(0))
            records = write_corpus(corpus, bodies, round(options.mb * MEGABYTE))
        command = ["-m", "benchmarks.ingest_memory", "ingest-random", str(corpus), str(index)]
        if not options.random_vectors:
            command = ["-m", "indexer.cli", "ingest", str(corpus), "--index", str(index), "--json"]
            command += [] if options.resume else ["--fresh"]
        with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            samples = watch(process, index, work / "memory.csv", earlier)
            output = process.stdout.read() if process.stdout else ""
        if process.returncode:
            return process.returncode
        summary = json.loads(output.splitlines()[-1])
    row = {"mb": options.mb, "vectors": "random" if options.random_vectors else "encoder"}
    row |= {name: summary[name] for name in ("documents", "chunks", "seconds")} | summarise(samples, records)
    print(json.dumps(row))
    flags = f"--mb {options.mb:g}" + (" --texts FOLDER" if options.texts != TEXTS else "")
    flags += " --random-vectors" if options.random_vectors else ""
    flags += " --work WORK --resume" if options.resume else ""
    run = describe_run(f"python -m benchmarks.ingest_memory {flags}")
    write_rows("ingest-memory", run, [row], folder=options.results)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["ingest-random"]:
        ingest_random(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
