"""A smaller encoder for some languages, distilled from the shipped one: how good, how fast, how large.

    python -m benchmarks.distil --data TRAIN --eval EVAL --work FOLDER --languages ja,zh [--layers 6] [--steps N]

The shipped encoder is trimmed to the languages and English (`training trim`), made of evenly spaced layers (`training
shrink`), and taught the shipped one's vectors of the training rows in these languages (recipe `distil`; texts of the
evaluation sets are left out). The teacher, what the student starts from, and the student are judged in float32 on the
retrieval sets of EVAL, cut down to the languages; then teacher and student take turns at encoding. What is in FOLDER is
not made again; training goes on where it stopped. Writes results/distil.jsonl. Reading and training take about a
quarter of an hour on one core, judging as long again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ablations import BASE, build_parser, call, judge, record_once
from benchmarks.encoder_backends import TIMED_QUERIES, measure_speed, passages, read_retrieval_set
from benchmarks.records import describe_run
from search.encoder import load_encoder
from search.encoder.loading import resolve
from search.evaluation.files import find_rows, iter_qrels, iter_rows
from search.settings import DEFAULT_ENCODER, load_settings
from training.evaluation.sets import find_sets
from training.layers import format_layers
from training.recipe import load_recipe
from training.shrink import measure_depth

RECIPE = "distil"
ENGLISH = "en"
FILES = ["retrieval.*.jsonl.gz", "bitext.*.jsonl.gz"]
ROWS = 4_000
"""Of a file and language."""
ROUNDS = 5


def spaced_layers(total: int, count: int) -> list[int]:
    """`count` of `total` layers, evenly, the first and the last among them; 6 of 12 are 0, 2, 4, 7, 9, 11."""
    return sorted({round(place * (total - 1) / max(count - 1, 1)) for place in range(count)})


def restrict_set(source: Path, languages: Collection[str], out: Path) -> bool:
    """Write the documents and queries of a retrieval set in these languages; False, and nothing, if none is judged."""
    columns = ("_id", "lang", "text")
    kept = {
        name: [row for row in iter_rows(find_rows(source, name), columns) if row["lang"] in languages]
        for name in ("corpus", "queries")
    }
    documents, queries = ({row["_id"] for row in rows} for rows in kept.values())
    judged = [
        (query, document, grade) for _, query, document, grade in iter_qrels(source / "qrels.tsv")
        if query in queries and document in documents and grade > 0
    ]  # fmt: skip
    if not judged:
        return False
    out.mkdir(parents=True, exist_ok=True)
    for name, rows in kept.items():
        with gzip.open(out / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{document}\t{grade:g}" for query, document, grade in judged)]
    (out / "qrels.tsv").write_text("\n".join(lines) + "\n", "utf-8")
    return True


def restrict_sets(data: Path, languages: Collection[str], out: Path) -> list[str]:
    """The retrieval sets of a folder in these languages; returns their names."""
    found = [folder for folder in find_sets(data) if find_rows(folder, "corpus", required=False)]
    return [folder.name for folder in found if restrict_set(folder, languages, out / folder.name)]


def make_student(options: argparse.Namespace, languages: Iterable[str], folder: Path) -> dict[str, Any]:
    """Trim, shrink, train and export, as far as that was not done; returns how long training took."""
    trimmed, shrunk, student = trimmed_folder(options, languages), folder / "shrunk" / "encoder", folder / "student"
    done = student / "done.json"
    if done.exists():
        return dict(json.loads(done.read_text(encoding="utf-8")))
    if not trimmed.exists():
        call("trim", DEFAULT_ENCODER, "--languages", ",".join(languages), "--out", str(trimmed))
    if not shrunk.exists():
        shrunk.parent.mkdir(parents=True, exist_ok=True)
        layers = format_layers(spaced_layers(measure_depth(trimmed).layers, options.layers))
        call("shrink", str(trimmed), "--layers", layers, "--out", str(shrunk))
    changes: dict[str, Any] = {
        "base": str(shrunk), "training.teacher": DEFAULT_ENCODER, "training.steps": options.steps,
        "data.files": FILES, "data.exclude": load_recipe(BASE).data.exclude, "data.limit": ROWS,
        "data.languages": list(languages),
    }  # fmt: skip
    given = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    started = time.monotonic()
    call("run", RECIPE, "--data", str(options.data), "--hold-out", str(options.eval), *given, "--resume",
         "--out", str(student / "run"))  # fmt: skip
    found = {"train_seconds": round(time.monotonic() - started), **trained_on(student / "run")}
    if not (student / "encoder").exists():
        call("export", str(student / "run"), "--out", str(student / "encoder"))
    done.write_text(json.dumps(found), encoding="utf-8")
    return found


def trimmed_folder(options: argparse.Namespace, languages: Iterable[str]) -> Path:
    """Where the trimmed encoder lies: it is the same for any number of layers."""
    return Path(options.work / f"trimmed-{'-'.join(languages)}")


def trained_on(run: Path) -> dict[str, int]:
    """Rows of a run."""
    record = json.loads((run / "run.json").read_text("utf-8"))
    return {"rows": sum(count for counts in record["data"]["rows"].values() for count in counts.values())}


def time_encoders(names: Mapping[str, str], sets: Iterable[Path]) -> dict[str, dict[str, float]]:
    """Passages a second and milliseconds a query of each encoder; they take turns."""
    settings = load_settings()
    encoders = {
        arm: load_encoder(name, backend=settings.backend, threads=settings.threads, cache_dir=settings.encoders_folder)
        for arm, name in names.items()
    }
    read = [read_retrieval_set(folder, TIMED_QUERIES) for folder in sets]
    texts = passages(next(iter(encoders.values())), read)
    queries = [text for found in read for _, text in found.queries.values()][:: len(read)][:TIMED_QUERIES]
    return measure_speed(encoders, texts=texts, queries=queries, rounds=ROUNDS)


def compare_speed(speeds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How many times as many passages the student encodes as the teacher, and its share of the time of a query."""
    teacher, student = speeds["teacher"], speeds["student"]
    return {
        "passages_ratio": round(student["passages_per_second"] / teacher["passages_per_second"], 2),
        "query_ratio": round(student["query_ms_p50"] / teacher["query_ms_p50"], 2),
    }


def measure(arm: str, name: str, known: Mapping[str, Any], judged: argparse.Namespace) -> dict[str, Any]:
    """An encoder's size and figures, after what is known of it."""
    size = measure_depth(resolve(name, load_settings().encoders_folder)[0])
    sizes = {"layers": size.layers, "parameters": size.parameters, "disk_bytes": size.disk_bytes}
    return {"arm": arm, **known, **sizes, **judge(name, judged, sets=judged.sets)}


def main() -> None:
    """Make the student, then judge and time it beside its teacher; what was done before is not done again."""
    parser = build_parser(__doc__, steps=load_recipe(RECIPE).training.steps, limit=200)
    parser.add_argument("--languages", required=True, help="by commas; English is added")
    parser.add_argument("--layers", type=int, default=6, help="of the student")
    options = parser.parse_args()
    languages = list(dict.fromkeys([*options.languages.split(","), ENGLISH]))
    name = f"{'-'.join(languages)}-{options.layers}-{options.steps}"
    folder, cut = options.work / name, options.work / f"eval-{'-'.join(languages)}"
    trained = make_student(options, languages, folder)
    sets = restrict_sets(options.eval, languages, cut)
    arms = {"teacher": DEFAULT_ENCODER, "shrunk": str(folder / "shrunk" / "encoder"),
            "student": str(folder / "student" / "encoder")}  # fmt: skip
    run = describe_run(f"python -m benchmarks.distil --languages {options.languages} --layers {options.layers} "
                       f"--steps {options.steps} --limit {options.limit}")  # fmt: skip
    judged = argparse.Namespace(eval=cut, work=options.work, limit=options.limit, sets=sets)
    known = {"languages": ",".join(languages), "steps": options.steps}
    for arm, encoder in arms.items():
        extra = {**known, **(trained if arm == "student" else {})}
        record_once("distil", run, folder / arm, partial(measure, arm, encoder, extra, judged))
    record_once("distil", run, folder / "speed", partial(time_both, arms, [cut / each for each in sets], known))


def time_both(arms: Mapping[str, str], sets: Iterable[Path], known: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the speeds of teacher and student, and of one to the other."""
    speeds = time_encoders({arm: arms[arm] for arm in ("teacher", "student")}, sets)
    figures = {f"{arm} {figure}": value for arm, found in speeds.items() for figure, value in found.items()}
    return {"arm": "speed", **known, **figures, **compare_speed(speeds)}


if __name__ == "__main__":
    main()
