"""One training run: data, batches, losses, steps, and everything needed to repeat or resume it.

A run is a folder: `recipe.toml` (resolved), `run.json` (seed, versions, data), `metrics.jsonl`, `checkpoints/`,
`adapter/` (the last one, or the best on the dev split), `curves.png`. Steps are those of sentence-transformers'
trainer; what is ours is which rows meet in a batch (`training.mixture`) and the language-neutral teacher
(`training.neutral`).
"""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import TrainingError
from training.losses import build_loss
from training.mixture import Batch
from training.model import count_processes, peak_memory
from training.neutral import mean_direction
from training.recipe import Kind, Objective, Recipe, Stream

if TYPE_CHECKING:
    from datasets import DatasetDict

    from training.model import Model

CHECKPOINTS = "checkpoints"
METRICS = "metrics.jsonl"
DEV_METRICS = {
    Kind.DENSE: "eval_dev_cosine_map@100", Kind.RERANK: "eval_dev_map",
    Kind.MULTI_VECTOR: "eval_dev_meanmaxsim_map@100", Kind.SPARSE: "eval_dev_dot_map@100",
}  # fmt: skip
CERTAIN = 10.0
"""Label of a reranker's right document; the loss takes the softmax of the labels, which gives it all but 0.02 %."""
FULL_DISK = (
    "os error 28",
    "No space left on device",
    "PytorchStreamWriter failed writing",
    "enforce fail at inline_container",
)
"""What safetensors and torch say when a write fails for want of room."""


@dataclass(frozen=True)
class PlannedData:
    """Batches as datasets of equal columns, with the order in which they are seen.

    Attributes:
        datasets: Rows of the batches, one dataset per stream and set of columns.
        order: (dataset, first row, last row + 1) of each step.
        streams: Stream of each dataset.
        prompts: Prompt of each column, by dataset.
    """

    datasets: DatasetDict
    order: tuple[tuple[str, int, int], ...]
    streams: Mapping[str, Stream]
    prompts: Mapping[str, dict[str, str]]


def lay_out(batches: Sequence[Batch], recipe: Recipe, teacher: Mapping[tuple[str, str], Any] | None) -> PlannedData:
    """Batches as the trainer takes them.

    Args:
        batches: Planned batches.
        recipe: Gives streams and prompts.
        teacher: Vector (D,) of each (text, kind) of the neutral and parallel streams.
    """
    from datasets import Dataset, DatasetDict

    columns: dict[str, dict[str, list[Any]]] = {}
    order: list[tuple[str, int, int]] = []
    streams: dict[str, Stream] = {}
    prompts: dict[str, dict[str, str]] = {}
    for batch in batches:
        stream = recipe.streams[batch.stream]
        names, rows, prompt = _columns(batch, stream, recipe, teacher)
        key = f"{batch.stream}-{stream.objective}-{'-'.join(names[2:]) or 'pair'}{'-' + prompt[1] if prompt[1] else ''}"
        table = columns.setdefault(key, {name: [] for name in names})
        start = len(table[names[0]])
        for name, values in zip(names, zip(*rows, strict=True), strict=True):
            table[name].extend(values)
        order.append((key, start, start + len(rows)))
        streams[key], prompts[key] = stream, prompt[0]
    return PlannedData(
        DatasetDict({key: Dataset.from_dict(table) for key, table in columns.items()}), tuple(order), streams, prompts
    )


def _columns(
    batch: Batch, stream: Stream, recipe: Recipe, teacher: Mapping[tuple[str, str], Any] | None
) -> tuple[tuple[str, ...], Sequence[tuple[Any, ...]], tuple[dict[str, str], str]]:
    query, document = recipe.query_prompt, recipe.document_prompt
    match stream.objective:
        case Objective.NEUTRAL | Objective.PARALLEL:
            kind, known, names = str(batch.rows[0][-1]), teacher or {}, batch.columns[:-1]
            rows = [(*row, mean_direction([known[str(text), kind] for text in row])) for *row, _ in batch.rows]
            return (*names, "label"), rows, (dict.fromkeys(names, query if kind == "query" else document), kind)
        case Objective.RERANK:
            return ("query", "documents", "label"), _lists(batch, stream.in_batch), ({}, "")
        case Objective.RETRIEVAL:
            texts = dict.fromkeys(batch.columns, document) | {"anchor": query}
            return batch.columns, batch.rows, (texts, "")
        case _:
            return batch.columns, batch.rows, (dict.fromkeys(batch.columns, query), "")


def _lists(batch: Batch, in_batch: int) -> list[tuple[str, list[str], list[float]]]:
    """Each query with its document, its negatives and documents of the rows after it, and which one is right."""
    rows = [[str(text) for text in row] for row in batch.rows]
    lists = []
    for place, (query, *documents) in enumerate(rows):
        others = [rows[(place + step) % len(rows)][1] for step in range(1, min(in_batch, len(rows) - 1) + 1)]
        shown = list(dict.fromkeys([*documents, *others]))
        lists.append((query, shown, [CERTAIN] + [0.0] * (len(shown) - 1)))
    return lists


def train(
    model: Model, data: PlannedData, recipe: Recipe, folder: Path, *,
    evaluator: Any = None, resume: bool = False, callbacks: Sequence[Any] = (),
    progress: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:  # fmt: skip
    """Make the steps; the model is changed in place.

    Args:
        model: Model, with its adapter where the recipe asks for one.
        data: Planned batches.
        recipe: How to train.
        folder: Where checkpoints and metrics go.
        evaluator: Evaluator on the dev split, where `evaluate_every` asks for it.
        resume: Go on from the last whole checkpoint in the folder.
        callbacks: Further callbacks of the trainer.
        progress: Called with each line of metrics.

    Raises:
        TrainingError: The loss is not finite, memory or disk ran out; checkpoints are kept.
    """
    import torch

    trainer = _build_trainer(model, data, recipe, folder, evaluator, progress)
    for callback in callbacks:
        trainer.add_callback(callback)
    checkpoint = last_checkpoint(folder / CHECKPOINTS) if resume else None
    if resume and trainer.is_world_process_zero():
        _forget_after(folder / METRICS, int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0)
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise TrainingError(
            f"out of memory after step {trainer.state.global_step}. Lower `batch_size` or `max_tokens`, or set "
            f"`training.mini_batch` (GradCache), then run again with --resume. ({str(error).partition(chr(10))[0]})"
        ) from error
    except Exception as error:
        if not _is_disk_full(error):
            raise
        raise TrainingError(
            f"no space left in {folder} after step {trainer.state.global_step}. Free some space, then run again with "
            "--resume."
        ) from error


def _forget_after(path: Path, step: int) -> None:
    """Take the metrics of steps out that are made again."""
    if path.is_file():
        kept = [line for line in path.read_text("utf-8").splitlines(keepends=True) if _step_of(line) <= step]
        temporary = path.with_suffix(".part")
        temporary.write_text("".join(kept), "utf-8")
        temporary.replace(path)


def _step_of(line: str) -> float:
    """The step of a line of metrics; infinity of one that was cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf


def _is_disk_full(error: Exception) -> bool:
    """Whether a write failed for want of room."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return full or any(words in str(error) for words in FULL_DISK)


@contextmanager
def quiet_training() -> Iterator[None]:
    """Within this, the libraries' progress bars and notices keep off the terminal."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    yield


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; half-written ones are passed over."""
    found = sorted(
        (path for path in folder.glob("checkpoint-*") if path.name[11:].isdecimal()),
        key=lambda path: int(path.name.rpartition("-")[2]),
    )
    for path in reversed(found):
        try:
            state = json.loads((path / "trainer_state.json").read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if "global_step" in state and (path / "optimizer.pt").is_file() and _are_whole(path.rglob("*.safetensors")):
            return path
    return None


def _are_whole(files: Iterable[Path]) -> bool:
    """Whether all weights that the headers of these files promise are in them."""
    from safetensors import SafetensorError, safe_open

    for path in files:
        try:
            with safe_open(path, "np"):
                pass
        except (OSError, SafetensorError):
            return False
    return True


def is_bfloat16(precision: str) -> bool:
    """Whether to compute in bfloat16: where asked, or by itself on GPUs and CPUs that have it in hardware."""
    import torch

    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def _build_trainer(model: Model, data: PlannedData, recipe: Recipe, folder: Path, evaluator: Any, progress: Any) -> Any:
    from transformers import EarlyStoppingCallback, PrinterCallback

    callbacks: list[Any] = [_metrics_callback(folder / METRICS, progress)]
    if recipe.training.patience and evaluator:
        callbacks.append(EarlyStoppingCallback(early_stopping_patience=recipe.training.patience))
    trainer = _trainer_class(data, recipe.kind)(
        model=model,
        args=_arguments(recipe, folder, data, evaluator, model.device.type),
        train_dataset=data.datasets,
        loss={key: build_loss(model, stream, recipe) for key, stream in data.streams.items()},
        evaluator=evaluator,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)  # it prints to stdout, where --json has its lines
    return trainer


def _arguments(recipe: Recipe, folder: Path, data: PlannedData, evaluator: Any, model_device: str) -> Any:
    options = recipe.training
    saving: dict[str, Any] = {"gradient_checkpointing": True} if options.gradient_checkpointing else {}
    evaluates = evaluator is not None and options.evaluate_every > 0
    if any(data.prompts.values()):
        saving["prompts"] = dict(data.prompts)
    return _of_library(recipe.kind, "TrainingArguments")(
        output_dir=str(folder / CHECKPOINTS),
        max_steps=len(data.order),
        num_train_epochs=1,
        learning_rate=options.learning_rate,
        warmup_steps=math.ceil(options.warmup_share * len(data.order)),
        lr_scheduler_type=options.schedule,
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_gradient_norm,
        use_cpu=model_device == "cpu",
        bf16=is_bfloat16(options.precision),
        per_device_train_batch_size=max(stream.batch_size for stream in recipe.streams),
        seed=recipe.seed,
        logging_steps=5,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=options.checkpoint_every,
        save_total_limit=options.keep_checkpoints,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=options.evaluate_every or None,
        load_best_model_at_end=evaluates and options.checkpoint_every % options.evaluate_every == 0,
        metric_for_best_model=DEV_METRICS[recipe.kind] if evaluates else None,
        dataloader_pin_memory=False,
        report_to=[],
        disable_tqdm=True,
        **saving,
    )


def _of_library(kind: Kind, what: str) -> Any:
    """The library's `Trainer` or `TrainingArguments` of a kind of model."""
    import sentence_transformers

    models = {
        Kind.DENSE: "SentenceTransformer", Kind.RERANK: "CrossEncoder", Kind.MULTI_VECTOR: "MultiVectorEncoder",
        Kind.SPARSE: "SparseEncoder",
    }  # fmt: skip
    return getattr(sentence_transformers, models[kind] + what)


def _trainer_class(data: PlannedData, kind: Kind) -> Any:
    import torch
    from sentence_transformers.base.sampler import MultiDatasetDefaultBatchSampler

    order, names = data.order, list(data.datasets)
    base: Any = _of_library(kind, "Trainer")

    class PlannedOrder(MultiDatasetDefaultBatchSampler):
        """The batches as planned, in order; `names` are the datasets', in the order of their concatenation.

        Of several processes, each is given its slice of every batch: slices follow each other, and the trainer deals
        them out in turn.
        """

        names: Sequence[str] = ()

        def __iter__(self) -> Iterator[list[int]]:
            offsets = dict(zip(self.names, [0, *self.dataset.cumulative_sizes], strict=False))
            processes = count_processes()
            for key, start, stop in order:
                rows = range(offsets[key] + start, offsets[key] + stop)
                size = max(len(rows) // processes, 1)
                for place in range(processes):
                    yield list(rows[place * size : (place + 1) * size] or rows[:size])

        def __len__(self) -> int:
            return len(order) * count_processes()

    class CheckedTrainer(base):  # type: ignore[misc]  # one of four
        """Takes the batches as planned; stops at the first loss that is not a number, while the weights are good."""

        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """None: a run is described by its own files."""

        def get_multi_dataset_batch_sampler(
            self, dataset: Any, batch_samplers: Any, generator: Any = None, seed: int | None = 0
        ) -> Any:
            sampler = PlannedOrder(dataset, batch_samplers, generator, seed or 0)
            sampler.names = names
            sampler.batch_size = None  # type: ignore[assignment]  # batches differ in size
            return sampler

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            name = inputs.get("dataset_name", "")
            result = super().compute_loss(model, inputs, *args, **kwargs)
            loss = result[0] if isinstance(result, tuple) else result
            if not torch.isfinite(loss).all():
                raise TrainingError(
                    f"the loss is {float(loss.detach())} at step {self.state.global_step + 1} (stream {name}). Lower "
                    "`training.learning_rate` or raise `similarity_temperature`; --resume goes on from the last "
                    "checkpoint."
                )
            weight = data.streams[name].loss_weight
            return (loss * weight, result[1]) if isinstance(result, tuple) else loss * weight

    return CheckedTrainer


def _metrics_callback(path: Path, progress: Callable[[Mapping[str, Any]], None] | None) -> Any:
    from transformers import TrainerCallback

    class MetricsCallback(TrainerCallback):
        """Each line of the trainer's log as a line of JSON."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            record = {"step": state.global_step, "of": state.max_steps, **(logs or {})}
            if "train_runtime" in record:
                record["peak_bytes"] = peak_memory()
            if state.is_world_process_zero:
                with path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                if progress:
                    progress(record)

    return MetricsCallback()
