"""Plotly figures that sit on the page: no background of their own, drawn by what comes with Streamlit, offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from search.document_map import DocumentMap
from search.text import truncate_graphemes
from ui import exploring
from ui.components.language_marks import colour_at
from ui.corpus import Growth
from ui.exploring import Group
from ui.laboratory import Matrix

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CONFIG = {"displaylogo": False, "displayModeBar": False, "responsive": True}
MAP_CONFIG = {
    "displaylogo": False, "responsive": True, "scrollZoom": True, "displayModeBar": True,
    "modeBarButtonsToRemove": ["toImage", "autoScale2d", "zoomIn2d", "zoomOut2d"],
}  # fmt: skip
_MAP_HEIGHT = 600
_NAME_CHARS = 34
_NAME_ABOVE = 14
_NO_AXIS = {"visible": False, "showgrid": False, "zeroline": False}
_CLEAR = "rgba(0,0,0,0)"
_WEAK_TO_STRONG = [[0, "#c4633a"], [0.5, "#d8c99a"], [1, "#0c718e"]]
_MOST_FIGURES = 14
"""Columns of a heat map up to which its figures can be read; beyond, they show under the pointer."""
_MARGIN = {"l": 0, "r": 0, "t": 10, "b": 0}


def growth_figure(points: Sequence[Growth], *, documents: str, chunks: str) -> Figure:
    """Documents and chunks of the index over time."""
    import plotly.graph_objects as go

    when = [point.updated for point in points]
    figure = go.Figure(
        [
            go.Scatter(x=when, y=[point.documents for point in points], name=documents, line={"shape": "hv"}),
            go.Scatter(x=when, y=[point.chunks for point in points], name=chunks, line={"shape": "hv"}),
        ]
    )
    figure.update_layout(height=260, margin=_MARGIN, paper_bgcolor=_CLEAR, plot_bgcolor=_CLEAR)
    figure.update_yaxes(rangemode="tozero")
    return figure


def matrix_figure(
    matrix: Matrix, *, names: Sequence[str], row_names: Sequence[str], query: str, document: str
) -> Figure:
    """A heat map of query language by document language, its figures written into the cells."""
    import plotly.graph_objects as go

    figure = go.Figure(
        go.Heatmap(
            z=matrix.values, x=list(names), y=list(row_names), colorscale=_WEAK_TO_STRONG, zmin=0, zmax=1,
            texttemplate="%{z:.2f}" if len(names) <= _MOST_FIGURES else None,
            colorbar={"title": matrix.metric, "thickness": 12}, hovertemplate="%{y} → %{x}: %{z:.3f}<extra></extra>",
            hoverongaps=False, xgap=2, ygap=2,
        )
    )  # fmt: skip
    figure.update_layout(
        height=140 + 34 * len(row_names), margin=_MARGIN, paper_bgcolor=_CLEAR, plot_bgcolor=_CLEAR,
        xaxis={"title": document, "side": "top", "showgrid": False},
        yaxis={"title": query, "autorange": "reversed", "showgrid": False},
    )  # fmt: skip
    return figure


def curves_figure(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Curves of a training run over its steps, each on an axis of its own."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=len(curves), cols=1, shared_xaxes=True, vertical_spacing=0.06)
    for row, (name, points) in enumerate(curves.items(), start=1):
        steps, values = zip(*points, strict=True)
        figure.add_scatter(x=steps, y=values, name=name, mode="lines", row=row, col=1)
    figure.update_layout(height=80 + 150 * len(curves), margin=_MARGIN, paper_bgcolor=_CLEAR, plot_bgcolor=_CLEAR)
    return figure


def map_figure(
    found: DocumentMap,
    groups: Sequence[Group],
    lit: Sequence[int],
    *,
    names: Sequence[tuple[str, float, float]],
    rest: str,
    found_name: str,
    legend: bool,
) -> Figure:
    """The map: a point for each passage in the colour of its group, what a search finds on top, topics by name.

    The names are drawn in the theme's colour; the style sheet gives them a rim, so that they show on any point.
    """
    import plotly.graph_objects as go

    small = 4 if sum(len(group.rows) for group in groups) > 5_000 else 8
    figure = go.Figure()
    for group in groups:
        colour = colour_at(group.place) if group.place is not None else "rgba(128,138,144,.45)"
        marker = {"size": small, "color": colour, "opacity": 0.35 if lit else 0.8}
        figure.add_trace(_points(found, [int(row) for row in group.rows], _short(group.name or rest), marker))
    if lit:
        marker = {"size": 12, "color": "#f2b632", "line": {"width": 2, "color": "#7a5200"}}
        figure.add_trace(_points(found, lit, found_name, marker))
    ranges = exploring.view_of(found)
    for name, x, y in exploring.uncrowded([(_short(name), x, y) for name, x, y in names], ranges):
        figure.add_annotation(x=x, y=y, text=name, showarrow=False, yshift=_NAME_ABOVE, font={"size": 13})
    figure.update_layout(
        height=_MAP_HEIGHT, margin=_MARGIN, paper_bgcolor=_CLEAR, plot_bgcolor=_CLEAR, dragmode="lasso",
        xaxis={**_NO_AXIS, "range": ranges[0]}, yaxis={**_NO_AXIS, "range": ranges[1], "scaleanchor": "x"},
        uirevision="map", modebar={"bgcolor": _CLEAR, "color": "#7d8990", "activecolor": "#0b5c7a"},
        showlegend=legend, legend={"orientation": "h", "y": -0.02, "itemsizing": "constant"},
    )  # fmt: skip
    return figure


def years_figure(years: Counter[str], *, documents: str) -> Figure:
    """Documents per year."""
    import plotly.graph_objects as go

    ordered = sorted(years.items())
    figure = go.Figure(go.Bar(x=[year for year, _ in ordered], y=[count for _, count in ordered], name=documents))
    figure.update_layout(height=260, margin=_MARGIN, paper_bgcolor=_CLEAR, plot_bgcolor=_CLEAR, bargap=0.25)
    figure.update_xaxes(type="category")
    return figure


def _points(found: DocumentMap, rows: Sequence[int], name: str, marker: Mapping[str, object]) -> object:
    import plotly.graph_objects as go

    titles = [_short(found.titles[row] or found.document_ids[row], 70) for row in rows]
    return go.Scattergl(
        x=found.xy[rows, 0], y=found.xy[rows, 1], mode="markers", name=name, marker=dict(marker), customdata=list(rows),
        text=titles, hovertemplate="%{text}<extra>%{fullData.name}</extra>", selected={"marker": {"opacity": 1}},
        unselected={"marker": {"opacity": 0.12}},
    )  # fmt: skip


def _short(text: str, limit: int = _NAME_CHARS) -> str:
    """Text for Plotly, which reads a little HTML, so that it shows as it is."""
    return escape(truncate_graphemes(" ".join(text.split()), limit, ellipsis="…"), quote=False)
