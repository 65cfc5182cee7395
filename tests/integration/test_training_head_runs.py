"""Runs whose recipe has a head: fitted once, frozen, exported, shipped with its adapter."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from test_training_run import (  # noqa: F401  # fixtures
    PROBES,
    RESUMED,
    Stopped,
    base,
    cache,
    data,
    make_recipe,
    run,
    same_weights,
    stop_at,
)

from search.balance import LanguageMap
from search.encoder import load_encoder
from search.encoder.adapters import fingerprint_adapted, merge_adapter
from search.encoder.loading import drop_special_tokens
from search.errors import EncoderError, RecipeError, TrainingDataError, TrainingError
from search.highlight import HighlightKind, mark_passages
from search.records import Chunk
from search.rerank import TokenCache
from training.export import export_encoder, shrink_adapter
from training.head import HeadNetwork, append_head
from training.model import add_adapter, load_base
from training.pipeline import BASE_FOLDER, RunOptions
from training.plan import plan_run, render_plan
from training.recipe import Recipe
from training.static import write_static

# ruff: noqa: F811  # fixtures of another file

HEAD = {"head.hidden": 16, "head.steps": 40, "training.matryoshka": [32, 16]}


@pytest.fixture(scope="module")
def finished(base: Path, data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    recipe = make_recipe(base, **RESUMED, **HEAD)
    return run(recipe, data, cache, tmp_path_factory.mktemp("heads") / "run")[0], recipe


def test_the_base_of_the_run_is_the_base_and_its_head(finished: tuple[Path, Recipe], base: Path, cache: Path) -> None:
    """What sentence-transformers computes is the head's own arithmetic over the base's vectors."""
    from safetensors.numpy import load_file

    folder = finished[0] / BASE_FOLDER
    assert [entry["path"] for entry in json.loads((folder / "modules.json").read_text("utf-8"))][-3:] == [
        "3_Dense", "4_Dense", "5_Normalize",
    ]  # fmt: skip
    first, second = (load_file(folder / name / "model.safetensors") for name in ("3_Dense", "4_Dense"))
    plain, headed = (
        load_encoder(str(path), backend="torch", device="cpu", cache_dir=cache).encode_queries(PROBES)
        for path in (base, folder)
    )
    inner = plain @ first["linear.weight"][:16].T + first["linear.bias"][:16]
    from scipy.special import erf

    offset = (inner * 0.5 * (1 + erf(inner / 2**0.5))) @ second["linear.weight"][:, :16].T + second["linear.bias"]
    expected = (plain + offset) / np.linalg.norm(plain + offset, axis=1, keepdims=True)
    np.testing.assert_allclose(headed, expected, atol=1e-5)
    assert np.abs(headed - plain).max() > 0.05


def test_a_base_that_leaves_its_vectors_as_long_as_they_are_gets_a_normalize_first(base: Path, tmp_path: Path) -> None:
    """The head was fitted on vectors of unit length."""
    import torch
    from sentence_transformers import SentenceTransformer

    modules = list(SentenceTransformer(str(base), device="cpu"))[:-1]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "long"), create_model_card=False)
    head = HeadNetwork(32, 8)
    torch.nn.init.normal_(head.outer.weight)
    append_head(base, head, tmp_path / "of-unit")
    append_head(tmp_path / "long", head, tmp_path / "of-long")
    first, second = (
        SentenceTransformer(str(tmp_path / name), device="cpu").encode(PROBES) for name in ("of-unit", "of-long")
    )
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("backend", ["torch-bf16", "openvino", "openvino-f32"])
def test_every_backend_runs_a_head(finished: tuple[Path, Recipe], cache: Path, backend: str) -> None:
    folder = str(finished[0] / BASE_FOLDER)
    exact = load_encoder(folder, backend="torch", device="cpu", cache_dir=cache).encode_documents(PROBES)
    other = load_encoder(folder, backend=backend, device="cpu", cache_dir=cache).encode_documents(PROBES)
    assert np.sum(exact * other, axis=1).min() > 0.995


def test_the_head_is_frozen_while_the_adapter_is_trained(
    finished: tuple[Path, Recipe], base: Path, cache: Path, tmp_path: Path
) -> None:
    folder, recipe = finished
    model = load_base(recipe, cache, folder=folder / BASE_FOLDER, device="cpu")
    add_adapter(model, recipe.lora)
    assert all("lora_" in name for name, parameter in model.named_parameters() if parameter.requires_grad)
    out = export_encoder(folder / "adapter", folder / BASE_FOLDER, tmp_path / "encoder", recipe=recipe)
    for name in ("3_Dense", "4_Dense"):
        assert (out / name / "model.safetensors").read_bytes() == (
            folder / BASE_FOLDER / name / "model.safetensors"
        ).read_bytes()


def test_what_is_shipped_is_the_exported_encoder(
    finished: tuple[Path, Recipe], base: Path, cache: Path, tmp_path: Path
) -> None:
    """The adapter and head in half precision, merged into the plain base, against the run's own export."""
    folder, recipe = finished
    whole = export_encoder(folder / "adapter", folder / BASE_FOLDER, tmp_path / "whole", recipe=recipe)
    small = shrink_adapter(folder / "adapter", tmp_path / "small", base=folder / BASE_FOLDER)
    assert not [path for path in small.rglob("*") if path.is_file() and str(folder) in path.read_text("latin-1")]
    merged = tmp_path / "merged"
    merged.mkdir()
    merge_adapter(base, small, merged)
    ours, theirs = (
        load_encoder(str(path), backend="torch", device="cpu", cache_dir=cache).encode_queries(PROBES)
        for path in (merged, whole)
    )
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    before = fingerprint_adapted("base", small)
    assert before != fingerprint_adapted("base", shrink_adapter(folder / "adapter", tmp_path / "bare"))
    weights = small / "4_Dense" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert fingerprint_adapted("base", small) != before


def test_a_resumed_run_keeps_its_head(finished: tuple[Path, Recipe], data: Path, cache: Path, tmp_path: Path) -> None:
    folder, recipe = finished
    with pytest.raises(Stopped):
        run(recipe, data, cache, tmp_path / "stopped", progress=stop_at(10))
    weights = tmp_path / "stopped" / BASE_FOLDER / "3_Dense" / "model.safetensors"
    made = weights.stat().st_mtime_ns
    resumed, _ = run(recipe, data, cache, tmp_path / "stopped", resume=True)
    assert weights.stat().st_mtime_ns == made
    assert weights.read_bytes() == (folder / BASE_FOLDER / "3_Dense" / "model.safetensors").read_bytes()
    same_weights(folder / "adapter", resumed / "adapter")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "sparse", "streams": [{"objective": "retrieval"}], "training.matryoshka": []}, "of kind dense"),
        ({"head.neutral": 0, "head.bitext": 0, "head.ranking": 0}, "no loss"),
        ({"head.width": 3}, "head.width"),
    ],
)
def test_a_head_that_cannot_be_is_refused(base: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        make_recipe(base, **{**HEAD, **changes})


def test_too_many_matryoshka_dimensions_are_refused_before_the_head_is_fitted(
    base: Path, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.head.fit_head", lambda *_, **__: pytest.fail("fitted"))
    with pytest.raises(RecipeError, match="matryoshka has 64"):
        run(make_recipe(base, **{**RESUMED, **HEAD, "training.matryoshka": [64, 16]}), data, cache, tmp_path / "run")


def test_a_recipe_without_streams_fits_the_head_alone(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    """What is planned, exported and shipped is the base with its head; nothing else was trained."""
    from sentence_transformers import SentenceTransformer

    recipe = make_recipe(base, **{**HEAD, "streams": [], "training.evaluate_every": 0})
    options = RunOptions(data=data, out=tmp_path / "plan", encoders=cache, device="cpu", backend="torch", threads=1)
    plan = plan_run(recipe, options)
    assert (plan.steps, plan.streams, plan.head_texts > 100, plan.head_seconds > 0) == (0, (), True, True)
    assert "1 or 2 to fit it" in render_plan(plan)
    folder, lines = run(recipe, data, cache, tmp_path / "run")
    assert not lines
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert (record["parameters"], record["trained_parameters"]) == (plan.parameters, plan.trained_parameters)
    assert record["steps"] == 0
    out = export_encoder(None, folder / BASE_FOLDER, tmp_path / "encoder", recipe=recipe, run=record)
    assert json.loads((out / "panlingua.json").read_text("utf-8"))["adapter"] is None
    small = shrink_adapter(None, tmp_path / "small", base=folder / BASE_FOLDER)
    assert not list(small.glob("adapter*"))
    (tmp_path / "merged").mkdir()
    merge_adapter(base, small, tmp_path / "merged")
    expected = SentenceTransformer(str(folder / BASE_FOLDER), device="cpu").encode(PROBES, prompt_name="query")
    for path, error in ((out, 1e-5), (tmp_path / "merged", 2e-3)):
        ours = load_encoder(str(path), backend="torch", device="cpu", cache_dir=cache)
        np.testing.assert_allclose(ours.encode_queries(PROBES), expected, atol=error)
    assert fingerprint_adapted("base", small)
    with pytest.raises(TrainingError, match="no \\[\\[streams"):
        run(recipe, data, cache, tmp_path / "other", adapter=folder)
    with pytest.raises(RecipeError, match=r"\[\[streams\]\] to train on, or a \[head\]"):
        make_recipe(base, streams=[])


def test_a_plan_counts_the_head_as_its_run_does(
    finished: tuple[Path, Recipe], data: Path, cache: Path, tmp_path: Path
) -> None:
    folder, recipe = finished
    options = RunOptions(data=data, out=tmp_path / "plan", encoders=cache, device="cpu", backend="torch", threads=1)
    plan = plan_run(recipe, options, samples=1)
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert (record["parameters"], record["trained_parameters"]) == (plan.parameters, plan.trained_parameters)


def test_a_table_may_be_the_base_of_a_head(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    drop_special_tokens(tokenizer)
    table = np.random.default_rng(0).standard_normal((tokenizer.get_vocab_size(), 32)).astype(np.float32)
    write_static(table, tokenizer, tmp_path / "table", record={})
    recipe = make_recipe(tmp_path / "table", **{**HEAD, "streams": [], "training.evaluate_every": 0})
    options = RunOptions(data=data, out=tmp_path / "plan", encoders=cache, device="cpu", backend="torch", threads=1)
    plan = plan_run(recipe, options)
    folder, _ = run(recipe, data, cache, tmp_path / "run")
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert (record["parameters"], record["trained_parameters"]) == (plan.parameters, plan.trained_parameters)
    assert plan.parameters - plan.trained_parameters == table.size
    assert load_encoder(str(folder / BASE_FOLDER), cache_dir=cache).encode_queries(PROBES).shape == (len(PROBES), 32)


def test_streams_without_data_are_refused_before_the_head_is_fitted(
    base: Path, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.head.fit_head", lambda *_, **__: pytest.fail("fitted"))
    streams = [{"objective": "retrieval", "datasets": ["no-such"]}]
    with pytest.raises(TrainingDataError, match="no rows for datasets no-such"):
        run(make_recipe(base, **{**RESUMED, **HEAD, "streams": streams}), data, cache, tmp_path / "run")


def test_an_exported_checkpoint_has_the_modules_of_its_base(finished: tuple[Path, Recipe], tmp_path: Path) -> None:
    folder, recipe = finished
    checkpoint = max((folder / "checkpoints").glob("checkpoint-*"))
    out = export_encoder(checkpoint, folder / BASE_FOLDER, tmp_path / "encoder", recipe=recipe)
    assert (out / "modules.json").read_bytes() == (folder / BASE_FOLDER / "modules.json").read_bytes()


def test_a_head_is_not_kept_for_other_data(
    base: Path, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ended after its head was made and before its first step."""
    recipe = make_recipe(base, **RESUMED, **HEAD)

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr("training.model.load_base", stop)
        with pytest.raises(Stopped):
            run(recipe, data, cache, tmp_path / "run")
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    with gzip.open(data / "made.jsonl.gz", "rb") as file, gzip.open(fewer / "made.jsonl.gz", "wb") as kept:
        kept.writelines(list(file)[:-40])
    with pytest.raises(TrainingError, match="other data"):
        run(recipe, fewer, cache, tmp_path / "run", resume=True)


def test_a_finished_head_is_not_overwritten(
    finished: tuple[Path, Recipe], base: Path, data: Path, cache: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(base, **{**HEAD, "streams": [], "training.evaluate_every": 0})
    folder, _ = run(recipe, data, cache, tmp_path / "run")
    with pytest.raises(TrainingError, match="holds a run with a head; add --resume"):
        run(make_recipe(base, **RESUMED), data, cache, folder)
    with pytest.raises(TrainingError, match="is there already"):
        shrink_adapter(None, folder / BASE_FOLDER, base=folder / BASE_FOLDER)


def test_the_head_is_fitted_under_the_prompts_of_the_recipe(
    base: Path, data: Path, cache: Path, tmp_path: Path
) -> None:
    """And its encoder has them: texts without a prompt would give other vectors."""
    prompts = {"query_prompt": "passage: ", "document_prompt": ""}
    recipe = make_recipe(base, **{**HEAD, **prompts, "streams": [], "training.evaluate_every": 0})
    folder, _ = run(recipe, data, cache, tmp_path / "run")
    encoder = load_encoder(str(folder / BASE_FOLDER), backend="torch", device="cpu", cache_dir=cache)
    assert (encoder.manifest.query_prompt, encoder.manifest.document_prompt) == ("passage: ", "")
    other = run(make_recipe(base, **{**HEAD, "streams": [], "training.evaluate_every": 0}), data, cache, tmp_path / "o")
    heads = [path / BASE_FOLDER / "3_Dense" / "model.safetensors" for path in (folder, other[0])]
    assert heads[0].read_bytes() != heads[1].read_bytes()


def test_a_lost_adapter_is_no_head_alone(finished: tuple[Path, Recipe], base: Path, tmp_path: Path) -> None:
    folder, _ = finished
    small = shrink_adapter(folder / "adapter", tmp_path / "small", base=folder / BASE_FOLDER)
    (small / "adapter_model.safetensors").unlink()
    with pytest.raises(EncoderError, match="install the package again"):
        fingerprint_adapted("base", small)


def test_sentences_are_marked_with_an_encoder_whose_vectors_are_smaller_than_its_tokens(
    base: Path, cache: Path, tmp_path: Path
) -> None:
    """As distiluse's, which end in a dense layer: means over tokens are then no vectors of sentences."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    modules = [*SentenceTransformer(str(base), device="cpu"), Dense(32, 8)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "small"), create_model_card=False)
    encoder = load_encoder(str(tmp_path / "small"), backend="torch", device="cpu", cache_dir=cache)
    assert encoder.dimension == 8
    text = "dog cat river. moon moon house. stone bread tree."
    chunk = Chunk("d", 0, text, lang="en", script="Latn")
    (found,), notes = mark_passages("moon", [chunk], lambda: TokenCache(encoder), LanguageMap.identity(8))
    (sentence,) = [mark for mark in found if mark.kind is HighlightKind.SENTENCE]
    asked = encoder.encode_queries(["moon"])[0]
    sentences = ["dog cat river.", "moon moon house.", "stone bread tree."]
    best = sentences[int((encoder.encode_documents(sentences) @ asked).argmax())]
    assert text[sentence.start : sentence.end] == best
    assert not notes
