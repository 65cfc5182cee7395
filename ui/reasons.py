"""Why a file was skipped, in the reader's language: what kind of reason it is, and the indexer's own words for it."""

from __future__ import annotations

import re
from types import MappingProxyType

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
"""How the reasons of each kind begin."""


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
    return reason if kind is None or say.language == REFERENCE else f"{say(f'skip.{kind}')} ({reason})"
