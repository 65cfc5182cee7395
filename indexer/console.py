"""What a command writes for people: progress and summaries on stderr, results on stdout."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from indexer.pipeline import Summary
from indexer.sources.files import SUPPORTED
from search.console import emit
from search.text import counted

_LINE_EVERY_S = 0.5


@contextmanager
def progress_bar(total_bytes: Callable[[], int], *, quiet: bool) -> Iterator[Callable[[int, str], None]]:
    """A bar with rate and time left on a terminal, nothing in a pipe; yields the pipeline's progress callback.

    `total_bytes` walks the folder, so it is called only for a bar.
    """
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
        task = bar.add_task("ingest", total=total_bytes(), at="")

        def advance(size: int, source: str) -> None:
            bar.update(task, advance=size, at=source[-40:])

        yield advance


@contextmanager
def count_bar(what: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar of things done out of all on a terminal, nothing in a pipe; drawn with the first call."""
    if quiet or not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, visible=False)
        yield lambda done, of: bar.update(task, completed=done, total=of, visible=True)


def progress_lines(total_bytes: int) -> Callable[[int, str], None]:
    """For a program that watches: the pipeline's progress callback, JSON lines on stdout, two a second and the last."""
    done, written_at = 0, 0.0

    def advance(size: int, source: str) -> None:
        nonlocal done, written_at
        done += size
        if time.monotonic() - written_at >= _LINE_EVERY_S or done == total_bytes:
            written_at = time.monotonic()
            emit({"event": "progress", "bytes": done, "total_bytes": total_bytes, "at": source})

    return advance


def describe(summary: Summary, *, dry_run: bool = False) -> str:
    """The end summary of an ingest, for people."""
    languages = ", ".join(f"{lang} {chunks}" for lang, chunks in summary.languages.most_common(12))
    more = len(summary.languages) - 12
    documents, removed = counted(summary.documents, "document"), counted(summary.removed, "document")
    done = (
        f"{documents} to read; nothing was written (dry run)"
        if dry_run
        else f"{documents} and {counted(summary.chunks, 'chunk')} written, {removed} removed; {summary.seconds:.1f} s"
    )
    counts = f"{summary.read} read, {summary.unchanged} unchanged, {len(summary.skipped)} skipped"
    lines = [f"{counted(summary.files, 'file')}: {counts}; {done}"]
    if languages:
        lines.append(f"languages of what was written (chunks): {languages}" + (f" and {more} more" if more > 0 else ""))
    if summary.as_text:
        kinds = ", ".join(f"{number} {extension}" for extension, number in summary.as_text.most_common(8))
        more_kinds = ", ..." if len(summary.as_text) > 8 else ""
        lines.append(f"read as plain text, for want of a known format: {kinds}{more_kinds}")
    reasons = Counter(item.reason for item in summary.skipped)
    for reason, number in reasons.most_common(8):
        examples = [item.source for item in summary.skipped if item.reason == reason][:3]
        lines.append(f"skipped {number}: {reason} ({', '.join(examples)}{', ...' if number > 3 else ''})")
    if len(reasons) > 8:
        lines.append(f"... and {counted(len(reasons) - 8, 'more reason')}; `indexer status --skipped` lists all")
    return "\n".join(lines)


def warning_if_empty(summary: Summary, corpus: Path) -> str | None:
    """What to tell whoever ingested a folder without a document, None where there was one."""
    if not summary.empty:
        return None
    what = f"{counted(summary.files, 'file')}, none of them with text to read" if summary.files else "no files"
    return f"warning: nothing to search in {corpus}: {what}; formats read: {', '.join(SUPPORTED)} and plain text"
