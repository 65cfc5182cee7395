"""The pure parts of the memory benchmark, and that freed memory is given back."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import pytest

from benchmarks.ingest_memory import collect_bodies, summarise, write_corpus
from benchmarks.processes import Memory, tree_memory
from search.memory import trim_heap

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_records_are_of_one_to_three_kilobytes_and_all_different(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    rows = [{"query": "short", "positive": "Wie lange hält frisches Brot? " * 20, "n": 7} for _ in range(9)]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    (tmp_path / "in" / "b.txt").write_text("砂漠での運転。" * 900, "utf-8")

    bodies = collect_bodies(tmp_path / "in", random.Random(0))
    assert {body[0] in "砂漠での運転。" for body in bodies} == {True, False}
    assert all(990 <= len(body.encode()) <= 3000 for body in bodies)

    count = write_corpus(tmp_path / "out.jsonl", bodies, 60_000)
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()]
    assert len(records) == count == len({record["title"] for record in records}) > len(bodies)
    assert 60_000 <= (tmp_path / "out.jsonl").stat().st_size < 64_000


def test_peaks_of_every_tenth_and_of_the_finish() -> None:
    samples = [(float(done), done, Memory(4, 3, 2, 1)._replace(pss=(10 + done) * 10**6)) for done in (0, 5, 19, 20)]
    row = summarise(samples, 20)
    assert row["pss_mb"] == 30
    assert [(part["documents"], part["pss_mb"]) for part in row["curve"]] == [  # type: ignore[attr-defined]
        ("0 %", 10), ("20 %", 15), ("90 %", 29), ("finish", 30),
    ]  # fmt: skip


@linux_only
def test_memory_of_this_process_by_origin() -> None:
    memory = tree_memory(os.getpid())
    assert 0 < memory.anonymous < memory.pss <= memory.rss
    assert memory.anonymous + memory.file <= memory.pss


@linux_only
def test_freed_memory_is_given_back() -> None:
    held = [bytes(2000) for _ in range(100_000)]  # 200 MB that glibc keeps, since what came last is still in use
    last = bytes(2000)
    full = tree_memory(os.getpid()).anonymous
    del held
    trim_heap()
    assert full - tree_memory(os.getpid()).anonymous > 150_000_000
    assert len(last) == 2000
