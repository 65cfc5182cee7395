"""Batches: who may meet whom, in which languages, and how often."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from search.errors import TrainingDataError
from training.data.schema import BitextRow, LabelledRow, NliRow, ParaphraseRow, RetrievalRow, Row, StsRow
from training.mixture import Batch, build_items, plan_batches
from training.recipe import Objective, Stream

LANGS = ("en", "ar", "hi", "zh", "tr")


def documents(count: int = 60, langs: Sequence[str] = LANGS, *, dataset: str = "d", negatives: int = 0) -> list[Row]:
    """Texts that name their document and language: `q 3 ar`, `d 3 ar`."""
    return [
        RetrievalRow(
            dataset=dataset, query=f"q {number} {lang}", positive=f"d {number} {lang}", lang_query=lang, lang_doc=lang,
            doc_id=str(number), negatives=tuple(f"n {number}.{place} {lang}" for place in range(negatives)),
        )
        for number in range(count)
        for lang in langs
    ]  # fmt: skip


def all_tasks() -> dict[str, list[Row]]:
    return {
        "d": documents(),
        "b": [BitextRow(dataset="b", langs=LANGS, texts=tuple(f"b {n} {lang}" for lang in LANGS)) for n in range(40)],
        "p": [ParaphraseRow(dataset="p", lang="hi", anchor=f"a {n}", positive=f"p {n}") for n in range(40)],
        "n": [NliRow(dataset="n", lang="zh", anchor=f"a {n}", positive=f"p {n}", negative=f"n {n}") for n in range(40)],
        "s": [
            StsRow(dataset="s", langs=("en", "ar"), text_a=f"a {n}", text_b=f"b {n}", score=n % 6) for n in range(40)
        ],
        "c": [LabelledRow(dataset="c", lang="en", text=f"t {n}", label=str(n % 5)) for n in range(40)],
    }


def stream(objective: str = "retrieval", **options: Any) -> Stream:
    return Stream(objective=Objective(objective), **{"batch_size": 16, "languages": 3, **options})


def plan(rows: dict[str, list[Row]], *streams: Stream, steps: int = 60, seed: int = 7) -> list[Batch]:
    return plan_batches(rows, streams or (stream(),), steps=steps, seed=seed)


def family(text: object) -> str:
    return str(text).split()[1]


def test_batches_hold_one_task_in_the_shares_asked_for() -> None:
    streams = [
        stream(objective.value, weight=weight) for objective, weight in zip(Objective, range(1, 10), strict=True)
    ]
    batches = plan(all_tasks(), *streams, steps=450)
    assert Counter(batch.stream for batch in batches) == {number: (number + 1) * 10 for number in range(9)}
    columns = {streams[batch.stream].objective: batch.columns for batch in batches}
    assert columns == {
        Objective.RETRIEVAL: ("anchor", "positive"),
        Objective.BITEXT: ("anchor", "positive"),
        Objective.PARAPHRASE: ("anchor", "positive"),
        Objective.NLI: ("anchor", "positive", "negative_1"),
        Objective.STS: ("sentence1", "sentence2", "score"),
        Objective.CLASSIFICATION: ("text", "label"),
        Objective.NEUTRAL: ("text", "kind"),
        Objective.PARALLEL: ("text", "translation", "kind"),
        Objective.RERANK: ("anchor", "positive"),
    }
    assert [batch.stream for batch in batches] != sorted(batch.stream for batch in batches)
    assert all(len(batch.rows) == len(batch.langs) for batch in batches)


@pytest.mark.parametrize("objective", ["retrieval", "bitext"])
@pytest.mark.parametrize("cross_lingual", [0.0, 0.5, 1.0])
def test_no_text_meets_its_own_translation_as_a_wrong_answer(objective: str, cross_lingual: float) -> None:
    rows = all_tasks() | {"d": documents(negatives=1)}
    for batch in plan(rows, stream(objective, cross_lingual=cross_lingual, negatives=1, batch_size=24)):
        families = [family(row[0]) for row in batch.rows]
        assert len(set(families)) == len(families)
        for row in batch.rows:
            assert family(row[1]) == family(row[0])
            assert row[0] != row[1]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_pairs_cross_languages_as_often_as_asked(share: float) -> None:
    pairs = [
        pair for batch in plan({"d": documents(200)}, stream(cross_lingual=share), steps=150) for pair in batch.langs
    ]
    assert len(pairs) > 1500
    assert sum(first != second for first, second in pairs) / len(pairs) == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize(("size", "langs", "share"), [(16, 3, 0.5), (32, 4, 0.6), (16, 2, 1.0), (24, 3, 0.8)])
def test_every_query_meets_a_wrong_document_in_its_own_language(size: int, langs: int, share: float) -> None:
    options = {"batch_size": size, "languages": langs, "cross_lingual": share}
    for batch in plan({"d": documents()}, stream(**options), steps=150):
        found = Counter(document for _, document in batch.langs)
        for query, document in batch.langs:
            assert found[query] - (query == document) >= 1
        assert len({lang for pair in batch.langs for lang in pair}) <= langs


def test_queries_without_documents_in_their_language_are_kept() -> None:
    rows: list[Row] = [
        RetrievalRow(query=f"q {n} {lang}", positive=f"d {n} en", lang_query=lang, lang_doc="en", doc_id=str(n))
        for n in range(40)
        for lang in ("sw", "yo")
    ]
    batches = plan({"d": rows}, stream(batch_size=8))
    assert {len(batch.rows) for batch in batches} == {8}
    assert {pair for batch in batches for pair in batch.langs} == {("sw", "en"), ("yo", "en")}


def test_a_few_documents_in_a_language_do_not_cost_most_of_the_batch() -> None:
    rows: list[Row] = [
        RetrievalRow(
            query=f"q {n}", positive=f"d {n}", lang_query="sw", lang_doc="sw" if n < 2 else "en", doc_id=str(n)
        )
        for n in range(200)
    ]
    assert {len(batch.rows) for batch in plan({"d": rows}, stream())} == {16}


def test_titles_that_many_documents_share_are_no_queries() -> None:
    rows = documents(10)
    shared = [
        RetrievalRow(query=title, positive=f"d {n} en", lang_query="en", lang_doc="en", doc_id=str(n))
        for n, title in ((1, "Introduction"), (2, "INTRODUCTION "), (3, "Own title"))
    ]
    queries = {query.text for item in build_items([*rows, *shared]) for query in item.queries}
    assert "Own title" in queries
    assert not {"Introduction", "INTRODUCTION"} & queries


def test_a_page_in_one_language_keeps_each_question_with_its_own_paragraph() -> None:
    page: list[Row] = [
        RetrievalRow(query=f"q {n}", positive=f"d {n}", lang_query="ja", lang_doc="ja", doc_id="page") for n in range(9)
    ]
    items = build_items(page)
    assert len(items) == 9
    assert {(item.queries[0].text[1:], item.documents[0].text[1:]) for item in items} == {
        (f" {n}", f" {n}") for n in range(9)
    }
    with pytest.raises(TrainingDataError, match="need two documents; the data has 1"):
        plan({"d": page})


def test_plans_depend_on_the_seed_and_on_nothing_else() -> None:
    streams = [stream(objective.value) for objective in Objective]
    assert plan(all_tasks(), *streams) == plan(all_tasks(), *streams)
    assert plan(all_tasks(), *streams) != plan(all_tasks(), *streams, seed=8)
    code = (
        "import sys; sys.path.insert(0, 'tests/unit'); import test_training_mixture as t;"
        "batches = t.plan(t.all_tasks(), *[t.stream(o.value) for o in t.Objective]);"
        "import hashlib; print(hashlib.sha256(repr(batches).encode()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root,
                       env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(runs) == 1


def test_temperature_brings_small_languages_and_datasets_forward() -> None:
    rows = {"big": documents(400, ("en",), dataset="big"), "small": documents(25, ("sw",), dataset="small")}
    shares = {}
    for temperature in (1.0, 2.0, 100.0):
        batches = plan(rows, stream(temperature=temperature, languages=1), steps=400)
        shares[temperature] = sum(batch.langs[0][0] == "sw" for batch in batches) / 400
    assert shares[1.0] == pytest.approx(25 / 425, abs=0.04)
    assert shares[2.0] == pytest.approx(5 / 25, abs=0.05)
    assert shares[100.0] == pytest.approx(0.5, abs=0.07)


def test_given_negatives_come_first_and_missing_ones_are_of_the_querys_language() -> None:
    rows = {"d": [*documents(40, negatives=1), *documents(80)[40 * len(LANGS) :]]}
    for batch in plan(rows, stream(negatives=2, batch_size=12, cross_lingual=0.0)):
        assert batch.columns in (("anchor", "positive", "negative_1"), ("anchor", "positive"))
        for row, (lang, _) in zip(batch.rows, batch.langs, strict=True):
            for negative in row[2:]:
                assert str(negative).endswith(lang)
                assert negative != row[1]


def test_one_language_is_enough() -> None:
    for batch in plan({"d": documents(40, ("th",))}, stream(cross_lingual=0.7)):
        assert set(batch.langs) == {("th", "th")}
        assert len(batch.rows) == 16


def test_small_datasets_beside_a_large_one_give_no_empty_batches() -> None:
    rows = {"big": documents(40), "one": documents(1, dataset="one")}
    assert min(len(batch.rows) for batch in plan(rows, stream(temperature=100), steps=200)) > 1


@pytest.mark.parametrize(
    ("rows", "chosen", "words"),
    [
        ({"d": documents(1)}, stream(), "need two documents; the data has 1"),
        ({"d": documents(3)}, stream(negatives=3), "3 negatives a query asked for"),
        ({"d": documents()}, stream(datasets=("e*",)), r"no rows for datasets e\*. Datasets read: d"),
        ({"d": documents()}, stream("sts"), r"stream 1 \(sts\): no rows"),
        ({"s": all_tasks()["s"]}, stream("neutral"), "retrieval and bitext rows"),
        ({"c": all_tasks()["c"][:1]}, stream("classification"), "two labels with two texts"),
    ],
)
def test_data_that_does_not_suffice_is_said_so(rows: dict[str, list[Row]], chosen: Stream, words: str) -> None:
    with pytest.raises(TrainingDataError, match=words):
        plan(rows, chosen)


def test_scored_pairs_are_from_0_to_1() -> None:
    for batch in plan(all_tasks(), stream("sts")):
        assert all(row[2] == int(str(row[0]).split()[1]) % 6 / 5 for row in batch.rows)
        assert len(set(batch.rows)) == len(batch.rows) == 16


def test_labels_have_company_in_their_batch() -> None:
    for batch in plan(all_tasks(), stream("classification")):
        counts = Counter(label for _, label in batch.rows)
        assert len(counts) >= 2
        assert min(counts.values()) >= 2


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [(["d"], {"query", "document"}), (["b"], {"query", "document"}), (["d", "b", "s"], {"query", "document"})],
)
def test_plain_texts_are_queries_or_documents_in_many_languages(chosen: list[str], kinds: set[str]) -> None:
    rows = {name: all_tasks()[name] for name in chosen}
    batches = plan(rows, stream("neutral"))
    assert {row[1] for batch in batches for row in batch.rows} == kinds
    for batch in batches:
        assert len({row[1] for row in batch.rows}) == 1
        assert len({lang for lang, _ in batch.langs}) > 2
        assert all(str(row[0]).endswith(lang) for row, (lang, _) in zip(batch.rows, batch.langs, strict=True))


@pytest.mark.parametrize(("share", "kinds"), [(0.0, {"document"}), (1.0, {"query"})])
def test_a_neutral_stream_takes_the_kinds_and_lengths_asked_for(share: float, kinds: set[str]) -> None:
    batches = plan({"d": all_tasks()["d"]}, stream("neutral", queries=share, max_chars=5))
    assert {row[1] for batch in batches for row in batch.rows} == kinds
    assert max(len(str(row[0])) for batch in batches for row in batch.rows) == 5


def test_parallel_texts_are_translations_of_one_another_in_two_languages() -> None:
    batches = plan(all_tasks(), stream("parallel", queries=0.5), steps=40)
    rows = [(row, langs) for batch in batches for row, langs in zip(batch.rows, batch.langs, strict=True)]
    for (text, translation, _), langs in rows:
        assert family(text) == family(translation)
        assert (str(text).split()[-1], str(translation).split()[-1]) == langs
        assert langs[0] != langs[1]
    assert {pair for _, pair in rows} == {(a, b) for a in LANGS for b in LANGS if a != b}
    assert all(len({row[2] for row in batch.rows}) == 1 for batch in batches)
    assert {batch.rows[0][2] for batch in batches} == {"query", "document"}


def test_a_parallel_stream_takes_languages_by_temperature_and_cuts_both_texts() -> None:
    few = [BitextRow(dataset="b", langs=("am", "en"), texts=(f"አማ {n} ርኛ", f"Amharic {n}")) for n in range(4)]
    many = [BitextRow(dataset="b", langs=("ru", "en"), texts=(f"русский {n}", f"Russian {n}")) for n in range(96)]
    shares = []
    for temperature in (1.0, 5.0):
        batches = plan({"b": [*few, *many]}, stream("parallel", temperature=temperature, max_chars=3), steps=60)
        first = Counter(langs[0] for batch in batches for langs in batch.langs)
        shares.append(first["am"] / first.total())
        assert all(len(str(text)) <= 3 for batch in batches for row in batch.rows for text in row[:2])
    assert shares[0] < 0.05 < 0.15 < shares[1]


def test_a_parallel_stream_needs_bitext() -> None:
    with pytest.raises(TrainingDataError, match=r"stream 1 \(parallel\): no rows"):
        plan({"d": documents()}, stream("parallel"))
