"""`make demo`: ingest a folder into the embedded index and show what searching across languages finds.

On the bundled corpus, the queries marked `demo` in corpus/queries.jsonl are asked; about a folder of one's own it says
what was indexed and how to ask.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from indexer.build import ingest, size_of, status
from indexer.console import count_bar, describe, progress_bar, warning_if_empty
from indexer.token_vectors import refresh_token_store
from search.console import say
from search.engine import Engine
from search.errors import EncoderMismatchError, PanlinguaError, SourceError
from search.settings import Settings, load_settings

BUNDLED = Path("corpus/documents")
QUERIES = Path("corpus/queries.jsonl")


def demo(corpus: Path) -> None:
    """Ingest `corpus`, ask, and say how to go on."""
    bundled = corpus.resolve() == BUNDLED.resolve()
    settings = load_settings(index="demo" if bundled else None)
    say(f"Ingesting {corpus} into {settings.index_folder} (the first run also unpacks the encoder) ...")
    with progress_bar(lambda: size_of(corpus), quiet=False) as progress:
        try:
            summary = ingest(corpus, settings, progress=progress)
        except EncoderMismatchError:
            if not bundled:
                raise
            summary = ingest(corpus, settings, progress=progress, fresh=True)  # an earlier version's demo
    if bundled:
        with count_bar("token vectors", quiet=False) as progress_of_tokens:
            refresh_token_store(settings, wanted=True, progress=progress_of_tokens)
    print(describe(summary))
    if warning := warning_if_empty(summary, corpus):
        say(warning)
    flag = "--index demo " if bundled else ""
    if bundled:
        show_answers(settings)
    else:
        print("\n".join(status(settings).lines()))
    print(f'\nSearch on:                .venv/bin/search query {flag}"your question, in any language"')
    print("Ingest a folder of yours: make demo CORPUS=~/docs    or    .venv/bin/indexer ingest ~/docs")


def show_answers(settings: Settings) -> None:
    """Ask the demo queries and print the best three documents of each."""
    rows = [json.loads(line) for line in QUERIES.read_text(encoding="utf-8").splitlines()]
    engine = Engine(settings)
    engine.load()
    for row in rows:
        if row.get("demo"):
            result = engine.search(row["text"], k=3)
            print(f"\n[{row['lang']}] {row['text']}")
            for hit in result.hits:
                passage = " ".join(hit.chunk.text.split())
                print(f"  {hit.rank}. [{hit.chunk.lang}] {hit.chunk.title or hit.document_id}: {passage[:110]}…")
            print(f"  ({result.timings_ms['total']:.0f} ms)")
    engine.close()


def main() -> None:
    """Run the demo on the folder given, or on the bundled corpus."""
    corpus = Path(sys.argv[1] if len(sys.argv) > 1 else BUNDLED).expanduser()
    try:
        if not corpus.exists():
            raise SourceError(f"there is no folder {corpus}; give one with `make demo CORPUS=~/docs`")
        demo(corpus)
    except PanlinguaError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
