"""Pictures of the running application for the documentation: `python docs/images/make.py [ADDRESS [NAME ...]]`.

Start it before, on the bundled corpus with its map (`ui --index demo`; `indexer map --index demo`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from playwright.sync_api import sync_playwright

FOLDER = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
ADDRESS = "http://localhost:8501"
DESK, PHONE = (1280, 800), (390, 844)
SETTLED = "document.querySelector('.stApp')?.getAttribute('data-test-script-state') === 'notRunning'"

BATH = "/?q=" + quote("How do I behave at a Japanese hot spring bath as a first-time visitor?")
FRAUD = "/?q=" + quote("How do I recognise a fraudulent message from my bank?")
QUAKE = "/?ui=ar&q=" + quote("ماذا أفعل عند حدوث زلزال؟")


def compare(page: Any) -> None:
    """Let two encoders answer a question."""
    page.locator(".st-key-compare-query input").fill("Does toothpaste help against a burn?")
    page.locator(".st-key-compare-query input").press("Enter")
    page.locator("ol.ranking").nth(1).wait_for(timeout=240_000)


def light_up(page: Any) -> None:
    """Wait for the map's points."""
    page.locator(".js-plotly-plot .gl-canvas").first.wait_for()
    page.wait_for_function("document.querySelectorAll('.annotation-text').length > 3")


PICTURES: dict[str, tuple[str, str, tuple[int, int], str, Callable[[Any], None] | None]] = {
    "search": (FRAUD, "light", DESK, "en-US", None),
    "search-dark": (BATH, "dark", DESK, "en-US", None),
    "search-ar": (QUAKE, "light", DESK, "ar", None),
    "search-phone": (BATH, "light", PHONE, "en-US", None),
    "explore": ("/explore?q=" + quote("What helps against a burn?"), "light", (1280, 940), "en-US", light_up),
    "corpus": ("/corpus", "light", DESK, "en-US", lambda page: page.get_by_role("tab").nth(3).click()),
    "encoders": ("/encoders", "light", (1280, 940), "en-US", compare),
}


def take(browser: Any, address: str, name: str) -> None:
    """One picture, once the page has come to rest."""
    path, scheme, (width, height), locale, act = PICTURES[name]
    context = browser.new_context(
        locale=locale, color_scheme=scheme, viewport={"width": width, "height": height}, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(120_000)
    for _ in range(2):  # the first visit may load models, and would say that it took long
        page.goto(address + path)
        page.wait_for_selector(".stMainBlockContainer h1")
        page.wait_for_function(SETTLED)
    if act:
        act(page)
        page.wait_for_function(SETTLED)
    page.wait_for_timeout(1500)  # what moves comes to rest
    page.screenshot(path=FOLDER / f"{name}.png")
    context.close()


def main() -> None:
    """Take them all."""
    address = sys.argv[1] if len(sys.argv) > 1 else ADDRESS
    with sync_playwright() as library:
        browser = library.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in sys.argv[2:] or PICTURES:
            take(browser, address, name)
        browser.close()


if __name__ == "__main__":
    main()
