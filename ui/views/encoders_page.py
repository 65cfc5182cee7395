"""Encoders: side by side on one query, evaluated by language, trained, put to use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from search.errors import PanlinguaError
from search.settings import Settings, load_settings
from ui import adapting, corpus, files, laboratory
from ui.components import charts
from ui.components.adaptation import draw_adaptation
from ui.components.hits import title_of
from ui.components.job_list import draw_jobs
from ui.components.language_marks import language_tag
from ui.components.markup import draw, page_head, problem, tag
from ui.corpus import short_name
from ui.laboratory import Matrix, Ranking, Run
from ui.languages import direction_of, language_name, number
from ui.messages import Speaker
from ui.resources import Library
from ui.state import enter

JOB_KINDS = ("adapt", "train", "export", "evaluate", "own", "reindex")
_SHOWN = 10
_COMPARED = "compared"


def draw_encoders(library: Library, say: Speaker) -> None:
    """The whole page."""
    enter("encoders")
    encoder = short_name(library.engine.index().manifest.encoder)
    page_head(say("page.encoders"), say("encoders.lead", encoder=encoder))
    draw_jobs(JOB_KINDS, say)
    draws: dict[str, Callable[[Library, Speaker], None]] = {
        "compare": _draw_comparison, "evaluate": _draw_evaluation, "adapt": draw_adaptation, "train": _draw_training,
        "use": _draw_use,
    }  # fmt: skip
    if not adapting.can_adapt():
        del draws["adapt"]
    for tab, draw_tab in zip(st.tabs([say(f"encoders.{name}") for name in draws]), draws.values(), strict=True):
        with tab:
            draw_tab(library, say)


def _draw_comparison(library: Library, say: Speaker) -> None:
    known = laboratory.known_encoders(library)
    draw(tag("p", say("encoders.compare_how", passages=laboratory.PASSAGES), class_="page-lead"))
    with st.form("compare", border=False):
        query = st.text_input(say("encoders.query"), key="compare-query")
        chosen = st.multiselect(
            say("page.encoders"), known, default=known[:2], format_func=short_name, max_selections=3,
            key="compare-encoders", placeholder=say("filter.any"),
        )  # fmt: skip
        asked = st.form_submit_button(say("encoders.compare_go"), type="primary")
    if asked and query.strip() and chosen:
        with st.spinner(say("encoders.comparing")):
            try:
                st.session_state[_COMPARED] = laboratory.compare(library, query, chosen)
            except PanlinguaError as error:
                problem(error, say)
                return
    rankings: list[Ranking] = st.session_state.get(_COMPARED, [])
    if rankings:
        _draw_rankings(rankings, library.engine.index().languages, say)


def _draw_rankings(rankings: list[Ranking], languages: list[str], say: Speaker) -> None:
    """A column for each encoder; behind a title, the places it gained against the first encoder."""
    first = {hit.document_id: place for place, (hit, _) in enumerate(rankings[0].hits)}
    for column, ranking in zip(st.columns(len(rankings)), rankings, strict=True):
        items = []
        for place, (hit, cosine) in enumerate(ranking.hits[:_SHOWN]):
            chunk = hit.chunk
            gained = first[hit.document_id] - place
            moved = tag("span", f"{'▲' if gained > 0 else '▼'} {abs(gained)}", class_="moved") if gained else None
            title = tag("strong", title_of(chunk), lang=chunk.lang, dir=direction_of(chunk.lang, chunk.script))
            score = tag("span", number(round(cosine, 3), say.language), class_="moved")
            items.append(tag("li", title, tag("div", language_tag(chunk.lang, languages), " ", score, " ", moved)))
        with column:
            draw(tag("h2", short_name(ranking.encoder), class_="section-title"))
            draw(tag("ol", *items, class_="ranking"))


def _draw_evaluation(library: Library, say: Speaker) -> None:
    encoder = library.engine.index().manifest.encoder
    own = laboratory.own_matrix(encoder, say("encoders.own_documents"))
    found = [*([own] if own else []), *laboratory.matrices(load_settings())]
    if found:
        _draw_matrix(found, say)
    else:
        draw(tag("p", say("encoders.no_evaluation"), class_="page-lead"))
    if st.button(say("encoders.own_go"), help=say("encoders.own"), type="primary"):
        laboratory.start_own_evaluation(library)
        st.rerun()
    if not (laboratory.recipes() and files.allowed_folders()):
        return
    with st.form("evaluate", border=False):
        known = laboratory.known_encoders(library)
        chosen = st.multiselect(
            say("page.encoders"), known, default=known[:1], format_func=short_name, placeholder=say("filter.any")
        )
        folder = st.text_input(say("encoders.sets"), placeholder=str(files.allowed_folders()[0]))
        limit = st.number_input(say("encoders.limit"), min_value=10, max_value=10_000, value=200, step=50)
        asked = st.form_submit_button(say("encoders.evaluate_go"))
    if asked and chosen and (data := _folder(folder, say)):
        laboratory.start_evaluation(load_settings(), chosen, data, int(limit))
        st.rerun()


def _draw_matrix(found: list[Matrix], say: Speaker) -> None:
    labels = [f"{matrix.dataset} · {short_name(matrix.encoder)}" for matrix in found]
    place = st.selectbox(say("encoders.matrix"), range(len(found)), format_func=labels.__getitem__)
    matrix = found[place]
    figure = charts.matrix_figure(
        matrix, names=[language_name(code) for code in matrix.columns],
        row_names=[language_name(code) for code in matrix.rows],
        query=say("encoders.query_language"), document=say("encoders.document_language"),
    )  # fmt: skip
    st.plotly_chart(figure, key="matrix", config=charts.CONFIG, alt=say("encoders.matrix_alt"))


def _draw_training(library: Library, say: Speaker) -> None:
    settings = load_settings()
    found = laboratory.runs(settings)
    for run in found[:5]:
        _draw_run(run, settings, say)
    if not found:
        draw(tag("p", say("encoders.no_runs"), class_="page-lead"))
    if not (laboratory.recipes() and files.allowed_folders()):
        return
    with st.form("train", border=False):
        recipe = st.selectbox(say("encoders.recipe"), laboratory.recipes())
        folder = st.text_input(say("encoders.data"), placeholder=str(files.allowed_folders()[0]))
        name = st.text_input(say("encoders.run_name"), value="run-1")
        asked = st.form_submit_button(say("encoders.train_go"))
    if asked and name.strip() and (data := _folder(folder, say)):
        laboratory.start_training(settings, recipe, data, name)
        st.rerun()


def _draw_run(run: Run, settings: Settings, say: Speaker) -> None:
    with st.container(border=True, key=f"run-{run.name}"):
        step = say("encoders.step", step=number(run.step, say.language), steps=number(run.steps, say.language))
        draw(tag("h2", tag("bdi", run.name), " ", tag("small", step), class_="section-title"))
        if curves := laboratory.curves(run):
            st.plotly_chart(charts.curves_figure(curves), key=f"curves-{run.name}", config=charts.CONFIG)
        done = run.step == run.steps and not run.is_exported
        if done and st.button(say("encoders.export"), key=f"export-{run.name}"):
            laboratory.start_export(settings, run.name)
            st.rerun()


def _draw_use(library: Library, say: Speaker) -> None:
    """Encode the index with another encoder, beside the one that answers meanwhile."""
    draw(tag("p", say("encoders.use_how"), class_="page-lead"))
    if library.engine.settings.store:
        draw(tag("p", say("encoders.use_own"), class_="page-lead"))
        return
    current = library.engine.index().manifest.encoder
    others = [name for name in laboratory.known_encoders(library) if name != current]
    with st.form("use", border=False):
        chosen = st.selectbox(say("encoders.encoder"), others, format_func=short_name)
        asked = st.form_submit_button(say("encoders.use_go"), type="primary")
    if asked and chosen:
        corpus.start_reindex(library.engine.settings, chosen)
        st.rerun()


def _folder(text: str, say: Speaker) -> Path | None:
    try:
        return files.check_folder(text, files.allowed_folders())
    except PanlinguaError as error:
        problem(error, say)
        return None
