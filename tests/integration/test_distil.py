"""Distillation: a smaller network is taught the vectors of a larger one, alone and with translations."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_training_run import PROBES, run, save_plain, write_data

from search.balance import OFFSETS_FILE, LanguageOffsets
from search.encoder import load_encoder
from search.errors import RecipeError
from search.settings import Settings
from training.export import export_encoder
from training.recipe import Recipe, load_recipe
from training.shrink import shrink_encoder

SIZE = 32
FEW_STEPS = {"training.steps": 4, "training.checkpoint_every": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("distil")


@pytest.fixture(scope="module")
def data(folder: Path) -> Path:
    return write_data(folder / "rows")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Path:
    """Two layers that read 64 tokens, kept in float16 as the built-in encoders are, with language offsets."""
    from safetensors.numpy import load_file, save_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    out = folder / "teacher"
    modules = [Transformer(str(save_plain(folder / "plain"))), Pooling(SIZE, pooling_mode="mean"), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"query": "query: ", "document": "passage: "}, device="cpu")
    model.save_pretrained(str(out), create_model_card=False)
    half = {name: tensor.astype(np.float16) for name, tensor in load_file(out / "model.safetensors").items()}
    save_file(half, out / "model.safetensors", metadata={"format": "pt"})
    zero = np.zeros(SIZE, np.float32)
    LanguageOffsets(("ar", "zh"), zero, np.ones((2, SIZE), np.float32), zero).save(out / OFFSETS_FILE)
    return out


@pytest.fixture(scope="module")
def student(folder: Path, teacher: Path) -> Path:
    shrink_encoder(str(teacher), [0], folder / "student", Settings(home=folder / "home"))
    return folder / "student"


def recipe_for(student: Path, teacher: Path, **changes: object) -> Recipe:
    """The shipped recipe at a toy's size."""
    toy = {
        "training.steps": 80, "training.learning_rate": 5e-3, "training.max_tokens": 32,
        "training.precision": "float32", "training.checkpoint_every": 80,
    }  # fmt: skip
    given = {"base": str(student), "training.teacher": str(teacher), **toy, **changes}
    return load_recipe("distil", overrides=given)


def cosines(first: Path, second: Path, cache: Path) -> np.ndarray:
    one, other = (load_encoder(str(path), backend="torch", device="cpu", cache_dir=cache) for path in (first, second))
    return np.asarray(np.sum(one.encode_queries(PROBES) * other.encode_queries(PROBES), axis=1))


def test_a_student_comes_near_its_teacher_and_is_exported_as_the_teacher_is_kept(
    student: Path, teacher: Path, data: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file
    from sentence_transformers import SentenceTransformer

    recipe = recipe_for(student, teacher)
    made, lines = run(recipe, data, tmp_path / "encoders", tmp_path / "run")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:2])
    out = export_encoder(made / "adapter", student, tmp_path / "encoder", recipe=recipe)
    before, after = (cosines(path, teacher, tmp_path / "encoders") for path in (student, out))
    assert after.mean() > before.mean() + 0.5 * (1 - before.mean())
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {np.dtype(np.float16)}
    assert SentenceTransformer(str(out), device="cpu").max_seq_length == 64
    assert LanguageOffsets.load(out / OFFSETS_FILE).languages == ("ar", "zh")
    described = json.loads((out / "panlingua.json").read_text("utf-8"))
    assert described["recipe"]["training"]["teacher"] == str(teacher)


def test_the_teachers_vectors_are_taught_as_they_are(student: Path, teacher: Path, data: Path, tmp_path: Path) -> None:
    from training.mixture import plan_batches
    from training.neutral import neutral_texts
    from training.prepare import prepare

    recipe = recipe_for(student, teacher, **FEW_STEPS)
    run(recipe, data, tmp_path / "encoders", tmp_path / "run")
    rows = prepare(recipe.data, data, held_out=None, seed=recipe.seed).rows
    texts = neutral_texts(plan_batches(rows, recipe.streams, steps=4, seed=recipe.seed))
    encoder = load_encoder(str(teacher), backend="torch", device="cpu", cache_dir=tmp_path / "encoders")
    expected = [(encoder.encode_queries if kind == "query" else encoder.encode_documents)([text])[0]
                for text, kind, _ in texts[:20]]  # fmt: skip
    np.testing.assert_allclose(np.load(tmp_path / "run" / "teacher.npy")[:20], expected, atol=2e-3)


def test_a_teacher_of_other_dimensions_is_refused(student: Path, data: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    wide = SentenceTransformer(str(student), device="cpu", model_kwargs={"dtype": "float32"})
    wide.insert(2, Dense(SIZE, 48))
    wide.save_pretrained(str(tmp_path / "wide"), create_model_card=False)
    with pytest.raises(RecipeError, match=r"wide's vectors have 48 dimensions, .* 32; name a teacher with 32"):
        run(recipe_for(student, tmp_path / "wide", **FEW_STEPS), data, tmp_path / "encoders", tmp_path / "run")


def test_a_swapped_adapter_is_one_that_peft_loads(teacher: Path, data: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from training.swap import swap_layers

    base = tmp_path / "base"
    shutil.copytree(teacher, base)
    recipe = recipe_for(base, teacher, **FEW_STEPS, **{"lora.rank": 4, "training.teacher": "own"})
    experts = [
        run(recipe.model_copy(update={"seed": seed}), data, tmp_path / "encoders", tmp_path / str(seed))[0] / "adapter"
        for seed in (1, 2)
    ]
    swapped = swap_layers(*experts, tmp_path / "swapped", layers=[0], averaged=[1])
    merged = export_encoder(swapped, base, tmp_path / "merged", recipe=recipe)
    unmerged = SentenceTransformer(str(base), device="cpu", model_kwargs={"dtype": "float32"})
    before = unmerged.encode(PROBES)
    unmerged.load_adapter(str(swapped))
    after = SentenceTransformer(str(merged), device="cpu", model_kwargs={"dtype": "float32"}).encode(PROBES)
    np.testing.assert_allclose(after, unmerged.encode(PROBES), atol=5e-3)
    assert np.abs(after - before).max() > 2e-2
