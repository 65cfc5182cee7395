"""What the encoder's tokenizer knows of the words of every script: its pieces, as they are spelt in Latin letters.

A tokenizer of a hundred languages takes seconds to spell, so it is done once for each and kept with the encoders.
"""

from __future__ import annotations

import gzip
import json
import logging
import os
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from search.romanize import SCRIPTS, romanize, script_group

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger(__name__)

VERSION = 1
WORD_START = "▁"
_AFTER_LATIN = "\u0370"
_MANY_LETTERS = frozenset(("Jpan", "Hani", "Kore"))
"""Scripts of thousands of characters, of which a small index uses few."""


class Spelt(NamedTuple):
    """A word or a piece of one in another script: a loose Latin spelling, its log-probability, if it begins a word."""

    spelling: str
    text: str
    score: float
    starts_word: bool


@dataclass(frozen=True)
class Pieces:
    """Pieces of a unigram tokenizer; of another one, none.

    Attributes:
        spelt: Of every script that is read in Latin letters.
        latin: Log-probabilities of those in Latin letters.
    """

    spelt: dict[str, list[Spelt]] = field(default_factory=dict)
    latin: dict[str, float] = field(default_factory=dict)

    def among(self, letters: Mapping[str, set[str]]) -> dict[str, list[Spelt]]:
        """Those of the given scripts; a letter that is not among a script's is one of another language."""
        return {
            script: [
                piece for piece in self.spelt.get(script, ()) if script in _MANY_LETTERS or known.issuperset(piece.text)
            ]
            for script, known in letters.items()
        }


@lru_cache(maxsize=2)
def load_pieces(path: Path, tokenizer: Tokenizer) -> Pieces:
    """The pieces kept at `path`, else those of the tokenizer, which are then kept there where that can be written."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = json.load(file)
        return Pieces(
            {script: [Spelt(*row) for row in found] for script, found in rows["spelt"].items()}, rows["latin"]
        )
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        pieces = spell_pieces(tokenizer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with gzip.open(temporary, "wt", encoding="utf-8", compresslevel=1) as file:
            file.write(json.dumps({"spelt": pieces.spelt, "latin": pieces.latin}, ensure_ascii=False))
        temporary.replace(path)
    except OSError as error:
        logger.info("the tokenizer's pieces are not kept: %s", error)
    return pieces


def pieces_path(encoders: Path, fingerprint: str) -> Path:
    """Where the pieces of an encoder's tokenizer are kept."""
    return encoders / "pieces" / f"{fingerprint}-{VERSION}.json.gz"


def spell_pieces(tokenizer: Tokenizer) -> Pieces:
    """Spell all pieces of a tokenizer. Costs 30 µs a piece."""
    spelt: dict[str, list[Spelt]] = defaultdict(list)
    latin: dict[str, float] = {}
    for text, score, starts_word in _unigrams(tokenizer):
        if text < _AFTER_LATIN and not text.startswith("<"):
            latin[WORD_START * starts_word + text] = round(score, 3)
            continue
        script = script_group(text)
        for name in ("Jpan", "Hani") if script == "Hani" else (script,):
            if name in SCRIPTS:
                spelt[name] += [
                    Spelt(spelling, text, round(score, 3), starts_word) for spelling in romanize(text, name)
                ]
    return Pieces(dict(spelt), latin)


def _unigrams(tokenizer: Tokenizer) -> Iterator[tuple[str, float, bool]]:
    """Pieces of a unigram tokenizer, their log-probability and whether they begin a word; none of another tokenizer."""
    model = json.loads(tokenizer.to_str())["model"]
    if model.get("type") == "Unigram":
        for piece, score in model["vocab"]:
            yield piece.removeprefix(WORD_START), score, piece.startswith(WORD_START)
