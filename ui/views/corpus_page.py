"""Corpus: what the index holds, adding and removing documents, its health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256

import streamlit as st
from markupsafe import Markup

from search.errors import PanlinguaError
from search.settings import Settings, load_settings
from ui import corpus, files, resources
from ui.components import charts, tables
from ui.components.job_list import draw_jobs
from ui.components.language_marks import language_bars, language_names, language_tag
from ui.components.markup import draw, notice, page_head, problem, tag
from ui.corpus import Condition
from ui.languages import day, language_name, number, size
from ui.messages import Speaker
from ui.reasons import reason_in
from ui.resources import Library
from ui.state import enter

_MOST_GAPS = 200


def draw_corpus(library: Library, say: Speaker) -> None:
    """The whole page."""
    enter("corpus")
    page_head(say("page.corpus"))
    if library.is_sample:
        notice(say("corpus.sample"))
    _draw_facts(library, say)
    draw_jobs(corpus.INDEX_JOBS, say)
    adding, documents, languages, coverage, health = st.tabs(
        [say(f"corpus.{name}") for name in ("add", "documents", "languages", "coverage", "health")]
    )
    with adding:
        draw_adding(say)
    with documents:
        _draw_documents(library, say)
    with languages:
        _draw_languages(library, say)
    with coverage:
        _draw_coverage(library, say)
    with health:
        _draw_health(library, say)


def draw_adding(say: Speaker) -> None:
    """Upload files, or name a folder on the machine that runs the application."""
    settings = load_settings()
    with st.form("upload", clear_on_submit=True, border=False):
        limit = files.MAX_UPLOAD_BYTES // 2**20
        uploads = st.file_uploader(
            say("corpus.upload"), type=list(files.UPLOAD_KINDS), accept_multiple_files=True, max_upload_size=limit,
        )  # fmt: skip
        kinds = ", ".join(kind.upper() for kind in files.UPLOAD_KINDS)
        draw(tag("p", f"{say('corpus.upload_help', size=limit)} {kinds}", class_="hint"))
        if st.form_submit_button(say("corpus.upload_go"), type="primary"):
            _add_uploads(settings, uploads, say)
    if not files.allowed_folders():
        return
    with st.form("folder", border=False):
        text = st.text_input(say("corpus.folder"), key="folder-path", placeholder=str(files.allowed_folders()[0]))
        if st.form_submit_button(say("corpus.folder_go")) and text:
            _add_folder(settings, text, say)


def _add_uploads(settings: Settings, uploads: Sequence[files.Upload], say: Speaker) -> None:
    if not uploads:  # none, or of other kinds: those the browser has refused
        notice(say("corpus.none_chosen", kinds=", ".join(files.UPLOAD_KINDS)), kind="problem", title=say("problem"))
        return
    try:
        paths = files.save_uploads(uploads, files.uploads_folder(settings))
    except PanlinguaError as error:
        problem(error, say)
        return
    about = ", ".join(path.name for path in paths[:3]) + (" …" if len(paths) > 3 else "")
    corpus.start_ingest(settings, files.uploads_folder(settings), about=about)
    st.rerun()


def _add_folder(settings: Settings, text: str, say: Speaker) -> None:
    try:
        folder = files.check_folder(text, files.allowed_folders())
    except PanlinguaError as error:
        problem(error, say)
        return
    corpus.start_ingest(settings, folder, about=str(folder))
    st.rerun()


def _draw_facts(library: Library, say: Speaker) -> None:
    manifest = library.engine.index().manifest
    draw(
        tables.facts(
            (say("fact.documents"), number(manifest.documents, say.language), ""),
            (say("fact.chunks"), number(manifest.chunks, say.language), ""),
            (say("fact.languages"), number(len(manifest.languages), say.language), ""),
            (say("fact.updated"), day(manifest.updated, say.language), manifest.updated[11:16] + " UTC"),
        )
    )


def _draw_documents(library: Library, say: Speaker) -> None:
    """Files of the index, found by name, and a way to remove them."""
    found = resources.sources(library, library.state)
    typed = st.text_input(
        say("corpus.find_file"), key="find-file", type="search", live=True, placeholder=say("page.search")
    )
    wanted = typed.casefold()
    shown = [row for row in found if wanted in row[0].casefold()]
    state = sha256(repr((library.state, typed)).encode("utf-8", "surrogatepass")).hexdigest()
    chosen = st.dataframe(
        {say("corpus.file"): [row[0] for row in shown], say("fact.chunks"): [row[1] for row in shown]},
        on_select="rerun", selection_mode="multi-row", hide_index=True, height=420,
        key=f"files-{state}",  # what is chosen are places, which are other files once others are shown
    )  # fmt: skip
    names = [shown[row][0] for row in chosen["selection"]["rows"] if row < len(shown)]
    if library.is_sample:
        draw(tag("p", say("corpus.sample_fixed"), class_="hint"))
    elif st.button(say("corpus.remove", files=number(len(names), say.language)), disabled=not names):
        _confirm_removal(library, names, say)


def _confirm_removal(library: Library, names: list[str], say: Speaker) -> None:
    @st.dialog(say("corpus.remove_title"))
    def dialog() -> None:
        draw(tag("p", say("corpus.remove_what")))
        draw(tag("ul", *[tag("li", tag("bdi", name)) for name in names[:20]]))
        if st.button(say("corpus.remove_go"), type="primary"):
            files.delete_uploads(library.engine.settings, [corpus.file_of(library, name) for name in names])
            corpus.start_removal(library.engine.settings, names)
            st.rerun()

    dialog()


def _draw_languages(library: Library, say: Speaker) -> None:
    manifest = library.engine.index().manifest
    draw(language_bars(manifest.languages, library.engine.index().languages, reader=say.language))


def _draw_coverage(library: Library, say: Speaker) -> None:
    """Which documents lack which languages."""
    languages = library.engine.index().languages
    draw(tag("p", say("coverage.how"), class_="page-lead"))
    wanted = st.multiselect(
        say("coverage.languages"), languages, format_func=language_name, key="coverage-languages",
        placeholder=say("filter.any"),
    )  # fmt: skip
    gaps = [gap for gap in library.engine.gaps(wanted) if wanted or len(gap.documents) > 1]
    if not gaps:
        draw(tag("p", say("coverage.none"), class_="hint"))
        return
    lines = [(_existing(gap.documents, languages), language_names(gap.missing)) for gap in gaps[:_MOST_GAPS]]
    draw(tables.rows((say("coverage.has"), say("coverage.lacks")), lines))
    if len(gaps) > _MOST_GAPS:
        draw(tag("p", say("coverage.more", documents=number(len(gaps) - _MOST_GAPS, say.language)), class_="hint"))


def _existing(documents: Mapping[str, str], languages: Sequence[str]) -> Markup:
    """A family's documents, each with its language before it."""
    items = [
        tag("li", language_tag(lang, languages), " ", tag("bdi", document)) for lang, document in documents.items()
    ]
    return tag("ul", *items, class_="family")


def _draw_health(library: Library, say: Speaker) -> None:
    index = library.engine.index()
    manifest = index.manifest
    with st.spinner(say("corpus.looking")):
        state = corpus.condition(library, corpus.moment(library))
    rows = [
        (say("health.encoder"), f"{manifest.encoder} · {manifest.encoder_fingerprint[:12]} · {manifest.dimension} d"),
        (say("health.size"), size(state.size_bytes, say.language)),
        (say("health.search"), say("health.exact" if manifest.chunks < resources.EXACT_BELOW else "health.graph")),
        (say("health.map"), say("health.map_fitted", chunks=number(manifest.chunks_at_fit, say.language))),
        (say("health.folders"), "\n".join(state.roots) or "—"),
        (say("health.version"), f"{manifest.panlingua_version}, {manifest.created[:10]}"),
    ]
    if state.interrupted:
        notice(say("health.interrupted"))
    draw(tables.pairs(rows))
    growth = corpus.note_growth(library)
    if len(growth) > 2:
        st.plotly_chart(
            charts.growth_figure(growth, documents=say("fact.documents"), chunks=say("fact.chunks")),
            key="growth", alt=say("health.growth"), config=charts.CONFIG,
        )  # fmt: skip
    draw(tag("h2", say("health.skipped", files=number(len(state.skipped), say.language)), class_="section-title"))
    if state.skipped:
        head = (say("corpus.file"), say("health.reason"))
        draw(tables.rows(head, [(name, reason_in(reason, say)) for name, reason in state.skipped[:500]]))
        _offer_deletion(library, state, say)


def _offer_deletion(library: Library, state: Condition, say: Speaker) -> None:
    """Delete uploads that could not be read, which are tried and reported again with every upload."""
    settings = library.engine.settings
    roots = list(zip(state.roots, state.prefixes, strict=True))
    found = {name: files.source_path(name, roots) for name, _ in state.skipped}
    uploads = {name: path for name, path in found.items() if path is not None and files.is_upload(settings, path)}
    label = say("health.delete", files=number(len(uploads), say.language))
    if uploads and st.button(label, key="delete-unread"):
        _confirm_removal(library, list(uploads), say)
