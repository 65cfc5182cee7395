"""Evaluations as tables for people: the first encoder is the baseline of the differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from search.evaluation.significance import Difference
from training.evaluation.evaluate import Comparison, compare
from training.evaluation.results import Evaluation, Kind, SetResult

ACROSS_LANGUAGES = ("own@10", "own_expected", "same_ndcg@10", "cross_ndcg@10")
SHOWN: Mapping[Kind, tuple[str, ...]] = {
    Kind.RETRIEVAL: ("ndcg@10", "map@100", "recall@20", "mrr", *ACROSS_LANGUAGES),
    Kind.BITEXT: ("f1", "accuracy", "accuracy_back", "mining_f1", "mexa"),
    Kind.STS: ("spearman", "spearman_same", "spearman_cross"),
    Kind.LABELLED: ("v_measure", "probe", "probe_en"),
    Kind.PAIRS: ("ap", "chance"),
    Kind.RERANKING: ("map",),
}
"""Figures of the first table, by kind of set."""
SHOWN_BY_GROUP: Mapping[Kind, tuple[str, ...]] = {
    Kind.RETRIEVAL: ("ndcg@10", "map@100", "recall@20", "own@10"),
    Kind.BITEXT: ("f1", "mining_f1", "mexa"),
    Kind.STS: ("spearman",),
    Kind.LABELLED: ("v_measure", "probe_en"),
    Kind.PAIRS: ("ap", "chance"),
    Kind.RERANKING: ("map",),
}
COUNTS = ("queries", "pairs", "texts")

LEGEND = """\
Figures are shares of 1, higher is better, except `own@10`, the share of the first ten hits in the query's own language:
without a language preference it is near `own_expected`, the share of the relevant documents in that language.
`same_ndcg@10` ranks the documents of the query's language only, `cross_ndcg@10` those of one other language at a time.
Differences are to the first encoder, with their 95 % interval (paired bootstrap); bold where it leaves 0 out. With many
rows, some do so by chance."""


def write_report(evaluations: Sequence[Evaluation], matrices: Mapping[str, Sequence[str]] | None = None) -> str:
    """All tables as Markdown.

    Args:
        evaluations: Of one encoder or more, the baseline first.
        matrices: File names of the plots to show, by set.
    """
    comparisons = compare_all(evaluations)
    limit = evaluations[0].limit
    identities = [(name, e.fingerprint) for name, e in zip(_names(evaluations), evaluations, strict=True)]
    parts = [
        "# Evaluation",
        _table(("encoder", "fingerprint"), identities),
        f"At most {limit} queries of a set, or rows of a language or group." if limit else "Whole sets.",
        LEGEND,
    ]
    if evaluations[0].results:
        parts += ["## Sets", summary_table(evaluations, comparisons)]
    if any(comparison.overall for comparison in comparisons):
        parts += ["## Main figure, every set counting once", overall_table(comparisons)]
    if any(evaluation.mteb for evaluation in evaluations):
        parts += ["## MTEB", mteb_table(evaluations)]
    for result in evaluations[0].results:
        parts += _set_sections(evaluations, result, (matrices or {}).get(result.name, ()))
    return "\n\n".join(parts) + "\n"


def compare_all(evaluations: Sequence[Evaluation]) -> list[Comparison]:
    """Every evaluation but the first against the first; nothing to compare when that was on no set."""
    if not evaluations[0].results:
        return [Comparison(evaluations[0].encoder, other.encoder, (), ()) for other in evaluations[1:]]
    return [compare(evaluations[0], other) for other in evaluations[1:]]


def summary_table(evaluations: Sequence[Evaluation], comparisons: Sequence[Comparison] = ()) -> str:
    """A row for each figure of each set, a column for each encoder, and for the difference of each to the first."""
    names = _names(evaluations)
    differences_of = ["difference"] if len(names) == 2 else [f"difference: {name}" for name in names[1:]]
    header = ["set", "figure", *names, *differences_of]
    rows = []
    for result in evaluations[0].results:
        for metric in _shown(result):
            figures = [evaluation.result(result.name).figures.get(metric) for evaluation in evaluations]
            found = [comparison.of(result.name, metric) for comparison in comparisons]
            differences = [format_difference(row.difference if row else None) for row in found]
            rows.append([result.name, metric, *map(format_figure, figures), *differences])
    return _table(header, rows)


def overall_table(comparisons: Sequence[Comparison]) -> str:
    """The main figure of each kind of set, as differences to the first encoder."""
    rows = [
        (comparison.second, str(kind), format_difference(difference), f"{difference.p:.4f}")
        for comparison in comparisons
        for kind, difference in comparison.overall
    ]
    return _table(("encoder", "kind of set", "difference", "p"), rows)


def group_table(evaluations: Sequence[Evaluation], set_name: str, by: str) -> str:
    """A row for each language, script, pair or group of a set, and one for their mean."""
    names = _names(evaluations)
    results = [evaluation.result(set_name) for evaluation in evaluations]
    groups = results[0].groups[by]
    metrics = [m for m in SHOWN_BY_GROUP[results[0].kind] if any(row.get(m) is not None for row in groups.values())]
    count = next((name for name in COUNTS if name in next(iter(groups.values()), {})), None)
    header = [by, *([count] if count else []), *(f"{m}, {name}" if names[1:] else m for m in metrics for name in names)]
    rows = []
    for group, row in groups.items():
        counted = [f"{row[count]:.0f}"] if count else []
        figures = [result.groups[by].get(group, {}).get(metric) for metric in metrics for result in results]
        rows.append([group, *counted, *map(format_figure, figures)])
    means = [result.group_mean(by, metric) for metric in metrics for result in results]
    rows.append([f"mean over {by}s", *([""] if count else []), *map(format_figure, means)])
    return _table(header, rows)


def mteb_table(evaluations: Sequence[Evaluation]) -> str:
    """A row for each split and subset of each MTEB task."""
    names = _names(evaluations)
    found = [{(s.task, s.metric, s.split, s.subset): s.score for s in evaluation.mteb} for evaluation in evaluations]
    keys = dict.fromkeys(key for scores in found for key in scores)
    rows = [[*key, *(format_figure(scores.get(key)) for scores in found)] for key in keys]
    return _table(["task", "figure", "split", "subset", *names], rows)


def format_figure(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def format_difference(difference: Difference | None) -> str:
    """Mean and interval, bold when the interval leaves 0 out."""
    if difference is None:
        return "–"
    text = f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})"
    return f"**{text}**" if difference.is_significant else text


def _set_sections(evaluations: Sequence[Evaluation], result: SetResult, plots: Iterable[str]) -> list[str]:
    tables = [by for by, groups in result.groups.items() if len(groups) > 1]
    if not tables and not result.notes:
        return []
    parts = [f"## {result.name}", *result.notes]
    for by in tables:
        parts += [f"### {result.name} by {by}", group_table(evaluations, result.name, by)]
    return parts + [f"![{result.name}: nDCG@10 from language to language]({plot})" for plot in plots]


def _shown(result: SetResult) -> list[str]:
    """The figures that are defined; in one language, none about others."""
    one_language = result.matrix is not None and len(set(result.matrix.document_langs)) == 1
    hidden = ACROSS_LANGUAGES if one_language else ()
    return [name for name in SHOWN[result.kind] if result.figures.get(name) is not None and name not in hidden]


def _names(evaluations: Sequence[Evaluation]) -> list[str]:
    """What the columns are called: the encoder, with its fingerprint where two have the same name."""
    uses = Counter(evaluation.encoder for evaluation in evaluations)
    return [e.encoder if uses[e.encoder] == 1 else f"{e.encoder} ({e.fingerprint[:6]})" for e in evaluations]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
