"""An encoder made from one's own documents: `training adapt` as a job, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from search.settings import Settings
from ui import jobs
from ui.files import safe_folder_name
from ui.laboratory import trained_folder

REPORT = "report.json"
_FIRST_NAME = "adapted"


@dataclass(frozen=True, slots=True)
class Figure:
    """Mean nDCG@10 on one set of questions, of the encoder to start from and of the one made."""

    name: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Adapted:
    """An encoder that was made from documents, and the verdict on it."""

    folder: Path
    recommended: bool
    reason: str
    figures: tuple[Figure, ...]


def can_adapt() -> bool:
    """Whether the package came with `training adapt`."""
    return find_spec("training") is not None and find_spec("training.adapt_command") is not None


def adapted_encoders(settings: Settings) -> list[Adapted]:
    """The encoders adapted here, newest first."""
    paths = sorted(trained_folder(settings).glob(f"*/{REPORT}"), key=lambda path: -path.stat().st_mtime)
    found = []
    for path in paths:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append(_adapted(path.parent, json.loads(path.read_text(encoding="utf-8"))))
    return found


def free_name(settings: Settings) -> str:
    """A name that no encoder here has yet."""
    taken = {path.name for path in trained_folder(settings).glob("*")}
    return next(name for n in range(1, len(taken) + 2) if (name := f"{_FIRST_NAME}-{n}") not in taken)


def start_adaptation(settings: Settings, folder: str, *, encoder: str, name: str, minutes: int) -> str:
    """Start `training adapt`; one of that name that was stopped goes on. Returns the job."""
    out = trained_folder(settings) / safe_folder_name(name)
    out.parent.mkdir(parents=True, exist_ok=True)
    resume = ["--resume"] if out.with_name(f".{out.name}-adapting").is_dir() else []
    options = ["--out", str(out), "--encoder", encoder, "--minutes", str(minutes), "--json", *resume]
    return jobs.start("adapt", Path(folder).name, "training.cli", ["adapt", *options, "--", folder])


def _adapted(folder: Path, report: Mapping[str, Any]) -> Adapted:
    trials = [*report["domain"], *report["general"]]
    figures = tuple(
        Figure(str(trial["name"]), float(trial["overall"]["before"]), float(trial["overall"]["after"]))
        for trial in trials
    )
    return Adapted(folder, bool(report["recommended"]), str(report["reason"]), figures)
