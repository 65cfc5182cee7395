"""Evaluation sets: what they hold, how they are read from a folder, how they are cut down repeatably.

A folder holds one set, recognised by its file names (`.jsonl` or `.jsonl.gz`):

    corpus, queries and qrels.tsv            retrieval in BEIR form
    bitext                                   sentence pairs: `pair`, `langs`, `texts`
    sts                                      graded pairs: `langs`, `text_a`, `text_b`, `score`, `dataset`, `track`
    clustering, classification or intent     labelled texts: `lang`, `text`, `title`, `label`, `split`
    nli                                      pairs with a relation: `text_a`, `text_b`, `label`, `lang`, `dataset`
    reranking                                candidates to put in order: `lang`, `query`, `positives`, `negatives`
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from indexer.chunking import passage_text
from search.errors import EvaluationError
from search.evaluation.files import find_rows, iter_qrels, iter_rows
from search.records import Chunk

Qrels: TypeAlias = Mapping[str, Mapping[str, float]]
Row = TypeVar("Row")

LABELLED_FILES = ("clustering", "classification", "intent")
ENTAILMENT = "entailment"


@dataclass(frozen=True, slots=True)
class Document:
    """A passage; `text` is what is encoded, title included."""

    id: str
    lang: str
    text: str


@dataclass(frozen=True, slots=True)
class Query:
    """A judged query."""

    id: str
    lang: str
    text: str


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """Documents and queries, both by ascending id; `qrels` grades above 0 by query id and document id.

    `unjudged` counts the queries left out because nothing is relevant to them.
    """

    name: str
    documents: tuple[Document, ...]
    queries: tuple[Query, ...]
    qrels: Qrels
    unjudged: int = 0


@dataclass(frozen=True, slots=True)
class Translation:
    """A sentence and its translation; `pair` names the two languages as the set does."""

    pair: str
    langs: tuple[str, str]
    texts: tuple[str, str]


@dataclass(frozen=True, slots=True)
class BitextSet:
    """Sentence pairs in two languages."""

    name: str
    rows: tuple[Translation, ...]


@dataclass(frozen=True, slots=True)
class GradedPair:
    """Two texts and how similar people found them; only scores of one `group` can be compared."""

    group: str
    langs: tuple[str, str]
    text_a: str
    text_b: str
    score: float


@dataclass(frozen=True, slots=True)
class StsSet:
    """Pairs graded for semantic textual similarity."""

    name: str
    rows: tuple[GradedPair, ...]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and its class. `key` is the same for a text and its translations, where the set says so."""

    lang: str
    text: str
    label: str
    split: str
    key: str


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Texts with one label each: clustering and classification."""

    name: str
    rows: tuple[LabelledText, ...]


@dataclass(frozen=True, slots=True)
class RelatedPair:
    """Two texts and whether the first entails the second."""

    group: str
    lang: str
    text_a: str
    text_b: str
    entailed: bool


@dataclass(frozen=True, slots=True)
class PairSet:
    """Text pairs to be classified by their similarity."""

    name: str
    rows: tuple[RelatedPair, ...]


@dataclass(frozen=True, slots=True)
class Candidates:
    """A query, in `lang`, with the passages that answer it and those that do not."""

    lang: str
    query: str
    positives: tuple[str, ...]
    negatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RerankingSet:
    """Queries with candidates of their own."""

    name: str
    rows: tuple[Candidates, ...]


EvaluationSet: TypeAlias = RetrievalSet | BitextSet | StsSet | LabelledSet | PairSet | RerankingSet


def find_sets(root: Path) -> list[Path]:
    """The folders that hold a set: `root` itself, or those in it, by name.

    Raises:
        EvaluationError: There is none.
    """
    if root.is_dir() and _reader(root):
        return [root]
    found = sorted(path for path in root.iterdir() if path.is_dir() and _reader(path)) if root.is_dir() else []
    if not found:
        raise EvaluationError(
            f"{root}: no evaluation set here. Give a folder of folders that hold {', '.join(_READERS)} (.jsonl or "
            ".jsonl.gz); retrieval also needs queries and qrels.tsv."
        )
    return found


def load_set(folder: Path, limit: int | None = None) -> EvaluationSet:
    """Read the set in `folder`; its name is that of the folder.

    Args:
        folder: One that `find_sets` names.
        limit: See `limit_set`; none: everything.

    Raises:
        EvaluationError: No set, two sets, a broken or incomplete line, an unknown id in the qrels, or nothing in it.
    """
    reader = _reader(folder)
    if reader is None:
        raise EvaluationError(f"{folder}: no evaluation set. Expected one of {', '.join(_READERS)} (.jsonl, .jsonl.gz)")
    loaded = reader(folder)
    return loaded if limit is None else limit_set(loaded, limit)


def limit_set(whole: EvaluationSet, limit: int) -> EvaluationSet:
    """The same part of a set every time, chosen by a hash of ids or texts.

    Retrieval keeps `limit` queries and all documents, so that its figures estimate those of the whole set. The others
    keep `limit` rows of every language pair, group, or language and split; translations of one sentence stay together.
    Accuracy on bitext rises as fewer sentences compete.

    Raises:
        EvaluationError: `limit` is not positive.
    """
    if limit < 1:
        raise EvaluationError(f"limit must be 1 or more, got {limit}")
    match whole:
        case RetrievalSet():
            queries = _sample(whole.queries, limit, lambda query: query.id, lambda _: 0)
            return replace(whole, queries=queries, qrels={query.id: whole.qrels[query.id] for query in queries})
        case BitextSet():
            rows = _sample(whole.rows, limit, lambda row: "\0".join(row.texts), lambda row: row.pair)
            return replace(whole, rows=rows)
        case StsSet():
            graded = _sample(whole.rows, limit, lambda row: f"{row.text_a}\0{row.text_b}", lambda row: row.group)
            return replace(whole, rows=graded)
        case LabelledSet():
            labelled = _sample(whole.rows, limit, lambda row: row.key, lambda row: (row.lang, row.split))
            return replace(whole, rows=labelled)
        case PairSet():
            pairs = _sample(whole.rows, limit, lambda row: f"{row.text_a}\0{row.text_b}", lambda row: row.group)
            return replace(whole, rows=pairs)
        case RerankingSet():
            asked = _sample(whole.rows, limit, lambda row: row.query, lambda row: row.lang)
            return replace(whole, rows=asked)


def _sample(
    rows: Sequence[Row], limit: int, key: Callable[[Row], str], group: Callable[[Row], Hashable]
) -> tuple[Row, ...]:
    """The `limit` rows of each group with the smallest hashes, in their order."""
    places: dict[Hashable, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[group(row)].append(place)
    kept = [
        place for found in places.values() for place in sorted(found, key=lambda i: (_hash(key(rows[i])), i))[:limit]
    ]
    return tuple(rows[place] for place in sorted(kept))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _read_retrieval(folder: Path) -> RetrievalSet:
    documents = [
        Document(row["_id"], row["lang"], _passage(row.get("title"), row["text"]))
        for row in iter_rows(find_rows(folder, "corpus"), ("_id", "lang", "text"))
    ]
    queries = [
        Query(row["_id"], row["lang"], row["text"])
        for row in iter_rows(find_rows(folder, "queries"), ("_id", "lang", "text"))
    ]
    _check_ids(folder, "corpus", [document.id for document in documents])
    _check_ids(folder, "queries", [query.id for query in queries])
    qrels = _read_qrels(folder, {document.id for document in documents}, {query.id for query in queries})
    judged = tuple(sorted((query for query in queries if query.id in qrels), key=lambda query: query.id))
    if not judged:
        raise EvaluationError(f"{folder / 'qrels.tsv'}: nothing is relevant to any query; grades must be above 0")
    ordered = tuple(sorted(documents, key=lambda document: document.id))
    return RetrievalSet(folder.name, ordered, judged, qrels, len(queries) - len(judged))


def _read_qrels(folder: Path, documents: set[str], queries: set[str]) -> Qrels:
    path = folder / "qrels.tsv"
    qrels: dict[str, dict[str, float]] = defaultdict(dict)
    for number, query, document, score in iter_qrels(path):
        if query not in queries:
            raise EvaluationError(f"{path}:{number}: unknown query id {query!r}; it is not in the queries file")
        if document not in documents:
            raise EvaluationError(f"{path}:{number}: unknown document id {document!r}; it is not in the corpus file")
        if score > 0:
            qrels[query][document] = score
    return dict(qrels)


def _check_ids(folder: Path, name: str, ids: list[str]) -> None:
    if not ids:
        raise EvaluationError(f"{folder}: the {name} file is empty")
    twice = [key for key, count in Counter(ids).items() if count > 1]
    if twice:
        raise EvaluationError(f"{folder}: {name}: id {twice[0]!r} occurs twice ({len(twice)} such ids); ids are unique")


def _read_bitext(folder: Path) -> BitextSet:
    rows = [
        Translation(row.get("pair") or "-".join(row["langs"]), tuple(row["langs"]), tuple(row["texts"]))
        for row in iter_rows(find_rows(folder, "bitext"), ("langs", "texts"))
    ]
    return BitextSet(folder.name, _filled(folder, rows))


def _read_sts(folder: Path) -> StsSet:
    rows = []
    for row in iter_rows(find_rows(folder, "sts"), ("langs", "text_a", "text_b", "score")):
        langs = tuple(row["langs"])
        parts = (row.get("dataset") or folder.name, row.get("track") or "-".join(langs))
        rows.append(GradedPair(" ".join(parts), langs, row["text_a"], row["text_b"], float(row["score"])))
    return StsSet(folder.name, _filled(folder, rows))


def _read_labelled(folder: Path) -> LabelledSet:
    path = next(found for name in LABELLED_FILES if (found := find_rows(folder, name, required=False)))
    rows = list(iter_rows(path, ("lang", "text", "label")))
    variants: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        variants[row["lang"]].add(row.get("variant") or row["lang"])
    labelled = []
    for row in rows:
        lang, text = row["lang"], _passage(row.get("title"), row["text"])
        if len(variants[lang]) > 1:  # one language in two scripts or standards is clustered as two
            lang = f"{lang}-{str(row.get('variant') or lang).rsplit('_', 1)[-1]}"
        key = str(row.get("group_id") or text)
        labelled.append(LabelledText(lang, text, str(row["label"]), str(row.get("split") or ""), key))
    return LabelledSet(folder.name, _filled(folder, labelled))


def _read_pairs(folder: Path) -> PairSet:
    rows = []
    for row in iter_rows(find_rows(folder, "nli"), ("lang", "text_a", "text_b", "label")):
        group = f"{row.get('dataset') or folder.name} {row['lang']}"
        rows.append(RelatedPair(group, row["lang"], row["text_a"], row["text_b"], row["label"] == ENTAILMENT))
    if rows and not any(row.entailed for row in rows):
        raise EvaluationError(f"{folder}: no pair has the label {ENTAILMENT!r}; check the column `label`")
    return PairSet(folder.name, _filled(folder, rows))


def _read_reranking(folder: Path) -> RerankingSet:
    rows = (
        Candidates(row["lang"], row["query"], tuple(row["positives"]), tuple(row["negatives"]))
        for row in iter_rows(find_rows(folder, "reranking"), ("lang", "query", "positives", "negatives"))
    )
    return RerankingSet(folder.name, _filled(folder, rows))


def _filled(folder: Path, rows: Iterable[Row]) -> tuple[Row, ...]:
    kept = tuple(rows)
    if not kept:
        raise EvaluationError(f"{folder}: the set is empty")
    return kept


def _passage(title: str | None, text: str) -> str:
    """The text as the indexer would encode it."""
    return passage_text(Chunk(document_id="", number=0, text=text, title=title or ""))


_READERS: Mapping[str, Callable[[Path], EvaluationSet]] = {
    "corpus": _read_retrieval,
    "bitext": _read_bitext,
    "sts": _read_sts,
    **dict.fromkeys(LABELLED_FILES, _read_labelled),
    "nli": _read_pairs,
    "reranking": _read_reranking,
}


def _reader(folder: Path) -> Callable[[Path], Any] | None:
    found = [name for name in _READERS if find_rows(folder, name, required=False)]
    if len(found) > 1:
        raise EvaluationError(f"{folder}: holds {' and '.join(found)}; put each set in a folder of its own")
    return _READERS[found[0]] if found else None
