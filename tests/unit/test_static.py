"""Static encoders: distilled into a table, loaded as any other, and near the encoder they come from."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_unigram import DIMENSION, load, many_scripts, save_unigram_encoder
from typer.testing import CliRunner

from search.encoder import load_encoder
from search.encoder.backends import is_static
from search.errors import TrainingDataError, TrainingError
from search.settings import load_settings
from training.cli import app
from training.data.schema import BitextRow, RetrievalRow, Row
from training.static import BATCH, DOCUMENT, Fitting, Pair, Side, StaticOptions, choose_pairs, distil_static

SIZE = 24


def made_rows() -> list[RetrievalRow]:
    """The first words of every passage as its query, in twelve scripts."""
    return [
        RetrievalRow(query=text[:20], positive=text, lang_query=lang, lang_doc=lang, doc_id=f"{lang}-{number}")
        for lang, texts in many_scripts().items()
        for number, text in enumerate(texts)
    ]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_unigram_encoder(tmp_path_factory.mktemp("unigram") / "base")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("\n".join(row.model_dump_json() for row in made_rows()), "utf-8")
    return path


@pytest.fixture(scope="module")
def distilled(base: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    """What `training static --json` made, and what it said."""
    out = tmp_path_factory.mktemp("static") / "table"
    asked = ["static", str(base), "--out", str(out), "--rows", str(rows), "--dimension", str(SIZE), "--json"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PANLINGUA_BACKEND", "torch")
        patch.setenv("PANLINGUA_HOME", str(out.parent / "home"))
        result = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out, json.loads(next(line for line in result.stdout.splitlines() if line.startswith("{")))


def test_every_backend_but_openvino_loads_it_and_sentence_transformers_agrees(
    distilled: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    folder = distilled[0]
    assert is_static(folder)
    encoder = load_encoder(str(folder), cache_dir=tmp_path)
    assert (encoder.backend.name, encoder.dimension) == ("torch", SIZE)
    texts = [texts[0] for texts in many_scripts().values()]
    vectors = encoder.encode_documents([*texts, "", "   "])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    expected = SentenceTransformer(str(folder), device="cpu").encode(texts)
    np.testing.assert_allclose(vectors[:-2], expected, atol=1e-5)
    np.testing.assert_array_equal(vectors[-2], vectors[-1])


def test_order_of_the_texts_and_of_their_words_does_not_matter(
    distilled: tuple[Path, dict[str, object]], tmp_path: Path
) -> None:
    encoder = load_encoder(str(distilled[0]), cache_dir=tmp_path)
    one, two = encoder.encode_documents(["молоко и хлеб", "хлеб и молоко"])
    np.testing.assert_allclose(one, two, atol=1e-6)
    texts = [texts[0] for texts in many_scripts().values()]
    np.testing.assert_allclose(encoder.encode_queries(texts[::-1])[::-1], encoder.encode_queries(texts), atol=1e-6)


def test_the_report_says_what_was_kept_and_seen(distilled: tuple[Path, dict[str, object]]) -> None:
    report = distilled[1]
    assert report["pairs"] == len(made_rows())
    assert isinstance(report["kept"], float)
    assert SIZE / DIMENSION < report["kept"] <= 1
    assert 0 < int(str(report["seen"])) < int(str(report["pieces"]))


def test_vectors_that_a_table_made_lead_back_to_it(base: Path, tmp_path: Path) -> None:
    tokenizer = load(base, tmp_path).tokenizer
    words = [word for texts in many_scripts().values() for text in texts for word in text.split()[:30]]
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words[:150], 6)) for _ in range(3000)]
    hidden = rng.standard_normal((tokenizer.get_vocab_size(), 8)).astype(np.float32)
    targets = np.array([hidden[tokenizer.encode(text).ids].mean(axis=0) for text in texts])
    sides = [Side(text, "xx", DOCUMENT) for text in dict.fromkeys(texts)]
    pairs = [Pair(one, one, one.text) for one in sides]
    start = rng.standard_normal(hidden.shape).astype(np.float32)
    fitting = Fitting(tokenizer, sides, targets[: len(sides)], 0)
    (row,) = fitting.closeness(start, fitting.fit(start, pairs, epochs=60, report=lambda _: None))
    assert row.texts == round(0.02 * len(sides))
    assert row.before < 0.5
    assert row.after > 0.9


def test_small_languages_are_taken_whole_and_large_ones_share_the_rest() -> None:
    rows: list[Row] = [
        RetrievalRow(query=f"{lang} {n}", positive=f"{lang} text {n}", lang_query=lang, lang_doc=lang)
        for lang, count in (("am", 5), ("de", 200), ("en", 400))
        for n in range(count)
    ]
    chosen = choose_pairs(rows, most=105, seed=3)
    assert Counter(pair.first.lang for pair in chosen) == {"am": 5, "de": 50, "en": 50}
    assert chosen == choose_pairs(rows, most=105, seed=3)
    assert chosen != choose_pairs(rows, most=105, seed=4)


def test_a_sentence_is_paired_with_one_of_its_translations() -> None:
    row = BitextRow(langs=("de", "ja", "ta"), texts=("Brot", "パン", "ரொட்டி"), group_id="bread")
    (pair,) = choose_pairs([row], most=10, seed=0)
    assert pair.first.lang != pair.second.lang
    assert {pair.first.kind, pair.second.kind} == {DOCUMENT}


def test_translations_are_not_each_others_wrong_answers(base: Path, tmp_path: Path) -> None:
    import torch

    tokenizer = load(base, tmp_path).tokenizer
    words = ["Brot", "хлеб", "パン", "ψωμί"]
    sides = [Side(word, "xx", DOCUMENT) for word in words]
    targets = np.eye(4, dtype=np.float32)
    fitting = Fitting(tokenizer, sides, targets, 0)
    bag = torch.nn.EmbeddingBag.from_pretrained(torch.randn(tokenizer.get_vocab_size(), 4), freeze=False)
    apart = [Pair(sides[0], sides[1], "a"), Pair(sides[2], sides[3], "b")]
    together = [pair._replace(family="a") for pair in apart]
    difference = float(fitting.loss(bag, apart).detach() - fitting.loss(bag, together).detach())
    assert difference > 0.01  # all that is left to choose from is the right one


def test_bad_input_is_named(base: Path, tmp_path: Path) -> None:
    settings = load_settings(home=str(tmp_path / "home"))
    (tmp_path / "there").mkdir()
    with pytest.raises(TrainingError, match="is there already"):
        distil_static(StaticOptions(str(base), tmp_path / "there"), settings, report=print)
    with pytest.raises(TrainingDataError, match="no row of retrieval or bitext"):
        choose_pairs([], most=BATCH, seed=0)
