"""What a search costs on the side of the client when the index is on a server: requests and bytes, by kind of search.

    python -m benchmarks.served [--index NAME] [--queries corpus/queries.jsonl] [--searches 100]

The index is pushed to a stand-in for a Qdrant server (qdrant-client's local mode behind REST calls) and asked through
an `Engine`. How fast a server answers cannot be seen there; what it is asked and what has to come back is the same.
Appends to results/api-load.jsonl.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from qdrant_client import QdrantClient

from benchmarks.api_load import pushed, read_questions
from benchmarks.records import ROOT, describe_run, write_rows
from search.engine import Engine
from search.records import Filter, Match
from search.results import Mode
from search.settings import load_settings
from search.store.server import ServerStore

KINDS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "hybrid, filter": {"filter": Filter((Match("lang", ("en", "de", "ja")),))},
    "hybrid, not folded": {"fold": False},
    "dense": {"mode": Mode.DENSE},
    "lexical": {"mode": Mode.LEXICAL},
}


class Call(NamedTuple):
    """One request: the last parts of its address, and the bytes that came back."""

    what: str
    bytes: int


def record_calls(client: QdrantClient) -> list[Call]:
    """All requests that a client makes from now on, as they are answered."""
    calls: list[Call] = []

    def note(request: Any, send: Callable[[Any], Any]) -> Any:
        answer = send(request)
        parts = request.url.path.strip("/").split("/")
        calls.append(Call(f"{request.method} {'/'.join(parts[2:]) or parts[0]}", len(answer.content)))
        return answer

    client.http.client.add_middleware(note)
    return calls


def count_calls(engine: Engine, questions: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """Requests and bytes of a search, the mean over some; the first search with these options is left out."""
    store = engine.index().store
    assert isinstance(store, ServerStore)
    calls = record_calls(store.client)
    searches: list[list[Call]] = []
    for question in questions:
        calls.clear()
        engine.search(question, **options)
        searches.append(list(calls))
    asked = Counter(call.what for search in searches[1:] for call in search)
    return {
        "requests": round(fmean(len(search) for search in searches[1:]), 2),
        "most": max(len(search) for search in searches[1:]),
        "kilobytes": round(fmean(sum(call.bytes for call in search) for search in searches[1:]) / 1000, 1),
        "by_call": {what: round(n / (len(searches) - 1), 2) for what, n in asked.most_common()},
    }


def main() -> None:
    """Push, search, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", help="name or path of an embedded index")
    parser.add_argument("--queries", type=Path, default=ROOT / "corpus" / "queries.jsonl")
    parser.add_argument("--searches", type=int, default=100)
    options = parser.parse_args()
    run = describe_run("python -m benchmarks.served " + " ".join(sys.argv[1:]))
    questions, rows = read_questions(options.queries)[: options.searches], []
    with pushed(options.index) as url:
        settings = load_settings(index=options.index, store=url)
        for kind, asked in KINDS.items():
            with closing(Engine(settings)) as engine:
                row = count_calls(engine, questions, asked)
                chunks = engine.index().manifest.chunks
                rows.append({"served": kind, "chunks": chunks, "searches": len(questions) - 1, **row})
                print(rows[-1], flush=True)
    print(write_rows("api-load", run, rows))


if __name__ == "__main__":
    main()
