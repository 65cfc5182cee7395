"""Recipes: what is refused, with which words, and what the shipped ones hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from search.errors import RecipeError
from training.recipe import Kind, Recipe, list_recipes, load_recipe, parse_recipe

SMALL = 'name = "r"\n[[streams]]\nobjective = "bitext"\n'


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_load_and_survive_being_written(name: str) -> None:
    import tomli_w

    recipe = load_recipe(name)
    assert recipe.name == name
    written = tomli_w.dumps(json.loads(recipe.model_dump_json(exclude_none=True)))
    assert parse_recipe(written, "copy") == recipe
    assert all(
        source.defaults.get("lang") or source.defaults.keys() & {"lang_query", "langs"} for source in recipe.data.hub
    )


def test_the_shipped_recipes_are_the_known_ones() -> None:
    known = {
        "toy",
        "retrofit-e5-small",
        "retrofit-e5-small-long",
        "head-e5-small",
        "retrofit-300m",
        "m-st5",
        "m-st5-cross-lingual",
    }
    assert known <= set(list_recipes())
    large = load_recipe("retrofit-300m")
    assert (large.streams[0].batch_size, large.training.mini_batch, large.training.precision) == (2048, 64, "bfloat16")
    for name in ("m-st5", "m-st5-cross-lingual"):
        recipe = load_recipe(name)
        assert (recipe.lora.rank, recipe.lora.targets) == (8, ("q", "k", "v", "o"))
        assert recipe.streams[0].similarity_temperature == 0.05
        assert len(recipe.data.hub) == 15
    assert load_recipe("m-st5-cross-lingual").streams[0].cross_lingual == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sede = 3\n" + SMALL, "sede: unknown key; did you mean 'seed'?"),
        (SMALL + "batchsize = 3\n", "streams.0.batchsize: unknown key; did you mean 'batch_size'?"),
        (SMALL + "[lora]\nranks = 3\n", "lora.ranks: unknown key; did you mean 'rank'?"),
        (SMALL + "[training]\nlr = 3\n", "training.lr: unknown key; known: checkpoint_every, "),
        (SMALL + "[training]\nlearning_rat = 3\n", "training.learning_rat: unknown key; did you mean 'learning_rate'?"),
        (SMALL + "[data]\nfile = 3\n", "data.file: unknown key; did you mean 'files'?"),
        (
            SMALL + '[[data.hub]]\nname = "a/b"\ntask = "nli"\nsplits = "x"\n',
            "data.hub.0.splits: unknown key; did you mean",
        ),
        (SMALL + '[training]\nsteps = "many"\n', "training.steps: Input should be a valid integer"),
        (SMALL + "[training]\nsteps = 0\n", "training.steps: Input should be greater than or equal to 1 (it is 0)"),
        (SMALL + '[training]\nschedule = "step"\n', "training.schedule: Input should be 'linear', 'cosine'"),
        (SMALL + "[training]\nmatryoshka = [64, 128]\n", "training.matryoshka must fall"),
        (SMALL + "[data]\ndev_share = 0\n[training]\nevaluate_every = 10\n", "needs a dev split"),
        (SMALL + "[training]\npatience = 2\n", "checkpoint_every must be a multiple of evaluate_every"),
        (SMALL + "[training]\npatience = 2\nevaluate_every = 30\n", "(they are 100 and 30)"),
        (
            'name = "r"\n[[streams]]\nobjective = "translate"\n',
            "streams.0.objective: Input should be 'retrieval', 'bitext'",
        ),
        ('name = "r"\nstreams = []\n', "a recipe needs [[streams]] to train on, or a [head] to fit"),
        ('name = "../r"\n[[streams]]\nobjective = "nli"\n', "name: String should match pattern"),
        ("seed = -1\n" + SMALL, "seed: Input should be greater than or equal to 0"),
        ("name = ", "not TOML"),
    ],
)
def test_a_mistake_is_named_with_what_was_meant(text: str, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "my.toml")
    assert str(caught.value).startswith("my.toml: ")
    assert words in str(caught.value)


def test_overrides_replace_values_at_any_depth() -> None:
    changes = {"seed": 3, "training.steps": 12, "lora.targets": ["q"], "data.limit": 5}
    recipe = parse_recipe(SMALL, "x", overrides=changes)
    assert (recipe.seed, recipe.training.steps, recipe.lora.targets, recipe.data.limit) == (3, 12, ("q",), 5)
    assert recipe.streams == parse_recipe(SMALL, "x").streams
    with pytest.raises(RecipeError, match="did you mean 'steps'"):
        parse_recipe(SMALL, "x", overrides={"training.step": 12})
    with pytest.raises(RecipeError, match="'streams' is a list"):
        parse_recipe(SMALL, "x", overrides={"streams.batch_size": 12})


def test_recipes_are_found_by_name_or_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL, "utf-8")
    assert load_recipe(str(path)) == Recipe.model_validate({"name": "r", "streams": [{"objective": "bitext"}]})
    with pytest.raises(RecipeError, match=r"no recipe 'tooy'\. Did you mean 'toy'\?"):
        load_recipe("tooy")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(str(tmp_path / "none.toml"))
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(str(path))


def test_a_recipe_without_a_kind_is_dense_or_of_its_rerank_streams() -> None:
    reranker = 'name = "r"\n[[streams]]\nobjective = "rerank"\nnegatives = 2\n'
    assert [parse_recipe(text, "x").kind for text in (SMALL, reranker)] == [Kind.DENSE, Kind.RERANK]
    kinds = {name: load_recipe(name).kind for name in ("toy", "rerank-e5-small", "late-e5-small", "sparse-e5-small")}
    assert list(kinds.values()) == list(Kind)
    for text in (SMALL, reranker):
        wrong = "dense" if text is reranker else "rerank"
        with pytest.raises(RecipeError, match="need a recipe each"):
            parse_recipe(f'kind = "{wrong}"\n{text}', "x")
