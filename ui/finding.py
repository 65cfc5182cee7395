"""From a request to hits: the page's search, remembered for as long as nothing changes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import streamlit as st

from search.cli import build_filter
from search.facets import Facets, count_chunks
from search.records import Filter
from search.rerank import LATE
from search.results import Hit, SearchResult
from ui.resources import Library
from ui.state import Request

PAGE_SIZE = 10
MARKED_FIRST = 4
"""Hits whose passages are marked before any is drawn: those on a screen. The others are drawn, and then marked."""
EXPORTED = 200
_FOUND = "found"


@dataclass(frozen=True, slots=True)
class Found:
    """A page of results.

    Attributes:
        has_more: There is a page after it.
        marked: Hits from the top whose passages say why they are hits.
        result: None where no query was asked.
    """

    hits: list[Hit]
    has_more: bool
    facets: Facets
    marked: int
    result: SearchResult | None = None


def find(library: Library, request: Request) -> Found:
    """The request's page of results. Asked again in the same session, it is not searched again.

    Raises:
        QueryError: The query or a filter cannot be used.
    """
    key = (library.state, request)
    known = st.session_state.get(_FOUND)
    if known is None or known[0] != key:
        known = (key, _search(library, request))
        st.session_state[_FOUND] = known
    found: Found = known[1]
    return found


def mark_rest(library: Library, found: Found) -> Found:
    """The page of results with all its hits marked, which is what the session now remembers."""
    if found.result is None or found.marked == len(found.hits):
        return found
    result = library.engine.highlight(found.result, found.marked)
    marked = replace(found, hits=result.hits, marked=len(result.hits), result=replace(found.result, notes=result.notes))
    st.session_state[_FOUND] = (st.session_state[_FOUND][0], marked)
    return marked


def find_to_export(library: Library, request: Request) -> list[Hit]:
    """The best results of all pages."""
    if request.like:
        return library.engine.similar(request.like, k=EXPORTED)
    return _ask(library, replace(request, page=1), EXPORTED).hits


def filter_of(request: Request) -> Filter | None:
    """The request's conditions."""
    return build_filter(
        lang=list(request.lang), source=[f"{folder}/" for folder in request.folder],
        since=request.since or None, until=request.until or None, where=None,
    )  # fmt: skip


def _search(library: Library, request: Request) -> Found:
    if request.like:
        hits = library.engine.similar(request.like, k=PAGE_SIZE)
        return Found(hits, False, count_chunks(hit.chunk for hit in hits), len(hits))
    result = _ask(library, request, PAGE_SIZE + 1)
    has_more = len(result.hits) > PAGE_SIZE
    result = library.engine.highlight(replace(result, hits=result.hits[:PAGE_SIZE]), 0, MARKED_FIRST)
    return Found(result.hits, has_more, result.facets, min(MARKED_FIRST, len(result.hits)), result)


def _ask(library: Library, request: Request, k: int) -> SearchResult:
    return library.engine.search(
        request.q, k=k, offset=(request.page - 1) * PAGE_SIZE, mode=request.mode, balance=request.balance,
        filter=filter_of(request), explain=True, lang=request.spoken or None, diversity=request.diverse,
        fold=request.fold, rerank=LATE if request.closely else None,
    )  # fmt: skip
