"""What an engine knows of the words of its index, loaded or built when a query first holds one that is unknown."""

from __future__ import annotations

import logging
import threading
import zlib
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from typing import TYPE_CHECKING

from search.errors import PanlinguaError
from search.language import Detection
from search.opening import OpenIndex, open_index
from search.pieces import WORD_START, load_pieces, pieces_path
from search.settings import Settings
from search.suggest import Speller, replace_words, unknown_words, words_of
from search.text import script_counts
from search.vocabulary import (
    Vocabulary,
    adopt_vocabulary,
    build_vocabulary,
    keep_vocabulary,
    vocabulary_path,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from search.transliterate import Transliterator

logger = logging.getLogger(__name__)

BUILT_AT_ONCE = 5_000
"""Passages of an index whose words are read while a query waits (about 2 s); more of them are in the background."""
SURE_LANGUAGE = 0.7
"""Confidence from which on a query is in the language that it seems to be in, written as usual."""
_UNKNOWN_SHARE = 0.5
_LIKELY = 0.05
_REMEMBERED = 1024
_UNKNOWN_PIECE = -20.0


class IndexWords:
    """The words of one state of an index; threads may share it.

    Args:
        index: The open index.
        settings: Where its vocabulary, and the pieces of tokenizers, are kept.
        tokenizer: Gives the encoder's tokenizer.
    """

    def __init__(self, index: OpenIndex, settings: Settings, tokenizer: Callable[[], Tokenizer]) -> None:
        self.index = index
        self._path = vocabulary_path(settings.index_folder, index.manifest)
        self._pieces_path = pieces_path(settings.encoders_folder, index.manifest.encoder_fingerprint)
        self._load_tokenizer = tokenizer
        self._unknown = lru_cache(maxsize=_REMEMBERED)(partial(unknown_words, index.store))
        self._lock = threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self._building: threading.Thread | None = None

    def transliterate(self, text: str, detection: Detection) -> str | None:
        """A query in Latin letters in the script that it is meant in; None where it is meant as it is typed."""
        if detection.script != "Latn" or detection.confidence >= SURE_LANGUAGE or set(script_counts(text)) != {"Latn"}:
            return None
        unknown, words = self._unknown(text), words_of(text)
        if len(unknown) < _UNKNOWN_SHARE * len(words) or self.vocabulary() is None:
            return None
        found = self._transliterator.read(text)
        return found.text if found else None

    def suggest(self, query: str, text: str, detection: Detection) -> str | None:
        """The query as it may have been meant; None when the index knows its words, or no others are near.

        Args:
            query: As typed, with its syntax.
            text: Its words.
            detection: Of the words. Of several, only words of likely languages are suggested.
        """
        unknown, words = self._unknown(text), words_of(text)
        sure = detection.confidence >= SURE_LANGUAGE
        foreign = sure and detection.lang not in self.index.languages and 2 * len(unknown) >= len(words)
        if not unknown or foreign or self.vocabulary() is None:
            return None
        likely = [lang for lang, probability in detection.probabilities if probability >= _LIKELY]
        languages = likely if sure or len(words) > 1 else None
        meant = {word: found for word in unknown if (found := self._speller.correct(word, languages))}
        return replace_words(query, meant) if meant else None

    def vocabulary(self) -> Vocabulary | None:
        """The words of the index; None while those of a large one are being read for the first time."""
        with self._lock:
            if self._vocabulary is None and self._building is None:
                self._vocabulary = self._kept()
                if self._vocabulary is None and self.index.manifest.chunks <= BUILT_AT_ONCE:
                    self._vocabulary = self._build()
                elif self._vocabulary is None:
                    self._building = threading.Thread(target=self._build_behind, daemon=True)
                    self._building.start()
            return self._vocabulary

    def _kept(self) -> Vocabulary | None:
        try:
            return Vocabulary.load(self._path)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
            return None

    def _build(self) -> Vocabulary:
        vocabulary = build_vocabulary(self.index.store)
        keep_vocabulary(vocabulary, self._path)
        return vocabulary

    def _build_behind(self) -> None:
        try:
            self._vocabulary = self._build()
        except PanlinguaError as error:  # the index was closed or replaced meanwhile; the next one starts anew
            logger.info("the words of the index were not read: %s", error)

    @cached_property
    def _speller(self) -> Speller:
        tokenizer = self._load_tokenizer()
        words = self._vocabulary.words if self._vocabulary else []
        return Speller(words, lambda word: tokenizer.token_to_id(WORD_START + word) is not None)

    @cached_property
    def _transliterator(self) -> Transliterator:
        from search.transliterate import Transliterator

        vocabulary, tokenizer = self._vocabulary or Vocabulary(), self._load_tokenizer()
        pieces = load_pieces(self._pieces_path, tokenizer)

        def latin_score(word: str) -> float:
            tokens = tokenizer.encode(word, add_special_tokens=False).tokens
            return sum(pieces.latin.get(token, _UNKNOWN_PIECE) for token in tokens)

        known = pieces.among(vocabulary.letters())
        return Transliterator(
            {script: [*found, *known[script]] for script, found in vocabulary.spelt.items()}, latin_score
        )


def prepare_words(settings: Settings) -> None:
    """Read and keep the words of a large index now, so that no search has to wait or go without.

    Does nothing for a small one, and where hardly anything has changed since. Costs about 0.2 ms a passage.
    """
    index = open_index(settings)
    try:
        path = vocabulary_path(settings.index_folder, index.manifest)
        if index.manifest.chunks > BUILT_AT_ONCE and not adopt_vocabulary(path):
            keep_vocabulary(build_vocabulary(index.store), path)
    finally:
        index.close()
