"""Documents that callers send: kept as files in a folder of their own, which is ingested like any other."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from search.errors import QueryError, StoreError
from search.records import MetadataField
from search.settings import Settings

EXTENSION = ".md"
KEY_FIELD = "key"
"""Metadata field in which an uploaded document carries the key that it was sent under."""
_MOST_KEY_BYTES, _MOST_PART_BYTES = 700, 200
_NOT_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_RESERVED = frozenset(("title", "date", KEY_FIELD))


class Uploads:
    """The folder of uploaded documents of one index."""

    def __init__(self, settings: Settings) -> None:
        self.folder = settings.home / "uploads" / settings.index_label

    def put(
        self, key: str, text: str, *, title: str = "", date: str | None = None, metadata: Mapping[str, MetadataField]
    ) -> Path:
        """Write a document, in place of one of the same key; it is there whole or not at all.

        Raises:
            QueryError: The key or the metadata cannot be kept.
            StoreError: The disk refuses.
        """
        path = self.path_of(key)
        body = _front_matter(key, title, date, metadata) + text
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8", newline="") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except UnicodeEncodeError as error:
            raise QueryError(f"document {key!r} holds half a character (a lone surrogate); send valid text") from error
        except OSError as error:
            message = f"document {key!r} cannot be kept: {error.strerror or error}"
            raise StoreError(f"{message}. Look at the room and the rights in {self.folder}.") from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        return path

    def remove(self, key: str) -> bool:
        """Remove the file of a key; whether there was one."""
        try:
            self.path_of(key).unlink()
        except (FileNotFoundError, QueryError):
            return False
        return True

    def holds(self, key: object, source: str) -> bool:
        """Whether a passage of this source and metadata `key` comes from a file here."""
        prefix = re.escape(self.folder.name)  # the index puts it, perhaps with a number, before the folder's files
        if not isinstance(key, str) or not re.fullmatch(rf"(?:{prefix}\d*/)?{re.escape(key)}\{EXTENSION}", source):
            return False
        with suppress(QueryError):
            return self.path_of(key).is_file()
        return False

    def path_of(self, key: str) -> Path:
        """Where the document of a key is kept; always inside the folder.

        Raises:
            QueryError: The key is no plain relative path.
        """
        parts = key.split("/")
        named = all(part and not part.startswith((".", "~$")) for part in parts)
        short = max(len(_bytes(part)) for part in parts) <= _MOST_PART_BYTES
        if not (named and short) or not key.isprintable() or "\\" in key or len(_bytes(key)) > _MOST_KEY_BYTES:
            raise QueryError(
                f"{key[:80]!r} cannot be a document's key; use names such as `notes/2024-05-01` or `文書/1`: "
                "printable, no part empty or beginning with a dot, no backslash, at most "
                f"{_MOST_PART_BYTES} bytes a part and {_MOST_KEY_BYTES} together"
            )
        path = self.folder / f"{key}{EXTENSION}"
        if not path.resolve().is_relative_to(self.folder):
            raise QueryError(f"{key[:80]!r} leads out of the folder of uploads; use another key")
        return path


def _front_matter(key: str, title: str, date: str | None, metadata: Mapping[str, MetadataField]) -> str:
    """The fields as YAML, each a line of JSON, which YAML reads as it is."""
    if taken := sorted({name.casefold() for name in metadata} & _RESERVED):
        raise QueryError(f"metadata cannot be named {', '.join(taken)}: title, date and key are fields of their own")
    fields = {KEY_FIELD: key, "title": title or None, "date": date, **metadata}
    lines = [f"{_as_yaml(name)}: {_as_yaml(value)}" for name, value in fields.items() if value is not None]
    return "\n".join(("---", *lines, "---", ""))


def _as_yaml(value: object) -> str:
    """JSON, with escapes only where YAML needs them: two of them for one character would be read as none."""
    text = json.dumps(value, ensure_ascii=False)
    return _NOT_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
