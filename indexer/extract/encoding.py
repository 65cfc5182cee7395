"""Bytes to clean text in whatever encoding they are."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from search.errors import SourceError

SAMPLE_BYTES = 64 * 1024
BLOCK_BYTES = 1024 * 1024
NOT_TEXT = "looks like binary data, not text"

_CHINESE = (
    "的一是不了在人有我他中大上到出以子会自着去之家学可里后小么心多天而能好都然没日于起发成事只作当想看文用主行方又如前所本面公同三已老从"
    "动两长知民样现分外但身些与高意进把法此二理美点月明其种全工己话儿者向情部正名定女力机等很因位因被走第相次海口使西再平世北少加化由却"
    "这来国个们为说地时年得就那要下生过对她还头经实给几业最间新什打便重电四门东政教真听气信关并内军产入先山五太水万市"
)
_TRADITIONAL = (
    "這來國個們為說時會後過對還頭經實給幾業間電門東教氣關並內軍產萬"
    "學發無開現長從動樣與進點種話員書車見體當讓認將應東樂歷麼沒於灣"
)
_KANA = (
    "のにはをたがでてとしれさいるなっらりかくすもことまよきうそあえせつどお"
    "けだめばわちみじろげやンスルトイラアックシリドレジタフロテマプサメコキオ"
)
_HANGUL = (
    "이다는을에의가고하지한로도를은기사서나어대그시정들있일자리수"
    "인스해과부전아주보제상적게와구동장만것라여오소원으비해니며문"
)

# What real text in an encoding mostly consists of, ASCII aside. Only letters that tell it from its neighbours count.
_COMMON = {
    "cp1252": "éèàêçôîùûâëïäöüßñáíóúãõåæøœìò«»’“”–—¿¡°ÉÀÖÄÜ€",
    "cp1250": "ąćęłńśźżčďěňřšťůžőűăşţâîáéíóúýöüäô„”–ŁŚŻČŠŽ",
    "cp1254": "ğışçöüâîûĞİŞÇÖÜ’“”",
    "cp1257": "āčēģīķļņšūžąęėįųõäöü„“–",
    "cp1251": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфёіїєґў«»—№–",
    "koi8-r": "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфё",
    "cp1253": "αοιετσνηυρκπμλςγδθχφβωξζψάέήίόύώ«»–",
    "cp1255": "אבגדהוזחטיכךלמםנןסעפףצץקרשתְֱִֵֶַָֹּׁ־–",
    "cp1256": "ابتثجحخدذرزسشصضطظعغفقكلمنهويةىءأإآؤئ،؛؟پچگژ",
    "cp874": "กขคงจชซญดตถทธนบปผพภมยรลวศษสหอะัาำิีึืุูเแโใไ็่้๊์ๆ",
    "cp932": _KANA + "、。「」ー・",
    "euc_jp": _KANA + "、。「」ー・",
    "gb18030": _CHINESE + "，。、：；“”《》（）",
    "big5hkscs": "".join(set(_CHINESE + _TRADITIONAL)) + "，。、：；「」《》（）",
    "cp949": _HANGUL,
}
_ALIASES = {
    "iso8859-1": "cp1252", "ascii": "cp1252", "latin-1": "cp1252", "iso8859-9": "cp1254", "iso8859-8": "cp1255",
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949",
    "tis-620": "cp874", "iso8859-11": "cp874",
}  # fmt: skip
_COMMON_SETS = {name: frozenset(characters) for name, characters in _COMMON.items()}
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
_NO_TEXT_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_LINE_END = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff\ufffe\uffff]")
_WORD_OF_TWO_SCRIPTS = re.compile("[A-Za-z][\u0370-\u06ff\u0e00-\u0e7f]|[\u0370-\u06ff\u0e00-\u0e7f][A-Za-z]")
_THAI_OUT_OF_ORDER = re.compile("(?<![ก-๎])[ะ-ฺ็-๎]|[ัิ-ฺ]{2}")
_CASE_BREAK = re.compile("[a-zа-яα-ωà-öø-þ][А-ЯΑ-ΩÀ-ÖØ-Þ]")
_DECLARED = re.compile(rb"""(?:charset\s*=|encoding\s*=)\s*["']?\s*([A-Za-z0-9._:-]{2,40})""", re.IGNORECASE)
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_MIN_SCORE = 0.35


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
    if _is_wide(head):
        return Encoding(_wide(head))
    if len(_NO_TEXT_CONTROL.findall(head)) > max(3, 0.05 * len(head)):
        raise SourceError(NOT_TEXT)
    if sample.isascii() or _is_utf8(sample):
        return Encoding("utf-8")
    wanted = codec_name(declared)
    if wanted and _decodes(sample, wanted):
        return Encoding(wanted)
    return Encoding(_legacy(sample))


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


def _is_wide(head: bytes) -> bool:
    """More NUL bytes than the odd stray one."""
    return head.count(0) > 0.002 * len(head)


def _wide(head: bytes) -> str:
    """UTF-16 without a mark: the byte order in which spaces, line ends and punctuation come out."""
    even = head[: len(head) // 2 * 2]
    best, best_score = "", 0.0
    for name in ("utf-16-le", "utf-16-be"):
        text = even.decode(name, "replace")
        strange = len(_UNWANTED.findall(text.translate({9: None, 10: None, 13: None}))) + text.count("\ufffd")
        plain = sum(map(text.count, " \n.,'-0123456789aeinrst、。，のい"))
        if strange <= 0.02 * len(text) and plain / max(len(text), 1) > best_score:
            best, best_score = name, plain / len(text)
    if best_score < 0.01:
        raise SourceError(NOT_TEXT)
    return best


def _decodes(sample: bytes, name: str) -> bool:
    return _lenient(sample, name) is not None


def _lenient(sample: bytes, name: str) -> str | None:
    """The sample decoded, or None where more than one character in a hundred does not fit; its torn end is forgiven."""
    try:
        text = codecs.getincrementaldecoder(name)("replace").decode(sample)
    except (LookupError, ValueError, AssertionError):
        return None
    return text if text.count("\ufffd") <= max(0.01 * len(text), 1) else None


def _legacy(sample: bytes) -> str:
    scores = {name: _score(text, name) for name in _COMMON_SETS if (text := _lenient(sample, name)) is not None}
    best = max(scores, key=lambda name: scores[name], default="")
    if best and scores[best] >= _MIN_SCORE:
        return best
    from charset_normalizer import from_bytes

    guess = from_bytes(sample).best()
    if guess is None:
        raise SourceError(NOT_TEXT)
    return str(guess.encoding)


def _score(text: str, name: str) -> float:
    """How usual the text's non-ASCII characters are for this encoding: 1 all common, below 0 mostly nonsense."""
    common = _COMMON_SETS[name]
    foreign = [c for c in text if c > "\x7f"]
    if not foreign:
        return 0.0
    good = sum(c in common for c in foreign)
    letters = sum(
        c not in common and c.isalpha() and not "\uff61" <= c <= "\uff9f" and not "\ue000" <= c <= "\uf8ff"
        for c in foreign
    )
    odd = len(foreign) - good - letters
    breaks = sum(len(rule.findall(text)) for rule in (_WORD_OF_TWO_SCRIPTS, _CASE_BREAK, _THAI_OUT_OF_ORDER))
    return (good + 0.3 * letters - odd - breaks) / len(foreign)
