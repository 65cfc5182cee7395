"""What comes from outside, damaged at random: every outcome is a result or an error of ours that says what to do."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ledger import DocumentRow, Ledger
from indexer.sources import ReadOptions, iter_documents, iter_files
from search.errors import IndexFormatError, PanlinguaError
from search.manifest import IndexManifest, parse_manifest

MANIFEST = IndexManifest(
    encoder="e", encoder_fingerprint="f", dimension=4, map_fingerprint="m", documents=1, chunks=1, languages={"ja": 1},
    created="2026-01-01T00:00:00Z", updated="2026-01-01T00:00:00Z", panlingua_version="0",
)  # fmt: skip
DAMAGED_COPIES = 12


def damage(data: bytes, chance: random.Random) -> bytes:
    """Cut, overwritten, doubled or shuffled somewhere."""
    start = chance.randrange(max(len(data), 1))
    end = min(len(data), start + chance.choice([1, 16, 400, len(data)]))
    match chance.randrange(4):
        case 0:
            return data[:start]
        case 1:
            return data[:start] + chance.randbytes(end - start) + data[end:]
        case 2:
            return data[:end] + data[start:]
        case _:
            return data[end:] + data[start:end] + data[:start]


@pytest.mark.parametrize("suffix", ["pdf", "docx", "epub", "html", "csv", "jsonl", "md"])
def test_damaged_files_are_read_or_skipped(suffix: str, repository: Path, tmp_path: Path) -> None:
    chance = random.Random(suffix)
    originals = sorted((repository / "corpus" / "documents").rglob(f"*.{suffix}"))
    for number in range(DAMAGED_COPIES):
        data = damage(chance.choice(originals).read_bytes(), chance)
        (tmp_path / f"{number}.{suffix}").write_bytes(data)
    found = {}
    for file in iter_files(tmp_path, options=ReadOptions()):
        found[file.source if hasattr(file, "source") else file.relative] = list(iter_documents(file, ReadOptions()))
    assert len(found) == DAMAGED_COPIES
    for items in found.values():
        assert all(getattr(item, "text", "") or getattr(item, "reason", "") for item in items)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)),
       st.sampled_from(sorted(IndexManifest.model_fields)))  # fmt: skip
def test_a_manifest_with_any_value_is_read_or_refused(value: object, name: str) -> None:
    text = json.dumps({**MANIFEST.model_dump(), name: value})
    try:
        read = parse_manifest(text, "here")
    except IndexFormatError as refused:
        message = str(refused)
        assert "indexer ingest" in message
    else:
        assert read.model_dump() == {**MANIFEST.model_dump(), name: value}


@given(st.text())
def test_a_manifest_of_any_text_is_refused(text: str) -> None:
    with pytest.raises(IndexFormatError, match="indexer ingest"):
        parse_manifest(text, "here")


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_ledger_says_so(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with closing(Ledger(path)) as ledger:
        ledger.put_documents([DocumentRow(f"{n}.txt", f"{n}.txt", "x" * 64, 1, 1) for n in range(2000)])
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(damage(path.read_bytes(), random.Random(seed)))
    try:
        with closing(Ledger(path)) as ledger:
            rows = [ledger.document(f"{n}.txt") for n in range(2000)]
            ledger.put_documents([DocumentRow("new", "new", "y" * 64, 1, 1)])
            assert all(row is None or row.id.endswith(".txt") for row in rows)
    except PanlinguaError as refused:
        message = str(refused)
        assert "ledger" in message
