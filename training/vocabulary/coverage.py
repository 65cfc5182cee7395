"""How a tokenizer cuts the texts of each language: what it reads whole, what it shreds, what it cannot read."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from search.text import dominant_script, script_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LETTERS = {"Hani": 3.9, "Yiii": 3.5, "Hang": 2.5, "Hira": 1.7, "Kana": 1.7, "Bopo": 1.7, "Ethi": 1.7}
"""Letters that a character of a script says as much as, where it stands for a syllable or a word; others: 1. From the
lengths of one text in all of them (results/coverage.md)."""
COSTLY, SHREDDED = 1.25, 1.4
"""Tokens of a letter, as a multiple of the median language's (results/coverage.md)."""
UNREADABLE, LOST = 0.01, 0.2
"""Shares of characters that the tokenizer does not know."""
LEAST_CHARACTERS = 500
"""Of less text nothing is said."""
SPACE = "▁"


class Verdict(StrEnum):
    """What a language's figures mean."""

    FINE = "fine"
    COSTLY = "costly"
    SHREDDED = "shredded"
    UNREADABLE = "unreadable"
    LOST = "lost"
    UNSURE = "too little text"


@dataclass(slots=True)
class Counts:
    """Sums over the passages of one language.

    `letters` counts characters as `LETTERS` says, `single` the tokens that are one letter, `worded` those
    that hold a letter. `unknown` are tokens, `unknown_characters` what they stand for.
    """

    passages: int = 0
    characters: int = 0
    letters: float = 0.0
    tokens: int = 0
    unknown: int = 0
    unknown_characters: int = 0
    single: int = 0
    worded: int = 0
    lengths: list[int] = field(default_factory=list)
    scripts: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class LanguageCoverage:
    """Figures of one language.

    Attributes:
        lang: BCP-47.
        script: The script of most passages.
        passages: How many.
        characters: Of all passages, spaces included.
        tokens_per_100_characters: What the index and the encoder's time cost.
        unknown_tokens: Share of the tokens.
        unknown_characters: Share of the characters that they stand for: what the encoder does not see.
        single_letters: Share of the tokens with letters that are one letter. High in Chinese by nature.
        median_tokens: Of a passage.
        characters_that_fit: Of the encoder's limit of tokens.
        ratio: Tokens of a letter (`LETTERS`), as a multiple of the median language's.
        verdict: What that means.
    """

    lang: str
    script: str
    passages: int
    characters: int
    tokens_per_100_characters: float
    unknown_tokens: float
    unknown_characters: float
    single_letters: float
    median_tokens: float
    characters_that_fit: int
    ratio: float
    verdict: Verdict

    @property
    def advice(self) -> str:
        """What the verdict means for a search and what to do, in words; empty where all is well."""
        match self.verdict:
            case Verdict.LOST:
                return (
                    f"{self.unknown_characters:.0%} of the characters are unknown to the encoder, which cannot tell "
                    "such texts apart: take another encoder. What `training extend` adds means nothing at first"
                )
            case Verdict.UNREADABLE:
                return (
                    f"{self.unknown_characters:.1%} of the characters are unknown to the encoder: `training extend` "
                    "adds them, `training adapt` then teaches what they mean"
                )
            case Verdict.SHREDDED:
                return (
                    f"cut into {self.ratio:.1f} times the tokens of the median language: indexing is slower, and of a "
                    f"passage only {self.characters_that_fit:,} characters are read. `training extend`, then `training "
                    "adapt`; or take another encoder"
                )
            case Verdict.COSTLY:
                return f"cut into {self.ratio:.1f} times the tokens of the median language; nothing needs to be done"
            case Verdict.UNSURE:
                return f"{self.characters:,} characters are too few to say"
            case Verdict.FINE:
                return ""

    def as_row(self) -> dict[str, object]:
        """For `--json`."""
        return asdict(self)


def count_tokens(tokenizer: Tokenizer, texts: Iterable[tuple[str, str]]) -> dict[str, Counts]:
    """Counts of each language.

    Args:
        tokenizer: Cuts the texts, without special tokens.
        texts: Pairs of language and text.
    """
    unknown = _unknown_id(tokenizer)
    found: dict[str, Counts] = defaultdict(Counts)
    for lang, text in texts:
        encoding = tokenizer.encode(text, add_special_tokens=False)
        counts = found[lang]
        counts.passages += 1
        counts.characters += len(text)
        counts.letters += sum(LETTERS.get(script_of(char), 1) for char in text)
        counts.tokens += len(encoding)
        counts.lengths.append(len(encoding))
        counts.scripts[dominant_script(text)] += 1
        for token_id, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            letters = text[start:end].strip()
            if token_id == unknown:
                counts.unknown += 1
                counts.unknown_characters += len(letters)
            elif any(map(str.isalpha, letters)):
                counts.worded += 1
                counts.single += len(letters) == 1
    return dict(found)


def judge_coverage(
    counts: Mapping[str, Counts], *, reference: Mapping[str, Counts], max_tokens: int
) -> list[LanguageCoverage]:
    """Figures and verdict of each language, the worst first.

    Args:
        counts: Of the languages to judge.
        reference: Of the languages whose median they are compared with, by the same tokenizer.
        max_tokens: The encoder's limit.
    """
    usual = median(_per_letter(one) for one in reference.values())
    rows = [_coverage(lang, one, usual, max_tokens) for lang, one in counts.items() if one.characters]
    return sorted(rows, key=lambda row: (-row.unknown_characters, -row.ratio, row.lang))


def used_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> set[int]:
    """Numbers of the tokens that the texts are made of, special ones included."""
    return {token_id for encoding in tokenizer.encode_batch_fast(list(texts)) for token_id in encoding.ids}


def _coverage(lang: str, counts: Counts, usual: float, max_tokens: int) -> LanguageCoverage:
    tokens = counts.tokens or 1
    ratio = _per_letter(counts) / usual
    unknown = counts.unknown_characters / counts.characters
    return LanguageCoverage(
        lang=lang,
        script=min(counts.scripts, key=lambda script: (-counts.scripts[script], script)),
        passages=counts.passages,
        characters=counts.characters,
        tokens_per_100_characters=100 * counts.tokens / counts.characters,
        unknown_tokens=counts.unknown / tokens,
        unknown_characters=unknown,
        single_letters=counts.single / (counts.worded or 1),
        median_tokens=float(np.median(counts.lengths)),
        characters_that_fit=int(max_tokens * counts.characters / tokens),
        ratio=ratio,
        verdict=_verdict(counts.characters, unknown, ratio),
    )


def _verdict(characters: int, unknown: float, ratio: float) -> Verdict:
    if characters < LEAST_CHARACTERS:
        return Verdict.UNSURE
    if unknown >= UNREADABLE:
        return Verdict.LOST if unknown >= LOST else Verdict.UNREADABLE
    if ratio >= COSTLY:
        return Verdict.SHREDDED if ratio >= SHREDDED else Verdict.COSTLY
    return Verdict.FINE


def _per_letter(counts: Counts) -> float:
    return counts.tokens / max(1, counts.letters)


def _unknown_id(tokenizer: Tokenizer) -> int | None:
    """The number of the token for what cannot be read; None: there is none, as with bytes."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("byte_fallback"):
        return None
    number = model.get("unk_id")
    return int(number) if number is not None else tokenizer.token_to_id(str(model.get("unk_token")))
