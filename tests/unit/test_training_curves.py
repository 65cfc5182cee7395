"""Curves of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.curves import curve, plot_curves, running_median


def test_the_last_line_of_a_step_counts() -> None:
    records = [{"step": 10, "loss": 3}, {"step": 5, "loss": 4}, {"step": 10, "loss": 2}, {"step": 12, "eval": 1}]
    assert curve(records, "loss") == [(5, 4.0), (10, 2.0)]


def test_running_median_worked() -> None:
    assert running_median([1, 9, 2], 3) == [5, 2, 5.5]


@pytest.mark.parametrize("dev", [{}, {"eval_dev_cosine_map@100": 0.5}])
def test_curves_are_drawn(dev: dict[str, float], tmp_path: Path) -> None:
    lines = [{"step": step, "loss": 1 / step, "learning_rate": 1e-4, **dev} for step in (5, 10, 15)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    from matplotlib.image import imread

    height = imread(tmp_path / "curves.png").shape[0]
    assert height == (660 if dev else 440)


def test_a_run_that_logged_nothing_has_no_curves(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "train_runtime": 0.1}\n', "utf-8")
    plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
