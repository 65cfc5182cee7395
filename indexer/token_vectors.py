"""`indexer ingest --late`: keep the token vectors of every passage, so that reranking does not have to encode them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from search.engine import check_encoder
from search.errors import IndexBusyError
from search.opening import OpenIndex, load_own_encoder, open_index, token_store_path
from search.passages import passage_text
from search.records import Vectors
from search.settings import Settings
from search.token_store import PROJECTED, TokenStore, fit_projection, passage_key

if TYPE_CHECKING:
    from search.encoder import Encoder

logger = logging.getLogger(__name__)

BATCH = 256
SAMPLED = 500
"""Passages whose tokens the projection is fitted to, evenly from the whole index."""

Progress = Callable[[int, int], None]
"""Called with passages done and passages in all."""


def update_token_store(
    settings: Settings,
    encoder: Encoder,
    *,
    dimension: int = PROJECTED,
    progress: Progress = lambda _done, _of: None,
) -> int:
    """Encode the tokens of every passage that has none stored yet, and forget those that are gone; returns how many.

    Costs as much as the ingest of those passages. What is done stays done when it is interrupted: the next ingest
    goes on. Searches and ingests do not wait for it.

    Raises:
        EncoderError: The encoder gives no vectors of tokens.
        IndexBusyError: The index changed meanwhile; the next ingest goes on.
    """
    opened = open_index(settings)
    try:
        check_encoder(opened.manifest, encoder)
        with closing(TokenStore(token_store_path(settings), encoder.fingerprint, write=True)) as store:
            if store.projection is None and opened.manifest.chunks:
                store.set_projection(fit_projection(_iter_sample(opened, encoder), dimension))
            keys, made = _fill(opened, store, encoder, progress)
            if opened.is_outdated():
                raise IndexBusyError("the index was changed while token vectors were made; `indexer ingest` goes on")
            store.keep_only(keys)
            store.set_meta("complete", _state(opened))
    finally:
        opened.close()
    return made


def _fill(opened: OpenIndex, store: TokenStore, encoder: Encoder, progress: Progress) -> tuple[set[bytes], int]:
    keys: set[bytes] = set()
    made = seen = 0
    for texts in _batches(_passages(opened)):
        by_key = {passage_key(text): text for text in texts}
        missing = store.missing(list(by_key))
        tokens = encoder.encode_document_tokens([by_key[key] for key in missing]) if missing else []
        store.put((key, found.vectors, found.ids) for key, found in zip(missing, tokens, strict=True))
        keys |= by_key.keys()
        made, seen = made + len(missing), seen + len(texts)
        progress(seen, opened.manifest.chunks)
    return keys, made


def _iter_sample(opened: OpenIndex, encoder: Encoder) -> Iterator[Vectors]:
    """Vectors (L, D) of the tokens of passages, an even sample of the index."""
    step = max(1, opened.manifest.chunks // SAMPLED)
    texts = [text for number, text in enumerate(_passages(opened)) if number % step == 0]
    for batch in _batches(iter(texts)):
        yield from (found.vectors for found in encoder.encode_document_tokens(batch))


def _passages(opened: OpenIndex) -> Iterator[str]:
    return (passage_text(point.chunk) for point in opened.store.iter_points())


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def refresh_token_store(
    settings: Settings,
    *,
    wanted: bool | None,
    encoder: Encoder | None = None,
    progress: Progress = lambda _done, _of: None,
) -> int:
    """After an ingest, bring stored token vectors into step; returns how many passages were encoded for it.

    Args:
        settings: Where the index is.
        wanted: Whether the index is to hold them; None: as it did.
        encoder: One that is loaded; None: that of the settings.
        progress: Told how far it is.
    """
    path = token_store_path(settings)
    if wanted is False:
        path.unlink(missing_ok=True)
    if wanted is False or (wanted is None and not path.is_file()) or _is_current(settings, path):
        return 0
    return update_token_store(settings, encoder or load_own_encoder(settings), progress=progress)


def forget_removed(settings: Settings) -> None:
    """After a removal, forget the token vectors of passages that are gone: their tokens are text."""
    path = token_store_path(settings)
    if not path.is_file():
        return
    opened = open_index(settings)
    try:
        with closing(TokenStore(path, opened.manifest.encoder_fingerprint, write=True)) as store:
            was_complete = store.is_complete
            store.keep_only({passage_key(text) for text in _passages(opened)})
            if was_complete:
                store.set_meta("complete", _state(opened))
    finally:
        opened.close()


def _is_current(settings: Settings, path: Path) -> bool:
    opened = open_index(settings)
    opened.close()
    with closing(TokenStore(path, opened.manifest.encoder_fingerprint)) as store:
        return store.meta("complete") == _state(opened)


def _state(opened: OpenIndex) -> str:
    """The state of an index, so that it is known later: its generation, or when a collection was changed."""
    return f"{opened.folder.name if opened.folder else ''} {opened.manifest.updated}"
