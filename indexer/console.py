"""What a command writes for people: progress and summaries on stderr, results on stdout."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from indexer.pipeline import Summary


@contextmanager
def progress_bar(total_bytes: int, *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A bar with rate and time left on a terminal, nothing in a pipe; yields the pipeline's progress callback."""
    if quiet or not sys.stderr.isatty():
        yield lambda _bytes, _source: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[at]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("ingest", total=total_bytes, at="")

        def advance(size: int, source: str) -> None:
            bar.update(task, advance=size, at=source[-40:])

        yield advance


def describe(summary: Summary, *, dry_run: bool = False) -> str:
    """The end summary of an ingest, for people."""
    languages = ", ".join(f"{lang} {count}" for lang, count in summary.languages.most_common(12))
    more = len(summary.languages) - 12
    done = (
        f"{summary.documents} documents to read; nothing was written (dry run)"
        if dry_run
        else f"{summary.documents} documents and {summary.chunks} chunks written, {summary.removed} documents removed; "
        f"{summary.seconds:.1f} s"
    )
    counts = f"{summary.read} read, {summary.unchanged} unchanged, {len(summary.skipped)} skipped"
    lines = [f"{summary.files} files: {counts}; {done}"]
    if languages:
        lines.append(f"languages of what was written (chunks): {languages}" + (f" and {more} more" if more > 0 else ""))
    reasons = Counter(item.reason for item in summary.skipped)
    for reason, count in reasons.most_common(8):
        examples = [item.source for item in summary.skipped if item.reason == reason][:3]
        lines.append(f"skipped {count}: {reason} ({', '.join(examples)}{', ...' if count > 3 else ''})")
    if len(reasons) > 8:
        lines.append(f"... and {len(reasons) - 8} more reasons; `indexer status --skipped` lists all")
    return "\n".join(lines)
