"""The Encoders page's tab where an encoder is adapted to one's own documents."""

from __future__ import annotations

import streamlit as st

from search.settings import Settings, load_settings
from ui import adapting, corpus
from ui.adapting import Adapted
from ui.components import tables
from ui.components.markup import draw, notice, tag
from ui.languages import number
from ui.messages import Speaker
from ui.resources import Library

_LEAST_MINUTES, _MINUTES, _MOST_MINUTES = 5, 30, 24 * 60
_SHOWN = 5


def draw_adaptation(library: Library, say: Speaker) -> None:
    """Start an adaptation; the verdicts on those that ended, each with a way to use its encoder."""
    settings = load_settings()
    draw(tag("p", say("encoders.adapt_how"), class_="page-lead"))
    with st.spinner(say("corpus.looking")):
        roots = corpus.condition(library, library.state).roots
    name = adapting.free_name(settings)
    with st.form("adapt", border=False):
        folder = st.selectbox(say("encoders.adapt_folder"), roots, key="adapt-folder")
        minutes = st.number_input(
            say("encoders.minutes"), min_value=_LEAST_MINUTES, max_value=_MOST_MINUTES, value=_MINUTES, step=5,
            key="adapt-minutes",
        )  # fmt: skip
        name = st.text_input(say("encoders.adapt_name"), value=name)
        asked = st.form_submit_button(say("encoders.adapt_go"), type="primary", disabled=not roots)
    if asked and folder and name.strip():
        encoder = library.engine.index().manifest.encoder
        adapting.start_adaptation(settings, folder, encoder=encoder, name=name.strip(), minutes=int(minutes))
        st.rerun()
    for adapted in adapting.adapted_encoders(settings)[:_SHOWN]:
        _draw_adapted(library, settings, adapted, say)


def _draw_adapted(library: Library, settings: Settings, adapted: Adapted, say: Speaker) -> None:
    current = library.engine.index().manifest.encoder
    with st.container(border=True, key=f"adapted-{adapted.folder.name}"):
        draw(tag("h2", tag("bdi", adapted.folder.name), class_="section-title"))
        verdict = say("encoders.recommended" if adapted.recommended else "encoders.not_recommended")
        why = adapting.verdict_in(adapted.findings, say)
        notice(why, kind="good" if adapted.recommended else "info", title=verdict)
        head = (say("encoders.judged_on"), f"nDCG@10 {say('encoders.before')}", f"nDCG@10 {say('encoders.after')}")
        lines = [
            (adapting.trial_in(name, say), *(number(round(value, 3), say.language) for value in (before, after)))
            for name, before, after in adapted.figures
        ]
        draw(tables.rows(head, lines))
        usable = not library.engine.settings.store and str(adapted.folder) != current
        if usable and st.button(say("encoders.use_go"), key=f"use-{adapted.folder.name}"):
            corpus.start_reindex(library.engine.settings, str(adapted.folder))
            st.rerun()
