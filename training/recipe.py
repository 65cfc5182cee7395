"""Recipes: what to train, on what, and how, as TOML files."""

from __future__ import annotations

import difflib
import tomllib
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from search.errors import RecipeError
from training.data.schema import Task

Share = Annotated[float, Field(ge=0, le=1)]
OWN = "own"
"""The teacher that is the base itself."""
ALL_LINEAR = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Objective(StrEnum):
    """What a stream of batches teaches."""

    RETRIEVAL = "retrieval"
    BITEXT = "bitext"
    PARAPHRASE = "paraphrase"
    NLI = "nli"
    STS = "sts"
    CLASSIFICATION = "classification"
    NEUTRAL = "neutral"
    """Distillation: the teacher's vectors, by default the base's own without their language's mean."""
    PARALLEL = "parallel"
    """The same for two translations of a text, which are taught one vector: the mean of the teacher's two."""
    RERANK = "rerank"
    """Not an encoder but a cross-encoder: it reads a query and a passage together and scores the pair."""


_WITHOUT_QUERIES = (Objective.STS, Objective.CLASSIFICATION, Objective.NEUTRAL, Objective.PARALLEL)


class Kind(StrEnum):
    """What kind of model a recipe trains."""

    DENSE = "dense"
    """A vector of each text."""
    RERANK = "rerank"
    """A cross-encoder: a score of a query and a passage that are read together."""
    MULTI_VECTOR = "multi-vector"
    """A vector of each token, for late interaction."""
    SPARSE = "sparse"
    """A vector of each text in which few of many dimensions are not 0."""


CONTRASTIVE = frozenset({Objective.RETRIEVAL, Objective.BITEXT, Objective.PARAPHRASE, Objective.NLI})


class HubData(_Section):
    """A dataset of the hub."""

    name: str
    task: Task
    config: str | None = None
    split: str = "train"
    columns: dict[str, str | tuple[str, ...]] = {}
    defaults: dict[str, Any] = {}
    limit: int = Field(default=0, ge=0)
    nli_pairs: bool = Field(default=False, description="pairs of premise and hypothesis with a label, to be joined")


class Data(_Section):
    """Where the rows come from."""

    files: tuple[str, ...] = ("*.jsonl*",)
    exclude: tuple[str, ...] = ()
    hub: tuple[HubData, ...] = ()
    languages: tuple[str, ...] = ()
    limit: int = Field(default=0, ge=0, description="rows per file and language, by hash; 0: all")
    dev_share: Share = 0.02
    skip_bad_rows: bool = False


class Stream(_Section):
    """Batches of one task, with their loss.

    `weight` is the share of the steps; `loss_weight` multiplies the loss. Datasets are drawn in proportion to
    size ** (1 / temperature), languages within them likewise. `cross_lingual` is the share of pairs whose two texts are
    in different languages where the data has both; `languages` how many languages meet in one batch: few, so that every
    query sees wrong documents in its own. `max_chars` cuts texts; 0 leaves that to `training.max_tokens`. Of neutral
    and parallel streams, `queries` is the share of batches of queries, the rest being documents. In rerank streams
    every query is shown its document, its `negatives`, and documents of `in_batch` other rows of the batch.

    A stream with `code_switch` takes queries that hold names (of the datasets `names`), and puts the names into another
    language in that share of them. One with `romanize` takes queries in other scripts than Latin, and puts that share
    into Latin letters; of bitext, that share of the pairs are a text and its own romanisation.
    """

    objective: Objective
    datasets: tuple[str, ...] = ("*",)
    weight: float = Field(default=1.0, gt=0)
    loss_weight: float = Field(default=1.0, gt=0)
    batch_size: int = Field(default=48, ge=2)
    temperature: float = Field(default=2.0, ge=1)
    cross_lingual: Share = 0.5
    languages: int = Field(default=4, ge=1)
    negatives: int = Field(default=0, ge=0)
    in_batch: int = Field(default=0, ge=0)
    similarity_temperature: float = Field(default=0.02, gt=0)
    queries: Share = 0.5
    max_chars: int = Field(default=0, ge=0)
    code_switch: Share = 0.0
    names: tuple[str, ...] = ()
    romanize: Share = 0.0

    @model_validator(mode="after")
    def _augmentation(self) -> Stream:
        if (self.code_switch or self.romanize) and self.objective in _WITHOUT_QUERIES:
            raise ValueError(f"{self.objective} streams have no queries to change; code_switch and romanize need some")
        if self.code_switch and self.romanize:
            raise ValueError("code_switch and romanize need a stream each")
        if bool(self.code_switch) != bool(self.names):
            raise ValueError('code_switch and names go together, such as names = ["iso-codes-*"]')
        return self


class Lora(_Section):
    """Low-rank adapters; rank 0 trains all weights but the embeddings."""

    rank: int = Field(default=16, ge=0)
    alpha: float = Field(default=32.0, gt=0)
    dropout: Share = 0.0
    targets: tuple[str, ...] = ALL_LINEAR
    from_layer: int = Field(default=0, ge=0, description="adapters in this layer and above")


class Head(_Section):
    """Two dense layers after a dense base that take the language out of its vectors; see `training.head`.

    They are fitted before the first step, and then belong to the base. `neutral`, `bitext` and `ranking` are the
    weights of their losses.
    """

    hidden: int = Field(default=0, ge=0, description="size of the hidden layer; 0: no head")
    steps: int = Field(default=3000, ge=1)
    learning_rate: float = Field(default=1e-3, gt=0)
    neutral: float = Field(default=20.0, ge=0)
    bitext: float = Field(default=1.0, ge=0)
    ranking: float = Field(default=2.0, ge=0)


class MultiVector(_Section):
    """The vectors of tokens that a recipe of kind `multi-vector` makes."""

    dimension: int = Field(default=128, ge=1)


class Sparse(_Section):
    """The vectors that a recipe of kind `sparse` makes, and the weight of InfoNCE beside their reconstruction."""

    dimension: int = Field(default=1536, ge=4)
    active: int = Field(default=32, ge=1, description="dimensions of a text that are not 0, at most")
    contrast: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _room(self) -> Sparse:
        if 4 * self.active > self.dimension:  # the loss also reconstructs from four times as many
            raise ValueError(f"dimension must be 4 times active or more (they are {self.dimension} and {self.active})")
        return self


class Training(_Section):
    """How the steps are made."""

    steps: int = Field(default=1000, ge=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    warmup_share: Share = 0.05
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    max_tokens: int = Field(default=128, ge=8, le=8192)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    dropout: Share = 0.0
    weight_decay: float = Field(default=0.0, ge=0)
    max_gradient_norm: float = Field(default=1.0, gt=0)
    matryoshka: tuple[int, ...] = ()
    teacher_mean: Share = Field(default=0.25, description="share of all languages' mean that the teacher keeps")
    teacher: str | None = Field(
        default=None, min_length=1,
        description="whose vectors are taught as they are, language included: 'own' (the base's) or an encoder's name",
    )  # fmt: skip
    mini_batch: int = Field(default=0, ge=0, description="GradCache: texts encoded at a time; 0: the whole batch")
    gradient_checkpointing: bool = False
    checkpoint_every: int = Field(default=100, ge=1)
    keep_checkpoints: int = Field(default=3, ge=1)
    evaluate_every: int = Field(default=0, ge=0, description="steps between dev evaluations; 0: none")
    patience: int = Field(default=0, ge=0, description="evaluations without gain before stopping; 0: never")
    dev_queries: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _stopping(self) -> Training:
        whole = self.evaluate_every and self.checkpoint_every % self.evaluate_every == 0
        if self.patience and not whole:
            raise ValueError(
                "patience ends with the best checkpoint, so checkpoint_every must be a multiple of evaluate_every "
                f"(they are {self.checkpoint_every} and {self.evaluate_every})"
            )
        return self


class Recipe(_Section):
    """A whole run."""

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str = ""
    kind: Kind = Kind.DENSE
    base: str = "multilingual-e5-small"
    seed: int = Field(default=7, ge=0, lt=2**32)
    query_prompt: str = "query: "
    document_prompt: str = "passage: "
    data: Data = Data()
    streams: tuple[Stream, ...] = Field(default=(), description="none: the head alone is fitted")
    head: Head = Head()
    lora: Lora = Lora()
    multi_vector: MultiVector = MultiVector()
    sparse: Sparse = Sparse()
    training: Training = Training()

    @model_validator(mode="before")
    @classmethod
    def _kind_of_older_recipes(cls, raw: Any) -> Any:
        """Recipes of rerank streams did not name their kind."""
        streams = raw.get("streams") if isinstance(raw, dict) and "kind" not in raw else None
        if isinstance(streams, list) and streams and isinstance(streams[0], dict):
            return raw | {"kind": Kind.RERANK} if streams[0].get("objective") == Objective.RERANK else raw
        return raw

    @model_validator(mode="after")
    def _has_what_it_evaluates(self) -> Recipe:
        if self.training.evaluate_every and not self.data.dev_share:
            raise ValueError("training.evaluate_every needs a dev split: raise data.dev_share, or set it to 0 as well")
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> Recipe:
        is_reranker = self.kind is Kind.RERANK
        for stream in self.streams:
            if (stream.objective is Objective.RERANK) is not is_reranker:
                raise ValueError(
                    "rerank streams train a cross-encoder, the others an encoder; they need a recipe each, that of "
                    'rerank streams with kind = "rerank"'
                )
            if is_reranker and not stream.negatives + stream.in_batch:
                raise ValueError("a rerank stream needs wrong documents: set `negatives` or `in_batch`")
            if is_reranker and stream.in_batch >= stream.batch_size:
                raise ValueError(f"in_batch is {stream.in_batch}, but a batch of {stream.batch_size} has fewer others")
        return self

    @model_validator(mode="after")
    def _fits_kind(self) -> Recipe:
        if self.kind in (Kind.MULTI_VECTOR, Kind.SPARSE):
            wrong = [stream.objective for stream in self.streams if stream.objective not in CONTRASTIVE]
            if wrong:
                raise ValueError(f"kind {self.kind} has streams of {', '.join(sorted(CONTRASTIVE))}, not {wrong[0]}")
        taught = {stream.objective for stream in self.streams} & {Objective.NEUTRAL, Objective.PARALLEL}
        if self.training.teacher and not taught:
            raise ValueError("training.teacher teaches neutral and parallel streams, and there is none; leave it out")
        if not self.streams and not self.head.hidden:
            raise ValueError("a recipe needs [[streams]] to train on, or a [head] to fit")
        if self.kind is not Kind.DENSE and self.head.hidden:
            raise ValueError(f"[head] is for vectors of kind dense, not {self.kind}; leave it out")
        if self.head.hidden and not (self.head.neutral or self.head.bitext or self.head.ranking):
            raise ValueError("[head] has no loss: set `neutral`, `bitext` or `ranking` above 0")
        if self.kind is not Kind.DENSE and self.training.matryoshka:
            raise ValueError(f"training.matryoshka is for vectors of kind dense, not {self.kind}; leave it out")
        if self.kind is Kind.SPARSE and self.training.mini_batch:
            raise ValueError("training.mini_batch (GradCache) does not go with kind sparse; leave it out")
        return self

    @model_validator(mode="after")
    def _dimensions(self) -> Recipe:
        dims = self.training.matryoshka
        if dims and list(dims) != sorted(set(dims), reverse=True):
            raise ValueError(f"training.matryoshka must fall, without repeats: {list(dims)}")
        return self


def list_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(item.name[:-5] for item in files("training.recipes").iterdir() if item.name.endswith(".toml"))


def load_recipe(name_or_path: str, *, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe by name or path, checked.

    Args:
        name_or_path: A recipe of the package (`list_recipes`) or a TOML file.
        overrides: Values by dotted key (`{"training.steps": 200}`) that replace the file's.

    Raises:
        RecipeError: It is not found, not TOML, or has unknown keys or values that do not fit.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        known = list_recipes()
        if name_or_path not in known:
            near = difflib.get_close_matches(name_or_path, known, n=1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"no recipe {name_or_path!r}.{hint} Known: {', '.join(known)}; or give a .toml file.")
        text = (files("training.recipes") / f"{name_or_path}.toml").read_text("utf-8")
    else:
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path}: the recipe cannot be read ({error}).") from error
    return parse_recipe(text, name_or_path, overrides=overrides)


def parse_recipe(text: str, place: str, *, overrides: dict[str, Any] | None = None) -> Recipe:
    """A recipe from TOML.

    Raises:
        RecipeError: As `load_recipe`.
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{place}: not TOML ({error}).") from error
    for key, value in (overrides or {}).items():
        _set(raw, key.split("."), value)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors()[:5])
        raise RecipeError(f"{place}: {problems}") from error


def _set(raw: dict[str, Any], keys: list[str], value: Any) -> None:
    section: Any = raw
    for key in keys[:-1]:
        section = section.setdefault(key, {}) if isinstance(section, dict) else section
        if not isinstance(section, dict):
            kind = "a list" if isinstance(section, list) else "a value"
            raise RecipeError(
                f"{'.'.join(keys)}: {key!r} is {kind}, whose parts cannot be set; change a copy of the recipe."
            )
    section[keys[-1]] = value


def _explain(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "value_error":
        return f"{place}: {problem['ctx']['error']}" if place else str(problem["ctx"]["error"])
    if problem["type"] != "extra_forbidden":
        return f"{place}: {problem['msg']} (it is {problem['input']!r})"
    section: Any = Recipe
    for key in problem["loc"][:-1]:
        if isinstance(key, str):
            section = {"data": Data, "streams": Stream, "head": Head, "lora": Lora, "training": Training,
                           "hub": HubData, "multi_vector": MultiVector, "sparse": Sparse}[key]  # fmt: skip
    known = sorted(section.model_fields)
    near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    return f"{place}: unknown key" + (f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}")
