"""A whole document in a dialog, the passage found marked at its side."""

from __future__ import annotations

import streamlit as st
from markupsafe import Markup

from search.results import Hit
from ui import corpus
from ui.components.hits import spans_of, title_of, where_line
from ui.components.markup import draw, plain, tag
from ui.components.passages import Span, marked, passage, whole_text
from ui.messages import Speaker
from ui.resources import Library


def show_document(library: Library, hit: Hit, say: Speaker) -> None:
    """Open the dialog."""

    @st.dialog(plain(title_of(hit.chunk)), width="medium")
    def dialog() -> None:
        chunk = hit.chunk
        where = where_line(chunk, library.engine.index().languages, say)
        draw(tag("div", where, tag("p", say("document.whole"), class_="hint"), class_="hit"))
        _offer_file(library, chunk.source, say)
        draw(_text(library, hit))

    dialog()


def _offer_file(library: Library, source: str, say: Speaker) -> None:
    """The file itself, where it still lies below an ingested folder; read only when it is asked for."""
    path = corpus.file_of(library, source)
    if path is not None:
        st.download_button(
            say("document.download"), data=path.read_bytes, file_name=path.name, mime="application/octet-stream",
            icon=":material/download:", on_click="ignore", type="tertiary",
        )  # fmt: skip


def _text(library: Library, hit: Hit) -> Markup:
    parts = []
    for chunk, text in whole_text(library.engine.document(hit.document_id)):
        found = chunk.id == hit.chunk.id
        cut = len(chunk.text) - len(text)
        spans = [Span(span.start - cut, span.end - cut, span.kind) for span in spans_of(hit)] if found else []
        shown = passage(chunk, marked(text, spans), class_="passage whole")
        parts.append(tag("div", shown, class_="document-part found" if found else "document-part"))
    return tag("div", *parts)
