"""New pieces for a language that a tokenizer shreds: which, and with what scores.

Byte-pair merges learnt on texts of the language propose pieces. Of those that the vocabulary lacks, the ones that save
most tokens are taken: how often a piece is used when all of them are there, times the tokens it stands for less one.
Characters that the vocabulary does not know come first.

A new piece's score is the sum of the scores of the pieces that stood for it, plus BONUS for each token saved. So the
best segmentation is that with the highest old score plus BONUS for each saved token: a new piece is used where the old
segmentation would have run along its edges, and texts in other languages are cut as before unless they hold it.

Source: Sennrich, Haddow and Birch, 2016, "Neural Machine Translation of Rare Words with Subword Units", section 3.2
(byte-pair merges, here of characters); Kudo, 2018, "Subword Regularization", section 3.2 (the Unigram model).
Differs: scores continue those of the old vocabulary instead of being log-probabilities in the new texts, which would
make the new pieces cut up languages that share the script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from search.errors import TrainingDataError
from search.text import script_counts
from training.vocabulary.keeping import piece_scripts
from training.vocabulary.unigram import Unigram

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BONUS = 2.0
"""In natural logarithms, for each token saved; measured in results/coverage.md."""
PROPOSED = 4
"""Times as many pieces are proposed as are wanted: most of the proposals the vocabulary has already."""
LEAST_USES = 3
LEAST_CHARACTERS = 2000
LONGEST = 16
"""Characters of a piece; XLM-RoBERTa's has as many."""
LEAST_SHARE = 0.1
"""Of the letters are in a script that the language is written in."""


@dataclass(frozen=True, slots=True)
class NewPiece:
    """A piece to add.

    Attributes:
        text: The piece, with `▁` where a word begins.
        uses: How often the texts use it.
        parts: Numbers of the old pieces that stood for it, in order; the number of the unknown piece for a character
            that the vocabulary does not know.
        score: In the vocabulary.
    """

    text: str
    uses: int
    parts: tuple[int, ...]
    score: float

    @property
    def saved(self) -> int:
        """Tokens saved in the texts."""
        return self.uses * (len(self.parts) - 1)


def learn_pieces(
    tokenizer: Tokenizer, unigram: Unigram, texts: Sequence[str], *, count: int, bonus: float = BONUS
) -> list[NewPiece]:
    """The pieces to add for a language, the most useful first: `count` of them, or as many as there are.

    Args:
        tokenizer: The vocabulary's tokenizer.
        unigram: Its pieces.
        texts: Of the language.
        count: How many.
        bonus: See BONUS.

    Raises:
        TrainingDataError: The texts are too few to learn from.
    """
    if sum(map(len, texts)) < LEAST_CHARACTERS:
        raise TrainingDataError(
            f"{sum(map(len, texts)):,} characters are too few to learn pieces from; give {LEAST_CHARACTERS:,} or more, "
            "better a hundred times as many."
        )
    segment, scripts = Segmenter(unigram), _scripts_of(texts)
    found = [NewPiece(text, uses, (unigram.unknown,), segment(text)[1])
             for text, uses in _unknown_characters(tokenizer, texts, segment)]  # fmt: skip
    for text in _propose(tokenizer, texts, PROPOSED * count):
        own = piece_scripts(text)
        if len(text) > 1 and text not in segment.numbers and own and own <= scripts:
            parts, score = segment(text)
            found.append(NewPiece(text, 0, parts, score + bonus * (len(parts) - 1)))
    used = [piece for piece in _count_uses(found, unigram, texts) if piece.uses >= LEAST_USES]
    used.sort(key=lambda piece: (len(piece.text) > 1, -piece.saved, -piece.uses, piece.text))
    return used[:count]


def with_pieces(unigram: Unigram, new: Sequence[NewPiece]) -> Unigram:
    """The vocabulary with new pieces behind the old ones."""
    return unigram.select(range(len(unigram.pieces)), [(piece.text, piece.score) for piece in new])


class Segmenter:
    """The best segmentation of a piece by an old vocabulary, as the tokenizer finds it, and its score."""

    def __init__(self, unigram: Unigram) -> None:
        self.numbers: Mapping[str, int] = {piece: number for number, piece in enumerate(unigram.pieces)}
        self._scores = unigram.scores
        self._unknown = unigram.unknown
        self._longest = max(map(len, unigram.pieces))
        self._unknown_score = min(unigram.scores) - 10.0  # as the library has it

    def __call__(self, text: str) -> tuple[tuple[int, ...], float]:
        """Numbers of the pieces in order, every unknown character by itself, and the sum of their scores."""
        best: list[tuple[float, int, int]] = [(0.0, 0, -1)]
        for end in range(1, len(text) + 1):
            best.append(max(self._endings(text, end, best), key=lambda found: found[0]))
        parts: list[int] = []
        end = len(text)
        while end:
            _, start, number = best[end]
            parts.append(number)
            end = start
        return tuple(reversed(parts)), best[-1][0]

    def _endings(self, text: str, end: int, best: Sequence[tuple[float, int, int]]) -> Iterator[tuple[float, int, int]]:
        for start in range(max(0, end - self._longest), end):
            number = self.numbers.get(text[start:end])
            if number is not None:
                yield best[start][0] + self._scores[number], start, number
            elif end - start == 1:
                yield best[start][0] + self._unknown_score, start, self._unknown


def _scripts_of(texts: Sequence[str]) -> frozenset[str]:
    """Scripts that the texts are written in, without those of names and terms that they quote."""
    letters = sum((script_counts(text) for text in texts), Counter[str]())
    return frozenset(script for script, count in letters.items() if count >= LEAST_SHARE * letters.total())


def _propose(tokenizer: Tokenizer, texts: Sequence[str], count: int) -> list[str]:
    """Pieces of byte-pair merges learnt on the texts."""
    from tokenizers import Tokenizer, models, trainers

    trained = Tokenizer(models.BPE())
    trained.normalizer, trained.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    size = count + len(set("".join(texts)))
    trained.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=size, min_frequency=LEAST_USES, max_token_length=LONGEST, show_progress=False))  # fmt: skip
    return sorted(trained.get_vocab(with_added_tokens=False))


def _count_uses(found: Sequence[NewPiece], unigram: Unigram, texts: Sequence[str]) -> list[NewPiece]:
    """The pieces with how often the texts use them when all are in the vocabulary; a character keeps its count."""
    from tokenizers import Tokenizer

    first = len(unigram.pieces)
    larger = with_pieces(unigram, found)
    uses: Counter[int] = Counter()
    for encoding in Tokenizer.from_str(larger.to_json()).encode_batch_fast(list(texts), add_special_tokens=False):
        uses.update(encoding.ids)
    return [
        piece if len(piece.text) == 1 else replace(piece, uses=uses[number])
        for number, piece in enumerate(found, start=first)
    ]


def _unknown_characters(tokenizer: Tokenizer, texts: Sequence[str], segment: Segmenter) -> list[tuple[str, int]]:
    """Letters and marks that the vocabulary does not know, with how often the texts use them."""
    normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    uses = Counter(character for text in texts for character in normalize(text))
    return [
        (character, found)
        for character, found in uses.items()
        if found >= LEAST_USES and character not in segment.numbers and piece_scripts(character)
    ]
