"""Static encoders against the networks that they come from: texts encoded in a second, in one run.

    training static panlingua-e5-small --out TABLE --rows ...
    python -m benchmarks.static TABLE [--encoder panlingua-e5-small]

Texts are the passages of the bundled corpus, repeated for the table until it has something to do. Both take turns, and
the best of three counts. How well a table finds things is measured by `training evaluate panlingua-e5-small TABLE`.
A row goes to results/static.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

from benchmarks.records import ROOT, describe_run, write_rows
from search.encoder import Encoder, load_encoder
from search.settings import load_settings
from training.synthesis.documents import ReadCounts, iter_source_documents

REPEATED = 40
ROUNDS = 3


def rate(encoder: Encoder, texts: Sequence[str]) -> float:
    """Texts encoded in a second."""
    started = time.perf_counter()
    encoder.encode_documents(texts)
    return len(texts) / (time.perf_counter() - started)


def main() -> None:
    """Measure and write results/static.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="folder of the static encoder")
    parser.add_argument("--encoder", default="panlingua-e5-small")
    options = parser.parse_args()
    cache = load_settings().encoders_folder
    network, table = (load_encoder(name, cache_dir=cache) for name in (options.encoder, options.table))
    counts = ReadCounts()
    source = ROOT / "corpus" / "documents"
    texts = [found.passage for found in iter_source_documents(source, tokenizer=network.tokenizer, counts=counts)]
    many = [f"{number} {text}" for number in range(REPEATED) for text in texts]  # equal texts are encoded once
    rates = [(rate(network, texts), rate(table, many)) for _ in range(ROUNDS)]
    slow, fast = (max(found) for found in zip(*rates, strict=True))
    row = {
        "encoder": network.name, "passages": len(texts), "characters": round(sum(map(len, texts)) / len(texts)),
        "network_texts_per_s": round(slow, 1), "static_texts_per_s": round(fast, 1), "ratio": round(fast / slow, 1),
    }  # fmt: skip
    print(json.dumps(row))
    write_rows("static", describe_run(f"python -m benchmarks.static TABLE --encoder {options.encoder}"), [row])


if __name__ == "__main__":
    main()
