"""Rich Text Format."""

from __future__ import annotations

import re
from pathlib import Path

from indexer.extract.encoding import clean, codec_name
from indexer.extract.formats import Extracted
from indexer.extract.office import read_bounded
from search.errors import SourceError

_CODE_PAGE = re.compile(rb"\\ansicpg(\d{3,5})")
_TITLE = re.compile(r"\{\\title\s((?:[^{}\\]|\\[^{}])*)\}")


def read_rtf(path: Path, max_bytes: int) -> Extracted:
    """An RTF file in its own code page."""
    data = read_bounded(path, max_bytes).lstrip()
    if not data:
        raise SourceError("empty")
    if not data.startswith(b"{\\rtf"):
        raise SourceError("broken rtf file, or not rtf at all (it does not begin with {\\rtf)")
    page = _CODE_PAGE.search(data[:4096])
    codec = codec_name(f"cp{page[1].decode()}" if page else None) or "cp1252"
    source = data.decode(codec, "replace")
    header = f"{{\\rtf1\\ansi\\ansicpg{codec.removeprefix('cp')} "
    title = _TITLE.search(source[:100_000])
    name = _plain(f"{header}{title[1]}}}", codec) if title else ""
    return Extracted(_plain(source, codec), " ".join(name.split()))


def _plain(source: str, codec: str) -> str:
    from striprtf.striprtf import rtf_to_text

    text = str(rtf_to_text(source, encoding=codec, errors="replace"))  # type: ignore[no-untyped-call]  # untyped
    paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")  # emoji come as two halves
    return clean(paired).strip()
