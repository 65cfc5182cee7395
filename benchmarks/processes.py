"""Run a job as a process of its own and say what it took."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.records import ROOT


@dataclass
class Job:
    """A finished process: the JSON object it printed last, wall seconds, peak resident bytes of its process tree."""

    result: dict[str, Any]
    seconds: float
    peak_bytes: int


def run_job(command: Sequence[str]) -> Job:
    """Run a process to its end and watch its memory.

    Raises:
        RuntimeError: It failed; the message holds the end of what it said.
    """
    started = time.monotonic()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT) as process,
    ):
        watch = TreeMemory(process.pid)
        watch.start()
        output = process.stdout.read() if process.stdout else ""
        process.wait()
        peak = watch.stop()
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}:\n{said}")
    return Job(json.loads(output.strip().splitlines()[-1]), time.monotonic() - started, peak)


class TreeMemory(threading.Thread):
    """Samples the resident memory of a process with all its children (Linux; elsewhere it sees nothing)."""

    def __init__(self, pid: int, interval_s: float = 0.2) -> None:
        super().__init__(daemon=True)
        self._pid, self._interval_s = pid, interval_s
        self._peak = 0
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        while not self._done.wait(self._interval_s):
            self._peak = max(self._peak, tree_resident_bytes(self._pid))

    def stop(self) -> int:
        """Stop; returns the peak in bytes."""
        self._done.set()
        self.join()
        return self._peak


def tree_resident_bytes(pid: int) -> int:
    """Resident bytes of a process and its descendants now; 0 where /proc does not tell."""
    total = 0
    for process in _tree(pid):
        with suppress(OSError):
            total += int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    return total * os.sysconf("SC_PAGE_SIZE")


class Memory(NamedTuple):
    """Bytes of a process tree: resident (shared pages counted in every process), proportional, and by origin."""

    rss: int
    pss: int
    anonymous: int
    file: int


def tree_memory(pid: int) -> Memory:
    """Memory of a process and its descendants now; `pss` counts a shared page once. Linux from 5.4 on."""
    return _memory(_tree(pid))


def own_memory(pid: int) -> Memory:
    """Memory of a process now, its descendants left out."""
    return _memory([pid])


def _memory(processes: Sequence[int]) -> Memory:
    totals: Counter[str] = Counter()
    for process in processes:
        with suppress(OSError):
            for line in Path(f"/proc/{process}/smaps_rollup").read_text("ascii").splitlines()[1:]:
                name, value, _ = line.split()
                totals[name] += int(value) * 1024
    return Memory(totals["Rss:"], totals["Pss:"], totals["Pss_Anon:"], totals["Pss_File:"])


def _tree(pid: int) -> list[int]:
    """A process and its descendants; none where /proc does not tell."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text("utf-8", errors="replace")
            children[int(stat.rpartition(")")[2].split()[1])].append(int(folder.name))
    found = [pid]
    for process in found:
        found += children[process]
    return found


def folder_bytes(folder: Path) -> int:
    """Bytes that the files below a folder occupy on disk."""
    return sum(stat.st_blocks * 512 for path in folder.rglob("*") if path.is_file() for stat in (path.stat(),))
