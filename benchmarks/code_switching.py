"""Queries whose names are in another language: how much of the answers encoders still find.

    python -m benchmarks.code_switching ENCODER... --eval FOLDER... --names FILE

Every judged query of the sets (BEIR form) that holds a name of the file (bitext, as in training) is asked as it is and
with its names in another language, drawn by its id, the same for every encoder; the documents stay. Vectors are
compared alone, without lists of words. Rows go to results/code-switching.jsonl: by set and for all of them, with the
paired difference to the queries as they are and to the first encoder.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.records import describe_run, write_rows
from search.encoder import load_encoder
from search.evaluation.significance import Difference, paired_bootstrap
from search.settings import load_settings
from training.data.loading import iter_rows
from training.evaluation.retrieval import score_retrieval
from training.evaluation.sets import Query, RetrievalSet, load_set
from training.evaluation.vectors import CachedEncoder, TextEncoder
from training.names import Names, choose_names, count_ordinary

INTO = (
    "ar", "de", "el", "en", "es", "fa", "fr", "he", "hi", "ja", "ka", "ko", "ru", "ta", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
"""Languages that names are put into."""
SAMPLES = 12
Change = Callable[[Query], str]
"""What is asked in place of a query; its own text where nothing of it changes."""


class Scores(NamedTuple):
    """nDCG@10 of each query of one set."""

    set_name: str
    as_is: list[float]
    changed: list[float]


def main() -> None:
    """Measure, print and append the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoders", nargs="+", help="names or folders; the first one is the baseline")
    parser.add_argument("--eval", nargs="+", type=Path, required=True, help="evaluation sets in BEIR form")
    parser.add_argument("--names", type=Path, required=True, help="bitext of names, .jsonl or .jsonl.gz")
    options = parser.parse_args()
    sets = read_sets(options.eval)
    names = read_names(options.names, sets)

    def switched(query: Query) -> str:
        return names.switch(query.text, query.lang, into=INTO, rng=random.Random(query.id))

    rows = list(measure(options.encoders, sets, switched, name="code-switched"))
    command = f"python -m benchmarks.code_switching {' '.join(options.encoders)} --eval ..."
    write_rows("code-switching", describe_run(command), rows)


def read_sets(folders: Sequence[Path]) -> list[RetrievalSet]:
    """The retrieval sets in the folders."""
    found = [load_set(folder) for folder in folders]
    if wrong := [one.name for one in found if not isinstance(one, RetrievalSet)]:
        raise SystemExit(f"not retrieval sets: {', '.join(wrong)}; give folders with corpus, queries and qrels.tsv")
    return [one for one in found if isinstance(one, RetrievalSet)]


def read_names(path: Path, sets: Sequence[RetrievalSet]) -> Names:
    """Names of a file, without the ordinary words of the sets' texts."""
    texts = [(text.lang, text.text) for one in sets for text in (*one.queries, *one.documents)]
    return Names(choose_names({"names": list(iter_rows(path))}, ["names"]), ordinary=count_ordinary(texts))


def measure(
    encoders: Sequence[str], sets: Sequence[RetrievalSet], change: Change, *, name: str
) -> Iterator[dict[str, object]]:
    """Rows of every encoder and set, and of all sets, each query counting once."""
    pairs = [pair for one in sets if (pair := changed_queries(one, change))]
    if not pairs:
        raise SystemExit(f"no query of these sets can be {name}; take other sets")
    for as_is, changed in pairs:
        for before, after in list(zip(as_is.queries, changed.queries, strict=True))[:SAMPLES]:
            print(f"{as_is.name}: {before.text} -> {after.text}")
    baseline: dict[str, Scores] = {}
    for encoder in encoders:
        loaded = CachedEncoder(load_encoder(encoder, cache_dir=load_settings().encoders_folder))
        scores = [score(loaded, as_is, changed) for as_is, changed in pairs]
        every = Scores("all", [v for one in scores for v in one.as_is], [v for one in scores for v in one.changed])
        for found in (*scores, every):
            first = baseline.setdefault(found.set_name, found)
            row = describe(found, first, name) | {"encoder": loaded.name}
            print(row)
            yield row


def changed_queries(one: RetrievalSet, change: Change) -> tuple[RetrievalSet, RetrievalSet] | None:
    """The set with the queries that change, as they are and changed; none where nothing does."""
    pairs = [(query, text) for query in one.queries if (text := change(query)) != query.text]
    if not pairs:
        return None
    as_is = replace(one, queries=tuple(query for query, _ in pairs))
    return as_is, replace(one, queries=tuple(replace(query, text=text) for query, text in pairs))


def score(encoder: TextEncoder, as_is: RetrievalSet, changed: RetrievalSet) -> Scores:
    """nDCG@10 of every query in both forms."""
    documents = encoder.encode_documents([document.text for document in as_is.documents])
    both = [
        score_retrieval(form, encoder.encode_queries([query.text for query in form.queries]), documents)
        for form in (as_is, changed)
    ]
    values = [[float(value) for value in found.values["ndcg@10"]] for found in both]
    return Scores(as_is.name, *values)


def describe(found: Scores, first: Scores, name: str) -> dict[str, object]:
    """Means and paired differences, in points of nDCG@10."""
    row: dict[str, object] = {"set": found.set_name, "queries": len(found.as_is), "form": name}
    lost = paired_bootstrap(found.as_is, found.changed)
    row |= {"as_is": _mean(found.as_is), "changed": _mean(found.changed), "change": _points(lost)}
    if first is not found:
        row |= {
            "as_is_against_first": _points(paired_bootstrap(first.as_is, found.as_is)),
            "changed_against_first": _points(paired_bootstrap(first.changed, found.changed)),
        }
    return row


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _points(difference: Difference) -> list[float]:
    """Mean, low and high end of the 95 % interval."""
    return [round(100 * value, 2) for value in (difference.mean, difference.low, difference.high)]


if __name__ == "__main__":
    main()
