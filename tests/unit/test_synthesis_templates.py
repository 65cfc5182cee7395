"""Template files, and the queries made with them."""

from __future__ import annotations

import string
from collections import Counter

import pytest

from search.errors import SettingsError
from search.text import dominant_script
from training.synthesis.documents import SourceDocument
from training.synthesis.keywords import Keywords
from training.synthesis.templates import (
    ABOUT_TITLE,
    PLACEHOLDERS,
    Form,
    TemplateOptions,
    iter_template_queries,
    load_templates,
)


def document(id: str, lang: str, title: str, text: str, headings: tuple[str, ...] = ()) -> SourceDocument:
    return SourceDocument(id, lang, title, headings, text)


ENGLISH = document(
    "a",
    "en",
    "Sourdough starter",
    "A sourdough starter needs flour and water.\n1. Feed the starter flour.\n2. Keep the starter warm.",
    ("Sourdough starter", "Feeding"),
)
OTHER = document(
    "b", "en", "Chess clocks", "A chess clock shows the time that both players have left. Press the clock."
)


def test_there_are_many_languages_and_scripts() -> None:
    templates = load_templates()
    assert len(templates) >= 24
    assert len({language.script for language in templates.values()}) >= 10
    assert len({language.name for language in templates.values()}) == len(templates)


@pytest.mark.parametrize("lang", sorted(load_templates()))
def test_a_template_file_has_every_form_in_its_own_script(lang: str) -> None:
    templates = load_templates()[lang]
    assert set(templates.frames) == set(Form)
    assert templates.asking
    words = ""
    for form, frames in templates.frames.items():
        assert len(set(frames)) == len(frames) >= 2, form
        for frame in frames:
            slots = [name for _, name, _, _ in string.Formatter().parse(frame) if name]
            allowed = {PLACEHOLDERS[form], "{topic}"} if form is Form.HEADING else {PLACEHOLDERS[form]}
            assert PLACEHOLDERS[form] in frame, frame
            assert {f"{{{slot}}}" for slot in slots} <= allowed, frame
            assert len(set(slots)) == len(slots), frame
            text = frame.format(**dict.fromkeys(slots, ""))
            if any(map(str.isalpha, text)) and templates.script != "Jpan":  # a Japanese frame may be all kanji
                assert dominant_script(text) == templates.script, frame
            words += text
    assert dominant_script(words) == templates.script
    assert all(dominant_script(word) in (templates.script, "Hani") for word in templates.asking)


def test_the_same_seed_gives_the_same_queries() -> None:
    def made(seed: int) -> list[tuple[str, str]]:
        found = iter_template_queries([ENGLISH, OTHER], options=TemplateOptions(per_document=3, seed=seed))
        return [(query.query, query.lang) for query in found]

    assert made(1) == made(1) != made(2)


def test_every_form_is_made_and_noted() -> None:
    made = list(iter_template_queries([ENGLISH, OTHER], options=TemplateOptions(per_document=14)))
    assert {query.form for query in made if query.document is ENGLISH} == set(Form)
    for query in made:
        assert query.lang == "en" or query.form == Form.CODE_SWITCHED
        row = query.as_row()
        assert (row["form"], row["lang_doc"], row["dataset"], row["doc_id"]) == (
            query.form, "en", "synthetic", query.document.id,
        )  # fmt: skip
    texts = [query.query for query in made if query.document is ENGLISH]
    assert len(set(texts)) == len(texts)
    assert not any("{" in text for text in texts)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Form.TITLE, "Sourdough starter"),
        (Form.HEADING, "Feeding"),
        (Form.DEFINITION, "Sourdough starter"),
        (Form.HOW_TO, "Sourdough starter"),
        (Form.KEYWORD, "starter"),
        (Form.QUESTION, "Sourdough starter"),
        (Form.CODE_SWITCHED, "Sourdough starter"),
    ],
)
def test_a_form_holds_its_topic(form: Form, expected: str) -> None:
    made = list(iter_template_queries([ENGLISH], options=TemplateOptions(forms=(form,), per_document=1)))
    assert expected in made[0].query


def test_only_the_first_passage_is_asked_for_by_title() -> None:
    later = document("a", "en", "Sourdough starter", "Bake the loaf in a hot oven until the loaf is brown.")
    made = list(iter_template_queries([ENGLISH, later], options=TemplateOptions(per_document=14)))
    assert not {query.form for query in made if query.document is later} & set(ABOUT_TITLE)


def test_a_title_that_is_a_question_stands_alone() -> None:
    asks = [
        document("1", "tr", "Çay nasıl demlenir", "Çay"),
        document("2", "en", "Can I freeze bread?", "Yes"),
        document("4", "el", "ΠΩΣ φτιάχνεται το τσάι", "τσάι"),
        document("3", "th", "ชงชาอย่างไร", "ชา"),
    ]
    made = list(iter_template_queries(asks, options=TemplateOptions(forms=ABOUT_TITLE, per_document=4)))
    assert [query.query for query in made] == [source.title for source in asks]


def test_a_title_is_asked_about_without_its_second_half() -> None:
    source = document("1", "zh", "围棋入门：气、提子和打劫", "围棋")
    (made,) = iter_template_queries([source], options=TemplateOptions(forms=(Form.QUESTION,), per_document=1))
    assert "围棋入门" in made.query
    assert "提子" not in made.query


def test_query_languages_are_kept_to() -> None:
    japanese = document("j", "ja", "温泉の入り方", "温泉ではタオルを湯に入れません。")
    options = TemplateOptions(query_langs=("ar", "hi"), per_document=6)
    made = list(iter_template_queries([japanese], options=options))
    assert {query.lang for query in made} <= {"ar", "hi"}
    assert {query.form for query in made} == {Form.CODE_SWITCHED}
    assert all("温泉の入り方" in query.query for query in made)
    with pytest.raises(SettingsError, match=r"no templates for xx.*--endpoint"):
        TemplateOptions(query_langs=("xx",))


def test_a_language_without_templates_gets_bare_and_foreign_queries() -> None:
    source = document(
        "1", "is", "Hverabrauð", "Hverabrauð er bakað í jörðu. Brauðið bakast lengi í jörðu.", ("Bakstur",)
    )
    made = list(iter_template_queries([source], options=TemplateOptions(per_document=14)))
    forms = Counter(query.form for query in made)
    assert {Form.TITLE, Form.HEADING, Form.CODE_SWITCHED} <= set(forms) <= {*forms, Form.KEYWORD}
    assert next(query.query for query in made if query.form == Form.TITLE) == "Hverabrauð"


def test_a_passage_without_topics_gets_nothing() -> None:
    assert list(iter_template_queries([document("1", "en", "", "a b")], options=TemplateOptions())) == []


@pytest.mark.parametrize(
    ("lang", "text", "expected"),
    [
        ("ar", "الرمال ناعمة. القيادة في الرمال صعبة، والرمال تتحرك.", "الرمال"),
        ("hi", "अचार बनाइए। अचार को धूप में रखिए। आम का अचार।", "अचार"),
        ("th", "คลอรีนฆ่าเชื้อ ใส่คลอรีนในน้ำ แล้วรอให้คลอรีนทำงาน", "คลอรีน"),
        ("ja", "温泉に入る前に体を洗います。温泉ではタオルを使います。", "温泉"),
        ("zh", "绿茶的水温很重要。泡绿茶时水温八十度。", "绿茶"),
        ("ko", "온돌은 방을 데웁니다. 온돌의 역사는 깁니다. 온돌이 좋습니다.", "온돌"),
        ("de", "Der Wechselrichter wandelt Strom. Ein Wechselrichter ist am Balkon.", "Wechselrichter"),
    ],
)
def test_keywords_are_words_as_they_are_written(lang: str, text: str, expected: str) -> None:
    source = document("1", lang, "", text)
    found = Keywords([source]).top(source, 3)
    assert found[0] == expected
    assert all(word in text for word in found)


def test_words_of_every_passage_are_no_keywords() -> None:
    sources = [document(str(i), "en", "", f"these words recur, {word} and {word}") for i, word in
               enumerate(["granite", "basalt", "marble", "slate", "gneiss"])]  # fmt: skip
    assert [Keywords(sources).top(source, 3) for source in sources] == [
        ["granite"], ["basalt"], ["marble"], ["slate"], ["gneiss"],
    ]  # fmt: skip
