"""Jobs beside the web process: ingest, remove, evaluate, train. Each is a command line in a folder of its own."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from search.settings import load_settings
from ui.run_job import ENDED, ERRORS, LOCK, OUTPUT

_DESCRIPTION, _STOPPING, _DISMISSED = "job.json", "stopping", "dismissed"
_KEPT = 30
_TAIL_BYTES = 64 * 1024
_STARTING_S = 5.0


class State(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is now. `about` is what it works on, in words; `started` is in seconds since the epoch."""

    id: str
    kind: str
    about: str
    started: float
    state: State
    events: tuple[dict[str, Any], ...]
    problem: str
    is_stopping: bool = False
    is_dismissed: bool = False

    @property
    def progress(self) -> float | None:
        """Share that is done, in [0, 1]; None before the first report."""
        for event in reversed(self.events):
            for done, total in (("bytes", "total_bytes"), ("step", "of"), ("chunks", "total_chunks")):
                if event.get(total):
                    return min(max(float(event.get(done) or 0) / float(event[total]), 0.0), 1.0)
        return None

    @property
    def at(self) -> str:
        """What it is working on just now."""
        return str(next((event["at"] for event in reversed(self.events) if event.get("at")), ""))

    @property
    def summary(self) -> dict[str, Any]:
        """The last thing it said; empty while it runs."""
        return self.events[-1] if self.events and self.state is not State.RUNNING else {}


def start(kind: str, about: str, module: str, arguments: Sequence[str]) -> str:
    """Start `python -m module arguments` and return the job's id. Older finished jobs are forgotten."""
    _forget_old()
    job_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    folder = _folder() / job_id
    folder.mkdir(parents=True)
    description = {"kind": kind, "about": about, "started": time.time()}
    (folder / _DESCRIPTION).write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    command = [sys.executable, "-m", module, *arguments]
    runner = subprocess.Popen(
        [sys.executable, "-m", "ui.run_job", str(folder), *command],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        cwd=Path(__file__).parents[1], env=_environment(),
    )  # fmt: skip
    (folder / "pid").write_text(str(runner.pid), encoding="ascii")
    _runners[job_id] = runner
    return job_id


def jobs(*, kinds: Sequence[str] = ()) -> list[Job]:
    """Jobs, newest first."""
    names = sorted((path.name for path in _folder().glob("*-*")), reverse=True) if _folder().is_dir() else []
    found = [job for name in names if (job := job_of(name)) is not None]
    return [job for job in found if not kinds or job.kind in kinds]


def job_of(job_id: str) -> Job | None:
    """The job of that id as it is now, None when it is forgotten or half written."""
    folder = _folder() / Path(job_id).name
    try:
        described: Mapping[str, Any] = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    state = _state(folder, float(described["started"]))
    errors = _tail(folder / ERRORS) if state is State.FAILED else ""
    problem = errors.strip().splitlines()[-1].removeprefix("error: ") if errors.strip() else ""
    events = tuple(_events(_tail(folder / OUTPUT)))
    return Job(
        job_id, described["kind"], described["about"], float(described["started"]), state, events, problem,
        is_stopping=(folder / _STOPPING).exists(), is_dismissed=(folder / _DISMISSED).exists(),
    )  # fmt: skip


def all_events(job_id: str) -> list[dict[str, Any]]:
    """Everything that a job said; `Job.events` holds the end of it."""
    try:
        return _events((_folder() / Path(job_id).name / OUTPUT).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return []


def stop(job_id: str) -> None:
    """Ask a job to stop; what it finished before is kept."""
    folder = _folder() / Path(job_id).name
    if _is_locked(folder / LOCK):
        (folder / _STOPPING).touch()
        with suppress(OSError, ValueError):
            os.kill(int((folder / "pid").read_text(encoding="ascii")), signal.SIGTERM)


def dismiss(job_id: str) -> None:
    """Show the end of a job no longer; what it said is kept."""
    with suppress(OSError):
        (_folder() / Path(job_id).name / _DISMISSED).touch()


_runners: dict[str, subprocess.Popen[bytes]] = {}
"""Runners that this process started, to be waited for when they end."""


def _folder() -> Path:
    return load_settings().home / "jobs"


def _environment() -> dict[str, str]:
    """The web process's environment, less its password, which a job does not need; a job has another current folder."""
    kept = {name: value for name, value in os.environ.items() if name != "PANLINGUA_PASSWORD"}
    return kept | {"PANLINGUA_HOME": str(load_settings().home)}


def _state(folder: Path, started: float) -> State:
    ended = folder / ENDED
    if not ended.exists():
        runner = _runners.get(folder.name)
        running = runner.poll() is None if runner else _is_locked(folder / LOCK) or time.time() - started < _STARTING_S
        if running or ended.exists():
            return State.RUNNING
        return State.STOPPED if (folder / _STOPPING).exists() else State.FAILED
    status = ended.read_text(encoding="ascii")
    if runner := _runners.pop(folder.name, None):
        runner.wait()
    if status == "0":
        return State.DONE
    return State.STOPPED if (folder / _STOPPING).exists() else State.FAILED


def _is_locked(path: Path) -> bool:
    try:
        with path.open("r+", encoding="ascii") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _events(text: str) -> list[dict[str, Any]]:
    events = []
    for line in text.splitlines():
        with suppress(ValueError):
            if isinstance(event := json.loads(line), dict):
                events.append(event)
    return events


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(file.tell() - _TAIL_BYTES, 0))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _forget_old() -> None:
    for job in jobs()[_KEPT:]:
        if job.state is not State.RUNNING:
            shutil.rmtree(_folder() / job.id, ignore_errors=True)
