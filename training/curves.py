"""Curves of a run: loss and dev figures over its steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WINDOW = 9
"""Lines of metrics in the running median: batches of different tasks have losses of different size."""


def plot_curves(metrics: Path, path: Path) -> None:
    """Draw `metrics.jsonl` as PNG: loss with its running median, learning rate, and dev mAP where it was measured.

    A resumed run writes some steps again; the last line of a step counts. A run too short to have logged draws nothing.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    panels = [(name, series) for name in ("loss", "learning_rate", *_dev_names(records))
              if (series := curve(records, name))]  # fmt: skip
    if not panels:
        return
    figure = Figure(figsize=(7, 2.2 * len(panels)), layout="constrained")
    for axes, (name, series) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        steps, values = zip(*series, strict=True)
        axes.plot(steps, values, marker="." if len(steps) < 30 else "", alpha=0.35 if name == "loss" else 1)
        if name == "loss":
            axes.plot(steps, running_median(values))
        axes.set_ylabel(name.removeprefix("eval_dev_cosine_"))
        axes.set_xlabel("step")
    FigureCanvasAgg(figure)  # the canvas that `savefig` draws on
    figure.savefig(path)


def curve(records: Sequence[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """(step, value) of one metric, by step."""
    return sorted({record["step"]: float(record[name]) for record in records if name in record}.items())


def running_median(values: Sequence[float], window: int = WINDOW) -> list[float]:
    """Median of up to `window` values around each. Worked: 1, 9, 2 with a window of 3 gives 5, 2, 5.5."""
    from statistics import median

    half = window // 2
    return [median(values[max(place - half, 0) : place + half + 1]) for place in range(len(values))]


def _dev_names(records: Sequence[dict[str, Any]]) -> list[str]:
    names = {name for record in records for name in record if name.startswith("eval_dev_")}
    return sorted(name for name in names if name.endswith(("map@100", "ndcg@10")))
