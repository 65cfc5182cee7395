"""What the engine and the indexer say in English, as the reader's language says it.

Both write sentences for people, on the command line and in the API as well. Here the kinds of them are known by their
wording; a sentence of no known kind is shown as it is.
"""

from __future__ import annotations

import re
from types import MappingProxyType

from ui.languages import number
from ui.messages import REFERENCE, Speaker

KINDS = MappingProxyType(
    {
        "empty": r"empty|no text",
        "password": r"password-protected",
        "unsafe": r"zip bomb|unsafe XML",
        "too_large": r"holds more than|needs more memory|\d+ MB, more than the limit|line \d+ is longer",
        "link": r"link |second link",
        "unsupported": r"format not supported|looks like binary data|not a regular file",
        "unreadable": r"cannot be read|folder cannot be read",
        "broken": r"broken|nested too|holds no list|row \d+ (?:has|cannot)|no column |line \d+ is no|record \d+ is",
        "same_id": r"another document has the same id",
    }
)
"""How the reasons of each kind to skip a file begin."""

SENTENCES = MappingProxyType(
    {
        "note.cut": r"the query has (?P<length>[\d,]+) characters; the first (?P<limit>[\d,]+) were searched",
        "note.no_word": r"the query holds no word, number or symbol to search for",
        "note.language": r"(?P<typed>.+) was read as words: (?P<code>.+) is no language code; here are (?P<held>.*)",
        "note.date": r"(?P<typed>.+) was read as words: a date is written (?P<example>.+)",
        "note.dates": r"no date is both from (?P<first>\S+) on and until (?P<last>\S+)",
        "note.nothing": r"nothing in the index matches (?P<typed>.+)",
        "note.phrase": r"no document holds (?P<quoted>.+); the words were searched without the quotation marks",
        "note.latin": r"no language in Latin letters was recognised; also searched for (?P<text>.+)",
        "note.unread": r"not reranked: (?P<error>.+)",
        "note.unmarked": r"only words that passage and query share are marked: (?P<error>.+)",
        "note.sampled": r"found on (?P<sampled>\d+) chunks, the other (?P<others>\d+) were assigned to them",
        "note.languages": r"(?P<topics>\d+) topics? may be a language rather than a subject",
        "problem.language": r"unknown language (?P<code>.+?)(?:; did you mean .*\?|\.) Codes .* holds (?P<held>.*)",
        "problem.document": r"there is no document (?P<document>.+) in the index; .*",
        "problem.page": r"k must be 1 to \d+ and offset 0 to .*",
        "problem.kind": r"(?P<name>.+) is of a kind that is not read; these are: (?P<kinds>.+)",
        "problem.too_large": r"(?P<name>.+) has (?P<size>\d+) MiB; at most (?P<limit>\d+) are taken",
        "problem.too_many": r"(?P<files>\d+) files at once; at most (?P<limit>\d+) can be uploaded",
        "problem.whole_path": r"write the folder's whole path, such as (?P<example>.+)",
        "problem.outside": r"(?P<path>.+) is outside the folders that may be read here \((?P<folders>.*)\); .*",
        "problem.no_folder": r"there is no folder (?P<path>.+) on the machine that runs this application",
    }
)
"""Notes on a search and errors of the pages: the message that says the same, and the English wording."""

_COUNTS = frozenset({"length", "limit", "sampled", "others", "topics", "size", "files"})


def kind_of(reason: str) -> str | None:
    """The kind of a reason, by how it begins; None of one that is of none of the kinds."""
    return next((kind for kind, begins in KINDS.items() if re.match(begins, reason)), None)


def reason_in(reason: str, say: Speaker) -> str:
    """The reason as the reader's language says it, the indexer's words, which are English, behind it.

    >>> reason_in("password-protected", Speaker("de"))
    'Mit einem Passwort geschützt (password-protected)'
    >>> reason_in("password-protected", Speaker("en"))
    'password-protected'
    """
    kind = kind_of(reason)
    return reason if kind is None or say.language == REFERENCE else f"{say(f'skip.{kind}')} ({say.isolated(reason)})"


def sentence_in(sentence: str, say: Speaker) -> str:
    """A note or an error as the reader's language says it.

    >>> sentence_in("nothing in the index matches 'lang:fi'", Speaker("de"))
    "Nichts im Index passt zu 'lang:fi'"
    """
    for key, wording in SENTENCES.items():
        if found := re.fullmatch(wording, sentence, re.DOTALL):
            return say(key, **{name: _value(name, text, say) for name, text in found.groupdict().items()})
    return sentence


def _value(name: str, text: str, say: Speaker) -> str:
    return number(int(text.replace(",", "")), say.language) if name in _COUNTS else text
