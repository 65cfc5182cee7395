"""Training runs from data to an exported encoder, on a tiny random network."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search.encoder import load_encoder
from search.encoder.loading import whole_address
from search.errors import RecipeError, TrainingDataError, TrainingError
from training.export import average_adapters, export_encoder
from training.outputs import hold_folder
from training.pipeline import RunOptions, run_recipe
from training.recipe import Recipe, load_recipe, parse_recipe
from training.run import last_checkpoint
from training.static import write_static

WORDS = {
    "en": ["dog", "cat", "tree", "river", "stone", "bread", "moon", "house"],
    "ar": ["كلب", "قطة", "شجرة", "نهر", "حجر", "خبز", "قمر", "بيت"],
    "hi": ["कुत्ता", "बिल्ली", "पेड़", "नदी", "पत्थर", "रोटी", "चाँद", "घर"],
    "zh": ["狗", "猫", "树", "河", "石头", "面包", "月亮", "房子"],
}
PROBES = ["dog moon", "كلب قمر", "कुत्ता चाँद", "狗 月亮", "house river tree"]
ROOT = Path(__file__).parents[2]


def write_data(folder: Path) -> Path:
    """Retrieval rows of 56 documents in four scripts, and bitext, NLI, STS and labelled rows."""
    folder.mkdir()
    pairs = [(first, second) for first in range(8) for second in range(8) if first != second]
    rows: list[dict[str, Any]] = []
    for number, (first, second) in enumerate(pairs):
        for lang, words in WORDS.items():
            text = f"{words[first]} {words[second]} {words[first]}"
            query = f"{words[first]} {words[second]}"
            rows.append({"task": "retrieval", "dataset": "made", "query": query, "positive": text, "lang_query": lang,
                         "lang_doc": lang, "doc_id": str(number)})  # fmt: skip
        texts = [f"{words[second]} {words[first]} {words[second]}" for words in WORDS.values()]
        rows.append({"task": "bitext", "dataset": "made-bitext", "langs": list(WORDS), "texts": texts})
    for number, (first, second) in enumerate(pairs[:30]):
        a, b, c = (WORDS["en"][place] for place in (first, second, (first + second) % 8))
        nli = {"anchor": f"{a} {b}", "positive": f"{b} {a} {a}", "negative": f"{c} {c} {a}"}
        rows.append({"task": "nli", "dataset": "made-nli", "lang": "en", **nli})
        sts = {"langs": ["en", "en"], "text_a": f"{a} {a} {b} {b}", "text_b": f"{b} {b} {c}", "score": number % 6}
        rows.append({"task": "sts", "dataset": "made-sts", **sts})
        rows.append(
            {"task": "classification", "dataset": "made-labels", "lang": "en", "text": f"{a} {b} {c}", "label": a}
        )
    with gzip.open(folder / "made.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return folder


def save_plain(folder: Path, kind: str = "bert") -> Path:
    """A random transformer of 32 dimensions with a word tokenizer, as transformers saves it: no `modules.json`."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, MT5Config, MT5EncoderModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    known = ["<pad>", "</s>", "<unk>", "query:", "passage:", *(word for words in WORDS.values() for word in words)]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(known)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
    if kind == "mt5":
        shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2}
        MT5EncoderModel(MT5Config(vocab_size=len(known), dropout_rate=0.0, **shape)).save_pretrained(folder)
    else:
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        config = BertConfig(vocab_size=len(known), max_position_embeddings=64, initializer_range=0.2, **shape)
        BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "rows")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    folder = tmp_path_factory.mktemp("base") / "tiny"
    modules = [Transformer(str(save_plain(folder.with_name("plain")))), Pooling(32, pooling_mode="mean"), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"query": "query: ", "document": "passage: "}, device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


def make_recipe(base: Path, **overrides: Any) -> Recipe:
    """The shipped toy recipe on the tiny base, in float32."""
    return load_recipe("toy", overrides={"base": str(base), "training.precision": "float32", **overrides})


def run(recipe: Recipe, data: Path, cache: Path, out: Path, **options: Any) -> tuple[Path, list[Mapping[str, Any]]]:
    """Run folder and the lines of metrics."""
    progress = options.pop("progress", None)
    lines: list[Mapping[str, Any]] = []

    def keep(record: Mapping[str, Any]) -> None:
        lines.append(record)
        if progress:
            progress(record)

    given = RunOptions(data=data, out=out, encoders=cache, device="cpu", backend="torch", threads=1, **options)
    run_recipe(recipe, given, report=lambda _: None, progress=keep)
    return out, lines


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return load_file(folder / "adapter_model.safetensors")


def same_weights(first: Path, second: Path) -> None:
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


@pytest.fixture(scope="module")
def finished(
    base: Path, data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Mapping[str, Any]]]:
    return run(make_recipe(base), data, cache, tmp_path_factory.mktemp("runs") / "toy")


def test_loss_falls_and_the_run_folder_holds_everything_about_it(
    finished: tuple[Path, list[Mapping[str, Any]]], base: Path
) -> None:
    folder, lines = finished
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:2])
    assert load_recipe(str(folder / "recipe.toml")) == make_recipe(base)
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert record["seed"] == 7
    assert record["data"]["texts"]["retrieval"].keys() == set(WORDS)
    assert record["trained_parameters"] < record["parameters"]
    assert len((folder / "metrics.jsonl").read_text("utf-8").splitlines()) == len(lines)
    assert any("eval_dev_cosine_map@100" in line for line in lines)
    assert lines[-1]["peak_bytes"] > lines[-1]["train_runtime"] > 0
    assert (folder / "adapter" / "adapter_model.safetensors").is_file()
    assert (folder / "curves.png").stat().st_size > 10_000


def test_checkpoints_hold_the_adapter_and_not_the_base(
    finished: tuple[Path, list[Mapping[str, Any]]], base: Path
) -> None:
    kept = sorted((finished[0] / "checkpoints").glob("checkpoint-*"))
    assert 1 <= len(kept) <= make_recipe(base).training.keep_checkpoints + 1
    assert not [path for folder in kept for path in folder.rglob("model.safetensors")]


def test_export_is_the_trained_model_for_us_and_for_sentence_transformers(
    finished: tuple[Path, list[Mapping[str, Any]]], base: Path, cache: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    recipe = make_recipe(base)
    record = json.loads((finished[0] / "run.json").read_text("utf-8"))
    out = export_encoder(finished[0] / "adapter", base, tmp_path / "encoder", recipe=recipe, run=record)
    ours = load_encoder(str(out), backend="torch", device="cpu", cache_dir=cache)
    theirs = SentenceTransformer(str(out), device="cpu")
    unmerged = SentenceTransformer(str(base), device="cpu")
    unmerged.load_adapter(str(finished[0] / "adapter"))
    expected = unmerged.encode(PROBES, prompt=recipe.query_prompt, normalize_embeddings=True)
    np.testing.assert_allclose(ours.encode_queries(PROBES), expected, atol=1e-5)
    np.testing.assert_allclose(theirs.encode(PROBES, prompt_name="query"), expected, atol=1e-5)
    changed = np.sum(
        SentenceTransformer(str(base), device="cpu").encode(PROBES, prompt_name="query") * expected, axis=1
    )
    assert changed.max() < 0.999
    described = json.loads((out / "panlingua.json").read_text("utf-8"))
    assert described["data_fingerprint"] == record["data"]["fingerprint"]
    with pytest.raises(TrainingError, match="is there already"):
        export_encoder(finished[0] / "adapter", base, out, recipe=recipe)


def test_a_checkpoint_exports_as_an_adapter_merged_not_as_a_copy(
    finished: tuple[Path, list[Mapping[str, Any]]], base: Path, tmp_path: Path
) -> None:
    checkpoint = max((finished[0] / "checkpoints").glob("checkpoint-*"))
    out = export_encoder(checkpoint, base, tmp_path / "encoder", recipe=make_recipe(base))
    assert (out / "model.safetensors").is_file()
    assert not list(out.glob("adapter_*")) + list(out.glob("optimizer.pt"))


def test_average_of_a_run_with_itself_is_the_run(
    finished: tuple[Path, list[Mapping[str, Any]]], base: Path, tmp_path: Path
) -> None:
    from search.encoder.adapters import load_updates

    adapter = finished[0] / "adapter"
    averaged = load_updates(average_adapters([adapter, adapter], tmp_path / "average"))
    for name, update in load_updates(adapter).items():
        np.testing.assert_allclose(averaged[name], update, atol=1e-6)


class Stopped(Exception):
    """Raised in the middle of a run, as by a power cut."""


def stop_at(step: int) -> Any:
    def progress(record: Mapping[str, Any]) -> None:
        if record["step"] >= step:
            raise Stopped

    return progress


RESUMED = {"training.evaluate_every": 0, "training.steps": 24, "training.checkpoint_every": 8}


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    base: Path, data: Path, cache: Path, tmp_path: Path, dropout: float
) -> None:
    recipe = make_recipe(base, **RESUMED, **{"training.dropout": dropout, "lora.dropout": dropout})
    whole, _ = run(recipe, data, cache, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(recipe, data, cache, tmp_path / "stopped", progress=stop_at(10))
    resumed, lines = run(recipe, data, cache, tmp_path / "stopped", resume=True)
    assert lines[0]["step"] == 10
    same_weights(whole / "adapter", resumed / "adapter")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_run_is_resumed(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    recipe = make_recipe(base, **RESUMED)
    code = f"""
import os, signal
from pathlib import Path
from training.pipeline import RunOptions, run_recipe
from training.recipe import load_recipe
recipe = load_recipe("toy", overrides={ {"base": str(base), "training.precision": "float32", **RESUMED}!r})
options = RunOptions(data=Path({str(data)!r}), out=Path({str(tmp_path / "killed")!r}), encoders=Path({str(cache)!r}),
                     device="cpu", backend="torch", threads=1)
def die(record):
    if record["step"] >= 20:
        os.kill(os.getpid(), signal.SIGKILL)
run_recipe(recipe, options, report=lambda _: None, progress=die)
"""
    killed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    whole, _ = run(recipe, data, cache, tmp_path / "whole")
    metrics = tmp_path / "killed" / "metrics.jsonl"
    with metrics.open("a", encoding="utf-8") as file:
        file.write('{"step": 2')  # cut off while it was written
    resumed, _ = run(recipe, data, cache, tmp_path / "killed", resume=True)
    same_weights(whole / "adapter", resumed / "adapter")
    steps = [json.loads(line)["step"] for line in metrics.read_text("utf-8").splitlines()]
    assert steps == [json.loads(line)["step"] for line in (whole / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert 20 in steps


def test_a_run_is_not_overwritten_and_not_mixed_with_another(
    finished: tuple[Path, list[Mapping[str, Any]]], base: Path, data: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished[0], folder)
    with pytest.raises(TrainingError, match="--resume"):
        run(make_recipe(base), data, cache, folder)
    with pytest.raises(TrainingError, match="another recipe"):
        run(make_recipe(base, seed=8), data, cache, folder, resume=True)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    with gzip.open(data / "made.jsonl.gz", "rb") as file, gzip.open(fewer / "made.jsonl.gz", "wb") as kept:
        kept.writelines(list(file)[:-40])
    with pytest.raises(TrainingError, match="other data"):
        run(make_recipe(base), fewer, cache, folder, resume=True)


def test_a_loss_that_is_no_number_stops_the_run(
    base: Path, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers.sentence_transformer import losses

    original = losses.MultipleNegativesRankingLoss.forward
    calls: list[int] = []

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return original(self, *args, **kwargs) * (float("nan") if len(calls) > 6 else 1)

    monkeypatch.setattr(losses.MultipleNegativesRankingLoss, "forward", forward)
    with pytest.raises(TrainingError, match=r"loss is nan at step \d+ .*learning_rate"):
        run(make_recipe(base, **RESUMED), data, cache, tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/1"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_says_how_to_go_on(
    base: Path, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import torch

    recipe = make_recipe(base, **RESUMED)
    original = torch.save

    def save(content: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        if "checkpoint-16" in str(path) and "optimizer" in str(path):
            raise error
        original(content, path, *args, **kwargs)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(TrainingError, match=r"no space left .*--resume"):
        run(recipe, data, cache, tmp_path / "run")
    monkeypatch.undo()
    _, lines = run(recipe, data, cache, tmp_path / "run", resume=True)
    assert lines[0]["step"] == 10


def test_all_weights_are_trained_at_rank_0_and_exported(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    recipe = make_recipe(base, **RESUMED, **{"lora.rank": 0, "training.learning_rate": 1e-3})
    folder, lines = run(recipe, data, cache, tmp_path / "run")
    assert lines[-1]["step"] == 24
    out = export_encoder(folder / "adapter", base, tmp_path / "encoder", recipe=recipe)
    before = SentenceTransformer(str(base), device="cpu")
    after = SentenceTransformer(str(out), device="cpu")
    tables = [network.transformers_model.get_input_embeddings().weight for network in (before, after)]
    np.testing.assert_array_equal(*(table.detach().numpy() for table in tables))
    assert not np.allclose(before.encode(PROBES), after.encode(PROBES), atol=1e-3)
    ours = load_encoder(str(out), backend="torch", device="cpu", cache_dir=cache)
    np.testing.assert_allclose(ours.encode_queries(PROBES), after.encode(PROBES, prompt_name="query"), atol=1e-5)
    checkpoint = max((folder / "checkpoints").glob("checkpoint-*"))
    copied = export_encoder(checkpoint, base, tmp_path / "copied", recipe=recipe)
    assert not list(copied.glob("optimizer.pt")) + list(copied.glob("rng_state*"))


def test_training_goes_on_from_an_adapter(
    finished: tuple[Path, list[Mapping[str, Any]]], base: Path, data: Path, cache: Path, tmp_path: Path
) -> None:
    quick = {**RESUMED, "training.steps": 1, "training.learning_rate": 1e-12}
    folder, _ = run(make_recipe(base, **quick), data, cache, tmp_path / "on", adapter=finished[0] / "adapter")
    start, end = tensors(finished[0] / "adapter"), tensors(folder / "adapter")
    for name, value in start.items():
        np.testing.assert_allclose(end[name], value, atol=1e-6)
    smaller = make_recipe(base, **quick, **{"lora.rank": 2})
    with pytest.raises(TrainingError, match=r"\[lora\] must be the same"):
        run(smaller, data, cache, tmp_path / "other", adapter=finished[0] / "adapter")


ONE_STREAM = """
name = "one"
base = "%s"
[data]
dev_share = 0.2
[[streams]]
objective = "retrieval"
batch_size = 12
languages = 2
[lora]
rank = 4
alpha = 8.0
targets = ["query", "key", "value"]
[training]
steps = 6
max_tokens = 16
precision = "float32"
schedule = "constant_with_warmup"
warmup_share = 0.0
learning_rate = 1e-3
checkpoint_every = 6
"""


def one_stream(base: Path, **overrides: Any) -> Recipe:
    return parse_recipe(ONE_STREAM % base, "test", overrides=overrides)


@pytest.mark.parametrize(
    "change",
    [{"training.mini_batch": 5}, {"training.gradient_checkpointing": True}],
    ids=["GradCache", "gradient checkpointing"],
)
def test_memory_is_saved_without_changing_the_steps(
    base: Path, data: Path, cache: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    plain, lines = run(one_stream(base), data, cache, tmp_path / "plain")
    saving, other_lines = run(one_stream(base, **change), data, cache, tmp_path / "saving")
    assert lines[0]["loss"] == pytest.approx(other_lines[0]["loss"], rel=1e-3)
    assert lines[0]["grad_norm"] == pytest.approx(other_lines[0]["grad_norm"], rel=1e-2)
    one, other = tensors(plain / "adapter"), tensors(saving / "adapter")
    assert any(np.abs(value).max() > 1e-4 for name, value in other.items() if "lora_B" in name)
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=2e-4)


def test_matryoshka_dimensions_are_trained_and_checked(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    _, lines = run(one_stream(base, **{"training.matryoshka": [32, 8]}), data, cache, tmp_path / "run")
    _, plain = run(one_stream(base), data, cache, tmp_path / "plain")
    assert lines[0]["loss"] > 1.1 * plain[0]["loss"]
    with pytest.raises(RecipeError, match="32 dimensions"):
        run(one_stream(base, **{"training.matryoshka": [64, 8]}), data, cache, tmp_path / "too-many")


def test_stopping_early_keeps_the_best_checkpoint(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    stopping = {
        "training.steps": 40, "training.evaluate_every": 2, "training.checkpoint_every": 2, "training.patience": 2,
        "training.keep_checkpoints": 1, "training.learning_rate": 0.5, "training.max_gradient_norm": 1000.0,
    }  # fmt: skip
    folder, lines = run(one_stream(base, **stopping), data, cache, tmp_path / "run")
    figures = {line["step"]: line["eval_dev_cosine_map@100"] for line in lines if "eval_dev_cosine_map@100" in line}
    assert max(figures) < 40
    best = max(figures, key=lambda step: (figures[step], -step))
    same_weights(folder / "adapter", folder / "checkpoints" / f"checkpoint-{best}")


def test_limits_of_the_base_are_checked(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="at most 64 tokens"):
        run(one_stream(base, **{"training.max_tokens": 65}), data, cache, tmp_path / "long")
    with pytest.raises(RecipeError, match=r"lora\.targets.*The base has: .*query"):
        run(one_stream(base, **{"lora.targets": ["nothing"]}), data, cache, tmp_path / "targets")
    with pytest.raises(RecipeError, match="layers 0 to 1"):
        run(one_stream(base, **{"lora.from_layer": 2}), data, cache, tmp_path / "layers")


def test_a_plain_mt5_is_pooled_trained_and_exported(data: Path, cache: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    from training.model import base_folder

    plain = save_plain(tmp_path / "mt5", "mt5")
    recipe = load_recipe(
        "m-st5",
        overrides={"base": str(plain), "data": {"dev_share": 0.0}, "training.precision": "float32", "training.steps": 4,
                   "training.checkpoint_every": 4, "training.max_tokens": 32, "training.mini_batch": 0},
    )  # fmt: skip
    folder, lines = run(recipe, data, cache, tmp_path / "run")
    assert np.isfinite(lines[0]["train_loss"])
    adapted = {name.split(".")[-3] for name in tensors(folder / "adapter")}
    assert adapted == {"q", "k", "v", "o"}
    out = export_encoder(
        folder / "adapter", base_folder(str(plain), cache), tmp_path / "encoder", recipe=recipe
    )  # fmt: skip
    model = SentenceTransformer(str(out), device="cpu")
    unmerged = SentenceTransformer(str(base_folder(str(plain), cache)), device="cpu")
    unmerged.load_adapter(str(folder / "adapter"))
    np.testing.assert_allclose(model.encode(PROBES), unmerged.encode(PROBES), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(model.encode(PROBES), axis=1), 1, atol=1e-5)


@pytest.mark.slow
def test_two_processes_make_the_steps_of_one(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from pathlib import Path
from training.pipeline import RunOptions, run_recipe
from training.recipe import load_recipe
recipe = load_recipe({str(tmp_path / "recipe.toml")!r})
options = RunOptions(data=Path({str(data)!r}), out=Path({str(tmp_path / "two")!r}), encoders=Path({str(cache)!r}),
                     device="cpu", backend="torch", threads=1)
run_recipe(recipe, options)
""",
        "utf-8",
    )
    (tmp_path / "recipe.toml").write_text(ONE_STREAM % base, "utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(launcher, capture_output=True, check=False, env=environment, timeout=300)
    assert result.returncode == 0, result.stderr.decode()[-3000:]
    assert result.stdout.decode().count("6 steps") == 1
    alone, _ = run(one_stream(base), data, cache, tmp_path / "alone")
    one, two = tensors(alone / "adapter"), tensors(tmp_path / "two" / "adapter")
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=2e-3)


@pytest.fixture(scope="module")
def reranker(base: Path, data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recipe]:
    """A finished run of a cross-encoder: which of four documents answers?"""
    stream = {"objective": "rerank", "batch_size": 16, "cross_lingual": 0.0, "in_batch": 3}
    steps = {"training.steps": 300, "training.checkpoint_every": 100, "training.evaluate_every": 0}
    recipe = make_recipe(base, streams=[stream], **steps, **{"training.learning_rate": 0.01, "lora.rank": 16})
    return run(recipe, data, cache, tmp_path_factory.mktemp("reranker") / "run")[0], recipe


def test_a_trained_cross_encoder_puts_the_right_document_first(
    reranker: tuple[Path, Recipe], base: Path, tmp_path: Path
) -> None:
    from sentence_transformers import CrossEncoder

    from search.records import Chunk
    from search.rerank import load_cross_encoder

    folder, recipe = reranker
    out = export_encoder(folder / "adapter", base, tmp_path / "reranker", recipe=recipe)
    loaded = load_cross_encoder(str(out))
    right = 0
    for lang, words in WORDS.items():
        texts = [f"{words[5]} {words[place]} {words[5]}" for place in (0, 1, 2, 3)]
        chunks = [Chunk(f"{lang}{place}", 0, text) for place, text in enumerate(texts)]
        right += int(loaded.score(f"{words[5]} {words[2]}", chunks).argmax()) == 2
    assert right >= 3
    pairs = [(PROBES[0], PROBES[4]), (PROBES[2], PROBES[1])]
    scores = [loaded.score(query, [Chunk("a", 0, text)])[0] for query, text in pairs]
    np.testing.assert_allclose(CrossEncoder(str(out)).predict(pairs, activation_fn=_itself), scores, atol=1e-5)


def _itself(scores: Any) -> Any:
    return scores


def test_a_resumed_cross_encoder_ends_where_an_uninterrupted_one_does(
    reranker: tuple[Path, Recipe], data: Path, cache: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    folder, recipe = reranker
    with pytest.raises(Stopped):
        run(recipe, data, cache, tmp_path / "stopped", progress=stop_at(250))
    resumed, lines = run(recipe, data, cache, tmp_path / "stopped", resume=True)
    assert lines[0]["step"] > 200
    same_weights(folder / "adapter", resumed / "adapter")
    heads = [load_file(path / "adapter" / "2_Dense" / "model.safetensors") for path in (folder, resumed)]
    for name, value in heads[0].items():
        np.testing.assert_array_equal(value, heads[1][name])


@pytest.mark.parametrize(
    ("streams", "reason"),
    [
        ([{"objective": "rerank", "negatives": 1}, {"objective": "bitext"}], "need a recipe each"),
        ([{"objective": "rerank"}], "needs wrong documents"),
        ([{"objective": "rerank", "batch_size": 4, "in_batch": 4}], "has fewer others"),
    ],
)
def test_a_rerankers_recipe_is_checked(base: Path, streams: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        make_recipe(base, streams=streams)


def test_a_reranker_is_evaluated_on_mined_negatives_only(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    recipe = make_recipe(base, streams=[{"objective": "rerank", "in_batch": 3}], **{"training.evaluate_every": 10})
    with pytest.raises(TrainingDataError, match="training mine"):
        run(recipe, data, cache, tmp_path / "run")


def test_a_run_writes_alone_and_not_into_its_data(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    recipe = make_recipe(base)
    with hold_folder(tmp_path / "run"), pytest.raises(TrainingError, match="another process writes"):
        run(recipe, data, cache, tmp_path / "run")
    with pytest.raises(TrainingError, match="is inside"):
        run(recipe, data, cache, data)
    with pytest.raises(TrainingError, match="is inside"):
        run(make_recipe(base, **{"data.files": ["**/*.jsonl.gz"]}), data, cache, data / "run")
    assert [path.suffix for path in data.iterdir()] == [".gz"]


def test_a_damaged_checkpoint_is_passed_over(finished: tuple[Path, list[Any]], tmp_path: Path) -> None:
    shutil.copytree(finished[0] / "checkpoints", tmp_path / "checkpoints")
    newest = last_checkpoint(tmp_path / "checkpoints")
    assert newest is not None
    weights = newest / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    before = last_checkpoint(tmp_path / "checkpoints")
    assert before is None or before != newest


def test_averages_overwrite_nothing(finished: tuple[Path, list[Any]], tmp_path: Path) -> None:
    adapter = finished[0] / "adapter"
    weights = (adapter / "adapter_model.safetensors").read_bytes()
    with pytest.raises(TrainingError, match="is there already"):
        average_adapters([adapter, adapter], adapter)
    assert (adapter / "adapter_model.safetensors").read_bytes() == weights


def test_a_table_is_no_base_to_train(base: Path, data: Path, cache: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    write_static(np.ones((tokenizer.get_vocab_size(), 32), np.float32), tokenizer, tmp_path / "table", record={})
    with pytest.raises(TrainingError, match="without a network to train"):
        run(make_recipe(tmp_path / "table"), data, cache, tmp_path / "run")


@pytest.mark.parametrize("pattern", ["", "/data/*.jsonl"])
def test_patterns_are_below_the_data(base: Path, data: Path, cache: Path, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(TrainingDataError, match="is no pattern of files"):
        run(make_recipe(base, **{"data.files": [pattern]}), data, cache, tmp_path / "run")


def test_a_run_is_exported_from_any_folder(
    base: Path, data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(base.parent)
    folder, _ = run(make_recipe(Path(base.name), **RESUMED), data, cache, tmp_path / "run")
    assert load_recipe(str(folder / "recipe.toml")).base == str(base.resolve())
    (tmp_path / "multilingual-e5-small").mkdir()
    monkeypatch.chdir(tmp_path)
    assert whole_address("multilingual-e5-small") == "multilingual-e5-small"
    assert whole_address("run") == str((tmp_path / "run").resolve())
