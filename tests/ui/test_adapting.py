"""The Encoders page and `training adapt`: the command as it is asked, the report as it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import typer

from search.evaluation.significance import Difference
from search.settings import load_settings
from training.adapt.verdict import Comparison, Finding, Ground, Row, Verdict, as_record
from training.cli import app
from ui import adapting, jobs
from ui.languages import language_name
from ui.messages import LANGUAGES, Speaker

NAMED = (Ground.GAIN, Ground.LOSS, Ground.LOSS_IN)


def comparison(name: str, before: float, after: float) -> Comparison:
    return Comparison(name, Row("all", 30, 30, before, after, before, after, None), (), (), ())


def write_report(folder: Path, verdict: Verdict) -> None:
    record = as_record(verdict, [comparison("own documents", 0.61, 0.72)], [comparison("general", 0.9, 0.89)])
    folder.mkdir(parents=True)
    (folder / adapting.REPORT).write_text(json.dumps(record), encoding="utf-8")


def test_the_verdict_is_read_as_the_command_writes_it(home: Path) -> None:
    gain = Finding.of(Ground.GAIN, "held-out documents", Difference(0.026, 0.017, 0.037, 0.001, 40))
    write_report(home / "trained" / "適応", Verdict(True, (gain,)))
    (home / "trained" / "broken").mkdir()
    (home / "trained" / "broken" / adapting.REPORT).write_text("{", encoding="utf-8")
    (found,) = adapting.adapted_encoders(load_settings())
    assert (found.folder.name, found.recommended) == ("適応", True)
    assert "+2,6" in adapting.verdict_in(found.findings, Speaker("de"))
    assert "Zurückgehaltene Dokumente" in adapting.verdict_in(found.findings, Speaker("de"))
    assert [(figure.name, figure.before, figure.after) for figure in found.figures] == [
        ("own documents", 0.61, 0.72), ("general", 0.9, 0.89),
    ]  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_ground_of_a_verdict_can_be_said_in_every_language(language: str) -> None:
    say = Speaker(language)
    findings = [asdict(Finding(ground, "bundled corpus", "th", -4.2, -6.1, -2.3)) for ground in Ground]
    said = adapting.verdict_in(findings, say).split("\n")
    assert len(set(said)) == len(Ground)
    assert language_name("th", reader=language) in said[list(Ground).index(Ground.LOSS_IN)]
    assert all(say("trial.bundled") in line for line, ground in zip(said, Ground, strict=True) if ground in NAMED)


def test_names_are_free(home: Path) -> None:
    assert adapting.free_name(load_settings()) == "adapted-1"
    (home / "trained" / "adapted-1").mkdir(parents=True)
    assert adapting.free_name(load_settings()) == "adapted-2"


@pytest.mark.parametrize("was_stopped", [False, True])
def test_the_command_understands_what_the_page_asks(
    home: Path, monkeypatch: pytest.MonkeyPatch, was_stopped: bool
) -> None:
    asked: list[Sequence[str]] = []

    def start(kind: str, about: str, module: str, arguments: Sequence[str]) -> str:
        asked.append([kind, about, module, *arguments])
        return "job"

    monkeypatch.setattr(jobs, "start", start)
    if was_stopped:
        (home / "trained" / ".médecine-adapting").mkdir(parents=True)
    folder = str(home / "-documents")
    adapting.start_adaptation(load_settings(), folder, encoder="panlingua-e5-small", name="médecine", minutes=10)
    kind, about, module, command, *arguments = asked[0]
    assert (kind, about, module) == ("adapt", "-documents", "training.cli")
    group = typer.main.get_command(app)
    with group.commands[command].make_context(command, list(arguments)) as context:  # type: ignore[attr-defined]
        given = context.params
    assert (given["corpus"], given["out"]) == (Path(folder), home / "trained" / "médecine")
    assert (given["minutes"], given["encoder"], given["as_json"]) == (10, "panlingua-e5-small", True)
    assert given["resume"] is was_stopped
