"""Explore: the corpus as a map of what it is about, its topics, its time line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from search.document_map import MAP, DocumentMap
from search.errors import IndexNotFoundError
from search.topics.records import Topic
from ui import exploring
from ui.components import charts
from ui.components.controls import request_of_widgets
from ui.components.job_list import draw_jobs
from ui.components.language_marks import language_tag
from ui.components.markup import draw, notice, tag
from ui.exploring import Colour
from ui.jobs import State, jobs
from ui.languages import number
from ui.messages import Speaker
from ui.resources import Library
from ui.state import begin, commit

JOB_KINDS = ("map",)
_MOST_NAMES = 14
_MOST_DOCUMENTS = 60
_LEAST_YEARS = 2


def draw_explore(library: Library, say: Speaker) -> None:
    """The whole page."""
    request = begin("explore")
    draw(tag("h1", say("page.explore"), class_="page-title wide-page"))
    draw(tag("p", say("explore.lead"), class_="page-lead"))
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
    chosen = _draw_map(library, found, Colour(colour), lit, say)
    _draw_chosen(library, found, chosen or lit, say, selected=bool(chosen))
    topics, times = st.columns([3, 2], gap="large")
    with topics:
        _draw_topics(library, found, say)
    with times:
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


def _draw_map(library: Library, found: DocumentMap, colour: Colour, lit: list[int], say: Speaker) -> list[int]:
    """Draw the map and return the rows that are chosen on it."""
    languages = library.engine.index().languages
    rows = exploring.drawn_rows(len(found))
    grouped = exploring.groups(found, rows, colour, languages, reader=say.language)
    topics = exploring.leaf_topics(found)[:_MOST_NAMES]
    figure = charts.map_figure(
        found, grouped, lit, rest=say("explore.rest"), found_name=say("explore.found"),
        names=[(exploring.topic_name(topic, say.language), *centre)
               for topic, centre in zip(topics, exploring.topic_centres(found, topics), strict=True)],
    )  # fmt: skip
    event = st.plotly_chart(
        figure, key="map", on_select="rerun", selection_mode=("lasso", "box", "points"), config=charts.MAP_CONFIG,
        alt=say("explore.alt", topics=len(topics), passages=len(found)),
    )  # fmt: skip
    said = say("explore.select_how")
    if len(rows) < len(found):
        counts = {"shown": number(len(rows), say.language), "all": number(len(found), say.language)}
        said = f"{say('explore.sampled', **counts)} {said}"
    draw(tag("p", said, class_="hint"))
    return _rows_of(event)


def _rows_of(event: Mapping[str, Any] | Any) -> list[int]:
    points = event["selection"]["points"] if event else []
    given = (point.get("customdata") for point in points)
    return [int(data[0] if isinstance(data, list) else data) for data in given if data is not None]


def _draw_chosen(library: Library, found: DocumentMap, rows: list[int], say: Speaker, *, selected: bool) -> None:
    """The documents of a region, or those that the search finds."""
    if not rows:
        return
    documents = exploring.documents_at(found, rows)
    languages = library.engine.index().languages
    count = number(len(documents), say.language)
    heading = say("explore.selected" if selected else "explore.found_documents", documents=count)
    draw(tag("h2", heading, class_="section-title"))
    items = [
        tag("li", tag("bdi", title, lang=lang), tag("div", language_tag(lang, languages), " ", tag("bdi", id)))
        for id, title, lang in documents[:_MOST_DOCUMENTS]
    ]
    draw(tag("ul", *items, class_="documents"))


def _draw_topics(library: Library, found: DocumentMap, say: Speaker) -> None:
    draw(tag("h2", say("explore.topics"), class_="section-title"))
    for note in found.topics.notes:
        notice(note)
    languages = library.engine.index().languages
    items = [_topic(topic, languages, say) for topic in exploring.leaf_topics(found)]
    draw(tag("div", *items, class_="topics"))
    if found.topics.outliers:
        draw(tag("p", say("explore.outliers", passages=number(found.topics.outliers, say.language)), class_="hint"))


def _topic(topic: Topic, languages: list[str], say: Speaker) -> Any:
    """A topic folded up: its name and size; its languages, each with its own words, when opened."""
    name = exploring.topic_name(topic, say.language)
    head = tag("summary", tag("bdi", name), tag("small", number(topic.chunks, say.language)))
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


