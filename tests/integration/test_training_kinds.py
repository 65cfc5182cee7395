"""Training runs of late-interaction and sparse encoders: a vector for each token, few values, on a tiny network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_training_run import (  # noqa: F401  # fixtures
    PROBES,
    WORDS,
    Stopped,
    base,
    cache,
    data,
    make_recipe,
    run,
    same_weights,
    stop_at,
)

from benchmarks.variants import Variant, measure
from search.encoder import load_encoder
from search.errors import EncoderError, RecipeError, TrainingError
from search.records import Chunk, Vectors
from search.rerank import MultiVectorReranker, load_reranker
from search.settings import load_settings
from training.adapt.flow import adapt
from training.adapt.options import AdaptOptions
from training.export import average_adapters, export_encoder, shrink_adapter
from training.losses import build_loss
from training.model import load_base
from training.recipe import Kind, Recipe
from training.run import DEV_METRICS

# ruff: noqa: F811  # fixtures of another file

LATE = {"kind": "multi-vector", "multi_vector.dimension": 16, "query_prompt": "", "document_prompt": ""}
SPARSE = {"kind": "sparse", "sparse.dimension": 64, "sparse.active": 8}
STREAMS = [{"objective": "retrieval", "batch_size": 16, "languages": 2, "cross_lingual": 0.0, "negatives": 1}]
STEPS = {"training.steps": 60, "training.checkpoint_every": 20, "training.evaluate_every": 30}
Trained = tuple[Path, Recipe, list[Any]]


def recipe_of(base: Path, kind: dict[str, Any], **changes: Any) -> Recipe:
    return make_recipe(base, **{**kind, **STEPS, "streams": STREAMS, "training.learning_rate": 0.01, **changes})


@pytest.fixture(scope="module", params=[LATE, SPARSE], ids=["late", "sparse"])
def trained(
    request: pytest.FixtureRequest, base: Path, data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    recipe = recipe_of(base, request.param)
    folder, lines = run(recipe, data, cache, tmp_path_factory.mktemp("kinds") / "run")
    return folder, recipe, lines


@pytest.fixture(scope="module")
def exported(trained: Trained, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_encoder(
        trained[0] / "adapter", base, tmp_path_factory.mktemp("exported") / "encoder", recipe=trained[1]
    )


def load(folder: Path, kind: Kind) -> Any:
    from sentence_transformers import MultiVectorEncoder, SparseEncoder

    return (MultiVectorEncoder if kind is Kind.MULTI_VECTOR else SparseEncoder)(str(folder), device="cpu")


def encode(model: Any, texts: list[str], *, is_query: bool = False) -> list[Vectors]:
    sparse = {"convert_to_sparse_tensor": False} if hasattr(model, "max_active_dims") else {}
    found = (model.encode_query if is_query else model.encode_document)(texts, **sparse)
    return [np.asarray(each.cpu().numpy(), np.float32) for each in found]


def test_loss_falls_and_the_dev_split_is_judged(trained: Trained) -> None:
    folder, recipe, lines = trained
    losses = [line["base_loss" if recipe.kind is Kind.SPARSE else "loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-3:]) < 0.5 * losses[0]
    judged = [line[DEV_METRICS[recipe.kind]] for line in lines if DEV_METRICS[recipe.kind] in line]
    assert len(judged) == 2
    assert judged[-1] > 0.25  # translations are relevant too, and were never seen
    assert not list(folder.rglob("pytorch_model.bin")) + list((folder / "adapter").glob("model.safetensors"))


def test_export_is_what_was_trained_and_reads_as_much_as_the_base(trained: Trained, exported: Path, base: Path) -> None:
    """As the adapter unmerged, under the same head; not the base; and not cut where training cut its texts."""
    folder, recipe, _ = trained
    merged = load(exported, recipe.kind)
    unmerged = load_base(recipe, base.parent, device="cpu")
    before = encode(unmerged, PROBES)
    unmerged.load_adapter(str(folder / "adapter"))
    state = load(folder / "adapter", recipe.kind)
    for place in range(1, len(unmerged)):
        unmerged[place].load_state_dict(state[place].state_dict())
    for ours, theirs, untrained in zip(encode(merged, PROBES), encode(unmerged, PROBES), before, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.abs(ours - untrained).max() > 0.05
    assert (unmerged.max_seq_length, merged.max_seq_length) == (32, 64)
    assert merged.prompts == {"query": recipe.query_prompt, "document": recipe.document_prompt}
    assert json.loads((exported / "panlingua.json").read_text("utf-8"))["recipe"]["kind"] == recipe.kind


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    trained: Trained, data: Path, cache: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    folder, recipe, _ = trained
    with pytest.raises(Stopped):
        run(recipe, data, cache, tmp_path / "stopped", progress=stop_at(50))
    resumed, lines = run(recipe, data, cache, tmp_path / "stopped", resume=True)
    assert lines[0]["step"] > 40
    same_weights(folder / "adapter", resumed / "adapter")
    (head,) = (folder / "adapter").glob("*/model.safetensors")
    other = load_file(resumed / "adapter" / head.relative_to(folder / "adapter"))
    for name, value in load_file(head).items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_it_takes_part_in_the_comparison_of_variants(
    trained: Trained, exported: Path, base: Path, tmp_path: Path
) -> None:
    """Words of one document in four scripts: its own text comes first; beside the base as it is."""
    from training.evaluation.sets import RetrievalSet, load_set

    folder = tmp_path / "made"
    folder.mkdir()
    texts = {f"{lang}{n}": (lang, f"{words[n]} {words[n + 1]}") for lang, words in WORDS.items() for n in range(5)}
    rows = [{"_id": key, "lang": lang, "text": text} for key, (lang, text) in texts.items()]
    for name in ("corpus", "queries"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"{key}\t{key}\t1\n" for key in texts), "utf-8"
    )
    evaluated = load_set(folder)
    assert isinstance(evaluated, RetrievalSet)
    settings = load_settings()
    kind = "late" if trained[1].kind is Kind.MULTI_VECTOR else "sparse"
    row = measure(Variant(kind, str(exported)), evaluated, settings)
    assert row["map@100"] > 0.8  # type: ignore[operator]
    assert (row["queries"], row["documents"], row["encoder"]) == (20, 20, "encoder")
    expected = {"late": (16, 2 * 16, 2 * 2 * 16), "sparse": (64, 8, 4 * 8)}[kind]  # two words; 8 of 64 dimensions
    assert row["dimension"] == expected[0]
    assert row["active"] <= expected[1]  # type: ignore[operator]
    assert row["bytes_per_passage"] <= expected[2]  # type: ignore[operator]
    plain = measure(Variant("late" if kind == "late" else "dense", str(base)), evaluated, settings)
    assert (plain["dimension"], plain["active"]) == ((32, 64.0) if kind == "late" else (32, 32.0))


@pytest.mark.parametrize("trained", [LATE], ids=["late"], indirect=True)
def test_late_vectors_are_of_words_alone_and_rerank(trained: Trained, exported: Path) -> None:
    model = load(exported, Kind.MULTI_VECTOR)
    assert [len(vectors) for vectors in encode(model, ["dog moon", "كلب", "狗 月亮 石头", ""])] == [2, 1, 3, 0]
    reranker = load_reranker(str(exported))
    assert isinstance(reranker, MultiVectorReranker)
    for words in WORDS.values():
        chunks = [Chunk(f"{n}", 0, f"{words[5]} {words[n]} {words[5]}") for n in (0, 1, 2, 3)]
        scores = reranker.score(f"{words[5]} {words[2]}", chunks)
        assert scores.argmax() == 2
        query, read = (
            encode(model, [f"{words[5]} {words[2]}"], is_query=True)[0],
            encode(model, [c.text for c in chunks]),
        )
        np.testing.assert_allclose(scores, [(query @ each.T).max(axis=1).mean() for each in read], atol=1e-5)
    assert reranker.score("", chunks).tolist() == [0.0] * 4


@pytest.mark.parametrize("trained", [SPARSE], ids=["sparse"], indirect=True)
def test_sparse_vectors_have_few_values_and_unit_length(trained: Trained, exported: Path) -> None:
    for vector in encode(load(exported, Kind.SPARSE), PROBES):
        assert 0 < np.count_nonzero(vector) <= 8
        assert vector.min() >= 0
        assert np.linalg.norm(vector) == pytest.approx(1)


def test_a_projection_begins_with_orthonormal_directions(base: Path) -> None:
    model = load_base(recipe_of(base, LATE), base.parent, device="cpu")
    weight = model[1].linear.weight.detach().numpy()
    np.testing.assert_allclose(weight @ weight.T, np.eye(16), atol=1e-5)
    assert model[1].linear.weight.requires_grad


@pytest.mark.parametrize("objective", ["retrieval", "bitext"])
@pytest.mark.parametrize("kind", [LATE, SPARSE], ids=["late", "sparse"])
def test_loss_is_infonce_over_the_scores_of_the_kind(base: Path, kind: dict[str, Any], objective: str) -> None:
    """Of sparse vectors it has a weight, and of bitext it is the mean of both directions."""
    changes = {"sparse.contrast": 0.25} if kind is SPARSE else {}
    recipe = recipe_of(base, kind, streams=[{"objective": objective}], **changes)
    model: Any = load_base(recipe, base.parent, device="cpu").eval()
    queries, documents = ["dog moon", "كلب قمر", "狗"], ["moon dog dog", "قمر", "狗 月亮 石头"]
    given = [model.preprocess(queries, task="query"), model.preprocess(documents, task="document")]
    found = build_loss(model, recipe.streams[0], recipe)(given, None)
    loss = found["base_loss"] / 0.25 if kind is SPARSE else found
    first, second = model.encode_query(queries, prompt=""), model.encode_document(documents, prompt="")
    if kind is SPARSE:
        scores = first.to_dense().numpy() @ second.to_dense().numpy().T
    else:
        scores = np.array([[(q @ d.T).max(dim=1).values.mean() for d in second] for q in first])
    logits = scores / recipe.streams[0].similarity_temperature
    forth, back = (np.mean(np.log(np.exp(logits).sum(axis=axis)) - np.diag(logits)) for axis in (1, 0))
    expected = (forth + back) / 2 if kind is SPARSE and objective == "bitext" else forth
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (LATE | {"streams": [{"objective": "neutral"}]}, "kind multi-vector has streams of bitext, nli, paraphrase"),
        (SPARSE | {"streams": [{"objective": "sts"}]}, "kind sparse has streams of"),
        (LATE | {"streams": [{"objective": "rerank", "negatives": 1}]}, "need a recipe each"),
        (SPARSE | {"training.matryoshka": [32, 16]}, "for vectors of kind dense, not sparse"),
        (
            {"training.teacher": "own"},
            "toy: training.teacher teaches neutral and parallel streams, and there is none; leave it out$",
        ),
        (SPARSE | {"training.mini_batch": 4}, "does not go with kind sparse"),
        (SPARSE | {"sparse.active": 17}, "dimension must be 4 times active or more"),
        (SPARSE | {"sparse.k": 8}, "unknown key; known: active, contrast, dimension"),
        ({"kind": "dence"}, "kind: Input should be 'dense', 'rerank', 'multi-vector' or 'sparse'"),
    ],
)
def test_a_recipe_of_a_kind_is_checked(base: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        make_recipe(base, **{"streams": STREAMS, **changes})


def test_without_its_head_an_adapter_is_refused(trained: Trained, base: Path, tmp_path: Path) -> None:
    adapter = trained[0] / "adapter"
    with pytest.raises(TrainingError, match="whose head cannot be combined; adapters of dense encoders can"):
        average_adapters([adapter, adapter], tmp_path / "mean")
    bare = shrink_adapter(adapter, tmp_path / "bare")
    with pytest.raises(TrainingError, match="an adapter without the head that a recipe of kind"):
        export_encoder(bare, base, tmp_path / "encoder", recipe=trained[1])


def test_it_is_no_encoder_of_whole_texts(exported: Path) -> None:
    with pytest.raises(EncoderError, match="no encoder of a whole text to one vector"):
        load_encoder(str(exported))


def test_an_adaptation_needs_a_dense_recipe(tmp_path: Path) -> None:
    options = AdaptOptions(corpus=tmp_path, out=tmp_path / "out", recipe="late-e5-small")
    with pytest.raises(RecipeError, match="trains kind multi-vector; adapting needs a recipe of dense encoders"):
        adapt(options, report=print, progress=print)


def test_tokens_are_projected_from_their_own_width(base: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense

    wide = SentenceTransformer(str(base), device="cpu")
    SentenceTransformer(modules=[wide[0], wide[1], Dense(32, 16)]).save_pretrained(str(tmp_path / "labse"))
    recipe = recipe_of(tmp_path / "labse", {**LATE, "multi_vector.dimension": 24})
    assert encode(load_base(recipe, tmp_path, device="cpu"), ["dog"])[0].shape == (1, 24)


def test_a_projection_must_make_vectors_smaller(base: Path) -> None:
    with pytest.raises(RecipeError, match="must be below the 32 of the base"):
        load_base(recipe_of(base, {**LATE, "multi_vector.dimension": 32}), base.parent, device="cpu")
