"""The side of the search page: facets, balance, ways of searching. Each widget's key is a field of `Request`."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date

import streamlit as st

from search.facets import Facets
from search.rerank import NONE, default_reranker
from search.results import Mode
from ui import resources
from ui.components.markup import draw, plain, tag
from ui.languages import language_name, number
from ui.messages import Speaker
from ui.resources import Library
from ui.state import Request, set_widgets

_LANGUAGES_FIRST = 8
_MOST_LANGUAGES = 60
_ALL_LANGUAGES = "all-languages"
_LANGUAGE_ORDER = "language-order"


def draw_controls(library: Library, request: Request, found: Facets, say: Speaker) -> None:
    """Knobs, and facets with the documents that were `found`; any change starts at the first page again."""
    with st.sidebar:
        st.slider(
            say("balance"), 0.0, 1.0, step=0.05, key="balance", help=say("balance.help"), on_change=_first_page,
        )  # fmt: skip
        draw(tag("div", tag("span", say("balance.own")), tag("span", say("balance.equal")), class_="slider-ends"))
        st.segmented_control(
            say("filter.how"), list(Mode), key="mode", format_func=lambda mode: say(f"mode.{mode}"), required=True,
            on_change=_first_page, width="stretch",
        )  # fmt: skip
        _language_facet(library, request, found, say)
        _folder_facet(library, request, found, say)
        _dates(library, say)
        st.toggle(say("filter.fold"), key="fold", help=say("filter.fold_help"), on_change=_first_page)
        if default_reranker(library.engine.index()) == NONE:  # else every search is reranked
            st.toggle(say("filter.rerank"), key="closely", help=say("filter.rerank_help"), on_change=_first_page)
        with st.expander(say("filter.more")):
            st.selectbox(
                say("filter.spoken"), ["", *library.engine.index().languages], key="spoken", on_change=_first_page,
                format_func=lambda code: language_name(code) if code else say("filter.detected"),
            )  # fmt: skip
            st.slider(
                say("filter.diverse"), 0.0, 1.0, step=0.1, key="diverse", help=say("filter.diverse_help"),
                on_change=_first_page,
            )  # fmt: skip
        if request.is_filtered:
            st.button(say("search.clear"), on_click=_clear_filters, args=(request,), width="stretch")


def request_of_widgets(request: Request) -> Request:
    """What the widgets say now; `request` fills in what they do not hold."""
    held = {item.name: st.session_state.get(item.name, getattr(request, item.name)) for item in fields(request)}
    return Request(
        q=str(held["q"] or "").strip(), like=str(held["like"] or ""), mode=held["mode"] or request.mode,
        balance=round(float(held["balance"]), 2), lang=tuple(held["lang"] or ()), folder=tuple(held["folder"] or ()),
        since=_iso(held["since"]), until=_iso(held["until"]), spoken=str(held["spoken"] or ""),
        diverse=round(float(held["diverse"] or 0.0), 2), fold=bool(held["fold"]), closely=bool(held["closely"]),
        page=int(held["page"] or 1),
    )  # fmt: skip


def _language_facet(library: Library, request: Request, found: Facets, say: Speaker) -> None:
    """The most frequent languages of what was found, all of them when asked for.

    Once one is chosen, the others of the index are there as well, to go on to.
    """
    counts = dict(found.get("lang", ()))
    others = library.engine.index().languages if request.lang else ()
    asked = (library.state, replace(request, lang=(), page=1))
    before, order = st.session_state.get(_LANGUAGE_ORDER, (None, []))
    if before != asked:
        order = []
    options = list(dict.fromkeys([*order, *list(counts)[:_MOST_LANGUAGES], *request.lang, *others]))
    st.session_state[_LANGUAGE_ORDER] = (asked, options)  # a choice moves none of those beside it
    shows_all = bool(st.session_state.get(_ALL_LANGUAGES))
    shown = options if shows_all else dict.fromkeys([*options[:_LANGUAGES_FIRST], *request.lang])
    st.pills(
        say("filter.language"), list(shown), selection_mode="multi", key="lang", on_change=_first_page, wrap=True,
        format_func=lambda code: plain(language_name(code)) + _count(counts.get(code), say),
    )  # fmt: skip
    if len(options) > _LANGUAGES_FIRST:
        label = "filter.fewer_languages" if shows_all else "filter.all_languages"
        st.button(
            say(label, count=number(len(options), say.language)), key="more-languages", type="tertiary",
            on_click=_show_all_languages, args=(not shows_all,),
        )  # fmt: skip


def _show_all_languages(wanted: bool) -> None:
    st.session_state[_ALL_LANGUAGES] = wanted


def _folder_facet(library: Library, request: Request, found: Facets, say: Speaker) -> None:
    counts = dict(found.get("folder", ()))
    options = list(dict.fromkeys([*counts, *request.folder]))
    if options:
        st.multiselect(
            say("filter.folder"), options, key="folder", on_change=_first_page, placeholder=say("filter.any"),
            format_func=lambda name: f"{name} ({number(counts[name], say.language)})" if name in counts else name,
        )  # fmt: skip


def _count(documents: int | None, say: Speaker) -> str:
    return f" :gray[{number(documents, say.language)}]" if documents else ""


def _dates(library: Library, say: Speaker) -> None:
    if not resources.has_dates(library, library.state):
        return
    for key in ("since", "until"):
        st.date_input(
            say(f"filter.{key}"), value=None, min_value=date(1000, 1, 1), max_value=date(9999, 12, 31), key=key,
            format="YYYY-MM-DD", on_change=_first_page,
        )  # fmt: skip


def _first_page() -> None:
    st.session_state["page"] = 1


def _clear_filters(request: Request) -> None:
    set_widgets(request.without_filters())


def _iso(value: object) -> str:
    return value.isoformat() if isinstance(value, date) else str(value or "")
