"""Fixtures that tests share: an encoder with computable answers, and the real one."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from search.encoder import Encoder, load_encoder
from search.lexical import tokenize
from search.records import Vectors
from search.settings import load_settings


class FakeEncoder:
    """Hashes words into 64 dimensions: texts that share words are near, nothing is learnt, nothing is slow."""

    name, fingerprint, dimension, max_tokens, folder = "fake", "fake-1", 64, 512, None
    address = "fake"
    ends_in_pooling = True

    def __init__(self) -> None:
        splitter = tokenizers.Tokenizer(tokenizers.models.WordLevel({"?": 0}, unk_token="?"))
        splitter.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\w{1,6}|[^\w\s]"), "isolated")
        self.tokenizer = splitter
        self.encoded: list[str] = []

    def encode_documents(self, texts: list[str]) -> Vectors:
        self.encoded += texts
        return self.encode_queries(texts)

    def encode_queries(self, texts: list[str]) -> Vectors:
        vectors = np.full((len(texts), self.dimension), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for term in tokenize(text):
                vectors[row, zlib.crc32(term.encode()) % self.dimension] += 1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


@pytest.fixture
def fake_encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(scope="session")
def real_encoder() -> Encoder:
    """The built-in encoder, converted once into the home folder."""
    return load_encoder(cache_dir=load_settings().encoders_folder)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Processes that tests start can be interrupted, also where the tests run in the background of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def offline() -> Iterator[None]:
    """No test may fetch anything, nor touch the index or server that whoever runs it has set up."""
    for name in [name for name in os.environ if name.startswith("PANLINGUA_") and name != "PANLINGUA_HOME"]:
        del os.environ[name]
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    yield
    if before is None:
        del os.environ["HF_HUB_OFFLINE"]


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[1]
