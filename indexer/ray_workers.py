"""What runs in the processes of a Ray cluster: workers that ingest shards, and the writer of an embedded index."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.documents import Skipped
from indexer.ledger import Ledger
from indexer.pipeline import IngestOptions, PointSink, Summary
from indexer.shard_jobs import run_shard
from indexer.shards import Shard
from indexer.sources import SourceFile, iter_files
from search.balance import LanguageMap
from search.errors import StoreError
from search.opening import connect_index
from search.records import Filter, Point
from search.settings import Settings
from search.store.server import open_collection

if TYPE_CHECKING:
    from search.encoder import Encoder


@dataclass(frozen=True)
class Job:
    """What every worker has to know. `load` gives the encoder that the settings name."""

    corpus: Path
    settings: Settings
    options: IngestOptions
    language_map: LanguageMap
    dimension: int
    load: Callable[[Settings], Encoder]


@dataclass(frozen=True)
class Finished:
    """A shard that is in the store: what was done, its ledger, and the bytes of its files."""

    summary: Summary
    ledger: bytes
    bytes: int


class ShardWorker:
    """An actor that loads the encoder once and ingests one shard after the other.

    It keeps nothing that is needed after it: the ledger of a shard comes with the call and goes back with the answer.

    Args:
        job: What to do.
        writer: The actor that writes the embedded index; None: workers write to the server of the settings.
    """

    def __init__(self, job: Job, writer: Any = None) -> None:
        self._job, self._writer = job, writer
        self._shard, self._done, self._at = -1, 0, ""

    def start(self) -> tuple[str, int]:
        """Load the encoder, list the files, open the store; returns host and process."""
        self._encoder = self._job.load(self._job.settings)
        self._files: list[SourceFile | Skipped] = list(iter_files(self._job.corpus, options=self._job.options.read))
        self._store: PointSink = (
            RemoteStore(self._writer)
            if self._writer is not None
            else open_collection(*connect_index(self._job.settings), self._job.dimension)
        )
        return socket.gethostname(), os.getpid()

    def run(self, shard: Shard, ledger: bytes) -> Finished:
        """Ingest a shard, going on from its `ledger`."""
        self._shard, self._done, self._at = shard.number, 0, ""
        with tempfile.TemporaryDirectory(prefix="panlingua-shard-") as folder:
            path = Path(folder) / "ledger.sqlite"
            path.write_bytes(ledger)
            with closing(Ledger(path)) as opened:
                summary = run_shard(
                    shard, self._job.corpus, store=self._store, ledger=opened, encoder=self._encoder,
                    language_map=self._job.language_map, options=self._job.options, progress=self._advance,
                    items=self._files,
                )  # fmt: skip
            return Finished(summary, path.read_bytes(), self._done)

    def progress(self) -> tuple[int, int, str]:
        """Number of the present shard, its bytes that are dealt with, the file at hand; answered during `run`."""
        return self._shard, self._done, self._at

    def _advance(self, size: int, source: str) -> None:
        self._done += size
        self._at = source


class StoreWriter:
    """An actor that is the only writer of an embedded index."""

    def __init__(self, path: Path, dimension: int) -> None:
        from search.store.edge import EdgeStore

        self._store = EdgeStore(path, dimension)

    def upsert(self, points: Sequence[Point]) -> None:
        """See VectorStore; durable when it returns."""
        self._store.upsert(points)
        self._store.flush()

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """See VectorStore."""
        self._store.delete_documents(document_ids)

    def points(self, filter: Filter | None) -> list[Point]:
        """Points that match."""
        return list(self._store.iter_points(filter=filter))

    def flush(self) -> None:
        """See VectorStore."""
        self._store.flush()

    def close(self) -> None:
        """See VectorStore."""
        self._store.close()


class RemoteStore:
    """The writer's store as a worker sees it."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def upsert(self, points: Sequence[Point]) -> None:
        """See VectorStore."""
        ask(self._writer.upsert, list(points))

    def delete_documents(self, document_ids: Sequence[str]) -> None:
        """See VectorStore."""
        if document_ids:
            ask(self._writer.delete_documents, list(document_ids))

    def iter_points(self, *, filter: Filter | None = None) -> Iterable[Point]:
        """See VectorStore."""
        found: list[Point] = ask(self._writer.points, filter)
        return found

    def flush(self) -> None:
        """See VectorStore."""
        ask(self._writer.flush)


def ask(method: Any, *arguments: Any) -> Any:
    """Call an actor's method and wait for its answer; an error is the one that it raised, without Ray around it.

    Raises:
        StoreError: The actor is gone.
    """
    import ray
    from ray.exceptions import RayActorError, RayTaskError

    try:
        return ray.get(method.remote(*arguments))
    except RayTaskError as error:
        raise error.cause from error
    except RayActorError as error:
        raise StoreError(
            "the process that writes the index has ended (out of memory?). Run the same command again."
        ) from error
