"""From a recipe to rows that may be trained on, and a dev split that no row of training has seen."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import TrainingDataError
from training.data.cleaning import CleaningReport, canonical_text, clean, text_keys
from training.data.loading import find_files, iter_good_rows, iter_hub_rows, iter_rows
from training.data.schema import BitextRow, RetrievalRow, Row, row_langs, row_texts
from training.data.statistics import DataStatistics, count_rows
from training.recipe import Data, HubData, Kind

if TYPE_CHECKING:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    from training.recipe import Recipe


@dataclass
class Prepared:
    """Rows to train on by dataset, rows held back for the dev split, and what was done to get them."""

    rows: dict[str, list[Row]]
    dev: list[RetrievalRow]
    cleaning: CleaningReport
    statistics: DataStatistics
    fingerprint: str
    skipped: Counter[str] = field(default_factory=Counter)


def prepare(data: Data, folder: Path, *, held_out: Path | None, seed: int) -> Prepared:
    """Read, check, clean, limit and split.

    The dev split takes whole families (a document with its translations), so that no translation of a dev document is
    trained on.

    Args:
        data: What to read.
        folder: Where the files lie.
        held_out: Folder of evaluation sets whose texts must not be trained on; none: nothing is held out.
        seed: Decides the limits and the split.

    Raises:
        TrainingDataError: Files are missing or rows are bad; nothing is left.
    """
    keys = text_keys(held_out) if held_out else frozenset()
    cleaning = CleaningReport()
    skipped: Counter[str] = Counter()
    sources = [_checked(path, data, skipped) for path in _files(data, folder)] + [_hub(each) for each in data.hub]
    rows: dict[str, list[Row]] = defaultdict(list)
    dev: list[RetrievalRow] = []
    digest = hashlib.sha256()
    for row in clean(chain.from_iterable(limit_rows(source, data, seed) for source in sources), keys, cleaning):
        digest.update(canonical_text("\0".join(row_texts(row))).encode("utf-8", "surrogatepass"))
        if isinstance(row, RetrievalRow) and fraction(row.family, seed) < data.dev_share:
            dev.append(row)
        else:
            rows[row.dataset].append(row)
    _drop_dev_texts(rows, dev)
    if not any(rows.values()):
        raise TrainingDataError(f"{folder}: no rows are left to train on; look at `files`, `languages` and `limit`.")
    statistics = count_rows(chain.from_iterable(rows.values()))
    return Prepared(dict(rows), dev, cleaning, statistics, digest.hexdigest()[:32], skipped)


def fraction(key: str, seed: int) -> float:
    """A number in [0, 1) that depends on the key and the seed only."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, salt=seed.to_bytes(8, "little"))
    return int.from_bytes(digest.digest()) / 2**64


def limit_rows(rows: Iterator[Row], data: Data, seed: int) -> Iterator[Row]:
    """Rows in the languages asked for; of each language (the first one of the row) at most `limit`, chosen by hash."""
    allowed = frozenset(data.languages)
    kept = (row for row in rows if not allowed or allowed.issuperset(row_langs(row)) or isinstance(row, BitextRow))
    if allowed:
        kept = (left for row in kept if (left := _restrict(row, allowed)))
    if not data.limit:
        return kept
    by_lang: dict[str, list[Row]] = defaultdict(list)
    for row in kept:
        by_lang[row_langs(row)[0]].append(row)
    return chain.from_iterable(
        sorted(members, key=lambda row: fraction(row_texts(row)[0], seed))[: data.limit] for members in by_lang.values()
    )


def _restrict(row: Row, allowed: frozenset[str]) -> Row | None:
    if not isinstance(row, BitextRow):
        return row
    kept = [(lang, text) for lang, text in zip(row.langs, row.texts, strict=True) if lang in allowed]
    if len(kept) < 2:
        return None
    langs, texts = zip(*kept, strict=True)
    return row.model_copy(update={"langs": langs, "texts": texts})


def _files(data: Data, folder: Path) -> list[Path]:
    if not data.files:
        return []
    found = find_files(folder, data.files)
    return [path for path in found if not any(fnmatch(path.name, pattern) for pattern in data.exclude)]


def _checked(path: Path, data: Data, skipped: Counter[str]) -> Iterator[Row]:
    """Rows of a file; bad ones raise, or are counted where the recipe says so."""
    if not data.skip_bad_rows:
        yield from iter_rows(path)
        return
    yield from iter_good_rows(path, skipped)


def _hub(source: HubData) -> Iterator[Row]:
    rows = iter_hub_rows(
        source.name, task=source.task, config=source.config, split=source.split, columns=source.columns,
        defaults=source.defaults, nli_pairs=source.nli_pairs,
    )  # fmt: skip
    for number, row in enumerate(rows, start=1):
        yield row
        if number == source.limit:
            return


def _drop_dev_texts(rows: dict[str, list[Row]], dev: Sequence[RetrievalRow]) -> None:
    """No row may hold a dev document or query: bitext of a handbook holds the sentences of its sections."""
    held = {canonical_text(text) for row in dev for text in (row.query, row.positive)}
    for name, members in rows.items():
        rows[name] = [row for row in members if held.isdisjoint(map(canonical_text, row_texts(row)))]


def build_reranking_evaluator(dev: Sequence[RetrievalRow], recipe: Recipe, *, batch_size: int = 32) -> Any:
    """Dev documents among their mined negatives; its primary metric is mAP.

    Raises:
        TrainingDataError: No row of the dev split has negatives.
    """
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    with_negatives = [row for row in dev if row.negatives]
    by_share = sorted(with_negatives, key=lambda row: fraction(row.query + row.lang_query, recipe.seed))
    chosen = by_share[: recipe.training.dev_queries]
    if not chosen:
        raise TrainingDataError(
            "no row of the dev split has negatives; mine them (`training mine`), raise `data.dev_share`, or set "
            "`training.evaluate_every` to 0."
        )
    samples: list[dict[str, str | list[str]]] = [
        {"query": row.query, "positive": [row.positive], "negative": list(row.negatives)} for row in chosen
    ]
    return CrossEncoderRerankingEvaluator(samples, batch_size=batch_size, name="dev", write_csv=False)


def build_evaluator(
    dev: Sequence[RetrievalRow], recipe: Recipe, *, batch_size: int = 32
) -> InformationRetrievalEvaluator:
    """Retrieval of dev documents from one pool of all languages, for the recipe's kind; its main metric is mAP@100.

    Every translation of a query's document is relevant; documents are those of the chosen queries' families.

    Raises:
        TrainingDataError: The dev split is empty.
    """
    from sentence_transformers.multi_vector_encoder.evaluation import MultiVectorInformationRetrievalEvaluator
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

    kinds: dict[Kind, Any] = {
        Kind.MULTI_VECTOR: MultiVectorInformationRetrievalEvaluator, Kind.SPARSE: SparseInformationRetrievalEvaluator
    }  # fmt: skip
    evaluator = kinds.get(recipe.kind, InformationRetrievalEvaluator)
    families: dict[str, list[RetrievalRow]] = defaultdict(list)
    for row in dev:
        families[row.family].append(row)
    by_share = sorted(dev, key=lambda row: fraction(row.query + row.lang_query, recipe.seed))
    chosen = by_share[: recipe.training.dev_queries]
    if not chosen:
        raise TrainingDataError("the dev split is empty; raise `data.dev_share` or set `training.evaluate_every` to 0.")
    queries: dict[str, Any] = {f"{row.lang_query}\t{row.query}": row.query for row in chosen}
    documents: dict[str, Any] = {}
    relevant: dict[str, set[str]] = {}
    for row in chosen:
        members = families[row.family]
        documents.update((_document_id(member), member.positive) for member in members)
        if len({member.lang_doc for member in members}) == 1:  # parts of one document, each with its own questions
            members = [row]
        relevant[f"{row.lang_query}\t{row.query}"] = {_document_id(member) for member in members}
    return evaluator(  # type: ignore[no-any-return]  # of one base
        queries, documents, relevant, map_at_k=[100],
        ndcg_at_k=[10], mrr_at_k=[10], accuracy_at_k=[1], precision_recall_at_k=[20], name="dev", batch_size=batch_size,
        query_prompt=recipe.query_prompt, corpus_prompt=recipe.document_prompt, write_csv=False,
        main_score_function="cosine" if recipe.kind is Kind.DENSE else None,
    )  # fmt: skip


def _document_id(row: RetrievalRow) -> str:
    text = f"{row.lang_doc}\t{row.positive}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
