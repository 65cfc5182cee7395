"""The report of an adaptation, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.adapt.verdict import Comparison, Row, Verdict
from training.evaluation.report import format_difference

LEAST_QUESTIONS = 5
METHOD = """How to read this: the questions were made of documents that training did not see, against all documents.
*sentence*: a telling sentence, taken out of its passage, has to find its document and the translations of it.
*translation*: a passage has to find its document's translations. *given*: judged queries of your own. Documents are
ranked by their best passage with the balance of the search. Differences are in nDCG@10 with 95 % intervals by a paired
bootstrap over works (a document with its translations counts once); bold ones leave 0 out."""


def render(
    name: str, verdict: Verdict, domain: Sequence[Comparison], general: Sequence[Comparison], about: Mapping[str, Any]
) -> str:
    """The report as Markdown."""
    parts = [
        f"# {name}: an encoder adapted to {about['corpus']}",
        f"**{'Recommended' if verdict.recommended else 'Not recommended'}**: {verdict.reason}.",
        _about(about),
    ]
    for title, found in (("Corpus", domain), ("General", general)):
        parts += [f"## {title}", *(part for comparison in found for part in _sections(comparison))]
    if not general:
        parts.append("Not measured: give retrieval sets in BEIR form with `--general-eval`.")
    return "\n\n".join([*parts, METHOD]) + "\n"


def _about(about: Mapping[str, Any]) -> str:
    read, pairs = about["documents"], about["rows"]
    languages = ", ".join(f"{lang} {count}" for lang, count in read["languages"].items())
    rows = ", ".join(f"{count} {name.removeprefix('adapt-')}" for name, count in pairs.items())
    since = "since it was resumed" if about["resumed"] else "in all"
    return (
        f"{read['documents']} documents ({languages}), {read['passages']} passages, {read['works_with_translations']} "
        f"works in several languages; {len(about['held_out'])} documents held out. Trained from `{about['base']}`: "
        f"{about['steps']} steps on {rows} rows; {about['minutes']:.0f} minutes {since}, "
        f"{about['peak_mib']:,} MiB at the peak."
    )


def _sections(comparison: Comparison) -> Iterable[str]:
    yield f"### {comparison.name}"
    kinds = comparison.kinds if len(comparison.kinds) > 1 else ()
    yield _table(
        ("questions", "asked", "works", "nDCG@10 before", "after", "difference", "recall@10 before", "after"),
        [_cells(row) for row in (comparison.overall, *kinds)],
    )
    yield _table(
        ("language", "asked", "works", "nDCG@10 before", "after", "difference", "recall@10 before", "after"),
        [_cells(row) for row in comparison.languages],
    )
    pairs = [row for row in comparison.pairs if row.questions >= LEAST_QUESTIONS]
    if len({row.document_lang for row in pairs}) > 1:
        yield (
            f"nDCG@10 among the documents of one language alone, of pairs with {LEAST_QUESTIONS} questions or more "
            "(report.json holds all):"
        )
        yield _table(
            ("from", "to", "asked", "before", "after", "change"),
            [
                (row.query_lang, row.document_lang, str(row.questions), f"{row.before:.3f}", f"{row.after:.3f}",
                 f"{row.after - row.before:+.3f}")
                for row in pairs
            ],
        )  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name, str(row.questions), str(row.units), f"{row.before:.3f}", f"{row.after:.3f}",
        format_difference(row.difference), f"{row.recall_before:.3f}", f"{row.recall_after:.3f}",
    )  # fmt: skip


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
