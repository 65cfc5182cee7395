"""HTML and Markdown from data: everything that is not markup of ours is escaped."""

from __future__ import annotations

import re
from typing import Literal

import streamlit as st
from markupsafe import Markup, escape

from search.errors import PanlinguaError
from ui.messages import Speaker
from ui.reasons import sentence_in

Kind = Literal["info", "problem", "good"]

_MARKDOWN = re.compile(r"([!-/:-@\[-`{-~])")
_VOID = frozenset({"br", "hr", "img", "input"})


def tag(name: str, *children: str | None, **attributes: object) -> Markup:
    """An element. Children and attribute values are escaped unless they are `Markup`; None and False are left out.

    `class_`, `for_` lose their underscore and others become dashes: `aria_label` is `aria-label`.
    """
    written = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(value if value is not True else "")}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    ]
    opening = f"<{name}{''.join(written)}>"
    if name in _VOID:
        return Markup(opening)
    content = Markup("").join(child for child in children if child is not None)
    return Markup("{}{}{}").format(Markup(opening), content, Markup(f"</{name}>"))


def plain(text: str) -> str:
    """`text` for a label that Streamlit reads as Markdown, so that it shows as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def draw(markup: Markup, *, width: Literal["stretch", "content"] = "stretch") -> None:
    """Put an element on the page."""
    st.html(str(markup), width=width)


def page_head(title: str, lead: str = "", *, wide: bool = False) -> None:
    """A page's title, and in a sentence what it is for."""
    heading = tag("h1", title, class_="page-title wide-page" if wide else "page-title")
    draw(tag("header", heading, tag("p", lead, class_="page-lead") if lead else None, class_="page-head"))


def notice(message: str, *, kind: Kind = "info", title: str = "") -> None:
    """A message as plain text; unlike st.error it reads nothing as Markdown. Problems are read out at once."""
    heading = tag("strong", title) if title else None
    role = "alert" if kind == "problem" else "status"
    draw(tag("div", heading, tag("p", message, dir="auto"), class_=f"notice notice-{kind}", role=role))


def problem(error: PanlinguaError, say: Speaker) -> None:
    """An error that is meant for people."""
    notice(sentence_in(str(error), say), kind="problem", title=say("problem"))
