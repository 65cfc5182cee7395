"""Ranking whole documents by vectors of their passages: what stands for a document, learned or not.

    python -m benchmarks.documents INDEX --queries FILE [--unseen INDEX FILE] [--steps 300]
    python -m benchmarks.documents INDEX --queries FILE --weights 0 0.1 0.2 0.3 0.5

FILE holds JSON lines with `text` and `relevant`, ids of documents that are translations of one another. Two tasks, both
over all documents of the index in one pool: from a query to its documents, and from a document to its translations.
Mean average precision of `mean` (of a document's passages, by length), `max` (its best passage; between documents the
mean of each passage's best), `first`, `max + w mean`, and two small document encoders above the passages, trained on
three fifths of the works and judged on the others, and on an index that they never saw: `hierarchical`, a transformer
over the passages' vectors whose output is added to their mean (Galoglu et al., 2023, "A General-Purpose Multilingual
Document Encoder", arXiv 2305.07016), and `weighted`, a mean with learned weights. A third task, `detail`: a sentence
from inside a document with many passages, to that document. With `--weights` the engine itself is asked, with these
weights of the document against its passage. Writes results/documents.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import nn

import search.retrieval
from benchmarks.records import RESULTS, describe_run, write_rows
from search.diversity import neutral_vectors
from search.encoder import load_encoder
from search.engine import Engine
from search.evaluation.metrics import average_precision, ndcg_at_k, own_language_share, recall_at_k
from search.opening import open_index
from search.passages import iter_sentences
from search.records import Vectors
from search.rerank import NONE
from search.results import Mode
from search.settings import load_settings

HELD_OUT = 0.4
MOST_PASSAGES = 48
"""Of a longer document so many are taken, evenly."""
PLACES = 17
TEMPERATURE = 0.05
JUDGED, DETAIL_PASSAGES, DETAIL_BYTES = 400, 12, (40, 240)
WEIGHTS = (0.1, 0.2, 0.3, 0.5, 1.0)
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Passages (B, N, D), their share of the document's length (B, N), 0 where there is none, and place (B, N) 0 to 16."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Queries:
    """Neutral vectors (Q, D) of queries, and the rows of the documents that answer each."""

    vectors: Vectors
    relevant: list[list[int]]


@dataclass(frozen=True)
class Collection:
    """An index's documents: neutral vectors (C, D) of the passages, those of row d from `starts[d]` to `starts[d + 1]`.

    `works` (N,) says which documents are translations of one another, -1 where that is not known.
    """

    vectors: Vectors
    lengths: Vectors
    starts: np.ndarray
    works: np.ndarray
    queries: Queries
    details: Queries

    @property
    def means(self) -> Vectors:
        """The mean (N, D) of each document's passages by their length, unit length."""
        summed = np.add.reduceat(self.vectors * self.lengths[:, None], self.starts[:-1])
        return np.asarray(summed / np.linalg.norm(summed, axis=1, keepdims=True), np.float32)

    def best(self, queries: Vectors) -> Vectors:
        """Scores (N, Q) of each document's best passage."""
        return np.maximum.reduceat(self.vectors @ queries.T, self.starts[:-1])

    def batch(self, rows: Sequence[int]) -> Batch:
        """What a document encoder reads."""
        kept = [_evenly(int(self.starts[row]), int(self.starts[row + 1])) for row in rows]
        longest = max(map(len, kept))
        passages = torch.zeros(len(rows), longest, self.vectors.shape[1])
        shares, places = torch.zeros(len(rows), longest), torch.zeros(len(rows), longest, dtype=torch.long)
        for at, chosen in enumerate(kept):
            count, lengths = len(chosen), torch.from_numpy(self.lengths[chosen])
            passages[at, :count] = torch.from_numpy(self.vectors[chosen])
            shares[at, :count] = lengths / lengths.sum()
            places[at, :count] = torch.linspace(0, PLACES - 1, count).round().long()
        return passages, shares, places


def _evenly(start: int, end: int) -> np.ndarray:
    return np.unique(np.linspace(start, end - 1, min(end - start, MOST_PASSAGES)).round().astype(int))


def read_collection(index: Path, queries: Path) -> Collection:
    """The passages of an index and the queries of a file, as its own encoder and language map see them."""
    settings = load_settings(index=str(index))
    opened = open_index(settings)
    encoder = load_encoder(opened.manifest.encoder, cache_dir=settings.encoders_folder)
    found: dict[str, list[tuple[int, str, Vectors]]] = defaultdict(list)
    for point in opened.store.iter_points(with_vectors=True):
        found[point.chunk.document_id].append((point.chunk.number, point.chunk.text, point.dense))
    ids = sorted(found)
    chunks = [sorted(found[document], key=lambda chunk: chunk[0]) for document in ids]
    row_of = {document: row for row, document in enumerate(ids)}
    asked = [json.loads(line) for line in queries.read_text("utf-8").splitlines()]
    relevant = [[row_of[name] for name in query["relevant"] if name in row_of] for query in asked]
    works = np.full(len(ids), -1)
    for work, rows in enumerate(sorted({tuple(sorted(rows)) for rows in relevant if rows})):
        works[list(rows)] = work

    def neutral(texts: list[str]) -> Vectors:
        return opened.language_map.map_queries(encoder.encode_queries(texts), balance=1.0)

    known = [number for number, rows in enumerate(relevant) if rows]
    sentences = list(iter_details([(row, [text for _, text, _ in rows]) for row, rows in enumerate(chunks)]))
    return Collection(
        neutral_vectors(opened.language_map, np.stack([dense for rows in chunks for _, _, dense in rows])),
        np.array([len(text) + 1 for rows in chunks for _, text, _ in rows], np.float32),
        np.cumsum([0, *map(len, chunks)]),
        works,
        Queries(neutral([asked[number]["text"] for number in known]), [relevant[number] for number in known]),
        Queries(neutral([text for _, text in sentences]), [[row] for row, _ in sentences]),
    )


def iter_details(documents: Sequence[tuple[int, list[str]]]) -> Iterator[tuple[int, str]]:
    """A sentence out of the middle of each of up to 400 documents with many passages."""
    rng = random.Random(0)
    long = [(row, texts) for row, texts in documents if len(texts) >= DETAIL_PASSAGES]
    for row, texts in rng.sample(long, min(JUDGED, len(long))):
        least, most = DETAIL_BYTES
        text = rng.choice(texts)
        sentences = [text[start:end].strip() for start, end in iter_sentences(text)]
        fitting = [sentence for sentence in sentences if least <= len(sentence.encode()) <= most]
        if fitting:
            yield row, rng.choice(fitting)


class HierarchicalEncoder(nn.Module):
    """Two transformer layers over passage vectors; what they say is added to the mean, and at first is nothing."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.enter = nn.Linear(dimension, dimension)
        self.place = nn.Embedding(PLACES, dimension)
        nn.init.normal_(self.place.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(dimension, 6, 768, 0.1, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.attend, self.leave = nn.Linear(dimension, 1), nn.Linear(dimension, dimension)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, passages: torch.Tensor, shares: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Document vectors (B, D), unit length."""
        none = shares <= 0
        states = self.layers(
            self.enter(passages * passages.shape[-1] ** 0.5) + self.place(places), src_key_padding_mask=none
        )
        weights = torch.softmax(self.attend(states).squeeze(-1).masked_fill(none, -torch.inf), dim=1)
        mean = nn.functional.normalize((shares.unsqueeze(-1) * passages).sum(1), dim=1)
        return nn.functional.normalize(mean + self.leave((weights.unsqueeze(-1) * states).sum(1)), dim=1)


class WeightedMean(nn.Module):
    """A mean of the passages whose weights come from each passage, the document's mean and the place."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.place = nn.Embedding(PLACES, 16)
        self.weigh = nn.Sequential(nn.Linear(2 * dimension + 16, 64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, 1))
        for parameter in self.weigh[3].parameters():  # equal weights at first
            nn.init.zeros_(parameter)

    def forward(self, passages: torch.Tensor, shares: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Document vectors (B, D), unit length."""
        mean = (shares.unsqueeze(-1) * passages).sum(1, keepdim=True).expand_as(passages)
        scale = passages.shape[-1] ** 0.5 / 2
        weights = self.weigh(torch.cat([passages * scale, mean * scale, self.place(places)], dim=-1)).squeeze(-1)
        return nn.functional.normalize(((shares * weights.exp()).unsqueeze(-1) * passages).sum(1), dim=1)


def train(model: nn.Module, of: Collection, held_out: set[int], *, steps: int, rate: float) -> None:
    """InfoNCE from queries to documents and between translations, among the works that are not held out."""
    rng = np.random.default_rng(0)
    asked = [number for number, rows in enumerate(of.queries.relevant) if of.works[rows[0]] not in held_out]
    members: dict[int, list[int]] = defaultdict(list)
    for row, work in enumerate(of.works.tolist()):
        if work >= 0 and work not in held_out:
            members[work].append(row)
    translated = [rows for rows in members.values() if len(rows) > 1]
    others = np.array([row for row, work in enumerate(of.works.tolist()) if work not in held_out])
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.05)
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - step / steps)
        numbers = rng.choice(asked, 32, replace=False)
        targets = [int(rng.choice(of.queries.relevant[number])) for number in numbers]
        pairs = [rng.choice(translated[at], 2, replace=False) for at in rng.permutation(len(translated))[:16]]
        firsts, seconds = ([int(pair[side]) for pair in pairs] for side in (0, 1))
        rows = np.array([*targets, *firsts, *seconds, *rng.choice(others, 32).tolist()])
        documents = model(*of.batch(rows.tolist()))
        queries = torch.from_numpy(of.queries.vectors[numbers])
        anchors = torch.cat([queries, documents[32 : 32 + len(firsts)]])
        answers = np.concatenate([np.arange(32), 32 + len(firsts) + np.arange(len(seconds))])
        own = np.concatenate([targets, firsts])
        same = (of.works[own][:, None] == of.works[rows][None]) & (of.works[rows] >= 0)[None]
        same |= own[:, None] == rows[None]
        same[np.arange(len(own)), answers] = False
        scores = (anchors @ documents.T / TEMPERATURE).masked_fill(torch.from_numpy(same), -torch.inf)
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(answers))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def encode(model: nn.Module, of: Collection) -> Vectors:
    """Document vectors (N, D)."""
    model.eval()
    with torch.inference_mode():
        batches = [range(start, min(start + 64, len(of.works))) for start in range(0, len(of.works), 64)]
        return np.concatenate([model(*of.batch(rows)).numpy() for rows in batches])


def judge(of: Collection, kind: str, documents: Vectors | None, works: set[int], weight: float | None) -> Row:
    """Mean average precision of the three tasks; with `weight`, the best passage counts too."""

    def scores(queries: Vectors) -> Vectors:
        if documents is None:
            return of.best(queries)
        return documents @ queries.T if weight is None else of.best(queries) + weight * (documents @ queries.T)

    numbers = [number for number, rows in enumerate(of.queries.relevant) if of.works[rows[0]] in works]
    found = scores(of.queries.vectors[numbers]).T
    row: Row = {"kind": kind, "queries": _mean_ap(zip(found, (of.queries.relevant[n] for n in numbers), strict=True))}
    row["detail"] = _mean_ap(zip(scores(of.details.vectors).T, of.details.relevant, strict=True))
    if weight is None:
        row["translations"] = _mean_ap(_translations(of, documents, works))
    return row


def _translations(of: Collection, documents: Vectors | None, works: set[int]) -> Iterator[tuple[Vectors, list[int]]]:
    sizes = Counter(of.works.tolist())
    rows = [row for row, work in enumerate(of.works.tolist()) if work in works and sizes[work] > 1]
    for row in random.Random(0).sample(rows, min(JUDGED, len(rows))):
        if documents is None:
            own = slice(of.starts[row], of.starts[row + 1])
            found = np.average(of.best(of.vectors[own]), axis=1, weights=of.lengths[own])
        else:
            found = documents @ documents[row]
        found[row] = -np.inf
        yield found, [other for other in np.flatnonzero(of.works == of.works[row]).tolist() if other != row]


def _mean_ap(ranked: Any) -> float:
    values = [
        average_precision([str(row) for row in np.argsort(-scores, kind="stable")], {str(row) for row in relevant})
        for scores, relevant in ranked
    ]
    return round(fmean(values), 4) if values else float("nan")


def iter_rows(of: Collection, works: set[int], models: dict[str, nn.Module]) -> Iterator[Row]:
    """A row for each way to see a document."""
    means = of.means
    vectors: dict[str, Vectors | None] = {"max": None, "mean": means, "first": of.vectors[of.starts[:-1]]}
    vectors |= {name: encode(model, of) for name, model in models.items()}
    for kind, documents in vectors.items():
        yield judge(of, kind, documents, works, None)
    for weight in WEIGHTS:
        yield judge(of, f"max + {weight:g} mean", means, works, weight)


def ask_engine(index: Path, queries: Path, weights: Sequence[float], every: int) -> Iterator[Row]:
    """What the engine finds with each weight of the document, all translations listed."""
    engine = Engine.open(index)
    known = {str(fields["document_id"]) for fields in engine.index().store.iter_fields(["document_id"])}
    asked = [json.loads(line) for line in queries.read_text("utf-8").splitlines()][::every]
    for mode in (Mode.HYBRID, Mode.DENSE):
        for weight in weights:
            search.retrieval.DOCUMENT_WEIGHT = weight
            found: dict[str, list[float]] = defaultdict(list)
            for query in asked:
                relevant = {str(name) for name in query["relevant"]} & known
                if not relevant:
                    continue
                hits = engine.search(query["text"], k=100, mode=mode, fold=False, rerank=NONE).hits
                ranked = [hit.chunk.document_id for hit in hits]
                found["ndcg@10"].append(ndcg_at_k(ranked, dict.fromkeys(relevant, 1.0), 10))
                found["map@100"].append(average_precision(ranked, relevant))
                found["recall@20"].append(recall_at_k(ranked, relevant, 20))
                if lang := query.get("lang"):
                    found["own"].append(own_language_share([hit.chunk.lang for hit in hits], lang))
            yield {"index": index.name, "kind": f"engine, {mode}", "weight": weight, "asked": len(found["ndcg@10"])} | {
                name: round(fmean(values), 4) for name, values in found.items()
            }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, judge, write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("index", type=Path, help="an embedded index")
    parser.add_argument("--queries", type=Path, required=True, help="its queries")
    parser.add_argument("--unseen", type=Path, nargs=2, help="another index, never trained on, and its queries")
    parser.add_argument("--steps", type=int, default=300, help="of each document encoder (%(default)s)")
    parser.add_argument("--weights", type=float, nargs="+", help="ask the engine with these weights instead")
    parser.add_argument("--every", type=int, default=1, help="ask it every so many queries (%(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where to write (%(default)s)")
    options = parser.parse_args(arguments)
    flags = " --unseen UNSEEN FILE" if options.unseen else ""
    if options.weights:
        flags = " --weights " + " ".join(f"{weight:g}" for weight in options.weights) + f" --every {options.every}"
        rows = ask_engine(options.index, options.queries, options.weights, options.every)
    else:
        rows = compare(options.index, options.queries, options.unseen, options.steps)
        flags += f" --steps {options.steps}"
    run = describe_run(f"python -m benchmarks.documents INDEX --queries FILE{flags}")
    for row in rows:
        print(json.dumps(row), flush=True)
        write_rows("documents", run, [row], folder=options.results)
    return 0


def compare(index: Path, queries: Path, unseen: tuple[Path, Path] | None, steps: int) -> Iterator[Row]:
    """Train on a part of the works of one collection; judge on the rest, and on an unseen one."""
    torch.manual_seed(0)
    of = read_collection(index, queries)
    works = np.unique(of.works[of.works >= 0])
    held_out = set(np.random.default_rng(0).permutation(works)[: round(len(works) * HELD_OUT)].tolist())
    dimension = of.vectors.shape[1]
    models = {"hierarchical": HierarchicalEncoder(dimension), "weighted": WeightedMean(dimension)}
    for model, rate in zip(models.values(), (3e-4, 2e-3), strict=True):
        train(model, of, held_out, steps=steps, rate=rate)
    for row in iter_rows(of, held_out, models):
        yield row | {"index": index.name, "set": "held-out works", "works": len(held_out)}
    if unseen:
        other = read_collection(*unseen)
        everything = set(other.works[other.works >= 0].tolist())
        for row in iter_rows(other, everything, models):
            yield row | {"index": unseen[0].name, "set": "unseen index", "works": len(everything)}


if __name__ == "__main__":
    sys.exit(main())
