"""Fuzz what reads foreign bytes, guided by coverage: only a result or an error of ours may come of them.

    python -m benchmarks.fuzz [TARGET ...] [--seconds 60]

Targets: the syntax of queries, words, manifests, ledgers, and the reader of each format, without the child process that
guards it. They begin with the questions and documents of the bundled corpus, or with files as tests make them. A target
fails when an input raises anything else, crashes the process, takes over 20 seconds or over 3 GB. Such inputs are kept
in the folder named at the end. Writes results/fuzz.jsonl.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path

from benchmarks.records import ROOT, describe_run, write_rows
from tests.unit import made_files

SLOW_S, MOST_MB, MOST_BYTES = 20, 3000, 65_536
FORMATS = ("md", "html", "pdf", "docx", "epub", "eml", "rtf", "odt", "pptx", "xlsx", "csv", "jsonl")
OTHERS = ("query", "words", "manifest", "ledger")
INSTRUMENTED = [
    "indexer", "search", "markitdown", "mammoth", "pptx", "openpyxl", "striprtf", "email", "zipfile", "bs4",
]  # fmt: skip
READERS = ("plain", "markdown", "office", "opendocument", "pdf", "mail", "rich")
Target = Callable[[bytes], None]


def target_of(name: str, folder: Path) -> Target:
    """What is done with each input; imports happen here, so that they are instrumented."""
    for reader in READERS:
        import_module(f"indexer.extract.{reader}")
    import_module("markitdown.converters")  # which the readers import as they need them

    from indexer.extract import DOCUMENT_FORMATS, extract
    from indexer.ledger import DocumentRow, Ledger
    from indexer.sources import ReadOptions, iter_documents
    from indexer.sources.files import SourceFile
    from search.errors import PanlinguaError, SourceError
    from search.interpretation import parse_query
    from search.lexical import tokenize
    from search.manifest import parse_manifest
    from search.query_syntax import dates_of

    path = folder / f"input.{name}"

    def query(data: bytes) -> None:
        for part in parse_query(data.decode("utf-8", "replace")):
            dates_of(part.field, part.text)

    def words(data: bytes) -> None:
        tokenize(data.decode("utf-8", "replace"))

    def manifest(data: bytes) -> None:
        with suppress(PanlinguaError):
            parse_manifest(data.decode("utf-8", "replace"), "here")

    def ledger(data: bytes) -> None:
        path.write_bytes(data)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with suppress(PanlinguaError), closing(Ledger(path)) as opened:
            opened.put_documents([DocumentRow("new", "new", "", 1, 1)])
            list(opened.iter_files())
            opened.totals()

    def document(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(SourceError):
            extract(path, name=name, max_bytes=MOST_BYTES * 1024)

    def table(data: bytes) -> None:
        path.write_bytes(data)
        stat = path.stat()
        for _ in iter_documents(SourceFile(path, path.name, stat.st_size, stat.st_mtime_ns), ReadOptions()):
            pass

    special = {"query": query, "words": words, "manifest": manifest, "ledger": ledger}
    return special.get(name, document if name in DOCUMENT_FORMATS else table)


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz in this process, until the fuzzer ends it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        target = target_of(name, Path(tempfile.mkdtemp(prefix="fuzz-")))
    atheris.Setup([sys.argv[0], *arguments], target)
    atheris.Fuzz()


def seeds_of(name: str, folder: Path) -> None:
    """Copy what the fuzzer begins with: documents of the format, else questions in many scripts."""
    found = sorted((ROOT / "corpus" / "documents").rglob(f"*.{name}"))
    if make := getattr(made_files, f"make_{name}", None):
        found.append(make(folder / "made", ["Moos wächst im Schatten.", "苔は日陰に育つ。", "الطحلب ينمو في الظل."]))
    texts = [path.read_bytes() for path in found] or (ROOT / "corpus" / "queries.jsonl").read_bytes().splitlines()
    if name == "ledger":
        from indexer.ledger import Ledger

        Ledger(folder / "seed").close()
    for number, data in enumerate(texts[:200]):
        (folder / f"{number}").write_bytes(data)


def run(name: str, seconds: int, kept: Path) -> dict[str, object]:
    """Fuzz one target in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        seeds_of(name, Path(folder))
        limits = {"max_total_time": seconds, "timeout": SLOW_S, "rss_limit_mb": MOST_MB, "max_len": MOST_BYTES}
        flags = [f"-{flag}={value}" for flag, value in {**limits, "artifact_prefix": f"{kept}/{name}-"}.items()]
        command = [sys.executable, "-m", "benchmarks.fuzz", "--worker", name, *flags]
        done = subprocess.run([*command, folder], cwd=ROOT, capture_output=True, text=True, errors="replace")
    counts = re.findall(r"^#(\d+)\t.*?cov: (\d+)", done.stderr, re.MULTILINE) or [("0", "0")]
    row: dict[str, object] = {
        "target": name, "seconds": seconds, "inputs": int(counts[-1][0]), "coverage": int(counts[-1][1]),
        "failed": done.returncode != 0,
    }  # fmt: skip
    if done.returncode:
        row["said"] = [line for line in done.stderr.splitlines() if "Error" in line or "ERROR" in line][:3]
        (kept / f"{name}.log").write_text(done.stderr, encoding="utf-8")
    return row


def main() -> None:
    """Fuzz every target in turn."""
    if sys.argv[1:2] == ["--worker"]:
        fuzz(sys.argv[2], sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=[*OTHERS, *FORMATS], metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    described = describe_run(f"python -m benchmarks.fuzz {' '.join(sys.argv[1:])}".strip())
    rows: list[dict[str, object]] = []
    kept = Path(tempfile.mkdtemp(prefix="fuzz-failed-"))
    for name in options.targets:
        rows.append(run(name, options.seconds, kept))
        print(rows[-1], flush=True)
    print(write_rows("fuzz", described, rows), f"(inputs that failed: {kept})")
    sys.exit(any(row["failed"] for row in rows))


if __name__ == "__main__":
    main()
