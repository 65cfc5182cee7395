"""From rows to batches: one task a batch, few languages a batch, never two translations against each other.

Batches are planned before training, from a seed, so that a run can be resumed exactly, counted and looked at. A batch
is drawn in three steps: a dataset of the stream, by temperature; the languages that meet in it, by temperature; pairs
of those languages, each of another *family* (a document with its translations), so that no text is the negative of
its own translation. With few languages a batch, every query meets wrong documents in its own language: language stops
being a shortcut.

Source: Elmahdy et al., 2024, "Synergistic Approach for Simultaneous Optimization of Monolingual, Cross-lingual, and
Multilingual Information Retrieval", arXiv 2408.10536 (batches of same-language and cross-language pairs); Conneau and
Lample, 2019, "Cross-lingual Language Model Pretraining", section 3.1 (temperature over languages).
Differs: languages are limited within a batch; documents of one family are kept apart.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from typing import NamedTuple

from search.errors import TrainingDataError
from search.text import truncate_graphemes
from training.augmentation import Augmentation, build_augmentation
from training.data.cleaning import canonical_text
from training.data.schema import BitextRow, LabelledRow, NliRow, ParaphraseRow, RetrievalRow, Row, StsRow
from training.recipe import Objective, Stream

TRIES = 20
"""Draws for one place in a batch before it stays empty."""


class Text(NamedTuple):
    """A text and its language."""

    lang: str
    text: str


class Item(NamedTuple):
    """What one place in a batch can hold: queries and documents of a family, any query with any document."""

    family: str
    queries: tuple[Text, ...]
    documents: tuple[Text, ...]
    negatives: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Batch:
    """Rows of equal columns; `langs` are those of the first two."""

    stream: int
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    langs: tuple[tuple[str, str], ...] = ()


@dataclass
class Pool:
    """The items of one dataset, by the languages of their queries; and in which languages there are two documents."""

    items: list[Item]
    by_lang: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    answerable: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for place, item in enumerate(self.items):
            for lang in {query.lang for query in item.queries}:
                self.by_lang[lang].append(place)
        owners: dict[str, set[str]] = defaultdict(set)
        for item in self.items:
            for document in item.documents:
                owners[document.lang].add(item.family)
        self.answerable = frozenset(lang for lang, families in owners.items() if len(families) > 1)

    @property
    def families(self) -> int:
        """How many documents there are, translations not counted."""
        return len({item.family for item in self.items if item.queries})


def build_items(rows: Iterable[Row]) -> list[Item]:
    """Families of the rows of one dataset and one contrastive task, in the order of their first rows.

    Queries that belong to several families ("Introduction") are left out: their other answers would be taken for wrong.
    A family in one language is split by document, so that each query keeps its own answer.
    """
    families: dict[str, list[RetrievalRow]] = defaultdict(list)
    items: list[Item] = []
    for number, row in enumerate(rows):
        match row:
            case RetrievalRow():
                families[row.family].append(row)
            case BitextRow():
                texts = tuple(dict.fromkeys(Text(lang, text) for lang, text in zip(row.langs, row.texts, strict=True)))
                items.append(Item(f"{row.dataset}\t{row.group_id or number}", texts, texts, {}))
            case ParaphraseRow():
                family = f"{row.dataset}\t{row.group_id or number}"
                items.append(Item(family, (Text(row.lang, row.anchor),), (Text(row.lang, row.positive),), {}))
            case NliRow():
                item = Item(
                    f"{row.dataset}\t{canonical_text(row.anchor)}", (Text(row.lang, row.anchor),),
                    (Text(row.lang, row.positive),), {row.anchor: (row.negative,)},
                )  # fmt: skip
                items.append(item)
    owners: dict[str, set[str]] = defaultdict(set)
    for family, members in families.items():
        for row in members:
            owners[canonical_text(row.query)].add(family)
    for family, members in families.items():
        items += _retrieval_items(family, [row for row in members if len(owners[canonical_text(row.query)]) == 1])
    return items


def _retrieval_items(family: str, rows: Sequence[RetrievalRow]) -> list[Item]:
    groups: dict[str, list[RetrievalRow]] = defaultdict(list)
    translated = len({row.lang_doc for row in rows}) > 1
    for row in rows:
        groups["" if translated else row.positive].append(row)
    return [
        Item(
            f"{group[0].dataset}\t{group[0].work}" if group[0].work else family,
            tuple(dict.fromkeys(Text(row.lang_query, row.query) for row in group)),
            tuple(dict.fromkeys(Text(row.lang_doc, row.positive) for row in group)),
            {row.query: row.negatives for row in group if row.negatives},
        )
        for group in groups.values()
    ]


def plan_batches(rows: Mapping[str, Sequence[Row]], streams: Sequence[Stream], *, steps: int, seed: int) -> list[Batch]:
    """Batches for `steps` steps.

    Args:
        rows: Rows by dataset.
        streams: The streams; a stream's share of the steps is its weight over the sum of weights.
        steps: How many batches.
        seed: Decides everything.

    Raises:
        TrainingDataError: A stream finds no data, or not enough for a batch.
    """
    rng = random.Random(seed)
    sources = [_source(number, stream, rows, random.Random(rng.random())) for number, stream in enumerate(streams)]
    weights = [stream.weight for stream in streams]
    order = _interleave(weights, steps, rng)
    return [_cut(sources[number](), streams[number].max_chars) for number in order]


def _cut(batch: Batch, limit: int) -> Batch:
    if not limit:
        return batch

    def cut(column: str, cell: object) -> object:
        return truncate_graphemes(cell, limit) if isinstance(cell, str) and column != "kind" else cell

    return replace(batch, rows=tuple(tuple(map(cut, batch.columns, row)) for row in batch.rows))


def _interleave(weights: Sequence[float], steps: int, rng: random.Random) -> list[int]:
    """Stream of each step: shares as exact as whole steps allow, in random order."""
    total = sum(weights)
    counts = [int(steps * weight / total) for weight in weights]
    by_rest = sorted(range(len(weights)), key=lambda i: counts[i] - steps * weights[i] / total)
    for number in by_rest[: steps - sum(counts)]:
        counts[number] += 1
    order = [number for number, count in enumerate(counts) for _ in range(count)]
    rng.shuffle(order)
    return order


def _source(number: int, stream: Stream, rows: Mapping[str, Sequence[Row]], rng: random.Random) -> Callable[[], Batch]:
    wanted = {
        Objective.RETRIEVAL: RetrievalRow, Objective.BITEXT: BitextRow, Objective.PARAPHRASE: ParaphraseRow,
        Objective.NLI: NliRow, Objective.STS: StsRow, Objective.CLASSIFICATION: LabelledRow,
        Objective.RERANK: RetrievalRow, Objective.PARALLEL: BitextRow,
    }.get(stream.objective)  # fmt: skip
    chosen = {
        name: [row for row in members if wanted is None or isinstance(row, wanted)]
        for name, members in rows.items()
        if any(fnmatch(name, pattern) for pattern in stream.datasets)
    }
    chosen = {name: members for name, members in chosen.items() if members}
    if not chosen:
        known = ", ".join(sorted(rows)) or "none"
        raise TrainingDataError(
            f"stream {number + 1} ({stream.objective}): no rows for datasets {', '.join(stream.datasets)}. "
            f"Datasets read: {known}."
        )
    match stream.objective:
        case Objective.STS:
            return lambda: _draw_scored(number, stream, chosen, rng)
        case Objective.CLASSIFICATION:
            return lambda: _draw_labelled(number, stream, chosen, rng)
        case Objective.NEUTRAL:
            return NeutralSource(number, stream, chosen, rng)
        case Objective.PARALLEL:
            return ParallelSource(number, stream, chosen, rng)
        case _:
            items = {name: build_items(members) for name, members in chosen.items()}
            augmentation = build_augmentation(number, stream, rows, _texts_of(items.values()))
            if augmentation:
                items = {name: _that_fit(members, augmentation) for name, members in items.items()}
            pools = {name: Pool(members) for name, members in items.items()}
            _check_size(number, stream, pools)
            usable = {name: pool for name, pool in pools.items() if pool.families > 1}
            return lambda: _draw_pairs(number, stream, usable, augmentation, rng)


def _texts_of(pools: Iterable[Sequence[Item]]) -> Iterator[Text]:
    return (text for items in pools for item in items for text in (*item.queries, *item.documents))


def _that_fit(items: Iterable[Item], augmentation: Augmentation) -> list[Item]:
    """Items with the queries that have another form; those without any are left out."""
    fitting = (
        item._replace(queries=tuple(query for query in item.queries if augmentation.fits(*query))) for item in items
    )
    return [item for item in fitting if item.queries]


def _check_size(number: int, stream: Stream, pools: Mapping[str, Pool]) -> None:
    largest = max((pool.families for pool in pools.values()), default=0)
    if largest < 2:
        wanted = " whose queries hold names" if stream.code_switch else " whose queries are in other scripts than Latin"
        raise TrainingDataError(
            f"stream {number + 1} ({stream.objective}): in-batch negatives need two documents; the data has {largest}"
            f"{wanted if stream.code_switch or stream.romanize else ''}."
        )
    if stream.negatives >= largest:
        raise TrainingDataError(
            f"stream {number + 1} ({stream.objective}): {stream.negatives} negatives a query asked for, but the "
            f"largest dataset has {largest} documents; lower `negatives` or bring more data."
        )


def _draw(sizes: Mapping[str, int], temperature: float, rng: random.Random) -> str:
    names = sorted(sizes)
    return rng.choices(names, [sizes[name] ** (1 / temperature) for name in names])[0]


def _draw_langs(sizes: Mapping[str, int], count: int, temperature: float, rng: random.Random) -> list[str]:
    left = dict(sizes)
    drawn: list[str] = []
    while left and len(drawn) < count:
        drawn.append(_draw(left, temperature, rng))
        del left[drawn[-1]]
    return drawn


def _draw_pairs(
    number: int, stream: Stream, pools: Mapping[str, Pool], augmentation: Augmentation | None, rng: random.Random
) -> Batch:
    for _ in range(TRIES):
        pool = pools[_draw({name: len(pool.items) for name, pool in pools.items()}, stream.temperature, rng)]
        sizes = {lang: len(at) for lang, at in pool.by_lang.items()}
        langs = _draw_langs(sizes, stream.languages, stream.temperature, rng)
        rows, pairs, families = _draw_rows(stream, pool, langs, augmentation, rng)
        if len(rows) > 1:
            break
    else:
        raise TrainingDataError(
            f"stream {number + 1} ({stream.objective}): no two documents can meet in a batch of {stream.languages} "
            "languages; raise `languages`, or bring more data in each."
        )
    negatives = min(_wanted_negatives(stream), max(map(len, rows)) - 2)
    filled = [_fill(row, negatives, pair[0], pool, families, rng) for row, pair in zip(rows, pairs, strict=True)]
    columns = ("anchor", "positive", *(f"negative_{i + 1}" for i in range(negatives)))
    return Batch(number, columns, tuple(filled), tuple(pairs))


def _draw_rows(
    stream: Stream, pool: Pool, langs: Sequence[str], augmentation: Augmentation | None, rng: random.Random
) -> tuple[list[tuple[str, ...]], list[tuple[str, str]], set[str]]:
    """Query, document and given negatives of each place, their languages, and the families that meet."""
    rows: list[tuple[str, ...]] = []
    pairs: list[tuple[str, str]] = []
    families: set[str] = set()
    texts: set[str] = set()
    for _ in range(TRIES * stream.batch_size):
        if len(rows) == stream.batch_size:
            break
        item = pool.items[rng.choice(pool.by_lang[rng.choice(langs)])]
        if item.family in families:
            continue
        query, document = _choose(item, langs, stream.cross_lingual, rng)
        if query is None or document is None or {query.text, document.text} & texts:
            continue
        families.add(item.family)
        texts.update((query.text, document.text))
        given = [negative for negative in item.negatives.get(query.text, ()) if negative not in texts]
        rng.shuffle(given)
        if augmentation:
            query, document = _augment(stream, augmentation, query, document, rng)
        rows.append((query.text, document.text, *given[: _wanted_negatives(stream)]))
        pairs.append((query.lang, document.lang))
    kept = _accompanied(pairs, pool.answerable)
    return [rows[place] for place in kept], [pairs[place] for place in kept], families


def _augment(
    stream: Stream, augmentation: Augmentation, query: Text, document: Text, rng: random.Random
) -> tuple[Text, Text]:
    """The pair with another form of its query, in the share that the stream asks for."""
    if rng.random() >= stream.code_switch + stream.romanize:  # one of them is 0
        return query, document
    own = stream.romanize and stream.objective is Objective.BITEXT
    while True:
        changed = query._replace(text=augmentation.change(*query, other=document.lang, rng=rng))
        if not (own and stream.max_chars) or len(changed.text) <= stream.max_chars or len(query.text) < 2:
            break
        share = stream.max_chars / len(changed.text)  # cut later, the two would not end alike
        query = query._replace(text=truncate_graphemes(query.text, max(1, int(len(query.text) * share))))
    if own:
        return changed, query
    return (query if changed.text == document.text else changed), document


def _accompanied(pairs: Sequence[tuple[str, str]], answerable: frozenset[str]) -> list[int]:
    """Places whose queries meet a wrong document in their own language, where the pool has any in it.

    Where that would cost more than half of the batch, all stay: most documents are not in the queries' languages.
    """
    kept = list(range(len(pairs)))
    while True:
        documents = Counter(pairs[place][1] for place in kept)
        stays = [
            place for place in kept
            if pairs[place][0] not in answerable or documents[pairs[place][0]] > (pairs[place][0] == pairs[place][1])
        ]  # fmt: skip
        if len(stays) < max(2, len(pairs) / 2):
            return list(range(len(pairs)))
        if len(stays) == len(kept):
            return kept
        kept = stays


def _wanted_negatives(stream: Stream) -> int:
    return 1 if stream.objective is Objective.NLI else stream.negatives


def _fill(
    row: tuple[str, ...], negatives: int, lang: str, pool: Pool, families: set[str], rng: random.Random
) -> tuple[str, ...]:
    """The row with as many negatives as the batch's other rows: the missing ones at random, in the query's language."""
    missing = 2 + negatives - len(row)
    places = pool.by_lang[lang]
    found: list[str] = []
    for _ in range(TRIES * max(missing, 0)):
        item = pool.items[rng.choice(places)]
        documents = [document.text for document in item.documents if document.lang == lang and document.text not in row]
        if len(found) < missing and item.family not in families and documents:
            found.append(rng.choice(documents))
    while len(found) < missing:  # a pool as small as the batch: repeat one that the batch holds as a negative already
        found.append(row[2] if len(row) > 2 else _any_other(pool, row[1], rng))
    return (*row, *found)


def _any_other(pool: Pool, positive: str, rng: random.Random) -> str:
    owner = next(item.family for item in pool.items if any(document.text == positive for document in item.documents))
    others = [item for item in pool.items if item.family != owner]
    return rng.choice(rng.choice(others).documents).text


def _choose(
    item: Item, langs: Sequence[str], cross_lingual: float, rng: random.Random
) -> tuple[Text | None, Text | None]:
    """A query and a document of the item, in two languages or in one, as the share of cross-lingual pairs asks."""
    queries = [query for query in item.queries if query.lang in langs]
    if not queries:
        return None, None
    query = rng.choice(queries)
    others = [document for document in item.documents if document.text != query.text]
    same = [document for document in others if document.lang == query.lang]
    cross = [document for document in others if document.lang != query.lang and document.lang in langs]
    cross = cross or [document for document in others if document.lang != query.lang]
    prefer_cross = rng.random() < cross_lingual
    first, second = (cross, same) if prefer_cross else (same, cross)
    documents = first or second
    return query, rng.choice(documents) if documents else None


def _draw_scored(number: int, stream: Stream, rows: Mapping[str, Sequence[Row]], rng: random.Random) -> Batch:
    name = _draw({name: len(members) for name, members in rows.items()}, stream.temperature, rng)
    drawn = rng.sample(rows[name], min(stream.batch_size, len(rows[name])))
    scored = [row for row in drawn if isinstance(row, StsRow)]
    return Batch(
        number, ("sentence1", "sentence2", "score"),
        tuple((row.text_a, row.text_b, row.score / 5) for row in scored), tuple(row.langs for row in scored),
    )  # fmt: skip


def _draw_labelled(number: int, stream: Stream, rows: Mapping[str, Sequence[Row]], rng: random.Random) -> Batch:
    """Texts of one dataset, at least two of each of at least two labels: a label's texts are each other's positives."""
    by_label: dict[str, list[LabelledRow]] = defaultdict(list)
    name = _draw({name: len(members) for name, members in rows.items()}, stream.temperature, rng)
    for row in rows[name]:
        if isinstance(row, LabelledRow):
            by_label[row.label].append(row)
    labels = sorted(label for label, members in by_label.items() if len(members) > 1)
    if len(labels) < 2:
        raise TrainingDataError(f"dataset {name!r}: two labels with two texts each are needed; it has {len(labels)}.")
    chosen = rng.sample(labels, min(len(labels), stream.batch_size // 2))
    share = stream.batch_size // len(chosen)
    drawn = [row for label in chosen for row in rng.sample(by_label[label], min(share, len(by_label[label])))]
    numbers = {label: i for i, label in enumerate(chosen)}
    return Batch(
        number, ("text", "label"), tuple((row.text, numbers[row.label]) for row in drawn),
        tuple((row.lang, row.lang) for row in drawn),
    )  # fmt: skip


class NeutralSource:
    """Plain texts with their languages, as queries and as documents, for self-distillation."""

    def __init__(self, number: int, stream: Stream, rows: Mapping[str, Sequence[Row]], rng: random.Random) -> None:
        self.number, self.stream, self.rng = number, stream, rng
        self.texts: dict[str, dict[bool, list[str]]] = defaultdict(lambda: {False: [], True: []})
        for members in rows.values():
            for row in members:
                for lang, text, is_query in _plain_texts(row):
                    self.texts[lang][is_query].append(text)
        self.sizes = {lang: sum(map(len, kinds.values())) for lang, kinds in self.texts.items()}
        self.kinds = {is_query for kinds in self.texts.values() for is_query, texts in kinds.items() if texts}
        if not self.kinds:
            raise TrainingDataError(
                f"stream {number + 1} ({stream.objective}): its texts are those of retrieval and bitext rows; none."
            )

    def __call__(self) -> Batch:
        """A batch over many languages."""
        is_query = self.rng.random() < self.stream.queries
        if is_query not in self.kinds:
            is_query = not is_query
        langs = [lang for lang in self.texts if self.texts[lang][is_query]]
        drawn = [_draw({lang: self.sizes[lang] for lang in langs}, self.stream.temperature, self.rng)
                 for _ in range(self.stream.batch_size)]  # fmt: skip
        kind = "query" if is_query else "document"
        texts = [self.rng.choice(self.texts[lang][is_query]) for lang in drawn]
        rows = tuple((text, kind) for text in texts)
        return Batch(self.number, ("text", "kind"), rows, tuple((lang, lang) for lang in drawn))


class ParallelSource:
    """Texts with a translation each, both as queries or both as documents, to be taught one vector."""

    def __init__(self, number: int, stream: Stream, rows: Mapping[str, Sequence[Row]], rng: random.Random) -> None:
        self.number, self.stream, self.rng = number, stream, rng
        self.pairs: dict[str, list[tuple[BitextRow, int]]] = defaultdict(list)
        for members in rows.values():
            for row in members:
                if isinstance(row, BitextRow):
                    for place, lang in enumerate(row.langs):
                        self.pairs[lang].append((row, place))
        self.sizes = {lang: len(found) for lang, found in self.pairs.items()}

    def __call__(self) -> Batch:
        """A batch over many languages; translations are into any other."""
        kind = "query" if self.rng.random() < self.stream.queries else "document"
        texts, langs = [], []
        for _ in range(self.stream.batch_size):
            row, place = self.rng.choice(self.pairs[_draw(self.sizes, self.stream.temperature, self.rng)])
            other = self.rng.choice([at for at in range(len(row.texts)) if at != place])
            texts.append((row.texts[place], row.texts[other], kind))
            langs.append((row.langs[place], row.langs[other]))
        return Batch(self.number, ("text", "translation", "kind"), tuple(texts), tuple(langs))


def _plain_texts(row: Row) -> Iterable[tuple[str, str, bool]]:
    match row:
        case RetrievalRow():
            yield row.lang_query, row.query, True
            yield row.lang_doc, row.positive, False
        case BitextRow():
            for lang, text in zip(row.langs, row.texts, strict=True):
                yield lang, text, True
                yield lang, text, False
