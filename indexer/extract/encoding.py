"""Bytes to clean text in whatever encoding they are."""

from __future__ import annotations

import codecs
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from indexer.extract.legacy import guess_legacy
from search.errors import SourceError
from search.text import script_counts

SAMPLE_BYTES = 64 * 1024
BLOCK_BYTES = 1024 * 1024
NOT_TEXT = "looks like binary data, not text"

_ALIASES = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "latin-1": "cp1252", "iso8859-9": "cp1254", "iso8859-8": "cp1255",
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949",
    "tis-620": "cp874", "iso8859-11": "cp874",
}  # fmt: skip
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAGIC = (
    b"%PDF-",
    b"PK\x03\x04",
    b"\x89PNG",
    b"GIF8",
    b"\xff\xd8\xff",
    b"\x7fELF",
    b"\x1f\x8b",
    b"\xd0\xcf\x11\xe0",
    b"PAR1",
    b"SQLite format 3",
)
_ARMOUR = b"-----BEGIN "  # keys, certificates, signatures
_NO_TEXT_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_ISO_2022_JP = re.compile(rb"\x1b\$[@B].*\x1b\([BJ]", re.DOTALL)
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
_DECLARED = re.compile(rb"""(?:charset\s*=|encoding\s*=)\s*["']?\s*([A-Za-z0-9._:-]{2,40})""", re.IGNORECASE)
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")


@dataclass(frozen=True, slots=True)
class Encoding:
    """A codec name and the bytes of the byte-order mark before the text."""

    name: str
    skip: int = 0


def detect_encoding(head: bytes, sample: bytes | None = None, *, declared: str | None = None) -> Encoding:
    """The encoding of text that begins with `head`; `sample` is a part of it that is not plain ASCII.

    Raises:
        SourceError: The bytes are no text.
    """
    for mark, name in _BOMS:
        if head.startswith(mark):
            return Encoding(name, len(mark))
    sample = head if sample is None else sample
    if head.startswith(_MAGIC):
        raise SourceError(NOT_TEXT)
    if _has_controls(head):
        return Encoding(_or_refuse(_wide(head)))
    if sample.isascii() and _ISO_2022_JP.search(head):
        return Encoding("iso2022_jp")
    if sample.isascii() or _is_utf8(sample):
        return Encoding("utf-8")
    wanted = codec_name(declared)
    if wanted and _decodes(sample, wanted):
        return Encoding(wanted)
    return Encoding(_or_refuse(guess_legacy(sample) or _wide(head) or _rare(sample)))


def looks_binary(head: bytes) -> bool:
    """Whether a file that begins with `head` is certainly no text: a glance, where `detect_encoding` is thorough."""
    if head.startswith(tuple(mark for mark, _ in _BOMS)):
        return False
    if head.startswith((*_MAGIC, _ARMOUR)):
        return True
    return _has_controls(head) and _wide(head) is None


def _rare(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes

    guess = from_bytes(sample).best()
    return str(guess.encoding) if guess else None


def _or_refuse(name: str | None) -> str:
    if name is None:
        raise SourceError(NOT_TEXT)
    return name


def declared_charset(head: bytes) -> str | None:
    """The charset that an HTML or XML file names in its first lines."""
    match = _DECLARED.search(head[:4096])
    return match[1].decode("ascii") if match else None


def codec_name(charset: str | None) -> str | None:
    """Python's codec for a charset label, the way browsers read it (latin-1 is windows-1252), or None."""
    try:
        name = codecs.lookup((charset or "").removesuffix("-i")).name
    except LookupError:
        return None
    return _ALIASES.get(name, name) if getattr(codecs.lookup(name), "_is_text_encoding", True) else None


def decode(data: bytes, *, declared: str | None = None) -> str:
    """Bytes in memory as clean text. Raises SourceError when they are no text."""
    encoding = detect_encoding(data[:SAMPLE_BYTES], _first_non_ascii(data), declared=declared)
    return clean(data[encoding.skip :].decode(encoding.name, "replace"))


def detect_stream(stream: BinaryIO, *, declared: str | None = None) -> Encoding:
    """As `detect_encoding`, for a seekable stream; reads on to the first part that is not ASCII, then rewinds."""
    head = block = stream.read(SAMPLE_BYTES)
    while block and block.isascii() and not _is_wide(head):
        block = stream.read(BLOCK_BYTES)
    sample = _first_non_ascii(block) + (stream.read(SAMPLE_BYTES) if len(block) < SAMPLE_BYTES else b"")
    stream.seek(0)
    return detect_encoding(head, sample or head, declared=declared)


def read_text(stream: BinaryIO, *, max_bytes: int, declared: str | None = None) -> str:
    """A whole stream as clean text, decoded in blocks so that each keeps its compact form in memory."""
    return "".join(_iter_clean(stream, detect_stream(stream, declared=declared), max_bytes))


def _iter_clean(stream: BinaryIO, encoding: Encoding, max_bytes: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding.name)("replace")
    stream.read(encoding.skip)
    total, held = 0, ""
    while block := stream.read(BLOCK_BYTES):
        total += len(block)
        if total > max_bytes:
            raise SourceError(f"holds more than the limit of {max_bytes / 1e6:.0f} MB; split it")
        text = held + decoder.decode(block)
        held = "\r" if text.endswith("\r") else ""
        yield clean(text[:-1] if held else text)
    yield clean(held + decoder.decode(b"", final=True))


def clean(text: str) -> str:
    """Line ends as `\\n`; control characters other than tab, lone surrogates and byte-order marks removed."""
    if text.isascii() and text.isprintable():
        return text
    return _UNWANTED.sub("", _LINE_END.sub("\n", text))


def _first_non_ascii(data: bytes) -> bytes:
    """A bounded part of `data` around its first byte above 127; the head where there is none."""
    match = re.search(rb"[\x80-\xff]", data)
    return data[match.start() : match.start() + SAMPLE_BYTES] if match else data[:SAMPLE_BYTES]


def _is_utf8(sample: bytes) -> bool:
    valid = _UTF8_SEQUENCE.findall(sample)
    above = len(sample) - len(sample.translate(None, bytes(range(128, 256))))
    stray = above - sum(map(len, valid))
    return len(valid) >= 2 * stray


def _has_controls(head: bytes) -> bool:
    """More control characters than text of an encoding with one byte a character holds."""
    return _is_wide(head) or len(_NO_TEXT_CONTROL.findall(head)) > max(3, 0.05 * len(head))


def _is_wide(head: bytes) -> bool:
    """More NUL bytes than the odd stray one."""
    return head.count(0) > 0.002 * len(head)


def _wide(head: bytes) -> str | None:
    """UTF-16 without a mark, or None: a script has few high bytes and many low ones, which tells the byte order."""
    even = head[: len(head) // 2 * 2]
    name = "utf-16-le" if _entropy(even[1::2]) <= _entropy(even[::2]) else "utf-16-be"
    text = even.decode(name, "ignore")
    strange = len(even) // 2 - len(text) + len(_UNWANTED.findall(text))
    strange += sum(unicodedata.category(c) in ("Cn", "Co") for c in text)
    return name if strange <= 0.02 * len(text) and _in_one_script(text) else None


def _in_one_script(text: str) -> bool:
    """Whether the text is mostly letters, and those beyond ASCII are of one script (or the three of Japanese)."""
    scripts = Counter(script_counts("".join(c for c in text if not c.isascii())))
    east_asian = sum(scripts[script] for script in ("Hani", "Hira", "Kana"))
    usual = sum(c.isalnum() or c.isspace() or unicodedata.category(c)[0] in "MP" for c in text)
    return usual >= 0.8 * len(text) > 0 and max([east_asian, *scripts.values()]) >= 0.9 * scripts.total()


def _entropy(data: bytes) -> float:
    return -sum(n / len(data) * math.log2(n / len(data)) for n in Counter(data).values())


def _decodes(sample: bytes, name: str) -> bool:
    """Whether at most one character in a hundred does not fit; a torn end is forgiven."""
    try:
        text = codecs.getincrementaldecoder(name)("replace").decode(sample)
    except (LookupError, ValueError, AssertionError):
        return False
    return text.count("\ufffd") <= max(0.01 * len(text), 1)
