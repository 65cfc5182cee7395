"""Make a large index of a smaller one, to measure searches at sizes that would take days to encode.

    python -m benchmarks.multiply INDEX TARGET [--copies 4] [--noise 0.4]

Every passage is written so many times, each time as one of another document. The vector of a copy is that of the
passage and a random direction of `noise` times its length, at unit length: 0.4 leaves a cosine of 0.93 to the
original. Words and fields are the passage's. The translations of a document's copy are the copies of its translations.
There is no ledger: it is for searching only.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from search.fold import FAMILIES
from search.index import LANGUAGE_MAP, SHARD, IndexFolder
from search.opening import open_index
from search.records import Point
from search.settings import load_settings
from search.store.base import UPSERT_BATCH
from search.store.edge import EdgeStore


def copy_of(point: Point, number: int, noise: float, rng: np.random.Generator) -> Point:
    """The point as one of another document, its vector shifted."""
    direction = rng.normal(size=point.dense.shape)
    dense = point.dense + noise * direction / np.linalg.norm(direction)
    chunk = replace(point.chunk, document_id=f"{number}/{point.chunk.document_id}")
    return Point(chunk, np.asarray(dense / np.linalg.norm(dense), np.float32), point.sparse)


def copy_families(path: Path, copies: int) -> None:
    """Write the copies of the translations beside an index."""
    with closing(sqlite3.connect(path)) as db, db:
        for table in ("documents", "signatures"):
            db.execute(f"CREATE TEMP TABLE {table}_once AS SELECT * FROM main.{table}")
        (last,) = db.execute("SELECT COALESCE(MAX(family), 0) FROM documents").fetchone()
        for number in range(1, copies):
            db.execute(
                "INSERT INTO documents SELECT ?1||'/'||id, digest, lang, chunks, length, family + ?1 * ?2, "
                "?1||'/'||pivot, aligned FROM documents_once", (number, last),
            )  # fmt: skip
            db.execute("INSERT INTO signatures SELECT ?1||'/'||id, vector, names FROM signatures_once", (number,))


def multiply(index: str, target: Path, copies: int, noise: float) -> int:
    """Write the copies of an index to another; returns their chunks."""
    folder, rng = IndexFolder(target), np.random.default_rng(0)
    with folder.write_lock(), closing(open_index(load_settings(index=index))) as source:
        building = folder.begin(fresh=True, corpus="multiply")
        source.language_map.save(building / LANGUAGE_MAP)
        with closing(EdgeStore(building / SHARD, source.manifest.dimension)) as store:
            for number in range(copies):
                batch: list[Point] = []
                for point in source.store.iter_points(with_vectors=True):
                    batch.append(copy_of(point, number, noise, rng) if number else point)
                    if len(batch) == UPSERT_BATCH:
                        store.upsert(batch)
                        batch = []
                store.upsert(batch)
                print(f"{store.count()} chunks", flush=True)
            store.optimize()
        if source.families.known and source.folder:
            shutil.copyfile(source.folder / FAMILIES, building / FAMILIES)
            copy_families(building / FAMILIES, copies)
        held = source.manifest
        folder.publish(held.model_copy(update={
            "documents": held.documents * copies, "chunks": held.chunks * copies,
            "languages": {lang: chunks * copies for lang, chunks in held.languages.items()},
        }))  # fmt: skip
    return held.chunks * copies


def main() -> None:
    """Make it and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", help="name or path of an embedded index")
    parser.add_argument("target", type=Path, help="folder of the new one")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--noise", type=float, default=0.4)
    options = parser.parse_args()
    started = time.monotonic()
    chunks = multiply(options.index, options.target, options.copies, options.noise)
    print(f"{chunks} chunks in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
