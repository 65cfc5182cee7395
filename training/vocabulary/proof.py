"""What a change of vocabulary did to an encoder: to its vectors, its tokens, its size and its memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search.errors import EncoderError

if TYPE_CHECKING:
    from search.encoder import Encoder
    from training.vocabulary.texts import Texts

MOST_PASSAGES = 40
"""Of a language; both encoders read all of them."""
_LOAD = """
import os, sys
from pathlib import Path
from search.encoder import load_encoder
encoder = load_encoder(sys.argv[1], backend=sys.argv[2], threads=1, cache_dir=Path(sys.argv[3]))
encoder.encode_queries(["memory"])
print(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
"""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two encoders agree on the passages of a language.

    Attributes:
        lang: BCP-47.
        passages: How many were compared.
        tokens_before: Of all of them, by the first encoder.
        tokens_after: By the second.
        same_tokens: Share of the passages that both cut alike.
        mean_cosine: Between the two vectors of a passage.
        least_cosine: Of the passage that they agree on least.
    """

    lang: str
    passages: int
    tokens_before: int
    tokens_after: int
    same_tokens: float
    mean_cosine: float
    least_cosine: float


def compare_vectors(before: Encoder, after: Encoder, texts: Texts, *, most: int = MOST_PASSAGES) -> list[Agreement]:
    """Encode the same passages with two encoders; languages by code, of each its first `most` passages."""
    return [_agreement(lang, before, after, found[:most]) for lang, found in sorted(texts.items()) if found]


def _agreement(lang: str, before: Encoder, after: Encoder, passages: Sequence[str]) -> Agreement:
    cosines = np.sum(before.encode_documents(passages) * after.encode_documents(passages), axis=1)
    old, new = (encoder.tokenizer.encode_batch(list(passages)) for encoder in (before, after))
    return Agreement(
        lang=lang,
        passages=len(passages),
        tokens_before=sum(map(len, old)),
        tokens_after=sum(map(len, new)),
        same_tokens=sum(a.tokens == b.tokens for a, b in zip(old, new, strict=True)) / len(passages),
        mean_cosine=float(cosines.mean()),
        least_cosine=float(cosines.min()),
    )


def loaded_bytes(encoder: str, *, backend: str, cache: Path) -> int:
    """Resident bytes of a fresh process that has loaded an encoder and used it once; 0 where the system does not tell.

    Raises:
        EncoderError: It cannot be loaded.
    """
    if not Path("/proc/self/statm").exists():
        return 0
    command = [sys.executable, "-c", _LOAD, encoder, backend, str(cache)]
    for _ in range(2):  # the first one may convert or export, which takes memory of its own
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EncoderError(f"{encoder}: cannot be loaded: {done.stderr.strip()[-500:]}")
    return int(done.stdout.split()[-1])
