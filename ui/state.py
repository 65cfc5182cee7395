"""The state of a session: what is searched for, as widgets hold it, and as the URL carries it.

The URL is the state: `begin` takes over what a bookmark or the browser's back button says, `commit` writes down what
the widgets say. Nothing else reads or writes `st.query_params`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from search.balance import DEFAULT_BALANCE
from search.results import Mode
from ui.messages import LANGUAGES, nearest_language

INTERFACE = "ui"
_REQUEST, _WRITTEN, _PAGE = "request", "url-written", "page-drawn"
MOST_PAGES = 50


@dataclass(frozen=True, slots=True)
class Request:
    """What is searched for and how; its fields are named as the URL's parameters and the widgets are.

    Attributes:
        q: The query.
        like: A document whose neighbours are wanted instead of a query's answers.
        mode: How candidates are found.
        balance: Between languages, 0 to 1.
        lang: Languages to search in.
        folder: Folders to search in.
        since: Day, YYYY-MM-DD, from which on documents are dated.
        until: Day until which they are.
        spoken: The query's language, where the reader corrected it.
        diverse: How far hits should differ from each other, 0 to 1.
        fold: Whether a hit stands for its translations.
        closely: Whether the best passages are read again by the reranker.
        page: Of the results, from 1.
    """

    q: str = ""
    like: str = ""
    mode: str = Mode.HYBRID
    balance: float = DEFAULT_BALANCE
    lang: tuple[str, ...] = ()
    folder: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    spoken: str = ""
    diverse: float = 0.0
    fold: bool = True
    closely: bool = False
    page: int = 1

    def as_parameters(self) -> dict[str, str | list[str]]:
        """The parameters of a URL that leads back here; what is at its default is left out."""
        parameters: dict[str, str | list[str]] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if value != item.default:
                parameters[item.name] = list(value) if isinstance(value, tuple) else _written(value)
        return parameters

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Sequence[str]]) -> Request:
        """What a URL asks for; what cannot be read counts as not said."""
        given = {name: list(values) for name, values in parameters.items() if values}
        last = {name: values[-1] for name, values in given.items()}
        mode = last.get("mode", "")
        return cls(
            q=last.get("q", ""), like=last.get("like", ""), mode=mode if mode in set(Mode) else cls.mode_default(),
            balance=_clamped(last.get("balance"), DEFAULT_BALANCE), lang=tuple(given.get("lang", ())),
            folder=tuple(given.get("folder", ())), since=_day(last.get("since")), until=_day(last.get("until")),
            spoken=last.get("spoken", ""), diverse=_clamped(last.get("diverse"), 0.0),
            fold=last.get("fold") != _written(False),
            closely=last.get("closely") == _written(True), page=int(_clamped(last.get("page"), 1, 1, MOST_PAGES)),
        )  # fmt: skip

    @staticmethod
    def mode_default() -> str:
        """The mode when none is said."""
        return Mode.HYBRID

    @property
    def is_filtered(self) -> bool:
        """Whether anything narrows the search."""
        return bool(self.lang or self.folder or self.since or self.until)

    def without_filters(self) -> Request:
        """The same question to the whole index."""
        return replace(self, lang=(), folder=(), since="", until="", page=1)


def begin(page: str) -> Request:
    """The request that the page starts from; call it before any widget, so that these can be set to it.

    A URL that is not the one written last is the reader's going back or forward. But where a widget was moved as well,
    it is the one before, sent before the browser knew the last: who is quick with a slider is not thrown back.
    """
    parameters = _read_url()
    entered = st.session_state.get(_PAGE) != page
    st.session_state[_PAGE] = page
    known: Request | None = st.session_state.get(_REQUEST)
    asked = Request.from_parameters(parameters)
    if entered and known is not None and asked == Request():
        request = known  # another page of the application: its links carry no search
    elif entered or (parameters != st.session_state.get(_WRITTEN) and not _is_moved(known)):
        request = asked
    else:
        return known or asked
    set_widgets(request)
    st.session_state[_WRITTEN] = parameters  # taken over once, even if what the reader types next cuts this run off
    return request


def enter(page: str) -> None:
    """For pages without a search of their own: note where the reader is, and keep the URL bare."""
    st.session_state[_PAGE] = page
    write_url({})


def set_widgets(request: Request) -> None:
    """Make the widgets show `request`. Only in a callback or before they are drawn."""
    st.session_state[_REQUEST] = request
    for item in fields(request):
        value = getattr(request, item.name)
        st.session_state[item.name] = list(value) if isinstance(value, tuple) else _of_widget(item.name, value)


def commit(request: Request) -> None:
    """Remember the request and write it into the URL."""
    st.session_state[_REQUEST] = request
    write_url(request.as_parameters())


def link_to(request: Request) -> str:
    """Where the search page shows `request`, seen from the page of another name."""
    parameters = _with_interface(request.as_parameters())
    return f"./?{urlencode(parameters, doseq=True)}"


def write_url(parameters: Mapping[str, str | list[str]]) -> None:
    """Make the URL say `parameters`, and the interface's language where one was chosen."""
    chosen = _with_interface(parameters)
    wanted = {name: value if isinstance(value, list) else [value] for name, value in chosen.items()}
    if wanted != _read_url():
        st.query_params.from_dict(chosen)
    st.session_state[_WRITTEN] = wanted


def _is_moved(known: Request | None) -> bool:
    """Whether a widget shows another value than the last request has."""
    return known is not None and any(
        _of_request(st.session_state[item.name]) != _of_request(_of_widget(item.name, getattr(known, item.name)))
        for item in fields(known)
        if item.name in st.session_state
    )


def _of_request(value: Any) -> Any:
    """A widget's value so that those which mean the same are equal."""
    match value:
        case float():
            return round(value, 2)
        case str():
            return value.strip()
        case list() | tuple():
            return tuple(value)
    return value or ""


def current_request() -> Request:
    """The last request of this session, for pages that show it in another way."""
    return st.session_state.get(_REQUEST) or Request()


def interface_language() -> str:
    """The interface's language: chosen, else of the URL, else of the browser."""
    chosen = st.session_state.get(INTERFACE) or st.query_params.get(INTERFACE)
    if chosen in LANGUAGES:
        choose_interface_language(str(chosen))
        return str(chosen)
    return nearest_language(st.context.locale)


def choose_interface_language(language: str) -> None:
    """Keep to this language in this session, and say it in the URL."""
    st.session_state[INTERFACE] = language


def _with_interface(parameters: Mapping[str, str | list[str]]) -> dict[str, str | list[str]]:
    chosen = st.session_state.get(INTERFACE)
    return {**parameters, **({INTERFACE: str(chosen)} if chosen else {})}


def _read_url() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in st.query_params}


def _written(value: object) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _of_widget(name: str, value: Any) -> Any:
    return (date.fromisoformat(value) if value else None) if name in ("since", "until") else value


def _clamped(text: str | None, default: float, low: float = 0.0, high: float = 1.0) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return default
    return min(max(value, low), high) if value == value else default


def _day(text: str | None) -> str:
    try:
        return date.fromisoformat(text or "").isoformat()
    except ValueError:
        return ""
