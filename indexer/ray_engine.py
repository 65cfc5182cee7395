"""`indexer ingest --engine ray`: the shards of one ingest, worked off by the actors of a Ray cluster.

There are many more shards than workers, so that they end at about the same time and a lost worker costs little: another
one does its shard again, from the ledger that the shard began with. The workers write to the server themselves; an
embedded index has one writer that they send their points to. Ledgers, language map, translations and manifest are the
business of the process that drives them.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indexer.build import count_if_unchanged, finish, fit_chunks, open_building
from indexer.ledger import Ledger
from indexer.pipeline import IngestOptions, Progress, Summary
from indexer.ray_workers import Finished, Job, ShardWorker, StoreWriter, ask
from indexer.shard_jobs import begin, finish_merge, reconcile
from indexer.shards import Shard, ShardLedgers, begun_splits
from indexer.side_files import SHARDS, forget_side_files
from indexer.sources import iter_files
from search.errors import PanlinguaError, SettingsError
from search.index import LEDGER, SHARD, IndexFolder, writing
from search.opening import connect_index, load_own_encoder, name_own_encoder, server_folder
from search.settings import Settings
from search.store.server import renew_collection
from search.words import prepare_words

if TYPE_CHECKING:
    from search.encoder import Encoder

logger = logging.getLogger(__name__)

SHARDS_PER_WORKER = 8
CORES_PER_WORKER = 4
"""Cores of a worker without a GPU, where nobody says how many workers there are to be."""
MOST_LOSSES = 3
"""So many workers may be lost over one shard; then it is the shard."""
_OBJECT_STORE_BYTES = 256 * 2**20
_LOOK_EVERY_S = 0.5
_SAY_AFTER_S = 60.0


class ClusterError(PanlinguaError, RuntimeError):
    """The cluster cannot be used, or lost too many workers."""


def ingest_with_ray(
    corpus: Path,
    settings: Settings,
    *,
    options: IngestOptions | None = None,
    fresh: bool = False,
    workers: int | None = None,
    address: str | None = None,
    wait_s: float = 0.0,
    load: Callable[[Settings], Encoder] = load_own_encoder,
    progress: Progress = lambda _bytes, _source: None,
) -> Summary:
    """Bring an index into step with `corpus`, as `indexer.build.ingest` does, on a Ray cluster.

    Args:
        corpus: Every machine of the cluster has it at this path.
        settings: As for an ingest on one machine; the home folder is needed by every machine for the encoder alone.
        options: How to read and cut.
        fresh: Build the index anew.
        workers: How many; None: one for each GPU, or for each CORES_PER_WORKER cores.
        address: Of a running cluster; None: RAY_ADDRESS, else one on this machine for the time of the ingest.
        wait_s: How long to wait while another process writes to the index.
        load: Gives the encoder; called in this process and in every worker.
        progress: Told how far the run is.

    Raises:
        SettingsError: Ray is not installed.
        ClusterError: Ray cannot be started or joined, or workers were lost again and again over one shard. What is
            finished is kept for the next run.
    """
    ray, corpus = import_ray(), corpus.expanduser().resolve()
    next(iter(iter_files(corpus, options=(options or IngestOptions()).read)), None)  # a missing folder fails first
    folder = IndexFolder(settings.index_folder)
    with folder.write_lock(wait_s=wait_s):
        settings = name_own_encoder(settings, fresh=fresh)
        encoder = load(settings)
        options = fit_chunks(options or IngestOptions(), encoder.max_tokens)
        if not fresh and (unchanged := count_if_unchanged(corpus, settings, folder, encoder, options)):
            return unchanged
        with _cluster(ray, address, workers) as crew:
            run = _Run(corpus, settings, options, encoder, load, fresh, crew, progress)
            summary = _into_server(run) if settings.store else _into_folder(run, folder)
    prepare_words(settings)
    return summary


def import_ray() -> Any:
    """The package.

    Raises:
        SettingsError: It is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # by default it reports its use to its makers
    try:
        import ray
    except ImportError as error:
        raise SettingsError("--engine ray needs the package ray; pip install 'panlingua[cluster]'") from error
    return ray


@dataclass(frozen=True)
class _Run:
    corpus: Path
    settings: Settings
    options: IngestOptions
    encoder: Encoder
    load: Callable[[Settings], Encoder]
    fresh: bool
    crew: _Crew
    progress: Progress


def _into_server(run: _Run) -> Summary:
    """The workers write to the server; their ledgers come back here and are merged."""
    settings = run.settings
    if run.fresh:
        client, name = connect_index(settings)
        with closing(client):
            renew_collection(client, name, run.encoder.dimension)
        forget_side_files(server_folder(settings))
    ledgers = ShardLedgers(server_folder(settings), _split(server_folder(settings), run.crew.workers))
    language_map = begin(settings, run.encoder, run.corpus, ledgers, ledgers.shards)
    with ledgers.locks():
        job = Job(run.corpus, settings, run.options, language_map, run.encoder.dimension, run.load)
        summary = run.crew.work(job, ledgers, run.progress)
        finish_merge(settings, ledgers)
    return summary


def _into_folder(run: _Run, folder: IndexFolder) -> Summary:
    """One actor writes the next generation of the embedded index; here it is finished and made current."""
    from search.store.edge import EdgeStore

    space = open_building(folder, run.encoder, run.fresh, str(run.corpus))
    dimension, place = space.store.dimension, space.folder
    space.close()
    ledgers = ShardLedgers(place, _split(place, run.crew.workers))
    ledgers.seed(ledgers.shards, run.corpus, None)
    job = Job(run.corpus, run.settings, run.options, space.language_map, dimension, run.load)
    with run.crew.writer(place / SHARD, dimension) as writer:
        summary = run.crew.work(job, ledgers, run.progress, writer=writer)
    scope = ledgers.scope()
    ledgers.merge()
    space.ledger, space.store = Ledger(place / LEDGER), EdgeStore(place / SHARD, dimension)
    with closing(space):
        reconcile(space, scope)
        ledgers.discard()  # until here a kill leaves what another run can go on from, and a local one starts over
        manifest = finish(space, run.encoder.address, run.encoder.fingerprint)
    folder.publish(manifest)
    return summary


def _split(folder: Path, workers: int) -> int:
    """How many shards: as many as an ingest that was interrupted began with."""
    begun = begun_splits(folder)
    if len(begun) > 1:
        raise SettingsError(
            f"there are ledgers of splits into {' and '.join(map(str, begun))} shards in {folder / SHARDS}; merge the "
            "one that is complete with `indexer merge --shards N`, or start over with --fresh"
        )
    return begun[0] if begun else workers * SHARDS_PER_WORKER


@contextmanager
def _cluster(ray: Any, address: str | None, workers: int | None) -> Iterator[_Crew]:
    """Join the cluster, or start one on this machine, and leave it as it was."""
    ours = not ray.is_initialized()
    if ours:
        local = not (address or os.environ.get("RAY_ADDRESS"))
        own = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES} if local else {}
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except Exception as error:  # Ray raises it plainly where a node does not start in time
            where = address or os.environ.get("RAY_ADDRESS")
            what = "start a cluster on this machine" if local else f"join the cluster at {where}"
            hint = "Is there memory, room in /dev/shm and /tmp, and a core?" if local else "Is it up (`ray status`)?"
            raise ClusterError(f"Ray cannot {what}: {error} {hint}") from error
    try:
        yield _Crew(ray, workers)
    finally:
        if ours:
            ray.shutdown()


@dataclass(eq=False)
class _Worker:
    actor: Any
    shard: Shard | None = None
    counted: int = 0
    """Bytes of its shard that were reported."""


@dataclass
class _State:
    """One run through all shards: what waits, what runs, what was lost over which shard."""

    todo: deque[Shard]
    running: dict[Any, _Worker] = field(default_factory=dict)
    asked: dict[Any, _Worker] = field(default_factory=dict)
    losses: Counter[Shard | None] = field(default_factory=Counter)
    summaries: list[Summary] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    any_ready: bool = False


class _Crew:
    """The workers of a cluster: how many, what each is given, and which shard each does next."""

    def __init__(self, ray: Any, workers: int | None) -> None:
        self._ray = ray
        found = ray.cluster_resources()
        gpus, cores = int(found.get("GPU", 0)), max(1, int(found.get("CPU", 1)))
        self.workers = workers or gpus or max(1, cores // CORES_PER_WORKER)
        self._cores = cores // self.workers or cores / self.workers
        self._resources = {"num_gpus": min(1, gpus / self.workers)} if gpus else {"num_cpus": self._cores}
        self._threads = None if gpus else max(1, int(self._cores))

    @contextmanager
    def writer(self, path: Path, dimension: int) -> Iterator[Any]:
        """The actor that writes an embedded index, on this machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        writer = self._ray.remote(num_cpus=0, scheduling_strategy=here)(StoreWriter).remote(path, dimension)
        try:
            yield writer
        except BaseException:
            self._ray.kill(writer)
            raise
        ask(writer.close)

    def work(self, job: Job, ledgers: ShardLedgers, progress: Progress, *, writer: Any = None) -> Summary:
        """Ingest all shards that are not finished; their ledgers are replaced by those that come back."""
        threads = job.settings.threads or self._threads
        settings = job.settings.model_copy(update={"threads": threads})
        reference = self._ray.put(Job(job.corpus, settings, job.options, job.language_map, job.dimension, job.load))
        state = _State(deque(ledgers.shards))
        for _ in range(min(self.workers, len(state.todo))):
            self._hire(state, reference, writer)
        try:
            while state.running:
                done, _ = self._ray.wait(list(state.running), timeout=_LOOK_EVERY_S)
                self._look(state, progress)
                for answer in done:
                    self._take(state, answer, ledgers, progress, (reference, writer))
        finally:
            for worker in [*state.running.values()]:
                self._ray.kill(worker.actor)
        return add_up(state.summaries, seconds=time.monotonic() - state.started)

    def _hire(self, state: _State, job: Any, writer: Any) -> None:
        remote = self._ray.remote(max_concurrency=2, **self._resources)(ShardWorker)
        worker = _Worker(remote.remote(job, writer))
        state.running[worker.actor.start.remote()] = worker

    def _take(
        self, state: _State, answer: Any, ledgers: ShardLedgers, progress: Progress, hiring: tuple[Any, Any]
    ) -> None:
        """Deal with one answer: a worker that is ready, a shard that is finished, or a worker that was lost."""
        from ray.exceptions import RayActorError, RayTaskError

        worker = state.running.pop(answer)
        try:
            result = self._ray.get(answer)
        except RayTaskError as error:
            raise error.cause from error
        except RayActorError as error:
            self._lose(state, worker, progress, str(error).strip().rpartition("\n")[2].strip())
            if state.todo:
                self._hire(state, *hiring)
            return
        state.any_ready = True
        if worker.shard is not None:
            self._keep(state, worker, result, ledgers, progress)
        else:
            logger.info("worker ready on %s, process %d", *result)
        if not state.todo:
            return  # Ray ends a worker that nothing refers to; killing it would be reported as a fault
        shard = state.todo.popleft()
        worker.shard, worker.counted = shard, 0
        state.running[worker.actor.run.remote(shard, ledgers.path(shard).read_bytes())] = worker

    def _keep(
        self, state: _State, worker: _Worker, result: Finished, ledgers: ShardLedgers, progress: Progress
    ) -> None:
        assert worker.shard is not None
        path = ledgers.path(worker.shard)
        work = path.with_suffix(".new")
        with writing(path):
            work.write_bytes(result.ledger)
            work.replace(path)
        state.summaries.append(result.summary)
        progress(result.bytes - worker.counted, str(worker.shard))

    def _lose(self, state: _State, worker: _Worker, progress: Progress, reason: str) -> None:
        state.losses[worker.shard] += 1
        if state.losses[worker.shard] >= (MOST_LOSSES if worker.shard else MOST_LOSSES * self.workers):
            what = f"shard {worker.shard}" if worker.shard else "loading the encoder"
            raise ClusterError(
                f"{state.losses[worker.shard]} workers were lost over {what}; the last one: {reason} Look for too "
                "little memory on the machines, and in Ray's logs. Shards that are finished are kept: run the same "
                "command again."
            )
        if worker.shard is not None:
            logger.warning("a worker was lost; shard %s is done again (%s)", worker.shard, reason)
            progress(-worker.counted, str(worker.shard))
            state.todo.appendleft(worker.shard)

    def _look(self, state: _State, progress: Progress) -> None:
        """Pass on how far the workers are: each is asked anew when it has answered."""
        asked = list(state.asked)
        for answer in self._ray.wait(asked, num_returns=len(asked), timeout=0)[0] if asked else ():
            worker = state.asked.pop(answer)
            if worker not in state.running.values():
                continue
            try:
                number, done, at = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                continue  # what became of it is said by the answer to its work
            if worker.shard is not None and worker.shard.number == number:
                progress(done - worker.counted, at)
                worker.counted = done
        waiting = list(state.asked.values())
        for worker in state.running.values():
            if worker.shard is not None and worker not in waiting:
                state.asked[worker.actor.progress.remote()] = worker
        if not state.any_ready and time.monotonic() - state.started > _SAY_AFTER_S:
            state.any_ready = True  # said once
            logger.warning("no worker has started yet: is there room for %s in the cluster?", self._resources)


def add_up(summaries: Sequence[Summary], *, seconds: float) -> Summary:
    """The summary of all shards together."""
    total = Summary(seconds=seconds, empty=all(summary.empty for summary in summaries))
    for summary in summaries:
        for name in ("files", "read", "unchanged", "documents", "chunks", "removed", "bytes"):
            setattr(total, name, getattr(total, name) + getattr(summary, name))
        total.languages.update(summary.languages)
        total.as_text.update(summary.as_text)
        total.skipped += summary.skipped
    total.skipped.sort(key=lambda item: item.source)
    return total
