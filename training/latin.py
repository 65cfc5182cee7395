"""Texts of any script as people type them who have Latin letters alone: the other side of `search.transliterate`."""

from __future__ import annotations

import regex
from anyascii import anyascii

from search.romanize import read_japanese
from search.text import NO_SCRIPT, dominant_script

_LETTERS = r"[[\p{L}\p{M}]--\p{Latin}--[\u0300-\u036f]]"
_OTHER_LETTERS = regex.compile(rf"{_LETTERS}[{_LETTERS}\u200c\u200d]*", regex.V1)
_OTHER_POINTS = regex.compile(r"[\p{P}--\p{ASCII}]", regex.V1)
_SPACES = regex.compile(r" {2,}| (?=[,.;:?!)\]]|$)|(?<=^|[(\[]) ")
_HAN = regex.compile(r"\p{Han}")

_SMALL_Y = regex.compile(r"(?=[ゃゅょャュョ])")
_PALATAL = regex.compile(r"(?:(?<=sh|ch|j)i=y|i=(?=y))")
_SMALL_TSU = regex.compile(r"[っッ] ?")
_DOUBLED = regex.compile(r"~([a-z])")
_MARKS = str.maketrans(dict.fromkeys("=~"))

_HANGUL = regex.compile(r"\p{Hangul}+")
_SYLLABLES = ((regex.compile(r"(?<!l)L|l(?=[AEIOUWY])"), "r"), *(
    (regex.compile(rf"(?<=[aeiouy]){voiced}(?![AEIOUWYa-z])"), voiceless) for voiced, voiceless in ("gk", "dt", "bp")
))  # fmt: skip

_LEADING_VOWEL = regex.compile(r"(\p{LOE})(\p{L})")
_BARE_CONSONANT = regex.compile(
    r"(?=[\p{Deva}\p{Beng}\p{Gujr}\p{Guru}\p{Orya}\p{Taml}\p{Telu}\p{Knda}\p{Mlym}\p{Sinh}])"
    r"\p{InSC=Consonant}\p{InSC=Nukta}?+"
    r"(?![\p{InSC=Vowel_Dependent}\p{InSC=Virama}\p{InSC=Pure_Killer}])(?!(?<=.[\p{Deva}\p{Beng}\p{Gujr}\p{Guru}])$)"
)
"""A consonant that is read with a vowel that is not written; at the end of a word, northern languages read none."""
_ARABIC = str.maketrans("اأآٱةىإ", "aaaaaai")
_NOT_TYPED = str.maketrans(dict.fromkeys("'`\u200c\u200d"))


def is_latin(text: str) -> bool:
    """Whether most letters of a text are Latin, or it has none."""
    return dominant_script(text) in ("Latn", NO_SCRIPT)


def to_latin(text: str) -> str:
    """The text with every letter of another script in plain Latin ones; what is in Latin letters stays as it is.

    Words of Japanese and syllables of Chinese are set apart by spaces; tones and apostrophes are left out. Costs less
    than 0.1 ms for a query; the first Japanese text loads Sudachi's dictionary.

    Args:
        text: In any scripts.

    Worked: "как заваривать чай" is "kak zavarivat chay", "北京的饺子" is "bei jing de jiao zi", "नमक और पानी" is
    "namak aur pani", "ภาษาไทย" is "phasathaiy".

    Source: the tables of anyascii, character by character, by which the search reads queries (`search.romanize`).
    Differs: vowels that Indic scripts leave unwritten are added; Arabic alef is a vowel; vowels that Thai and Lao write
        before their consonant follow it; Korean is spelt as the Revised Romanization has it within a word; Japanese is
        read by Sudachi.
    """
    text = text.replace("\u200b", " ")  # the invisible space of Khmer
    japanese = dominant_script(text) == "Jpan"
    latin = _OTHER_LETTERS.sub(lambda run: _japanese(run[0]) if japanese else _plain(run[0]), text)
    latin = _OTHER_POINTS.sub(lambda point: anyascii(point[0]), latin)
    return _SPACES.sub(lambda found: " " if len(found[0]) > 1 else "", latin)


def _plain(run: str) -> str:
    written = _LEADING_VOWEL.sub(r"\2\1", run).translate(_ARABIC)
    written = _BARE_CONSONANT.sub(r"\g<0>a", written)
    written = _HAN.sub(lambda character: f" {anyascii(character[0])} ", written)
    written = _HANGUL.sub(lambda word: _korean(word[0]), written)
    return anyascii(written).lower().translate(_NOT_TYPED)


def _korean(word: str) -> str:
    latin = anyascii(word)  # a capital at the beginning of each syllable
    for letters, sound in _SYLLABLES:
        latin = letters.sub(sound, latin)
    return latin


def _japanese(run: str) -> str:
    words = " ".join(reading if _HAN.search(word) else word for word, reading in read_japanese(run))
    spelt = anyascii(_SMALL_TSU.sub("~", _SMALL_Y.sub("=", words))).lower()
    doubled = _DOUBLED.sub(r"\1\1", _PALATAL.sub("", spelt))
    return f" {doubled.translate(_MARKS)} "
