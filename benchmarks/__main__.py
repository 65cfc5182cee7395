"""`make bench`: every measurement of results/, one after the other.

    python -m benchmarks [--data FOLDER ...]

Debian's translated manuals are fetched once (apt, no root); `--data` names evaluation sets in BEIR form for the
measurements of retrieval quality, which are left out without it. Takes hours on two cores. `api_load` and `ui_sessions`
measure a server or an application that runs; `adapt` makes corpora for `training adapt`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from search.settings import load_settings


def run(module: str, *arguments: str) -> None:
    """Run one measurement in a process of its own; a failure ends the run."""
    print(f"== {module} {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *arguments], check=True)


def main() -> None:
    """Run all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="*", type=Path, default=[], help="evaluation sets in BEIR form")
    data = [str(folder) for folder in parser.parse_args().data]
    debian = load_settings().home / "benchmarks" / "debian"
    run("debian_corpus", str(debian))
    run("ingest_bench", "--corpus", str(debian), "--full")
    run("query_latency", str(debian / "documents"), "--queries", str(debian / "queries.jsonl"))
    run("ingest_memory", "--mb", "200")
    run("rerank", "--bundled", "--stored", "192", "--timed")
    run("transliteration")
    run("fold", "--work", str(debian.with_name("fold")), "--debian", str(debian))
    run("faults")
    run("topics", "speed")
    run("soak")
    run("ray_ingest")
    if data:
        run("balance", *data)
        run("rerank", "--bundled", *data)
        run("compression", *data)
        for module in ("encoder_backends", "lexical_tokenizer"):
            run(module, *(argument for folder in data for argument in ("--data", folder)))


if __name__ == "__main__":
    main()
