"""One file in, plain text with headings out."""

from __future__ import annotations

from indexer.extract.formats import CHILD_FORMATS, DOCUMENT_FORMATS, Extracted, extract

__all__ = ["CHILD_FORMATS", "DOCUMENT_FORMATS", "Extracted", "extract"]
