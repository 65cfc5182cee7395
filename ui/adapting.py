"""An encoder made from one's own documents: `training adapt` as a job, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from search.settings import Settings
from ui import jobs
from ui.files import safe_folder_name
from ui.laboratory import trained_folder
from ui.languages import language_name, signed
from ui.messages import Speaker

REPORT = "report.json"
TRIALS = MappingProxyType(
    {
        "held-out documents": "trial.held_out",
        "given queries": "trial.given",
        "bundled corpus": "trial.bundled",
        "sentence": "trial.sentence",
        "translation": "trial.translation",
    }
)
"""Messages for what the command calls its trials and its kinds of questions."""
_FIRST_NAME = "adapted"


class Figure(NamedTuple):
    """Mean nDCG@10 on one set of questions, of the encoder to start from and of the one made."""

    name: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Adapted:
    """An encoder that was made from documents, and the verdict on it."""

    folder: Path
    recommended: bool
    findings: tuple[Mapping[str, Any], ...]
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


def verdict_in(findings: Iterable[Mapping[str, Any]], say: Speaker) -> str:
    """Why an encoder is recommended or not, in the reader's language, a line for each finding of its report."""
    return "\n".join(_finding_in(finding, say) for finding in findings)


def trial_in(name: str, say: Speaker) -> str:
    """What an encoder was judged on, in the reader's language."""
    return say(TRIALS[name]) if name in TRIALS else name


def _adapted(folder: Path, report: Mapping[str, Any]) -> Adapted:
    trials = [*report["domain"], *report["general"]]
    figures = tuple(
        Figure(str(trial["name"]), float(trial["overall"]["before"]), float(trial["overall"]["after"]))
        for trial in trials
    )
    return Adapted(folder, bool(report["recommended"]), tuple(report["findings"]), figures)


def _finding_in(finding: Mapping[str, Any], say: Speaker) -> str:
    part = str(finding["part"])
    named = trial_in(part, say) if part in TRIALS else language_name(part, reader=say.language)
    figures = {name: signed(finding[name], say.language) for name in ("points", "low", "high")}
    return say(f"verdict.{finding['ground']}", trial=trial_in(finding["trial"], say), part=named, **figures)
