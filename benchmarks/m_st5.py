"""Within languages or across, at which rank, and what is forgotten: the questions of m-ST5 (arXiv 2403.17528).

    python -m benchmarks.m_st5 --data TRAIN --eval EVAL --work FOLDER [--steps 60] [--limit 60]

The paper trains mT5's encoder on XNLI; here are neither. In their place: multilingual-e5-small with its prompts, and
the sentence pairs of STS-B in eleven languages (stsb-multi-mt) that mean the same (4 of 5 or more), as the pairs that
NLI calls entailment. Its files have no identifiers: translations are found by the sequence of their scores. Otherwise
the recipe `m-st5`: LoRA on the attention, in-batch negatives, mean pooling, texts of 32 tokens in place of 64.

    within, rank 4 | 8 | 16     both sentences in one language
    across, rank 8              in two languages, wherever the languages of a batch allow it
    within, with own vectors    rank 8, and three tenths of the steps keep the base's vectors of the same texts
    mean of checkpoints, runs   of "within, rank 8": its last three checkpoints; it and a run from another seed

Encoders are judged in bfloat16 after all steps, "within, rank 8" at every checkpoint as well. What is in FOLDER is
not made again. Writes results/m-st5.jsonl.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ablations import build_parser, call, file_name, judge, record_once, train
from benchmarks.records import describe_run
from training.data.schema import RetrievalRow, Row
from training.recipe import Data, Objective, Recipe, Stream, load_recipe

BASE = "multilingual-e5-small"
SOURCE = "sts.stsb-multi-mt.jsonl.gz"
ANCHOR_LANGUAGE = "en"
SAME_MEANING = 4.0
MAX_TOKENS = 32
ATTENTION = ("query", "key", "value", "attention.output.dense")
SETS = ("debian-faq", "tquad-dev", "sts17", "tatoeba")
CHECKPOINTS = 4
MAIN = "within, rank 8"


@dataclass(frozen=True)
class Arm:
    """How an encoder is trained: rank, share of pairs across languages, weight of its own vectors, seed."""

    rank: int = 8
    cross_lingual: float = 0.0
    own: float = 0.0
    seed: int = 7


ARMS = {
    MAIN: Arm(),
    "within, rank 4": Arm(rank=4),
    "within, rank 16": Arm(rank=16),
    "across, rank 8": Arm(cross_lingual=1.0),
    "within, with own vectors": Arm(own=0.3),
    "within, another seed": Arm(seed=8),
}


def parallel_pairs(path: Path) -> Iterator[list[RetrievalRow]]:
    """Sentence pairs of one meaning, each in every language that has it.

    The languages' files hold the same pairs in the same order, but each lacks some: equal runs of scores are matched.
    """
    by_lang: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            by_lang[row["langs"][0]].append(row)
    first = by_lang.pop(ANCHOR_LANGUAGE)
    found = [{ANCHOR_LANGUAGE: row} for row in first]
    for lang, rows in by_lang.items():
        scores = [[row["score"] for row in some] for some in (first, rows)]
        for block in SequenceMatcher(None, *scores, autojunk=False).get_matching_blocks():
            for step in range(block.size):
                found[block.a + step][lang] = rows[block.b + step]
    for number, pair in enumerate(found):
        if pair[ANCHOR_LANGUAGE]["score"] >= SAME_MEANING:
            yield [
                RetrievalRow(
                    task="retrieval", dataset="stsb", doc_id=str(number), query=row["text_a"], positive=row["text_b"],
                    lang_query=lang, lang_doc=lang,
                )
                for lang, row in pair.items()
            ]  # fmt: skip


def prepare_arm(arm: Arm, options: argparse.Namespace) -> tuple[list[Row], Recipe]:
    """Rows and recipe of an encoder."""
    rows: list[Row] = [row for pair in parallel_pairs(options.data / SOURCE) for row in pair]
    published = load_recipe("m-st5")
    pairs = Stream(
        objective=Objective.RETRIEVAL, batch_size=48, cross_lingual=arm.cross_lingual, languages=11,
        similarity_temperature=published.streams[0].similarity_temperature, weight=1 - arm.own,
    )  # fmt: skip
    kept = Stream(objective=Objective.NEUTRAL, batch_size=48, loss_weight=10.0, weight=arm.own or 1.0)
    lora = published.lora.model_copy(update={"rank": arm.rank, "alpha": 4.0 * arm.rank, "targets": ATTENTION})
    changes = {
        "steps": options.steps, "checkpoint_every": options.steps // CHECKPOINTS, "keep_checkpoints": CHECKPOINTS,
        "teacher": "own" if arm.own else None, "max_tokens": MAX_TOKENS, "mini_batch": 0, "precision": "auto",
    }  # fmt: skip
    recipe = published.model_copy(update={
        "base": BASE, "query_prompt": "query: ", "document_prompt": "passage: ", "seed": arm.seed, "lora": lora,
        "data": Data(files=("*.jsonl.gz",), dev_share=0.0),
        "streams": (pairs, kept) if arm.own else (pairs,),
        "training": published.training.model_copy(update=changes),
    })  # fmt: skip
    return rows, recipe


def export(name: str, adapters: Sequence[Path], run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """An encoder of the mean of adapters of a run, unless it is there."""
    folder = options.work / file_name(name)
    if not (folder / "encoder").exists():
        call("average", *map(str, adapters), "--out", str(folder / "adapter"))
        call("export", str(run), "--adapter", str(folder / "adapter"), "--out", str(folder / "encoder"))
    return {"arm": name}


def main() -> None:
    """Train and judge every encoder; what was judged before is not judged again."""
    options = build_parser(__doc__, steps=60, limit=60).parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    run = describe_run(f"python -m benchmarks.m_st5 --steps {options.steps} --limit {options.limit}")

    def note(name: str, make: Callable[[], dict[str, Any]]) -> None:
        folder = options.work / file_name(name)
        encoder = BASE if name == "base" else str(folder / "encoder")
        record_once("m-st5", run, folder, lambda: {**make(), **judge(encoder, options, sets=SETS, backend="openvino")})

    note("base", lambda: {"arm": "base"})
    for name, arm in ARMS.items():
        note(name, partial(train, name, partial(prepare_arm, arm, options), options))
    first, other = (options.work / file_name(name) / "run" for name in (MAIN, "within, another seed"))
    size = options.steps // CHECKPOINTS
    steps = [first / "checkpoints" / f"checkpoint-{size * (number + 1)}" for number in range(CHECKPOINTS)]
    for place, step in enumerate(steps[:-1]):
        name = f"{MAIN}, step {size * (place + 1)}"
        note(name, partial(export, name, [step], first, options))
    note("mean of checkpoints", partial(export, "mean of checkpoints", steps[1:], first, options))
    note("mean of runs", partial(export, "mean of runs", [first, other], first, options))


if __name__ == "__main__":
    main()
