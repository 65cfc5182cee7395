"""An index of notes in many scripts, what it answers, and encoders of another space."""

from __future__ import annotations

import numpy as np

from search.engine import Engine
from search.records import Vectors
from search.results import Mode
from search.settings import Settings
from tests.conftest import FakeEncoder

FILES = {
    "de/Brot.md": "# Brot backen\n\nSauerteig braucht Zeit, Mehl und Wasser, dann geht der Teig langsam auf.",
    "fr/vélo.txt": "Pour réparer une roue de vélo, il faut d'abord démonter le pneu et trouver le trou.",
    "ja/温泉.txt": "温泉に入る前に体をよく洗いましょう。タオルを湯船に入れてはいけません。",
    "ar/شاي.txt": "يُشرب الشاي ساخنا مع النعناع والسكر في أكواب صغيرة بعد الطعام.",
    "hi/चाय.txt": "चाय बनाने के लिए पानी उबालें, फिर दूध, अदरक और चीनी डालें।",
    "th/ข้าว.txt": "หุงข้าวให้นุ่มต้องล้างข้าวก่อนแล้วใส่น้ำให้พอดี",
    "en/tides.txt": "The tide rises twice a day because the moon pulls on the sea 🌊.",
}
"""Path and text of the notes."""
QUESTIONS = ("Sauerteig Mehl", "温泉に入る前に", "الشاي مع النعناع", "चाय दूध अदरक", "ข้าวให้นุ่ม", "moon pulls 🌊")
Answers = list[tuple[str, float]]


def answers(settings: Settings, encoder: FakeEncoder | None = None) -> Answers:
    engine = Engine(settings, encoder or FakeEncoder())  # type: ignore[arg-type]
    try:
        found = [engine.search(q, k=20, mode=mode) for q in QUESTIONS for mode in Mode]
        return [(hit.document_id, round(hit.score, 4)) for result in found for hit in result.hits]
    finally:
        engine.close()


def other(settings: Settings, name: str) -> Settings:
    return settings.model_copy(update={"index": name})


class OtherEncoder(FakeEncoder):
    """Another space, of other vectors and another length."""

    name, fingerprint, dimension, address = "other", "other-1", 48, "other"

    def encode_queries(self, texts: list[str]) -> Vectors:
        wide = FakeEncoder.encode_queries(_WIDE, texts)
        vectors = wide[:, :48] + 0.5 * np.roll(wide[:, 16:], 7, axis=1)
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


_WIDE = FakeEncoder()


class Killed(BaseException):
    """Stands for the end of the process."""


class FailsAfter(OtherEncoder):
    """Stops the run after some batches."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches

    def encode_documents(self, texts: list[str]) -> Vectors:
        if self.batches == 0:
            raise Killed
        self.batches -= 1
        return super().encode_documents(texts)
