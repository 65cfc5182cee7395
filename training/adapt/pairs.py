"""Training rows from passages that nobody has labelled.

    adapt-queries       queries by templates or a language model, for a passage and its translations
    adapt-context       a passage and the one that follows it; title and headings and the passage below them
    adapt-translations  titles and aligned passages of documents that are translations of one another

Every row names its work: two passages of one document, or of a document and its translation, never meet in a batch,
where one would be taken for a wrong answer to the other's query.

Source: arXiv 2206.03281 (contextual contrastive prediction: a text and what stands around it mean related things).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from search.passages import passage_text
from search.records import UNDETERMINED, Chunk
from search.text import truncate_graphemes
from training.adapt.corpus import Corpus, KnownPassages
from training.data.cleaning import canonical_text
from training.data.schema import BitextRow, RetrievalRow
from training.mining import MiningOptions, mine_negatives
from training.prepare import fraction
from training.synthesis.documents import SourceDocument, SyntheticQuery
from training.synthesis.round_trip import filter_round_trip
from training.synthesis.templates import Form, TemplateOptions, iter_template_queries

QUERIES, CONTEXT, TRANSLATIONS = "adapt-queries", "adapt-context", "adapt-translations"
MOST_QUERIED = 2500
"""Passages that queries are made for: more than a run on a CPU can look at."""
PER_PASSAGE = 2
MARGIN = 0.015
"""Encoders of the E5 family; see `training.mining.MiningOptions`."""
NEGATIVES = 4
CONTEXT_CHARS = 300
LEAST_LETTERS = 40
"""Shorter passages are navigation and captions."""

WriteQueries = Callable[[Sequence[SourceDocument]], list[SyntheticQuery]]


def template_queries(documents: Sequence[SourceDocument], *, seed: int) -> list[SyntheticQuery]:
    """Queries by the templates of each passage's language."""
    return list(iter_template_queries(documents, options=TemplateOptions(per_document=PER_PASSAGE, seed=seed)))


def choose_queried(corpus: Corpus, chunks: Sequence[Chunk], *, seed: int, most: int = MOST_QUERIED) -> list[Chunk]:
    """Passages to make queries for, by hash; a passage and its translations are chosen together."""
    usable = [chunk for chunk in chunks if chunk.lang != UNDETERMINED and _letters(chunk.text) >= LEAST_LETTERS]
    ranked = sorted(usable, key=lambda chunk: (fraction(corpus.place_key(chunk), seed), chunk.id))[:most]
    chosen = {chunk.id for chunk in ranked}
    return [chunk for chunk in usable if chunk.id in chosen]


def query_rows(
    corpus: Corpus, chunks: Sequence[Chunk], encoder: KnownPassages, write: WriteQueries
) -> list[RetrievalRow]:
    """Queries that find their own document again, with hard negatives.

    A query of keywords, or of a language model, is answered by the passage as it is indexed; one made of the title or
    a heading by the text alone, which must be understood to be found.
    """
    sources = {(chunk.document_id, chunk.text): chunk for chunk in chunks if chunk.text.strip()}
    documents = [
        SourceDocument(chunk.document_id, chunk.lang, chunk.title, chunk.headings, chunk.text)
        for chunk in sources.values()
    ]
    queries = filter_round_trip(write(documents), documents, encoder).kept
    rows = [(query, sources[query.document.id, query.document.text]) for query in queries]
    return _with_negatives(corpus, rows, encoder)


def _with_negatives(
    corpus: Corpus, queries: Sequence[tuple[SyntheticQuery, Chunk]], encoder: KnownPassages
) -> list[RetrievalRow]:
    """Rows with mined negatives, none of them of the query's own work."""
    rows = [
        RetrievalRow(dataset=QUERIES, query=query.query, positive=passage_text(chunk), lang_query=query.lang,
                     lang_doc=chunk.lang, doc_id=corpus.works[chunk.document_id])
        for query, chunk in queries
    ]  # fmt: skip
    of_text = {passage_text(chunk): chunk for _, chunk in queries}
    foreign = len({corpus.works[chunk.document_id] for chunk in of_text.values()}) - 1
    if foreign >= NEGATIVES:
        options = MiningOptions(per_query=NEGATIVES, margin=MARGIN, candidates=30, sample=0)
        rows = list(mine_negatives(rows, encoder, options=options).rows)
    finished = []
    for row, (query, chunk) in zip(rows, queries, strict=True):
        as_indexed = query.form == Form.KEYWORD or query.form not in set(Form)
        negatives = tuple(text if as_indexed else of_text[text].text for text in row.negatives if text in of_text)
        finished.append(
            RetrievalRow(dataset=QUERIES, query=row.query, positive=row.positive if as_indexed else chunk.text,
                         lang_query=row.lang_query, lang_doc=row.lang_doc, doc_id=corpus.place_key(chunk),
                         work=corpus.works[chunk.document_id], negatives=negatives)
        )  # fmt: skip
    return finished


def context_rows(corpus: Corpus, chunks: Sequence[Chunk]) -> Iterator[RetrievalRow]:
    """Neighbours within a document and language, and what a title and headings lead to."""
    for first, second in pairwise(chunks):
        if (first.document_id, first.lang) == (second.document_id, second.lang) and second.number == first.number + 1:
            yield from _context(corpus, truncate_graphemes(first.text, CONTEXT_CHARS), second)
    for chunk in chunks:
        lines = dict.fromkeys(" ".join(line.split()) for line in (chunk.title, *chunk.headings))
        path = " ".join(line for line in lines if line)
        if chunk.headings and canonical_text(path) not in canonical_text(chunk.text):
            yield from _context(corpus, path, chunk)


def _context(corpus: Corpus, query: str, chunk: Chunk) -> Iterator[RetrievalRow]:
    if min(_letters(query), _letters(chunk.text)) > 0 and chunk.lang != UNDETERMINED:
        yield RetrievalRow(
            dataset=CONTEXT, query=query, positive=chunk.text, lang_query=chunk.lang, lang_doc=chunk.lang,
            doc_id=chunk.id, work=corpus.works[chunk.document_id],
        )  # fmt: skip


def translation_rows(corpus: Corpus, chunks: Sequence[Chunk]) -> Iterator[BitextRow]:
    """Passages in the same place of a work, and titles of the work, each in two languages or more."""
    passages: dict[str, list[Chunk]] = defaultdict(list)
    titles: dict[str, dict[str, Chunk]] = defaultdict(dict)
    for chunk in chunks:
        if (work := corpus.works[chunk.document_id]) in corpus.translations and chunk.lang != UNDETERMINED:
            passages[corpus.place_key(chunk)].append(chunk)
            if chunk.number == 0 and chunk.title:
                titles[work].setdefault(canonical_text(chunk.title), chunk)
    for found in passages.values():
        yield from _parallel(corpus, found, [chunk.text for chunk in found])
    for named in titles.values():
        yield from _parallel(corpus, list(named.values()), [chunk.title for chunk in named.values()])


def _parallel(corpus: Corpus, chunks: Sequence[Chunk], texts: Sequence[str]) -> Iterator[BitextRow]:
    by_lang = {chunk.lang: text for chunk, text in zip(chunks, texts, strict=True) if _letters(text)}
    if len({canonical_text(text) for text in by_lang.values()}) > 1:
        yield BitextRow(dataset=TRANSLATIONS, langs=tuple(by_lang), texts=tuple(by_lang.values()),
                        group_id=corpus.works[chunks[0].document_id])  # fmt: skip


def _letters(text: str) -> int:
    return sum(map(str.isalpha, text))
