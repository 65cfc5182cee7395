"""Static distillation: an encoder that is a table, a vector for each piece of the vocabulary and no network.

A text's vector is the mean of its pieces', so that indexing costs as much as cutting words. Each piece starts as what
the encoder says of it alone, weighted by how rare it is; then the table is fitted to the encoder's vectors of whole
texts, without their language, and to the pairs that belong together.

Source: Tulkens and van Dongen, 2024, "Model2Vec" (pieces through the encoder, principal components, weights of rarity;
the fit to whole texts is what their Tokenlearn does); Arora et al., 2017, "A Simple but Tough-to-Beat Baseline for
Sentence Embeddings", section 3 (the weight a / (a + p)); van den Oord et al., 2018, equation 4 (InfoNCE over pairs).
Differs: the teacher's vectors have no language (`training.neutral`), in text and in translations.
"""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from search.encoder.loading import drop_special_tokens
from search.errors import TrainingDataError
from search.records import Vectors
from search.settings import Settings
from training.adapt.general import general_rows
from training.data.loading import iter_rows
from training.data.schema import BitextRow, RetrievalRow, Row
from training.export import DESCRIPTION_FILE
from training.neutral import remove_language_means
from training.outputs import refuse_existing
from training.pipeline import Report
from training.vocabulary.folder import encoder_folder, load_named
from training.vocabulary.unigram import Unigram, read_unigram

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from search.encoder import Encoder

RARITY = 1e-4
"""a of the weight a / (a + p)."""
CHARACTERS = 600
"""Of a text are read."""
HELD_OUT = 0.02
BATCH = 512
LEARNING_RATE = 2e-2
"""In units of the table's mean length of a row."""
SIMILARITY_TEMPERATURE = 0.05
NOTHING = 1e-6
"""Length of a special token's row."""
QUERY, DOCUMENT = "query", "document"


@dataclass(frozen=True, slots=True)
class StaticOptions:
    """What to distil, where to, and from which texts.

    Attributes:
        encoder: Built-in name, folder or hub id.
        out: Folder to make.
        rows: Files of training rows (retrieval and bitext are used); none: those that come with the package.
        dimension: Of the vectors.
        most: Rows at the most, those of all languages alike.
        epochs: Times that each is seen.
        seed: Chooses and orders rows.
    """

    encoder: str
    out: Path
    rows: tuple[Path, ...] = ()
    dimension: int = 256
    most: int = 100_000
    epochs: int = 10
    seed: int = 7


@dataclass(frozen=True, slots=True)
class Side:
    """One text of a pair, and whether it is a query or a document."""

    text: str
    lang: str
    kind: str


class Pair(NamedTuple):
    """Texts that belong together; those of one family are translations, never each other's wrong answers."""

    first: Side
    second: Side
    family: str


@dataclass(frozen=True, slots=True)
class Closeness:
    """How near the table comes to the encoder on texts that it was not fitted to.

    Attributes:
        lang: BCP-47.
        texts: How many.
        before: Mean cosine to the encoder's vectors, in the kept dimensions, of the table before the fit.
        after: The same of the fitted one.
    """

    lang: str
    texts: int
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class StaticReport:
    """What was made.

    Attributes:
        pieces: Rows of the table.
        seen: How many of them occur in the texts; the others stay as they were at the start.
        pairs: What it was fitted to.
        dimension: Of the vectors: as asked, or the encoder's if that has fewer.
        kept: Share of the encoder's variance that the dimensions keep.
        closeness: By language.
    """

    pieces: int
    seen: int
    pairs: int
    dimension: int
    kept: float
    closeness: tuple[Closeness, ...]

    def as_record(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def distil_static(options: StaticOptions, settings: Settings, *, report: Report) -> StaticReport:
    """Write a static encoder; `SentenceTransformer(out)` loads it.

    Raises:
        TrainingDataError: A file cannot be read, or there is no pair in any.
        EncoderError: The encoder cannot be found, or its tokenizer is no Unigram tokenizer.
        TrainingError: `out` is there already.
    """
    refuse_existing(options.out)
    encoder = load_named(options.encoder, settings)
    unigram = read_unigram(encoder_folder(encoder))
    pairs = choose_pairs(read_rows(options), most=options.most, seed=options.seed)
    sides = list(dict.fromkeys(side for pair in pairs for side in (pair.first, pair.second)))
    languages = {side.lang for side in sides}
    report(f"encoding {len(sides):,} texts of {len(pairs):,} pairs in {len(languages)} languages")
    teacher = neutral_vectors(encoder, sides)
    directions, kept = principal_directions(teacher, options.dimension)
    report(f"encoding {len(unigram.pieces):,} pieces")
    start = initial_table(encoder, unigram, directions)
    tokenizer = bare_tokenizer(encoder)
    fitting = Fitting(tokenizer, sides, np.asarray(teacher @ directions, np.float32), options.seed)
    table = fitting.fit(start, pairs, epochs=options.epochs, report=report)
    write_static(table, tokenizer, options.out, record={"base": encoder.name, "base_fingerprint": encoder.fingerprint})
    closeness = fitting.closeness(start, table)
    return StaticReport(len(table), fitting.count_seen(), len(pairs), table.shape[1], kept, closeness)


def read_rows(options: StaticOptions) -> Iterator[Row]:
    """The rows of the files, or those of the package."""
    if not options.rows:
        yield from general_rows((), seed=options.seed)
    for path in options.rows:
        yield from iter_rows(path)


def choose_pairs(rows: Iterable[Row], *, most: int, seed: int) -> list[Pair]:
    """Queries with their documents and sentences with a translation, as many of each pair of languages as there are.

    Raises:
        TrainingDataError: There is none.
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple[str, str], list[Pair]] = defaultdict(list)
    for row in rows:
        if isinstance(row, RetrievalRow | BitextRow):
            pair = _pair_of(row, rng)
            found[pair.first.lang, pair.second.lang].append(pair)
    if not found:
        raise TrainingDataError("no row of retrieval or bitext; give files with some, see docs/training.md")
    left, chosen = most, list[Pair]()
    for place, group in enumerate(sorted(found.values(), key=len)):
        picked = rng.permutation(len(group))[: left // (len(found) - place)]
        chosen += [group[number] for number in picked]
        left -= len(picked)
    return [chosen[place] for place in rng.permutation(len(chosen))]


def _pair_of(row: RetrievalRow | BitextRow, rng: np.random.Generator) -> Pair:
    if isinstance(row, RetrievalRow):
        document = f"{row.title}\n{row.positive}" if row.title else row.positive
        query = Side(row.query[:CHARACTERS], row.lang_query, QUERY)
        return Pair(query, Side(document[:CHARACTERS], row.lang_doc, DOCUMENT), row.family)
    places = rng.choice(len(row.texts), 2, replace=False)
    first, second = (Side(row.texts[place][:CHARACTERS], row.langs[place], DOCUMENT) for place in places)
    return Pair(first, second, f"{row.dataset}\t{row.group_id or row.texts[0]}")


def neutral_vectors(encoder: Encoder, sides: Sequence[Side]) -> Vectors:
    """The encoder's vectors (N, D) of texts, without the mean of their language; queries and documents apart."""
    vectors = np.empty((len(sides), encoder.dimension), np.float32)
    for kind, encode in ((QUERY, encoder.encode_queries), (DOCUMENT, encoder.encode_documents)):
        places = [place for place, side in enumerate(sides) if side.kind == kind]
        if places:
            encoded = encode([sides[place].text for place in places])
            vectors[places] = remove_language_means(encoded, [sides[place].lang for place in places])
    return vectors


def principal_directions(vectors: Vectors, dimension: int) -> tuple[Vectors, float]:
    """Directions (D, d) that keep most of the dot products between vectors (N, D), and the share that they keep."""
    values, axes = np.linalg.eigh(vectors.T @ vectors)
    kept = axes[:, ::-1][:, :dimension]
    return np.asarray(kept, np.float32), float(values[::-1][:dimension].sum() / values.sum())


def initial_table(encoder: Encoder, unigram: Unigram, directions: Vectors) -> Vectors:
    """A row (V, d) for each piece: its vector alone, from the middle of all, weighted by rarity.

    Special tokens count for nothing beside others; alone, as for an empty text, they give the first direction.
    """
    special = unigram.special
    texts = ["" if number in special else piece.replace("▁", " ") for number, piece in enumerate(unigram.pieces)]
    vectors = encoder.encode_documents(texts)
    vectors -= vectors.mean(axis=0)
    weights = RARITY / (RARITY + np.exp(np.array(unigram.scores, np.float64)))
    table = np.asarray((vectors @ directions) * weights[:, None], np.float32)
    table[list(special)] = NOTHING * np.eye(table.shape[1], dtype=np.float32)[0]
    return table


def bare_tokenizer(encoder: Encoder) -> Tokenizer:
    """The encoder's tokenizer without the tokens that it puts around a text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(encoder.tokenizer.to_str())
    drop_special_tokens(tokenizer)
    return tokenizer


class Fitting:
    """Texts cut into pieces, with the vectors that their means shall have."""

    def __init__(self, tokenizer: Tokenizer, sides: Sequence[Side], targets: Vectors, seed: int) -> None:
        self._ids = [encoding.ids or [0] for encoding in tokenizer.encode_batch_fast([side.text for side in sides])]
        self._sides = sides
        self._place = {side: place for place, side in enumerate(sides)}
        self._targets = targets
        self._rng = np.random.default_rng(seed)
        self._held_out = set(self._rng.permutation(len(sides))[: max(1, round(HELD_OUT * len(sides)))].tolist())

    def count_seen(self) -> int:
        """Different pieces in the texts."""
        return len({piece for ids in self._ids for piece in ids})

    def fit(self, start: Vectors, pairs: Sequence[Pair], *, epochs: int, report: Report) -> Vectors:
        """The table (V, d) after so many passes over the pairs."""
        import torch

        scale = float(np.linalg.norm(start, axis=1).mean())
        bag = torch.nn.EmbeddingBag.from_pretrained(torch.from_numpy(start.copy()), freeze=False, sparse=True)
        optimizer = torch.optim.SparseAdam(bag.parameters(), lr=LEARNING_RATE * scale)
        learnt = [pair for pair in pairs if not self._held_out & {self._place[pair.first], self._place[pair.second]}]
        steps = epochs * -(-len(learnt) // BATCH)
        for step, batch in enumerate(self._batches(learnt, epochs), start=1):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * scale * (1 - (step - 1) / steps)
            loss = self.loss(bag, batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # upstream has no annotations
            optimizer.step()  # type: ignore[no-untyped-call]  # as above
            if step * 10 % steps < 10:
                report(f"step {step:,} of {steps:,}: loss {loss.item():.3f}")
        return np.asarray(bag.weight.detach().numpy(), np.float32)

    def closeness(self, start: Vectors, table: Vectors) -> tuple[Closeness, ...]:
        """On the texts that were held out."""
        by_language: dict[str, list[int]] = defaultdict(list)
        for place in sorted(self._held_out):
            by_language[self._sides[place].lang].append(place)
        return tuple(
            Closeness(lang, len(places), self._mean_cosine(start, places), self._mean_cosine(table, places))
            for lang, places in sorted(by_language.items())
        )

    def _mean_cosine(self, table: Vectors, places: Sequence[int]) -> float:
        means = np.array([table[self._ids[place]].mean(axis=0) for place in places])
        targets = self._targets[list(places)]
        lengths = np.linalg.norm(means, axis=1) * np.linalg.norm(targets, axis=1)
        return float(np.mean(np.sum(means * targets, axis=1) / np.maximum(lengths, 1e-9)))

    def _batches(self, pairs: Sequence[Pair], epochs: int) -> Iterator[list[Pair]]:
        for _ in range(epochs):
            order = self._rng.permutation(len(pairs))
            for start in range(0, len(order), BATCH):
                yield [pairs[number] for number in order[start : start + BATCH]]

    def loss(self, bag: torch.nn.EmbeddingBag, batch: Sequence[Pair]) -> torch.Tensor:
        """1 - cosine of both texts to their targets, and InfoNCE from the first to the second among those of others."""
        import torch

        functional = torch.nn.functional
        places = [[self._place[pair.first] for pair in batch], [self._place[pair.second] for pair in batch]]
        first, second = (functional.normalize(self._means(bag, side)) for side in places)
        targets = [torch.from_numpy(self._targets[side]) for side in places]
        distance = sum(
            (1 - functional.cosine_similarity(vectors, target)).mean()
            for vectors, target in zip((first, second), targets, strict=True)
        )
        family = np.array([pair.family for pair in batch])
        same = torch.from_numpy((family[:, None] == family) & ~np.eye(len(batch), dtype=bool))
        similarity = (first @ second.T / SIMILARITY_TEMPERATURE).masked_fill(same, -torch.inf)
        contrast = functional.cross_entropy(similarity, torch.arange(len(batch)))
        return distance + contrast

    def _means(self, bag: torch.nn.EmbeddingBag, places: Sequence[int]) -> torch.Tensor:
        import torch

        ids = [self._ids[place] for place in places]
        starts = [0, *accumulate(map(len, ids))][:-1]
        flat = torch.tensor([piece for row in ids for piece in row])
        return bag(flat, torch.tensor(starts))  # type: ignore[no-any-return]


def write_static(table: Vectors, tokenizer: Tokenizer, out: Path, *, record: dict[str, Any]) -> None:
    """A SentenceTransformer folder of the table; it gets its name when all of it is written."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, StaticEmbedding

    work = out.with_name(f".{out.name}-new")
    shutil.rmtree(work, ignore_errors=True)
    modules: list[Any] = [StaticEmbedding(tokenizer, embedding_weights=table), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(work), create_model_card=False)
    made = {"name": out.name, "created": datetime.now(UTC).isoformat(timespec="seconds"), **record}
    (work / DESCRIPTION_FILE).write_text(json.dumps(made, indent=2, ensure_ascii=False), "utf-8")
    work.replace(out)
