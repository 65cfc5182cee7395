"""Adapting to one's own documents: what is held out, what is trained on, what is asked, what is concluded."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from search.errors import SettingsError, TrainingDataError
from search.evaluation.questions import Question
from search.passages import passage_text
from search.records import Chunk
from tests.conftest import FakeEncoder
from training.adapt.corpus import Corpus, KnownPassages, _depth, check_corpus, indexed_texts
from training.adapt.general import _packaged, general_rows, general_trials
from training.adapt.judging import Pool, Scores, Trial, pool_of, run_trial
from training.adapt.options import AdaptOptions
from training.adapt.pairs import context_rows, query_rows, template_queries, translation_rows
from training.adapt.questions import Asked, Kind, ask, given_questions
from training.adapt.report import render
from training.adapt.rows import _queries
from training.adapt.schedule import fill_recipe, most_steps
from training.adapt.split import choose_held_out, training_chunks
from training.adapt.verdict import compare, decide
from training.data.schema import RetrievalRow
from training.mixture import build_items
from training.synthesis.documents import SourceDocument, SyntheticQuery
from training.synthesis.endpoint import Endpoint

SENTENCES = {
    "en": ("The old bridge over the river was built of grey stone.", "Every spring the keeper paints number {n} anew.",
           "In winter nobody crosses it before the sun has risen."),
    "ar": ("بني الجسر القديم فوق النهر من الحجر الرمادي.", "في كل ربيع يعيد الحارس طلاء الرقم {n} من جديد.",
           "في الشتاء لا يعبره أحد قبل شروق الشمس."),
    "ja": ("川に架かる古い橋は灰色の石で造られている。", "毎年春になると番人が第{n}番を塗り直している。",
           "冬には日が昇るまで誰もその橋を渡らない。"),
    "th": ("สะพานเก่าข้ามแม่น้ำสร้างด้วยหินสีเทา", "ทุกฤดูใบไม้ผลิผู้ดูแลจะทาสีหมายเลข {n} ใหม่",
           "ในฤดูหนาวไม่มีใครข้ามก่อนพระอาทิตย์ขึ้น"),
}  # fmt: skip
SCRIPTS = {"en": "Latn", "ar": "Arab", "ja": "Jpan", "th": "Thai"}


def make_corpus(works: int = 20, langs: tuple[str, ...] = ("en", "ar", "ja", "th"), *, families: bool = True) -> Corpus:
    """Documents of two passages each; with families, a work is in every language, passage by passage."""
    chunks = []
    for work in range(works):
        for lang in langs:
            first, second, third = (part.format(n=work) for part in SENTENCES[lang])
            for number, text in enumerate((f"{first} {second} {third}", f"{third} {first} {second} {work} ({lang})")):
                name = f"{lang}/{work}.md"
                chunks.append(
                    Chunk(name, number, text, title=f"{first[:12]} {work}", headings=(f"{second}",) if number else (),
                          lang=lang, script=SCRIPTS[lang], source=name)
                )  # fmt: skip
    chunks.sort(key=lambda chunk: (chunk.document_id, chunk.number))
    vectors = FakeEncoder().encode_documents([passage_text(chunk) for chunk in chunks])
    documents = {chunk.document_id for chunk in chunks}
    works_of = {name: f"family {Path(name).stem}" if families else name for name in documents}
    places = {name: np.array([0, 1], np.int32) for name in documents} if families else {}
    return Corpus(tuple(chunks), vectors, works_of, places)


def test_held_out_documents_come_with_all_their_translations() -> None:
    corpus = make_corpus()
    held = choose_held_out(corpus, share=0.3, seed=1)
    assert 16 <= len(held) <= 28
    for name in corpus.documents:
        assert (name in held) == (f"en/{Path(name).stem}.md" in held)
    assert choose_held_out(corpus, share=0.3, seed=1) == held
    assert choose_held_out(corpus, share=0.3, seed=2) != held


def test_a_few_works_in_many_languages_are_too_few() -> None:
    with pytest.raises(TrainingDataError, match="translations of 6 works"):
        choose_held_out(make_corpus(6), share=0.2, seed=1)


def test_no_row_holds_a_text_of_a_held_out_document() -> None:
    corpus = make_corpus()
    held = choose_held_out(corpus, share=0.2, seed=1)
    twin = dataclasses.replace(next(c for c in corpus.chunks if c.document_id in held), document_id="en/copy.md")
    corpus = dataclasses.replace(
        corpus, chunks=(*corpus.chunks, twin), vectors=np.vstack([corpus.vectors, corpus.vectors[:1]]),
        works=corpus.works | {"en/copy.md": "en/copy.md"},
    )  # fmt: skip
    chunks = training_chunks(corpus, held)
    assert "en/copy.md" not in {chunk.document_id for chunk in chunks}
    encoder = KnownPassages(FakeEncoder(), indexed_texts(corpus), corpus.vectors)  # type: ignore[arg-type]
    rows = query_rows(corpus, chunks, encoder, lambda documents: template_queries(documents, seed=3))
    texts = {text for row in rows for text in (row.positive, *row.negatives)}
    texts |= {text for row in context_rows(corpus, chunks) for text in (row.query, row.positive)}
    texts |= {text for row in translation_rows(corpus, chunks) for text in row.texts}
    assert len(texts) > 100
    forbidden = [chunk.text for chunk in corpus.chunks if chunk.document_id in held]
    assert not [text for text in texts for one in forbidden if one in text]


def test_negatives_are_of_other_works() -> None:
    corpus = make_corpus()
    encoder = KnownPassages(FakeEncoder(), indexed_texts(corpus), corpus.vectors)  # type: ignore[arg-type]
    rows = query_rows(corpus, corpus.chunks, encoder, lambda documents: template_queries(documents, seed=3))
    work_of = {text: corpus.works[chunk.document_id] for chunk in corpus.chunks
               for text in (chunk.text, passage_text(chunk))}  # fmt: skip
    negatives = [(row.work, work_of[text]) for row in rows for text in row.negatives]
    assert len(negatives) > 50
    assert all(own != other for own, other in negatives)


def test_queries_of_a_language_model_are_answered_by_what_is_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = make_corpus()

    def ask_queries(documents: list[SourceDocument], *_: object, **__: object) -> list[SyntheticQuery]:
        return [SyntheticQuery(f"{one.text[:20]}؟", "endpoint:question", one.lang, one, "model") for one in documents]

    monkeypatch.setattr("training.synthesize_command.ask_queries", ask_queries)
    endpoint = Endpoint("http://localhost:1/v1", "model")
    given = AdaptOptions(corpus=tmp_path, out=tmp_path / "out", endpoint=endpoint)
    encoder = KnownPassages(FakeEncoder(), indexed_texts(corpus), corpus.vectors)  # type: ignore[arg-type]
    rows = query_rows(corpus, corpus.chunks, encoder, lambda documents: _queries(given, documents))
    asked = [row for row in rows if row.query.endswith("؟") and row.query[:-1] in row.positive]
    assert len(asked) > 20
    assert {row.positive for row in asked} <= set(indexed_texts(corpus))
    assert len(rows) > len(asked)


def test_neighbours_are_of_one_document_and_translations_of_one_place() -> None:
    corpus = make_corpus(3)
    rows = list(context_rows(corpus, corpus.chunks))
    assert Counter(row.lang_query for row in rows) == dict.fromkeys(("en", "ar", "ja", "th"), 6)
    assert all(row.lang_query == row.lang_doc for row in rows)
    parallel = [row for row in translation_rows(corpus, corpus.chunks) if len(row.langs) == 4]
    assert len(parallel) == 9  # two passages and a title of each of three works
    assert all(set(row.langs) == set(SENTENCES) for row in parallel)


def test_rows_of_one_work_are_kept_apart_but_keep_their_own_answers() -> None:
    row = {"lang_query": "en", "lang_doc": "en", "dataset": "d", "work": "w"}
    rows = [RetrievalRow(query=f"q{n}", positive=f"p{n}", doc_id=f"d{n}", **row) for n in range(2)]  # type: ignore[arg-type]
    items = build_items(rows)
    assert {item.family for item in items} == {"d\tw"}
    assert [(item.queries[0].text, item.documents[0].text) for item in items] == [("q0", "p0"), ("q1", "p1")]


def test_the_sentence_asked_for_is_taken_out_of_its_passage() -> None:
    corpus = make_corpus()
    held = choose_held_out(corpus, share=0.2, seed=1)
    asked = ask(corpus, held)
    kinds = Counter((one.kind, one.question.lang) for one in asked)
    assert {kind for kind, _ in kinds} == {Kind.SENTENCE, Kind.TRANSLATION}
    assert {lang for _, lang in kinds} == set(SENTENCES)
    for one in asked:
        if one.kind is Kind.SENTENCE:
            assert one.question.text not in one.rest
            assert one.question.text in corpus.chunks[one.cut].text
            assert len(one.question.relevant) == 4
        else:
            assert one.left_out not in one.question.relevant
            assert len(one.question.relevant) == 3


def test_documents_are_ranked_by_their_best_passage_and_the_one_left_out_is_not() -> None:
    encoder = FakeEncoder()
    pool = Pool(["apple pear", "stone bridge", "apple stone", "moon"], ["en"] * 4, ["a", "a", "b", "c"],
                {"a": "en", "b": "de", "c": "en"})  # fmt: skip
    whole = Asked(Question("1", "stone bridge", "en", {"a": 1.0}), Kind.GIVEN, "a")
    without = dataclasses.replace(whole, question=Question("2", "stone bridge", "en", {"b": 1.0}), left_out="a")
    scores = run_trial(Trial("made", pool, [whole, without]), encoder)  # type: ignore[arg-type]
    np.testing.assert_allclose(scores.ndcg, [1.0, 1.0])
    np.testing.assert_allclose(scores.by_language["de"], [np.nan, 1.0])
    known = encoder.encode_documents(list(pool.texts))
    encoder.encoded.clear()
    again = run_trial(Trial("made", pool, [whole, without]), encoder, known=known)  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.ndcg, scores.ndcg)
    assert encoder.encoded == []


def test_a_cut_passage_competes_without_its_sentence() -> None:
    encoder = FakeEncoder()
    pool = Pool(["apple pear plum", "apple"], ["en"] * 2, ["a", "b"], {"a": "en", "b": "en"})
    asked = Asked(Question("1", "plum pear apple", "en", {"a": 1.0}), Kind.SENTENCE, "a", cut=0, rest="moon")
    assert run_trial(Trial("made", pool, [dataclasses.replace(asked, cut=-1)]), encoder).ndcg[0] == 1.0  # type: ignore[arg-type]
    assert run_trial(Trial("made", pool, [asked]), encoder).ndcg[0] < 1.0  # type: ignore[arg-type]


def made_trial(name: str, langs: list[str], works: int = 40, kind: Kind = Kind.SENTENCE) -> Trial:
    asked = [
        Asked(Question(f"{lang}{n}", "?", lang, {"d": 1.0}), kind, f"w{n}") for n in range(works) for lang in langs
    ]
    return Trial(name, Pool([], [], [], {}), asked)


def scores(values: list[float]) -> Scores:
    return Scores(np.array(values), np.array(values), {})


def test_the_unit_of_evidence_is_the_work() -> None:
    trial = made_trial("made", ["en", "ja", "th"], works=2)
    row = compare(trial, scores([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), scores([0.2, 0.3, 0.4, 0.6, 0.7, 0.8])).overall
    assert (row.questions, row.units) == (6, 2)
    assert row.difference is not None
    assert row.difference.mean == pytest.approx(0.15)
    assert (row.difference.low, row.difference.high) == pytest.approx((0.1, 0.2))


def test_a_gain_is_recommended_and_chance_is_not() -> None:
    trial = made_trial("held-out documents", ["en", "ar"])
    noise = [0.4 + 0.05 * ((n * 7) % 5) for n in range(80)]
    better = compare(trial, scores(noise), scores([value + 0.1 for value in noise]))
    verdict = decide([better], [better])
    assert verdict.recommended
    assert "+10.0 points" in verdict.reason
    shuffled = compare(trial, scores(noise), scores(noise[::-1]))
    verdict = decide([shuffled], [])
    assert not verdict.recommended
    assert verdict.reason.startswith("no significant gain")


def test_a_language_that_loses_is_named() -> None:
    trial = made_trial("held-out documents", ["en", "ar"])
    before = [0.5] * 80
    after = [0.9 if one.question.lang == "en" else 0.45 + 0.001 * (n % 3) for n, one in enumerate(trial.asked)]
    verdict = decide([compare(trial, scores(before), scores(after))], [])
    assert not verdict.recommended
    assert "points in ar" in verdict.reason
    gain = compare(trial, scores(before), scores([0.6] * 80))
    general = made_trial("bundled corpus", ["sw"])
    loss = compare(general, scores([0.8] * 40), scores([0.7 + 0.001 * (n % 3) for n in range(40)]))
    assert "in sw on bundled corpus" in decide([gain], [loss]).reason


def test_a_gain_of_no_use_is_not_recommended() -> None:
    trial = made_trial("held-out documents", ["en", "ar"])
    found = compare(trial, scores([0.5] * 80), scores([0.503] * 80))
    assert found.overall.difference is not None
    assert found.overall.difference.low > 0
    assert "too small" in decide([found], []).reason


def test_what_is_gained_on_given_queries_does_not_outweigh_a_loss_on_held_out_documents() -> None:
    given = made_trial("given queries", ["en"], kind=Kind.GIVEN)
    gain = compare(given, scores([0.5] * 40), scores([0.6] * 40))
    made, other = made_trial("held-out documents", ["en"]), made_trial("", ["en"], kind=Kind.TRANSLATION)
    both = Trial(made.name, made.pool, [*made.asked, *other.asked])
    lost = compare(both, scores([0.5] * 80), scores([0.56] * 40 + [0.45 + 0.001 * (n % 3) for n in range(40)]))
    assert decide([gain], []).recommended
    assert "in translation on held-out documents" in decide([lost, gain], []).reason


def test_a_loss_within_chance_for_so_many_languages_does_not_decide() -> None:
    langs = [f"l{n:02}" for n in range(30)]
    trial = made_trial("held-out documents", langs, works=8)
    after = [0.6] * len(trial.asked)
    for place, one in enumerate(trial.asked):
        if one.question.lang == "l07" and one.work in ("w1", "w2", "w3"):
            after[place] = 0.45  # three of eight: no significance after correction
    assert decide([compare(trial, scores([0.5] * len(after)), scores(after))], []).recommended


def test_judged_queries_of_ones_own_decide() -> None:
    made, given = made_trial("held-out documents", ["en"]), made_trial("given queries", ["en"], kind=Kind.GIVEN)
    better = compare(made, scores([0.5] * 40), scores([0.7] * 40))
    same = compare(given, scores([0.5] * 40), scores([0.5] * 40))
    assert not decide([better, same], []).recommended
    questions = [Question("q", "?", "en", {"en/1.md": 1.0}), Question("r", "?", "en", {"en/2.md": 1.0})]
    kinds = [one.kind for one in given_questions(questions, make_corpus(3), ["en/1.md"])]
    assert kinds == [Kind.GIVEN_HELD_OUT, Kind.GIVEN]


def test_the_report_says_what_was_gained_and_lost() -> None:
    corpus = make_corpus()
    trial = made_trial("held-out documents", ["en", "th"])
    found = compare(trial, scores([0.5] * 80), scores([0.75] * 80))
    about = {"corpus": "docs", "documents": corpus.describe(), "rows": {"adapt-queries": 9}, "held_out": ["en/1.md"],
             "base": "base", "steps": 5, "minutes": 2.0, "resumed": False, "peak_mib": 1500}  # fmt: skip
    text = render("mine", decide([found], []), [found], [], about)
    assert "**Recommended**" in text
    assert "| th | 40 | 40 | 0.500 | 0.750 | **+0.250" in text
    assert "--general-eval" in text


def test_too_little_is_refused() -> None:
    with pytest.raises(TrainingDataError, match="at least 20"):
        check_corpus(make_corpus(2), Path("docs"))
    with pytest.raises(TrainingDataError, match=r"one language only \(th 30\)"):
        check_corpus(make_corpus(30, ("th",)), Path("docs"))
    check_corpus(make_corpus(15, ("th", "ar"), families=False), Path("docs"))


@pytest.mark.parametrize(("changed", "message"), [({"minutes": 0}, "minutes"), ({"qrels": Path("q")}, "--queries")])
def test_options_out_of_range_are_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        AdaptOptions(corpus=Path("docs"), out=Path("out"), **changed)  # type: ignore[arg-type]


def test_of_a_large_corpus_every_document_gives_its_first_passages() -> None:
    assert _depth(Counter(a=1, b=5, c=9), 100) == 9
    assert _depth(Counter(a=1, b=5, c=9), 9) == 4  # 1 + 4 + 4
    assert _depth(Counter(a=3, b=3), 1) == 1


def test_streams_without_rows_are_left_out_and_rows_bound_the_steps() -> None:
    encoder = FakeEncoder()
    encoder.manifest = type("M", (), {"query_prompt": "q: ", "document_prompt": "d: "})  # type: ignore[attr-defined]
    counts = {"adapt-context": 80, "general": 200}
    recipe = fill_recipe("adapt", base="some/base", encoder=encoder, counts=counts, seed=3)  # type: ignore[arg-type]
    assert {name for stream in recipe.streams for name in stream.datasets} == {"adapt-context", "adapt-*", "general"}
    assert (recipe.query_prompt, recipe.seed, recipe.base) == ("q: ", 3, "some/base")
    assert most_steps(recipe, counts) < most_steps(recipe, {"adapt-context": 8000, "general": 200})


def test_the_general_text_of_the_package_is_in_many_languages_and_scripts() -> None:
    rows = general_rows([], seed=1)
    langs = Counter(row.lang_doc for row in rows if isinstance(row, RetrievalRow))
    assert len(langs) >= 27
    assert {"ar", "he", "hi", "ja", "ka", "ko", "ta", "th", "zh", "el", "ru"} <= set(langs)
    assert pool_of(make_corpus(2)).langs[0] == "ar"


def test_general_questions_are_not_about_the_packages_general_text(
    fake_encoder: FakeEncoder, tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    (trial,) = general_trials((), tmp_path, tmp_path, fake_encoder, lambda *_: None)  # type: ignore[arg-type]
    trained = {row.doc_id for row in _packaged() if isinstance(row, RetrievalRow)}
    asked = {name for one in trial.asked for name in one.question.relevant}
    assert len(trial.asked) > 80
    assert not asked & trained
    assert trained | asked <= set(trial.pool.languages)
