"""PDF through pypdfium2, and through poppler's pdftotext for the scripts that pdfium garbles."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from indexer.extract.dates import to_rfc3339
from indexer.extract.encoding import clean
from indexer.extract.formats import MAX_TEXT_CHARS, Extracted
from search.errors import SourceError
from search.records import MetadataField

PDFTOTEXT_TIMEOUT_S = 60
_HARD_FOR_PDFIUM = re.compile("[\u0600-\u06ff\u0750-\u077f\u0e00-\u0e7f\ufb50-\ufdff\ufe70-\ufeff]")
_HYPHEN_AT_LINE_END = re.compile("(?<=\\w)[\ufffe\u00ad\u0002]\\s*\\n\\s*|[\ufffe\u0002]")
_SENTENCE_END = tuple(".!?。！？…:：;；।؟」』”»")
_NO_SPACE = re.compile("[\u0e00-\u0eff\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff65]")


def read_pdf(path: Path, max_bytes: int) -> Extracted:
    """A PDF: the text of its pages in order; lines broken by the layout are joined again."""
    import pypdfium2 as pdfium

    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        if "password" in str(error).lower() or "security" in str(error).lower():
            raise SourceError("password-protected") from error
        raise SourceError(f"broken pdf file, or not pdf at all ({error})") from error
    try:
        pages, length = [], 0
        for page in document:
            pages.append(_page_text(page))
            length += len(pages[-1])
            if length > MAX_TEXT_CHARS:
                raise SourceError(f"holds more than {MAX_TEXT_CHARS:,} characters of text; split it")
        info = document.get_metadata_dict(skip_empty=True)
    finally:
        document.close()
    text = "\n".join(page for page in pages if page)
    if len(_HARD_FOR_PDFIUM.findall(text)) > 0.2 * sum(map(str.isalpha, text)):
        text = _pdftotext(path) or text
    metadata: dict[str, MetadataField] = {"author": clean(info["Author"])} if info.get("Author") else {}
    date = to_rfc3339(info.get("CreationDate") or info.get("ModDate"))
    return Extracted(text, " ".join(clean(info.get("Title", "")).split()), (), date, metadata)


def _page_text(page: object) -> str:
    textpage = page.get_textpage()  # type: ignore[attr-defined]  # pypdfium2 ships no types
    try:
        text: str = textpage.get_text_range()
    finally:
        textpage.close()
        page.close()  # type: ignore[attr-defined]  # as above
    return join_lines(_HYPHEN_AT_LINE_END.sub("", text.replace("\r\n", "\n")))


def join_lines(text: str) -> str:
    """Undo line breaks of the layout: a full line that ends no sentence goes on in the next."""
    lines = [line.strip() for line in clean(text).split("\n")]
    widths = sorted(len(line) for line in lines if line)
    full = 0.7 * widths[int(0.9 * (len(widths) - 1))] if widths else 0
    joined: list[str] = []
    goes_on = False
    for line in lines:
        if goes_on and line:
            tight = _NO_SPACE.match(joined[-1][-1]) and _NO_SPACE.match(line[0])
            joined[-1] += line if tight else f" {line}"
        else:
            joined.append(line)
        goes_on = len(line) >= full and bool(line) and not line.endswith(_SENTENCE_END)
    return "\n".join(joined).strip("\n")


def _pdftotext(path: Path) -> str:
    """The text by poppler, or nothing where it is not installed or fails."""
    program = shutil.which("pdftotext")
    if not program:
        return ""
    try:
        done = subprocess.run(
            [program, "-enc", "UTF-8", "-nopgbrk", "-q", str(path.absolute()), "-"],
            capture_output=True,
            timeout=PDFTOTEXT_TIMEOUT_S,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return ""
    return join_lines(done.stdout.decode("utf-8", "replace"))
