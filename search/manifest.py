"""The manifest of an index: what built it, and what it holds."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from search.errors import IndexFormatError

FORMAT_VERSION = 1


class IndexManifest(BaseModel):
    """Written last and atomically; loading checks it. Times are RFC 3339 in UTC; `languages` counts chunks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    encoder: str
    encoder_fingerprint: str
    dimension: int
    map_fingerprint: str
    documents: int
    chunks: int
    languages: dict[str, int]
    chunks_at_fit: int = 0
    lexical_version: int = 1
    created: str
    updated: str
    panlingua_version: str


def parse_manifest(text: str, where: str) -> IndexManifest:
    """The manifest in `text`.

    Raises:
        IndexFormatError: It is damaged, or of a version that this program does not read.
    """
    try:
        manifest = IndexManifest.model_validate_json(text)
    except ValidationError as error:
        message = f"the manifest of {where} is damaged: {error.error_count()} problems. "
        raise IndexFormatError(message + "Run `indexer ingest FOLDER --fresh` to build the index again.") from error
    if manifest.format_version != FORMAT_VERSION:
        message = f"{where} has format version {manifest.format_version}, this program reads {FORMAT_VERSION}. "
        raise IndexFormatError(message + "Run `indexer ingest FOLDER --fresh` to build the index again.")
    return manifest


def now() -> str:
    """The present moment as the manifest writes it: to the microsecond, since states are told apart by it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read_manifest(path: Path) -> IndexManifest:
    """The manifest file at `path`; a missing one is damage."""
    try:
        return parse_manifest(path.read_text(encoding="utf-8"), str(path.parent))
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot read {path}: {error}. Run `indexer ingest FOLDER --fresh` to build the index again."
        raise IndexFormatError(message) from error
