"""What an endpoint has answered, kept line by line, so that a run that was cut off goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from search.errors import TrainingDataError
from training.synthesis.documents import SourceDocument, SyntheticQuery


class AskedFile:
    """A JSON lines file of answered queries, open for appending; use it in a `with` statement.

    A line that was cut off is removed, its document is asked for again.

    Raises:
        TrainingDataError: Another line is no row of this file.
    """

    def __init__(self, path: Path, documents: Sequence[SourceDocument]) -> None:
        self.path = path
        self._documents = {(document.id, document.text): document for document in documents}
        self.queries: list[SyntheticQuery] = []
        self.strangers = 0
        """Rows whose documents are not there any more, or have another text."""
        if path.exists():
            self._read()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> AskedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def unasked(self) -> list[SourceDocument]:
        """The documents without an answer, in their order."""
        answered = {(query.document.id, query.document.text) for query in self.queries}
        return [document for key, document in self._documents.items() if key not in answered]

    def add(self, queries: Iterable[SyntheticQuery]) -> None:
        """Keep the answer for one document."""
        queries = list(queries)
        self._file.write("".join(json.dumps(query.as_row(), ensure_ascii=False) + "\n" for query in queries))
        self._file.flush()
        self.queries += queries

    def _read(self) -> None:
        whole = self.path.read_bytes()
        kept = whole[: whole.rfind(b"\n") + 1]
        if len(kept) < len(whole):
            self.path.write_bytes(kept)
        for number, line in enumerate(kept.splitlines(), start=1):
            try:
                row = json.loads(line)
                document = self._documents.get((row["doc_id"], row["positive"]))
                fields = {name: str(row.get(name, "")) for name in ("model", "difficulty")}
                if document is None:
                    self.strangers += 1
                else:
                    query, form, lang = str(row["query"]), str(row["form"]), str(row["lang_query"])
                    self.queries.append(SyntheticQuery(query, form, lang, document, **fields))
            except (ValueError, KeyError, TypeError) as error:
                raise TrainingDataError(
                    f"{self.path}:{number}: no answered query ({error}); move the file away."
                ) from error
