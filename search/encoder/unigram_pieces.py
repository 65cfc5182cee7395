"""A Unigram tokenizer's pieces, cut by sentencepiece: as the tokenizers library cuts, several times as fast.

For encoders that are a table (StaticEmbedding): cutting is nearly all that they cost. Where two ways to cut a word have
the same sum of scores, the two libraries may choose differently: in one of 3,600 passages. Special
tokens are text here.

Source: Kudo and Richardson, 2018, "SentencePiece" (the program); Kudo, 2018, "Subword Regularization", section 3.2 (the
best segmentation has the highest sum of scores, which both libraries look for).
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_PROBES = (
    "Der Tiger, die  Katze: 25 °C, naïve ﬁx Ｆｕｌｌ — “so”…",
    "温泉の入り方を教えてください。\n２回め 日本語\tのﾃｷｽﾄ",
    "كيف أصل إلى المحطّة؟ מה שלומך",
    "घर पर दही कैसे जमाएँ? ภาษาไทยไม่มีช่องว่าง",
    "어디에서 표를 사나요? 🏔️ \u200bΩ 𝒳 ᚠᛇᚻ [x]",
)
"""Cut both ways before the fast one is trusted."""


class UnigramPieces:
    """Cuts texts as a tokenizer of the tokenizers library does; see `unigram_pieces`. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer, model: Any, *, squeezes: bool, threads: int | None) -> None:
        from sentencepiece import SentencePieceProcessor

        self._normalizer = tokenizer.normalizer
        self._squeezes = squeezes
        self._processor = SentencePieceProcessor(model_proto=model.SerializeToString())
        self._threads = threads or -1

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Numbers of the pieces of each text, no special tokens around them."""
        if self._normalizer is not None:
            texts = list(map(self._normalizer.normalize_str, texts))
        if self._squeezes:
            texts = [" ".join(text.split()) for text in texts]
        texts = [text if not text or text.startswith((" ", "▁")) else f" {text}" for text in texts]
        found: list[list[int]] = self._processor.encode(texts, num_threads=self._threads)
        return found


def unigram_pieces(tokenizer: Tokenizer, threads: int | None = None) -> UnigramPieces | None:
    """A faster way to cut texts as the tokenizer does without special tokens; None where there is none.

    There is one for Unigram tokenizers that cut at spaces (XLM-RoBERTa's and what is made of it).

    Args:
        tokenizer: Without truncation and padding.
        threads: None: all cores.
    """
    told = json.loads(tokenizer.to_str())
    model = told["model"]
    before = told["pre_tokenizer"] or {}
    steps = [step["type"] for step in before.get("pretokenizers", [before]) if step]
    cuts = steps in (["Metaspace"], ["WhitespaceSplit", "Metaspace"])
    if model["type"] != "Unigram" or model.get("unk_id") is None or model.get("byte_fallback") or not cuts:
        return None
    pieces = UnigramPieces(tokenizer, _as_proto(model), squeezes=len(steps) > 1, threads=threads)
    expected = [encoding.ids for encoding in tokenizer.encode_batch_fast(list(_PROBES), add_special_tokens=False)]
    return pieces if pieces(list(_PROBES)) == expected else None


def _as_proto(model: dict[str, Any]) -> Any:
    """The model as sentencepiece keeps it; to normalize is left to the tokenizer."""
    formats: Any = import_module("sentencepiece.sentencepiece_model_pb2")  # generated: it has no types
    proto, piece_type = formats.ModelProto(), formats.ModelProto.SentencePiece
    for number, (piece, score) in enumerate(model["vocab"]):
        kind = piece_type.UNKNOWN if number == model["unk_id"] else piece_type.NORMAL
        proto.pieces.add(piece=piece, score=score, type=kind)
    proto.trainer_spec.model_type = formats.TrainerSpec.UNIGRAM
    proto.trainer_spec.unk_id = model["unk_id"]
    proto.trainer_spec.bos_id = proto.trainer_spec.eos_id = proto.trainer_spec.pad_id = -1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = proto.normalizer_spec.remove_extra_whitespaces = False
    proto.normalizer_spec.escape_whitespaces = True
    return proto
