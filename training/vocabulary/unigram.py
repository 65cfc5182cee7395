"""A Unigram tokenizer as data: its pieces and scores, cut down or added to.

Source: Kudo, 2018, "Subword Regularization", section 3.2: the best segmentation has the highest sum of scores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search.encoder.manifest import read_json
from search.errors import EncoderError

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Unigram:
    """Pieces (V) with their scores (log-probabilities), and the rest of `tokenizer.json` as it was read.

    `unknown` is the number of the piece for what cannot be read.
    """

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    unknown: int
    raw: Mapping[str, Any]

    @property
    def special(self) -> frozenset[int]:
        """Numbers of the pieces that are no text: control tokens, which have a score of 0, and added ones."""
        added = {str(token["content"]) for token in self.raw.get("added_tokens", ())}
        return frozenset(
            number
            for number, (piece, score) in enumerate(zip(self.pieces, self.scores, strict=True))
            if number == self.unknown or score == 0 or piece in added
        )

    def select(self, kept: Sequence[int], added: Sequence[tuple[str, float]] = ()) -> Unigram:
        """The pieces of these numbers in this order, and new ones (piece, score) after them.

        Raises:
            EncoderError: A special token is missing, or an added one lies behind the pieces.
        """
        numbers = {old: new for new, old in enumerate(kept)}
        if missing := sorted(self.special - numbers.keys()):
            raise EncoderError(f"special tokens must be kept: {', '.join(self.pieces[i] for i in missing)}")
        pieces = (*(self.pieces[i] for i in kept), *(piece for piece, _ in added))
        scores = (*(self.scores[i] for i in kept), *(score for _, score in added))
        raw = dict(self.raw)
        raw["added_tokens"] = [{**token, "id": _renumber(numbers, token)} for token in self.raw.get("added_tokens", ())]
        raw["post_processor"] = _renumbered_template(self.raw.get("post_processor"), numbers)
        return Unigram(pieces, scores, numbers[self.unknown], raw)

    def to_json(self) -> str:
        """The content of `tokenizer.json`."""
        vocab = [list(pair) for pair in zip(self.pieces, self.scores, strict=True)]
        model = {**self.raw["model"], "vocab": vocab, "unk_id": self.unknown}
        return json.dumps({**self.raw, "model": model}, ensure_ascii=False)


def read_unigram(folder: Path) -> Unigram:
    """The tokenizer of an encoder's transformer folder.

    Raises:
        EncoderError: It has none, or one of another kind.
    """
    path = folder / TOKENIZER_FILE
    raw = read_json(path)
    model = raw.get("model") or {}
    if model.get("type") != "Unigram" or model.get("unk_id") is None or model.get("byte_fallback"):
        raise EncoderError(
            f"{path}: a tokenizer of the kind {model.get('type')!r}; only Unigram without bytes (XLM-RoBERTa and what "
            "is made of it: multilingual-e5, bge-m3, paraphrase-multilingual) can be trimmed and extended."
        )
    pieces, scores = zip(*((str(piece), float(score)) for piece, score in model["vocab"]), strict=True)
    return Unigram(pieces, scores, int(model["unk_id"]), raw)


def _renumber(numbers: Mapping[int, int], token: Mapping[str, Any]) -> int:
    if token["id"] not in numbers:
        raise EncoderError(f"added token {token['content']!r} is no piece of the vocabulary; this is not supported.")
    return numbers[token["id"]]


def _renumbered_template(processor: Any, numbers: Mapping[int, int]) -> Any:
    """The post-processor with new numbers for the tokens that it puts around a text."""
    if not processor:
        return processor
    match processor["type"]:
        case "TemplateProcessing":
            special = {
                name: {**token, "ids": [numbers[i] for i in token["ids"]]}
                for name, token in processor["special_tokens"].items()
            }
            return {**processor, "special_tokens": special}
        case "RobertaProcessing" | "BertProcessing":
            return {
                **processor,
                **{end: [processor[end][0], numbers[processor[end][1]]] for end in ("sep", "cls")},
            }
        case other:
            raise EncoderError(f"a tokenizer with the post-processor {other!r} is not supported.")
