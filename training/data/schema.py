"""What a row of training data holds, by task.

A line of JSON (or a row of a hub dataset) names its `task`; each task has one row type here. Fields that a type does
not name are ignored, so that data may carry its own notes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Lang = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2)]


class Task(StrEnum):
    """What a row teaches; the batches of one task share a loss."""

    RETRIEVAL = "retrieval"
    BITEXT = "bitext"
    PARAPHRASE = "paraphrase"
    NLI = "nli"
    STS = "sts"
    CLASSIFICATION = "classification"


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    dataset: str = ""


class RetrievalRow(_Row):
    """A query and a document that answers it.

    Rows that share `doc_id` in other languages of the document are translations of it; where `doc_id` is empty, the
    document's text stands for it. `negatives` do not answer the query. Rows of one `work` never meet in a batch: their
    documents are parts of a whole, where one may answer what is asked about the next.
    """

    task: Literal[Task.RETRIEVAL] = Task.RETRIEVAL
    query: Text
    positive: Text
    lang_query: Lang
    lang_doc: Lang
    doc_id: str = ""
    title: str = ""
    negatives: tuple[str, ...] = ()
    work: str = ""

    @property
    def family(self) -> str:
        """Key of the document and its translations."""
        return f"{self.dataset}\t{self.doc_id or self.positive}"


class BitextRow(_Row):
    """One text in several languages: `texts[i]` is in `langs[i]`; a language may occur twice (pt, pt-BR)."""

    task: Literal[Task.BITEXT] = Task.BITEXT
    langs: tuple[Lang, ...] = Field(min_length=2)
    texts: tuple[Text, ...] = Field(min_length=2)
    group_id: str = ""

    @model_validator(mode="after")
    def _parallel(self) -> BitextRow:
        if len(self.langs) != len(self.texts):
            raise ValueError(f"{len(self.langs)} langs for {len(self.texts)} texts; they must be parallel")
        return self


class ParaphraseRow(_Row):
    """Two texts that mean the same, in one language."""

    task: Literal[Task.PARAPHRASE] = Task.PARAPHRASE
    lang: Lang
    anchor: Text
    positive: Text
    group_id: str = ""


class NliRow(_Row):
    """A premise, a sentence that it entails, and one that it contradicts."""

    task: Literal[Task.NLI] = Task.NLI
    lang: Lang
    anchor: Text
    positive: Text
    negative: Text


class StsRow(_Row):
    """Two sentences and how alike they are, from 0 to 5."""

    task: Literal[Task.STS] = Task.STS
    langs: tuple[Lang, Lang]
    text_a: Text
    text_b: Text
    score: float = Field(ge=0, le=5)


class LabelledRow(_Row):
    """A text and its class."""

    task: Literal[Task.CLASSIFICATION] = Task.CLASSIFICATION
    lang: Lang
    text: Text
    label: Annotated[str, Field(coerce_numbers_to_str=True, min_length=1)]


Row = RetrievalRow | BitextRow | ParaphraseRow | NliRow | StsRow | LabelledRow

ROW_TYPES: dict[Task, type[Row]] = {
    Task.RETRIEVAL: RetrievalRow,
    Task.BITEXT: BitextRow,
    Task.PARAPHRASE: ParaphraseRow,
    Task.NLI: NliRow,
    Task.STS: StsRow,
    Task.CLASSIFICATION: LabelledRow,
}

TASK_NAMES: dict[str, Task] = {
    **{task.value: task for task in Task},
    "faq": Task.RETRIEVAL,
    "qa": Task.RETRIEVAL,
    "keywords": Task.PARAPHRASE,
    "clustering": Task.CLASSIFICATION,
}
"""Names that data uses for a task."""


def row_texts(row: Row) -> tuple[str, ...]:
    """Every text of a row that could be in an evaluation set, in order."""
    match row:
        case RetrievalRow():
            return (row.query, row.positive, *row.negatives)
        case BitextRow():
            return row.texts
        case ParaphraseRow():
            return (row.anchor, row.positive)
        case NliRow():
            return (row.anchor, row.positive, row.negative)
        case StsRow():
            return (row.text_a, row.text_b)
        case LabelledRow():
            return (row.text,)


def row_langs(row: Row) -> tuple[str, ...]:
    """Language of each text of `row_texts`."""
    match row:
        case RetrievalRow():
            return (row.lang_query, *[row.lang_doc] * (1 + len(row.negatives)))
        case BitextRow() | StsRow():
            return row.langs
        case ParaphraseRow():
            return (row.lang,) * 2
        case NliRow():
            return (row.lang,) * 3
        case LabelledRow():
            return (row.lang,)
