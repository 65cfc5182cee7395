"""Dense, late-interaction and learned sparse encoders side by side: what each finds, and what a passage takes.

    python -m benchmarks.variants --eval EVAL --encoders dense=panlingua-e5-small late=FOLDER sparse=FOLDER
        [--sets debian-faq tquad-dev] [--limit 200]

EVAL is a folder of evaluation sets in BEIR form. Every query is scored against every document, of all languages at
once: dense and sparse vectors by their dot product, token vectors by the mean over the query's tokens of the best
cosine to a token of the document. `late=` also takes an encoder that was not trained for it: its token vectors are then
those that the engine reranks with, all of the same weight. A row per set and encoder goes to results/variants.jsonl.

`active` is the median number of values of a passage that are not 0, over all of its vectors. `bytes_per_passage` is the
mean, at 2 bytes a value and, in sparse vectors, 2 more for its place; indexes, and codes of fewer bits, are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.records import describe_run, write_rows
from search.encoder import load_encoder
from search.encoder.manifest import read_model_type
from search.records import Vectors
from search.settings import Settings, load_settings
from training.evaluate_command import choose_sets
from training.evaluation.retrieval import score_retrieval
from training.evaluation.sets import RetrievalSet, load_set
from training.run import is_bfloat16

SETS = ("debian-faq", "tquad-dev", "arcd-test", "amqa-test")
METRICS = ("map@100", "ndcg@10", "own@10", "own_expected")
DENSE, LATE, SPARSE = "dense", "late", "sparse"
BYTES = 2
"""Of a value, and of the place of a value in a sparse vector."""
BATCH = 16


class Variant(NamedTuple):
    """An encoder, how it is to be used, and its built-in name, folder or hub id."""

    kind: str
    place: str

    @property
    def name(self) -> str:
        """How it is called in the rows: the last part of a path."""
        return Path(self.place).name


class Judged(NamedTuple):
    """Scores (Q, N) of queries and documents, how many values of each document are not 0 (N,), and the dimension."""

    scores: Vectors
    active: np.ndarray[tuple[int], np.dtype[np.int64]]
    dimension: int


def parse_variant(text: str) -> Variant:
    """A variant from `kind=place`.

    Raises:
        ArgumentTypeError: It is something else.
    """
    kind, _, place = text.partition("=")
    if kind not in (DENSE, LATE, SPARSE) or not place:
        raise argparse.ArgumentTypeError(f"{text!r}: dense=, late= or sparse= is expected before a name or folder")
    return Variant(kind, place)


def judge(variant: Variant, queries: Sequence[str], documents: Sequence[str], settings: Settings) -> Judged:
    """Encode both sides and score every query against every document.

    Args:
        variant: The encoder.
        queries: Q texts.
        documents: N texts.
        settings: Where encoders are kept, and with how many threads they run.
    """
    if variant.kind == SPARSE:
        from sentence_transformers import SparseEncoder

        first, second = _encode(SparseEncoder(variant.place, local_files_only=True), queries, documents, settings)
        return judge_vectors(np.stack(first), np.stack(second))
    if variant.kind == LATE and read_model_type(Path(variant.place)) == "MultiVectorEncoder":
        from sentence_transformers import MultiVectorEncoder

        return judge_tokens(
            *_encode(MultiVectorEncoder(variant.place, local_files_only=True), queries, documents, settings)
        )
    encoder = load_encoder(
        variant.place, backend=settings.backend, threads=settings.threads, cache_dir=settings.encoders_folder
    )
    if variant.kind == DENSE:
        return judge_vectors(encoder.encode_queries(queries), encoder.encode_documents(documents))
    tokens = encoder.encode_query_tokens(queries), encoder.encode_document_tokens(documents)
    return judge_tokens(*([text.vectors for text in side] for side in tokens))


def _encode(
    model: Any, queries: Sequence[str], documents: Sequence[str], settings: Settings
) -> tuple[list[Vectors], list[Vectors]]:
    """Vectors of both sides with a model of sentence-transformers, in bfloat16 where that is what it was trained in."""
    import torch

    if settings.threads:
        torch.set_num_threads(settings.threads)
    sparse = {"convert_to_sparse_tensor": False} if hasattr(model, "max_active_dims") else {}
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=is_bfloat16("auto")):
        first = model.encode_query(list(queries), batch_size=BATCH, **sparse)
        second = model.encode_document(list(documents), batch_size=BATCH, **sparse)
    return [each.float().cpu().numpy() for each in first], [each.float().cpu().numpy() for each in second]


def judge_vectors(queries: Vectors, documents: Vectors) -> Judged:
    """Vectors (Q, D) and (N, D), by their dot product.

    Worked: documents (1, 0, 0) and (0.6, 0.8, 0) have 1 and 2 values that are not 0; query (0, 1, 0): scores 0 and 0.8.
    """
    return Judged(queries @ documents.T, np.count_nonzero(documents, axis=1), documents.shape[1])


def judge_tokens(queries: Sequence[Vectors], documents: Sequence[Vectors]) -> Judged:
    """Vectors of tokens (L, D) of each text, of unit length, by the mean over the query's of the best cosine.

    Worked: query (1, 0), (0, 1) and document (1, 0), (0.6, 0.8) score (1 + 0.8) / 2 = 0.9; the document has 4 values.
    """
    from sentence_transformers.util.similarity import maxsim

    scores = maxsim(list(queries), list(documents), length_normalize=True)
    active = np.array([np.count_nonzero(tokens) for tokens in documents])
    return Judged(np.asarray(scores.numpy(), np.float32), active, documents[0].shape[1])


def size(kind: str, judged: Judged) -> dict[str, object]:
    """What a passage takes; see the head of this file."""
    each = BYTES * (2 if kind == SPARSE else 1)
    return {
        "dimension": judged.dimension, "active": float(np.median(judged.active)),
        "bytes_per_passage": round(each * float(judged.active.mean())),
    }  # fmt: skip


def measure(variant: Variant, evaluated: RetrievalSet, settings: Settings) -> dict[str, object]:
    """The row of an encoder and a set."""
    started = time.perf_counter()
    texts = [query.text for query in evaluated.queries], [document.text for document in evaluated.documents]
    judged = judge(variant, *texts, settings)
    # Its dot products with the rows of the identity are the scores themselves.
    found = score_retrieval(evaluated, judged.scores, np.eye(len(evaluated.documents), dtype=np.float32))
    return {
        "set": evaluated.name, "kind": variant.kind, "encoder": variant.name,
        "queries": len(evaluated.queries), "documents": len(evaluated.documents),
        **{name: float(np.nanmean(found.values[name])) for name in METRICS},
        **size(variant.kind, judged), "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def main() -> None:
    """Measure every encoder on every set and write results/variants.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--eval", type=Path, required=True, help="folder of evaluation sets")
    parser.add_argument("--encoders", nargs="+", type=parse_variant, required=True, help="dense=, late= or sparse=")
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--limit", type=int, default=None, help="at most so many queries of each set")
    arguments = parser.parse_args()
    settings = load_settings()
    named = " ".join(f"{variant.kind}={variant.name}" for variant in arguments.encoders)
    limit = f" --limit {arguments.limit}" if arguments.limit else ""
    run = describe_run(f"python -m benchmarks.variants --eval EVAL --encoders {named}{limit}")
    for folder in choose_sets(arguments.eval, arguments.sets, needed=True):
        evaluated = load_set(folder, arguments.limit)
        if not isinstance(evaluated, RetrievalSet):
            parser.error(f"--sets: {folder.name} is not a set of retrieval (corpus, queries and qrels.tsv)")
        for variant in arguments.encoders:
            row = measure(variant, evaluated, settings)
            print(json.dumps(row, ensure_ascii=False), flush=True)
            write_rows("variants", run, [row])


if __name__ == "__main__":
    main()
