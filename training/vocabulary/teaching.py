"""Teach new pieces what they stand for: only their vectors are trained, until texts mean what they meant in old pieces.

The encoder as it was is the teacher. A text's vector by the old segmentation is the target of its vector by the new one
(1 - cosine), and only the rows of the new pieces may move. Texts without new pieces stay as they are to the last digit.

Source: Dobler, Elliott and de Melo, 2025, "Token Distillation: Attention-Aware Input Embeddings for New Tokens" (the
old segmentation teaches the new piece); Kim et al., 2023, "EmbedDistill", equation 7 (the loss).
Differs: the target is the text's vector, which is what a search compares, not hidden states of single tokens.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.encoder.backends import load_sentence_transformer
from search.errors import EncoderError
from search.records import Vectors
from training.model import network
from training.run import is_bfloat16

if TYPE_CHECKING:
    import torch

    from search.encoder import Encoder

BATCH = 16
LEARNING_RATE = 2e-3
CHARACTERS = 240
"""Of a passage are read: the pieces are learnt as well in a sentence or two, at a fraction of the cost."""
Advance = Callable[[int, int, float], None]
"""Told the step, of how many, and the loss."""


def teach_pieces(
    teacher: Encoder, student: Path, texts: Sequence[str], *, first: int, steps: int, seed: int = 0,
    advance: Advance = lambda step, of, loss: None,
) -> Vectors:  # fmt: skip
    """Vectors (N, D) float32 of the new pieces after training.

    Costs a step forward and back through the network for each BATCH texts: about a second on a core with AMX.

    Args:
        teacher: The encoder without the new pieces.
        student: Folder of the encoder with them.
        texts: In the language; those that hold no new piece teach nothing.
        first: Number of the first new piece.
        steps: How many.
        seed: Orders the texts.
        advance: Called after each step.

    Raises:
        EncoderError: The student cannot be trained.
    """
    import torch

    torch.manual_seed(seed)
    model = load_sentence_transformer(student, device="cpu", dtype=torch.float32)
    split = _freeze_all_but(model, first)
    optimizer = torch.optim.Adam([split.new], lr=LEARNING_RATE)
    prompt = teacher.manifest.document_prompt
    batches = list(_batches(len(texts), steps, seed))
    used = sorted({row for rows in batches for row in rows})
    short = {row: texts[row][:CHARACTERS] for row in used}
    targets = dict(zip(used, torch.from_numpy(teacher.encode_documents(list(short.values()))), strict=True))
    for step, rows in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - (step - 1) / steps)
        features = model.preprocess([prompt + short[row] for row in rows])
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16("auto")):
            vectors = model(features)["sentence_embedding"]
        target = torch.stack([targets[row] for row in rows])
        loss = (1 - torch.nn.functional.cosine_similarity(vectors.float(), target)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # upstream has no annotations
        optimizer.step()
        advance(step, steps, loss.item())
    return np.asarray(split.new.detach().numpy(), np.float32)


def _freeze_all_but(model: Any, first: int) -> Any:
    """Nothing of the model trains but the rows of its embeddings from `first` on; returns them as a module."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    transformer = network(model)
    old = transformer.get_input_embeddings()
    if not hasattr(old, "weight") or len(old.weight) <= first:
        raise EncoderError(f"no rows of embeddings from {first} on: the encoder was not extended")
    split = _split_embedding(old, first)
    transformer.set_input_embeddings(split)
    return split


def _split_embedding(old: Any, first: int) -> torch.nn.Module:
    """An embedding whose rows from `first` on are parameters of their own: no gradients for the others."""
    import torch

    class SplitEmbedding(torch.nn.Module):
        old: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("old", old.weight[:first].detach())
            self.new = torch.nn.Parameter(old.weight[first:].detach().clone())

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            """Vectors (..., D) of pieces."""
            functional, is_new = torch.nn.functional, (ids >= first).unsqueeze(-1)
            known = functional.embedding(ids.clamp(max=first - 1), self.old)
            return torch.where(is_new, functional.embedding((ids - first).clamp(min=0), self.new), known)

    return SplitEmbedding()


def _batches(count: int, steps: int, seed: int) -> Iterator[list[int]]:
    """Rows of each step; all are used before one comes again."""
    rng = random.Random(seed)
    left: list[int] = []
    for _ in range(steps):
        if len(left) < min(BATCH, count):
            left = rng.sample(range(count), count)
        batch, left = left[:BATCH], left[BATCH:]
        yield batch
