"""What the routes work with: the engine, its threads, the jobs, the uploads, the keys and the counters."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import Request

from search.api.batching import batching
from search.api.jobs import INDEXER, JobQueue, JobState, job_environment
from search.api.keys import KeyRing
from search.api.limits import RateLimiter, Workers
from search.api.metrics import Metrics
from search.api.problems import ApiError
from search.api.uploads import Uploads
from search.encoder import Encoder
from search.engine import Engine
from search.errors import EncoderError, EncoderMismatchError, IndexNotFoundError, PanlinguaError
from search.manifest import IndexManifest
from search.opening import load_own_encoder
from search.settings import Settings

T = TypeVar("T")

logger = logging.getLogger("search.api")


class Service:
    """One server's state. `start` loads the encoder in the background; until then searches are answered with 503.

    Args:
        settings: Of the index and the server.
        keys: Who may do what; an empty ring lets everybody do everything.
        encoder: An encoder already loaded; None loads the one of the settings.
        indexer: Command line of the `indexer` command, for the jobs.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        keys: KeyRing | None = None,
        encoder: Encoder | None = None,
        indexer: Sequence[str] = INDEXER,
    ) -> None:
        serve = settings.serve
        self.settings, self.keys, self.metrics = settings, keys or KeyRing(), Metrics()
        self.rates = RateLimiter(serve.rate)
        self.workers = Workers(threads=serve.workers, waiting=serve.waiting, timeout_s=serve.timeout_s)
        self.uploads = Uploads(settings)
        self.jobs = JobQueue(job_environment(settings), indexer)
        self._encoder = encoder
        self._engine: Engine | None = None
        self._problem = "the encoder is being loaded"
        self._loading: threading.Thread | None = None
        self.metrics.watch("busy_calls", "Searches that run or wait", lambda: self.workers.busy)
        self.metrics.watch("open_jobs", "Jobs that run or wait", self._open_jobs)
        self.metrics.watch("ready", "1 when the encoder is loaded", lambda: float(self._engine is not None))

    def start(self) -> threading.Thread:
        """Load the encoder in a thread of its own, which is returned; once."""
        if self._loading is None:
            self._loading = threading.Thread(target=self._load, name="load", daemon=True)
            self._loading.start()
        return self._loading

    def engine(self) -> Engine:
        """The engine.

        Raises:
            ApiError: It is not ready; the message says why.
        """
        if self._engine is None:
            raise ApiError(503, f"not ready: {self._problem}", {"Retry-After": "5"})
        return self._engine

    def check(self) -> None:
        """Nothing, if searches are answered, or documents are taken where there are none yet.

        Raises:
            ApiError: The encoder, or that of the index, is not loaded; the message says why.
            StoreError: The index cannot be opened.
        """
        try:
            self.engine().encoder()
        except IndexNotFoundError:
            return
        except EncoderMismatchError as error:
            raise ApiError(503, f"not ready: {error}", {"Retry-After": "5"}) from error

    def encoder(self) -> Encoder:
        """The encoder, whether or not there is an index.

        Raises:
            ApiError: It is not loaded; the message says why.
        """
        engine = self.engine()
        try:
            return engine.encoder()
        except (IndexNotFoundError, EncoderMismatchError, ApiError):  # texts can be encoded all the same
            assert self._encoder is not None
            return self._encoder

    async def run(self, call: Callable[[Engine], T]) -> T:
        """Call the engine in a thread."""
        engine = self.engine()
        return await self.workers.run(lambda: call(engine))

    def close(self) -> None:
        """Stop the jobs and release the index."""
        self.jobs.close()
        if self._engine is not None:
            self._engine.close()

    def _load(self) -> None:
        given = self._encoder
        try:
            loaded = given or load_own_encoder(self.settings)
        except Exception as error:  # nobody else would see what goes wrong in this thread
            self._problem = f"the encoder cannot be loaded: {error}"
            logger.error("%s", self._problem)
            return
        self._encoder = batching(loaded, self._count_batch)
        engine = Engine(self.settings, self._encoder, load=None if given else self._load_encoder)
        try:
            engine.load()
        except PanlinguaError as error:  # no index yet, or one of another encoder: each request is told
            logger.warning("%s", error)
        self._engine = engine

    def _load_encoder(self, settings: Settings, manifest: IndexManifest) -> Encoder:
        """The encoder of an index that was built anew with another.

        Raises:
            ApiError: It cannot be loaded, which is not the fault of whoever asks.
        """
        try:
            return batching(load_own_encoder(settings, manifest), self._count_batch)
        except EncoderError as error:
            raise ApiError(503, f"not ready: {error}", {"Retry-After": "5"}) from error

    def _count_batch(self, texts: int) -> None:
        if self._engine is not None:  # not what loading asks by itself
            self.metrics.count_batch(texts)

    def _open_jobs(self) -> float:
        return sum(job.state in (JobState.QUEUED, JobState.RUNNING) for job in self.jobs.jobs())


def service_of(request: Request) -> Service:
    """The service of the app that answers this request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service
