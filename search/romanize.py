"""Words of any script in plain Latin letters, spelt so loosely that the ways people type them meet.

`loose("Khorosho") == loose("horosho")`: digraphs become one letter, doubled letters single, and so on; what a script
leaves open besides, such as the vowels of Arabic, is left out of its `skeleton`.
"""

from __future__ import annotations

import re
import threading
from functools import lru_cache
from typing import TYPE_CHECKING

import regex
from anyascii import anyascii

from search.text import NO_SCRIPT, script_of

if TYPE_CHECKING:
    from sudachipy import Tokenizer

_SOUNDS = (
    ("shch", "S"), ("tsch", "C"), ("sch", "S"), ("tch", "C"), ("dzh", "j"), ("sh", "S"), ("ch", "C"), ("zh", "Z"),
    ("kh", "h"), ("ph", "f"), ("th", "t"), ("dh", "d"), ("bh", "b"), ("gh", "g"), ("jh", "j"), ("ts", "c"), ("tz", "c"),
    ("ck", "k"), ("ee", "i"), ("oo", "u"), ("ou", "u"),
)  # fmt: skip
_LETTERS = str.maketrans({"q": "k", "w": "v", "y": "i", "x": "h", "c": "C"})
_DIGRAPH = re.compile("|".join(digraph for digraph, _ in _SOUNDS))
_SOUND_OF = dict(_SOUNDS)
_DOUBLED = re.compile(r"(.)\1+")
_SILENT_END = re.compile(r"(?<=[aeiou])h$")
_NOT_LATIN = re.compile(r"[^a-z]+")
_VOWELS = re.compile("[aeiou]+")

_INDIC = ("Deva", "Beng", "Gujr", "Guru", "Orya", "Telu", "Knda", "Mlym", "Sinh")
_MERGED = {
    "Arab": str.maketrans("CSZg", "CSzk"), "Hebr": str.maketrans("vfpChSZ", "bbbkksz"),
    "Kore": str.maketrans("gdbjrZ", "ktpClC"), "Grek": str.maketrans("CbZ", "hvz"),
}  # fmt: skip
"""Sounds that one letter of a script stands for, or that its romanisations do not agree on."""
_MERGED |= dict.fromkeys(_INDIC, str.maketrans("Sm", "sn"))
_MERGED["Taml"] = str.maketrans("Smdbgj", "sntpkC")
_ONE_AT_A_TIME = threading.Lock()
_JAPANESE = regex.compile(r"(?<!\p{Han})\p{Han}{1,8}(?!\p{Han})|[\p{Katakana}ー]{2,}")
_WITHOUT_VOWELS = frozenset((*_INDIC, "Taml", "Arab", "Hebr", "Ethi"))
"""Scripts that do not write all vowels, or not as letters."""
_SPELT = {
    "Jpan": (("ー", ""), ("ou", "o"), ("oo", "o"), ("uu", "u"), ("dzu", "zu"), ("si", "shi"), ("tu", "tsu")),
    "Kore": (("eo", "o"), ("eu", "u"), ("ae", "e"), ("oe", "e")),
    "Grek": (("ou", "u"), ("mp", "b"), ("nt", "d"), ("gk", "g"), ("ei", "i"), ("oi", "i"), ("ai", "e")),
}
_ABJADS = {"Arab": "[vi]", "Hebr": "[vbi]"}
"""Letters that are vowels as well, of scripts of consonants."""
SCRIPTS = _WITHOUT_VOWELS.union(("Cyrl", "Grek", "Geor", "Armn", "Kore", "Jpan", "Hani"))
"""Scripts whose words can be recognised in Latin letters; the others put no spaces between words."""


@lru_cache(maxsize=4096)
def loose(latin: str, script: str) -> str:
    """Spelling of a word in Latin letters as a writer of `script` may mean it, in the letters a-z and S, C, Z."""
    return _DOUBLED.sub(r"\1", _sounds(latin, script))


def _sounds(latin: str, script: str) -> str:
    """One letter for each sound, doubled ones as they are."""
    plain = _NOT_LATIN.sub("", latin.lower())
    for written, sound in _SPELT.get(script, ()):
        plain = plain.replace(written, sound)
    sounds = _DIGRAPH.sub(lambda match: _SOUND_OF[match[0]], plain)
    return _SILENT_END.sub("", sounds).translate(_LETTERS).translate(_MERGED.get(script, {}))


def skeleton(spelling: str, script: str) -> str:
    """What of a loose spelling has to be equal: its consonants, and in scripts that write them its vowels as well."""
    return _VOWELS.sub("" if script in _WITHOUT_VOWELS else "a", spelling)


def writes_vowels(script: str) -> bool:
    """Whether a missing vowel tells two words of the script apart."""
    return script not in _WITHOUT_VOWELS


def romanize(word: str, script: str) -> list[str]:
    """Loose spellings of a word of `script`: several where a letter may stand for this or that, or for nothing."""
    if script in _ABJADS:
        written = (word[:-1] + "\u062a", word[:-1]) if word.endswith("\u0629") else (word,)
        found = ["".join(_sounds(anyascii(letter), script) for letter in form) for form in written]
        found += [spelling[:1] + re.sub(_ABJADS[script], "", spelling[1:]) for spelling in found]
    else:
        found = [_sounds(anyascii(_reading(word) if script == "Jpan" else word), script)]
    if script == "Cyrl":
        found.append(found[0].replace("g", "h"))
    single = [_DOUBLED.sub(r"\1", spelling) for spelling in found]
    every = [*single, *found] if script in _WITHOUT_VOWELS else single
    return list(dict.fromkeys(spelling for spelling in every if spelling))


@lru_cache(maxsize=65_536)
def _writing(character: str) -> str:
    script = script_of(character)
    return "Jpan" if script in ("Hira", "Kana") else "Kore" if script == "Hang" else script


def script_group(word: str) -> str:
    """The one of `SCRIPTS` that all letters of a word are in, kana with or without Han being `Jpan`; else empty."""
    found = set(map(_writing, word)) - {NO_SCRIPT}
    if found == {"Jpan", "Hani"}:
        return "Jpan"
    return found.pop() if len(found) == 1 and found <= SCRIPTS else ""


def split_japanese(text: str) -> list[str]:
    """Runs of Han and of katakana in Japanese text, which are mostly words; what is in hiragana joins them."""
    return _JAPANESE.findall(text)


def read_japanese(text: str) -> list[tuple[str, str]]:
    """Words of Japanese text, each with how it is read, in kana; threads may share the analyser."""
    with _ONE_AT_A_TIME:  # the analyser refuses a second thread
        return [(word.surface(), word.reading_form()) for word in _japanese().tokenize(text)]


def _reading(word: str) -> str:
    """How Japanese is read, in kana."""
    return "".join(reading for _, reading in read_japanese(word) if reading != "キゴウ")


@lru_cache(maxsize=1)
def _japanese() -> Tokenizer:
    import sudachipy

    return sudachipy.Dictionary(dict="small").tokenizer()
