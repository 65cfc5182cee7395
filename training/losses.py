"""The loss of each objective, all from sentence-transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.model import count_processes
from training.recipe import Kind, Objective, Recipe, Stream, Training

if TYPE_CHECKING:
    import torch
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder


def build_loss(model: Any, stream: Stream, recipe: Recipe) -> torch.nn.Module:
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

    Other kinds of model have InfoNCE over scores of their own: see `_late` and `_sparse`.

    With `training.mini_batch`, InfoNCE is computed by GradCache (Gao et al., 2021): the batch may be far larger than
    memory, at the price of a second forward pass.
    """
    from sentence_transformers.cross_encoder.losses import ListNetLoss
    from sentence_transformers.sentence_transformer import losses

    training = recipe.training
    if recipe.kind is Kind.MULTI_VECTOR:
        return _late(model, stream, training)
    if recipe.kind is Kind.SPARSE:
        return _sparse(model, stream, recipe.sparse.contrast)
    match stream.objective:
        case Objective.RERANK:
            return ListNetLoss(model, mini_batch_size=training.mini_batch or None)
        case Objective.STS:
            loss: torch.nn.Module = losses.CoSENTLoss(model)
        case Objective.CLASSIFICATION:
            loss = losses.BatchAllTripletLoss(model)
        case Objective.NEUTRAL | Objective.PARALLEL:
            return losses.EmbedDistillLoss(model, distance_metric="cosine")
        case _:
            loss = _contrastive(model, stream, training)
    dims = list(training.matryoshka)
    return losses.MatryoshkaLoss(model, loss, dims, [1 / len(dims)] * len(dims)) if dims else loss


def _contrastive(model: SentenceTransformer, stream: Stream, training: Training) -> torch.nn.Module:
    from sentence_transformers.sentence_transformer import losses

    shared: dict[str, Any] = {
        "scale": 1 / stream.similarity_temperature,
        "gather_across_devices": count_processes() > 1,
        **_directions(stream),
    }
    if training.mini_batch:
        return losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=training.mini_batch, **shared)
    return losses.MultipleNegativesRankingLoss(model, **shared)


def _directions(stream: Stream) -> dict[str, Any]:
    """Bitext is contrasted in both directions."""
    if stream.objective is Objective.BITEXT:
        return {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    return {"directions": ("query_to_doc",), "partition_mode": "joint"}


def _late(model: MultiVectorEncoder, stream: Stream, training: Training) -> torch.nn.Module:
    """InfoNCE over the mean, over a query's tokens, of the best cosine to a token of the document.

    Of the mean and not the sum: `similarity_temperature` then means what it means for whole vectors, and short queries
    weigh as much as long ones. Bitext is trained in one direction.

    Worked: query tokens (1, 0), (0, 1) and document tokens (1, 0), (0.6, 0.8) score (1 + 0.8) / 2 = 0.9.

    Source: Khattab and Zaharia, 2020, "ColBERT", section 3. Differs: the mean; negatives of the whole batch.
    """
    from sentence_transformers.multi_vector_encoder import losses
    from sentence_transformers.multi_vector_encoder.scoring import mean_colbert_scores

    shared: dict[str, Any] = {
        "scale": 1 / stream.similarity_temperature,
        "similarity_fct": mean_colbert_scores,
        "gather_across_devices": count_processes() > 1,
    }
    if training.mini_batch:
        return losses.CachedMultiVectorMultipleNegativesRankingLoss(
            model, mini_batch_size=training.mini_batch, **shared
        )
    return losses.MultiVectorMultipleNegativesRankingLoss(model, **shared)


def _sparse(model: SparseEncoder, stream: Stream, contrast: float) -> torch.nn.Module:
    """The squared error of the vector rebuilt from its code, and InfoNCE over the codes times `contrast`.

    Source: Wen et al., 2025, "Beyond Matryoshka", section 3 (reconstruction from the k and the 4k highest
    dimensions, an auxiliary term that revives unused ones, InfoNCE).
    """
    from sentence_transformers.sparse_encoder import losses

    inner = losses.SparseMultipleNegativesRankingLoss(
        model,
        scale=1 / stream.similarity_temperature,
        gather_across_devices=count_processes() > 1,
        **_directions(stream),
    )
    return losses.CSRLoss(model, inner, gamma=contrast)
