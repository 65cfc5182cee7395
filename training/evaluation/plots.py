"""Heat maps of what is found from language to language."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from search.errors import EvaluationError
from training.evaluation.results import Evaluation, LanguageMatrix

COLOURS = "cividis"
"""Light for high; made to look the same to people who see fewer colours."""
CELL_INCHES = 0.45
DARK_BELOW = 0.55


def plot_matrix(matrix: LanguageMatrix, path: Path, *, title: str) -> None:
    """Draw the matrix as PNG, with its values in the cells; an undefined one stays white.

    Raises:
        EvaluationError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise EvaluationError(
            f"plots need the package matplotlib ({error}): pip install 'panlingua[training]'"
        ) from error
    values = np.array([[np.nan if v is None else v for v in row] for row in matrix.values], np.float64)
    height, width = values.shape
    figure = Figure(figsize=(CELL_INCHES * width + 2.2, CELL_INCHES * height + 1.4), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap=COLOURS, vmin=0.0, vmax=1.0)
    axes.set_xticks(range(width), matrix.document_langs)
    axes.set_yticks(range(height), matrix.query_langs)
    axes.set_xlabel("language of the documents")
    axes.set_ylabel("language of the query")
    axes.set_title(title, fontsize=10, wrap=True)
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value < DARK_BELOW else "black"
            axes.text(column, row, f"{value:.2f}"[1:] if value < 0.995 else "1", ha="center", va="center", color=colour,
                      fontsize=8)  # fmt: skip
    figure.colorbar(image, ax=axes, label="nDCG@10", shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=120)


def plot_matrices(evaluations: Sequence[Evaluation], folder: Path) -> dict[str, list[str]]:
    """Draw the matrix of every retrieval set in several languages for every encoder; file names by set."""
    drawn: dict[str, list[str]] = {}
    for evaluation in evaluations:
        for result in evaluation.results:
            if result.matrix is None or len(result.matrix.document_langs) < 2:
                continue
            name = f"matrix-{_file_name(result.name)}-{_file_name(evaluation.encoder)}-{evaluation.fingerprint[:6]}.png"
            plot_matrix(result.matrix, folder / name, title=f"{result.name}, {evaluation.encoder}")
            drawn.setdefault(result.name, []).append(name)
    return drawn


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-")
