"""Every page with the real engine on the bundled corpus, through Streamlit's AppTest."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from search.settings import load_settings
from ui import corpus, files, jobs
from ui.messages import LANGUAGES, load_messages
from ui.views import search_page

pytestmark = pytest.mark.usefixtures("home", "on_sample")

TIMEOUT_S = 240
QUERY = "How do I behave at a Japanese hot spring bath as a first-time visitor?"


def open_page(name: str = "search", **parameters: str | list[str]) -> AppTest:
    """The application as it is, but with another first page: AppTest cannot follow links between pages."""
    app = AppTest.from_string(f"from ui import app\napp.main({name!r})", default_timeout=TIMEOUT_S)
    app.query_params.update(parameters)
    app.run()
    assert not app.exception
    return app


def html(app: AppTest) -> str:
    """Everything that the application wrote as HTML."""
    return "".join(str(element.proto.body) for element in app.get("html"))


def test_a_question_in_one_language_finds_a_document_in_another() -> None:
    app = open_page()
    assert 'class="hero"' in html(app)
    app.text_input(key="q").set_value(QUERY).run()
    assert not app.exception
    drawn = html(app)
    assert 'class="hero"' not in drawn  # from the first question on there is room for hits
    assert drawn.index("温泉の入り方") < drawn.index("</article>")  # the first hit
    assert 'lang="ja"' in drawn
    assert '<mark class="sentence">' in drawn
    assert app.query_params["q"] == QUERY


def test_what_is_typed_while_the_first_page_is_still_drawn_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as cut:  # Streamlit cuts a run off when the reader acts: here once the field is drawn
        cut.setattr(search_page, "commit", lambda _: st.stop())
        app = open_page()
    app.text_input(key="q").set_value("water").run()
    assert app.text_input(key="q").value == "water"
    assert "<article" in html(app)


def test_the_url_holds_the_whole_search() -> None:
    app = open_page(q="water", lang=["ja", "ar"], balance="0.2", mode="dense", fold="0", page="1")
    assert app.text_input(key="q").value == "water"
    assert app.slider(key="balance").value == 0.2
    drawn = html(app)
    assert drawn.count("<article") > 3
    assert {lang for lang in ("ja", "ar", "en", "de", "th") if f'<h2 lang="{lang}"' in drawn} == {"ja", "ar"}
    app.slider(key="balance").set_value(1.0).run()
    assert app.query_params["balance"] == "1"
    assert app.query_params["lang"] == ["ja", "ar"]


def test_balance_changes_how_many_hits_are_in_the_questions_language() -> None:
    questions = ("Wie pflege ich Pflanzen im Garten?", "Was hilft bei einer Krankheit?")
    own = {
        balance: sum(html(open_page(q=question, balance=balance)).count('<h2 lang="de"') for question in questions)
        for balance in ("0", "1")
    }
    assert own["0"] > own["1"]


def test_folded_translations_are_named_and_can_be_unfolded() -> None:
    question = "Hilft Zahnpasta bei einer Verbrennung?"
    folded = html(open_page(q=question))
    apart = html(open_page(q=question, fold="0"))
    assert 'class="also"' in folded
    assert 'class="also"' not in apart


def test_filters_narrow_and_an_empty_result_offers_to_clear_them() -> None:
    app = open_page(q="water", lang="ja", since="2990-01-01")
    assert "<article" not in html(app)
    assert load_messages("en")["search.none"] in html(app)
    app.button(key="clear-here").click().run()
    assert not app.exception
    assert "<article" in html(app)
    assert "lang" not in app.query_params


@pytest.mark.parametrize(
    ("asked", "label"), [({"lang": "xx"}, "search.clear"), ({"like": "no/such.md"}, "search.back")]
)
def test_what_is_not_there_is_no_dead_end(asked: dict[str, str], label: str) -> None:
    app = open_page(q="water", **asked)
    assert "<article" not in html(app)
    button = app.button(key="way-out")
    assert load_messages("en")[label] in button.label
    button.click().run()
    assert not app.exception
    assert "<article" in html(app)
    assert dict(app.query_params) == {"q": "water"}


def test_a_page_past_the_end_leads_back() -> None:
    app = open_page(q="water", page="49")
    assert "<article" not in html(app)
    assert load_messages("en")["problem.page"] in html(app)
    next(button for button in app.button if load_messages("en")["search.previous"] in button.label).click().run()
    assert app.query_params["page"] == "48"
    app.button(key="first-page").click().run()
    assert "<article" in html(app)


def test_languages_stay_where_they_are_while_some_are_chosen() -> None:
    def shown() -> list[str]:
        return [label.partition(" :")[0] for label in app.button_group(key="lang").options]

    app = open_page(q="water")
    before = shown()
    app.button_group(key="lang").set_value(["de"]).run()
    assert app.query_params["lang"] == "de"
    assert shown()[: len(before)] == before
    assert before.index("Deutsch") > 0


def test_a_widget_moved_before_the_browser_knows_the_url_is_not_thrown_back() -> None:
    app = open_page(q="water")
    app.slider(key="balance").set_value(0.7).run()
    assert app.query_params["balance"] == "0.7"
    app.query_params.clear()
    app.query_params["q"] = "water"  # as a browser sends it that has not seen the last URL
    app.slider(key="balance").set_value(0.65).run()
    assert app.slider(key="balance").value == 0.65
    assert app.query_params["balance"] == "0.65"
    app.query_params["balance"] = "0.7"  # going back
    app.run()
    assert app.slider(key="balance").value == 0.7


def test_pages_of_results_do_not_overlap() -> None:
    titles = []
    for page in ("1", "2"):
        drawn = html(open_page(q="water", page=page))
        titles.append({part.partition("</h2>")[0] for part in drawn.split("<h2 ")[1:]})
    assert len(titles[0]) == len(titles[1]) == 10
    assert not titles[0] & titles[1]


def test_similar_documents_and_the_way_back() -> None:
    app = open_page(q="water", page="2")
    app.button(key="similar-11").click().run()
    assert not app.exception
    assert "like" in app.query_params
    assert "<article" in html(app)
    next(button for button in app.button if load_messages("en")["search.back"] in button.label).click().run()
    assert "like" not in app.query_params
    assert (app.query_params["q"], app.query_params["page"]) == ("water", "2")


def test_opening_a_hit_shows_the_whole_document() -> None:
    app = open_page(q=QUERY)
    app.button(key="open-1").click().run()
    assert not app.exception
    assert 'class="document-part found"' in html(app)
    assert "貸し切り" in html(app)  # of the second passage


def test_reading_closely_explains_its_rank() -> None:
    drawn = html(open_page(q=QUERY, closely="1"))
    assert load_messages("en")["why.reranker"] in drawn


def test_example_queries_search() -> None:
    app = open_page()
    app.button(key="example-0").click().run()
    assert not app.exception
    assert "<article" in html(app)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_interface_language_draws_the_first_page(language: str) -> None:
    app = open_page(ui=language)
    messages = load_messages(language)
    assert messages["search.lead"] in html(app)
    assert app.slider(key="balance").label == messages["balance"]


def test_explore_shows_topics_and_lights_up_the_search() -> None:
    drawn = html(open_page("explore", q="What helps against a burn?"))
    assert 'class="topic"' in drawn
    assert "الحروق" in drawn  # found, in another language than the question's


@pytest.mark.parametrize("page", ["corpus", "encoders"])
def test_other_pages_draw_with_the_facts_of_the_index(page: str) -> None:
    assert ("153" if page == "corpus" else "panlingua-e5-small") in html(open_page(page))


def test_an_adapted_encoder_shows_its_verdict_and_can_be_put_to_use(home: Path) -> None:
    figures = [{"name": "own", "overall": {"before": 0.5, "after": 0.625}}]
    finding = {"ground": "loss_in", "trial": "日本語 <b>", "part": "ja", "points": -4.2, "low": -6.0, "high": -2.0}
    report = {"recommended": False, "findings": [finding], "domain": figures, "general": []}
    folder = home / "trained" / "medizin"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    app = open_page("encoders")
    drawn = html(app)
    assert load_messages("en")["encoders.not_recommended"] in drawn
    assert "日本語 &lt;b&gt;, Japanese: -4.2 points" in drawn
    assert "0.625" in drawn
    app.button(key="use-medizin").click().run()
    (job,) = jobs.jobs(kinds=("reindex",))
    assert job.about == "medizin"
    wait_for(lambda: (now := jobs.job_of(job.id)) is not None and now.state is not jobs.State.RUNNING)
    ended = jobs.job_of(job.id)
    assert ended is not None
    assert ended.state is jobs.State.FAILED  # there is only the report in that folder
    assert "medizin" in ended.problem


def test_a_damaged_request_is_a_message_and_not_a_traceback() -> None:
    app = open_page(q="water", lang="klingon", ui="de")
    assert 'class="notice notice-problem"' in html(app)
    assert "Es gibt keine Sprache" in html(app)


def test_notes_are_in_the_language_of_the_interface() -> None:
    assert "Nichts im Index passt zu" in html(open_page(q="water title:xyzzy", ui="de"))


def test_password_stands_before_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANLINGUA_PASSWORD", "pässwörd")
    app = open_page(q=QUERY)
    assert "<article" not in html(app)
    app.text_input[0].set_value("wrong")
    app.button[0].click().run()
    assert load_messages("en")["access.wrong"] in html(app)
    app.text_input[0].set_value("pässwörd")
    app.button[0].click().run()
    assert "<article" in html(app)


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.3)


def test_a_job_reports_progress_and_its_summary(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANLINGUA_INDEX", str(home / "own"))
    documents = home / "documents"
    documents.mkdir()
    (documents / "日記.txt").write_text("今日は雨が降りました。傘を忘れました。", encoding="utf-8")
    job_id = corpus.start_ingest(load_settings(), documents, about="日記")
    wait_for(lambda: (job := jobs.job_of(job_id)) is not None and job.state is not jobs.State.RUNNING)
    job = jobs.job_of(job_id)
    assert job is not None
    assert (job.state, job.problem) == (jobs.State.DONE, "")
    assert job.summary["documents"] == 1
    assert job.progress == 1.0
    assert job.at == "日記.txt"
    app = open_page("corpus")
    assert "日記" in html(app)
    app.button(key=f"dismiss-{job_id}").click().run()
    assert "Reading 日記" not in html(app)
    assert jobs.all_events(job_id)[-1]["documents"] == 1  # what it said is kept


def test_uploads_that_cannot_be_read_can_be_deleted(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANLINGUA_INDEX", str(home / "own"))
    settings = load_settings()
    folder = files.uploads_folder(settings)
    folder.mkdir(parents=True)
    (folder / "日記.txt").write_text("今日は雨が降りました。傘を忘れました。", encoding="utf-8")
    (folder / "空.txt").write_bytes(b"")

    def ended(job_id: str) -> bool:
        job = jobs.job_of(job_id)
        return job is not None and job.state is not jobs.State.RUNNING

    first = corpus.start_ingest(settings, folder, about="日記")
    wait_for(lambda: ended(first))
    app = open_page("corpus")
    assert "空.txt" in html(app)
    app.button(key="delete-unread").click().run()
    assert load_messages("en")["corpus.remove_what"] in html(app)  # asks; AppTest cannot press what is in a dialog
    files.delete_uploads(settings, [folder / "空.txt"])
    corpus.start_removal(settings, ["空.txt"])
    wait_for(lambda: all(ended(job.id) for job in jobs.jobs()))
    assert [path.name for path in folder.iterdir()] == ["日記.txt"]
    app = open_page("corpus")
    assert not any(button.key == "delete-unread" for button in app.button)
    assert "<article" in html(open_page(q="雨"))


def test_a_failing_job_says_why(home: Path) -> None:
    job_id = jobs.start("ingest", "nothing", "indexer.cli", ["ingest", str(home / "not there"), "--json"])
    wait_for(lambda: (job := jobs.job_of(job_id)) is not None and job.state is jobs.State.FAILED)
    job = jobs.job_of(job_id)
    assert job is not None
    assert "not there" in job.problem


def test_a_job_can_be_stopped(home: Path) -> None:
    waits = 'print(\'{"at": "waiting"}\', flush=True); import time; time.sleep(600)'
    job_id = jobs.start("ingest", "long", "timeit", ["-n", "1", "-r", "1", waits])
    wait_for(lambda: (job := jobs.job_of(job_id)) is not None and job.at == "waiting")
    jobs.stop(job_id)
    wait_for(lambda: (job := jobs.job_of(job_id)) is not None and job.state is not jobs.State.RUNNING, 30)
    job = jobs.job_of(job_id)
    assert job is not None
    assert job.state is jobs.State.STOPPED
