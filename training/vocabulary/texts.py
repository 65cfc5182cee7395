"""Texts by language: of folders and files, or those that come with the package."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import TrainingDataError
from search.language import supported_languages
from search.text import counted
from training.pipeline import Report
from training.synthesis.documents import ReadCounts, iter_source_documents

if TYPE_CHECKING:
    from tokenizers import Tokenizer

HELD_OUT = 0.1
"""Share of the passages that only judge."""
LANGUAGE_TAG = re.compile("[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*")
Texts = Mapping[str, Sequence[str]]
"""Passages by language."""


def read_texts(sources: Sequence[Path], tokenizer: Tokenizer, report: Report) -> dict[str, list[str]]:
    """Passages of folders, files and JSON lines (`text`, `lang`), as they would be indexed, by language.

    `report` is told how much was read, and what was passed over and why.

    Raises:
        SourceError: A folder cannot be read.
        TrainingDataError: A JSON line does not fit, or there is no text at all.
    """
    counts, found = ReadCounts(), defaultdict[str, list[str]](list)
    for source in sources:
        for document in iter_source_documents(source, tokenizer=tokenizer, counts=counts):
            found[document.lang].append(document.passage)
    for name, reason in counts.skipped.items():
        report(f"skipped {name}: {reason}")
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(counts.skipped.items())[:3])
        raise TrainingDataError(
            f"{', '.join(map(str, sources))}: no text{f' ({reasons})' if reasons else ''}; give a folder of documents "
            "or JSON lines with `text` and `lang`."
        )
    passages = ", ".join(f"{lang} {len(found[lang])}" for lang in sorted(found))
    report(f"{counted(counts.documents, 'document')}, passages: {passages}")
    return dict(found)


def packaged_texts(languages: Collection[str] | None = None) -> dict[str, list[str]]:
    """Passages that come with the package, in 27 languages; only those of `languages`, if any are given."""
    from training.adapt.general import general_rows
    from training.data.schema import RetrievalRow

    found: dict[str, list[str]] = defaultdict(list)
    for row in general_rows((), seed=0):
        if isinstance(row, RetrievalRow) and (languages is None or row.lang_doc in languages):
            found[row.lang_doc].append(row.positive)
    return dict(found)


def texts_of_language(texts: Texts, lang: str) -> list[str]:
    """The passages in one language.

    One that no detector knows is taken at the user's word: all passages are in it.

    Raises:
        TrainingDataError: None is in that language, or `lang` is no tag of a language.
    """
    if not LANGUAGE_TAG.fullmatch(lang):
        raise TrainingDataError(f"{lang!r} is no BCP-47 tag of a language, such as `gn` or `zh-Hant`.")
    if lang in texts:
        return list(texts[lang])
    if lang not in supported_languages():
        return [text for found in texts.values() for text in found]
    held = ", ".join(f"{found} {len(passages)}" for found, passages in sorted(texts.items()))
    raise TrainingDataError(f"no passage in {lang!r}; there are: {held}. Name one of these, or give other texts.")


def iter_pairs(texts: Texts) -> Iterator[tuple[str, str]]:
    """Pairs of language and passage."""
    for lang, passages in texts.items():
        for passage in passages:
            yield lang, passage


def split_held_out(texts: Texts, share: float = HELD_OUT) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Passages to learn from and passages to judge on, the same ones every time; equal passages are on one side."""
    parts: tuple[dict[str, list[str]], dict[str, list[str]]] = {}, {}
    for lang, text in iter_pairs(texts):
        place = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big") / 2**32
        parts[place < share].setdefault(lang, []).append(text)
    return parts
