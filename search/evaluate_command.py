"""`search evaluate`: how well the index is searched, by setting and by pair of languages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from search.console import emit, say
from search.engine import Engine
from search.errors import EvaluationError
from search.evaluation.comparison import (
    BASELINE,
    METRICS,
    Judged,
    PairRow,
    SettingRow,
    by_language_pair,
    choose_settings,
    compare,
    document_languages,
    judge,
)
from search.evaluation.known_items import PER_LANGUAGE, make_questions
from search.evaluation.questions import Question, read_questions, resolve
from search.rerank import default_reranker
from search.settings import load_settings
from search.text import counted

_FEW = 10
"""Judgements below which a share says little."""
_LEAST_P = 0.001
_BADLY = 0.15
"""By how much less than the mean of all pairs is found where a pair is pointed out."""


def evaluate(
    queries: Annotated[
        Path | None, typer.Argument(help="JSONL of queries with `relevant` ids, or a BEIR folder; none: made up")
    ] = None,
    qrels: Annotated[Path | None, typer.Option(help="tab-separated query id, document id, grade")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--setting", help="default, dense, lexical, balance 0, ... (repeat)")
    ] = None,
    per_language: Annotated[int, typer.Option(min=1, help="made-up queries of each language")] = PER_LANGUAGE,
    seed: Annotated[int, typer.Option(help="of the sample of documents")] = 0,
    index: Annotated[str | None, typer.Option("--index", help="name in the home folder, or a path")] = None,
    store: Annotated[str | None, typer.Option("--store", help="URL of a Qdrant server")] = None,
    encoder: Annotated[str | None, typer.Option("--encoder", help="built-in name, folder or hub id")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per row")] = False,
) -> None:
    """Measure the search: on your own judged queries or, without any, on parts of sentences of your documents."""
    engine = Engine(load_settings(index=index, store=store, encoder=encoder))
    try:
        settings = choose_settings(setting or (), reranker=default_reranker(engine.index()))
        questions = _questions(engine, queries, qrels, per_language, seed)
        results = judge(engine, questions, settings, _progress(len(questions)))
        rows, pairs = compare(results), by_language_pair(results[BASELINE], document_languages(engine, questions))
    finally:
        engine.close()
    if as_json:
        for record in as_json_rows(rows, pairs, results):
            emit(record)
        return
    for line in as_text(rows, pairs, made_up=queries is None):
        print(line)


def as_json_rows(
    rows: Sequence[SettingRow], pairs: Sequence[PairRow], results: dict[str, list[Judged]]
) -> list[dict[str, object]]:
    """Settings, then pairs of languages, then single queries; `row` says which."""
    records: list[dict[str, object]] = [{"row": "setting", **asdict(row)} for row in rows]
    records += [{"row": "languages", **asdict(pair)} for pair in pairs]
    for name, judged in results.items():
        for one in judged:
            records.append(
                {"row": "query", "setting": name, "id": one.question.id, "text": one.question.text, "lang": one.lang}
                | {"metrics": dict(one.metrics), "found": dict(one.found), "milliseconds": one.milliseconds}
            )
    return records


def as_text(rows: Sequence[SettingRow], pairs: Sequence[PairRow], *, made_up: bool) -> list[str]:
    """Tables for people: settings, then who finds what in which language."""
    what = "parts of sentences of your documents, which favours words over meaning" if made_up else "judged queries"
    lines = [f"{counted(rows[0].queries, 'question')}: {what}", ""]
    lines.append(
        f"{'setting':<12}" + "".join(f"{name:>11}" for name in METRICS) + "   median ms   nDCG@10 against default"
    )
    for row in rows:
        means = "".join(f"{row.means[name]:>11.3f}" for name in METRICS)
        lines.append(f"{row.name:<12}{means}{row.median_ms:>12.0f}   {_difference(row)}")
    if all(pair.query_lang == pair.document_lang for pair in pairs):
        within = ", ".join(f"{pair.query_lang} {pair.recall:.2f}" for pair in pairs)
        lines += ["", f"recall@10 in the language of the query: {within}"]
    else:
        lines += ["", "recall@10 from the language of the query (rows) to that of the document (columns)"]
        lines += _pair_table(pairs)
    if badly := badly_served(pairs):
        lines += ["", "found much less than the others:"]
        lines += [
            f"  {pair.query_lang} → {pair.document_lang}: {pair.recall:.2f} of {pair.judgements} judgements"
            for pair in badly
        ]
    return lines


def badly_served(pairs: Sequence[PairRow]) -> list[PairRow]:
    """Pairs of ten judgements or more whose recall is 0.15 below the mean of such pairs, the worst first."""
    enough = [pair for pair in pairs if pair.judgements >= _FEW]
    mean = sum(pair.recall for pair in enough) / len(enough) if enough else 0.0
    return sorted(
        (pair for pair in enough if pair.recall < mean - _BADLY),
        key=lambda pair: (pair.recall, pair.query_lang, pair.document_lang),
    )


def _questions(engine: Engine, path: Path | None, qrels: Path | None, per_language: int, seed: int) -> list[Question]:
    index = engine.index()
    if path is None:
        if qrels is not None:
            raise EvaluationError("--qrels needs the queries that it judges: `search evaluate QUERIES --qrels FILE`")
        questions = make_questions(index, per_language=per_language, seed=seed)
        if not questions:
            raise EvaluationError("no document has a stretch of text to make a query of; give queries of your own")
        if not any(len(question.relevant) > 1 for question in questions):
            say("no translations are known, so that only queries in a document's own language could be made")
        return questions
    read = read_questions(path, qrels)
    found = resolve(read, (row["document_id"] for row in index.store.iter_fields(("document_id",))))
    if not found.questions:
        raise EvaluationError(
            f"the index holds none of the relevant documents of {path}, such as {', '.join(found.missing[:3])}; "
            "ingest them, or write the ids as `indexer status --files` shows them"
        )
    if found.unjudged or found.missing:
        say(f"{counted(found.unjudged, 'question')} left out for want of a relevant document; "
            f"{counted(len(found.missing), 'relevant document')} not in the index")  # fmt: skip
    return found.questions


def _progress(total: int) -> Callable[[str, int], None]:
    def show(name: str, done: int) -> None:
        if done % 100 == 0 or done == total:
            say(f"{name}: {done} of {total}")

    return show


def _difference(row: SettingRow) -> str:
    if row.difference is None:
        return ""
    d = row.difference
    p = f"p = {d.p:.3f}" if d.p >= _LEAST_P else f"p < {_LEAST_P}"
    verdict = "" if d.is_significant else ", not significant"
    return f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], {p}{verdict}"


def _pair_table(pairs: Sequence[PairRow]) -> list[str]:
    columns = sorted({pair.document_lang for pair in pairs})
    cells = {(pair.query_lang, pair.document_lang): pair for pair in pairs}
    lines = ["      " + "".join(f"{lang:>6}" for lang in columns)]
    for query_lang in sorted({pair.query_lang for pair in pairs}):
        shown = [cells.get((query_lang, lang)) for lang in columns]
        lines.append(f"{query_lang:<6}" + "".join(f"{pair.recall:>6.2f}" if pair else "     ·" for pair in shown))
    return lines
