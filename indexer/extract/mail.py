"""E-mail messages."""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from indexer.extract.dates import to_rfc3339
from indexer.extract.encoding import clean, codec_name, declared_charset, decode
from indexer.extract.formats import Extracted
from indexer.extract.office import read_bounded, read_html_text
from search.errors import SourceError
from search.records import MetadataField


def read_eml(path: Path, max_bytes: int) -> Extracted:
    """A message: subject as title, the plain body or else the HTML body; attachments are only counted."""
    data = read_bounded(path, max_bytes)
    if not data.strip():
        raise SourceError("empty")
    message = message_from_bytes(data, policy=policy.default)
    if not message.keys():
        raise SourceError("broken eml file, or not eml at all (it has no header)")
    body = message.get_body(("plain", "html"))
    text = _body_text(body) if isinstance(body, EmailMessage) else ""
    metadata: dict[str, MetadataField] = {}
    for key in ("From", "To"):
        if value := _header(message, key):
            metadata[key.lower()] = value
    if count := sum(1 for _ in message.iter_attachments()):
        metadata["attachments"] = count
    subject = _header(message, "Subject")
    return Extracted(text or subject, subject, (), to_rfc3339(_header(message, "Date")), metadata)


def _header(message: EmailMessage, key: str) -> str:
    raw = next((str(value) for name, value in message.raw_items() if name.lower() == key.lower()), "")
    if not raw.isascii():  # bytes that the sender did not encode; the parser would replace them
        value = decode(raw.encode("utf-8", "surrogateescape"))
    else:
        try:
            value = str(message.get(key) or "")
        except (ValueError, LookupError, AttributeError, IndexError, TypeError):  # malformed headers make it raise
            value = raw
    return " ".join(clean(value).split())


def _body_text(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes) or not payload.strip():
        return ""
    charset = part.get_content_charset()
    if part.get_content_type() == "text/html":
        return read_html_text(_decode(payload, charset or declared_charset(payload))).text
    return _decode(payload, charset).strip()


def _decode(payload: bytes, charset: str | None) -> str:
    """By the charset the message names; stateful ones such as iso-2022-jp look like plain ASCII otherwise."""
    name = codec_name(charset)
    if name and name not in ("cp1252", "utf-8"):
        return clean(payload.decode(name, "replace"))
    return decode(payload, declared=charset)
