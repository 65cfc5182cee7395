"""The model that a run trains: the base as a SentenceTransformer, with adapters where the recipe asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import RecipeError
from training.recipe import Lora, Recipe

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


def load_base(recipe: Recipe, cache: Path, *, device: str | None = None) -> SentenceTransformer:
    """The base in float32, with the recipe's token limit and dropout, ready to train.

    Args:
        recipe: Names the base: a built-in name, a folder or a hub id.
        cache: Folder of converted and downloaded encoders.
        device: `cpu`, `cuda`, ...; none: the GPU where there is one.
    """
    from sentence_transformers import SentenceTransformer

    from search.encoder.loading import resolve

    folder, _ = resolve(recipe.base, cache)
    model = SentenceTransformer(str(folder), device=device, local_files_only=True)
    model.max_seq_length = recipe.training.max_tokens
    _set_dropout(model, recipe.training.dropout)
    if model.device.type == "cpu":  # fused attention's backward pass takes twice as long there, for the whole step
        model[0].auto_model.set_attn_implementation("eager")
    return model


def add_adapter(model: SentenceTransformer, lora: Lora) -> None:
    """Freeze the base and add LoRA to it; with rank 0, train all weights but the embeddings.

    Raises:
        RecipeError: The targets name no module of this base.

    Source: Hu et al., 2022, "LoRA: Low-Rank Adaptation of Large Language Models".
    """
    if lora.rank == 0:
        _freeze_embeddings(model)
        return
    from peft import LoraConfig

    layers = getattr(model[0].auto_model.config, "num_hidden_layers", 0)
    if lora.from_layer >= layers > 0:
        raise RecipeError(f"lora.from_layer is {lora.from_layer}, but the base has layers 0 to {layers - 1}.")
    upper = list(range(lora.from_layer, layers)) if lora.from_layer else None
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=list(lora.targets),
        layers_to_transform=upper, bias="none", task_type="FEATURE_EXTRACTION",
    )  # fmt: skip
    try:
        model.add_adapter(config)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "weight")})
        raise RecipeError(f"lora.targets {list(lora.targets)}: {error} The base has: {', '.join(names)}.") from error
    for module in model.modules():  # autocast casts to bfloat16 anyway: casting to float32 first cost 15 % of a step
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def _freeze_embeddings(model: SentenceTransformer) -> None:
    for parameter in model[0].auto_model.get_input_embeddings().parameters():
        parameter.requires_grad_(False)


def _set_dropout(model: SentenceTransformer, share: float) -> None:
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = share
