"""Hours of mixed load on the HTTP API: does memory stay flat, is every answer right?

    python -m benchmarks.soak [--minutes 60] [--per-second 2] [--change-every 60] [--work FOLDER]

Serves the bundled corpus from an index of its own. Questions of the corpus are asked in turn, in every mode, with and
without reranking and highlights, between them similar documents, facets, translations, topics and embeddings. Now and
then a document is sent, looked for, and removed again, so that the index changes under the searches. Every ten seconds
the memory of the server alone is sampled, its jobs left out, into WORK/memory.csv. Memory is flat when the median of
the last quarter of the samples is that of the second quarter; the first quarter warms up. Writes results/soak.jsonl.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.api_load import serving
from benchmarks.processes import own_memory
from benchmarks.records import ROOT, describe_run, write_rows
from search.settings import DEFAULT_ENCODER

SAMPLE_S = 10.0
JOB_S = 300.0
MEGABYTE = 1_000_000
SENTINEL = "zyxomma"
"""A word that only the documents sent here hold."""


def requests_of(rows: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Requests without end: method, path, and the body or the parameters."""
    for number, row in enumerate(itertools.cycle(rows)):
        question = {"query": row["text"], "k": rng.choice((5, 10, 50))}
        yield "POST", "/v1/search", question | {
            "mode": rng.choice(("hybrid", "hybrid", "dense", "lexical")), "balance": rng.choice((0.0, 0.75, 1.0)),
            "rerank": rng.choice((None, None, None, "late")), "highlight": rng.random() < 0.5,
            "fold": rng.random() < 0.8, "explain": rng.random() < 0.2,
        }  # fmt: skip
        match number % 12:
            case 3:
                yield "GET", "/v1/similar", {"id": row["relevant"][0]}
            case 5:
                yield "POST", "/v1/facets", {}
            case 7:
                yield "GET", "/v1/translations", {"id": row["relevant"][0]}
            case 9:
                yield "POST", "/v1/embeddings", {"model": DEFAULT_ENCODER, "input": [row["text"]] * 4}
            case 11:
                yield "POST", "/v1/topics", {"query": row["text"]}


class Changes(threading.Thread):
    """Sends a document, waits until it is found, removes it, waits until it is not found any more; and again."""

    def __init__(self, url: str, every_s: float, end: float) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=url, timeout=120.0)
        self._every_s, self._end = every_s, end
        self.rounds = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Until the end; what is wrong is noted."""
        while time.monotonic() + 2 * self._every_s < self._end:
            try:
                self._round(f"soak-{self.rounds % 3}")
            except (httpx.HTTPError, RuntimeError, KeyError) as error:
                self.wrong.append(f"{type(error).__name__}: {error}")
            time.sleep(self._every_s)

    def _round(self, key: str) -> None:
        text = f"{SENTINEL} {self.rounds}: eine Libelle, 一种蜻蜓, стрекоза."
        self._finish(self._client.post("/v1/documents", json={"documents": [{"key": key, "text": text}]}))
        found = self._find()
        if [hit["metadata"]["key"] for hit in found] != [key] or f" {self.rounds}:" not in found[0]["text"]:
            raise RuntimeError(f"after sending {key}: {found}")
        self._finish(self._client.delete("/v1/documents", params={"id": found[0]["document_id"]}))
        if found := self._find():
            raise RuntimeError(f"after removing {key}: {found}")
        self.rounds += 1

    def _find(self) -> list[dict[str, Any]]:
        hits = self._client.post("/v1/search", json={"query": SENTINEL, "mode": "lexical"}).raise_for_status().json()
        return [hit for hit in hits["hits"] if SENTINEL in hit["text"]]

    def _finish(self, answer: httpx.Response) -> None:
        job, end = answer.raise_for_status().json(), time.monotonic() + JOB_S
        while job["state"] in ("queued", "running"):
            if time.monotonic() > end:
                raise RuntimeError(f"job {job['id']} does not end")
            time.sleep(0.5)
            job = self._client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
        if job["state"] != "done":
            raise RuntimeError(f"job {job['id']}: {job}")


def soak(url: str, pid: int, options: argparse.Namespace, file: Path) -> dict[str, Any]:
    """Load a server for so long; what it answered and what it held."""
    rows = [json.loads(line) for line in (ROOT / "corpus" / "queries.jsonl").read_text("utf-8").splitlines()]
    started, statuses, samples = time.monotonic(), Counter[str](), list[tuple[float, int]]()
    end = started + options.minutes * 60
    changes = Changes(url, options.change_every, end)
    changes.start()
    with httpx.Client(base_url=url, timeout=120.0) as client, file.open("w", encoding="utf-8", newline="") as kept:
        table = csv.writer(kept)
        table.writerow(("seconds", "mb"))
        for number, (method, path, values) in enumerate(requests_of(rows, random.Random(0))):
            now = time.monotonic()
            if now >= end:
                break
            if not samples or now - started - samples[-1][0] >= SAMPLE_S:
                samples.append((now - started, own_memory(pid).anonymous))
                table.writerow((round(samples[-1][0]), round(samples[-1][1] / MEGABYTE, 1)))
                kept.flush()
            try:
                answer = client.post(path, json=values) if method == "POST" else client.get(path, params=values)
            except httpx.TransportError as error:
                statuses[f"{path} {type(error).__name__}"] += 1
                changes.wrong.append(f"{path} {values} after {now - started:.0f} s: {type(error).__name__}: {error}")
                continue
            statuses[f"{path} {answer.status_code}"] += 1
            if answer.status_code != httpx.codes.OK:
                changes.wrong.append(f"{path} {values}: {answer.status_code} {answer.text[:300]}")
            time.sleep(max(0.0, started + (number + 1) / options.per_second - time.monotonic()))
    changes.join(2 * JOB_S)
    return {
        "minutes": options.minutes, "requests": sum(statuses.values()), "answers": dict(sorted(statuses.items())),
        "changes": changes.rounds, "wrong": changes.wrong, **summarise([size for _, size in samples]),
    }  # fmt: skip


def summarise(samples: Sequence[int]) -> dict[str, Any]:
    """Median megabytes of each quarter, and the growth of the last over the second.

    >>> summarise([1_000_000, 2_000_000, 2_000_000, 3_000_000])
    {'quarters_mb': [1.0, 2.0, 2.0, 3.0], 'growth': 1.5}
    """
    size = max(len(samples) // 4, 1)
    quarters = [median(samples[place * size : (place + 1) * size] or samples[-1:]) / MEGABYTE for place in range(4)]
    return {"quarters_mb": [round(value, 1) for value in quarters], "growth": round(quarters[3] / quarters[1], 3)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the index, serve it, load it, write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--per-second", type=float, default=2.0, help="requests, at most")
    parser.add_argument("--change-every", type=float, default=60.0, help="seconds between two changes of the index")
    parser.add_argument("--work", type=Path, help="keep index and samples there; none: a temporary folder")
    options = parser.parse_args(arguments)
    flags = f"--minutes {options.minutes:g} --per-second {options.per_second:g} --change-every {options.change_every:g}"
    run = describe_run(f"python -m benchmarks.soak {flags}")
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        work: Path = (options.work or Path(temporary)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        index = str(work / "index")
        ingest = ["-m", "indexer.cli", "ingest", str(ROOT / "corpus" / "documents"), "--index", index]
        subprocess.run([sys.executable, *ingest], check=True, cwd=ROOT, env=os.environ)
        with serving(index, work / "server.log") as server:
            row = soak(server.url, server.pid, options, work / "memory.csv")
    print(json.dumps(row, indent=1))
    print(write_rows("soak", run, [row]))
    return int(bool(row["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
