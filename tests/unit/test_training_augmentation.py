"""Streams whose queries hold names of another language, or are in Latin letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from search.errors import RecipeError, TrainingDataError
from training.data.schema import BitextRow, RetrievalRow, Row
from training.latin import to_latin
from training.mixture import Batch, plan_batches
from training.recipe import Stream, parse_recipe

COUNTRIES = {
    "en": ["France", "Japan", "Turkey"],
    "ru": ["Франция", "Япония", "Турция"],
    "zh": ["法国", "日本", "土耳其"],
}
NAMES: list[Row] = [
    BitextRow(dataset="names", langs=tuple(COUNTRIES), texts=tuple(forms[place] for forms in COUNTRIES.values()))
    for place in range(3)
]
LETTERS = {"en": "abcdefghij", "ru": "абвгдежзик", "zh": "甲乙丙丁戊己庚辛壬癸"}


def word(number: int, lang: str) -> str:
    return LETTERS[lang][number // 10] + LETTERS[lang][number % 10]


def documents(langs: Sequence[str] = ("en", "ru", "zh"), *, named: int = 60) -> list[Row]:
    """`ab, in France.` has the answer `answer ab`; documents from number `named` on have no name."""
    return [
        RetrievalRow(
            dataset="d", query=f"{word(n, lang)}, {COUNTRIES[lang][n % 3] if n < named else ''}.", lang_query=lang,
            positive=f"{word(n, lang)} {word(n, lang)}", lang_doc=lang, doc_id=str(n),
        )
        for n in range(80)
        for lang in langs
    ]  # fmt: skip


def bitext() -> list[Row]:
    return [
        BitextRow(dataset="b", langs=tuple(LETTERS), texts=tuple(word(n, lang) * 3 for lang in LETTERS))
        for n in range(60)
    ]


def plan(rows: dict[str, list[Row]], *, steps: int = 40, seed: int = 7, **options: Any) -> list[Batch]:
    stream = Stream.model_validate({"objective": "retrieval", "batch_size": 12, "languages": 3, **options})
    return plan_batches(rows, [stream], steps=steps, seed=seed)


def original(batch: Batch, place: int) -> str:
    """The query that a row was made of: its letters, and the country in its own language."""
    lang, _ = batch.langs[place]
    letters = str(batch.rows[place][0]).partition(",")[0]
    number = LETTERS[lang].index(letters[0]) * 10 + LETTERS[lang].index(letters[1])
    return f"{letters}, {COUNTRIES[lang][number % 3]}."


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_names_of_queries_are_switched_in_the_share_asked_for(share: float) -> None:
    rows = {"d": documents(), "names": NAMES}
    switched = total = 0
    for batch in plan(rows, datasets=("d",), code_switch=share, names=("na*",)):
        for place, (query, document) in enumerate(batch.rows):
            before = original(batch, place)  # fails for documents without a name: they are no part of the stream
            lang, other = batch.langs[place]
            country = str(query).partition(", ")[2][:-1]
            place_of = COUNTRIES[lang].index(before.partition(", ")[2][:-1])
            allowed = {COUNTRIES[third][place_of] for third in COUNTRIES if third not in (lang, other)}
            assert country in allowed | {COUNTRIES[lang][place_of]}
            assert all(letter not in str(document) for forms in COUNTRIES.values() for letter in forms)
            switched += country in allowed
            total += 1
    assert switched / total == pytest.approx(share, abs=0.07)


def test_queries_in_other_scripts_are_put_into_latin_letters() -> None:
    changed = total = 0
    for batch in plan({"d": documents()}, romanize=0.5):
        for (query, document), (lang, _) in zip(batch.rows, batch.langs, strict=True):
            assert lang != "en"
            changed += str(query).isascii()
            total += 1
            assert document != query
    assert changed / total == pytest.approx(0.5, abs=0.07)
    assert {lang for batch in plan({"d": documents()}, romanize=0.5) for lang, _ in batch.langs} == {"ru", "zh"}


def test_of_bitext_a_text_meets_its_own_romanisation() -> None:
    for batch in plan({"b": bitext()}, objective="bitext", romanize=1.0):
        for (query, document), (lang, same) in zip(batch.rows, batch.langs, strict=True):
            assert lang == same != "en"
            assert query == to_latin(str(document)) != document


def test_a_romanisation_says_all_that_its_cut_text_says() -> None:
    long = [
        BitextRow(dataset="b", langs=tuple(LETTERS), texts=tuple(word(n, lang) * 9 for lang in LETTERS))
        for n in range(60)
    ]
    for batch in plan({"b": long}, objective="bitext", romanize=1.0, max_chars=12):
        for query, document in batch.rows:
            assert query == to_latin(str(document))
            assert 4 <= len(str(query)) <= 12


@pytest.mark.parametrize("options", [{"code_switch": 0.5, "names": ("names",)}, {"romanize": 0.5}])
def test_plans_with_changed_queries_depend_on_the_seed_alone(options: dict[str, Any]) -> None:
    rows = {"d": documents(), "names": NAMES}
    assert plan(rows, datasets=("d",), **options) == plan(rows, datasets=("d",), **options)
    assert plan(rows, datasets=("d",), **options) != plan(rows, datasets=("d",), seed=8, **options)


def test_names_behind_the_cut_do_not_count() -> None:
    with pytest.raises(TrainingDataError, match="the data has 0 whose queries hold names"):
        plan({"d": documents(), "names": NAMES}, datasets=("d",), code_switch=1.0, names=("names",), max_chars=4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"code_switch": 0.5, "names": ("nam",)}, "no bitext for names nam; bitext read: names"),
        ({"code_switch": 0.5, "names": ("names",), "langs": ("ru",)}, "its texts are in ru alone; 2 are needed"),
        (
            {"code_switch": 0.5, "names": ("names",), "cross_lingual": 1.0},
            "are in en, ru alone; 3 are needed",
        ),
        ({"romanize": 0.5, "langs": ("en",)}, "the data has 0 whose queries are in other scripts than Latin"),
    ],
)
def test_data_without_such_queries_is_said_so(options: dict[str, Any], words: str) -> None:
    rows = {"d": documents(options.pop("langs", ("en", "ru"))), "names": NAMES}
    with pytest.raises(TrainingDataError, match=words):
        plan(rows, datasets=("d",), **options)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ('objective = "neutral"\nromanize = 0.5', "neutral streams have no queries to change"),
        ('objective = "bitext"\nromanize = 0.5\ncode_switch = 0.1\nnames = ["n"]', "need a stream each"),
        ('objective = "bitext"\ncode_switch = 0.1', "code_switch and names go together"),
        ('objective = "bitext"\nnames = ["n"]', "code_switch and names go together"),
        ('objective = "bitext"\nromanize = 1.5', "streams.0.romanize: Input should be less than or equal to 1"),
    ],
)
def test_streams_that_cannot_be_are_refused(keys: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f'name = "r"\n[[streams]]\n{keys}\n', "r.toml")
    assert words in str(caught.value)
