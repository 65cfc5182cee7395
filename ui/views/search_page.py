"""Search: one field, hits in every language, what narrows them at the side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from search.errors import QueryError
from search.records import UNDETERMINED
from search.results import Hit, SearchResult
from ui import exports, finding, resources
from ui.components import controls, document
from ui.components.frame import start_at_top
from ui.components.hits import explanation, hit_card, title_of
from ui.components.language_marks import language_spread
from ui.components.markup import draw, notice, plain, problem, tag
from ui.finding import PAGE_SIZE, Found
from ui.languages import language_name, number, percent
from ui.messages import Speaker
from ui.reasons import sentence_in
from ui.resources import Library
from ui.state import Request, begin, commit, current_request, set_widgets


def draw_search(library: Library, say: Speaker) -> None:
    """The whole page."""
    request = controls.request_of_widgets(begin("search"))
    if not request.q:
        draw(tag("div", tag("h1", "Panlingua", class_="brand"), tag("p", say("search.lead")), class_="hero"))
    else:
        draw(tag("h1", say("page.search"), class_="sr-only"))
    st.text_input(
        say("search.field"), key="q", placeholder=say("search.placeholder"), label_visibility="collapsed",
        type="search", icon=":material/search:", on_change=_asked, autocomplete="off",
    )  # fmt: skip
    commit(request)
    start_at_top(f"{request.q} {request.like} {request.page}")
    if not request.q and not request.like:
        controls.draw_controls(library, request, resources.facets(library, library.state), say)
        _draw_beginning(library, say)
        return
    try:
        found = finding.find(library, request)
    except QueryError as error:
        if not request.like:
            controls.draw_controls(library, request, resources.facets(library, library.state), say)
        _draw_refused(error, request, say)
        return
    if not request.like:  # what is like a document is neither filtered nor balanced
        controls.draw_controls(library, request, found.facets, say)
    _draw_results(library, request, found, say)


def _asked() -> None:
    st.session_state["page"] = 1
    st.session_state["like"] = ""


def _draw_beginning(library: Library, say: Speaker) -> None:
    """Queries to try, and what there is to search in."""
    examples = resources.example_queries(library, library.state, say.language)
    with st.container(key="examples", horizontal=True, horizontal_alignment="center"):
        for place, (_, text) in enumerate(examples):
            st.button(plain(text), key=f"example-{place}", on_click=_ask_example, args=(text,))
    manifest = library.engine.index().manifest
    held = say(
        "search.size", documents=number(manifest.documents, say.language),
        languages=number(len(manifest.languages), say.language),
    )  # fmt: skip
    hint = f"{held} {say('search.sample')}" if library.is_sample else held
    draw(tag("p", hint, class_="hint centred"))


def _ask_example(text: str) -> None:
    set_widgets(replace(Request(), q=text))


def _draw_results(library: Library, request: Request, found: Found, say: Speaker) -> None:
    if request.like:
        _draw_likeness(library, request, say)
    if found.result is not None:
        _draw_remarks(found.result, request, say)
    if not found.hits:
        _draw_nothing(request, say)
        _draw_pages(request, found, say)
        return
    languages = library.engine.index().languages
    if found.result is not None:
        _draw_summary(found.result, request, found, say)
    spread = [hit.chunk.lang for hit in found.hits]
    draw(language_spread(spread, languages, label=say("search.spread"), reader=say.language))
    cards = [_draw_hit(library, hit, languages, say) for hit in found.hits]
    _draw_pages(request, found, say)
    _draw_export(library, request, say)
    complete = finding.mark_rest(library, found)
    for card, hit in list(zip(cards, complete.hits, strict=True))[found.marked :]:
        with card:
            draw(hit_card(hit, languages, say))


def _draw_remarks(result: SearchResult, request: Request, say: Speaker) -> None:
    """What the engine wants known, and what may have been meant."""
    for note in result.notes:
        notice(sentence_in(note, say))
    if result.suggestion:
        with st.container(horizontal=True, vertical_alignment="center", key="suggestion"):
            draw(tag("span", say("search.suggestion"), class_="summary"), width="content")
            st.button(
                plain(result.suggestion), type="tertiary", on_click=set_widgets,
                args=(replace(request, q=result.suggestion, page=1),),
            )  # fmt: skip


def _draw_summary(result: SearchResult, request: Request, found: Found, say: Speaker) -> None:
    first = (request.page - 1) * PAGE_SIZE + 1
    shown = say(
        "search.shown", first=number(first, say.language), last=number(first + len(found.hits) - 1, say.language)
    )
    detected = result.detection
    read = say(
        "search.read_as", language=language_name(detected.lang, reader=say.language),
        confidence=percent(detected.confidence, say.language),
    )  # fmt: skip
    conditions = tag("code", " ".join(result.interpretation.conditions), dir="auto")
    took = say("search.took", ms=number(round(result.timings_ms["total"]), say.language))
    if reading_ms := round(result.timings_ms.get("rerank", 0)):
        reading = number(reading_ms, say.language)
        took = f"{took} ({say('search.rerank_took', ms=reading)})"
    is_read = bool(result.interpretation.text) and detected.lang != UNDETERMINED
    parts = [shown, read if is_read else None, took, conditions if result.interpretation.conditions else None]
    draw(tag("div", *[tag("span", part) for part in parts if part], class_="summary", role="status"))


def _draw_hit(library: Library, hit: Hit, languages: list[str], say: Speaker) -> DeltaGenerator:
    """Draw a hit and what can be done with it; returns where its card is, to be drawn anew."""
    with st.container(key=f"hit-{hit.rank}"):
        card = st.empty()
        with card:
            draw(hit_card(hit, languages, say))
        with st.container(key=f"actions-{hit.rank}", horizontal=True, gap="medium"):
            if st.button(say("search.open"), key=f"open-{hit.rank}", type="tertiary", icon=":material/article:"):
                document.show_document(library, hit, say)
            st.button(
                say("search.similar"), key=f"similar-{hit.rank}", type="tertiary", icon=":material/join_inner:",
                on_click=_show_similar, args=(hit.document_id,),
            )  # fmt: skip
            if hit.explanation is not None:
                with st.popover(say("why"), type="tertiary", icon=":material/help:", key=f"why-{hit.rank}"):
                    draw(explanation(hit.explanation, hit.score, say))
    return card


def _show_similar(document_id: str) -> None:
    set_widgets(replace(current_request(), like=document_id))


def _draw_likeness(library: Library, request: Request, say: Speaker) -> None:
    """What the hits are like, and the way back."""
    first = library.engine.document(request.like)[0]
    with st.container(horizontal=True, vertical_alignment="center"):
        draw(
            tag("h2", say("search.similar_to", title=title_of(first)), class_="section-title", dir="auto"),
            width="content",
        )
        if st.button(say("search.open"), key="open-like", type="tertiary", icon=":material/article:"):
            document.show_document(library, Hit(1, 1.0, first), say)
        st.button(
            say("search.back"), type="tertiary", icon=":material/undo:", on_click=set_widgets,
            args=(replace(request, like=""),),
        )  # fmt: skip


def _draw_refused(error: QueryError, request: Request, say: Speaker) -> None:
    """What is asked for is not there, or is no language: say it, with a way out."""
    problem(error, say)
    without = replace(request, like="") if request.like else replace(request.without_filters(), spoken="")
    if request != without:
        label = "search.back" if request.like else "search.clear"
        st.button(say(label), key="way-out", on_click=set_widgets, args=(without,))


def _draw_nothing(request: Request, say: Speaker) -> None:
    if request.page > 1:
        notice(say("problem.page"), title=say("search.none"))
        st.button(say("search.first_page"), key="first-page", on_click=_turn_to, args=(request, 1))
        return
    filtered = say("search.none_filtered") + " " if request.is_filtered else ""
    notice(filtered + say("search.none_help"), title=say("search.none"))
    if request.is_filtered:
        st.button(say("search.clear"), key="clear-here", on_click=set_widgets, args=(request.without_filters(),))


def _draw_pages(request: Request, found: Found, say: Speaker) -> None:
    if request.like or (request.page == 1 and not found.has_more):
        return
    with st.container(key="pages", horizontal=True, horizontal_alignment="center", vertical_alignment="center"):
        st.button(
            say("search.previous"), on_click=_turn_to, args=(request, request.page - 1), disabled=request.page == 1
        )
        shown = say("search.page", page=number(request.page, say.language))
        draw(tag("span", shown, class_="summary"), width="content")
        st.button(say("search.next"), on_click=_turn_to, args=(request, request.page + 1), disabled=not found.has_more)


def _turn_to(request: Request, page: int) -> None:
    set_widgets(replace(request, page=page))


def _draw_export(library: Library, request: Request, say: Speaker) -> None:
    kinds = (("csv", "text/csv", exports.as_csv), ("jsonl", "application/jsonl", exports.as_jsonl))
    with st.popover(say("search.export"), icon=":material/download:", type="tertiary"):
        for extension, mime, write in kinds:
            st.download_button(
                say(f"search.export_{extension}"), key=f"export-{extension}", file_name=f"panlingua.{extension}",
                data=partial(_exported, library, request, write), mime=mime,
                on_click="ignore", type="tertiary",
            )  # fmt: skip


def _exported(library: Library, request: Request, write: Callable[[Sequence[Hit]], bytes]) -> bytes:
    return write(finding.find_to_export(library, request))
