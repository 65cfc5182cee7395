"""What every measurement keeps: when, what command, which commit, on which machine."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
_ABSOLUTE = re.compile(r"(?<![^\s=])/(?:[^\s/]+/)*")


def describe_run(command: str) -> dict[str, str]:
    """Time, command, commit and machine, to be kept with every row; of absolute paths, the last part.

    >>> describe_run("python -m benchmarks.x late=/a/b/encoder --index /c")["command"]
    'python -m benchmarks.x late=encoder --index c'
    """
    now, short = datetime.now(UTC).isoformat(timespec="seconds"), _ABSOLUTE.sub("", command)
    return {"date": now, "command": short, "commit": git_commit(), "machine": describe_machine()}


def git_commit() -> str:
    """Short hash of the checkout, with `+` when files differ from it; `unknown` outside a repository."""
    commit = _git("rev-parse", "--short", "HEAD")
    if not commit:
        return "unknown"
    return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    try:
        result = subprocess.run(("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def describe_machine() -> str:
    """Processor, usable cores, memory, system and Python in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{_cpu_name()}, {cores} cores, {_memory_gib()} GiB, {system}"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def _memory_gib() -> int:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    except (ValueError, OSError, AttributeError):
        return 0


def write_rows(
    name: str, run: Mapping[str, str], rows: Iterable[Mapping[str, object]], *, folder: Path = RESULTS
) -> Path:
    """Append rows, each with the description of the run, to `results/<name>.jsonl`; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            print(json.dumps({**run, **row}, ensure_ascii=False), file=file)
    return path
