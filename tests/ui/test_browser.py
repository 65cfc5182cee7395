"""Journeys through the application in a real browser: Debian's Chromium, headless, offline.

Skipped where there is no Chromium; `.ci/run` installs it, `CHROMIUM` names another one. The first page of all also
looks at accessibility with axe-core, which npm fetches.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from search.index import IndexFolder
from ui.messages import load_messages

playwright = pytest.importorskip("playwright.sync_api", reason="the browser tests need the package playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium fonts-noto-cjk")

AXE = "axe-core@4.14.1"
SETTLED = """() => {
  const app = document.querySelector('.stApp');
  return app && app.getAttribute('data-test-script-state') === 'notRunning'
    && !document.querySelector('[data-testid="stSkeleton"], [data-testid="stAppSkeleton"]');
}"""
TIMEOUT_MS = 240_000
ENGLISH = load_messages("en")
QUERY = "How do I behave at a Japanese hot spring bath as a first-time visitor?"
HOSTILE = "<img src=x onerror=alert(1)> **stars** :red[colour] $x^2$"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(home: Path, index: Path, allowed: Path, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
    port = free_port()
    command = [sys.executable, "-m", "ui.main", "--port", str(port), "--index", str(index), "--folder", str(allowed)]
    process = subprocess.Popen(
        command, env=os.environ | {"PANLINGUA_HOME": str(home)} | environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://localhost:{port}"
    end = time.monotonic() + TIMEOUT_MS / 1000
    while True:
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2).close()
            return process, address
        except OSError:
            assert process.poll() is None, "the application did not start"
            assert time.monotonic() < end, "the application did not answer"
            time.sleep(0.5)


def home_with(encoders: Path, folder: Path) -> Path:
    (folder / "encoders").symlink_to(encoders)
    return folder


def end_process(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, 15)
    process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(sample_index: Path, encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The application on the bundled corpus."""
    home = home_with(encoders, tmp_path_factory.mktemp("home"))
    process, address = serve(home, sample_index, tmp_path_factory.mktemp("allowed"))
    yield address
    end_process(process)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as library:
        chromium = library.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    """A page on which nothing may be asked of the outside and no script may come from a document."""
    context = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    opened = context.new_page()
    outside: list[str] = []
    alerts: list[str] = []

    def note(request: Any) -> None:
        if not request.url.startswith((server, server.replace("http", "ws"), "data:", "blob:")):
            outside.append(request.url)

    opened.on("request", note)
    opened.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
    yield opened
    context.close()
    assert outside == []
    assert alerts == []


def settle(page: Any) -> None:
    """Wait until the application has drawn everything: three looks in a row."""
    calm, end = 0, time.monotonic() + TIMEOUT_MS / 1000
    while calm < 3:
        assert time.monotonic() < end, "the page did not come to rest"
        page.wait_for_timeout(200)
        calm = calm + 1 if page.evaluate(SETTLED) else 0


def go(page: Any, address: str) -> None:
    page.goto(address)
    settle(page)


def ask(page: Any, query: str) -> None:
    page.get_by_label(ENGLISH["search.field"]).fill(query)
    page.keyboard.press("Enter")
    try:
        page.locator("article.hit").first.wait_for()
    except playwright.TimeoutError:
        pytest.fail(f"no hit at {page.url}; the page says:\n{page.locator('body').inner_text()}")
    settle(page)


def languages(page: Any) -> list[str]:
    found: list[str] = page.locator("article.hit h2").evaluate_all("items => items.map(item => item.lang)")
    return found


def test_search_filter_balance_and_bookmark(page: Any, server: str) -> None:
    go(page, server)
    ask(page, QUERY)
    first = page.locator("article.hit").first
    assert first.locator("h2").get_attribute("lang") == "ja"
    assert first.locator("mark.sentence").count() >= 1
    page.get_by_role("button", name=re.compile("^日本語")).click()
    page.wait_for_url(re.compile("lang=ja"))
    settle(page)
    assert set(languages(page)) == {"ja"}
    page.get_by_role("button", name=ENGLISH["search.clear"]).click()
    settle(page)
    assert set(languages(page)) > {"ja"}
    slider = page.get_by_role("slider", name=ENGLISH["balance"])
    slider.focus()
    page.keyboard.press("Home")
    page.wait_for_url(re.compile("balance=0"))
    settle(page)
    seen, address = languages(page), page.url
    go(page, address)  # as a bookmark would
    assert languages(page) == seen
    page.go_back()


def test_back_goes_to_the_search_before(page: Any, server: str) -> None:
    go(page, server)
    ask(page, "water after a flood")
    ask(page, "sourdough")
    page.go_back()
    page.wait_for_url(re.compile("q=water"))
    field = page.get_by_label(ENGLISH["search.field"])
    playwright.expect(field).to_have_value("water after a flood", timeout=TIMEOUT_MS)


def test_the_next_page_starts_at_its_top(page: Any, server: str) -> None:
    go(page, f"{server}/?q=water")
    main = page.locator('[data-testid="stMain"]')
    page.get_by_role("button", name=ENGLISH["search.next"]).click()
    page.wait_for_url(re.compile("page=2"))
    settle(page)
    page.wait_for_function("() => document.querySelector('[data-testid=\"stMain\"]').scrollTop === 0")
    page.locator("article.hit").nth(6).scroll_into_view_if_needed()
    low = main.evaluate("item => item.scrollTop")
    page.locator('[class*="st-key-open-"] button').nth(6).click()  # the hits are the same: the reader stays there
    page.get_by_role("dialog").locator(".document-part.found").wait_for()
    settle(page)
    assert main.evaluate("item => item.scrollTop") == low > 0


def test_translations_fold_and_a_document_opens(page: Any, server: str) -> None:
    go(page, f"{server}/?q=Hilft+Zahnpasta+bei+einer+Verbrennung%3F")
    also = page.locator("details.also").first
    also.locator("summary").click()
    assert also.locator("li").count() >= 1
    page.locator(".st-key-open-1 button").click()
    page.get_by_role("dialog").locator(".document-part.found").wait_for()


def test_export_holds_more_than_the_page(page: Any, server: str) -> None:
    go(page, f"{server}/?q=water")
    page.get_by_role("button", name=ENGLISH["search.export"]).click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name=ENGLISH["search.export_jsonl"]).click()
    rows = [json.loads(line) for line in Path(waiting.value.path()).read_text(encoding="utf-8").splitlines()]
    assert len(rows) > 10
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))


def test_explore_and_brush_the_map(page: Any, server: str) -> None:
    go(page, f"{server}/explore")
    plot = page.locator(".js-plotly-plot .nsewdrag").first
    plot.wait_for()
    settle(page)
    box = plot.bounding_box()
    left, top, width, height = box["x"], box["y"], box["width"], box["height"]
    corners = [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95), (0.05, 0.06)]
    page.mouse.move(left + width * 0.05, top + height * 0.05)
    page.mouse.down()
    for x, y in corners:
        page.mouse.move(left + width * x, top + height * y, steps=8)
    page.mouse.up()
    page.locator("ul.documents li").first.wait_for()
    assert page.locator("ul.documents li").count() > 20
    title = page.locator("ul.documents a").first.inner_text()
    page.locator("ul.documents a").first.click()
    page.locator("article.hit").first.wait_for()
    page.locator(".st-key-open-like button").click()
    assert title in page.get_by_role("dialog").inner_text()


def test_upload_and_find_the_upload(browser: Any, encoders: Path, tmp_path: Path) -> None:
    process, address = serve(home_with(encoders, tmp_path), tmp_path / "indexes" / "own", tmp_path)
    try:
        page = browser.new_context(locale="en-US").new_page()
        page.set_default_timeout(TIMEOUT_MS)
        alerts: list[str] = []
        page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
        go(page, address)
        text = f"{HOSTILE}\n\nシロクマは北極にすんでいます。氷の上でアザラシを待ちます。"
        upload = {"name": "しろくま.txt", "mimeType": "text/plain", "buffer": text.encode()}
        page.locator('input[type="file"]').first.set_input_files([upload])
        page.get_by_role("button", name=ENGLISH["corpus.upload_go"]).click()
        page.get_by_label(ENGLISH["search.field"]).wait_for()  # once there is an index, it is searched
        ask(page, "Where do polar bears live?")
        hit = page.locator("article.hit").first
        assert "シロクマ" in hit.inner_text()
        assert hit.locator("img, strong, .katex").count() == 0
        assert alerts == []
    finally:
        end_process(process)


def test_arabic_interface_runs_from_right_to_left(page: Any, server: str) -> None:
    go(page, f"{server}/?ui=ar&q=water")
    assert page.evaluate("[document.documentElement.lang, document.documentElement.dir]") == ["ar", "rtl"]
    hit = page.locator('article.hit h2[lang="en"]').first
    assert hit.evaluate("item => getComputedStyle(item).direction") == "ltr"
    main = page.locator('[data-testid="stMain"]')
    assert main.evaluate("item => getComputedStyle(item.querySelector('.stMainBlockContainer')).direction") == "rtl"
    side, content = page.locator('[data-testid="stSidebar"]').bounding_box(), main.bounding_box()
    assert side["x"] > content["x"]


def test_phone_width_needs_no_sideways_scrolling(browser: Any, server: str) -> None:
    context = browser.new_context(locale="en-US", viewport={"width": 390, "height": 800})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    for path in ("/?q=water", "/explore", "/corpus", "/encoders"):
        go(page, server + path)
        assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth"), path
    context.close()


def test_password_is_asked_once_and_remembered_by_the_browser(
    browser: Any, sample_index: Path, encoders: Path, tmp_path: Path
) -> None:
    home = home_with(encoders, tmp_path)
    process, address = serve(home, sample_index, tmp_path, PANLINGUA_PASSWORD="sésame")
    try:
        page = browser.new_context(locale="en-US").new_page()
        page.set_default_timeout(TIMEOUT_MS)
        go(page, f"{address}/?q=water")
        assert page.locator("article.hit").count() == 0
        page.get_by_label(ENGLISH["access.password"], exact=True).fill("sésame")
        page.get_by_role("button", name=ENGLISH["access.enter"]).click()
        page.locator("article.hit").first.wait_for()
        go(page, f"{address}/?q=water")
        page.locator("article.hit").first.wait_for()
    finally:
        end_process(process)


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core (MPL-2.0), fetched once by npm."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("axe-core comes from npm, which is not installed")
    folder = Path(tempfile.gettempdir()) / "panlingua-axe"
    source = folder / "node_modules" / "axe-core" / "axe.min.js"
    if not source.is_file():
        folder.mkdir(exist_ok=True)
        got = subprocess.run(
            [npm, "install", "--no-save", "--prefix", str(folder), AXE], capture_output=True, text=True, check=False
        )
        if got.returncode != 0:
            pytest.skip(f"npm could not fetch {AXE}: {got.stderr.strip()[-200:]}")
    return source.read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/?q=water", "/?ui=ar&q=water", "/explore", "/corpus", "/encoders"])
def test_no_serious_barriers(browser: Any, server: str, axe: str, path: str, scheme: str) -> None:
    context = browser.new_context(locale="en-US", color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    go(page, server + path)
    page.evaluate(axe)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    serious = [
        (rule["id"], [node["html"][:160] for node in rule["nodes"]][:3])
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]
    context.close()
    assert serious == []


@pytest.mark.slow
def test_twenty_sessions_search_at_once_without_an_error(browser: Any, server: str) -> None:
    queries = ["water", "Verbrennung", "地震", "زلزال", "भूकंप"] * 4
    contexts = [browser.new_context(locale="en-US") for _ in queries]
    pages = [context.new_page() for context in contexts]
    for page, query in zip(pages, queries, strict=True):
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(f"{server}/?q={query}")
    for page, query in zip(pages, queries, strict=True):
        page.locator("article.hit").first.wait_for()
        playwright.expect(page.get_by_label(ENGLISH["search.field"])).to_have_value(query, timeout=TIMEOUT_MS)
        assert page.locator('[data-testid="stException"], .notice-problem').count() == 0
    for context in contexts:
        context.close()


def adapt(page: Any, address: str, name: str, minutes: int) -> Any:
    """Adapt an encoder to the documents of the index, through the page; returns the card with its verdict."""
    go(page, f"{address}/encoders")
    page.get_by_role("tab", name=ENGLISH["encoders.adapt"], exact=True).click()
    page.get_by_label(ENGLISH["encoders.minutes"]).fill(str(minutes))
    page.get_by_label(ENGLISH["encoders.adapt_name"]).fill(name)
    page.get_by_role("button", name=ENGLISH["encoders.adapt_go"]).click()
    page.get_by_role("button", name=ENGLISH["job.stop"]).wait_for()
    page.get_by_role("button", name=ENGLISH["job.stop"]).wait_for(state="detached", timeout=(minutes + 20) * 60_000)
    settle(page)
    page.get_by_role("tab", name=ENGLISH["encoders.adapt"], exact=True).click()
    return page.locator(f".st-key-adapted-{name}")


def put_to_use(page: Any, card: Any) -> None:
    """Build the index anew with an encoder that was made here."""
    card.get_by_role("button", name=ENGLISH["encoders.use_go"]).click()
    page.get_by_role("button", name=ENGLISH["job.stop"]).wait_for()
    page.get_by_role("button", name=ENGLISH["job.stop"]).wait_for(state="detached", timeout=20 * 60_000)
    settle(page)


@pytest.mark.slow
def test_adapt_an_encoder_and_put_it_to_use(
    browser: Any, sample_index: Path, encoders: Path, repository: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    shutil.copytree(sample_index, index)
    process, address = serve(home_with(encoders, tmp_path), index, repository / "corpus")
    try:
        page = browser.new_context(locale="en-US").new_page()
        page.set_default_timeout(TIMEOUT_MS)
        card = adapt(page, address, "mine", minutes=5)
        assert re.search(f"{ENGLISH['encoders.recommended']}|{ENGLISH['encoders.not_recommended']}", card.inner_text())
        figures = card.locator("tbody tr").all_inner_texts()
        assert figures
        assert all(len(re.findall(r"0\.\d+", line)) == 2 for line in figures)
        put_to_use(page, card)
        assert Path(IndexFolder(index).current().manifest.encoder).name == "mine"
        go(page, address)
        ask(page, QUERY)
    finally:
        end_process(process)
