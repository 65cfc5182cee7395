"""Hard negatives: documents that look like the answer to a query and are not."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, zip_longest
from typing import Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from search.errors import SettingsError
from search.language import canonical_language
from search.records import Vectors
from search.text import normalize
from training.data.schema import RetrievalRow
from training.mining_bm25 import LexicalIndex

QUERIES_PER_BLOCK = 128
_T = TypeVar("_T")


class MiningEncoder(Protocol):
    """What mining needs of an encoder: vectors (B, D) of unit length."""

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is searched with."""

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Vectors of what is searched in."""


class CandidateSource(StrEnum):
    """Who proposes candidates."""

    DENSE = "dense"
    BM25 = "bm25"


class DropRule(StrEnum):
    """Why a candidate did not become a negative."""

    FAMILY = "own document or its translation"
    POSITIVE = "answers the same query in another row"
    GIVEN = "given as a negative already"
    SKIPPED = "among the first that skip_top leaves out"
    CLOSE = "too close to the positive"


@dataclass(frozen=True, slots=True)
class MiningOptions:
    """How to mine.

    Encoders of the E5 family give unrelated texts cosines of 0.7 and more, so that 95 % of the positive also drops most
    hard candidates there (on the bundled corpus 43 of 371 rows were left with none); a `margin` of 0.01 to 0.02 is the
    better rule for them.

    Args:
        per_query: Negatives a row shall have, given ones included; at least 1.
        candidates: How many documents each source proposes in the query's language, and again in the others.
        max_share: A negative scores at most this share of the positive's cosine; in (0, 1].
        margin: Instead of `max_share`: a negative scores at most the positive's cosine less this; 0 to 2.
        sources: Who proposes candidates; they take turns.
        same_language_share: Share of the mined negatives in the query's own language, in [0, 1].
        skip_top: So many first candidates of each source and side are left out as likely unmarked answers.
        titles: Whether documents are scored, and negatives written, with their title before the text; right only where
            training shows positives that way, since the title would tell them apart otherwise.
        sample: Rows that the report shows.
        seed: Chooses those rows.

    Raises:
        SettingsError: A value is out of range.
    """

    per_query: int = 8
    candidates: int = 100
    max_share: float = 0.95
    margin: float | None = None
    sources: tuple[CandidateSource, ...] = (CandidateSource.DENSE, CandidateSource.BM25)
    same_language_share: float = 0.5
    skip_top: int = 0
    titles: bool = False
    sample: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            "per_query": (self.per_query, self.per_query >= 1, "1 or more"),
            "candidates": (self.candidates, self.candidates > self.skip_top, "more than skip_top"),
            "max_share": (self.max_share, 0 < self.max_share <= 1, "more than 0, at most 1"),
            "margin": (self.margin, self.margin is None or 0 <= self.margin <= 2, "0 to 2"),
            "sources": (self.sources, bool(self.sources), "dense, bm25 or both"),
            "same_language_share": (self.same_language_share, 0 <= self.same_language_share <= 1, "0 to 1"),
            "skip_top": (self.skip_top, self.skip_top >= 0, "0 or more"),
            "sample": (self.sample, self.sample >= 0, "0 or more"),
        }
        for name, (value, allowed, range_) in wrong.items():
            if not allowed:
                raise SettingsError(f"{name} is {value}; give {range_}.")

    def ceiling(self, positive: float) -> float:
        """Highest cosine that a negative may have beside a positive of cosine `positive`."""
        if self.margin is not None:
            return positive - self.margin
        return positive - (1 - self.max_share) * abs(positive)


class MinedRow(RetrievalRow):
    """A row whose last `mined` negatives were mined; the ones before were given with the data."""

    mined: int = Field(default=0, ge=0)


@dataclass(frozen=True, slots=True)
class MinedNegative:
    """A mined document: its cosine to the query, and who proposed it first."""

    text: str
    lang: str
    score: float
    source: CandidateSource


@dataclass(frozen=True, slots=True)
class MinedSample:
    """A row to look at."""

    query: str
    lang_query: str
    positive: str
    lang_doc: str
    positive_score: float
    negatives: tuple[MinedNegative, ...]


@dataclass(frozen=True, slots=True)
class MiningReport:
    """What was found. `merged` documents had the text of another; `short` counts rows by the negatives they got.

    `language_pairs` counts mined negatives by (language of the query, language of the negative); `gaps` are the
    positive's cosine less the negative's; the distributions hold min, 25 %, 50 %, 75 %, max and mean.
    """

    rows: int
    queries: int
    documents: int
    merged: int
    given: int
    mined: int
    asked: int
    language_pairs: dict[tuple[str, str], int]
    sources: dict[str, int]
    dropped: dict[str, int]
    positives: dict[str, float]
    negatives: dict[str, float]
    gaps: dict[str, float]
    short: dict[int, int]
    sample: tuple[MinedSample, ...]


@dataclass(frozen=True, slots=True)
class Mined:
    """The rows in their order, with negatives, and what was found."""

    rows: tuple[MinedRow, ...]
    report: MiningReport


def mine_negatives(rows: Sequence[RetrievalRow], encoder: MiningEncoder, *, options: MiningOptions) -> Mined:
    """Give every row negatives from the documents of the other rows.

    Use it per data set, before training, with the encoder that will be trained or a better one. The query's own
    language and the other languages are searched apart, and of those the languages take turns, the document's own
    first: else the language of a text would tell the positive from the negatives. Negatives that the row brought along
    stay; those mined before are replaced. Any beginning of a row's mined negatives has about the same mixture.

    Costs Q x N x D multiplications, and two partial sorts of N scores per query and source; 4 N D bytes.

    Args:
        rows: Queries with their documents; all positives and given negatives are candidates.
        encoder: Scores them.
        options: How to mine.

    Raises:
        SettingsError: No row can have as many negatives as asked for.

    Source: de Souza Moreira et al., 2024, "NV-Retriever: Improving text embedding models with effective hard-negative
    mining" (TopK-PercPos at 95 %).
    Differs: BM25 proposes too, languages have quotas, translations of the answer are never negatives. That is also why
    `sentence_transformers.util.mine_hard_negatives` is not used: it knows neither families nor languages, takes one
    ranked list only, and wants a model with torch.
    """
    return _Miner(rows, encoder, options).run()


class _Pool:
    """The distinct documents of the rows: texts that differ only as `normalize` and white space do count as one."""

    def __init__(self, rows: Sequence[MinedRow], *, titles: bool) -> None:
        self.texts: list[str] = []
        self.langs: list[str] = []
        self.merged = 0
        self._place: dict[str, int] = {}
        self._members: dict[str, set[int]] = defaultdict(set)
        self._families: dict[int, set[str]] = defaultdict(set)
        for row in rows:
            self._add(row, row.positive, row.family, row.title if titles else "")
        for row in rows:
            for text in given(row):
                self._add(row, text, None, "")

    def _add(self, row: RetrievalRow, text: str, family: str | None, title: str) -> None:
        key = comparable(text)
        if key not in self._place:
            self._place[key] = len(self.texts)
            self.texts.append(text if key.startswith(comparable(title)) else f"{title}\n{text}")
            self.langs.append(canonical_language(row.lang_doc))
        elif family and family not in self._families[self._place[key]]:
            self.merged += 1
        if family:
            self._members[family].add(self._place[key])
            self._families[self._place[key]].add(family)

    def place(self, text: str) -> int:
        """Number of the document with this text."""
        return self._place[comparable(text)]

    def relatives(self, document: int) -> set[int]:
        """The document and all that share a family with it."""
        return {document}.union(*(self._members[family] for family in self._families[document]))


@dataclass(slots=True)
class _Tally:
    """Counts while mining."""

    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    positives: dict[int, float] = field(default_factory=dict)
    negatives: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


_Proposed: TypeAlias = dict[CandidateSource, list[int]]
_Kept: TypeAlias = tuple[list[tuple[int, CandidateSource]], dict[int, DropRule]]


@dataclass(frozen=True, slots=True)
class _Listed:
    """What the sources propose for a query, best first: in its own language, and in the others."""

    scores: Vectors
    own: _Proposed
    others: _Proposed


class _Miner:
    def __init__(self, rows: Sequence[RetrievalRow], encoder: MiningEncoder, options: MiningOptions) -> None:
        self.rows = [row if isinstance(row, MinedRow) else MinedRow(**row.model_dump()) for row in rows]
        self.options, self.encoder, self.tally = options, encoder, _Tally()
        self.pool = _Pool(self.rows, titles=options.titles)
        self.relatives = [self.pool.relatives(self.pool.place(row.positive)) for row in self.rows]
        self.queries: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.answers: dict[str, set[int]] = defaultdict(set)
        for number, row in enumerate(self.rows):
            self.queries[comparable(row.query), canonical_language(row.lang_query)].append(number)
            self.answers[comparable(row.query)] |= self.relatives[number]
        self._check()
        langs = np.array(self.pool.langs)
        self.own = {lang: np.flatnonzero(langs == lang) for lang in {lang for _, lang in self.queries}}
        self.others = {lang: np.flatnonzero(langs != lang) for lang in self.own}

    def _check(self) -> None:
        count, asked = len(self.pool.texts), self.options.per_query
        most = max((count - len(self.answers[query]) for query, _ in self.queries), default=asked)
        if most < asked:
            raise SettingsError(
                f"{asked} negatives per query are asked for, but the {len(self.rows)} rows hold {count} distinct "
                f"documents, at most {most} of them foreign to a query; ask for {most} or fewer, or mine larger files."
            )

    def run(self) -> Mined:
        found: dict[int, list[MinedNegative]] = {}
        for (_, lang), numbers, scores, lexical in self._score_queries():
            listed = self._propose(lang, len(self.answers[comparable(self.rows[numbers[0]].query)]), scores, lexical)
            for number in numbers:
                found[number] = self._choose(number, listed)
        rows = []
        for number, row in enumerate(self.rows):
            negatives = (*given(row), *(negative.text for negative in found[number]))
            rows.append(row.model_copy(update={"negatives": negatives, "mined": len(found[number])}))
        return Mined(tuple(rows), self._report(found))

    def _score_queries(self) -> Iterator[tuple[tuple[str, str], list[int], Vectors, Vectors | None]]:
        """Every distinct query with its rows, its cosines (N,) and its BM25 scores (N,)."""
        documents = self.encoder.encode_documents(self.pool.texts)
        wants_index = bool(self.rows) and CandidateSource.BM25 in self.options.sources
        index = LexicalIndex(self.pool.texts) if wants_index else None
        queries = list(self.queries.items())
        for start in range(0, len(queries), QUERIES_PER_BLOCK):
            block = queries[start : start + QUERIES_PER_BLOCK]
            texts = [self.rows[numbers[0]].query for _, numbers in block]
            cosines = self.encoder.encode_queries(texts) @ documents.T
            for (key, numbers), text, scores in zip(block, texts, cosines, strict=True):
                yield key, numbers, scores, index.scores(text) if index else None

    def _propose(self, lang: str, answers: int, scores: Vectors, lexical: Vectors | None) -> _Listed:
        depth = self.options.candidates + answers + self.options.per_query
        own: _Proposed = {}
        others: _Proposed = {}
        for source in self.options.sources:
            values = scores if source is CandidateSource.DENSE or lexical is None else lexical
            least = -np.inf if source is CandidateSource.DENSE else 0.0
            own[source] = _best(values, self.own[lang], depth, above=least)
            others[source] = _best(values, self.others[lang], depth, above=least)
        return _Listed(scores, own, others)

    def _choose(self, number: int, listed: _Listed) -> list[MinedNegative]:
        """Negatives of one row, its own language and the others by turns."""
        row = self.rows[number]
        positive = float(listed.scores[self.pool.place(row.positive)])
        ceiling = self.options.ceiling(positive)
        own, dropped = self._keep(number, listed.own, ceiling, listed.scores)
        others, dropped_others = self._keep(number, listed.others, ceiling, listed.scores)
        others = self._by_language(others, first=canonical_language(row.lang_doc))
        wanted = max(0, self.options.per_query - len(given(row)))
        quota = int(wanted * self.options.same_language_share + 0.5)
        take_own = min(len(own), max(quota, wanted - len(others)))
        picked = _in_turns([own[:take_own], others[: wanted - take_own]])
        negatives = [
            MinedNegative(self.pool.texts[document], self.pool.langs[document], float(listed.scores[document]), source)
            for document, source in picked
        ]
        self._count(number, positive, negatives, [*dropped.values(), *dropped_others.values()])
        return negatives

    def _keep(self, number: int, proposed: _Proposed, ceiling: float, scores: Vectors) -> _Kept:
        """Candidates that no rule drops, the sources by turns, each document once; and the others with their rules."""
        answers = self.answers[comparable(self.rows[number].query)]
        dropped = dict.fromkeys(answers, DropRule.POSITIVE)
        dropped |= dict.fromkeys((self.pool.place(text) for text in given(self.rows[number])), DropRule.GIVEN)
        dropped |= dict.fromkeys(self.relatives[number], DropRule.FAMILY)
        ranked = {}
        for source, documents in proposed.items():
            foreign = [document for document in documents if document not in dropped][: self.options.candidates]
            ranked[source] = foreign[self.options.skip_top :]
            dropped |= dict.fromkeys(foreign[: self.options.skip_top], DropRule.SKIPPED)
        every = set(chain.from_iterable(ranked.values()))
        dropped |= {document: DropRule.CLOSE for document in every - set(dropped) if scores[document] > ceiling}
        lists = [[(d, source) for d in documents if d not in dropped] for source, documents in ranked.items()]
        kept: dict[int, CandidateSource] = {}
        for document, source in _in_turns(lists):
            kept.setdefault(document, source)
        seen = set(chain.from_iterable(proposed.values()))
        return list(kept.items()), {document: rule for document, rule in dropped.items() if document in seen}

    def _count(self, number: int, positive: float, negatives: list[MinedNegative], dropped: list[DropRule]) -> None:
        tally, lang = self.tally, canonical_language(self.rows[number].lang_query)
        tally.dropped.update(dropped)
        tally.pairs.update((lang, negative.lang) for negative in negatives)
        tally.sources.update(negative.source for negative in negatives)
        tally.positives[number] = positive
        tally.negatives += [negative.score for negative in negatives]
        tally.gaps += [positive - negative.score for negative in negatives]

    def _report(self, found: dict[int, list[MinedNegative]]) -> MiningReport:
        tally = self.tally
        counts = [len(given(row)) + len(found[number]) for number, row in enumerate(self.rows)]
        short = Counter(count for count in counts if count < self.options.per_query)
        return MiningReport(
            rows=len(self.rows),
            queries=len(self.queries),
            documents=len(self.pool.texts),
            merged=self.pool.merged,
            given=sum(len(given(row)) for row in self.rows),
            mined=sum(map(len, found.values())),
            asked=self.options.per_query,
            language_pairs=dict(sorted(tally.pairs.items())),
            sources=dict(sorted(tally.sources.items())),
            dropped=dict(sorted(tally.dropped.items())),
            positives=_distribution(list(tally.positives.values())),
            negatives=_distribution(tally.negatives),
            gaps=_distribution(tally.gaps),
            short=dict(sorted(short.items())),
            sample=tuple(self._sample(found)),
        )

    def _sample(self, found: dict[int, list[MinedNegative]]) -> Iterator[MinedSample]:
        filled = [number for number, negatives in sorted(found.items()) if negatives]
        for number in sorted(random.Random(self.options.seed).sample(filled, min(self.options.sample, len(filled)))):
            row = self.rows[number]
            positive = self.pool.texts[self.pool.place(row.positive)]
            yield MinedSample(
                row.query, row.lang_query, positive, row.lang_doc, self.tally.positives[number], tuple(found[number])
            )

    def _by_language(
        self, candidates: list[tuple[int, CandidateSource]], *, first: str
    ) -> list[tuple[int, CandidateSource]]:
        """Candidates with the languages by turns: `first`, then those with the best candidates."""
        lists: dict[str, list[tuple[int, CandidateSource]]] = {first: []}
        for document, source in candidates:
            lists.setdefault(self.pool.langs[document], []).append((document, source))
        return _in_turns(lists.values())


def comparable(text: str) -> str:
    """What texts have in common that a reader would call the same."""
    return " ".join(normalize(text).split())


def given(row: MinedRow) -> tuple[str, ...]:
    """The negatives that came with the data."""
    return tuple(text for text in row.negatives[: max(0, len(row.negatives) - row.mined)] if text.strip())


def _best(scores: Vectors, documents: npt.NDArray[np.int64], count: int, *, above: float) -> list[int]:
    """Up to `count` of `documents` that score more than `above`, best first, ties by ascending number."""
    values = scores[documents]
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count]
        places = np.flatnonzero((values >= least) & (values > above))
    else:
        places = np.flatnonzero(values > above)
    order = np.argsort(-values[places], kind="stable")[:count]
    return [int(document) for document in documents[places[order]]]


def _in_turns(lists: Iterable[Sequence[_T]]) -> list[_T]:
    """The first of every list, the second of every list, and so on."""
    nothing = object()
    turns = chain.from_iterable(zip_longest(*lists, fillvalue=nothing))
    return [item for item in turns if item is not nothing]  # type: ignore[misc]


def _distribution(values: Sequence[float]) -> dict[str, float]:
    """Quartiles and mean, or nothing of nothing."""
    if not values:
        return {}
    quartiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    named = zip(("min", "25 %", "50 %", "75 %", "max"), quartiles, strict=True)
    return {**{name: round(float(value), 4) for name, value in named}, "mean": round(float(np.mean(values)), 4)}
