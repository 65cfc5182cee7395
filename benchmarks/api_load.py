"""Queries per second and latencies of the HTTP API, by number of clients.

    python -m benchmarks.api_load [--index NAME] [--queries corpus/queries.jsonl] [--clients 1 4 16 64] [--seconds 20]
        [--served]

Starts `search serve` in a process of its own over an index that is there, and asks it over HTTP from this one; with
--url it asks a server that runs already. Every client sends its next question when the last one is answered. Clients
and server share the machine, so the figures are those of both together. With --served the same index is asked again
from a stand-in for a Qdrant server, in a process of its own. Writes results/api-load.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import httpx

from benchmarks.records import ROOT, describe_run, write_rows
from indexer.transfer import push
from search.opening import server_folder
from search.settings import load_settings
from tests.integration import breaking

_READY_S = 300.0


@dataclass
class Load:
    """What some clients saw: milliseconds of each answer, and answers by status."""

    milliseconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def row(self, clients: int, seconds: float) -> dict[str, Any]:
        """Queries per second and latencies."""
        cuts = quantiles(self.milliseconds, n=100, method="inclusive")
        return {
            "clients": clients, "queries": len(self.milliseconds), "seconds": round(seconds, 1),
            "queries_per_s": round(len(self.milliseconds) / seconds, 1), "p50_ms": round(cuts[49], 1),
            "p95_ms": round(cuts[94], 1), "p99_ms": round(cuts[98], 1), "statuses": self.statuses,
        }  # fmt: skip


def read_questions(path: Path) -> list[str]:
    """The field `text` or `query` of every line."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row.get("text") or row["query"] for row in rows]


async def ask(url: str, key: str | None, questions: Sequence[str], clients: int, seconds: float) -> Load:
    """Ask from so many clients for so long."""
    load, end = Load(), time.perf_counter() + seconds
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def client(number: int) -> None:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60.0) as session:
            place = number
            while time.perf_counter() < end:
                started = time.perf_counter()
                answer = await session.post("/v1/search", json={"query": questions[place % len(questions)]})
                load.milliseconds.append((time.perf_counter() - started) * 1000)
                load.statuses[answer.status_code] = load.statuses.get(answer.status_code, 0) + 1
                place += clients

    await asyncio.gather(*map(client, range(clients)))
    return load


class Server(NamedTuple):
    """Where a server answers, and its process."""

    url: str
    pid: int


@contextmanager
def serving(index: str | None, log: Path | None = None, *, store: str | None = None) -> Iterator[Server]:
    """`search serve` on a free port, until the end; what it says is written to `log`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "search.cli", "serve", "--port", str(port), "--rate", "0"]
    named = {"PANLINGUA_INDEX": index, "PANLINGUA_STORE": store}
    environment = {**os.environ, **{name: value for name, value in named.items() if value}}
    with (log or Path(os.devnull)).open("wb") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=said)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield Server(url, process.pid)
    finally:
        if (ended := process.poll()) is not None:
            print(f"the server ended by itself, with status {ended}", file=sys.stderr)
        process.terminate()
        process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    sys.exit("the server does not get ready; run `search serve` by itself to see why")


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", help="name or path of the index")
    parser.add_argument("--url", help="a server that runs already")
    parser.add_argument("--queries", type=Path, default=ROOT / "corpus" / "queries.jsonl")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--served", action="store_true", help="then also from a stand-in for a Qdrant server")
    options = parser.parse_args()
    questions = read_questions(options.queries)
    run = describe_run("python -m benchmarks.api_load " + " ".join(sys.argv[1:]))
    with nullcontext(Server(options.url, 0)) if options.url else serving(options.index) as server:
        rows = measure(server, questions, options.clients, options.seconds)
    if options.served:
        with pushed(options.index) as store, serving(options.index, store=store) as server:
            rows += [{"served": True, **row} for row in measure(server, questions, options.clients, options.seconds)]
    print(write_rows("api-load", run, rows))


def measure(server: Server, questions: Sequence[str], clients: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """A row for every number of clients."""
    (url, pid), rows, key = server, [], os.environ.get("PANLINGUA_BENCH_KEY")
    held = httpx.get(f"{url}/v1/index", headers={"Authorization": f"Bearer {key}"} if key else {}).json()
    for question in questions[:5]:
        asyncio.run(ask(url, key, [question], 1, 0.1))
    for number in clients:
        started, used = time.perf_counter(), cpu_seconds(pid)
        load = asyncio.run(ask(url, key, questions, number, seconds))
        row = load.row(number, time.perf_counter() - started)
        cpu_ms = round((cpu_seconds(pid) - used) * 1000 / row["queries"], 1) if pid else None
        rows.append({"chunks": held.get("chunks"), **row, "cpu_ms": cpu_ms})
        print(rows[-1], flush=True)
    return rows


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far; 0 without one (a server that runs elsewhere)."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def pushed(index: str | None) -> Iterator[str]:
    """A stand-in for a Qdrant server with a copy of an embedded index, in a process of its own; its URL."""
    with tempfile.TemporaryDirectory() as folder, breaking.running(Path(folder)) as server:
        settings = load_settings(index=index, store=server.url)
        try:
            push(settings)
            yield server.url
        finally:
            shutil.rmtree(server_folder(settings), ignore_errors=True)


if __name__ == "__main__":
    main()
