"""Judged queries: one's own, or made of one's own documents."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from search.errors import EvaluationError
from search.evaluation.files import find_rows, iter_qrels, iter_rows


@dataclass(frozen=True, slots=True)
class Question:
    """A query, its language (empty: to be detected), and the documents that answer it with their grades, above 0."""

    id: str
    text: str
    lang: str
    relevant: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Questions:
    """Judged queries; `unjudged` had no document that is known, `missing` are ids that the index does not hold."""

    questions: list[Question]
    unjudged: int = 0
    missing: tuple[str, ...] = ()


def read_questions(path: Path, qrels: Path | None = None) -> list[Question]:
    """Read judged queries.

    Args:
        path: A JSONL file of `id` (or `_id`), `text`, and optionally `lang`; with `relevant`, a list of document ids or
            an object of id and grade, it needs no qrels. Or a BEIR folder: `queries.jsonl` and `qrels.tsv` or
            `qrels/test.tsv`, compressed or not.
        qrels: Tab-separated query id, document id, grade (three columns, with or without a header).

    Raises:
        EvaluationError: A file is missing, broken or holds no judged query.
    """
    if path.is_dir():
        usual = (path / "qrels.tsv", path / "qrels" / "test.tsv")
        qrels = qrels or next((file for file in usual if file.exists()), None)
        path = find_rows(path, "queries")
    grades: dict[str, dict[str, float]] = defaultdict(dict)
    for _, query, document, grade in iter_qrels(qrels) if qrels else ():
        grades[query][document] = grade
    questions = []
    for number, row in enumerate(iter_rows(path, ("text",)), start=1):
        name = str(row.get("id") or row.get("_id") or number)
        judged = grades[name] if qrels else _grades(row.get("relevant"), f"{path}: query {name}")
        relevant = {document: grade for document, grade in judged.items() if grade > 0}
        questions.append(Question(name, row["text"], str(row.get("lang") or ""), relevant))
    if not any(question.relevant for question in questions):
        raise EvaluationError(
            f"{path}: no query has a relevant document; give each a list `relevant` of document ids, or --qrels FILE"
        )
    return questions


def resolve(questions: Iterable[Question], document_ids: Iterable[str]) -> Questions:
    """The questions with the ids that the index uses; those without any are left out and counted.

    A relevant id may be that of the index, the id of a record in a table (`corpus.jsonl#ID`), or the end of a path.
    """
    known = set(document_ids)
    short: dict[str, list[str]] = defaultdict(list)
    for document in known:
        names = {document.rpartition("#")[2], PurePosixPath(document).name}
        for name in names - {document}:
            short[name].append(document)
    kept, missing, unjudged = [], [], 0
    for question in questions:
        relevant: dict[str, float] = {}
        for name, grade in question.relevant.items():
            found = [name] if name in known else short.get(name, [])
            if len(found) == 1:
                relevant[found[0]] = grade
            else:
                missing.append(name)
        if relevant:
            kept.append(Question(question.id, question.text, question.lang, relevant))
        else:
            unjudged += 1
    return Questions(kept, unjudged, tuple(dict.fromkeys(missing)))


def _grades(relevant: object, place: str) -> dict[str, float]:
    if relevant is None:
        return {}
    if isinstance(relevant, dict):
        return {str(document): float(grade) for document, grade in relevant.items()}
    if isinstance(relevant, list):
        return dict.fromkeys(map(str, relevant), 1.0)
    raise EvaluationError(f"{place}: `relevant` must be a list of document ids or an object of id and grade")
