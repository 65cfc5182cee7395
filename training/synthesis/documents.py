"""Documents without queries, and the queries made for them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.errors import TrainingDataError
from search.language import LanguageDetector, canonical_language

if TYPE_CHECKING:
    import tokenizers

DATASET = "synthetic"
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """What queries are made for: a passage of a document.

    Passages of one document, and translations of it, share `id`. `lang` is BCP-47, `headings` lead from the document's
    title to the passage.
    """

    id: str
    lang: str
    title: str
    headings: tuple[str, ...]
    text: str

    @property
    def passage(self) -> str:
        """Title, headings and text, one a line, without a line that the text begins with."""
        lines = dict.fromkeys(" ".join(line.split()) for line in (self.title, *self.headings))
        shown = [line for line in lines if line and not " ".join(self.text.split()).startswith(line)]
        return "\n".join((*shown, self.text))


@dataclass(frozen=True, slots=True)
class SyntheticQuery:
    """A query made for `document`: its form, its language, and the model that wrote it, empty for a template."""

    query: str
    form: str
    lang: str
    document: SourceDocument
    model: str = ""
    difficulty: str = ""

    def as_row(self) -> dict[str, Any]:
        """A row of retrieval data, with notes on how it came to be."""
        notes = {"model": self.model, "difficulty": self.difficulty}
        return {
            "task": "retrieval",
            "dataset": DATASET,
            "query": self.query,
            "positive": self.document.text,
            "lang_query": self.lang,
            "lang_doc": self.document.lang,
            "doc_id": self.document.id,
            "title": self.document.title,
            "form": self.form,
            **{name: value for name, value in notes.items() if value},
        }


@dataclass(slots=True)
class ReadCounts:
    """Counts of one reading: what was passed over, and why."""

    documents: int = 0
    passages: int = 0
    skipped: dict[str, str] = field(default_factory=dict)


def iter_source_documents(
    source: Path, *, tokenizer: tokenizers.Tokenizer, counts: ReadCounts
) -> Iterator[SourceDocument]:
    """The passages of a folder or file of documents, or the rows of a JSON lines file.

    A folder is read and cut as for the index. A row of JSON lines has `text` and, if it likes, `id`, `lang`, `title`
    and `headings`; without an id it is called by its file and line; without a language the language is detected.

    Args:
        source: The folder or file.
        tokenizer: Counts the tokens of passages.
        counts: Filled while the documents are taken.

    Raises:
        SourceError: The folder cannot be read.
        TrainingDataError: A JSON line does not fit; names the line.
    """
    if source.is_file() and source.name.lower().endswith(JSON_LINES):
        yield from _iter_lines(source, counts)
    else:
        yield from _iter_passages(source, tokenizer, counts)


def _iter_passages(source: Path, tokenizer: tokenizers.Tokenizer, counts: ReadCounts) -> Iterator[SourceDocument]:
    from indexer.chunking import ChunkOptions, chunk_document
    from indexer.documents import Skipped
    from indexer.sources import ReadOptions, iter_documents, iter_files

    detector, options = LanguageDetector(), ReadOptions()
    for file in iter_files(source, options=options):
        for item in [file] if isinstance(file, Skipped) else iter_documents(file, options):
            if isinstance(item, Skipped):
                counts.skipped[item.source] = item.reason
                continue
            counts.documents += 1
            chunks = chunk_document(
                item, tokenizer=tokenizer, detector=detector, options=ChunkOptions(overlap_tokens=0)
            )
            for chunk in chunks:
                counts.passages += 1
                yield SourceDocument(chunk.document_id, chunk.lang, chunk.title, chunk.headings, chunk.text)


def _iter_lines(path: Path, counts: ReadCounts) -> Iterator[SourceDocument]:
    detector = LanguageDetector()
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    counts.documents += 1
                    counts.passages += 1
                    yield _parse(line, f"{path}:{number}", f"{path.name}:{number}", detector)
    except (OSError, EOFError) as error:
        raise TrainingDataError(
            f"{path}: cannot be read ({error}); is it complete, and gzipped if named .gz?"
        ) from error


def _parse(line: bytes, place: str, name: str, detector: LanguageDetector) -> SourceDocument:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except ValueError as error:
        raise TrainingDataError(f"{place}: not JSON in UTF-8 ({error}).") from error
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str) or not text.strip():
        has = ", ".join(sorted(row)) if isinstance(row, dict) else type(row).__name__
        raise TrainingDataError(f"{place}: a document needs `text` that is not empty. It has: {has}.")
    headings = row.get("headings") or []
    if not isinstance(headings, list) or not all(isinstance(heading, str) for heading in headings):
        raise TrainingDataError(f"{place}: `headings` is {headings!r:.80}; give a list of strings.")
    lang = row.get("lang")
    return SourceDocument(
        id=str(row["id"]) if row.get("id") not in (None, "") else name,
        lang=canonical_language(str(lang)) if lang else detector.detect(text).lang,
        title=str(row.get("title") or "").strip(),
        headings=tuple(headings),
        text=text.strip(),
    )
