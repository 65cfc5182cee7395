"""Jobs that change the index, one after another, each a process of its own: an ingest never stops the searching.

The process is the `indexer` command, which says on stdout how far it is. A server that stops asks the running job to
stop as well; the same request later goes on where it ended.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import IO, Any

from search.api.problems import ApiError
from search.settings import Settings

INDEXER = (sys.executable, "-m", "indexer.cli")
_KEPT = 200
_MOST_QUEUED = 1000
_STOPPING_S = 20.0
_ERROR_CHARACTERS = 2000
_STOPPED = (130, -signal.SIGINT, -signal.SIGTERM)


class JobState(StrEnum):
    """How a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is now. Times are seconds since the epoch; `summary` is what the command said last."""

    id: str
    kind: str
    arguments: tuple[str, ...]
    created: float
    state: JobState = JobState.QUEUED
    started: float | None = None
    ended: float | None = None
    progress: float | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


class JobQueue:
    """Runs jobs one after another in a thread.

    Args:
        environment: Environment of the jobs' processes.
        program: Command line before a job's own arguments.
    """

    def __init__(self, environment: Mapping[str, str], program: Sequence[str] = INDEXER) -> None:
        self._environment, self._program = dict(environment), tuple(program)
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._process: tuple[str, subprocess.Popen[str]] | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()

    def submit(self, kind: str, arguments: Sequence[str]) -> Job:
        """Queue a job. One that already waits with the same arguments stands for this one as well.

        Raises:
            ApiError: Too many jobs wait.
        """
        with self._lock:
            waiting = [job for job in self._jobs.values() if job.state is JobState.QUEUED]
            for job in waiting:
                if (job.kind, job.arguments) == (kind, tuple(arguments)):
                    return job
            if len(waiting) >= _MOST_QUEUED:
                raise ApiError(503, f"{len(waiting)} jobs are waiting; try again later", {"Retry-After": "60"})
            job = Job(secrets.token_hex(8), kind, tuple(arguments), time.time())
            self._jobs[job.id] = job
            self._forget_old()
        self._queue.put(job.id)
        return job

    def jobs(self) -> list[Job]:
        """All jobs that are remembered, newest first."""
        with self._lock:
            return [*reversed(self._jobs.values())]

    def job(self, job_id: str) -> Job:
        """One job as it is now.

        Raises:
            ApiError: There is none of that id.
        """
        with self._lock:
            if job_id not in self._jobs:
                raise ApiError(404, "there is no such job, or it is forgotten; GET /v1/jobs lists the last ones")
            return self._jobs[job_id]

    def stop(self, job_id: str) -> Job:
        """Ask a job to stop; what it finished before is kept."""
        job = self.job(job_id)
        with self._lock:
            if self._jobs[job_id].state is JobState.QUEUED:
                self._jobs[job_id] = replace(job, state=JobState.STOPPED, ended=time.time())
            elif self._process is not None and self._process[0] == job_id:
                self._process[1].send_signal(signal.SIGINT)
        return self.job(job_id)

    def close(self) -> None:
        """Stop the running job and take no more."""
        self._closing = True
        self._queue.put(None)
        with self._lock:
            process = self._process[1] if self._process else None
        if process is not None:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOPPING_S)
            process.kill()
        self._thread.join(_STOPPING_S)

    def _forget_old(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.state not in (JobState.QUEUED, JobState.RUNNING)]
        for job_id in ended[: max(0, len(self._jobs) - _KEPT)]:
            del self._jobs[job_id]

    def _work(self) -> None:
        while (job_id := self._queue.get()) is not None and not self._closing:
            with self._lock:
                job = self._jobs.get(job_id)
                if job is None or job.state is not JobState.QUEUED:  # stopped, and perhaps forgotten
                    continue
            with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
                self._run(job_id, errors)

    def _run(self, job_id: str, errors: IO[str]) -> None:
        self._change(job_id, state=JobState.RUNNING, started=time.time())
        command = [*self._program, *self.job(job_id).arguments]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True,
                encoding="utf-8", errors="replace", env=self._environment,
            )  # fmt: skip
        except OSError as error:
            self._change(job_id, state=JobState.FAILED, ended=time.time(), error=f"cannot start the job: {error}")
            return
        with self._lock:
            self._process = (job_id, process)
        with process:
            for line in process.stdout or ():
                self._read(job_id, line)
        with self._lock:
            self._process = None
        self._finish(job_id, process.returncode, errors)

    def _read(self, job_id: str, line: str) -> None:
        with suppress(ValueError, KeyError, ZeroDivisionError, TypeError):
            event = json.loads(line)
            if event.get("event") == "progress":
                self._change(job_id, progress=min(max(event["bytes"] / event["total_bytes"], 0.0), 1.0))
            else:
                self._change(job_id, summary=event)

    def _finish(self, job_id: str, status: int, errors: IO[str]) -> None:
        if status == 0:
            self._change(job_id, state=JobState.DONE, ended=time.time(), progress=1.0)
            return
        errors.seek(0)
        said = errors.read()[-_ERROR_CHARACTERS:].strip().splitlines()
        state = JobState.STOPPED if status in _STOPPED else JobState.FAILED
        message = said[-1].removeprefix("error: ") if said else f"the job ended with status {status}"
        self._change(job_id, state=state, ended=time.time(), error=message)

    def _change(self, job_id: str, **values: Any) -> None:
        with self._lock:
            self._jobs[job_id] = replace(self._jobs[job_id], **values)


def job_environment(settings: Settings) -> dict[str, str]:
    """The environment of a job: this process's, less the keys of the API, with the settings of the server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PANLINGUA_")}
    own = {
        "HOME": str(settings.home), "INDEX": _absolute_index(settings),
        "STORE": settings.store, "API_KEY": settings.api_key,
        "ENCODER": settings.encoder if "encoder" in settings.model_fields_set else None,
        "BACKEND": settings.backend, "THREADS": settings.threads,
    }  # fmt: skip
    return kept | {f"PANLINGUA_{name}": str(value) for name, value in own.items() if value is not None}


def _absolute_index(settings: Settings) -> str:
    is_name = settings.index_folder.parent == settings.home / "indexes"
    return settings.index if is_name else str(settings.index_folder)
