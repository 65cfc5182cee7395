"""The loss of each objective, all from sentence-transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.model import count_processes
from training.recipe import Objective, Stream, Training

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


def build_loss(model: Any, stream: Stream, training: Training) -> torch.nn.Module:
    """Loss of a stream; where asked, its mean over the Matryoshka dimensions.

    - retrieval, paraphrase, NLI: InfoNCE with in-batch and given negatives (van den Oord et al., 2018, equation 4).
    - bitext: the same in both directions.
    - STS: CoSENT (Su, 2022): pairs are ranked, their scores not copied.
    - classification: all triplets of a batch (Hermans et al., 2017, equation 6).
    - neutral, parallel: 1 - cosine to the teacher's vector (EmbedDistill, Kim et al., 2023, equation 7); of a text and
      its translation, the mean of both to one vector (Reimers and Gurevych, 2020, equation 1, whose squared distance
      of unit vectors is twice that).
    - rerank: the softmax over the documents shown with a query, of which one answers it (ListNet, Cao et al., 2007;
      with mined negatives the "localized contrastive estimation" of Gao, Dai and Callan, 2021, equation 2).

    With `training.mini_batch`, InfoNCE is computed by GradCache (Gao et al., 2021): the batch may be far larger than
    memory, at the price of a second forward pass.
    """
    from sentence_transformers.cross_encoder.losses import ListNetLoss
    from sentence_transformers.sentence_transformer import losses

    match stream.objective:
        case Objective.RERANK:
            return ListNetLoss(model, mini_batch_size=training.mini_batch or None)
        case Objective.STS:
            loss: torch.nn.Module = losses.CoSENTLoss(model)
        case Objective.CLASSIFICATION:
            loss = losses.BatchAllTripletLoss(model)
        case Objective.NEUTRAL | Objective.PARALLEL:
            return losses.EmbedDistillLoss(model, distance_metric="cosine")
        case objective:
            loss = _contrastive(model, stream, training, symmetric=objective is Objective.BITEXT)
    dims = list(training.matryoshka)
    return losses.MatryoshkaLoss(model, loss, dims, [1 / len(dims)] * len(dims)) if dims else loss


def _contrastive(model: SentenceTransformer, stream: Stream, training: Training, *, symmetric: bool) -> torch.nn.Module:
    from sentence_transformers.sentence_transformer import losses

    shared: dict[str, Any] = {
        "scale": 1 / stream.similarity_temperature,
        "gather_across_devices": count_processes() > 1,
        "directions": ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",),
        "partition_mode": "per_direction" if symmetric else "joint",
    }
    if training.mini_batch:
        return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=training.mini_batch, **shared)
    return losses.MultipleNegativesRankingLoss(model, **shared)
