"""A head that takes the language out of a pooled vector: two dense layers after the base, fitted in minutes.

What gives a text's language away in an encoder's vector is mostly an offset, and the vector itself tells which. So a
small network after the pooling can take it off, without a detector and without changing what the base has learnt of
long and rare texts: the base is not trained, its vectors are computed once.

The head gives x + B gelu(A x + a) + b at unit length. It is fitted to three ends at a time: the neutral teacher's
vectors (`training.neutral`); translations nearest to each other in a batch; and, between queries and documents of one
language, the base's own ranking. As modules of sentence-transformers, gelu(k x) - gelu(-k x) = k x carries the vector
itself through the hidden layer.

Source: Yang et al., 2021, "A Simple and Effective Method To Eliminate the Self Language Bias in Multilingual
Representations", EMNLP (the offset); Hofstätter et al., 2020, "Improving Efficient Neural Ranking Models with
Cross-Architecture Knowledge Distillation" (teaching a ranking; here by KL divergence, to the encoder's own).
"""

from __future__ import annotations

import json
import random
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, gelu, kl_div, log_softmax, normalize

from search.balance import OFFSETS_FILE
from search.encoder import Encoder
from search.encoder.manifest import MANIFEST_FILE, MODULES_FILE, read_modules
from search.errors import TrainingDataError, TrainingError
from training.data.schema import BitextRow, RetrievalRow, Row, StsRow
from training.neutral import remove_language_means
from training.recipe import Head

Places = npt.NDArray[np.int64]

TEXTS_PER_DATASET = 600
"""Pairs of a dataset that are drawn, shared out evenly to its languages; at least 60 of each."""
LEAST_PER_LANGUAGE = 60
FAMILIES_PER_DATASET = 125
"""Texts of bitext that are drawn from a dataset, each with all of its translations."""
SHORT, LONG = 200, 1800
"""Characters: longer texts of bitext and longer documents are left out."""
LEAST_GROUP = 40
"""Documents that a dataset must have in a language for its rankings to be taught."""
QUERIES, DOCUMENTS, TRANSLATIONS, RANKED_QUERIES, RANKED_DOCUMENTS = 192, 64, 96, 48, 128
"""Texts of a step: two kinds for the teacher, pairs of translations, and what a ranking is of."""
TEMPERATURE, BASE_TEMPERATURE = 0.05, 0.01
"""Of the head's cosines, and of the base's, which lie much closer together."""
WEIGHT_DECAY = 0.01
THROUGH = 8.0
"""How much a vector is enlarged on its way through the hidden layer, so that rounding is small beside it."""


@dataclass
class HeadTexts:
    """What a head is fitted on: distinct (language, text) of each side, and which of them belong together."""

    queries: list[tuple[str, str]] = field(default_factory=list)
    documents: list[tuple[str, str]] = field(default_factory=list)
    translations: dict[str, list[list[int]]] = field(default_factory=lambda: defaultdict(list))
    """By dataset: places in `queries` of a text and its translations."""
    rankings: list[tuple[Places, Places]] = field(default_factory=list)
    """Places of queries and documents of one dataset and language."""


def draw_texts(rows: Mapping[str, Sequence[Row]], *, seed: int) -> HeadTexts:
    """Texts of every dataset, evenly from its languages.

    Raises:
        TrainingDataError: There are none in at least two languages.
    """
    rng = random.Random(seed)
    found = HeadTexts()
    places: tuple[dict[tuple[str, str], int], dict[tuple[str, str], int]] = ({}, {})

    def place(side: int, lang: str, text: str) -> int:
        return places[side].setdefault((lang, text), len(places[side]))

    for name, members in sorted(rows.items()):
        shuffled = list(members)
        rng.shuffle(shuffled)
        for family in [row for row in shuffled if isinstance(row, BitextRow)][:FAMILIES_PER_DATASET]:
            short = {pair for pair in zip(family.langs, family.texts, strict=True) if len(pair[1]) <= SHORT}
            if len(short) > 1:
                found.translations[name].append([place(0, *pair) for pair in sorted(short)])
        for pair in [row for row in shuffled if isinstance(row, StsRow)][:TEXTS_PER_DATASET]:
            place(0, pair.langs[0], pair.text_a)
            place(0, pair.langs[1], pair.text_b)
        for group in _by_language(shuffled):
            pairs = [(place(0, row.lang_query, row.query), place(1, row.lang_doc, row.positive)) for row in group]
            within = [pair for pair, row in zip(pairs, group, strict=True) if row.lang_query == row.lang_doc]
            queries, documents = ({pair[side] for pair in within} for side in (0, 1))
            if len(documents) >= LEAST_GROUP:
                found.rankings.append((np.array(sorted(queries)), np.array(sorted(documents))))
    found.queries, found.documents = (list(side) for side in places)
    if len({lang for lang, _ in (*found.queries, *found.documents)}) < 2:
        raise TrainingDataError("[head] takes the language out of vectors, and the data has fewer than two languages.")
    return found


def _by_language(rows: Iterable[Row]) -> list[list[RetrievalRow]]:
    """Rows by the language of their document, each language's share of what is drawn from a dataset."""
    groups: dict[str, list[RetrievalRow]] = defaultdict(list)
    for row in rows:
        if isinstance(row, RetrievalRow) and len(row.positive) <= LONG:
            groups[row.lang_doc].append(row)
    share = max(LEAST_PER_LANGUAGE, TEXTS_PER_DATASET // max(len(groups), 1))
    return [groups[lang][:share] for lang in sorted(groups)]


class HeadNetwork(torch.nn.Module):
    """x + B gelu(A x + a) + b at unit length, of vectors (N, D); at first x itself."""

    def __init__(self, dimension: int, hidden: int) -> None:
        super().__init__()
        self.inner, self.outer = torch.nn.Linear(dimension, hidden), torch.nn.Linear(hidden, dimension)
        with torch.no_grad():
            self.inner.weight *= THROUGH
            self.outer.weight.zero_()
            self.outer.bias.zero_()

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (N, D) of unit length."""
        return normalize(vectors + self.outer(gelu(self.inner(vectors))), dim=-1)


def fit_head(
    texts: HeadTexts, encoder: Encoder, options: Head, *, kept_mean: float, dims: Sequence[int] = (), seed: int
) -> tuple[HeadNetwork, dict[str, float]]:
    """The head of an encoder, and its losses: means over the last tenth of the steps.

    Args:
        texts: From `draw_texts`.
        encoder: The base.
        options: Size, steps and weights.
        kept_mean: The share of all languages' mean that the teacher keeps.
        dims: Matryoshka dimensions; translations and rankings are learnt at each.
        seed: Decides the batches and the start.

    Raises:
        TrainingDataError: The texts have nothing for the losses that are asked for.
        TrainingError: A loss is no number.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _fit(texts, encoder, options, kept_mean, tuple(dims) or (encoder.dimension,), seed)


def _fit(
    texts: HeadTexts, encoder: Encoder, options: Head, kept_mean: float, sizes: Sequence[int], seed: int
) -> tuple[HeadNetwork, dict[str, float]]:
    rng, draw = random.Random(seed), np.random.default_rng(seed)
    queries = torch.from_numpy(encoder.encode_queries([text for _, text in texts.queries]))
    documents = torch.from_numpy(encoder.encode_documents([text for _, text in texts.documents]))
    sides = [
        (vectors, _teacher(vectors, [lang for lang, _ in side], kept_mean), size)
        for vectors, side, size in ((queries, texts.queries, QUERIES), (documents, texts.documents, DOCUMENTS))
        if side
    ]
    head, scale = HeadNetwork(encoder.dimension, options.hidden), torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.AdamW([*head.parameters(), scale], lr=options.learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    datasets = {name: families for name, families in sorted(texts.translations.items()) if len(families) > 1}
    dataset_weights = [len(families) ** 0.5 for families in datasets.values()]
    ranking_weights = [len(shown) ** 0.5 for _, shown in texts.rankings]
    history: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.steps):
        losses: dict[str, Tensor] = {}
        if options.neutral:
            drawn = [
                (vectors[at], taught[at]) for vectors, taught, size in sides for at in [_some(draw, vectors, size)]
            ]
            given, wanted = (torch.cat(each) for each in zip(*drawn, strict=True))
            losses["neutral"] = 1 - (head(given) * wanted).sum(dim=1).mean()
        if options.bitext and datasets:
            families = datasets[rng.choices(list(datasets), dataset_weights)[0]]
            pairs = [rng.sample(family, 2) for family in rng.sample(families, min(TRANSLATIONS, len(families)))]
            first, second = (head(queries[list(side)]) for side in zip(*pairs, strict=True))
            losses["bitext"] = _matching_loss(first, second, sizes)
        if options.ranking and texts.rankings:
            asked, shown = rng.choices(texts.rankings, ranking_weights)[0]
            before = queries[asked[_some(draw, asked, RANKED_QUERIES)]]
            among = documents[shown[_some(draw, shown, RANKED_DOCUMENTS)]]
            losses["ranking"] = ranking_loss(before, among, head(before), head(among), scale.exp(), sizes)
        if not losses:
            raise TrainingDataError(
                "[head] finds nothing to learn from: bring bitext, or retrieval rows, or set `neutral`"
            )
        optimizer.zero_grad()
        total = torch.stack([getattr(options, name) * loss for name, loss in losses.items()]).sum()
        total.backward()  # type: ignore[no-untyped-call]  # upstream has no annotations
        optimizer.step()
        schedule.step()
        for name, loss in losses.items():
            history[name].append(float(loss.detach()))
    last = -max(1, options.steps // 10)
    final = {name: round(float(np.mean(values[last:])), 4) for name, values in history.items()}
    if not np.isfinite(list(final.values())).all():
        raise TrainingError(f"the head's losses are no numbers ({final}); lower head.learning_rate")
    return head.eval(), final


def _teacher(vectors: Tensor, langs: Sequence[str], kept_mean: float) -> Tensor:
    return torch.from_numpy(remove_language_means(vectors.numpy(), langs, kept_mean=kept_mean))


def _some(draw: np.random.Generator, of: Sized, most: int) -> Places:
    return draw.choice(len(of), min(most, len(of)), replace=False)


def _matching_loss(first: Tensor, second: Tensor, sizes: Sequence[int]) -> Tensor:
    """InfoNCE in both directions between translations (N, D), row by row; the mean over the sizes."""
    own = torch.arange(len(first))
    terms = []
    for size in sizes:
        cosines = normalize(first[:, :size], dim=1) @ normalize(second[:, :size], dim=1).T / TEMPERATURE
        terms.append((cross_entropy(cosines, own) + cross_entropy(cosines.T, own)) / 2)
    return torch.stack(terms).mean()


def ranking_loss(
    queries: Tensor, documents: Tensor, new_queries: Tensor, new_documents: Tensor, scale: Tensor, sizes: Sequence[int]
) -> Tensor:
    """KL divergence of the head's distribution over documents from the base's, in nats a query; mean over the sizes.

    Args:
        queries: The base's vectors (Q, D).
        documents: The base's vectors (N, D).
        new_queries: The head's.
        new_documents: The head's.
        scale: What the head's cosines are multiplied by; learnt, since they spread wider than the base's.
        sizes: Matryoshka dimensions of the head's vectors.
    """
    wanted = log_softmax(queries @ documents.T / BASE_TEMPERATURE, dim=1)
    terms = []
    for size in sizes:
        cosines = normalize(new_queries[:, :size], dim=1) @ normalize(new_documents[:, :size], dim=1).T
        got = log_softmax(cosines * scale / TEMPERATURE, dim=1)
        terms.append(kl_div(got, wanted, log_target=True, reduction="batchmean"))
    return torch.stack(terms).mean()


def head_size(dimension: int, hidden: int) -> int:
    """Parameters of a head of `hidden` units over vectors of `dimension`, with those that only pass these on."""
    inner = hidden + 2 * dimension
    return inner * (2 * dimension + 1) + dimension


def append_head(base: Path, head: HeadNetwork, folder: Path) -> None:
    """Copy the encoder in `base` into the empty `folder`, with the head as modules after its own."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    unfit = shutil.ignore_patterns(MANIFEST_FILE, OFFSETS_FILE.parent.name)  # of the vectors without the head
    shutil.copytree(base, folder, dirs_exist_ok=True, ignore=unfit)
    inner, outer = head.inner, head.outer
    (hidden, size), through = inner.weight.shape, THROUGH * torch.eye(inner.weight.shape[1])
    modules = (
        Dense(
            size, hidden + 2 * size, activation_function=torch.nn.GELU(),
            init_weight=torch.cat([inner.weight.detach(), through, -through]),
            init_bias=torch.cat([inner.bias.detach(), torch.zeros(2 * size)]),
        ),
        Dense(
            hidden + 2 * size, size, activation_function=torch.nn.Identity(),
            init_weight=torch.cat([outer.weight.detach(), through / THROUGH**2, -through / THROUGH**2], dim=1),
            init_bias=outer.bias.detach(),
        ),
        Normalize(),
    )  # fmt: skip
    listed = read_modules(folder)
    is_unit = str(listed[-1]["type"]).endswith("Normalize")
    for place, module in enumerate(modules if is_unit else (Normalize(), *modules), start=len(listed)):
        name = type(module).__name__
        (folder / f"{place}_{name}").mkdir()
        module.save(str(folder / f"{place}_{name}"))
        entry = {"idx": place, "name": str(place), "path": f"{place}_{name}"}
        listed.append(entry | {"type": f"sentence_transformers.models.{name}"})
    (folder / MODULES_FILE).write_text(json.dumps(listed, indent=2), "utf-8")
