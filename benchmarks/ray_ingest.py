"""Throughput of `indexer ingest --engine ray` against the number of workers, beside the local engine in the same run.

    python -m benchmarks.ray_ingest [--corpus FOLDER] [--documents 60] [--workers 1 2] [--waiting 0.02]

Every engine gets one core for each worker, the local one a single core, so that the ratios say what one worker more
brings; on a machine with fewer free cores than workers they say nothing. Each run writes a new embedded index, which is
compared with what the local engine wrote. `shards_s` is the time from starting the workers until the last shard is
written (imports and loading the encoder included); `all_s` also counts the language map, the translations and the
search structures, which one process makes at the end. With `--waiting` the encoder hashes words and waits so many
seconds for each passage, as one does for a GPU: then a worker more is not kept from a core by the others, and what is
left is the engine's own cost. Writes results/cluster.jsonl.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.faults import HashEncoder
from benchmarks.records import ROOT, describe_run, write_rows
from indexer import build
from indexer.ray_engine import import_ray, ingest_with_ray
from indexer.sources import ReadOptions, SourceFile, iter_files
from search.encoder import Encoder
from search.opening import load_own_encoder, open_index
from search.records import Point, Vectors
from search.settings import Settings, load_settings

CORPUS = ROOT / "corpus" / "documents"
Row = dict[str, object]


def copy_sample(corpus: Path, documents: int, target: Path) -> None:
    """Copy evenly chosen files of a folder."""
    files = [item for item in iter_files(corpus, options=ReadOptions()) if isinstance(item, SourceFile)]
    for number in np.linspace(0, len(files) - 1, min(documents, len(files)), dtype=int):
        place = target / files[number].relative
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[number].path, place)


@contextmanager
def cluster(workers: int) -> Iterator[None]:
    """A Ray cluster on this machine with a core for each worker; starting it is not measured."""
    ray = import_ray()
    ray.init(
        num_cpus=workers, include_dashboard=False, log_to_driver=False, object_store_memory=256 * 2**20,
        logging_level=logging.ERROR,
    )  # fmt: skip
    yield
    ray.shutdown()


class WaitingEncoder(HashEncoder):
    """Hashes words, and waits for every passage as one does for a device."""

    def __init__(self, passage_s: float) -> None:
        super().__init__("hash-a")
        self._passage_s = passage_s

    def encode_documents(self, texts: list[str]) -> Vectors:
        """Vectors (B, D)."""
        time.sleep(self._passage_s * len(texts))
        return super().encode_documents(texts)


def load_waiting(passage_s: float, _settings: Settings) -> Encoder:
    """The encoder that waits, for a worker."""
    return WaitingEncoder(passage_s)  # type: ignore[return-value]


def measure(corpus: Path, settings: Settings, workers: int | None, load: Callable[[Settings], Encoder]) -> Row:
    """One ingest into a new index, by the local engine (None) or by so many workers."""
    started = time.monotonic()
    if workers is None:
        summary = build.ingest(corpus, settings, fresh=True, encoder=load(settings))
    else:
        with cluster(workers):
            started = time.monotonic()
            summary = ingest_with_ray(corpus, settings, fresh=True, workers=workers, load=load)
    seconds = time.monotonic() - started
    return {
        "engine": "local" if workers is None else "ray", "workers": workers or 1, "documents": summary.documents,
        "chunks": summary.chunks, "shards_s": round(summary.seconds, 1), "all_s": round(seconds, 1),
        "chunks_per_second": round(summary.chunks / summary.seconds, 2),
    }  # fmt: skip


def points_of(settings: Settings) -> dict[str, Point]:
    """All points by chunk id."""
    opened = open_index(settings)
    try:
        return {point.chunk.id: point for point in opened.store.iter_points(with_vectors=True)}
    finally:
        opened.close()


def compare(expected: dict[str, Point], found: dict[str, Point]) -> Row:
    """How two indexes differ: chunks and words have to be equal, vectors may differ by what a batch does to them."""
    same_ids = expected.keys() == found.keys()
    pairs = [(point, found[name]) for name, point in expected.items() if name in found]
    dense = [np.stack([point.dense for point in side]) for side in zip(*pairs, strict=True)]
    cosines = (dense[0] * dense[1]).sum(1) / np.prod([np.linalg.norm(side, axis=1) for side in dense], axis=0)
    return {
        "same_ids": same_ids,
        "same_chunks": all(one.chunk == other.chunk for one, other in pairs),
        "same_words": all(
            one.sparse.indices.tobytes() == other.sparse.indices.tobytes()
            and one.sparse.values.tobytes() == other.sparse.values.tobytes()
            for one, other in pairs
        ),
        "same_vectors": round(float((dense[0] == dense[1]).all(1).mean()), 4),
        "cosine_min": round(float(cosines.min()), 6),
    }


def main() -> None:
    """Measure, compare, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--waiting", type=float, metavar="SECONDS", help="a passage, in place of encoding it")
    arguments = parser.parse_args()
    run = describe_run(f"python -m benchmarks.ray_ingest {' '.join(sys.argv[1:])}".strip())
    load = load_own_encoder if arguments.waiting is None else partial(load_waiting, arguments.waiting)
    home = load_settings(threads=1)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        copy_sample(arguments.corpus, arguments.documents, corpus)
        local: dict[str, Point] = {}
        for workers in (None, *arguments.workers):
            settings = home.model_copy(update={"index": str(Path(folder) / f"index-{workers}")})
            row = {**measure(corpus, settings, workers, load), "load_average": round(os.getloadavg()[0], 1)}
            local = local or points_of(settings)
            rows.append({**row, **compare(local, points_of(settings))})
            print(rows[-1], flush=True)
    for row in rows:
        row["against_local"] = round(float(str(row["chunks_per_second"])) / float(str(rows[0]["chunks_per_second"])), 2)
    write_rows("cluster", run, rows)


if __name__ == "__main__":
    main()
