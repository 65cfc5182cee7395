"""Explore: the corpus as a map of what it is about, its topics, its time line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from search.document_map import MAP, DocumentMap
from search.errors import IndexNotFoundError
from search.topics.records import Topic
from ui import exploring
from ui.components import charts
from ui.components.controls import request_of_widgets
from ui.components.job_list import draw_jobs
from ui.components.language_marks import colour_at, language_tag
from ui.components.markup import draw, notice, page_head, tag
from ui.exploring import Colour, Group
from ui.jobs import State, jobs
from ui.languages import number
from ui.messages import Speaker
from ui.reasons import sentence_in
from ui.resources import Library
from ui.state import Request, begin, commit, link_to

JOB_KINDS = ("map",)
_MOST_NAMES = 14
_MOST_DOCUMENTS = 60
_LEAST_YEARS = 2


def draw_explore(library: Library, say: Speaker) -> None:
    """The whole page."""
    request = begin("explore")
    page_head(say("page.explore"), say("explore.lead"), wide=True)
    if any(job.state is not State.DONE for job in jobs(kinds=JOB_KINDS)[:1]):
        draw_jobs(JOB_KINDS, say)
    found = _load(library, say)
    if found is None:
        commit(request)
        return
    if not found.is_current:
        _offer_map(library, say, say("explore.outdated"), say("explore.again"))
    query, by = st.columns([3, 2], vertical_alignment="bottom")
    query.text_input(say("explore.query"), key="q", type="search", placeholder=say("search.placeholder"))
    colour = by.segmented_control(
        say("explore.colour"), list(Colour), default=Colour.TOPIC, key="colour", required=True,
        format_func=lambda item: say(f"explore.by_{item}"), width="stretch",
    )  # fmt: skip
    request = request_of_widgets(request)
    commit(request)
    lit = exploring.lit_rows(library, found, request)
    plane, side = st.columns([5, 3], gap="large")
    with plane, st.container(key="map-column"):
        grouped = _grouped(library, found, Colour(colour), say)
        chosen = _draw_map(found, grouped, lit, say, legend=colour != Colour.TOPIC)
    with side:
        if chosen or lit:
            _draw_chosen(library, found, chosen or lit, request, say, selected=bool(chosen))
        _draw_topics(library, found, grouped if colour == Colour.TOPIC else [], say)
        _draw_years(found, say)


def _load(library: Library, say: Speaker) -> DocumentMap | None:
    folder = library.engine.index().folder
    path = folder / MAP if folder else None
    try:
        if path is None or not path.exists():
            raise IndexNotFoundError
        return exploring.load_map(library, library.state, path.stat().st_mtime)
    except IndexNotFoundError:
        _offer_map(library, say, say("explore.no_map"), say("explore.make"))
        return None


def _offer_map(library: Library, say: Speaker, why: str, label: str) -> None:
    if any(job.state is State.RUNNING for job in jobs(kinds=JOB_KINDS)[:1]):
        return
    notice(why)
    if st.button(label, type="primary", key="make-map"):
        exploring.start_map(library)
        st.rerun()


def _grouped(library: Library, found: DocumentMap, colour: Colour, say: Speaker) -> list[Group]:
    rows = exploring.drawn_rows(len(found))
    return exploring.groups(found, rows, colour, library.engine.index().languages, reader=say.language)


def _draw_map(found: DocumentMap, grouped: Sequence[Group], lit: list[int], say: Speaker, *, legend: bool) -> list[int]:
    """Draw the map and return the rows that are chosen on it."""
    topics = exploring.leaf_topics(found)[:_MOST_NAMES]
    figure = charts.map_figure(
        found, grouped, lit, rest=say("explore.rest"), found_name=say("explore.found"), legend=legend,
        names=[(exploring.topic_name(topic, say.language), *centre)
               for topic, centre in zip(topics, exploring.topic_centres(found, topics), strict=True)],
    )  # fmt: skip
    event = st.plotly_chart(
        figure, key="map", on_select="rerun", selection_mode=("lasso", "box", "points"), config=charts.MAP_CONFIG,
        alt=say("explore.alt", topics=len(topics), passages=len(found)),
    )  # fmt: skip
    said = say("explore.select_how")
    drawn = sum(len(group.rows) for group in grouped)
    if drawn < len(found):
        counts = {"shown": number(drawn, say.language), "all": number(len(found), say.language)}
        said = f"{say('explore.sampled', **counts)} {said}"
    draw(tag("p", said, class_="hint"))
    return _rows_of(event)


def _rows_of(event: Mapping[str, Any] | Any) -> list[int]:
    points = event["selection"]["points"] if event else []
    given = (point.get("customdata") for point in points)
    return [int(data[0] if isinstance(data, list) else data) for data in given if data is not None]


def _draw_chosen(
    library: Library, found: DocumentMap, rows: list[int], request: Request, say: Speaker, *, selected: bool
) -> None:
    """The documents of a region, or those that the search finds."""
    documents = exploring.documents_at(found, rows)
    languages = library.engine.index().languages
    count = number(len(documents), say.language)
    heading = say("explore.selected" if selected else "explore.found_documents", documents=count)
    draw(tag("h2", heading, class_="section-title"))
    items = [
        tag(
            "li",
            tag("a", tag("bdi", title, lang=lang), href=link_to(replace(request, like=id, page=1)), target="_self"),
            tag("div", language_tag(lang, languages), " ", tag("bdi", id)),
        )
        for id, title, lang in documents[:_MOST_DOCUMENTS]
    ]
    draw(tag("ul", *items, class_="documents"))


def _draw_topics(library: Library, found: DocumentMap, grouped: Sequence[Group], say: Speaker) -> None:
    """The topics, largest first, in the colours of their groups."""
    draw(tag("h2", say("explore.topics"), class_="section-title"))
    for note in found.topics.notes:
        notice(sentence_in(note, say))
    languages = library.engine.index().languages
    places = {group.key: group.place for group in grouped}
    items = [_topic(topic, languages, places.get(str(topic.id)), say) for topic in exploring.leaf_topics(found)]
    draw(tag("div", *items, class_="topics"))
    if found.topics.outliers:
        draw(tag("p", say("explore.outliers", passages=number(found.topics.outliers, say.language)), class_="hint"))


def _topic(topic: Topic, languages: list[str], place: int | None, say: Speaker) -> Any:
    """A topic folded up: its name and size; its languages, each with its own words, when opened."""
    name = exploring.topic_name(topic, say.language)
    dot = tag("i", style=f"background:{colour_at(place)}", aria_hidden="true") if place is not None else None
    head = tag("summary", dot, tag("bdi", name), tag("small", number(topic.chunks, say.language)))
    labels = [
        tag("li", language_tag(label.lang, languages), " ", tag("bdi", label.text, lang=label.lang), " ",
            tag("small", number(label.chunks, say.language)))
        for label in topic.labels
    ]  # fmt: skip
    warning = tag("p", say("explore.language_topic"), class_="hint") if topic.warning else None
    return tag("details", head, warning, tag("ul", *labels), class_="topic")


def _draw_years(found: DocumentMap, say: Speaker) -> None:
    years = exploring.years(found)
    if len(years) < _LEAST_YEARS:
        return
    draw(tag("h2", say("explore.years"), class_="section-title"))
    figure = charts.years_figure(years, documents=say("fact.documents"))
    st.plotly_chart(figure, key="years", config=charts.CONFIG, alt=say("explore.years"))
