"""The pure parts of the ingest benchmark, and that a process tree's memory is seen."""

from __future__ import annotations

import sys

import pytest

from benchmarks.ingest_bench import Query, answerable, choose_documents, judge, ratio, render_table
from benchmarks.ingest_workers import cut
from benchmarks.processes import run_job

LANGS = ("de", "ja", "zh-CN", "ar")
SIZES = {f"man/{lang}/1/p{number}.txt": 1000 for lang in LANGS for number in range(30)}
QUERIES = [
    Query(f"q{number}", "de", frozenset(f"man/{lang}/1/p{number}.txt" for lang in LANGS)) for number in range(0, 30, 2)
]


def test_sample_keeps_translations_together() -> None:
    chosen = choose_documents(SIZES, QUERIES, 48, 0)

    assert len(chosen) == 48
    assert all(f"man/{lang}/1/{document.split('/')[-1]}" in chosen for document in chosen for lang in LANGS)
    assert len(answerable(QUERIES, chosen)) == 8
    assert len(choose_documents(SIZES, QUERIES, 48, 20_000)) == 20


def test_query_with_relevant_documents_in_one_language_only_is_dropped() -> None:
    kept = answerable(QUERIES[:2], ["man/de/1/p0.txt", "man/ar/1/p0.txt", "man/de/1/p2.txt"])
    assert kept == [Query("q0", "de", frozenset({"man/de/1/p0.txt", "man/ar/1/p0.txt"}))]


def test_quality_by_hand() -> None:
    query = Query("q", "de", frozenset({"man/de/1/a.txt", "man/ja/1/a.txt"}))
    values = judge([query], [["man/de/1/a.txt", "man/de/1/x.txt", "man/ja/1/x.txt", "man/ja/1/a.txt"]])

    assert values == {
        "ndcg@10": pytest.approx((1 + 0.4307) / 1.6309, abs=1e-3),
        "recall@20": 1.0,
        "map": 0.75,
        "own_language@10": 0.5,
        "cross_ndcg@10": pytest.approx(0.6309, abs=1e-3),
    }


@pytest.mark.parametrize(
    ("ours", "plain", "direction", "expected"),
    [(2.0, 1.0, 1, "2.00×"), (2.0, 1.0, -1, "0.50×"), (5, 5, 0, ""), (0, 5, 1, ""), (3, 0, -1, "")],
)
def test_ratio(ours: float, plain: float, direction: int, expected: str) -> None:
    assert ratio(ours, plain, direction) == expected


def test_table_holds_both_sides() -> None:
    quality = {"queries": 3, "ndcg@10": 0.5, "recall@20": 0.5, "map": 0.4, "cross_ndcg@10": 0.4, "own_language@10": 0.2}
    rows = [
        {"side": "plain", "ingest_s": 20.0, "query_p50_ms": 40.0, **quality},
        {"side": "ours", "ingest_s": 10.0, "query_p50_ms": 20.0, **quality},
    ]
    table = render_table({"command": "c", "date": "d", "commit": "abc", "machine": "m"}, rows)

    assert "| ingest, s | 20.0 | 10.0 | 2.00× |" in table
    assert "commit abc, m" in table


def test_plain_pieces_cover_the_text() -> None:
    text = "éあ👩‍👩‍👧ไทย" * 300
    assert "".join(cut(text)) == text
    assert cut(" \n" * 600) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_children_counts() -> None:
    child = "import time; block = b'x' * 150_000_000; time.sleep(1.5)"
    run = f"subprocess.run([sys.executable, '-c', {child!r}])"
    parent = f"import subprocess, sys; {run}; print('log'); print('{{\"a\": 1}}')"
    job = run_job([sys.executable, "-c", parent])

    assert job.result == {"a": 1}
    assert 150e6 < job.peak_bytes < 1e9
    assert job.seconds > 1.5


def test_failed_job_says_what_it_said() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        run_job([sys.executable, "-c", "raise SystemExit('no such thing')"])
