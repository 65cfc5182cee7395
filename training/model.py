"""The model that a run trains: the base as a SentenceTransformer, with adapters where the recipe asks for them.

Other kinds are the same base under another head. A reranker reads query and passage as one text, and a linear layer
scores the mean over the tokens. A multi-vector encoder projects every token, a sparse one codes the pooled vector.
"""

from __future__ import annotations

import hashlib
import re
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.encoder.cache import build_once
from search.errors import EncoderError, RecipeError, TrainingError
from training.recipe import Kind, Lora, Recipe

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder, MultiVectorEncoder, SentenceTransformer, SparseEncoder

    Model = SentenceTransformer | CrossEncoder | MultiVectorEncoder | SparseEncoder

SCORES = "scores"
"""What a cross-encoder's last module calls its output."""
SPACE = "\u2581"
"""The piece of a text that is only space, in the vocabularies that have it."""
AUXILIARY = 512
"""Unused dimensions that the loss of a sparse encoder brings back at a time: k_aux of Wen et al., 2025."""


def load_base(recipe: Recipe, cache: Path, *, folder: Path | None = None, device: str | None = None) -> Model:
    """The base in float32, with the recipe's token limit and dropout, ready to train.

    Args:
        recipe: Names the base: a built-in name, a folder or a hub id.
        cache: Folder of converted and downloaded encoders.
        folder: The base where it is another than the recipe names: with its head.
        device: `cpu`, `cuda`, ...; none: the GPU where there is one.
    """
    folder = folder or base_folder(recipe.base, cache)
    model: Model
    match recipe.kind:
        case Kind.RERANK:
            model = _as_reranker(folder, device)
        case Kind.MULTI_VECTOR:
            model = _as_multi_vector(_load_dense(folder, device), recipe)
        case Kind.SPARSE:
            model = _as_sparse(_load_dense(folder, device), recipe)
        case Kind.DENSE:
            model = _load_dense(folder, device)
    _set_max_tokens(model, recipe.training.max_tokens)
    _set_dropout(model, recipe.training.dropout)
    if model.device.type == "cpu":  # fused attention's backward pass takes twice as long there, for the whole step
        network(model).set_attn_implementation("eager")
    return model


def _load_dense(folder: Path, device: str | None) -> SentenceTransformer:
    """The base in float32; the library would keep the precision of the file."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device=device, local_files_only=True, model_kwargs={"dtype": "float32"})


def _as_reranker(folder: Path, device: str | None) -> CrossEncoder:
    """The base with a new head. Pooling is the base's own, by the mean: what its tokens were trained for."""
    import torch
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(str(folder), model_kwargs={"dtype": "float32"})
    size = int(transformer.get_embedding_dimension())
    head = Dense(
        size, 1, activation_function=torch.nn.Identity(), module_input_name="sentence_embedding",
        module_output_name=SCORES,
    )  # fmt: skip
    model: CrossEncoder = CrossEncoder(modules=[transformer, Pooling(size, pooling_mode="mean"), head], device=device)
    return model


def _as_multi_vector(base: SentenceTransformer, recipe: Recipe) -> MultiVectorEncoder:
    """The base's token vectors, projected; the tokens that take part are those of the engine's late interaction.

    Special tokens and space take no part, on either side; punctuation does. The projection begins as the directions
    that keep most of the dot products between tokens of the package's passages in 27 languages, so that the first step
    starts from what the base can do already.

    Raises:
        RecipeError: The projection would not make vectors smaller.

    Source: Khattab and Zaharia, 2020, "ColBERT", section 3; Louis et al., 2024, "ColBERT-XM".
    Differs: no markers and no padding of queries with mask tokens; a projection that is fitted, not random.
    """
    import torch
    from sentence_transformers import MultiVectorEncoder
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    from search.token_store import fit_projection
    from training.vocabulary.texts import packaged_texts

    transformer: Any = base[0]
    size, dimension = int(transformer.get_embedding_dimension()), recipe.multi_vector.dimension
    if dimension >= size:
        raise RecipeError(f"multi_vector.dimension is {dimension}; it must be below the {size} of the base's tokens.")
    mask = MultiVectorMask(_unscored(base.tokenizer), skiplist_tasks=["query", "document"])
    unit = Normalize(module_input_name="token_embeddings")
    shared: dict[str, Any] = {"device": str(base.device), "prompts": _prompts(recipe)}
    whole = MultiVectorEncoder(modules=[base[0], mask, unit], **shared)
    passages = [text for texts in packaged_texts().values() for text in texts]
    tokens = whole.encode_document(passages, batch_size=8, convert_to_numpy=True)
    directions = fit_projection(tokens, dimension).directions
    projection = Dense(
        size, dimension, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings",
        init_weight=torch.from_numpy(directions.T.copy()),
    )  # fmt: skip
    return MultiVectorEncoder(modules=[base[0], projection, mask, unit], similarity_fn_name="meanmaxsim", **shared)


def _unscored(tokenizer: Any) -> list[str]:
    """Tokens that stand for no character."""
    names = (tokenizer.bos_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.eos_token)
    has_space = tokenizer.convert_tokens_to_ids(SPACE) not in (None, tokenizer.unk_token_id)
    return [*dict.fromkeys(name for name in names if name), *([SPACE] if has_space else [])]


def _as_sparse(base: SentenceTransformer, recipe: Recipe) -> SparseEncoder:
    """The base's pooled vector, coded by an autoencoder that lets few of its dimensions through, at unit length.

    Source: Wen et al., 2025, "Beyond Matryoshka: Revisiting Sparse Coding for Adaptive Representation", section 3.
    Differs: the base is trained too, by adapters; codes have unit length, so that their dot product is a cosine.
    """
    from sentence_transformers import SparseEncoder
    from sentence_transformers.base.modules import Normalize
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    size, options = int(base.get_embedding_dimension() or 0), recipe.sparse
    coder = SparseAutoEncoder(
        size, options.dimension, options.active, min(AUXILIARY, options.dimension), normalize=True
    )
    pooled = [module for module in base if not isinstance(module, Normalize)]
    return SparseEncoder(
        modules=[*pooled, coder, Normalize()], device=str(base.device), prompts=_prompts(recipe),
        similarity_fn_name="dot",
    )  # fmt: skip


def _prompts(recipe: Recipe) -> dict[str, str]:
    return {"query": recipe.query_prompt, "document": recipe.document_prompt}


def base_folder(name: str, cache: Path) -> Path:
    """Folder of the base as a SentenceTransformer; a plain transformer, such as mT5's encoder, gets mean pooling.

    Args:
        name: A built-in name, a folder or a hub id.
        cache: Folder of converted and downloaded encoders.

    Raises:
        EncoderError: It cannot be found or read.
    """
    from search.encoder.loading import resolve

    try:
        return resolve(name, cache)[0]
    except EncoderError:
        plain = _plain_transformer(name)
        if plain is None:
            raise
    files = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in plain.iterdir())
    key = hashlib.sha256(repr((str(plain.resolve()), files)).encode()).hexdigest()[:12]
    target = cache / "pooled" / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', name).strip('-')[-60:]}-{key}"
    build_once(target, lambda work: _pool(plain, work), is_complete=lambda path: (path / "modules.json").is_file())
    return target


def _plain_transformer(name: str) -> Path | None:
    """Folder or downloaded copy of a transformer that has no `modules.json`."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    folder = Path(name).expanduser()
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(name, local_files_only=True))
        except (OSError, HFValidationError):  # not downloaded; not an id
            return None
    return folder if (folder / "config.json").is_file() and not (folder / "modules.json").is_file() else None


def _pool(plain: Path, folder: Path) -> None:
    """A SentenceTransformer of the transformer's encoder, the mean over its tokens, at unit length."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = Transformer(str(plain), model_kwargs={"dtype": "float32"})
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)


def network(model: Model) -> Any:
    """The transformer inside."""
    return model.transformers_model


def add_adapter(model: Model, lora: Lora) -> None:
    """Freeze the base and add LoRA to it; with rank 0, train all weights but the embeddings.

    Layers after the pooling of a dense base are the base's own and frozen with it; those of other kinds are new heads.

    Raises:
        RecipeError: The targets name no module of this base.

    Source: Hu et al., 2022, "LoRA: Low-Rank Adaptation of Large Language Models".
    """
    if lora.rank == 0:
        _freeze_embeddings(model)
        return
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    layers = getattr(network(model).config, "num_hidden_layers", 0)
    if lora.from_layer >= layers > 0:
        raise RecipeError(f"lora.from_layer is {lora.from_layer}, but the base has layers 0 to {layers - 1}.")
    upper = list(range(lora.from_layer, layers)) if lora.from_layer else None
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        layers_to_transform=upper,
        bias="none",
        task_type="FEATURE_EXTRACTION",
    )
    try:
        model.add_adapter(config)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "weight")})
        raise RecipeError(f"lora.targets {list(lora.targets)}: {error} The base has: {', '.join(names)}.") from error
    if isinstance(model, SentenceTransformer):
        for module in list(model)[1:]:
            module.requires_grad_(False)
    for module in model.modules():  # autocast casts to bfloat16 anyway: casting to float32 first cost 15 % of a step
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False  # type: ignore[assignment]


def count_parameters(model: torch.nn.Module) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def count_processes() -> int:
    """Processes that train together; 1 without `torchrun`."""
    import torch

    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def _freeze_embeddings(model: Model) -> None:
    for parameter in network(model).get_input_embeddings().parameters():
        parameter.requires_grad_(False)


def _set_max_tokens(model: Model, limit: int) -> None:
    """The recipe's limit, within the positions that the base has learnt, if it has such a limit."""
    if network(model) is None:
        raise TrainingError("a static encoder is a table without a network to train; take another base.")
    config = network(model).config
    most = getattr(config, "max_position_embeddings", 0)
    if most and "roberta" in config.model_type:  # its positions begin after that of padding
        most -= config.pad_token_id + 1
    if limit > most > 0:
        raise RecipeError(f"training.max_tokens is {limit}, but the base takes at most {most} tokens.")
    model.max_seq_length = limit


def _set_dropout(model: Model, share: float) -> None:
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "dropout_prob", None), float):
            module.dropout_prob = share  # type: ignore[assignment]


def peak_memory() -> int:
    """Bytes: the GPU's peak where there is one, else the process's."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
