"""The words of an index, with how often and in which language they occur: for spelling and for other scripts.

Built from the passages once per generation and kept beside the index in `words/`, so that the next process only reads
it. Bounded: from 50,000 passages at the most (a random sample, since passages are read by the order of their hashed
ids), the 100,000 most frequent words of each script.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, pairwise
from math import log
from pathlib import Path
from typing import NamedTuple

import regex

from search.manifest import IndexManifest
from search.pieces import Spelt
from search.romanize import SCRIPTS, romanize, script_group, split_japanese
from search.store.base import VectorStore
from search.text import has_spaces_between_words, script_of

logger = logging.getLogger(__name__)

VERSION = 2
MOST_PASSAGES = 50_000
MOST_WORDS = 100_000
_MOST_COUNTED = 2_000_000
_LONGEST_WORD = 30
_WORD_SCORE, _BEST_WORD_SCORE = -9.0, -5.0
_SAME_WORDS = 0.02
"""An index that has grown or shrunk by no more has nearly the words that it had."""
_RUNS = regex.compile(r"[\p{L}\p{M}\u200c\u200d]+")


class Word(NamedTuple):
    """A word in lower case, in how many passages it is, and in which language mostly."""

    text: str
    passages: int
    lang: str


@dataclass(frozen=True)
class Vocabulary:
    """Words of an index.

    Attributes:
        words: Words of scripts with spaces, and of Korean, most frequent first.
        spelt: By script, how its words are spelt in Latin letters.
    """

    words: list[Word] = field(default_factory=list)
    spelt: dict[str, list[Spelt]] = field(default_factory=dict)

    def letters(self) -> dict[str, set[str]]:
        """The letters of its words, by script."""
        return {script: set().union(*(word.text for word in found)) for script, found in self.spelt.items()}

    def save(self, path: Path) -> None:
        """Write it, so that a crash leaves no half of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        with gzip.open(temporary, "wt", encoding="utf-8", compresslevel=1) as file:
            file.write(json.dumps({"words": self.words, "spelt": self.spelt}, ensure_ascii=False))
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            OSError, ValueError: There is no such file, or it is damaged.
        """
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = json.load(file)
        spelt = {script: [Spelt(*row) for row in found] for script, found in rows["spelt"].items()}
        return cls([Word(*row) for row in rows["words"]], spelt)


def vocabulary_path(index_folder: Path, manifest: IndexManifest) -> Path:
    """Where the vocabulary of this state of an index is kept."""
    rules = hashlib.sha256(f"{VERSION} {manifest.encoder_fingerprint}".encode()).hexdigest()[:12]
    state = hashlib.sha256(f"{manifest.updated} {manifest.created}".encode()).hexdigest()[:12]
    return index_folder / "words" / f"{rules}-{manifest.chunks}-{state}.json.gz"


def adopt_vocabulary(path: Path) -> bool:
    """Whether `path` is there, or that of an earlier state with nearly as many passages, which then takes its name."""
    if path.exists():
        return True
    rules, chunks, _ = path.name.split("-")
    for old in path.parent.glob(f"{rules}-*.json.gz"):
        if abs(int(chunks) - int(old.name.split("-")[1])) <= _SAME_WORDS * int(chunks):
            old.replace(path)
            return True
    return False


def keep_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Keep it beside the index in place of older ones; an index that cannot be written to goes without."""
    try:
        vocabulary.save(path)
    except OSError as error:
        logger.info("the words of the index are not kept: %s", error)
        return
    for old in path.parent.glob("*.json.gz"):
        if old != path:
            with suppress(OSError):
                old.unlink()


def build_vocabulary(store: VectorStore) -> Vocabulary:
    """Read the words of an index. Costs about 0.2 ms a passage."""
    by_script = _most_frequent(_count(store))
    spelt: dict[str, list[Spelt]] = {}
    for script in SCRIPTS.intersection(by_script):
        words = by_script[script]
        spelt[script] = [Spelt(s, word.text, _score(word), True) for word in words for s in romanize(word.text, script)]
    words = [word for script, found in by_script.items() if script not in ("Jpan", "Hani") for word in found]
    return Vocabulary(sorted(words, key=lambda word: (-word.passages, word.text)), spelt)


def _score(word: Word) -> float:
    """Log-probability of a word of the index, on the scale of the tokenizer's: that of a word it knows well."""
    return min(_WORD_SCORE + log(word.passages) / 2, _BEST_WORD_SCORE)


def _count(store: VectorStore) -> dict[tuple[str, str], int]:
    """In how many passages each word of each language occurs, by (word, language)."""
    runs: dict[str, Counter[str]] = defaultdict(Counter)
    for row in islice(store.iter_fields(("text", "title", "lang")), MOST_PASSAGES):
        text, lang = f"{row['title']}\n{row['text']}", row["lang"]
        runs[lang].update(set(split_japanese(text) if lang == "ja" else _RUNS.findall(text)))
        if len(runs[lang]) > _MOST_COUNTED:
            runs[lang] = Counter({run: count for run, count in runs[lang].items() if count > 1})
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for lang, counter in runs.items():
        for run, count in counter.items():
            for word in _words_of(run, lang):
                counts[word, lang] += count
    for stem, count in _korean_stems(runs["ko"]).items():
        counts[stem, "ko"] += count
    return counts


def _korean_stems(runs: Mapping[str, int]) -> Counter[str]:
    """Beginnings of two syllables or more that two or more words share: words without the particles glued to them."""
    passages: Counter[str] = Counter()
    words: Counter[str] = Counter()
    for run, count in runs.items():
        for length in range(2, len(run)) if script_of(run[0]) == "Hang" else ():
            passages[run[:length]] += count
            words[run[:length]] += 1
    return Counter({stem: count for stem, count in passages.items() if words[stem] > 1 and stem not in runs})


def _words_of(run: str, lang: str) -> list[str]:
    """The words in a run of letters: of Chinese its pairs of characters, none of other scripts without spaces."""
    word, script = unicodedata.normalize("NFKC", run).lower(), script_of(run[0])
    if lang == "ja" or has_spaces_between_words(script):
        return [word] if len(word) <= _LONGEST_WORD else []
    return [left + right for left, right in pairwise(word)] if script == "Hani" else []


def _most_frequent(counts: Mapping[tuple[str, str], int]) -> dict[str, list[Word]]:
    """The words of each script in the language that has most of them, most frequent first."""
    best: dict[str, Word] = {}
    for (text, lang), count in sorted(counts.items()):
        known = best.get(text, Word(text, 0, ""))
        best[text] = Word(text, known.passages + count, lang if count > known.passages else known.lang)
    scripts: dict[str, list[Word]] = defaultdict(list)
    for word in best.values():
        script = script_group(word.text)
        scripts["Jpan" if word.lang == "ja" and script == "Hani" else script].append(word)
    return {
        script: sorted(words, key=lambda word: (-word.passages, word.text))[:MOST_WORDS]
        for script, words in scripts.items()
    }
