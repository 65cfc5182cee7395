"""Tasks of the Massive Text Embedding Benchmark, run by its own package, for figures that others also publish.

Needs `mteb` and a connection to the Hugging Face hub for the tasks' data; neither is needed for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.errors import EvaluationError
from search.records import Vectors
from training.evaluation.vectors import TextEncoder

if TYPE_CHECKING:
    import torch
    from mteb import AbsTask
    from mteb.models.model_meta import ModelMeta

INSTALL = 'pip install "mteb>=2.26,<3"'
TEXTS_PER_BATCH = 2048


@dataclass(frozen=True, slots=True)
class MtebScore:
    """Main score of one split and subset of a task; the higher the better."""

    task: str
    metric: str
    split: str
    subset: str
    languages: tuple[str, ...]
    score: float


class MtebEncoder:
    """An encoder as mteb calls it: `mteb.EncoderProtocol`.

    Differs: documents get the document prompt, and everything else, symmetric tasks included, the query prompt.
    """

    def __init__(self, encoder: TextEncoder, meta: ModelMeta) -> None:
        self._encoder = encoder
        self.mteb_model_meta = meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Sequence[str]]],
        *,
        task_metadata: object,
        hf_split: str,
        hf_subset: str,
        prompt_type: str | None = None,
        **options: object,
    ) -> Vectors:
        """Vectors (B, D) of all batches together; of their columns, `text` counts."""
        texts = [text for batch in inputs for text in batch["text"]]
        if prompt_type == "document":
            return self._encoder.encode_documents(texts)
        return self._encoder.encode_queries(texts)

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> torch.Tensor:
        """Dot products of each with each."""
        import torch

        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> torch.Tensor:
        """Dot products row by row."""
        import torch

        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(dim=-1)


def run_mteb(
    encoder: TextEncoder, names: Sequence[str], *, progress: Callable[[str], None] | None = None
) -> list[MtebScore]:
    """Run tasks by name, one after the other.

    Args:
        encoder: Anything with the verbs of `search.encoder.Encoder`.
        names: As `mteb` calls them, such as `STS17` or `Tatoeba`.
        progress: Called with each name before it runs.

    Returns:
        The main score of every split and subset, in the order of `names`.

    Raises:
        EvaluationError: mteb is not installed, a name is unknown, or a task's data cannot be fetched.
    """
    tasks = [_task(name) for name in names]
    scores = []
    for task in tasks:
        if progress:
            progress(str(task.metadata.name))
        _load(task)
        scores += run_task(encoder, task)
        task.unload_data()
    return scores


def run_task(encoder: TextEncoder, task: AbsTask) -> list[MtebScore]:
    """Run one task of mteb, its data loaded or loadable."""
    mteb = _mteb()
    name = encoder.name.replace("/", "-").replace(" ", "-")
    meta = mteb.models.model_meta.ModelMeta.create_empty({"name": f"panlingua/{name}", "revision": encoder.fingerprint})
    found = mteb.evaluate(
        MtebEncoder(encoder, meta),
        task,
        cache=None,
        co2_tracker=False,
        encode_kwargs={"batch_size": TEXTS_PER_BATCH, "show_progress_bar": False},
        show_progress_bar=False,
    )
    return [
        MtebScore(
            task=result.task_name,
            metric=str(task.metadata.main_score),
            split=split,
            subset=row["hf_subset"],
            languages=tuple(row["languages"]),
            score=float(row["main_score"]),
        )
        for result in found.task_results
        for split, rows in result.scores.items()
        for row in rows
    ]


def _task(name: str) -> AbsTask:
    try:
        return _mteb().get_task(name)
    except KeyError as error:
        raise EvaluationError(f"mteb knows no task {name!r}: {error.args[0]}") from error


def _load(task: AbsTask) -> None:
    try:
        task.load_data()
    except Exception as error:  # the hub, its client and the datasets library each raise their own
        raise EvaluationError(
            f"mteb: the data of {task.metadata.name} cannot be loaded ({type(error).__name__}: {error!s:.200}). It "
            "comes from huggingface.co: connect, or point HF_HOME at a cache that holds it and set HF_HUB_OFFLINE=1."
        ) from error


def _mteb() -> Any:
    try:
        import mteb
        import mteb.models.model_meta
    except ImportError as error:
        raise EvaluationError(f"MTEB tasks need the package mteb ({error}): {INSTALL}") from error
    return mteb
