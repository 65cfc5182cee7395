"""Facts and small tables as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from ui.components.markup import tag


def facts(*items: tuple[str, str, str]) -> Markup:
    """Cards of one figure each: its name, its value, a remark."""
    return tag(
        "dl",
        *[
            tag("div", tag("dt", name), tag("dd", value, tag("small", remark) if remark else None), class_="fact")
            for name, value, remark in items
        ],
        class_="facts",
    )


def pairs(items: Iterable[tuple[str, str]]) -> Markup:
    """A table of names and values; lines of a value stay lines."""
    body = [
        tag("tr", tag("th", name, scope="row"), tag("td", tag("bdi", value), class_="lines")) for name, value in items
    ]
    return tag("table", tag("tbody", *body), class_="rows pairs")


def rows(head: Sequence[str], body: Iterable[Sequence[str]]) -> Markup:
    """A table with a head; a cell is text, or markup."""
    heads = tag("thead", tag("tr", *[tag("th", name, scope="col") for name in head]))
    written = [[cell if isinstance(cell, Markup) else tag("bdi", cell) for cell in line] for line in body]
    lines = [tag("tr", *[tag("td", cell) for cell in line]) for line in written]
    return tag("table", heads, tag("tbody", *lines), class_="rows")
