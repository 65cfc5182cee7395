"""The application in a browser: first page, single searches, many sessions that search at once.

    python -m benchmarks.ui_sessions [--address http://localhost:8501] [--sessions 20]

Asks an application that runs already (`ui`), with Playwright in Chromium on the same machine: the times are those of
application and browser together. The server's own time of a search is what the page says. Writes results/ui.jsonl.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import quote

from benchmarks.api_load import read_questions
from benchmarks.records import ROOT, describe_run, write_rows

_FIELD, _HIT, _PROBLEM = ".st-key-q input", "article.hit", '[data-testid="stException"], .notice-problem'
_TIMEOUT_MS = 300_000


def open_pages(browser: Any, count: int) -> list[Any]:
    """So many pages, each a session of its own."""
    pages = [browser.new_context(locale="en-US").new_page() for _ in range(count)]
    for page in pages:
        page.set_default_timeout(_TIMEOUT_MS)
    return pages


def first_page(browser: Any, address: str) -> float:
    """Seconds from nothing to a search field in a browser that has not been here before."""
    (page,) = open_pages(browser, 1)
    started = time.perf_counter()
    page.goto(address)
    page.locator(_FIELD).wait_for()
    seconds = time.perf_counter() - started
    page.context.close()
    return seconds


def server_ms(page: Any) -> float:
    """What the page says that the search took."""
    said = re.findall(r"([\d,]+) ms", page.locator('.summary[role="status"]').first.inner_text())
    return float(said[0].replace(",", ""))


def single_searches(browser: Any, address: str, questions: Sequence[str]) -> list[tuple[float, float]]:
    """For each question, alone: seconds until its hits are drawn, and the server's milliseconds."""
    times = []
    (page,) = open_pages(browser, 1)
    for question in questions:
        page.goto(address)
        page.locator(_FIELD).fill(question)
        started = time.perf_counter()
        page.locator(_FIELD).press("Enter")
        page.locator(_HIT).first.wait_for()
        times.append((time.perf_counter() - started, server_ms(page)))
    page.context.close()
    return times


def sessions_at_once(browser: Any, address: str, questions: Sequence[str]) -> dict[str, Any]:
    """One session for each question, all sent before the first is waited for."""
    pages = open_pages(browser, len(questions))
    started = time.perf_counter()
    for page, question in zip(pages, questions, strict=True):
        page.goto(f"{address}/?q={quote(question)}", wait_until="commit")
    answered, mixed_up, problems = [], 0, 0
    for page, question in zip(pages, questions, strict=True):
        page.locator(f"{_HIT}, {_PROBLEM}").first.wait_for()
        answered.append(time.perf_counter() - started)
        problems += page.locator(_PROBLEM).count()
        page.wait_for_function(f"document.querySelector('{_FIELD}')?.value")  # drawn a moment after the hits
        mixed_up += page.locator(_FIELD).input_value() != question
    for page in pages:
        page.context.close()
    return {"sessions": len(pages), "errors": problems, "mixed_up": mixed_up, "all_answered_s": round(max(answered), 1)}


def main() -> None:
    """Measure, print and write down."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="http://localhost:8501")
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--queries", type=Path, default=ROOT / "corpus" / "queries.jsonl")
    options = parser.parse_args()
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    questions = read_questions(options.queries)
    run = describe_run("python -m benchmarks.ui_sessions " + " ".join(sys.argv[1:]))
    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = [first_page(browser, options.address) for _ in range(5)]
        alone = single_searches(browser, options.address, questions[: options.sessions])
        together = sessions_at_once(browser, options.address, questions[: options.sessions])
        browser.close()
    row = {
        "first_page_s": round(median(opened), 2), "search_drawn_s": round(median(drawn for drawn, _ in alone), 2),
        "search_server_ms": round(median(server for _, server in alone)), **together,
    }  # fmt: skip
    print(row)
    print(write_rows("ui", run, [row]))


if __name__ == "__main__":
    main()
