"""Queries that come at the same time are encoded together: one pass of the encoder costs little more for eight."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from search.records import Vectors

if TYPE_CHECKING:
    from search.encoder import Encoder

MOST_TEXTS = 64


class BatchingEncoder:
    """An encoder whose `encode_queries` gathers what other threads ask for while it is busy.

    No call waits for company: the first one encodes at once, and what comes meanwhile is the next batch. Everything
    else is the wrapped encoder's.

    Args:
        encoder: The encoder.
        on_batch: Told the number of texts of each batch.
    """

    def __init__(self, encoder: Encoder, on_batch: Callable[[int], None] = lambda _texts: None) -> None:
        self._encoder, self._on_batch = encoder, on_batch
        self._encoding, self._adding = threading.Lock(), threading.Lock()
        self._waiting: list[tuple[list[str], Future[Vectors]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    @property
    def waiting(self) -> int:
        """Calls whose texts are not yet being encoded."""
        return len(self._waiting)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors (B, D), as the wrapped encoder gives them."""
        answer: Future[Vectors] = Future()
        with self._adding:
            self._waiting.append(([*texts], answer))
        with self._encoding:
            if not answer.done():
                self._encode_batch(answer)
        return answer.result()

    def _encode_batch(self, own: Future[Vectors]) -> None:
        """Encode batches until the one that holds `own` is done; calls are taken in the order they came."""
        while not own.done():
            batch = self._take()
            texts = [text for part, _ in batch for text in part]
            self._on_batch(len(texts))
            try:
                vectors = self._encoder.encode_queries(texts)
            except BaseException as error:
                for _, answer in batch:
                    answer.set_exception(error)
                continue
            ends = np.cumsum([len(part) for part, _ in batch])[:-1]
            for (_, answer), rows in zip(batch, np.split(vectors, ends), strict=True):
                answer.set_result(rows)

    def _take(self) -> list[tuple[list[str], Future[Vectors]]]:
        with self._adding:
            batch = [self._waiting.pop(0)]
            while self._waiting and sum(len(part) for part, _ in batch) + len(self._waiting[0][0]) <= MOST_TEXTS:
                batch.append(self._waiting.pop(0))
        return batch


def batching(encoder: Encoder, on_batch: Callable[[int], None] = lambda _texts: None) -> Encoder:
    """`encoder`, encoding what is asked at the same time in one batch."""
    return cast("Encoder", BatchingEncoder(encoder, on_batch))
