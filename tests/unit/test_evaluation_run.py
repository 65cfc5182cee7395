"""Whole evaluations with encoders whose figures can be worked out: cache, map, comparison, report, command."""

from __future__ import annotations

import json
from math import log2
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import search.encoder
from search.balance import LanguageMap, LanguageSums, fit_language_map
from search.errors import EvaluationError
from search.records import Vectors
from training.evaluate_command import evaluate_command
from training.evaluation.evaluate import compare, evaluate, evaluate_variants
from training.evaluation.mteb_tasks import MtebScore, run_mteb
from training.evaluation.plots import plot_matrices
from training.evaluation.report import write_report
from training.evaluation.results import Kind, load_evaluations, save_evaluations
from training.evaluation.sets import (
    BitextSet,
    Candidates,
    Document,
    GradedPair,
    LabelledSet,
    LabelledText,
    PairSet,
    Query,
    RelatedPair,
    RerankingSet,
    RetrievalSet,
    StsSet,
    Translation,
    limit_set,
)
from training.evaluation.vectors import AffineEncoder, CachedEncoder

LANGS = ("ar", "en", "th")
TOPICS = 12


class BiasedEncoder:
    """`lang topic` is the topic's direction plus `bias` times the language's: a unit vector, the same on both sides.

    The cosine of two texts is (same topic + bias^2 * same language) / (1 + bias^2).
    """

    dimension = TOPICS + len(LANGS)

    def __init__(self, bias: float, name: str = "biased") -> None:
        self.bias, self.name, self.fingerprint = bias, name, f"bias-{bias}"
        self.asked: list[str] = []
        self.stored: list[str] = []

    def encode_queries(self, texts: list[str]) -> Vectors:
        self.asked += texts
        return self._encode(texts)

    def encode_documents(self, texts: list[str]) -> Vectors:
        self.stored += texts
        return self._encode(texts)

    def _encode(self, texts: list[str]) -> Vectors:
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            lang, topic = text.split()
            vectors[row, int(topic)] = 1.0
            vectors[row, TOPICS + LANGS.index(lang)] = self.bias
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def retrieval_set(name: str = "faq") -> RetrievalSet:
    """Every topic in three languages; a query in one of them, relevant are all three."""
    documents = [Document(f"{topic:02}-{lang}", lang, f"{lang} {topic}") for topic in range(TOPICS) for lang in LANGS]
    queries = [Query(f"q-{document.id}", document.lang, document.text) for document in documents]
    qrels = {query.id: {f"{query.id[2:4]}-{lang}": 1.0 for lang in LANGS} for query in queries}
    return RetrievalSet(name, tuple(documents), tuple(queries), qrels, unjudged=2)


def bitext_set() -> BitextSet:
    rows = [
        Translation(f"{lang}-en", (lang, "en"), (f"{lang} {t}", f"en {t}")) for lang in ("ar", "th") for t in range(9)
    ]
    return BitextSet("words", tuple(rows))


def sts_set() -> StsSet:
    """Same topic, same language: graded 5; other topic, same language: 1. Across languages likewise."""
    rows = [
        GradedPair(f"{a}-{b}", (a, b), f"{a} {i}", f"{b} {i * (i % 2)}", 5.0 if i % 2 else 1.0)
        for a, b in (("ar", "ar"), ("ar", "th"))
        for i in range(2, 10)
    ]
    return StsSet("sts", tuple(rows))


def labelled_set() -> LabelledSet:
    rows = [
        LabelledText(lang, f"{lang} {i % 2}", ("news", "sport")[i % 2], split, str(i))
        for lang in LANGS
        for split in ("train", "test")
        for i in range(12)
        if not (lang == "th" and i > 3)
    ]
    return LabelledSet("topics", tuple(rows))


def pair_set() -> PairSet:
    rows = [RelatedPair("nli ar", "ar", f"ar {i}", f"th {i if i < 5 else 0}", i < 5) for i in range(1, 10)]
    return PairSet("nli", tuple(rows))


def test_a_strong_bias_finds_its_own_language_first() -> None:
    """All 12 documents of the query's language come before the two translations, which are at 13 and 14."""
    result = evaluate(BiasedEncoder(2.0), [retrieval_set()]).results[0]
    ideal = 1 + 1 / log2(3) + 1 / 2
    assert result.figures["own@10"] == 1.0
    assert result.figures["own_expected"] == pytest.approx(1 / 3)
    assert result.figures["ndcg@10"] == pytest.approx(1 / ideal)
    assert result.figures["map@100"] == pytest.approx((1 + 2 / 13 + 3 / 14) / 3)
    assert result.figures["recall@20"] == result.figures["mrr"] == 1.0
    assert result.figures["same_ndcg@10"] == result.figures["cross_ndcg@10"] == 1.0
    assert result.notes == ("2 queries without a relevant document left out",)


def test_a_weak_bias_fills_the_rest_with_its_own_language() -> None:
    """The three translations come first, then seven documents of the query's language: 8 of 10."""
    result = evaluate(BiasedEncoder(0.5), [retrieval_set()]).results[0]
    assert result.figures["own@10"] == pytest.approx(0.8)
    assert result.figures["map@100"] == result.figures["ndcg@10"] == 1.0
    assert list(result.groups["language"]) == ["ar", "en", "th"]
    assert result.groups["language"]["ar"]["queries"] == TOPICS
    assert result.group_mean("language", "own@10") == pytest.approx(0.8)
    assert list(result.groups["script"]) == ["Latn"]
    assert result.matrix is not None
    assert result.matrix.query_langs == result.matrix.document_langs == LANGS
    assert result.matrix.values == ((1.0,) * 3,) * 3


def test_the_map_takes_the_language_out() -> None:
    plain = BiasedEncoder(2.0)
    by_language = {lang: plain.encode_documents([f"{lang} {topic}" for topic in range(TOPICS)]) for lang in LANGS}
    sums = LanguageSums(plain.dimension)
    for lang, vectors in by_language.items():
        sums.add([lang] * 10 * len(vectors), np.tile(vectors, (10, 1)))  # enough for a map without shipped offsets
    language_map = fit_language_map(None, sums)
    assert language_map.basis.shape == (2, plain.dimension)
    base, mapped = evaluate_variants([plain, AffineEncoder(plain, language_map, balance=1.0)], [retrieval_set()])
    assert base.results[0].figures["map@100"] < 0.5
    assert mapped.results[0].figures["map@100"] == mapped.results[0].figures["cross_ndcg@10"] == 1.0
    assert mapped.results[0].figures["own@10"] < 0.8 < base.results[0].figures["own@10"]
    assert mapped.encoder == "biased + affine"


def test_the_engines_map_is_fitted_to_the_documents_of_a_set(caplog: pytest.LogCaptureFixture) -> None:
    plain = CachedEncoder(BiasedEncoder(2.0))
    affine = AffineEncoder.as_engine(plain, balance=1.0)
    assert "no language offsets are shipped for fingerprint bias-2.0" in caplog.text
    texts = [f"{lang} {topic}" for lang in LANGS for topic in range(TOPICS)] * 3  # an index's map needs 100 chunks
    langs = [text.split()[0] for text in texts]
    fitted = affine.for_documents(texts, langs)
    assert fitted.language_map.basis.shape[0] == 2
    queries, documents = fitted.encode_queries(["ar 3"]), fitted.encode_documents(["ar 3", "th 3", "ar 4"])
    same, translated, other = (queries @ documents.T)[0]
    assert same == pytest.approx(translated, abs=1e-4)
    assert same > other + 0.5
    fixed = AffineEncoder(plain, LanguageMap.identity(plain.dimension))
    assert fixed.for_documents(texts, langs) is fixed


def test_the_other_kinds() -> None:
    evaluation = evaluate(BiasedEncoder(2.0), [bitext_set(), sts_set(), labelled_set(), pair_set()])
    bitext, sts, labelled, pairs = evaluation.results
    assert [result.kind for result in evaluation.results] == [Kind.BITEXT, Kind.STS, Kind.LABELLED, Kind.PAIRS]
    assert {bitext.figures[name] for name in ("f1", "accuracy", "accuracy_mean", "mining_f1", "mexa")} == {1.0}
    assert bitext.groups["pair"]["th-en"]["pairs"] == 9
    assert sts.figures["spearman"] == sts.figures["spearman_cross"] == pytest.approx(1.0)
    assert labelled.figures["v_measure"] == pytest.approx(1.0)
    assert labelled.figures["probe"] == labelled.figures["probe_en"] == 1.0
    assert labelled.notes == ("too few texts or labels, left out: th",)
    assert pairs.figures["ap"] == pytest.approx(1.0)
    assert pairs.figures["chance"] == pytest.approx(4 / 9)


def test_reranking_by_language() -> None:
    """A strong bias puts the negative in the query's own language first, unless the positive is in it too."""
    rows = (
        Candidates("ar", "ar 1", ("th 1",), ("ar 2", "en 3")),
        Candidates("ar", "ar 1", ("ar 1",), ("ar 2", "en 3")),
        Candidates("en", "en 4", ("th 4", "ar 4"), ("en 5",)),
    )
    (result,) = evaluate(encoder := BiasedEncoder(2.0), [RerankingSet("candidates", rows)]).results
    assert (result.kind, result.main) == (Kind.RERANKING, "map")
    assert result.units.values["map"] == pytest.approx((1 / 2, 1, (1 / 2 + 2 / 3) / 2))
    assert result.groups["language"]["ar"] == {"map": pytest.approx(0.75), "queries": 2}
    assert result.figures["map"] == pytest.approx((1.5 + 7 / 12) / 3)
    assert set(encoder.asked) == {"ar 1", "en 4"}
    neutral = evaluate(BiasedEncoder(0.1), [RerankingSet("candidates", rows)])
    assert neutral.results[0].figures["map"] == 1.0
    assert compare(evaluate(BiasedEncoder(2.0), [RerankingSet("candidates", rows)]), neutral).of("candidates", "map")


def test_limits_keep_queries_of_every_language() -> None:
    rows = tuple(Candidates(lang, f"{lang} {i}", (f"{lang} {i}",), ("en 0",)) for lang in LANGS for i in range(1, 6))
    kept = limit_set(RerankingSet("candidates", rows), 2)
    assert isinstance(kept, RerankingSet)
    assert [row.lang for row in kept.rows] == [lang for lang in LANGS for _ in range(2)]


def test_each_text_is_encoded_once_and_with_the_right_prompt() -> None:
    encoder = BiasedEncoder(1.0)
    evaluate(encoder, [retrieval_set()])
    assert len(encoder.asked) == len(set(encoder.asked)) == len(encoder.stored) == TOPICS * len(LANGS)
    evaluate(symmetric := BiasedEncoder(1.0), [bitext_set()])
    assert symmetric.stored == []
    assert len(symmetric.asked) == len(set(symmetric.asked)) == 27


def test_vectors_are_kept_on_disk(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    first = evaluate(BiasedEncoder(1.0), [retrieval_set()], cache=tmp_path, progress=lambda *step: steps.append(step))
    assert steps == [("biased queries", 36, 36), ("biased documents", 36, 36)]
    again = BiasedEncoder(1.0)
    assert evaluate(again, [retrieval_set()], cache=tmp_path) == first
    assert again.asked == again.stored == []
    other = BiasedEncoder(2.0)
    evaluate(other, [retrieval_set()], cache=tmp_path)
    assert len(other.stored) == 36
    for file in tmp_path.rglob("*.npy"):
        file.write_bytes(b"\x93NUMPY")
    assert evaluate(again, [retrieval_set()], cache=tmp_path) == first  # damaged files are made again
    assert not list(tmp_path.rglob("*.part"))


def test_evaluations_survive_a_file(tmp_path: Path) -> None:
    score = MtebScore("STS17", "cosine_spearman", "test", "ar-en", ("ara-Arab", "eng-Latn"), 0.5)
    made = evaluate(BiasedEncoder(1.0), [retrieval_set(), sts_set(), labelled_set()], limit=12)
    made = made.model_copy(update={"mteb": (score,)})
    save_evaluations([made], tmp_path / "new" / "evaluation.json")
    assert load_evaluations(tmp_path / "new" / "evaluation.json") == [made]
    (tmp_path / "other.json").write_text('{"evaluations": [{}]}', encoding="utf-8")
    for path in (tmp_path / "other.json", tmp_path / "missing.json"):
        with pytest.raises(EvaluationError, match="no evaluation"):
            load_evaluations(path)


def test_comparison_is_paired_by_query() -> None:
    sets = [retrieval_set("faq"), retrieval_set("manual"), bitext_set()]
    biased, fair = evaluate(BiasedEncoder(2.0, "old"), sets), evaluate(BiasedEncoder(0.5, "new"), sets)
    compared = compare(biased, fair)
    row = compared.of("faq", "map@100")
    assert row is not None
    assert row.difference is not None
    assert row.difference.mean == pytest.approx(row.second - row.first)
    assert row.difference.is_significant
    assert row.difference.count == 36
    bitext = compared.of("words", "f1")
    assert bitext is not None
    assert bitext.difference is not None
    assert bitext.difference.p == 1.0
    assert compared.of("faq", "own_expected") is None
    ideal = 1 + 1 / log2(3) + 1 / 2
    assert [kind for kind, _ in compared.overall] == [Kind.RETRIEVAL]
    assert compared.overall[0][1].mean == pytest.approx(1 - 1 / ideal)
    with pytest.raises(EvaluationError, match="judged on different queries"):
        compare(biased, evaluate(BiasedEncoder(0.5), sets, limit=5))
    with pytest.raises(EvaluationError, match="different sets"):
        compare(biased, evaluate(BiasedEncoder(0.5), [sts_set()]))
    with pytest.raises(EvaluationError, match="not evaluated on 'sts'"):
        biased.result("sts")


def test_report_and_plots(tmp_path: Path) -> None:
    sets = [retrieval_set("faq"), retrieval_set("manual"), bitext_set()]
    evaluations = [evaluate(BiasedEncoder(bias), sets) for bias in (2.0, 0.5)]
    plots = plot_matrices(evaluations, tmp_path)
    assert plots["faq"] == ["matrix-faq-biased-bias-2.png", "matrix-faq-biased-bias-0.png"]
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for names in plots.values() for name in names)
    report = write_report(evaluations, plots)
    assert "| set | figure | biased (bias-2) | biased (bias-0) | difference |" in report
    assert "| faq | own@10 | 1.000 | 0.800 | **-0.200 (-0.200 to -0.200)** |" in report
    assert "| mean over languages |  |" in report
    assert "2 queries without a relevant document left out" in report
    assert "(matrix-faq-biased-bias-2.png)" in report


def test_mteb_is_asked_for_by_name() -> None:
    with pytest.raises(EvaluationError, match=r"pip install .mteb>=2|mteb knows no task"):
        run_mteb(BiasedEncoder(1.0), ["NoSuchTask"])


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> typer.Typer:
    """The command, with encoders named by their bias, and three sets in `data`."""
    made = {name: BiasedEncoder(float(name), name) for name in ("2.0", "0.5")}
    monkeypatch.setattr(search.encoder, "load_encoder", lambda name, **_: made[name])
    folder = tmp_path / "data" / "faq"
    folder.mkdir(parents=True)
    whole = retrieval_set()
    for name, rows in (("corpus", whole.documents), ("queries", whole.queries)):
        lines = [json.dumps({"_id": row.id, "lang": row.lang, "text": row.text}) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    judged = [f"{query}\t{document}\t1" for query, grades in whole.qrels.items() for document in grades]
    (folder / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]), encoding="utf-8")
    app = typer.Typer()
    app.command()(evaluate_command)
    return app


def test_command(command: typer.Typer, tmp_path: Path) -> None:
    data, out = str(tmp_path / "data"), tmp_path / "out"
    result = CliRunner().invoke(command, ["2.0", "0.5", "--data", data, "--affine", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "| faq | own@10 | 1.000 |" in result.stdout
    assert [e.encoder for e in load_evaluations(out / "evaluation.json")] == [
        "2.0",
        "2.0 + affine",
        "0.5",
        "0.5 + affine",
    ]
    assert len(list(out.glob("matrix-faq-*.png"))) == 4
    assert (out / "evaluation.md").read_text(encoding="utf-8").startswith("# Evaluation\n")


def test_command_prints_json(command: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["2.0", "0.5", "--data", str(tmp_path / "data"), "--sets", "faq", "--json"])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    own = [row for row in rows if row["figure"] == "own@10"]
    assert [(row["encoder"], row["value"]) for row in own] == [("2.0", 1.0), ("0.5", pytest.approx(0.8))]
    assert own[0]["difference"] is None
    assert own[1]["difference"]["mean"] == pytest.approx(-0.2)


def test_command_says_how_far_it_is(command: typer.Typer, tmp_path: Path) -> None:
    options = ["--data", str(tmp_path / "data"), "--sets", "faq", "--json", "--progress"]
    result = CliRunner().invoke(command, ["2.0", "0.5", *options])
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    steps = [row["step"] for row in rows if row.get("event") == "progress"]
    assert {row["of"] for row in rows if row.get("event") == "progress"} == {2}
    assert steps == sorted(steps)
    assert steps[0] == 0.0
    assert steps[-1] == 2.0
    assert 0.5 in steps
    assert [row for row in rows if "figure" in row] == rows[-len(rows) + len(steps) :]


def test_command_names_what_there_is(command: typer.Typer, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    result = CliRunner().invoke(command, ["2.0", "--data", data, "--sets", "fag"])
    assert isinstance(result.exception, EvaluationError)
    assert "no set 'fag'" in str(result.exception)
    assert "Did you mean 'faq'? There are: faq" in str(result.exception)
    assert "give --data FOLDER" in str(CliRunner().invoke(command, ["2.0"]).exception)
