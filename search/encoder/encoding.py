"""Texts to unit vectors, of the whole text or of its tokens: prompts, truncation, length-sorted batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from search.encoder.backends import Backend, TokenBackend, TokenIds, no_token_vectors
from search.encoder.manifest import Manifest, read_modules
from search.errors import EncoderError
from search.records import Vectors

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TEXTS_PER_ROUND = 4096
CHARACTERS_PER_TOKEN = 64
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, eq=False)
class TokenVectors:
    """The tokens of one text in their context, without prompt, special tokens and tokens that are only space.

    `vectors` (L, D) float32 are of unit length; `ids` (L,) are the tokens' numbers in the vocabulary; `spans` (L, 2)
    are the characters [start, end) of the text, as it was given, that each stands for. L is 0 for a blank text.
    """

    vectors: Vectors
    ids: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int64]


class Encoder:
    """Turns queries and documents into vectors whose dot product is their cosine; safe to share between threads.

    A text longer than `max_tokens` is cut there. An empty or blank text gets the vector of its prompt alone, which is
    of unit length like any other (callers that want no hit for it must not ask). Lone surrogates count as U+FFFD.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        tokenizer: Tokenizer,
        pad_id: int,
        backend: Backend,
        folder: Path | None = None,
        address: str = "",
        cut: Callable[[list[str]], list[list[int]]] | None = None,
    ) -> None:
        self.manifest = manifest
        self.folder = folder
        self.address = address or manifest.name
        """What loads it again on this machine: a built-in name, a hub id, or the whole path of its folder."""
        self.tokenizer = tokenizer
        self.backend = backend
        self._pad_id = pad_id
        self._cut = cut
        self._special_tokens = tokenizer.num_special_tokens_to_add(False)

    def __repr__(self) -> str:
        return f"Encoder({self.name!r}, dimension={self.dimension}, backend={self.backend.name!r})"

    @property
    def name(self) -> str:
        """The name it was asked for by, shortened to the last part of a path."""
        return self.manifest.name

    @property
    def dimension(self) -> int:
        """Length D of the vectors."""
        return self.manifest.dimension

    @property
    def fingerprint(self) -> str:
        """Hash over weights, tokenizer, pooling and prompts; the same for every backend and place on disk."""
        return self.manifest.fingerprint

    @property
    def max_tokens(self) -> int:
        """Longest input in tokens, special tokens and prompt included."""
        return self.manifest.max_tokens

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors (B, D) float32 of unit length for what is searched with, in the order of `texts`."""
        return self._encode(texts, self.manifest.query_prompt)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Vectors (B, D) float32 of unit length for what is searched in, in the order of `texts`."""
        return self._encode(texts, self.manifest.document_prompt)

    @cached_property
    def ends_in_pooling(self) -> bool:
        """Whether a text's vector is pooled from those of its tokens as they are, and no layer comes after that."""
        modules = read_modules(self.folder) if self.folder else []
        names = [str(module["type"]).rpartition(".")[2] for module in modules]
        return set(names[1:]) <= {"Pooling", "Normalize", "Dropout"}

    def encode_query_tokens(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[TokenVectors]:
        """Vectors of the tokens of what is searched with; see `encode_document_tokens`."""
        return self._encode_tokens(texts, self.manifest.query_prompt, max_tokens)

    def encode_document_tokens(self, texts: Sequence[str], *, max_tokens: int | None = None) -> list[TokenVectors]:
        """Vectors of the tokens of what is searched in, in the order of `texts`: what pooling averages over.

        Costs as much as `encode_documents`. A text of more than `max_tokens`, prompt and special tokens included, is
        cut there; None: the encoder's limit.

        Raises:
            EncoderError: The encoder or its backend gives no vectors of tokens.
        """
        return self._encode_tokens(texts, self.manifest.document_prompt, max_tokens)

    def _encode_tokens(self, texts: Sequence[str], prompt: str, max_tokens: int | None) -> list[TokenVectors]:
        if not isinstance(self.backend, TokenBackend):
            raise no_token_vectors(self.backend.name)
        _check_list(texts)
        most = min(max_tokens or self.max_tokens, self.max_tokens)
        prompted = [prompt + _checked(text, i)[: most * CHARACTERS_PER_TOKEN] for i, text in enumerate(texts)]
        encodings = self.tokenizer.encode_batch(prompted, add_special_tokens=False)
        for encoding in encodings:
            encoding.truncate(most - self._special_tokens)
        encodings = [self.tokenizer.post_process(encoding) for encoding in encodings]
        found: dict[int, TokenVectors] = {}
        for rows, token_ids, mask in self._padded([encoding.ids or [self._pad_id] for encoding in encodings]):
            for row, vectors in zip(rows, self.backend.forward_tokens(token_ids, mask), strict=True):
                found[row] = _own_tokens(vectors, encodings[row], prompted[row], len(prompt))
        return [found[row] for row in range(len(texts))]

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        _check_list(texts)
        limit = self.max_tokens * CHARACTERS_PER_TOKEN
        prompted = [(prompt + _checked(text, i).strip()[:limit]).strip() for i, text in enumerate(texts)]
        rows = {text: row for row, text in enumerate(dict.fromkeys(prompted))}
        unique, vectors = list(rows), np.empty((len(rows), self.dimension), np.float32)
        for start in range(0, len(unique), TEXTS_PER_ROUND):
            self._encode_round(unique[start : start + TEXTS_PER_ROUND], vectors[start : start + TEXTS_PER_ROUND])
        return vectors[[rows[text] for text in prompted]] if prompted else vectors

    def _encode_round(self, texts: list[str], out: Vectors) -> None:
        """Fill `out` (B, D) with the vectors of `texts`."""
        for rows, token_ids, mask in self._padded(self._tokenize(texts)):
            vectors = self.backend.forward(token_ids, mask)
            out[rows] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def _padded(self, ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], TokenIds, TokenIds]]:
        """Batches: row numbers (B), token ids (B, L) and mask (B, L).

        Rows of one padded length only. How far a text is padded changes the last bits of its vector; on a CPU, how many
        others are beside it does not. So a text has the same vector whatever it is encoded with.
        """
        step = self.backend.length_step
        padded = [min(-(-len(row) // step) * step, self.max_tokens) for row in ids]
        for rows in iter_batches(padded, self.backend.batch_tokens):
            length = padded[rows[0]]
            token_ids = np.full((len(rows), length), self._pad_id, np.int64)
            mask = np.zeros((len(rows), length), np.int64)
            for place, row in enumerate(rows):
                token_ids[place, : len(ids[row])] = ids[row]
                mask[place, : len(ids[row])] = 1
            yield rows, token_ids, mask

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if self._cut:
            return [ids[: self.max_tokens] or [self._pad_id] for ids in self._cut(texts)]
        encodings = self.tokenizer.encode_batch_fast(texts)
        return [
            (encoding.ids or [self._pad_id]) if len(encoding) <= self.max_tokens else self._truncate(text)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _truncate(self, text: str) -> list[int]:
        """Ids of the longest beginning that fits, with the special tokens around it."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        encoding.truncate(self.max_tokens - self._special_tokens)
        return list(self.tokenizer.post_process(encoding).ids)


def iter_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Row numbers in batches of one length, shortest first, each of at most `tokens` tokens (one row may have more)."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and (lengths[row] != lengths[batch[0]] or (len(batch) + 1) * lengths[row] > tokens):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _own_tokens(vectors: Vectors, encoding: Encoding, prompted: str, prompt: int) -> TokenVectors:
    """What stands for characters after the first `prompt` ones of the prompted text; offsets count from there."""
    kept, spans = [], []
    for place, (start, end) in enumerate(encoding.offsets):
        start = max(start, prompt)
        piece = prompted[start:end]
        if piece.strip() and not encoding.special_tokens_mask[place]:
            first = start + len(piece) - len(piece.lstrip())
            kept.append(place)
            spans.append((first - prompt, first - prompt + len(piece.strip())))
    own = vectors[kept]
    unit = own / np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-12)
    ids = np.array(encoding.ids, np.int64)[kept]
    return TokenVectors(np.asarray(unit, np.float32), ids, np.array(spans, np.int64).reshape(-1, 2))


def _check_list(texts: Sequence[str]) -> None:
    if isinstance(texts, (str, bytes)):
        raise EncoderError(f"expected a list of texts, got one {type(texts).__name__}; wrap it: [text]")


def _checked(text: str, place: int) -> str:
    if not isinstance(text, str):
        raise EncoderError(f"text {place} is a {type(text).__name__}, expected str: {text!r:.80}")
    return SURROGATES.sub("\ufffd", text)
