"""Encoders that workers of a Ray cluster load, in a module that their processes can import."""

from __future__ import annotations

import os
import signal
import time

from search.encoder import Encoder
from search.errors import EncoderError
from search.records import Vectors
from search.settings import Settings
from tests.conftest import FakeEncoder


class SlowEncoder(FakeEncoder):
    """Takes long enough to be killed meanwhile."""

    def encode_documents(self, texts: list[str]) -> Vectors:
        time.sleep(0.15)
        return super().encode_documents(texts)


class FatalEncoder(FakeEncoder):
    """Ends its process, as too little memory does."""

    def encode_documents(self, texts: list[str]) -> Vectors:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")


def load_slow(_settings: Settings) -> Encoder:
    return SlowEncoder()  # type: ignore[return-value]


def load_fatal(_settings: Settings) -> Encoder:
    return FatalEncoder()  # type: ignore[return-value]


def load_in_driver_alone(settings: Settings) -> Encoder:
    """Fails in every process but the one whose number is in the home folder."""
    if os.getpid() != int((settings.home / "driver").read_text("ascii")):
        raise EncoderError("the encoder is not on this machine; copy its folder")
    return SlowEncoder()  # type: ignore[return-value]
